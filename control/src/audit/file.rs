//! The log's file: one line per record, put aside when it has its size, made anew when somebody else has put it aside
//! (logrotate needs to tell nobody).

use super::Record;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Who may read it: its owner, and its group.
const MODE: u32 = 0o640;

/// Most of a file that is looked through for the last records, in bytes.
const READ_MAX: u64 = 32 << 20;

/// A log file.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    bytes_max: u64,
    files: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Device and inode.
    id: (u64, u64),
    bytes: u64,
    /// Whether it may be put aside: a device stays where it is.
    is_plain: bool,
    /// Whether its last line is not whole: the next record begins a line of its own.
    is_torn: bool,
}

impl Log {
    pub(super) fn new(path: &Path, bytes_max: u64, files: u32) -> Self {
        Self { path: path.to_owned(), bytes_max, files: files.max(1), open: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file, unless it is open and still the one of that name.
    pub(super) fn make_ready(&mut self) -> io::Result<()> {
        let is_there =
            |open: &Open| fs::metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == open.id);
        if self.open.as_ref().is_some_and(is_there) {
            return Ok(());
        }
        self.open = None;
        let mut options = File::options();
        let mut file = options.read(true).append(true).create(true).mode(MODE).open(&self.path)?;
        let meta = file.metadata()?;
        if !meta.is_file() && !meta.file_type().is_char_device() {
            return Err(io::Error::other("it is no plain file"));
        }
        let mut last = [b'\n'];
        if meta.len() > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        let is_torn = last != [b'\n'];
        let (id, is_plain) = ((meta.dev(), meta.ino()), meta.is_file());
        self.open = Some(Open { file, id, bytes: meta.len(), is_plain, is_torn });
        Ok(())
    }

    /// Appends a line.
    pub(super) fn append(&mut self, line: &str) -> io::Result<()> {
        self.make_ready()?;
        let bytes_max = self.bytes_max;
        let is_full =
            |open: &Open| open.is_plain && open.bytes > 0 && open.bytes + line.len() as u64 > bytes_max;
        if self.open.as_ref().is_some_and(is_full) {
            self.open = None;
            self.put_aside()?;
            self.make_ready()?;
        }
        let Some(open) = &mut self.open else { return Err(io::ErrorKind::NotFound.into()) };
        let mut bytes = Vec::with_capacity(line.len() + 2);
        if open.is_torn {
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        // As one piece, so that a reader never sees half a line, unless the disk is full.
        let written = open.file.write_all(&bytes);
        open.is_torn = written.is_err();
        open.bytes += bytes.len() as u64;
        written
    }

    fn numbered(&self, number: u32) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        name.into()
    }

    /// Makes every file one older. The oldest goes.
    fn put_aside(&self) -> io::Result<()> {
        if self.files == 1 {
            return fs::remove_file(&self.path);
        }
        for number in (0..self.files - 1).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The last records, oldest first, from as many files as it takes.
    pub(super) fn last(&self, count: usize) -> io::Result<Vec<Record>> {
        let mut found: Vec<Record> = Vec::new();
        for number in 0..self.files {
            if found.len() >= count {
                break;
            }
            let lines = match tail(&self.numbered(number)) {
                Ok(lines) => lines,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            // What is no record is somebody else's, or was cut off by a full disk.
            let records = lines.lines().rev().filter_map(|line| serde_json::from_str(line).ok());
            found.extend(records.take(count - found.len()));
        }
        found.reverse();
        Ok(found)
    }
}

/// The end of a file, as much as is looked through.
fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(READ_MAX)))?;
    let mut bytes = Vec::new();
    file.take(READ_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
