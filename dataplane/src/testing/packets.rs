//! Packet builders that let a test read as a conversation: `tcp(HOST, WEB).ports(40000, 80).syn().build()`.
//!
//! Checksums and lengths are right unless a test asks otherwise. Builders panic on nonsense (an IPv4 source with an
//! IPv6 destination): they are for tests.

use crate::packet::{Family, proto, tcp_flag};
use crate::wire::{checksum, ethertype};
use std::net::IpAddr;

/// MAC address of whoever sends.
pub const SRC_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// MAC address of whoever receives.
pub const DST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

/// A frame under construction.
#[derive(Clone, Debug)]
pub struct Builder {
    src_mac: [u8; 6],
    dst_mac: [u8; 6],
    tags: Vec<(u16, u16)>,
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    ttl: u8,
    ip_options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    fragment: u16,
    src_port: u16,
    dst_port: u16,
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    tcp_options: Vec<u8>,
    icmp: [u8; 8],
    payload: Vec<u8>,
    break_checksum: bool,
    no_checksum: bool,
    /// The payload is everything above IP.
    raw: bool,
}

fn builder(src: IpAddr, dst: IpAddr, protocol: u8) -> Builder {
    assert_eq!(src.is_ipv4(), dst.is_ipv4(), "both ends must be of one family");
    Builder {
        src_mac: SRC_MAC,
        dst_mac: DST_MAC,
        tags: Vec::new(),
        src,
        dst,
        proto: protocol,
        ttl: 64,
        ip_options: Vec::new(),
        extensions: Vec::new(),
        fragment: 0,
        src_port: 0,
        dst_port: 0,
        seq: 1000,
        ack: 0,
        flags: 0,
        window: 64240,
        tcp_options: Vec::new(),
        icmp: [0; 8],
        payload: Vec::new(),
        break_checksum: false,
        no_checksum: false,
        raw: false,
    }
}

/// A TCP segment without flags.
#[must_use]
pub fn tcp(src: impl Into<IpAddr>, dst: impl Into<IpAddr>) -> Builder {
    builder(src.into(), dst.into(), proto::TCP)
}

/// A UDP datagram.
#[must_use]
pub fn udp(src: impl Into<IpAddr>, dst: impl Into<IpAddr>) -> Builder {
    builder(src.into(), dst.into(), proto::UDP)
}

/// A UDP-Lite datagram that covers everything.
#[must_use]
pub fn udplite(src: impl Into<IpAddr>, dst: impl Into<IpAddr>) -> Builder {
    builder(src.into(), dst.into(), proto::UDPLITE)
}

/// An IP packet of any protocol, whose payload is everything above IP.
#[must_use]
pub fn ip(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, protocol: u8) -> Builder {
    Builder { raw: true, ..builder(src.into(), dst.into(), protocol) }
}

/// An ICMP or ICMPv6 message, by the family of the addresses.
#[must_use]
pub fn icmp(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, ty: u8, code: u8) -> Builder {
    let (src, dst) = (src.into(), dst.into());
    let protocol = if src.is_ipv4() { proto::ICMP } else { proto::ICMPV6 };
    let mut built = builder(src, dst, protocol);
    built.icmp[0] = ty;
    built.icmp[1] = code;
    built
}

/// An echo request with an identifier.
#[must_use]
pub fn ping(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, id: u16) -> Builder {
    let (src, dst) = (src.into(), dst.into());
    icmp(src, dst, if src.is_ipv4() { 8 } else { 128 }, 0).id(id)
}

/// An echo reply with an identifier.
#[must_use]
pub fn pong(src: impl Into<IpAddr>, dst: impl Into<IpAddr>, id: u16) -> Builder {
    let (src, dst) = (src.into(), dst.into());
    icmp(src, dst, if src.is_ipv4() { 0 } else { 129 }, 0).id(id)
}

/// An ICMP error from `src` to `dst` about `offender`, a whole frame without tags, quoting `quote` bytes of it.
#[must_use]
pub fn icmp_error(
    src: impl Into<IpAddr>,
    dst: impl Into<IpAddr>,
    ty: u8,
    code: u8,
    offender: &[u8],
    quote: usize,
) -> Builder {
    let quoted = &offender[14..];
    icmp(src, dst, ty, code).payload(&quoted[..quote.min(quoted.len())])
}

/// A frame that is not IP.
#[must_use]
pub fn ethernet(dst_mac: [u8; 6], src_mac: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&dst_mac[..], &src_mac, &ethertype.to_be_bytes(), payload].concat()
}

