//! IPv6 headers and the chain of extension headers. RFC 8200; which faults drop the packet before any rule:
//! `br_validate_ipv6` and its hop-by-hop walk in the kernel's `net/bridge/br_netfilter_ipv6.c`.

use super::{be16, l4};
use crate::packet::{Family, Fragment, Kind, L4Fault, Packet, proto};
use crate::reason::DropReason;

/// Bytes of the fixed header.
pub(crate) const HEADER_LEN: usize = 40;

const OPTION_PAD1: u8 = 0;
const OPTION_JUMBO: u8 = 0xc2;

#[inline]
pub(super) fn parse(head: &[u8], packet: &mut Packet) -> Result<(), DropReason> {
    let l3 = usize::from(packet.l3_offset);
    let ip = head.get(l3..).unwrap_or_default();
    let fixed = ip.first_chunk::<HEADER_LEN>().ok_or(DropReason::Ipv6Truncated)?;
    if fixed[0] >> 4 != 6 {
        return Err(DropReason::Ipv6Version);
    }
    let payload_len = u16::from_be_bytes([fixed[4], fixed[5]]);
    let on_wire = (packet.frame_len as usize).saturating_sub(l3);
    if HEADER_LEN + usize::from(payload_len) > on_wire {
        return Err(DropReason::Ipv6PayloadLength);
    }
    if payload_len == 0 && fixed[6] == proto::HOP_BY_HOP {
        return Err(DropReason::Ipv6HopByHop);
    }
    packet.kind = Kind::Ipv6;
    packet.l3_len = u32::from(payload_len) + 40;
    packet.l4_offset = packet.l3_offset + 40;
    packet.tuple.family = Family::V6;
    packet.tuple.src = address(fixed, 8);
    packet.tuple.dst = address(fixed, 24);
    packet.tuple.proto = fixed[6];
    if is_extension(fixed[6]) {
        walk(head, packet)?;
    }
    if packet.tuple.proto == proto::NONE {
        packet.l4_fault.get_or_insert(L4Fault::NoUpperLayer);
    }
    if packet.l4_fault.is_none() {
        l4::parse(head, packet);
    }
    Ok(())
}

fn address(fixed: &[u8; HEADER_LEN], offset: usize) -> u128 {
    fixed[offset..].first_chunk::<16>().map_or(0, |bytes| u128::from_be_bytes(*bytes))
}

const fn is_extension(next: u8) -> bool {
    matches!(next, proto::HOP_BY_HOP | proto::ROUTING | proto::FRAGMENT | proto::DST_OPTS | proto::AH)
}

/// Follows the chain to the upper-layer header, as far as the packet reaches: every header is at least eight bytes long.
/// A chain that runs off the packet is not a reason to drop: the packet has no upper layer that a rule could match, and
/// is INVALID to the tracker. Of several fragment headers the first says which fragment it is, as for the kernel, which
/// puts a datagram together once.
fn walk(head: &[u8], packet: &mut Packet) -> Result<(), DropReason> {
    let end = packet.l3_end();
    let bytes = head.get(..end).unwrap_or(head);
    let mut at = usize::from(packet.l4_offset);
    let mut is_fragment = false;
    if packet.tuple.proto == proto::HOP_BY_HOP {
        check_hop_by_hop(bytes, at)?;
    }
    while is_extension(packet.tuple.proto) {
        let kind = packet.tuple.proto;
        let is_first_of_its_kind = kind == proto::FRAGMENT && !is_fragment;
        let Some((header_len, following)) = extension(bytes, at, kind) else {
            if is_first_of_its_kind {
                // Of which datagram, it does not say.
                packet.fragment = Fragment::First;
            }
            packet.l4_fault = Some(L4Fault::NoUpperLayer);
            return Ok(());
        };
        packet.tuple.proto = following;
        if kind == proto::FRAGMENT {
            is_fragment = true;
            let state = fragment_state(bytes, at);
            if is_first_of_its_kind {
                // Nothing is not a whole packet.
                let is_empty = state == Fragment::Whole && at + header_len >= bytes.len();
                packet.fragment = if is_empty { Fragment::First } else { state };
            }
            if state == Fragment::Later {
                if !is_first_of_its_kind {
                    packet.l4_fault = Some(L4Fault::NoUpperLayer);
                }
                at += header_len;
                break;
            }
        }
        at += header_len;
    }
    let Ok(l4_offset) = u16::try_from(at.min(end)) else {
        packet.l4_fault = Some(L4Fault::NoUpperLayer);
        return Ok(());
    };
    packet.l4_offset = l4_offset;
    Ok(())
}

