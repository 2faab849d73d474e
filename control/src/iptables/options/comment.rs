//! `-m comment`: matches everything, remembers a text. A text that begins with [`MANAGEMENT`] also marks its rule: flows
//! that the rule accepts may use the reserve of a full flow table. So the mark survives in any iptables-save file.

use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::printer::quote;

/// Longest comment the kernel keeps, in bytes (XT_MAX_COMMENT_LEN with the final NUL).
const COMMENT_BYTES_MAX: usize = 255;

/// Begins the comment of a rule for management.
pub const MANAGEMENT: &str = "palisade:management";

/// `-m comment`.
pub static COMMENT: Extension = Extension {
    kind: Kind::Match,
    names: &["comment"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[OptionSpec { name: "comment", id: 1, slot: 1, args: 1, invertible: false }],
    new: |_| Box::new(Comment::default()),
};

#[derive(Debug, Default)]
struct Comment {
    text: Option<String>,
}

impl Comment {
    fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }
}

impl Instance for Comment {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        if word.text.len() > COMMENT_BYTES_MAX {
            let message =
                format!("this comment has {} bytes, the kernel keeps {COMMENT_BYTES_MAX}", word.text.len());
            return Err(Diagnostic::unsupported(word.span, message).hint("shorten it"));
        }
        self.text = Some(word.text.clone());
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        if self.text.is_none() {
            return Err(
                Diagnostic::error(span, "`-m comment` without a comment").hint("add `--comment TEXT`")
            );
        }
        Ok(())
    }

    fn print(&self, out: &mut String) {
        out.push_str(" -m comment --comment ");
        quote(self.text(), out);
    }

    fn list(&self, out: &mut String) {
        out.push_str(" /* ");
        out.push_str(self.text());
        out.push_str(" */");
    }

    fn comment(&self) -> Option<&str> {
        self.text.as_deref()
    }

    fn marks_management(&self) -> bool {
        self.text().starts_with(MANAGEMENT)
    }

    fn lower(&self) -> Lowered {
        Lowered::Matches(Vec::new())
    }
}
