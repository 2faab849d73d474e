//! Views over header bytes. Everything here is a pure function of a byte slice: safe Rust, no panic on any input, no
//! allocation, bounded work. Called by the worker for every frame, by tests, and by whoever reads a capture.
//!
//! [`parse`] goes once over a frame and says where its headers are, or which [`DropReason`] it deserves. It follows
//! what a Linux bridge with br_netfilter does before it asks any rule (`net/bridge/br_input.c`,
//! `br_netfilter_hooks.c`, `br_netfilter_ipv6.c`); faults above IP are noted, not dropped, because in netfilter such a
//! packet is INVALID and the rules decide.

pub mod checksum;
pub mod icmp;
mod ipv4;
pub(crate) mod ipv6;
pub(crate) mod l4;
mod plain;
pub mod reject;
pub mod tcp;
#[cfg(test)]
mod tests;

pub(crate) use plain::parse as parse_plain;

use crate::packet::{Fragment, L4Fault, Numbers, Packet, Plain, proto};
use crate::reason::DropReason;

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_LEN: usize = 14;
/// Bytes of one VLAN tag.
pub const VLAN_LEN: usize = 4;
/// Bytes of a frame around an IP packet as long as the MTU allows: one VLAN tag included.
pub const LINK_OVERHEAD: u32 = 14 + 4;
/// Most VLAN tags followed: QinQ has two, nobody has more than four.
pub const VLAN_TAGS_MAX: u8 = 4;

/// EtherTypes this crate names. Source: IEEE 802 numbers.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// 802.1Q customer tag.
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// 802.1ad service tag.
    pub const QINQ: u16 = 0x88a8;
    /// Old service tag that some switches still use.
    pub const QINQ_OLD: u16 = 0x9100;
}

/// Writes a smaller total length into the IPv4 header of `packet`, whose frame starts with `bytes`.
pub fn shorten_ipv4(bytes: &mut [u8], packet: &Packet, l3_len: usize) {
    if let (Some(header), Ok(len)) = (ipv4_header(bytes, packet), u16::try_from(l3_len)) {
        header[2..4].copy_from_slice(&len.to_be_bytes());
        seal_ipv4(header);
    }
}

fn ipv4_header<'a>(bytes: &'a mut [u8], packet: &Packet) -> Option<&'a mut [u8]> {
    let header = bytes.get_mut(usize::from(packet.l3_offset)..usize::from(packet.l4_offset))?;
    (header.len() >= ipv4::HEADER_LEN).then_some(header)
}

/// Writes the checksum of an IPv4 header, of which the bytes are all there.
pub(crate) fn seal_ipv4(header: &mut [u8]) {
    header[10..12].fill(0);
    let check = checksum::finish(checksum::sum(header, 0));
    header[10..12].copy_from_slice(&check.to_be_bytes());
}

/// Reads the upper layer of a first fragment that will not be put together with others: as if it were all there is.
pub(crate) fn take_as_whole(bytes: &[u8], packet: &mut Packet) {
    if packet.fragment == Fragment::First {
        packet.fragment = Fragment::Whole;
        if packet.l4_fault != Some(L4Fault::NoUpperLayer) {
            l4::parse(bytes, packet);
        }
        note_plain(bytes, packet);
    }
}

/// What follows the upper-layer header, as far as it is in `head`.
#[must_use]
pub fn payload<'a>(head: &'a [u8], packet: &Packet, header_len: usize) -> &'a [u8] {
    let end = packet.l3_end().min(head.len());
    head.get(usize::from(packet.l4_offset) + header_len..end).unwrap_or_default()
}

/// Parses a frame. `head` is its first segment, or all of it if headers may reach beyond that; `frame_len` counts all
/// segments.
///
/// # Errors
/// The reason for which a bridge would drop the frame before asking any rule.
pub fn parse(head: &[u8], frame_len: u32) -> Result<Packet, DropReason> {
    let mut packet = Packet::EMPTY;
    parse_into(head, frame_len, &mut packet).map(|()| packet)
}

