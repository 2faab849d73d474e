//! Changes to a TCP header: ECN flags, the maximum segment size, options taken away.

use super::ip::{self, V4_CHECK, write16};
use super::{Subject, Unfit};
use crate::packet::{Family, Fragment, proto, tcp_flag};
use crate::rules::interned::{Kept, Pool};
use crate::wire::checksum::replaced;
use std::sync::Mutex;

/// Bytes of a header without options.
const HEADER_LEN: usize = 20;
/// Bytes of the longest header.
const HEADER_LEN_MAX: usize = 60;
/// Where the checksum stands.
const CHECK: usize = 16;
/// Where header length and flags stand.
const OFFSET_AND_FLAGS: usize = 12;
/// Option kinds (RFC 9293 section 3.1).
const NOP: u8 = 1;
const MSS: u8 = 2;
/// Bytes of the option that says the maximum segment size.
pub(super) const MSS_OPTION_LEN: usize = 4;
/// What a sender that names none is taken to mean: RFC 9293 section 3.7.1, and IPv6's minimum MTU less its headers.
const MSS_DEFAULT_V4: u16 = 536;
const MSS_DEFAULT_V6: u16 = 1220;

/// A set of TCP option kinds, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct TcpOptions(pub [u64; 4]);

impl TcpOptions {
    /// The set with `kind` added.
    #[must_use]
    pub fn with(mut self, kind: u8) -> Self {
        self.0[usize::from(kind >> 6)] |= 1 << (kind & 63);
        self
    }

    /// Whether `kind` is in the set.
    #[must_use]
    pub fn contains(&self, kind: u8) -> bool {
        self.0[usize::from(kind >> 6)] >> (kind & 63) & 1 != 0
    }

    /// The kinds in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=u8::MAX).filter(|kind| self.contains(*kind))
    }
}

impl Kept for TcpOptions {
    fn pool() -> &'static Pool<Self> {
        static POOL: Pool<TcpOptions> = Mutex::new(None);
        &POOL
    }
}

/// The segment, to the end of the IP packet; `None` if the packet carries no TCP header.
fn segment<'a>(subject: &'a mut Subject<'_>) -> Option<&'a mut [u8]> {
    let packet = &*subject.packet;
    if packet.fragment == Fragment::Later || packet.tuple.proto != proto::TCP {
        return None;
    }
    subject.bytes.get_mut(usize::from(packet.l4_offset)..packet.l3_end())
}

/// Bytes of a segment's header, as it says.
fn header_len(segment: &[u8]) -> Result<usize, Unfit> {
    let words = segment.get(..HEADER_LEN).map(|header| header[OFFSET_AND_FLAGS] >> 4).ok_or(Unfit)?;
    let len = usize::from(words) * 4;
    if len < HEADER_LEN || len > segment.len() { Err(Unfit) } else { Ok(len) }
}

/// Bytes of the option at `at`: one for those that have no length, or a senseless one.
fn option_len(segment: &[u8], at: usize) -> usize {
    match (segment[at], segment.get(at + 1)) {
        (0..=NOP, _) | (_, None | Some(0)) => 1,
        (_, Some(len)) => usize::from(*len),
    }
}

/// Writes the flags ECE and CWR, those that are given.
pub(super) fn set_ecn(subject: &mut Subject<'_>, ece: Option<bool>, cwr: Option<bool>) -> Result<(), Unfit> {
    let Some(segment) = segment(subject) else { return Ok(()) };
    let header: &[u8; HEADER_LEN] = segment.first_chunk().ok_or(Unfit)?;
    let [offset, mut flags] = [header[OFFSET_AND_FLAGS], header[OFFSET_AND_FLAGS + 1]];
    for (bit, wanted) in [(tcp_flag::ECE, ece), (tcp_flag::CWR, cwr)] {
        match wanted {
            Some(true) => flags |= bit,
            Some(false) => flags &= !bit,
            None => {}
        }
    }
    write16(segment, OFFSET_AND_FLAGS, u16::from_be_bytes([offset, flags]), CHECK);
    if subject.packet.has_l4 {
        subject.packet.tcp_flags = flags;
    }
    Ok(())
}

/// Turns options into no-operations.
pub(super) fn strip(subject: &mut Subject<'_>, options: &TcpOptions) -> Result<(), Unfit> {
    let Some(segment) = segment(subject) else { return Ok(()) };
    let end = header_len(segment)?;
    let mut at = HEADER_LEN;
    while at + 1 < end {
        let len = option_len(segment, at);
        if at + len > end {
            break;
        }
        if options.contains(segment[at]) {
            (at..at + len).for_each(|at| blank(segment, at));
        }
        at += len;
    }
    Ok(())
}

