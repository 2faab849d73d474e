//! IPv6 datagrams out of the fragments that came out of one side. Linux puts the fragment header where it thinks right,
//! which need not be where it was, and sends as one packet what fits; so where there are other headers, datagrams are
//! compared and not fragments.

use super::kernel::Seen;
use dataplane::packet::proto;

/// Bytes before the first extension header.
const HEADERS: usize = 54;

/// A fragment: which datagram it is of, its headers as if it were whole, and where its payload starts.
struct Part {
    id: Vec<u8>,
    whole: Vec<u8>,
    payload_at: usize,
    offset: usize,
    more: bool,
    state: Option<&'static str>,
}

/// Everything that came out, fragments joined as far as all are there, and no fragment header left: one of a whole packet
/// (RFC 6946) we leave, the kernel does not; one behind another may come to be the first.
pub(crate) fn join(seen: Vec<Seen>) -> Vec<Seen> {
    let mut joined = Vec::new();
    let mut parts: Vec<Part> = Vec::new();
    for mut seen in seen {
        while let Some(Part { whole, offset: 0, more: false, .. }) = part(&seen) {
            seen.frame = whole;
            set_len(&mut seen.frame);
        }
        match part(&seen) {
            Some(part) => parts.push(part),
            None => joined.push(seen),
        }
    }
    parts.sort_by(|a, b| (&a.id, a.offset).cmp(&(&b.id, b.offset)));
    joined.extend(parts.chunk_by(|a, b| a.id == b.id).map(assemble));
    joined
}

fn assemble(datagram: &[Part]) -> Seen {
    let (first, last) = (&datagram[0], &datagram[datagram.len() - 1]);
    let mut frame = first.whole.clone();
    frame.truncate(first.payload_at);
    for part in datagram {
        if frame.len() == first.payload_at + part.offset {
            frame.extend(&part.whole[part.payload_at..]);
        }
    }
    set_len(&mut frame);
    if last.more || frame.len() != first.payload_at + last.offset + last.whole.len() - last.payload_at {
        // Not all of it: nothing that the other side would send.
        frame.extend(b" in part");
        return Seen { frame, state: last.state };
    }
    let whole = Seen { frame, state: last.state };
    part(&whole).map_or(whole, |inner| assemble(&[inner]))
}

fn set_len(frame: &mut [u8]) {
    let len = u16::try_from(frame.len() - HEADERS).unwrap_or(0);
    frame[18..20].copy_from_slice(&len.to_be_bytes());
}

fn part(seen: &Seen) -> Option<Part> {
    let frame = &seen.frame;
    if frame.get(12..14)? != [0x86, 0xdd] {
        return None;
    }
    let (mut next_at, mut at) = (20, HEADERS);
    while *frame.get(next_at)? != proto::FRAGMENT {
        let len = match frame[next_at] {
            proto::HOP_BY_HOP | proto::ROUTING | proto::DST_OPTS => {
                (usize::from(*frame.get(at + 1)?) + 1) * 8
            }
            proto::AH => (usize::from(*frame.get(at + 1)?) + 2) * 4,
            _ => return None,
        };
        (next_at, at) = (at, at + len);
    }
    let header: [u8; 8] = *frame.get(at..)?.first_chunk()?;
    let field = u16::from_be_bytes([header[2], header[3]]);
    let mut whole = [&frame[..at], &frame[at + 8..]].concat();
    whole[next_at] = header[0];
    Some(Part {
        id: [&frame[22..54], &header[4..]].concat(),
        whole,
        payload_at: at,
        offset: usize::from(field & !7),
        more: field & 1 != 0,
        state: seen.state,
    })
}
