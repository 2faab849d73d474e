//! The file of sets that the daemon starts with (`rules.sets`), and that tools read beside rules.

use super::Store;
use super::store::Staged;
use crate::iptables::diagnostics::{Diagnostic, render_all};
use crate::iptables::names::FileServices;
use crate::rules_file::{SERVICES_PATH, read};
use std::io::{self, Write};
use std::path::Path;

/// Service names by the machine's own table.
#[must_use]
pub fn services() -> FileServices {
    std::fs::read_to_string(SERVICES_PATH).map(|text| FileServices::parse(&text)).unwrap_or_default()
}

/// Makes the sets of a file, and reports everything that is wrong with it on `err`. False if they could not be made.
///
/// # Errors
/// Only if writing to `err` fails.
pub fn load(store: &Store, path: &Path, err: &mut dyn Write) -> io::Result<bool> {
    Ok(read_as(path, err, |text| store.restore(text, false, &services()))?.is_some())
}

/// The same of those that are not there yet, to be put in place once rules that name them are sure to run. `None` if they could
/// not be made.
///
/// # Errors
/// Only if writing to `err` fails.
pub fn stage_new(store: &Store, path: &Path, err: &mut dyn Write) -> io::Result<Option<Staged>> {
    read_as(path, err, |text| store.stage_new(text, &services()))
}

fn read_as<T>(
    path: &Path,
    err: &mut dyn Write,
    understand: impl FnOnce(&[u8]) -> Result<T, Vec<Diagnostic>>,
) -> io::Result<Option<T>> {
    let name = path.display().to_string();
    let text = match read(path) {
        Ok(text) => text,
        Err(error) => {
            writeln!(err, "error: cannot read sets from {name}: {error}")?;
            return Ok(None);
        }
    };
    match understand(&text) {
        Ok(understood) => Ok(Some(understood)),
        Err(found) => {
            err.write_all(render_all(&found, &text, &name, false).as_bytes())?;
            Ok(None)
        }
    }
}
