//! `fwctl capture`: packets into a capture file, or a pipe.
//!
//! The daemon sends a pcapng file, which is written as it comes, whole blocks only: whatever ends the capture (a full disk, a
//! signal, a daemon that is gone), the file is good up to its last block.

use super::args::{CaptureArgs, PointArg};
use super::{tap_filter, until_stopped};
use crate::api::types::{CapturePoint, CaptureRequest};
use crate::cli::CliError;
use crate::cli::client::Client;
use std::fs::File;
use std::io::{self, IsTerminal as _, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::Ordering;

pub(in crate::cli) fn run(
    client: &Client,
    args: &CaptureArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    let request = CaptureRequest {
        filter: tap_filter(client, &args.tap)?,
        points: args.points.iter().map(|point| point.into()).collect(),
        snap_len: args.snap_len.unwrap_or(0),
        buffer_mib: args.buffer,
    };
    let body = serde_json::to_vec(&request).map_err(|error| CliError::Usage(error.to_string()))?;
    let mut sink = open(&args.write, out)?;
    let stop = until_stopped()?;
    let mut blocks = Blocks::default();
    let ended = client.post_pieces("/v1/capture", body, &mut |piece| {
        let whole = blocks.take(piece)?;
        sink.write_all(whole).map_err(|error| sink_failed(&args.write, error))?;
        blocks.done();
        if args.write.as_os_str() == "-" {
            sink.flush().map_err(|error| sink_failed(&args.write, error))?;
        }
        if stop.load(Ordering::Relaxed) { Err(CliError::Stopped) } else { Ok(()) }
    });
    let flushed = sink.flush().map_err(|error| sink_failed(&args.write, error));
    let (packets, lost) = (blocks.packets, blocks.lost);
    let _ = writeln!(err, "fwctl: {packets} packets captured, {lost} lost{}", advice(lost));
    match ended.and(flushed) {
        Ok(()) | Err(CliError::Stopped) => Ok(()),
        Err(error) => {
            if let Sink::File(file) = &mut sink {
                file.cut(blocks.written);
            }
            Err(error)
        }
    }
}

const fn advice(lost: u64) -> &'static str {
    if lost == 0 {
        ""
    } else {
        ": they came faster than they were written; --buffer, --snaplen, --sample or a filter help"
    }
}

fn sink_failed(path: &Path, error: io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::Output(error),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CliError::Wrong(format!(
            "{}: {error}; the capture ends here, and the file is good up to here",
            path.display()
        )),
        _ => CliError::Wrong(format!("{}: {error}", path.display())),
    }
}

impl From<&PointArg> for CapturePoint {
    fn from(point: &PointArg) -> Self {
        match point {
            PointArg::Rx => Self::Rx,
            PointArg::Verdict => Self::Verdict,
            PointArg::Tx => Self::Tx,
        }
    }
}

/// Where a capture is written.
pub(super) enum Sink<'a> {
    File(Output),
    Pipe(&'a mut dyn Write),
}

/// A file that is ours to write. What it had before goes when there is something to write in its place.
pub(super) struct Output {
    file: File,
    is_begun: bool,
}

impl Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_begun {
            // Devices and pipes have no length.
            if self.file.metadata()?.is_file() {
                self.file.set_len(0)?;
            }
            self.is_begun = true;
        }
        self.file.write(bytes)
    }

    /// Leaves no part of a block behind.
    fn cut(&mut self, len: u64) {
        if self.is_begun {
            // As good as can be done: what is behind is told of already.
            let _ = self.file.set_len(len).and_then(|()| self.file.seek(SeekFrom::Start(len)));
        }
    }
}

/// Opens a capture file to write, `-` for standard output.
pub(super) fn open<'a>(path: &Path, out: &'a mut dyn Write) -> Result<Sink<'a>, CliError> {
    if path.as_os_str() == "-" {
        if io::stdout().is_terminal() {
            return Err(CliError::Usage(
                "a capture is nothing for a terminal: name a file with -w FILE, or pipe it on: | tcpdump -nr -".to_owned(),
            ));
        }
        return Ok(Sink::Pipe(out));
    }
    let file = File::options().write(true).create(true).truncate(false).open(path);
    let file = file.map_err(|error| CliError::Wrong(format!("{}: {error}", path.display())))?;
    Ok(Sink::File(Output { file, is_begun: false }))
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(output) => output.write(bytes),
            Self::Pipe(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(output) => output.file.flush(),
            Self::Pipe(out) => out.flush(),
        }
    }
}

