//! Capture files of `-j NFLOG`: one pcapng per group, put aside when it has its size. Each packet's comment says which rule
//! wanted it, with which words, and what its connection was. Control thread.
//!
//! Bounded: so many files of such a size for each group, so many open at a time. What cannot be written is counted and
//! complained of.

use crate::config::LogConfig;
use crate::packet_log::Around;
use crate::pcapng;
use dataplane::rules::model::{CtState, RuleId};
use dataplane::worker::Note;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Files open at a time; beyond it all are closed, and opened again as needed.
const OPEN_MAX: usize = 64;

/// A packet to write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    /// When, since 1970.
    pub(super) at: Duration,
    pub(super) note: &'a Note,
    pub(super) around: &'a Around<'a>,
    pub(super) rule: RuleId,
    /// The frame, as much of it as was wanted.
    pub(super) bytes: &'a [u8],
}

/// The files.
#[derive(Debug)]
pub(super) struct Captures {
    dir: Option<PathBuf>,
    bytes_max: u64,
    files: u32,
    open: BTreeMap<u16, Capture>,
    /// Groups whose packets have no file to go to, not complained of yet, and those complained of.
    homeless: BTreeSet<u16>,
    complained: BTreeSet<u16>,
    /// Packets that could not be written since the last complaint, and why the last of them could not.
    lost: u64,
    why: Option<String>,
}

/// An open file.
struct Capture {
    path: PathBuf,
    out: pcapng::Section<BufWriter<File>>,
    bytes: u64,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture")
            .field("path", &self.path)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Captures {
    pub(super) fn new(config: &LogConfig) -> Self {
        Self {
            dir: config.nflog_dir.clone(),
            bytes_max: u64::from(config.nflog_file_kib) * 1024,
            files: config.nflog_files,
            open: BTreeMap::new(),
            homeless: BTreeSet::new(),
            complained: BTreeSet::new(),
            lost: 0,
            why: None,
        }
    }

    /// Writes a packet into its group's file. `nics` are the names of all NICs, by [`dataplane::ids::PortId`].
    pub(super) fn write(&mut self, group: u16, nics: &[&str], packet: &Packet<'_>) {
        let Some(dir) = self.dir.clone() else {
            self.lost += 1;
            if !self.complained.contains(&group) {
                self.homeless.insert(group);
            }
            return;
        };
        if let Err(error) = self.try_write(&dir, group, nics, packet) {
            // A file that was written in part is not written any further.
            self.open.remove(&group);
            self.lost += 1;
            self.why = Some(format!("{}: {error}", file(&dir, group, 0).display()));
        }
    }

    fn try_write(&mut self, dir: &Path, group: u16, nics: &[&str], packet: &Packet<'_>) -> io::Result<()> {
        if self.open.get(&group).is_some_and(|capture| capture.bytes >= self.bytes_max) {
            self.open.remove(&group);
            put_aside(dir, group, self.files)?;
        }
        if !self.open.contains_key(&group) {
            if self.open.len() >= OPEN_MAX {
                self.open.clear();
            }
            let capture = Capture::open(dir, group, nics)?;
            self.open.insert(group, capture);
        }
        self.open.get_mut(&group).map_or(Ok(()), |capture| capture.write(packet))
    }

    /// Hands over to the system what is still in our buffers.
    pub(super) fn flush(&mut self) {
        for capture in self.open.values_mut() {
            if let Err(error) = capture.out.out().flush() {
                self.why = Some(format!("{}: {error}", capture.path.display()));
            }
        }
    }

    /// What the operator should hear, once.
    pub(super) fn complaints(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        let homeless = std::mem::take(&mut self.homeless);
        if !homeless.is_empty() {
            let groups: Vec<String> = homeless.iter().map(u16::to_string).collect();
            said.push(format!(
                "NFLOG group {} has nowhere to go: set log.nflog_dir; its packets are counted and forgotten",
                groups.join(", ")
            ));
            self.complained.extend(homeless);
        }
        if let Some(why) = self.why.take() {
            let lost = std::mem::take(&mut self.lost);
            said.push(format!("{lost} packets of NFLOG rules could not be written: {why}"));
        }
        said
    }

    /// Packets that were not written, since the last complaint about such.
    #[cfg(test)]
    fn lost(&self) -> u64 {
        self.lost
    }
}

/// A group's file: number 0 is the one written to, higher ones are older.
fn file(dir: &Path, group: u16, number: u32) -> PathBuf {
    match number {
        0 => dir.join(format!("nflog-{group}.pcapng")),
        number => dir.join(format!("nflog-{group}.{number}.pcapng")),
    }
}

/// Makes every file of a group one older. The oldest goes.
fn put_aside(dir: &Path, group: u16, files: u32) -> io::Result<()> {
    if files <= 1 {
        return fs::remove_file(file(dir, group, 0));
    }
    for number in (0..files - 1).rev() {
        match fs::rename(file(dir, group, number), file(dir, group, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

impl Capture {
    /// Opens a group's file, or goes on with the one that is there: a capture file may have several sections.
    fn open(dir: &Path, group: u16, nics: &[&str]) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let path = file(dir, group, 0);
        let opened = OpenOptions::new().append(true).create(true).open(&path)?;
        let bytes = opened.metadata()?.len();
        let (out, head) = pcapng::Section::begin(BufWriter::new(opened), nics.iter().copied())?;
        Ok(Self { path, out, bytes: bytes + head })
    }

    fn write(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let Packet { at, note, bytes, .. } = *packet;
        self.bytes += self.out.packet(&pcapng::Packet {
            port: note.ingress.0,
            at,
            frame_len: note.frame_len,
            bytes,
            is_outbound: None,
            comment: &comment(packet),
        })?;
        Ok(())
    }
}

/// What stands beside a packet: `rule=0123456789abcdef ct=NEW in=eth0 out=eth1 mark=0x1 prefix=words`.
fn comment(packet: &Packet<'_>) -> String {
    let Packet { note, around, rule, .. } = packet;
    let mut comment = format!("rule={:016x} ct={}", rule.0, note.state.map_or("-", CtState::name));
    for (word, value) in [("in", around.ingress), ("out", around.egress)] {
        if !value.is_empty() {
            let _ = write!(comment, " {word}={value}");
        }
    }
    if note.mark != 0 {
        let _ = write!(comment, " mark={:#x}", note.mark);
    }
    if !around.prefix.is_empty() {
        let _ = write!(comment, " prefix={}", around.prefix);
    }
    comment
}

#[cfg(test)]
mod tests;
