//! What a NIC was like before we touched it, on disk, so that a start after a crash can put back what the crash left.
//!
//! Written and synced before the first change, removed after the last one is undone. What the journal says wins over
//! what the NIC says: after a crash the NIC shows our changes, not its original state.

use super::napi::Napi;
use super::offloads::Offloads;
use super::rss;
use crate::placement::irqs::Affinities;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// How many queues of each kind a NIC uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Queues {
    pub(super) rx: u32,
    pub(super) tx: u32,
    /// Those that do both.
    pub(super) combined: u32,
}

/// One NIC's state before us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Name, for readers.
    pub(super) name: String,
    /// Its number then: another NIC may have the name by now.
    pub(super) ifindex: u32,
    /// Whether it was up.
    pub(super) up: bool,
    /// Its offloads.
    pub(super) offloads: Offloads,
    /// Where its interrupts were handled.
    #[serde(default)]
    pub(super) irqs: Affinities,
    /// When its interrupts come, if we changed that.
    #[serde(default)]
    pub(super) napi: Option<Napi>,
    /// Its queues, if the driver says.
    #[serde(default)]
    pub(super) queues: Option<Queues>,
    /// How it spreads packets over them.
    #[serde(default)]
    pub(super) rss: rss::Before,
}

/// Where a NIC's entry is kept. The number is part of the name because namespaces share a file system.
fn path(dir: &Path, name: &str, ifindex: u32) -> PathBuf {
    dir.join(format!("{name}-{ifindex}.restore"))
}

/// The entry a dead process has left for this NIC.
pub(super) fn left_behind(dir: &Path, name: &str, ifindex: u32) -> Option<Entry> {
    let text = fs::read(path(dir, name, ifindex)).ok()?;
    serde_json::from_slice::<Entry>(&text).ok().filter(|entry| entry.ifindex == ifindex && entry.name == name)
}

/// All entries of dead processes, or of one that runs.
pub(super) fn all(dir: &Path) -> Vec<Entry> {
    let Ok(files) = fs::read_dir(dir) else { return Vec::new() };
    let ours = files
        .flatten()
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|end| end == "restore"));
    ours.filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).collect()
}

/// Writes an entry so that it survives a crash right afterwards.
pub(super) fn write(dir: &Path, entry: &Entry) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let path = path(dir, &entry.name, entry.ifindex);
    let unfinished = path.with_extension("new");
    // The directory is the daemon's user's, and we are root: what stands there could lead to any file.
    let _ = fs::remove_file(&unfinished);
    let mut file = File::create_new(&unfinished)?;
    file.write_all(&serde_json::to_vec_pretty(entry)?)?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    File::open(dir)?.sync_all()
}

/// Forgets a NIC whose state is what it was.
pub(super) fn remove(dir: &Path, entry: &Entry) {
    // If it stays, the next start puts back what is already there.
    let _ = fs::remove_file(path(dir, &entry.name, entry.ifindex));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_found_again_only_for_the_same_nic() {
        let dir = tempfile::tempdir().unwrap();
        let offloads = Offloads([("gro".to_owned(), true)].into());
        let entry = Entry {
            name: "eth9".to_owned(),
            ifindex: 7,
            up: true,
            offloads,
            irqs: Affinities([(120, "0-7".to_owned())].into()),
            napi: None,
            queues: Some(Queues { rx: 0, tx: 0, combined: 4 }),
            rss: rss::Before { config: Some(rss::HashConfig::default()), fields: [Some(0x30); 6] },
        };
        write(dir.path(), &entry).unwrap();
        assert_eq!(left_behind(dir.path(), "eth9", 7), Some(entry.clone()));
        assert_eq!(left_behind(dir.path(), "eth9", 8), None);
        assert_eq!(all(dir.path()), std::slice::from_ref(&entry));
        remove(dir.path(), &entry);
        assert_eq!(left_behind(dir.path(), "eth9", 7), None);
    }

    #[test]
    fn an_entry_is_not_written_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (state, other) = (dir.path().join("state"), dir.path().join("shadow"));
        fs::create_dir(&state).unwrap();
        fs::write(&other, "secret").unwrap();
        let text = r#"{"name": "eth9", "ifindex": 7, "up": false, "offloads": {}}"#;
        let entry: Entry = serde_json::from_str(text).unwrap();
        std::os::unix::fs::symlink(&other, path(&state, "eth9", 7).with_extension("new")).unwrap();
        write(&state, &entry).unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "secret");
        assert_eq!(left_behind(&state, "eth9", 7), Some(entry));
    }

    #[test]
    fn an_entry_of_a_version_that_knew_less_is_one() {
        let text = r#"{"name": "eth9", "ifindex": 7, "up": false, "offloads": {"gro": true}}"#;
        let entry: Entry = serde_json::from_str(text).unwrap();
        assert_eq!((entry.irqs, entry.queues, entry.rss), Default::default());
    }

    #[test]
    fn a_damaged_entry_is_no_entry() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(path(dir.path(), "eth9", 7), b"{\"name\": \"eth").unwrap();
        assert_eq!(all(dir.path()), []);
        assert_eq!(left_behind(dir.path(), "eth9", 7), None);
    }
}
