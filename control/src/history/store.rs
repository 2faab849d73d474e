//! The history on disk: of each ruleset three files, `N.v4` and `N.v6` as iptables-save prints them, and `N.json` with
//! what is noted about it, which is written last. One daemon per directory, held by a lock.

use super::Texts;
use crate::api::types::HistoryEntry;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A directory of rulesets.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    _lock: File,
}

impl Store {
    pub(super) fn open(state_dir: &Path) -> io::Result<Self> {
        let dir = state_dir.join("history");
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let mut options = File::options();
        let lock =
            options.write(true).create(true).truncate(false).mode(0o600).open(state_dir.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(io::Error::other(
                "another daemon keeps its state there; give this one a `state.dir` of its own",
            )),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is noted about all rulesets, by number, and what could not be read.
    pub(super) fn entries(&self) -> (Vec<HistoryEntry>, Option<String>) {
        let mut trouble = None;
        let mut entries = Vec::new();
        let names = match fs::read_dir(&self.dir) {
            Ok(names) => names,
            Err(error) => return (entries, Some(format!("{}: {error}", self.dir.display()))),
        };
        for path in names.filter_map(|name| name.ok().map(|name| name.path())) {
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let read = fs::read(&path).and_then(|text| Ok(serde_json::from_slice::<HistoryEntry>(&text)?));
            match read {
                Ok(entry) if path == self.path(entry.number, "json") => entries.push(entry),
                Ok(_) => trouble = Some(format!("{} has another's number in it", path.display())),
                Err(error) => trouble = Some(format!("{}: {error}", path.display())),
            }
        }
        entries.sort_by_key(|entry| entry.number);
        (entries, trouble)
    }

    /// Keeps a ruleset. `shared` names an earlier one, and which of its families' rules are the same.
    pub(super) fn write(
        &self,
        entry: &HistoryEntry,
        texts: &Texts,
        shared: Option<(u64, [bool; 2])>,
    ) -> io::Result<()> {
        for (index, (extension, text)) in [("v4", &texts.v4), ("v6", &texts.v6)].into_iter().enumerate() {
            let path = self.path(entry.number, extension);
            let linked = shared.filter(|(_, same)| same[index]).is_some_and(|(before, _)| {
                let _ = fs::remove_file(&path);
                fs::hard_link(self.path(before, extension), &path).is_ok()
            });
            if !linked {
                self.write_file(&path, text.as_bytes())?;
            }
        }
        self.write_entry(entry)
    }

    pub(super) fn write_entry(&self, entry: &HistoryEntry) -> io::Result<()> {
        self.write_file(&self.path(entry.number, "json"), &serde_json::to_vec_pretty(entry)?)
    }

    /// Writes a file whole or not at all, also when the machine goes down meanwhile.
    fn write_file(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let unfinished = self.dir.join("unfinished");
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(content)?;
        file.sync_data()?;
        fs::rename(&unfinished, path)?;
        File::open(&self.dir)?.sync_all()
    }

    pub(super) fn texts(&self, number: u64) -> io::Result<Texts> {
        let read = |extension| fs::read_to_string(self.path(number, extension)).map(Into::into);
        Ok(Texts { v4: read("v4")?, v6: read("v6")? })
    }

    /// Forgets a ruleset.
    pub(super) fn remove(&self, number: u64) {
        for extension in ["json", "v4", "v6"] {
            // Whatever is left of it is in nobody's way.
            let _ = fs::remove_file(self.path(number, extension));
        }
    }

    fn path(&self, number: u64, extension: &str) -> PathBuf {
        self.dir.join(format!("{number:06}.{extension}"))
    }
}
