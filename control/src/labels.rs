//! Names of connection labels, as connlabel.conf gives them: what rules, `fwctl flows` and its filters call labels by.
//! Control thread, API threads and tools. Numbers always do as well; without the file there are only numbers.

use dataplane::rules::conn::LABELS;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::iptables::options::number;

/// Where Debian's iptables and conntrack look for it.
pub const LABELS_PATH: &str = "/etc/xtables/connlabel.conf";

/// What labels are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelNames {
    names: BTreeMap<u8, String>,
}

/// Why a file of names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LabelsError {
    /// It is there and cannot be read.
    #[error("cannot read {file}: {source}")]
    Unreadable {
        /// Which file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// A line of it is wrong; libnetfilter_conntrack would skip it.
    #[error("{file}:{line}: {why}")]
    Line {
        /// Which file.
        file: String,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

impl LabelNames {
    /// Nothing but numbers.
    #[must_use]
    pub const fn none() -> Self {
        Self { names: BTreeMap::new() }
    }

    /// Reads a file; one that is not there names nothing.
    ///
    /// # Errors
    /// If it cannot be read, or at its first bad line.
    pub fn load(path: &Path) -> Result<Self, LabelsError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, &file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(LabelsError::Unreadable { file, source }),
        }
    }

    /// Reads text: a number and a name on each line, `#` at its start makes it a comment.
    ///
    /// # Errors
    /// At the first bad line.
    pub fn parse(text: &str, file: &str) -> Result<Self, LabelsError> {
        let mut names = Self::default();
        for (line, number) in text.lines().zip(1..) {
            let is_empty = line.starts_with('#') || line.trim().is_empty();
            if let Err(why) = if is_empty { Ok(()) } else { names.add(line) } {
                return Err(LabelsError::Line { file: file.to_owned(), line: number, why });
            }
        }
        Ok(names)
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        let (label, name) = line.trim().split_once([' ', '\t']).unwrap_or((line.trim(), ""));
        let name = name.trim();
        let label =
            label_number(label).ok_or_else(|| format!("`{label}` is no label from 0 to {}", LABELS - 1))?;
        if name.is_empty() {
            return Err(format!("label {label} has no name"));
        }
        let is_fit =
            |at: usize, byte: u8| byte.is_ascii_alphanumeric() || at > 0 && matches!(byte, b'-' | b' ');
        if !name.bytes().enumerate().all(|(at, byte)| is_fit(at, byte)) {
            return Err(format!("`{name}` is no name: letters, digits, then also `-` and blanks"));
        }
        if number(name, u64::MAX).is_some() {
            return Err(format!("`{name}` is a number; as a name it would be taken for another label"));
        }
        if let Some((other, _)) = self.names.iter().find(|(_, known)| *known == name) {
            return Err(format!("`{name}` is label {other} already"));
        }
        if let Some(other) = self.names.insert(label, name.to_owned()) {
            return Err(format!("label {label} is called `{other}` already"));
        }
        Ok(())
    }

    /// The label that a number or a name means.
    #[must_use]
    pub fn label(&self, text: &str) -> Option<u8> {
        let named = || self.names.iter().find(|(_, name)| *name == text).map(|(label, _)| *label);
        label_number(text).or_else(named)
    }

    /// What a label is called: its name, or else its number.
    #[must_use]
    pub fn name(&self, label: u8) -> String {
        self.names.get(&label).cloned().unwrap_or_else(|| label.to_string())
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.values().map(String::as_str)
    }

    /// What the labels of a set, one bit each, are called.
    #[must_use]
    pub fn list(&self, labels: u128) -> Vec<String> {
        (0..LABELS).filter(|label| labels >> label & 1 != 0).map(|label| self.name(label)).collect()
    }

    /// The labels of a comma-separated list, one bit each.
    ///
    /// # Errors
    /// Names the first word that is no label.
    pub fn set(&self, list: &str) -> Result<u128, String> {
        list.split(',').try_fold(0, |set, word| {
            let label = self.label(word).ok_or_else(|| format!("unknown label '{word}'"))?;
            Ok(set | 1 << label)
        })
    }
}

/// A label by its number.
fn label_number(text: &str) -> Option<u8> {
    number(text, u64::from(LABELS - 1)).and_then(|label| u8::try_from(label).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_numbers_do_as_well() {
        let names = LabelNames::parse("# c\n\n0 zero\n 0x5\teth0-in  \n127 two words\n010 x\n", "f").unwrap();
        for (text, label) in
            [("zero", 0), ("eth0-in", 5), ("5", 5), ("two words", 127), ("x", 8), ("0x10", 16), ("127", 127)]
        {
            assert_eq!(names.label(text), Some(label), "{text}");
        }
        assert_eq!(["", "one", "128", "-1", "5x"].map(|text| names.label(text)), [None; 5]);
        assert_eq!(names.list(1 << 127 | 1 << 7 | 1 << 5), ["eth0-in", "7", "two words"]);
        assert_eq!(names.set("zero,127,5"), Ok(1 << 127 | 1 << 5 | 1));
        assert_eq!(names.set("zero,"), Err("unknown label ''".to_owned()));
        assert_eq!(LabelNames::load(Path::new("/nowhere/connlabel.conf")).unwrap(), LabelNames::default());
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, line, why) in [
            ("1 a\nfoo bar\n", 2, "`foo` is no label"),
            ("128 a", 1, "`128` is no label"),
            ("#\n7\n", 2, "no name"),
            ("1 a_b", 1, "is no name"),
            ("1 a,b", 1, "is no name"),
            ("1 -a", 1, "is no name"),
            ("1 2", 1, "is a number"),
            ("1 a\n2 a", 2, "label 1 already"),
            ("1 a\n1 b", 2, "called `a` already"),
        ] {
            let said = LabelNames::parse(text, "names").unwrap_err().to_string();
            assert!(said.starts_with(&format!("names:{line}: ")) && said.contains(why), "{said}");
        }
    }
}
