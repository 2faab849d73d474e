//! A line of ipset's as words with their places.

use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;

/// Longest line, in bytes.
const LINE_BYTES_MAX: usize = 4096;

/// The words of a line that begins `start` bytes into its file. Blanks part them; what is between `"` is one.
///
/// # Errors
/// If the line is too long, is no text, or a quote is not closed.
pub fn words(bytes: &[u8], number: u32, start: usize) -> Result<Vec<Word>, Diagnostic> {
    let place = |from: usize, to: usize| Span { line: number, start: start + from, end: start + to };
    if bytes.len() > LINE_BYTES_MAX {
        let message = format!("this line has {} bytes; {LINE_BYTES_MAX} are the most", bytes.len());
        return Err(Diagnostic::error(place(0, bytes.len()), message));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(Diagnostic::error(place(0, bytes.len()), "this line is not UTF-8"));
    };
    if let Some(at) = text.find(|c: char| c.is_control() && !matches!(c, '\t' | '\r')) {
        return Err(Diagnostic::error(place(at, at + 1), "a control character"));
    }
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(skip) = text[at..].find(|c: char| !matches!(c, ' ' | '\t' | '\r')) {
        at += skip;
        let (from, inner, to, end);
        if text[at..].starts_with('"') {
            let Some(close) = text[at + 1..].find('"') else {
                return Err(Diagnostic::error(place(at, text.len()), "this quote is not closed"));
            };
            (from, inner, to, end) = (at, at + 1, at + 1 + close, at + 2 + close);
        } else {
            let len = text[at..].find([' ', '\t', '\r']).unwrap_or(text.len() - at);
            (from, inner, to, end) = (at, at, at + len, at + len);
        }
        words.push(Word { text: text[inner..to].to_owned(), span: place(from, end) });
        at = end;
    }
    Ok(words)
}

/// Lines of a text, without those that say nothing, by number and place.
pub fn lines(text: &[u8]) -> impl Iterator<Item = (u32, usize, &[u8])> {
    let mut start = 0;
    let numbered = (1_u32..).zip(text.split(|byte| *byte == b'\n')).map(move |(number, line)| {
        let at = start;
        start += line.len() + 1;
        (number, at, line)
    });
    numbered.filter(|(_, _, line)| {
        let first = line.iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r'));
        first.is_some_and(|byte| *byte != b'#')
    })
}