/// Length that the extension header of kind `kind` at `at` says it has, and what follows it, perhaps beyond the end of
/// `bytes`; `None` if what says so is not there.
fn extension(bytes: &[u8], at: usize, kind: u8) -> Option<(usize, u8)> {
    let [following, units] = *bytes.get(at..)?.first_chunk::<2>()?;
    let len = match kind {
        proto::FRAGMENT => {
            be16(bytes, at + 2)?;
            8
        }
        // RFC 4302 section 2.2: in 32-bit words, less two.
        proto::AH => (usize::from(units) + 2) * 4,
        _ => (usize::from(units) + 1) * 8,
    };
    Some((len, following))
}

/// Passes over extension headers, from one of kind `kind` at `at` on. Returns the protocol of the upper layer and where
/// it starts, perhaps beyond the end of `bytes`; `None` if there is none to be had, as behind a later fragment's header.
pub(crate) fn skip_extensions(bytes: &[u8], mut at: usize, mut kind: u8) -> Option<(u8, usize)> {
    while is_extension(kind) {
        let (header_len, following) = extension(bytes, at, kind)?;
        if kind == proto::FRAGMENT && fragment_state(bytes, at) == Fragment::Later {
            return None;
        }
        (at, kind) = (at + header_len, following);
    }
    (kind != proto::NONE).then_some((kind, at))
}

/// Where a packet's first fragment header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentHeader {
    /// Its first byte.
    pub(crate) at: usize,
    /// The byte before it that says that it comes next.
    pub(crate) next_at: usize,
}

/// Looks for the fragment header of the packet that starts at `l3` and ends with `bytes`.
pub(crate) fn find_fragment_header(bytes: &[u8], l3: usize) -> Option<FragmentHeader> {
    let (mut next_at, mut at) = (l3 + 6, l3 + HEADER_LEN);
    loop {
        let kind = *bytes.get(next_at)?;
        if kind == proto::FRAGMENT {
            return (at <= bytes.len()).then_some(FragmentHeader { at, next_at });
        }
        if !is_extension(kind) {
            return None;
        }
        (next_at, at) = (at, at + extension(bytes, at, kind)?.0);
    }
}

/// Whether the upper-layer header behind the fragment header at `at` is known and reaches beyond `bytes`: such a first
/// fragment is taken for none. RFC 8200 section 4.5; of other protocols than these, Linux asks for a byte.
pub(crate) fn lacks_upper_header(bytes: &[u8], at: usize) -> bool {
    skip_extensions(bytes, at, proto::FRAGMENT).is_some_and(|(upper, at)| {
        let header_len = match upper {
            proto::TCP => 20,
            proto::UDP | proto::ICMPV6 => 8,
            _ => 1,
        };
        at + header_len > bytes.len()
    })
}

/// Whether the headers that Linux leaves in front when it cuts a packet all end within `ip`, its first bytes: those that
/// routers look at, RFC 8200 section 4.5. What it cannot cut so it does not send.
pub(crate) fn holds_unfragmentable_part(ip: &[u8]) -> bool {
    let (mut kind, mut at) = (ip.get(6).copied().unwrap_or(proto::NONE), HEADER_LEN);
    let mut is_routed = false;
    while at <= ip.len() {
        match kind {
            proto::HOP_BY_HOP => {}
            proto::ROUTING => is_routed = true,
            proto::DST_OPTS if !is_routed => {}
            _ => return true,
        }
        let Some((header_len, following)) = extension(ip, at, kind) else { return false };
        (kind, at) = (following, at + header_len);
    }
    false
}

/// Offset and more-fragments bit. An atomic fragment (offset 0, none to come) is a whole packet, RFC 6946.
fn fragment_state(bytes: &[u8], at: usize) -> Fragment {
    let field = be16(bytes, at + 2).unwrap_or_default();
    match (field & 0xfff8, field & 1) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First,
        _ => Fragment::Later,
    }
}

/// A hop-by-hop header behind the fixed one must be whole, and its options with it.
fn check_hop_by_hop(bytes: &[u8], at: usize) -> Result<(), DropReason> {
    let header = extension(bytes, at, proto::HOP_BY_HOP).and_then(|(len, _)| bytes.get(at + 2..at + len));
    check_options(header.ok_or(DropReason::Ipv6HopByHop)?)
}

/// Options: each must fit, and a jumbogram is nothing this wire carries.
fn check_options(mut options: &[u8]) -> Result<(), DropReason> {
    while let Some((&kind, rest)) = options.split_first() {
        if kind == OPTION_PAD1 {
            options = rest;
            continue;
        }
        let &len = rest.first().ok_or(DropReason::Ipv6HopByHop)?;
        if kind == OPTION_JUMBO {
            return Err(DropReason::Ipv6HopByHop);
        }
        options = rest.get(1 + usize::from(len)..).ok_or(DropReason::Ipv6HopByHop)?;
    }
    Ok(())
}