/// An ARP request.
#[must_use]
pub fn arp() -> Vec<u8> {
    ethernet([0xff; 6], SRC_MAC, ethertype::ARP, &[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1])
}

impl Builder {
    /// Source and destination port.
    #[must_use]
    pub fn ports(mut self, src: u16, dst: u16) -> Self {
        (self.src_port, self.dst_port) = (src, dst);
        self
    }

    /// ICMP identifier.
    #[must_use]
    pub fn id(mut self, id: u16) -> Self {
        self.icmp[4..6].copy_from_slice(&id.to_be_bytes());
        self
    }

    /// All TCP flags at once.
    #[must_use]
    pub fn flags(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    /// SYN.
    #[must_use]
    pub fn syn(self) -> Self {
        self.flags(tcp_flag::SYN)
    }

    /// SYN+ACK.
    #[must_use]
    pub fn syn_ack(self) -> Self {
        self.flags(tcp_flag::SYN | tcp_flag::ACK)
    }

    /// ACK.
    #[must_use]
    pub fn ack(self) -> Self {
        self.flags(tcp_flag::ACK)
    }

    /// FIN+ACK.
    #[must_use]
    pub fn fin(self) -> Self {
        self.flags(tcp_flag::FIN | tcp_flag::ACK)
    }

    /// RST.
    #[must_use]
    pub fn rst(self) -> Self {
        self.flags(tcp_flag::RST)
    }

    /// Sequence and acknowledgement number.
    #[must_use]
    pub fn numbers(mut self, seq: u32, ack: u32) -> Self {
        (self.seq, self.ack) = (seq, ack);
        self
    }

    /// Window as it stands in the header.
    #[must_use]
    pub fn window(mut self, window: u16) -> Self {
        self.window = window;
        self
    }

    /// Raw TCP options; padded to a multiple of four.
    #[must_use]
    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        self.tcp_options = options.to_vec();
        while !self.tcp_options.len().is_multiple_of(4) {
            self.tcp_options.push(0);
        }
        self
    }

    /// What the packet carries.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// Adds a VLAN tag inside those already there.
    #[must_use]
    pub fn vlan(self, id: u16) -> Self {
        self.tag(ethertype::VLAN, id)
    }

    /// Adds a tag with any tag protocol.
    #[must_use]
    pub fn tag(mut self, tpid: u16, id: u16) -> Self {
        self.tags.push((tpid, id));
        self
    }

    /// MAC addresses.
    #[must_use]
    pub fn macs(mut self, src: [u8; 6], dst: [u8; 6]) -> Self {
        (self.src_mac, self.dst_mac) = (src, dst);
        self
    }

    /// TTL or hop limit.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// Raw IPv4 options; padded to a multiple of four.
    #[must_use]
    pub fn ip_options(mut self, options: &[u8]) -> Self {
        self.ip_options = options.to_vec();
        while !self.ip_options.len().is_multiple_of(4) {
            self.ip_options.push(0);
        }
        self
    }

    /// Adds an IPv6 extension header: its kind, and its bytes from the third on (next header and length are filled in;
    /// padded to a multiple of eight).
    #[must_use]
    pub fn extension(mut self, kind: u8, body: &[u8]) -> Self {
        let mut body = body.to_vec();
        while !(body.len() + 2).is_multiple_of(8) {
            body.push(0);
        }
        self.extensions.push((kind, body));
        self
    }

