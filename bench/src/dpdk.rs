//! What every program on DPDK needs from us: a folder for its files. It takes the one that `RUNTIME_DIRECTORY` names, else as
//! root `/var/run`, makes `dpdk/` and one by the name of its `--file-prefix` in it, and leaves both behind.

use crate::Error;
use std::process::Command;
use tempfile::TempDir;

/// Such a folder, which goes with this value. Its name in the directory for temporary files has our process id in it.
#[derive(Debug)]
pub(crate) struct RuntimeDir(TempDir);

impl RuntimeDir {
    /// Makes one.
    ///
    /// # Errors
    /// If that cannot be done.
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self(TempDir::with_prefix(format!("palisade-dpdk-{}-", std::process::id()))?))
    }

    /// Has a program keep its files there.
    pub(crate) fn give_to(&self, command: &mut Command) {
        command.env("RUNTIME_DIRECTORY", self.0.path());
    }
}
