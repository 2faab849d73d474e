//! A small language for the tracker's tests: whole frames with right checksums, and the packets they parse to.

use crate::packet::{Family, Fragment, Hint, Kind, L4Fault, Packet, Tuple, proto};
use crate::wire::tcp::is_legal;

pub(super) const A: u128 = 0x0a00_0001;
pub(super) const B: u128 = 0x0a00_0002;
pub(super) const C: u128 = 0x0a00_0003;

const L3: usize = 14;

/// A frame and what it parses to.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
    pub(super) packet: Packet,
    /// The upper layer, from which the frame is built again when something changes.
    l4: Vec<u8>,
}

pub(super) fn other(src: u128, dst: u128, proto: u8) -> Frame {
    let tuple = Tuple { src, dst, src_port: 0, dst_port: 0, proto, family: Family::V4 };
    build(tuple, vec![0; 8])
}

pub(super) fn udp(src: u128, dst: u128) -> Frame {
    let mut frame = other(src, dst, proto::UDP);
    frame.l4 = vec![0, 0, 0, 0, 0, 12, 0, 0, 1, 2, 3, 4];
    let (low, high) = if src <= dst { (4000, 53) } else { (53, 4000) };
    frame.ports(low, high)
}

pub(super) fn tcp(src: u128, dst: u128, flags: u8) -> Frame {
    let mut frame = other(src, dst, proto::TCP);
    frame.l4 = vec![0; 20];
    frame.l4[12] = 5 << 4;
    frame.l4[13] = flags;
    frame.l4[14] = 0x27;
    let (low, high) = if src <= dst { (4000, 80) } else { (80, 4000) };
    frame.ports(low, high)
}

pub(super) fn icmp(src: u128, dst: u128, ty: u8, code: u8) -> Frame {
    let mut frame = other(src, dst, proto::ICMP);
    frame.l4 = vec![ty, code, 0, 0, 0, 77, 0, 1, 9, 9];
    frame.rebuild()
}

/// An ICMP error from `src` to `dst` that embeds `inner`, in inner's family.
pub(super) fn icmp_error(src: u128, dst: u128, ty: u8, inner: &Frame) -> Frame {
    let mut frame = other(src, dst, proto::ICMP);
    frame.l4 = vec![ty, 0, 0, 0, 0, 0, 0, 0];
    frame.l4.extend(&inner.bytes[L3..]);
    if inner.packet.tuple.family == Family::V6 { frame.v6() } else { frame.rebuild() }
}

/// An ICMPv6 redirect about `inner`.
pub(super) fn redirect_v6(src: u128, dst: u128, inner: &Frame) -> Frame {
    let mut frame = other(src, dst, proto::ICMP);
    frame.l4 = vec![0; 40];
    frame.l4[0] = 137;
    frame.l4.extend([4, 7, 0, 0, 0, 0, 0, 0]);
    frame.l4.extend(&inner.bytes[L3..]);
    frame.v6()
}

fn build(tuple: Tuple, l4: Vec<u8>) -> Frame {
    let (kind, header_len) = match tuple.family {
        Family::V4 => (Kind::Ipv4, 20),
        Family::V6 => (Kind::Ipv6, 40),
    };
    let l3_len = header_len + l4.len();
    let mut bytes = vec![0; L3 + header_len];
    match tuple.family {
        Family::V4 => {
            bytes[L3] = 0x45;
            bytes[L3 + 9] = tuple.proto;
            bytes[L3 + 12..L3 + 16].copy_from_slice(&tuple.src.to_be_bytes()[12..]);
            bytes[L3 + 16..].copy_from_slice(&tuple.dst.to_be_bytes()[12..]);
        }
        Family::V6 => {
            bytes[L3] = 0x60;
            bytes[L3 + 6] = tuple.proto;
            bytes[L3 + 7] = 255;
            bytes[L3 + 8..L3 + 24].copy_from_slice(&tuple.src.to_be_bytes());
            bytes[L3 + 24..].copy_from_slice(&tuple.dst.to_be_bytes());
        }
    }
    let is_icmp = matches!(tuple.proto, proto::ICMP | proto::ICMPV6);
    let tcp_flags = if tuple.proto == proto::TCP { l4.get(13).copied().unwrap_or(0) } else { 0 };
    let packet = Packet {
        tuple,
        hash: 0,
        hint: Hint::NONE,
        frame_len: u32::try_from(L3 + l3_len).unwrap(),
        l3_len: u32::try_from(l3_len).unwrap(),
        l3_offset: u16::try_from(L3).unwrap(),
        l4_offset: u16::try_from(L3 + header_len).unwrap(),
        ethertype: if tuple.family == Family::V4 { 0x0800 } else { 0x86dd },
        tcp_flags,
        icmp_type: if is_icmp { l4[0] } else { 0 },
        icmp_code: if is_icmp { l4[1] } else { 0 },
        vlan_tags: 0,
        kind,
        fragment: Fragment::Whole,
        has_l4: true,
        l4_fault: (tuple.proto == proto::TCP && !is_legal(tcp_flags)).then_some(L4Fault::BadFlags),
        ..Packet::EMPTY
    };
    let mut frame = Frame { bytes, packet, l4 };
    frame.write_checksum();
    frame.bytes.extend(&frame.l4);
    frame
}