    /// Makes it a fragment: offset in bytes, more to come. The payload is what this fragment carries; the upper-layer
    /// header is there only at offset zero.
    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = (offset / 8) << 1 | u16::from(more);
        if self.src.is_ipv6() {
            let mut body = vec![0; 6];
            body[..2].copy_from_slice(&(offset & 0xfff8 | u16::from(more)).to_be_bytes());
            body[2..].copy_from_slice(&77_u32.to_be_bytes());
            self.extensions.push((proto::FRAGMENT, body));
        }
        self
    }

    /// Gives it a wrong upper-layer checksum.
    #[must_use]
    pub fn bad_checksum(mut self) -> Self {
        self.break_checksum = true;
        self
    }

    /// Leaves the checksum field zero (UDP: "none").
    #[must_use]
    pub fn no_checksum(mut self) -> Self {
        self.no_checksum = true;
        self
    }

    /// The frame.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut frame = [self.dst_mac, self.src_mac].concat();
        for (tpid, id) in &self.tags {
            frame.extend(tpid.to_be_bytes());
            frame.extend(id.to_be_bytes());
        }
        let ethertype = if self.src.is_ipv4() { ethertype::IPV4 } else { ethertype::IPV6 };
        frame.extend(ethertype.to_be_bytes());
        frame.extend(self.ip_packet());
        frame
    }

    fn ip_packet(&self) -> Vec<u8> {
        let upper = self.upper_layer();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header_len = 20 + self.ip_options.len();
                let mut ip = vec![0x40 | u8::try_from(header_len / 4).unwrap_or(15), 0];
                ip.extend(u16::try_from(header_len + upper.len()).expect("fits IPv4").to_be_bytes());
                ip.extend([0x12, 0x34]);
                ip.extend((self.fragment >> 1 | (self.fragment & 1) << 13).to_be_bytes());
                ip.extend([self.ttl, self.proto, 0, 0]);
                ip.extend(src.octets());
                ip.extend(dst.octets());
                ip.extend(&self.ip_options);
                let check = checksum::finish(checksum::sum(&ip, 0));
                ip[10..12].copy_from_slice(&check.to_be_bytes());
                ip.extend(upper);
                ip
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let chain = self.extension_chain();
                let first = self.extensions.first().map_or(self.proto, |(kind, _)| *kind);
                let mut ip = vec![0x60, 0, 0, 0];
                ip.extend(u16::try_from(chain.len() + upper.len()).expect("fits IPv6").to_be_bytes());
                ip.extend([first, self.ttl]);
                ip.extend(src.octets());
                ip.extend(dst.octets());
                ip.extend(chain);
                ip.extend(upper);
                ip
            }
            _ => unreachable!("the constructor checked the families"),
        }
    }

    fn extension_chain(&self) -> Vec<u8> {
        let mut chain = Vec::new();
        for (index, (kind, body)) in self.extensions.iter().enumerate() {
            chain.push(self.extensions.get(index + 1).map_or(self.proto, |(next, _)| *next));
            chain.push(match *kind {
                proto::FRAGMENT => 0,
                proto::AH => u8::try_from((body.len() + 2) / 4 - 2).expect("a short header"),
                _ => u8::try_from((body.len() + 2) / 8 - 1).expect("a short header"),
            });
            chain.extend(body);
        }
        chain
    }

    /// The upper-layer header and payload, checksum filled in; a later fragment is payload alone.
    fn upper_layer(&self) -> Vec<u8> {
        let is_later = self.fragment >> 1 != 0;
        let (mut upper, at) = match self.proto {
            _ if is_later || self.raw => return self.payload.clone(),
            proto::TCP => (self.tcp_header(), Some(16)),
            proto::UDP | proto::UDPLITE => (self.udp_header(), Some(6)),
            proto::ICMP | proto::ICMPV6 => (self.icmp.to_vec(), Some(2)),
            _ => (Vec::new(), None),
        };
        upper.extend(&self.payload);
        let Some(at) = at.filter(|_| !self.no_checksum) else { return upper };
        let start = if self.proto == proto::ICMP { 0 } else { self.pseudo_header(upper.len()) };
        let mut check = checksum::finish(checksum::sum(&upper, start));
        if check == 0 && self.proto == proto::UDP {
            check = 0xffff;
        }
        if self.break_checksum {
            check ^= 0x5555;
        }
        upper[at..at + 2].copy_from_slice(&check.to_be_bytes());
        upper
    }

    fn pseudo_header(&self, len: usize) -> u64 {
        let (src, dst, family) = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                (u128::from(src.to_bits()), u128::from(dst.to_bits()), Family::V4)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => (src.to_bits(), dst.to_bits(), Family::V6),
            _ => unreachable!("the constructor checked the families"),
        };
        checksum::pseudo_header(src, dst, family, self.proto, u32::try_from(len).expect("a packet"))
    }

    fn tcp_header(&self) -> Vec<u8> {
        let mut header = [self.src_port.to_be_bytes(), self.dst_port.to_be_bytes()].concat();
        header.extend(self.seq.to_be_bytes());
        header.extend(self.ack.to_be_bytes());
        let words = u8::try_from(5 + self.tcp_options.len() / 4).expect("at most 40 bytes of options");
        header.extend([words << 4, self.flags]);
        header.extend(self.window.to_be_bytes());
        header.extend([0; 4]);
        header.extend(&self.tcp_options);
        header
    }

    fn udp_header(&self) -> Vec<u8> {
        let mut header = [self.src_port.to_be_bytes(), self.dst_port.to_be_bytes()].concat();
        let len = u16::try_from(8 + self.payload.len()).expect("a datagram");
        header.extend(len.to_be_bytes());
        header.extend([0, 0]);
        header
    }
}
