//! `fwctl check`: whether Palisade can run a rules file, without a daemon and without root.

use crate::iptables::{self, Severity};
use dataplane::packet::Family;
use dataplane::rules::Compiled;
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// One finding with `--json`.
#[derive(Serialize)]
struct Finding<'a> {
    severity: &'static str,
    file: &'a str,
    line: usize,
    column: usize,
    message: &'a str,
    hint: Option<&'a str>,
}

/// What to check.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions<'a> {
    /// The file; `-` is standard input.
    pub file: &'a Path,
    /// Whose rules they are.
    pub family: Family,
    /// Print them back in canonical form.
    pub print: bool,
    /// Findings as JSON on `out`, one object each.
    pub json: bool,
    /// Whether `err` is a terminal that shows colours.
    pub colour: bool,
}

/// Checks a file. Exit code: 0 good, 1 wrong, 3 right but not supported, 2 cannot be read.
///
/// # Errors
/// Only if writing to `out` or `err` fails.
pub fn run(options: &CheckOptions<'_>, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    let name = if options.file == Path::new("-") { "<stdin>".to_owned() } else { options.file.display().to_string() };
    let text = match iptables::read(options.file) {
        Ok(text) => text,
        Err(error) => {
            writeln!(err, "fwctl: cannot read {name}: {error}")?;
            // Bytes that are no text are wrong rules; a file that is not there is bad usage.
            return Ok(if error.raw_os_error().is_some() { 2 } else { 1 });
        }
    };
    let loaded = iptables::load(&text, &name, options.family);
    for found in &loaded.diagnostics {
        if options.json {
            let severity = match found.severity {
                Severity::Error => "error",
                Severity::Unsupported => "unsupported",
                Severity::Note => "note",
            };
            let (file, line, column, message) = (&*found.file, found.line, found.column, &*found.message);
            let finding = Finding { severity, file, line, column, message, hint: found.hint.as_deref() };
            serde_json::to_writer(&mut *out, &finding)?;
            writeln!(out)?;
        } else {
            writeln!(err, "{}\n", found.render(&text, options.colour))?;
        }
    }
    let Some(rules) = loaded.rules else {
        return Ok(u8::try_from(iptables::exit_code(&loaded.diagnostics)).unwrap_or(1));
    };
    if let Err(error) = Compiled::new(Arc::clone(&rules.ruleset), &["left".to_owned(), "right".to_owned()]) {
        writeln!(err, "fwctl: {name}: {error}")?;
        return Ok(1);
    }
    if options.print {
        write!(out, "{}", rules.texts.save(&rules.ruleset, |_| (0, 0)))?;
    }
    Ok(0)
}