/// As [`parse`], into a place of the caller's: the worker's loop parses straight into its burst, because moving the
/// result about cost 15 ns a packet in stalled stores (`perf annotate` under `./scripts/bench figures`).
///
/// # Errors
/// As [`parse`]; `packet` is unspecified then.
#[inline(never)]
pub fn parse_into(head: &[u8], frame_len: u32, packet: &mut Packet) -> Result<(), DropReason> {
    if parse_plain(head, frame_len, packet) { Ok(()) } else { parse_any(head, frame_len, packet) }
}

/// Header by header: the meaning of [`plain::parse`], and what is not plain.
#[inline(never)]
pub(crate) fn parse_any(head: &[u8], frame_len: u32, packet: &mut Packet) -> Result<(), DropReason> {
    let (ethernet, _) = head.split_first_chunk::<ETHERNET_LEN>().ok_or(DropReason::EthernetTruncated)?;
    check_macs(ethernet)?;
    let (ethertype, l3_offset, vlan_tags) = skip_tags(head, ethernet)?;
    *packet = Packet { frame_len, l3_offset, l4_offset: l3_offset, ethertype, vlan_tags, ..Packet::EMPTY };
    match ethertype {
        ethertype::IPV4 => ipv4::parse(head, packet)?,
        ethertype::IPV6 => ipv6::parse(head, packet)?,
        _ => {}
    }
    note_plain(head, packet);
    Ok(())
}

/// Fills in [`Packet::plain`] of a packet that is parsed otherwise.
#[inline]
pub(crate) fn note_plain(head: &[u8], packet: &mut Packet) {
    (packet.plain, packet.numbers) = (Plain::No, Numbers::default());
    if packet.fragment != Fragment::Whole || packet.l4_fault.is_some() || !packet.has_l4 {
        return;
    }
    if packet.tuple.proto == proto::UDP {
        packet.plain = Plain::Datagram;
        return;
    }
    if packet.tcp_flags == 0 {
        return;
    }
    let l4 = usize::from(packet.l4_offset);
    let l4_len = packet.l3_end().saturating_sub(l4);
    let numbers = head.get(l4..).and_then(|header| tcp::plain_ack(header, u32::try_from(l4_len).ok()?));
    if let Some(numbers) = numbers {
        (packet.plain, packet.numbers) = (Plain::Ack, numbers);
    }
}

/// What a bridge checks of the addresses: `br_handle_frame`.
#[inline]
fn check_macs(ethernet: &[u8; ETHERNET_LEN]) -> Result<(), DropReason> {
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] = *ethernet;
    if s0 & 1 != 0 || s0 | s1 | s2 | s3 | s4 | s5 == 0 {
        return Err(DropReason::SourceMacInvalid);
    }
    // 01:80:c2:00:00:00 carries spanning tree, which a bridge that runs none passes on.
    if [d0, d1, d2, d3, d4] == [0x01, 0x80, 0xc2, 0, 0] && d5 & 0xf0 == 0 && d5 != 0 {
        return Err(DropReason::LinkLocalMac);
    }
    Ok(())
}

/// EtherType behind the tags, where its payload starts, and how many tags there were.
#[inline]
fn skip_tags(head: &[u8], ethernet: &[u8; ETHERNET_LEN]) -> Result<(u16, u16, u8), DropReason> {
    let mut ethertype = u16::from_be_bytes([ethernet[12], ethernet[13]]);
    let mut offset = ETHERNET_LEN;
    let mut tags = 0;
    while matches!(ethertype, ethertype::VLAN | ethertype::QINQ | ethertype::QINQ_OLD) {
        if tags == VLAN_TAGS_MAX {
            return Err(DropReason::VlanTooDeep);
        }
        let tag = head.get(offset..offset + VLAN_LEN).ok_or(DropReason::EthernetTruncated)?;
        ethertype = u16::from_be_bytes([tag[2], tag[3]]);
        offset += VLAN_LEN;
        tags += 1;
    }
    Ok((ethertype, u16::try_from(offset).unwrap_or(u16::MAX), tags))
}

/// Big-endian 16 bits at `offset`, if they are there.
#[inline]
pub(crate) fn be16(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk::<2>().map(|b| u16::from_be_bytes(*b))
}