/// The blocks of a file as it comes.
#[derive(Debug, Default)]
struct Blocks {
    /// What has come and not been written.
    waiting: Vec<u8>,
    /// How much of that are whole blocks.
    whole: usize,
    packets: u64,
    lost: u64,
    written: u64,
}

/// Types of blocks, and of an option. Source: the pcapng draft (draft-ietf-opsawg-pcapng), sections 4.3, 4.6.
const ENHANCED_PACKET: u32 = 6;
const INTERFACE_STATISTICS: u32 = 5;
const ISB_OSDROP: u16 = 7;

impl Blocks {
    /// Takes a piece in; gives what can be written.
    fn take(&mut self, piece: &[u8]) -> Result<&[u8], CliError> {
        self.waiting.extend_from_slice(piece);
        while let Some(head) = self.waiting.get(self.whole..).and_then(|rest| rest.first_chunk::<8>()) {
            let [t0, t1, t2, t3, l0, l1, l2, l3] = *head;
            let (kind, len) =
                (u32::from_le_bytes([t0, t1, t2, t3]), u32::from_le_bytes([l0, l1, l2, l3]) as usize);
            if len < 12 || len % 4 != 0 {
                return Err(CliError::Unreachable("the daemon sends what is no capture file".to_owned()));
            }
            let Some(block) = self.waiting.get(self.whole..self.whole + len) else { break };
            match kind {
                ENHANCED_PACKET => self.packets += 1,
                INTERFACE_STATISTICS => self.lost = lost(block).unwrap_or(self.lost),
                _ => {}
            }
            self.whole += len;
        }
        Ok(&self.waiting[..self.whole])
    }

    /// That was written.
    fn done(&mut self) {
        self.written += self.whole as u64;
        self.waiting.drain(..self.whole);
        self.whole = 0;
    }
}

/// Packets lost so far, as statistics say.
fn lost(block: &[u8]) -> Option<u64> {
    let mut options = block.get(20..)?;
    loop {
        let [c0, c1, l0, l1] = *options.first_chunk()?;
        let (code, len) = (u16::from_le_bytes([c0, c1]), usize::from(u16::from_le_bytes([l0, l1])));
        let value = options.get(4..4 + len)?;
        if code == ISB_OSDROP {
            return Some(u64::from_le_bytes(*value.first_chunk()?));
        }
        if code == 0 {
            return None;
        }
        options = options.get(4 + len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcapng::{Packet, Section};
    use std::time::Duration;

    fn file(packets: u8, lost: u64) -> Vec<u8> {
        let (mut section, _) = Section::begin(Vec::new(), ["left", "right"]).unwrap();
        for number in 0..packets {
            let bytes = vec![number; usize::from(number)];
            let at = Duration::from_secs(1);
            let packet = Packet {
                port: 1,
                at,
                frame_len: 60,
                bytes: &bytes,
                is_outbound: Some(true),
                comment: "verdict=accept",
            };
            section.packet(&packet).unwrap();
        }
        section.statistics(Duration::from_secs(2), 7, lost).unwrap();
        std::mem::take(section.out())
    }

    #[test]
    fn blocks_are_written_whole_whatever_the_pieces() {
        let file = file(9, 1234);
        for size in [1, 3, 10, 64, 4096] {
            let (mut blocks, mut written) = (Blocks::default(), Vec::new());
            for piece in file.chunks(size) {
                written.extend_from_slice(blocks.take(piece).unwrap());
                blocks.done();
                assert_eq!(written.len() as u64, blocks.written);
            }
            assert_eq!((blocks.packets, blocks.lost), (9, 1234));
            assert_eq!(written, file);
        }
        let mut blocks = Blocks::default();
        assert!(blocks.take(&[0; 40]).is_err(), "no endless loop over a block of no length");
        let (mut blocks, cut) = (Blocks::default(), &file[..file.len() - 1]);
        assert!(blocks.take(cut).unwrap().len() < cut.len());
    }
}
