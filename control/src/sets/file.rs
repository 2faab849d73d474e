//! The file of sets that the daemon starts with (`rules.sets`), and that tools read beside rules.

use super::Store;
use crate::iptables::diagnostics::render_all;
use crate::iptables::names::FileServices;
use crate::rules_file::{SERVICES_PATH, read};
use std::io::{self, Write};
use std::path::Path;

/// Service names by the machine's own table.
#[must_use]
pub fn services() -> FileServices {
    std::fs::read_to_string(SERVICES_PATH).map(|text| FileServices::parse(&text)).unwrap_or_default()
}

/// Makes the sets of a file, and reports everything that is wrong with it on `err`. With `keeps` sets that are there
/// already stay as they are. False if they could not be made.
///
/// # Errors
/// Only if writing to `err` fails.
pub fn load(store: &Store, path: &Path, keeps: bool, err: &mut dyn Write) -> io::Result<bool> {
    let name = path.display().to_string();
    let text = match read(path) {
        Ok(text) => text,
        Err(error) => {
            writeln!(err, "error: cannot read sets from {name}: {error}")?;
            return Ok(false);
        }
    };
    let done =
        if keeps { store.restore_new(&text, &services()) } else { store.restore(&text, false, &services()) };
    let Err(found) = done else { return Ok(true) };
    err.write_all(render_all(&found, &text, &name, false).as_bytes())?;
    Ok(false)
}
