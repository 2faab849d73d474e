//! Capture files: pcap and pcapng, told apart by their magic, as one stream of Ethernet frames with timestamps.

use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgReader};
use std::borrow::Cow;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::ops::ControlFlow;
use std::path::Path;

/// One captured packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// When, in nanoseconds since the capture clock's epoch.
    pub nanos: u64,
    /// The Ethernet frame; padded with zeros to its length on the wire if the capture cut it.
    pub frame: Vec<u8>,
    /// Whether the capture cut it.
    pub cut: bool,
}

/// Why a capture cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file cannot be opened or read.
    #[error("{file}: {source}")]
    Io {
        /// Which file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a capture, or is damaged.
    #[error("{file}: packet {packet}: {source}")]
    Format {
        /// Which file.
        file: String,
        /// The packet that could not be read, from 1.
        packet: u64,
        /// What is wrong.
        source: pcap_file::PcapError,
    },
    /// A pcapng packet belongs to no interface of the file.
    #[error("{file}: packet {packet} names interface {interface}, which the file does not describe")]
    Interface {
        /// Which file.
        file: String,
        /// The packet, from 1.
        packet: u64,
        /// The interface it names.
        interface: u32,
    },
    /// Neither Ethernet nor raw IP.
    #[error("{file}: link type {link:?} is not supported: captures must be Ethernet or raw IP")]
    LinkType {
        /// Which file.
        file: String,
        /// What it has.
        link: DataLink,
    },
}

/// Frames longer than this are not on any wire we serve; a capture that claims more is damaged.
const FRAME_LEN_MAX: usize = 256 * 1024;

/// Calls `each` for every packet of a capture file, in file order.
///
/// # Errors
/// If the file cannot be read; packets before the damage have been delivered by then.
pub(super) fn for_each(path: &Path, mut each: impl FnMut(Captured)) -> Result<(), CaptureError> {
    walk(path, &mut |captured| {
        each(captured);
        ControlFlow::Continue(())
    })
}

/// The packet of that number, from 1; the inner error is how many there are.
///
/// # Errors
/// If the file cannot be read so far.
pub fn nth(path: &Path, number: u64) -> Result<Result<Captured, u64>, CaptureError> {
    let (mut count, mut found) = (0, None);
    walk(path, &mut |captured| {
        count += 1;
        if count < number {
            return ControlFlow::Continue(());
        }
        found = Some(captured);
        ControlFlow::Break(())
    })?;
    Ok(found.ok_or(count))
}

/// Hands out packets until `each` has enough.
type Each<'a> = &'a mut dyn FnMut(Captured) -> ControlFlow<()>;

fn walk(path: &Path, each: Each<'_>) -> Result<(), CaptureError> {
    let file = path.display().to_string();
    let io = |source| CaptureError::Io { file: file.clone(), source };
    let mut opened = File::open(path).map_err(io)?;
    let mut magic = [0_u8; 4];
    opened.read_exact(&mut magic).map_err(io)?;
    opened.rewind().map_err(io)?;
    let reader = BufReader::new(opened);
    if magic == [0x0a, 0x0d, 0x0d, 0x0a] { pcapng(reader, &file, each) } else { pcap(reader, &file, each) }
}

fn pcap(reader: impl Read, file: &str, each: Each<'_>) -> Result<(), CaptureError> {
    let mut packet = 1;
    let format = |packet, source| CaptureError::Format { file: file.to_owned(), packet, source };
    let mut reader = PcapReader::new(reader).map_err(|source| format(0, source))?;
    let link = reader.header().datalink;
    while let Some(next) = reader.next_packet() {
        let read = next.map_err(|source| format(packet, source))?;
        let nanos = u64::try_from(read.timestamp.as_nanos()).unwrap_or(u64::MAX);
        if each(captured(nanos, &read.data, read.orig_len, link, file)?).is_break() {
            break;
        }
        packet += 1;
    }
    Ok(())
}

