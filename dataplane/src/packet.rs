//! What a parsed packet is: where its headers are, which flow it belongs to and what rules can ask about it.
//! Made by [`crate::wire::parse`] on the worker; plain values, no reference into the frame.

/// Address family of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

/// The 5-tuple of a packet as seen in its own direction. Host byte order throughout.
///
/// ICMP queries follow netfilter: `src_port` is the identifier, `dst_port` is `type << 8 | code`. Protocols without
/// ports, and later fragments, have both ports zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address; IPv4 in the low 32 bits.
    pub src: u128,
    /// Destination address; IPv4 in the low 32 bits.
    pub dst: u128,
    /// Source port, or ICMP identifier.
    pub src_port: u16,
    /// Destination port, or ICMP type and code.
    pub dst_port: u16,
    /// IP protocol number of the upper-layer header.
    pub proto: u8,
    /// Which family the addresses are of.
    pub family: Family,
}

/// A guess at where a flow's record is, good for one packet and one worker's table. Wrong guesses cost time only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hint(pub u32);

impl Hint {
    /// No idea.
    pub const NONE: Self = Self(u32::MAX);
    /// Not where the flow belongs, perhaps in its other bucket: a second look will tell.
    pub const ELSEWHERE: Self = Self(u32::MAX - 1);
}

/// Where a packet stands in a fragmented datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Fragment {
    /// Not fragmented (IPv6 atomic fragments included).
    Whole,
    /// Offset zero, more to come: carries the upper-layer header.
    First,
    /// Offset above zero: carries no upper-layer header.
    Later,
}

/// What the Ethernet frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// IPv4, judged by the IPv4 rules.
    Ipv4,
    /// IPv6, judged by the IPv6 rules.
    Ipv6,
    /// Anything else (ARP too): judged by the L2 pass list.
    NonIp,
}

/// A parsed packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// 5-tuple; all zero for non-IP.
    pub tuple: Tuple,
    /// Hash of the flow key, filled in by the worker after parsing.
    pub hash: u64,
    /// Bucket of the flow ([`crate::rss`]), which says whose it is: filled in with the hash.
    pub bucket: u8,
    /// Where the flow's record probably is, filled in by the worker when it has it fetched: [`Hint::NONE`] if not known.
    pub hint: Hint,
    /// Bytes of the whole frame, Ethernet header on, FCS not counted.
    pub frame_len: u32,
    /// Bytes of the IP packet, header on, link padding not counted: what rule counters count. Zero for non-IP.
    pub l3_len: u32,
    /// Offset of the IP header.
    pub l3_offset: u16,
    /// Offset of the upper-layer header; equals the end of the IP header chain.
    pub l4_offset: u16,
    /// EtherType after the VLAN tags; values up to 1500 mean an 802.3 length (LLC).
    pub ethertype: u16,
    /// TCP checksum and data offset aside, the flag byte of a TCP header (`CWR ECE URG ACK PSH RST SYN FIN`); else 0.
    pub tcp_flags: u8,
    /// ICMP or ICMPv6 type; else 0.
    pub icmp_type: u8,
    /// ICMP or ICMPv6 code; else 0.
    pub icmp_code: u8,
    /// VLAN tags passed over.
    pub vlan_tags: u8,
    /// What the frame holds.
    pub kind: Kind,
    /// Where the packet stands in a fragmented datagram.
    pub fragment: Fragment,
    /// Whether the upper-layer header's fixed part is inside the packet, so that ports, flags or type may be matched.
    pub has_l4: bool,
    /// What is wrong above IP, if anything: such a packet is INVALID to connection tracking, and rules decide.
    pub l4_fault: Option<L4Fault>,
    /// Whether it is one of those that nearly all packets are.
    pub plain: Plain,
    /// The numbers of a plain ACK; zeroes for any other packet.
    pub numbers: Numbers,
}

/// What most packets are: whole, with nothing wrong above IP as far as headers show, and nothing of note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Plain {
    /// Anything else.
    No,
    /// A TCP segment that carries an ACK: none of SYN, FIN and RST, no option but a timestamp.
    Ack,
    /// A UDP datagram.
    Datagram,
}

