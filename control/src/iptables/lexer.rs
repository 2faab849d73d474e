//! Lines and words of iptables-save text, split exactly as iptables-restore splits them. Control thread and tools only.
//!
//! Invariant: every word and line remembers its bytes in the file; nothing here is longer than iptables-restore's own
//! buffers, so whatever follows works on bounded input.
//!
//! iptables-restore's splitter: words end at blanks; a double quote opens a stretch in which blanks are ordinary and a
//! backslash makes the next byte ordinary; the closing quote ends the word even without a blank.

use super::diagnostics::{Diagnostic, Span};

/// Longest line iptables-restore reads at once, in bytes, newline included (its buffer is 10240 with the final NUL).
pub const LINE_BYTES_MAX: usize = 10_239;

/// Longest word iptables-restore takes, in bytes (its buffer is 1024 with the final NUL).
pub const WORD_BYTES_MAX: usize = 1_023;

/// Most words on one line (iptables-restore's argument array is 255 with the program's name and the terminator).
pub const WORDS_MAX: usize = 253;

/// One line of the file.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Number, from one.
    pub number: u32,
    /// Where it begins in the file.
    pub start: usize,
    /// Its bytes without the newline.
    pub bytes: &'a [u8],
}

/// One word of a line, quotes and escapes resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// What it says.
    pub text: String,
    /// Where it stands, quotes included.
    pub span: Span,
}

impl Line<'_> {
    /// The whole line as a place.
    #[must_use]
    pub fn span(&self) -> Span {
        Span { line: self.number, start: self.start, end: self.start + self.bytes.len() }
    }

    /// Bytes `from..to` of the line as a place.
    #[must_use]
    pub fn part(&self, from: usize, to: usize) -> Span {
        Span { line: self.number, start: self.start + from, end: self.start + to }
    }
}

/// The lines of a file. A final newline does not start another line.
pub fn lines(text: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut start = 0;
    let mut number = 0u32;
    std::iter::from_fn(move || {
        let rest = text.get(start..).filter(|rest| !rest.is_empty())?;
        let len = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        number = number.saturating_add(1);
        let line = Line { number, start, bytes: rest.get(..len).unwrap_or_default() };
        start += len + 1;
        Some(line)
    })
}

/// Refuses what no iptables-restore can read as one line of text.
///
/// # Errors
/// A diagnostic for NUL bytes, a carriage return at the end, foreign bytes or an overlong line.
pub fn check_line(line: Line<'_>) -> Result<&str, Diagnostic> {
    if line.bytes.len() >= LINE_BYTES_MAX {
        let message = format!(
            "this line has {} bytes, iptables-restore reads at most {LINE_BYTES_MAX}",
            line.bytes.len()
        );
        return Err(Diagnostic::error(line.part(0, 1), message).hint("split the rule into several"));
    }
    if let Some(at) = line.bytes.iter().position(|&byte| byte == 0) {
        let span = line.part(at, at + 1);
        return Err(Diagnostic::error(span, "NUL byte in a rules file").hint("is this really a text file?"));
    }
    if line.bytes.ends_with(b"\r") {
        let span = line.part(line.bytes.len() - 1, line.bytes.len());
        let hint = "the file has Windows line ends; convert it with `sed -i 's/\\r$//' FILE`";
        return Err(Diagnostic::error(span, "carriage return at the end of the line").hint(hint));
    }
    std::str::from_utf8(line.bytes).map_err(|error| {
        let at = error.valid_up_to();
        Diagnostic::unsupported(line.part(at, at + 1), "bytes that are not UTF-8 text")
            .hint("only comments could mean something with them; write the comment in UTF-8")
    })
}