fn pcapng(reader: impl Read, file: &str, each: Each<'_>) -> Result<(), CaptureError> {
    let mut packet = 1;
    let format = |packet, source| CaptureError::Format { file: file.to_owned(), packet, source };
    let mut reader = PcapNgReader::new(reader).map_err(|source| format(0, source))?;
    let mut interfaces: Vec<InterfaceDescriptionBlock<'static>> = Vec::new();
    let mut last_nanos = 0;
    while let Some(next) = reader.next_block() {
        let (index, ticks, data, original_len) = match next.map_err(|source| format(packet, source))? {
            Block::SectionHeader(_) => {
                interfaces.clear();
                continue;
            }
            Block::InterfaceDescription(interface) => {
                interfaces.push(interface.into_owned());
                continue;
            }
            Block::EnhancedPacket(block) => {
                // The library reads the tick count as nanoseconds whatever the interface's resolution.
                let ticks = u64::try_from(block.timestamp.as_nanos()).unwrap_or(u64::MAX);
                (block.interface_id, Some(ticks), block.data, block.original_len)
            }
            Block::Packet(block) => {
                (u32::from(block.interface_id), Some(block.timestamp), block.data, block.original_len)
            }
            Block::SimplePacket(block) => (0, None, block.data, block.original_len),
            _ => continue,
        };
        let interface = interfaces.get(index as usize).ok_or_else(|| CaptureError::Interface {
            file: file.to_owned(),
            packet,
            interface: index,
        })?;
        let nanos = ticks.map_or(last_nanos, |ticks| ticks_to_nanos(ticks, interface));
        last_nanos = nanos;
        if each(captured(nanos, &data, original_len, interface.linktype, file)?).is_break() {
            break;
        }
        packet += 1;
    }
    Ok(())
}

/// Timestamps count in units that the interface names: a power of ten, or of two with the high bit set; microseconds
/// if it names none. pcapng draft, section 4.2, `if_tsresol`.
fn ticks_to_nanos(ticks: u64, interface: &InterfaceDescriptionBlock<'_>) -> u64 {
    let resolution = interface.options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
        _ => None,
    });
    let exponent = u32::from(resolution.unwrap_or(6) & 0x7f);
    let base: u128 = if resolution.unwrap_or(6) & 0x80 == 0 { 10 } else { 2 };
    let per_second = base.checked_pow(exponent).unwrap_or(u128::MAX);
    u64::try_from(u128::from(ticks).saturating_mul(1_000_000_000) / per_second).unwrap_or(u64::MAX)
}

fn captured(
    nanos: u64,
    data: &[u8],
    original_len: u32,
    link: DataLink,
    file: &str,
) -> Result<Captured, CaptureError> {
    let unsupported = || CaptureError::LinkType { file: file.to_owned(), link };
    let header = ethernet_header(link, data).ok_or_else(unsupported)?;
    let on_wire = (original_len as usize).clamp(data.len(), FRAME_LEN_MAX.max(data.len()));
    let mut frame = Vec::with_capacity(header.len() + on_wire);
    frame.extend_from_slice(&header);
    frame.extend_from_slice(data);
    frame.resize(header.len() + on_wire, 0);
    // Captures of a loopback interface, and anonymised ones, have no MAC addresses. On a wire such a frame is broken;
    // here it is the packet inside that is asked about.
    if let Some(source) = frame.get_mut(6..12).filter(|source| source.iter().all(|byte| *byte == 0)) {
        source.copy_from_slice(&STAND_IN_MAC);
    }
    Ok(Captured { nanos, frame, cut: on_wire > data.len() })
}

/// Source address for frames that have none: locally administered.
const STAND_IN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// What has to stand before the captured bytes to make an Ethernet frame: nothing, or a header for raw IP.
fn ethernet_header(link: DataLink, data: &[u8]) -> Option<Cow<'static, [u8]>> {
    const V4: &[u8] = &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00];
    const V6: &[u8] = &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
    match link {
        DataLink::ETHERNET => Some(Cow::Borrowed(&[])),
        DataLink::IPV4 => Some(Cow::Borrowed(V4)),
        DataLink::IPV6 => Some(Cow::Borrowed(V6)),
        DataLink::RAW => Some(Cow::Borrowed(if data.first().is_some_and(|b| b >> 4 == 6) { V6 } else { V4 })),
        _ => None,
    }
}
