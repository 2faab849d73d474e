//! Files of `/proc` and `/sys` that only root may open, opened while we are root, so that they can be written at exit, when we
//! are not any more. The kernel asks who opens such a file, not who writes to it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Open files, by name.
#[derive(Debug, Default)]
pub struct Held(BTreeMap<PathBuf, File>);

impl Held {
    /// Opens a file for later. One that cannot be opened now is tried again then.
    pub fn hold(&mut self, path: PathBuf) {
        if let Ok(file) = File::options().write(true).open(&path) {
            self.0.insert(path, file);
        }
    }

    /// Writes to a file, whether it is open or not.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        match self.0.get(path) {
            Some(mut file) => file.write_all(text.as_bytes()),
            None => fs::write(path, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_written_even_if_nobody_could_open_it_now() {
        let dir = tempfile::tempdir().unwrap();
        let (open, other) = (dir.path().join("open"), dir.path().join("other"));
        fs::write(&open, "").unwrap();
        let mut held = Held::default();
        held.hold(open.clone());
        held.hold(other.clone());
        fs::rename(&open, dir.path().join("moved")).unwrap();
        held.write(&open, "1").unwrap();
        held.write(&other, "2").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("moved")).unwrap(), "1");
        assert_eq!(fs::read_to_string(&other).unwrap(), "2");
    }
}
