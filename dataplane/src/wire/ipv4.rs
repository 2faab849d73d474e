//! IPv4 headers. RFC 791; which faults drop the packet before any rule: `br_validate_ipv4` in the kernel's
//! `net/bridge/br_netfilter_hooks.c`.

use super::{checksum, l4};
use crate::packet::{Family, Fragment, Kind, Packet};
use crate::reason::DropReason;

/// Bytes of a header without options.
pub(super) const HEADER_LEN: usize = 20;

#[inline]
pub(super) fn parse(head: &[u8], packet: &mut Packet) -> Result<(), DropReason> {
    let l3 = usize::from(packet.l3_offset);
    let ip = head.get(l3..).unwrap_or_default();
    let fixed = ip.first_chunk::<HEADER_LEN>().ok_or(DropReason::Ipv4Truncated)?;
    if fixed[0] >> 4 != 4 {
        return Err(DropReason::Ipv4Version);
    }
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    if header_len < HEADER_LEN {
        return Err(DropReason::Ipv4HeaderLength);
    }
    let header = ip.get(..header_len).ok_or(DropReason::Ipv4HeaderLength)?;
    if !checksum::ipv4_header_ok(header) {
        return Err(DropReason::Ipv4Checksum);
    }
    let total_len = u16::from_be_bytes([fixed[2], fixed[3]]);
    let on_wire = (packet.frame_len as usize).saturating_sub(l3);
    if usize::from(total_len) < header_len || usize::from(total_len) > on_wire {
        return Err(DropReason::Ipv4TotalLength);
    }
    let fragment = u16::from_be_bytes([fixed[6], fixed[7]]);
    packet.kind = Kind::Ipv4;
    packet.l3_len = u32::from(total_len);
    packet.l4_offset = packet.l3_offset + u16::from(fixed[0] & 0x0f) * 4;
    packet.fragment = match (fragment & 0x1fff, fragment & 0x2000) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First,
        _ => Fragment::Later,
    };
    packet.tuple.family = Family::V4;
    packet.tuple.src = u128::from(u32::from_be_bytes([fixed[12], fixed[13], fixed[14], fixed[15]]));
    packet.tuple.dst = u128::from(u32::from_be_bytes([fixed[16], fixed[17], fixed[18], fixed[19]]));
    packet.tuple.proto = fixed[9];
    l4::parse(head, packet);
    Ok(())
}
