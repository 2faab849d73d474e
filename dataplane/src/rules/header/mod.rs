//! Conditions on what is in one packet: fields of its headers, options, payload, MAC addresses, the wire's NICs. Shared by
//! [`super::linear`] and the compiled form. Worker thread; evaluated only when a rule asks.
//!
//! Every byte looked at may be an enemy's: nothing here panics, and work is bounded by the packet's length times what the
//! rule's text says. Meaning: `net/netfilter/xt_*.c` and `net/ipv6/netfilter/ip6t_*.c`, as observed from outside.

mod address;
mod dccp;
mod device;
mod edges;
mod ipv6;
mod sctp;
mod tcp;
#[cfg(test)]
pub(super) mod tests;
mod text;
mod u32;
mod view;

pub use address::AddressTypes;
pub use dccp::Dccp;
pub use device::Device;
pub use ipv6::{Auth, Extensions, FragmentHeader, Options, Routing, WantedOption};
pub use sctp::{ChunkFlags, ChunkRule, Chunks};
pub use text::{PATTERN_MAX as TEXT_PATTERN_MAX, Text};
pub use u32::{LIST_MAX as U32_LIST_MAX, Operation, Test as U32Test, U32};

pub(super) use edges::HeaderEdges;

use super::Facts;
use super::conn::Marks;
use crate::packet::proto;
use view::{Cut, View};

/// A condition on one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderMatch {
    /// `-m length`: bytes of the IP packet, header included, within these.
    Length(Range<u16>),
    /// `-m ttl`, `-m hl`.
    Hops(Hops),
    /// `-m tos`, `-m dscp`, `-m ecn --ecn-ip-ect`: bits of the TOS or traffic class byte.
    Tos {
        /// What the masked byte must be.
        value: u8,
        /// The mask.
        mask: u8,
        /// With `!`.
        invert: bool,
    },
    /// `-m ecn --ecn-tcp-ece`, `--ecn-tcp-cwr`: a bit of a TCP header's flag byte.
    EcnFlag {
        /// The bit.
        bit: u8,
        /// With `!`.
        invert: bool,
    },
    /// `-m mac --mac-source`.
    Mac {
        /// The address.
        address: [u8; 6],
        /// With `!`.
        invert: bool,
    },
    /// `-m eui64`: the source address is made of the source MAC address.
    Eui64,
    /// `-m pkttype`.
    PacketType {
        /// The type asked for.
        is: PacketType,
        /// With `!`.
        invert: bool,
    },
    /// `-m iprange`.
    Address {
        /// The destination rather than the source.
        of_dst: bool,
        /// Which ones.
        range: Range<u128>,
    },
    /// `-m addrtype`.
    AddressType {
        /// The destination rather than the source.
        of_dst: bool,
        /// Which ones.
        types: AddressTypes,
        /// With `!`.
        invert: bool,
    },
    /// `-m physdev`.
    Device(Device),
    /// The same where it is known which NICs that are, one bit each.
    Nics {
        /// Those it may have come in on.
        ingress: u64,
        /// Those it may leave on.
        egress: u64,
    },
    /// What `-m tcp`, `-m sctp` and the like ask before anything else: that so many bytes of the upper-layer header are
    /// there. A later fragment has none; a packet that is too short for them is dropped.
    Carries(u8),
    /// Ports of a protocol that packets have none of for the tracker: the two numbers that its header starts with.
    RawPorts {
        /// Which.
        which: super::model::PortSide,
        /// Any of these, both ends included.
        ranges: Box<[(u16, u16)]>,
        /// With `!`.
        invert: bool,
    },
    /// `-m tcp --tcp-option`.
    TcpOption {
        /// Its kind.
        kind: u8,
        /// With `!`.
        invert: bool,
    },
    /// `-m tcpmss`.
    Mss(Range<u16>),
    /// `-m esp` and IPv4's `-m ah`: the security parameters index.
    Spi(Range<u32>),
    /// `-m sctp --chunk-types`.
    Chunks(Box<Chunks>),
    /// `-m dccp --dccp-types`, `--dccp-option`.
    Dccp(Dccp),
    /// IPv6's `-m ah`.
    Auth(Auth),
    /// `-m frag`.
    Fragment(FragmentHeader),
    /// `-m ipv6header`.
    Extensions(Extensions),
    /// `-m hbh`, `-m dst`.
    Options(Box<Options>),
    /// `-m rt`.
    Routing(Box<Routing>),
    /// `-m u32`.
    U32(Box<U32>),
    /// `-m string`.
    Text(Box<Text>),
}

/// Numbers from one to another, both included; none if they are the wrong way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range<T> {
    /// The least.
    pub low: T,
    /// The greatest.
    pub high: T,
    /// With `!`.
    pub invert: bool,
}

impl<T: PartialOrd> Range<T> {
    fn holds(&self, value: &T) -> bool {
        (self.low <= *value && *value <= self.high) != self.invert
    }
}

/// What is asked of TTL or hop limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hops {
    /// Equal.
    Eq(u8),
    /// Not equal.
    Ne(u8),
    /// Less.
    Lt(u8),
    /// More.
    Gt(u8),
}

/// Whom a frame is sent to, by its destination MAC address. On a bridge everything that is for one receiver is `unicast`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketType {
    /// One receiver.
    Unicast,
    /// Everybody.
    Broadcast,
    /// A group.
    Multicast,
    /// Somebody else. A bridge is everybody's, so this is never said.
    OtherHost,
}

