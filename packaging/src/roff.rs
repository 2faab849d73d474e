//! The few macros of man(7) that the pages need beside those that `clap_mangen` writes.

use std::fmt::Write as _;

/// A page in the making.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

impl Page {
    /// Text that is roff already.
    pub(crate) fn raw(&mut self, text: &str) {
        self.0.push_str(text);
    }

    /// `.TH`.
    pub(crate) fn title(&mut self, name: &str, section: &str, date: &str) {
        let _ = writeln!(
            self.0,
            ".TH {} {section} {date} \"{}\" \"{}\"",
            escaped(&name.to_uppercase()),
            super::manual::source(),
            super::manual::MANUAL
        );
    }

    /// A section's heading.
    pub(crate) fn heading(&mut self, text: &str) {
        let _ = writeln!(self.0, ".SH \"{}\"", escaped(text));
    }

    /// A heading within a section.
    pub(crate) fn sub_heading(&mut self, text: &str) {
        let _ = writeln!(self.0, ".SS \"{}\"", escaped(text));
    }

    /// A line of running text.
    pub(crate) fn text(&mut self, text: &str) {
        let _ = writeln!(self.0, "{}", line(text));
    }

    /// Begins another paragraph.
    pub(crate) fn paragraph(&mut self) {
        self.0.push_str(".PP\n");
    }

    /// A term in bold, what follows it as it is, and what it means.
    pub(crate) fn term(&mut self, term: &str, follows: &str, meaning: &str) {
        let _ = writeln!(self.0, ".TP\n\\fB{}\\fR{}\n{}", escaped(term), escaped(follows), line(meaning));
    }

    /// Lines as they are, indented.
    pub(crate) fn example(&mut self, lines: &str) {
        self.0.push_str(".RS 4\n.nf\n");
        for text in lines.lines() {
            let _ = writeln!(self.0, "{}", line(text));
        }
        self.0.push_str(".fi\n.RE\n");
    }

    /// Other pages, each with its section: `fwd(8)`.
    pub(crate) fn see_also(&mut self, pages: &[String]) {
        self.heading("SEE ALSO");
        for (index, page) in pages.iter().enumerate() {
            let comma = if index + 1 < pages.len() { "," } else { "" };
            let (name, section) = page.split_once('(').unwrap_or((page, ""));
            let _ = writeln!(self.0, ".BR {} ({section}{comma}", escaped(name));
        }
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }
}

/// Characters that roff reads as something else. Quotation marks inside a macro's argument would end it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('\'', "\\(aq")
        .replace('`', "\\(ga")
        .replace('"', "\\(dq")
}

/// The same for a whole line, which must not begin as a macro does.
fn line(text: &str) -> String {
    let text = escaped(text);
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_roff_would_take_for_its_own_is_escaped() {
        assert_eq!(line(".hidden -j 'x' \\"), "\\&.hidden \\-j \\(aqx\\(aq \\e");
        let mut page = Page::default();
        page.see_also(&["fwd(8)".to_owned(), "fwd.toml(5)".to_owned()]);
        assert_eq!(page.finish(), ".SH \"SEE ALSO\"\n.BR fwd (8),\n.BR fwd.toml (5)\n");
    }
}
