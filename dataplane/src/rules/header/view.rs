//! A packet's bytes as conditions look at them: counted from the start of the IP packet, and never beyond its end.

use super::super::Facts;
use super::super::model::PortSide;
use super::PacketType;
use crate::packet::{Family, Fragment, Packet, proto};

/// The packet ends before what a condition asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut;

/// A packet under view.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) packet: &'a Packet,
    /// The IP packet, from its header on.
    pub(super) ip: &'a [u8],
    /// The frame's MAC addresses: destination, source.
    macs: Option<&'a [u8; 12]>,
}

impl<'a> View<'a> {
    pub(super) fn of(facts: &Facts<'a>) -> Self {
        let Facts { packet, bytes, .. } = *facts;
        let end = packet.l3_end().min(bytes.len());
        let ip = bytes.get(usize::from(packet.l3_offset)..end).unwrap_or_default();
        Self { packet, ip, macs: bytes.first_chunk() }
    }

    fn is_six(&self) -> bool {
        self.packet.tuple.family == Family::V6
    }

    /// Whether it is a fragment other than the first.
    pub(super) fn is_later(&self) -> bool {
        self.packet.fragment == Fragment::Later
    }

    pub(super) fn u8_at(&self, at: usize) -> Option<u8> {
        self.ip.get(at).copied()
    }

    /// TOS or traffic class; 0 of no packet.
    pub(super) fn tos(&self) -> u8 {
        match self.ip {
            [first, second, ..] if self.is_six() => first << 4 | second >> 4,
            [_, second, ..] => *second,
            _ => 0,
        }
    }

    /// TTL or hop limit; 0 of no packet.
    pub(super) fn hops(&self) -> u8 {
        self.u8_at(if self.is_six() { 7 } else { 8 }).unwrap_or(0)
    }

    pub(super) fn src_mac(&self) -> Option<&'a [u8; 6]> {
        self.macs.and_then(|macs| macs[6..].first_chunk())
    }

    /// Whom the frame is for.
    pub(super) fn packet_type(&self) -> PacketType {
        match self.macs.and_then(|macs| macs.first_chunk::<6>()) {
            Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => PacketType::Broadcast,
            Some([first, ..]) if first & 1 != 0 => PacketType::Multicast,
            _ => PacketType::Unicast,
        }
    }

    /// The packet from its upper-layer header on. A later fragment's bytes stand there as if they were one: so does the
    /// kernel look at them where it does not ask first, and in IPv6 it begins at the packet's start.
    pub(super) fn upper(&self) -> &'a [u8] {
        let at = match (self.is_later(), self.is_six()) {
            (true, true) => 0,
            _ => usize::from(self.packet.l4_offset.saturating_sub(self.packet.l3_offset)),
        };
        self.ip.get(at..).unwrap_or_default()
    }

    /// Whether it has an upper-layer header, so many bytes of which must be there. A TCP fragment eight bytes in is
    /// nobody's but an attacker's, who means to overwrite flags.
    pub(super) fn carries(&self, bytes: usize) -> Result<bool, Cut> {
        if !self.is_later() {
            return if self.upper().len() < bytes { Err(Cut) } else { Ok(true) };
        }
        let is_tcp = self.packet.tuple.proto == proto::TCP;
        match self.ip {
            [_, _, _, _, _, _, high, low, ..] if is_tcp && !self.is_six() => {
                let offset = u16::from_be_bytes([*high, *low]) & 0x1fff;
                if offset == 1 { Err(Cut) } else { Ok(false) }
            }
            _ => Ok(false),
        }
    }

    /// Whether the first two numbers of the upper-layer header are among these ports.
    pub(super) fn has_ports(
        &self,
        which: PortSide,
        ranges: &[(u16, u16)],
        invert: bool,
    ) -> Result<bool, Cut> {
        if self.is_later() {
            return Ok(false);
        }
        let [a, b, c, d] = *self.upper().first_chunk::<4>().ok_or(Cut)?;
        let (src, dst) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let within = |port: u16| ranges.iter().any(|(low, high)| (*low..=*high).contains(&port));
        let hit = match which {
            PortSide::Src => within(src),
            PortSide::Dst => within(dst),
            PortSide::Either => within(src) || within(dst),
        };
        Ok(hit != invert)
    }
}