/// What connection tracking wants of a plain ACK. In host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Numbers {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Window, as on the wire.
    pub window: u16,
    /// Bytes after the header.
    pub payload_len: u16,
}

const _: () = assert!(size_of::<Packet>() == 96);

/// Why the upper-layer part of a well-formed IP packet cannot be tracked. Not a drop by itself, as in netfilter:
/// the packet is `INVALID` and the rules say what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum L4Fault {
    /// The fixed header is cut off by the end of the packet.
    Truncated,
    /// TCP data offset below 5 or beyond the packet; UDP or UDP-Lite length below 8 or beyond the packet.
    BadLength,
    /// A TCP flag combination that no stack sends (see [`crate::flow`]).
    BadFlags,
    /// The upper-layer checksum does not match.
    BadChecksum,
    /// IPv6 "no next header", or an extension header that hides the upper layer.
    NoUpperLayer,
    /// SCTP: chunk layout, port zero or checksum wrong.
    BadChunk,
    /// GRE of PPTP's version that carries no PPP.
    BadGre,
}

/// IP protocol numbers this crate names. Source: IANA protocol-numbers.
pub mod proto {
    /// Hop-by-hop options (IPv6).
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// Routing header (IPv6).
    pub const ROUTING: u8 = 43;
    /// Fragment header (IPv6).
    pub const FRAGMENT: u8 = 44;
    /// GRE.
    pub const GRE: u8 = 47;
    /// Encapsulating security payload.
    pub const ESP: u8 = 50;
    /// Authentication header.
    pub const AH: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// No next header (IPv6).
    pub const NONE: u8 = 59;
    /// Destination options (IPv6).
    pub const DST_OPTS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// Mobility header (IPv6).
    pub const MOBILITY: u8 = 135;
    /// UDP-Lite.
    pub const UDPLITE: u8 = 136;
}

/// TCP flag bits as they stand in byte 13 of the header. RFC 9293 section 3.1.
pub mod tcp_flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// Acknowledgement field is significant.
    pub const ACK: u8 = 0x10;
    /// Urgent pointer is significant.
    pub const URG: u8 = 0x20;
    /// ECN echo.
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;
}

impl Tuple {
    /// The all-zero tuple that non-IP packets carry.
    pub const NONE: Self = Self { src: 0, dst: 0, src_port: 0, dst_port: 0, proto: 0, family: Family::V4 };
}

impl Packet {
    /// A frame about which nothing is known yet.
    pub const EMPTY: Self = Self {
        tuple: Tuple::NONE,
        hash: 0,
        bucket: 0,
        hint: Hint::NONE,
        frame_len: 0,
        l3_len: 0,
        l3_offset: 0,
        l4_offset: 0,
        ethertype: 0,
        tcp_flags: 0,
        icmp_type: 0,
        icmp_code: 0,
        vlan_tags: 0,
        kind: Kind::NonIp,
        fragment: Fragment::Whole,
        has_l4: false,
        l4_fault: None,
        plain: Plain::No,
        numbers: Numbers { seq: 0, ack: 0, window: 0, payload_len: 0 },
    };

    /// Family of the packet, if it is IP.
    #[must_use]
    pub const fn family(&self) -> Option<Family> {
        match self.kind {
            Kind::Ipv4 => Some(Family::V4),
            Kind::Ipv6 => Some(Family::V6),
            Kind::NonIp => None,
        }
    }

    /// Whether the key of a connection can be read from it. Linux `nf_ct_get_tuplepr`: ports want four bytes, ICMP eight,
    /// and there must be an upper layer at all.
    #[must_use]
    pub const fn has_tuple(&self) -> bool {
        if matches!(self.fragment, Fragment::Later) {
            return false;
        }
        match self.l4_fault {
            Some(L4Fault::NoUpperLayer | L4Fault::BadGre) => false,
            Some(L4Fault::Truncated) => {
                let is_icmp = matches!(self.tuple.proto, proto::ICMP | proto::ICMPV6);
                !is_icmp && self.l3_end() >= self.l4_offset as usize + 4
            }
            _ => true,
        }
    }

    /// Offset one past the IP packet's last byte, in the frame.
    #[must_use]
    pub const fn l3_end(&self) -> usize {
        self.l3_offset as usize + self.l3_len as usize
    }
}
