//! Words and their places. A line is cut at blanks; double quotes keep blanks together, and within them a backslash
//! takes the next character as it is, as iptables-restore reads what iptables-save wrote.

use std::ops::Range;

/// One word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Without its quotes.
    pub(super) text: String,
    /// Where it stands, quotes included.
    pub(super) span: Range<usize>,
    /// Whether it was quoted, and so is never an option or a `!`.
    pub(super) quoted: bool,
}

/// A quote that is not closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpenQuote(pub(super) Range<usize>);

/// Cuts a line into words. `offset` is where the line starts in the text.
pub(super) fn words(line: &str, offset: usize) -> Result<Vec<Word>, OpenQuote> {
    let mut words = Vec::new();
    let mut chars = line.char_indices().peekable();
    while let Some(&(start, first)) = chars.peek() {
        if first == ' ' || first == '\t' {
            chars.next();
            continue;
        }
        let mut word = Word { text: String::new(), span: offset + start..offset + start, quoted: false };
        let mut in_quotes = None;
        while let Some(&(at, char)) = chars.peek() {
            if in_quotes.is_none() && (char == ' ' || char == '\t') {
                break;
            }
            chars.next();
            word.span.end = offset + at + char.len_utf8();
            match char {
                '"' if in_quotes.take().is_none() => {
                    in_quotes = Some(at);
                    word.quoted = true;
                }
                '"' => {}
                '\\' if in_quotes.is_some() => {
                    if let Some((at, escaped)) = chars.next() {
                        word.span.end = offset + at + escaped.len_utf8();
                        word.text.push(escaped);
                    }
                }
                _ => word.text.push(char),
            }
        }
        if let Some(at) = in_quotes {
            return Err(OpenQuote(offset + at..offset + line.len()));
        }
        words.push(word);
    }
    Ok(words)
}

/// A word as iptables-save writes it: quoted if it holds anything beyond plain characters.
pub(super) fn quoted(text: &str) -> String {
    const SPECIAL: &str = "\"'\\ \t\n";
    if !text.is_empty() && !text.contains(|char| SPECIAL.contains(char)) {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for char in text.chars() {
        if char == '"' || char == '\\' || char == '\'' {
            quoted.push('\\');
        }
        quoted.push(char);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        words(line, 0).unwrap().into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn blanks_separate_and_quotes_join() {
        assert_eq!(texts("-A FORWARD\t -m comment --comment \"a b\""), ["-A", "FORWARD", "-m", "comment", "--comment", "a b"]);
        assert_eq!(texts(r#""a\"b\\c" x"y z"w"#), [r#"a"b\c"#, "xy zw"]);
        assert_eq!(texts(""), Vec::<String>::new());
        assert_eq!(words("a \"b", 10), Err(OpenQuote(12..14)));
    }

    #[test]
    fn words_know_where_they_stand() {
        let words = words("  -A \"x y\"", 100).unwrap();
        assert_eq!((words[0].span.clone(), words[1].span.clone()), (102..104, 105..110));
        assert!(words[1].quoted);
    }
}