/// Makes a byte a no-operation.
fn blank(segment: &mut [u8], at: usize) {
    let in_word = |byte: u8| u16::from(byte) << if at.is_multiple_of(2) { 8 } else { 0 };
    let check = u16::from_be_bytes([segment[CHECK], segment[CHECK + 1]]);
    let check = replaced(check, in_word(segment[at]), in_word(NOP));
    segment[CHECK..CHECK + 2].copy_from_slice(&check.to_be_bytes());
    segment[at] = NOP;
}

/// Lowers the maximum segment size that the segment's sender names, or has it name one.
pub(super) fn lower_mss(subject: &mut Subject<'_>, mss: u16) -> Result<(), Unfit> {
    let Some(segment) = segment(subject) else { return Ok(()) };
    let end = header_len(segment)?;
    let mut at = HEADER_LEN;
    while at + MSS_OPTION_LEN <= end {
        if let [MSS, 4, high, low] = segment[at..at + MSS_OPTION_LEN] {
            if u16::from_be_bytes([high, low]) > mss {
                change_mss(segment, at + 2, mss);
            }
            return Ok(());
        }
        at += option_len(segment, at);
    }
    // One that carries data has no room for an option in front of it.
    if segment.len() == end && end < HEADER_LEN_MAX {
        add_mss(subject, mss);
    }
    Ok(())
}

/// Writes a segment size, wherever it stands: behind an odd number of no-operations its bytes belong to two words.
fn change_mss(segment: &mut [u8], at: usize, mss: u16) {
    let old = u16::from_be_bytes([segment[at], segment[at + 1]]);
    let check = u16::from_be_bytes([segment[CHECK], segment[CHECK + 1]]);
    let turned = |value: u16| if at.is_multiple_of(2) { value } else { value.swap_bytes() };
    let check = replaced(check, turned(old), turned(mss));
    segment[CHECK..CHECK + 2].copy_from_slice(&check.to_be_bytes());
    segment[at..at + 2].copy_from_slice(&mss.to_be_bytes());
}

/// Puts the option in front of all others of a segment without data, if there is room behind the packet.
fn add_mss(subject: &mut Subject<'_>, mss: u16) -> Option<()> {
    let packet = &*subject.packet;
    let (l4, end, family) = (usize::from(packet.l4_offset), packet.l3_end(), packet.tuple.family);
    let (mss, len_at, len_check) = match family {
        Family::V4 => (mss.min(MSS_DEFAULT_V4), 2, Some(V4_CHECK)),
        Family::V6 => (mss.min(MSS_DEFAULT_V6), 4, None),
    };
    let new_end = end + MSS_OPTION_LEN;
    let old_len = u16::try_from(end - l4).ok()?;
    let ip = ip::header(subject);
    let ip_len = u16::from_be_bytes([*ip.get(len_at)?, *ip.get(len_at + 1)?]).checked_add(4)?;
    let segment = subject.bytes.get_mut(l4..new_end)?;
    segment.copy_within(HEADER_LEN..usize::from(old_len), HEADER_LEN + MSS_OPTION_LEN);
    let [high, low] = mss.to_be_bytes();
    segment[HEADER_LEN..HEADER_LEN + MSS_OPTION_LEN].copy_from_slice(&[MSS, 4, high, low]);
    let mut check = u16::from_be_bytes([segment[CHECK], segment[CHECK + 1]]);
    // The length in the pseudo header, and the option's two words.
    for (old, new) in [(old_len, old_len + 4), (0, u16::from_be_bytes([MSS, 4])), (0, mss)] {
        check = replaced(check, old, new);
    }
    segment[CHECK..CHECK + 2].copy_from_slice(&check.to_be_bytes());
    let [offset, flags] = [segment[OFFSET_AND_FLAGS] + 0x10, segment[OFFSET_AND_FLAGS + 1]];
    write16(segment, OFFSET_AND_FLAGS, u16::from_be_bytes([offset, flags]), CHECK);
    subject.len = subject.len.max(new_end);
    let packet = &mut *subject.packet;
    packet.l3_len += 4;
    packet.frame_len = packet.frame_len.max(u32::try_from(new_end).unwrap_or(u32::MAX));
    let ip = ip::header(subject);
    match len_check {
        Some(check) => write16(ip, len_at, ip_len, check),
        None => ip[len_at..len_at + 2].copy_from_slice(&ip_len.to_be_bytes()),
    }
    Some(())
}