/// Splits `text`, which begins `from` bytes into `line`, into words.
///
/// # Errors
/// A diagnostic for a quote never closed, a word too long or too many words.
pub fn words(line: Line<'_>, text: &str, from: usize) -> Result<Vec<Word>, Diagnostic> {
    let mut words = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some(&(start, c)) = chars.peek() {
        if is_blank(c) {
            chars.next();
            continue;
        }
        let (word, end) = word(&mut chars, text.len()).map_err(|quote| {
            let span = line.part(from + quote, from + quote + 1);
            Diagnostic::unsupported(span, "this quote is never closed")
                .hint("iptables-restore would take the rest of the line, its end included, as one word")
        })?;
        let span = line.part(from + start, from + end);
        if word.len() > WORD_BYTES_MAX {
            return Err(Diagnostic::error(span, "word too long")
                .hint(format!("iptables-restore takes at most {WORD_BYTES_MAX} bytes per word")));
        }
        if words.len() == WORDS_MAX {
            return Err(Diagnostic::error(span, format!("more than {WORDS_MAX} words on one line")));
        }
        words.push(Word { text: word, span });
    }
    Ok(words)
}

/// Reads one word; gives its text and where it ends, or the place of a quote that is never closed.
fn word(
    chars: &mut std::iter::Peekable<std::str::CharIndices<'_>>,
    len: usize,
) -> Result<(String, usize), usize> {
    let mut word = String::new();
    while let Some((at, c)) = chars.next() {
        if is_blank(c) {
            return Ok((word, at));
        }
        if c != '"' {
            word.push(c);
            continue;
        }
        loop {
            match chars.next() {
                Some((end, '"')) => return Ok((word, end + 1)),
                Some((_, '\\')) => word.extend(chars.next().map(|(_, c)| c)),
                Some((_, c)) => word.push(c),
                None => return Err(at),
            }
        }
    }
    Ok((word, len))
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        let line = Line { number: 1, start: 0, bytes: text.as_bytes() };
        words(line, text, 0).unwrap().into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn words_split_as_iptables_restore_splits_them() {
        assert_eq!(split("-A  F\t-j X "), ["-A", "F", "-j", "X"]);
        assert_eq!(split(r#"abc"def"ghi"#), ["abcdef", "ghi"], "a closing quote ends the word");
        assert_eq!(split(r#""a \"b\" \\ c" d"#), [r#"a "b" \ c"#, "d"]);
        assert_eq!(split(r#"a\"b c""#), [r"a\b c"], "no escapes outside quotes");
        assert_eq!(split("'a b'"), ["'a", "b'"], "single quotes mean nothing");
        assert_eq!(split("\"\" x"), ["", "x"]);
    }

    #[test]
    fn words_remember_their_place() {
        let text = "  -s \"1.2.3.4\"";
        let line = Line { number: 3, start: 100, bytes: text.as_bytes() };
        let words = words(line, text, 0).unwrap();
        assert_eq!(words[0].span, Span { line: 3, start: 102, end: 104 });
        assert_eq!(words[1].span, Span { line: 3, start: 105, end: 114 });
    }

    #[test]
    fn an_open_quote_is_refused_at_the_quote() {
        let text = "x \"abc";
        let line = Line { number: 1, start: 0, bytes: text.as_bytes() };
        assert_eq!(words(line, text, 0).unwrap_err().span.start, 2);
    }

    #[test]
    fn junk_lines_are_named() {
        let check = |bytes: &[u8]| check_line(Line { number: 1, start: 0, bytes }).unwrap_err().message;
        assert_eq!(check(b"a\0b"), "NUL byte in a rules file");
        assert_eq!(check(b"COMMIT\r"), "carriage return at the end of the line");
        assert_eq!(check(b"\xff"), "bytes that are not UTF-8 text");
        assert!(check(&vec![b'x'; 10_000_000]).starts_with("this line has 10000000 bytes"));
    }

    #[test]
    fn a_final_newline_starts_no_line() {
        assert_eq!(lines(b"a\n\nb\n").map(|line| line.bytes.len()).collect::<Vec<_>>(), [1, 0, 1]);
        assert_eq!(lines(b"").count(), 0);
    }
}