/// Whether a condition holds; [`Cut`] if the packet ends before that can be said.
type Answer = Result<bool, Cut>;

impl HeaderMatch {
    /// Whether it holds. A packet that cannot be asked, for it ends too early, is to be dropped: [`Marks::hotdrop`].
    pub(super) fn holds(&self, facts: &Facts<'_>, marks: &mut Marks) -> bool {
        self.ask(facts).unwrap_or_else(|Cut| {
            marks.hotdrop = true;
            false
        })
    }

    fn ask(&self, facts: &Facts<'_>) -> Answer {
        let view = View::of(facts);
        let tuple = &facts.packet.tuple;
        Ok(match self {
            Self::Length(range) => {
                u16::try_from(facts.packet.l3_len).map_or(range.invert, |len| range.holds(&len))
            }
            Self::Hops(hops) => hops.hold(view.hops()),
            Self::Tos { value, mask, invert } => (view.tos() & mask == *value) != *invert,
            Self::EcnFlag { bit, invert } => tcp::has_ecn_flag(&view, *bit, *invert),
            Self::Mac { address, invert } => view.src_mac().is_some_and(|mac| (mac == address) != *invert),
            Self::Eui64 => view.src_mac().is_some_and(|mac| address::is_made_of(tuple.src, *mac)),
            Self::PacketType { is, invert } => (view.packet_type() == *is) != *invert,
            Self::Address { of_dst, range } => range.holds(if *of_dst { &tuple.dst } else { &tuple.src }),
            Self::AddressType { of_dst, types, invert } => {
                let address = if *of_dst { tuple.dst } else { tuple.src };
                types.contain(address, tuple.family) != *invert
            }
            // Made `Nics` of where it is asked.
            Self::Device(_) => false,
            Self::Nics { ingress, egress } => {
                ingress >> facts.ingress.0 & 1 != 0 && egress >> facts.egress.0 & 1 != 0
            }
            Self::Carries(bytes) => return view.carries(usize::from(*bytes)),
            Self::RawPorts { which, ranges, invert } => return view.has_ports(*which, ranges, *invert),
            Self::TcpOption { kind, invert } => {
                return tcp::has_option(&view, *kind).map(|has| has != *invert);
            }
            Self::Mss(range) => {
                return tcp::mss(&view).map(|mss| mss.map_or(range.invert, |mss| range.holds(&mss)));
            }
            Self::Spi(range) => return spi(&view).map(|spi| spi.is_some_and(|spi| range.holds(&spi))),
            Self::Chunks(chunks) => return chunks.ask(&view),
            Self::Dccp(dccp) => return dccp.ask(&view),
            Self::Auth(auth) => return auth.ask(&view),
            Self::Fragment(fragment) => return fragment.ask(&view),
            Self::Extensions(extensions) => extensions.hold(&view),
            Self::Options(options) => return options.ask(&view),
            Self::Routing(routing) => return routing.ask(&view),
            Self::U32(u32) => u32.holds(view.ip),
            Self::Text(text) => text.holds(view.ip),
        })
    }

    /// Whether packets of one flow and direction may differ in this. Too short a header is not tracked.
    pub(super) const fn is_volatile(&self) -> bool {
        !matches!(
            self,
            Self::Address { .. }
                | Self::AddressType { .. }
                | Self::Device(_)
                | Self::Nics { .. }
                | Self::Carries(_)
        )
    }

    /// Whether a packet may be dropped for being asked, so that it matters who is asked.
    pub(super) const fn may_drop(&self) -> bool {
        matches!(
            self,
            Self::Carries(_)
                | Self::RawPorts { .. }
                | Self::TcpOption { .. }
                | Self::Mss(_)
                | Self::Spi(_)
                | Self::Chunks(_)
                | Self::Dccp(_)
                | Self::Auth(_)
                | Self::Fragment(_)
                | Self::Options(_)
                | Self::Routing(_)
        )
    }
}

impl Hops {
    const fn hold(self, hops: u8) -> bool {
        match self {
            Self::Eq(value) => hops == value,
            Self::Ne(value) => hops != value,
            Self::Lt(value) => hops < value,
            Self::Gt(value) => hops > value,
        }
    }
}

/// The index of ESP, or of IPv4's AH; `None` in a later fragment. RFC 4302 section 2, RFC 4303 section 2.
fn spi(view: &View<'_>) -> Result<Option<u32>, Cut> {
    let (len, at) = if view.packet.tuple.proto == proto::AH { (12, 4) } else { (8, 0) };
    if view.is_later() {
        return Ok(None);
    }
    let header = view.upper().get(..len).ok_or(Cut)?;
    Ok(header[at..].first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes)))
}

impl Range<u128> {
    /// Address and mask that all numbers of the range share; `None` if it says nothing of the kind.
    pub(super) fn common_bits(&self) -> Option<(u128, u128)> {
        if self.invert {
            return None;
        }
        let free = (self.low ^ self.high).leading_zeros();
        let mask = u128::MAX.checked_shl(128 - free).unwrap_or(0);
        Some((self.low & mask, mask))
    }

    /// Whether it is every number with such common bits.
    pub(super) const fn is_all_of(&self, mask: u128) -> bool {
        self.low & !mask == 0 && self.high & !mask == !mask
    }
}
