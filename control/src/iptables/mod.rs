//! `iptables-save` and `ip6tables-save` text: the rule language, unchanged.
//!
//! Text becomes lines and words with their places ([`lexer`]), lines become chains and rules ([`parser`], [`rule`],
//! [`matches`], [`target`]), and those a [`dataplane::rules::model::Ruleset`] plus the canonical text of every rule
//! ([`text`]), which is what `iptables-save` would print. Pure functions; the only thing read besides the text is the
//! table of service names.
//!
//! Nothing is ever skipped silently: what iptables would refuse is an error, what iptables knows and we do not is
//! "unsupported", both with their place, and all of a file at once.

mod address;
mod diagnostics;
mod lexer;
mod matches;
mod names;
mod parser;
mod rule;
mod target;
#[cfg(test)]
mod tests;
pub mod text;

pub use diagnostics::{Diagnostic, Severity};
pub use text::{RuleText, Texts};

use dataplane::packet::Family;
use dataplane::rules::model::Ruleset;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

/// A rules file that was read.
#[derive(Debug)]
pub struct Loaded {
    /// The rules, if nothing was wrong or unsupported.
    pub rules: Option<Rules>,
    /// What the operator should know, in order of place.
    pub diagnostics: Vec<Diagnostic>,
}

/// Rules and how they are written.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What they mean.
    pub ruleset: Arc<Ruleset>,
    /// How they are written.
    pub texts: Texts,
}

/// Largest file read, in bytes. A hundred thousand rules take a tenth of it.
pub const FILE_BYTES_MAX: u64 = 256 << 20;

impl Rules {
    /// An empty table with ACCEPT policies, as a kernel without rules has it.
    #[must_use]
    pub fn empty(family: Family) -> Self {
        let ruleset = Ruleset::empty(family);
        let texts = Texts { rules: ruleset.chains.iter().map(|_| Vec::new()).collect() };
        Self { ruleset: Arc::new(ruleset), texts }
    }
}

/// Reads rules.
#[must_use]
pub fn load(text: &str, file: &str, family: Family) -> Loaded {
    parser::parse(text, file, family)
}

/// Reads a rules file (`-` is standard input).
///
/// # Errors
/// If it cannot be read, or is not UTF-8.
pub fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        io::Error::other(format!("line {line} is not text (UTF-8)"))
    })
}

/// Reads a rules file and reports everything about it on `err`. The inner error is the exit code: 1 wrong, 3 right but
/// not supported.
///
/// # Errors
/// Only if writing to `err` fails.
pub fn load_file(path: &Path, family: Family, err: &mut dyn Write) -> io::Result<Result<Rules, i32>> {
    let name = path.display().to_string();
    let text = match read(path) {
        Ok(text) => text,
        Err(error) => {
            writeln!(err, "error: cannot read rules from {name}: {error}")?;
            return Ok(Err(1));
        }
    };
    let loaded = load(&text, &name, family);
    for diagnostic in &loaded.diagnostics {
        writeln!(err, "{}", diagnostic.render(&text, false))?;
    }
    Ok(match loaded.rules {
        Some(rules) => Ok(rules),
        None => Err(exit_code(&loaded.diagnostics)),
    })
}

/// The exit code these diagnostics stand for: 1 if anything is wrong, else 3 if anything is not supported, else 0.
#[must_use]
pub fn exit_code(diagnostics: &[Diagnostic]) -> i32 {
    match diagnostics.iter().map(|diagnostic| diagnostic.severity).min() {
        Some(Severity::Error) => 1,
        Some(Severity::Unsupported) => 3,
        Some(Severity::Note) | None => 0,
    }
}