impl Frame {
    fn rebuild(self) -> Self {
        let mut tuple = self.packet.tuple;
        match tuple.proto {
            proto::ICMP | proto::ICMPV6 => {
                tuple.src_port = u16::from_be_bytes([self.l4[4], self.l4[5]]);
                tuple.dst_port = u16::from_be_bytes([self.l4[0], self.l4[1]]);
            }
            proto::TCP | proto::UDP => {
                tuple.src_port = u16::from_be_bytes([self.l4[0], self.l4[1]]);
                tuple.dst_port = u16::from_be_bytes([self.l4[2], self.l4[3]]);
            }
            _ => {}
        }
        build(tuple, self.l4)
    }

    pub(super) fn ports(mut self, src: u16, dst: u16) -> Self {
        if !matches!(self.packet.tuple.proto, proto::ICMP | proto::ICMPV6) {
            self.l4[..2].copy_from_slice(&src.to_be_bytes());
            self.l4[2..4].copy_from_slice(&dst.to_be_bytes());
        }
        self.rebuild()
    }

    pub(super) fn seq(mut self, seq: u32) -> Self {
        self.l4[4..8].copy_from_slice(&seq.to_be_bytes());
        self.rebuild()
    }

    pub(super) fn ack(mut self, ack: u32) -> Self {
        self.l4[8..12].copy_from_slice(&ack.to_be_bytes());
        self.rebuild()
    }

    /// The same in IPv6, with the addresses' low bits.
    pub(super) fn v6(mut self) -> Self {
        self.packet.tuple.family = Family::V6;
        if self.packet.tuple.proto == proto::ICMP {
            self.packet.tuple.proto = proto::ICMPV6;
        }
        self.rebuild()
    }

    pub(super) fn with_broken_checksum(mut self) -> Self {
        let at = usize::from(self.packet.l4_offset);
        self.bytes[at + 5] ^= 1;
        self
    }

    /// A UDP datagram that says it has no checksum.
    pub(super) fn without_checksum(mut self) -> Self {
        let at = usize::from(self.packet.l4_offset);
        self.bytes[at + 6..at + 8].fill(0);
        self
    }

    /// Keeps the first `len` bytes of the frame, with a right checksum.
    pub(super) fn cut_to(mut self, len: usize) -> Self {
        self.l4.truncate(len - usize::from(self.packet.l4_offset));
        self.rebuild()
    }

    /// The textbook way, 16 bits at a time.
    fn write_checksum(&mut self) {
        let Tuple { src, dst, proto, family, .. } = self.packet.tuple;
        let at = match proto {
            proto::ICMP | proto::ICMPV6 => 2,
            proto::UDP => 6,
            proto::TCP => 16,
            _ => return,
        };
        if self.l4.len() < at + 2 {
            return;
        }
        self.l4[at..at + 2].fill(0);
        let mut text = self.l4.clone();
        if proto != proto::ICMP || family == Family::V6 {
            if text.len() % 2 == 1 {
                text.push(0);
            }
            text.extend(src.to_be_bytes());
            text.extend(dst.to_be_bytes());
            text.extend(u32::try_from(self.l4.len()).unwrap().to_be_bytes());
            text.extend([0, proto]);
        }
        let mut sum = text
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
            .sum::<u32>();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let sum = !u16::try_from(sum).unwrap();
        self.l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}
