//! What a set may be asked about one packet. Plain values: it goes over a ring as it is.

use super::element::Element;
use super::kind::{Kind, Spec, width};
use crate::ids::PortId;
use crate::packet::{Family, Fragment, L4Fault, Packet, Tuple, proto};
use crate::rules::Facts;
use crate::rules::model::Hook;

/// `src,dst,...` of a rule: which end of the packet each part of an element is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Directions {
    /// How many are given.
    pub count: u8,
    /// Those that are `src`, one bit each, the first one lowest.
    pub src: u8,
}

impl Directions {
    /// Most directions there may be.
    pub const MAX: u8 = 6;

    /// Whether a part, counted from zero, is of the source.
    #[must_use]
    pub const fn is_src(self, part: u8) -> bool {
        self.src >> part & 1 != 0
    }
}

/// A packet as sets see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    tuple: Tuple,
    /// Source and destination port, or twice the type and code of ICMP; `None` if the packet does not carry them.
    ports: Option<(u16, u16)>,
    /// Destination and source MAC address, if the frame is known.
    macs: Option<[u8; 12]>,
    /// The NIC it came in on.
    ingress: PortId,
    /// The NIC it leaves on, where the rule is asked that is known.
    egress: Option<PortId>,
    /// IP bytes.
    pub(super) len: u32,
    /// Nanoseconds on the daemon's clock.
    pub(super) nanos: u64,
}

impl Subject {
    /// A packet in front of a rule.
    #[inline]
    #[must_use]
    pub fn of(facts: &Facts<'_>, hook: Hook) -> Self {
        let packet = facts.packet;
        Self {
            tuple: packet.tuple,
            ports: ports(packet),
            macs: facts.bytes.get(..12).and_then(|macs| macs.try_into().ok()),
            // Not to `-i` but to sets a router's POSTROUTING still tells it.
            ingress: facts.ingress,
            egress: (!matches!(hook, Hook::Raw | Hook::Prerouting)).then_some(facts.egress),
            len: packet.l3_len,
            nanos: facts.now.nanos,
        }
    }

    /// Its family.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.tuple.family
    }

    const fn addr(&self, is_src: bool) -> u128 {
        if is_src { self.tuple.src } else { self.tuple.dst }
    }

    fn port(&self, is_src: bool) -> Option<u16> {
        self.ports.map(|(src, dst)| if is_src { src } else { dst })
    }

    /// The element that a set of this kind looks for; `None` if the packet has no such. Networks have full prefixes.
    #[inline]
    pub(super) fn element(
        &self,
        spec: &Spec,
        directions: Directions,
        iface: impl Fn(PortId) -> u16,
    ) -> Option<Element> {
        let first = directions.is_src(0);
        let mut element = Element::default();
        match spec.kind {
            Kind::HashMac => {
                let macs = self.macs?;
                let mac = if first { &macs[6..] } else { &macs[..6] };
                element.addr = mac.iter().fold(0, |all, byte| all << 8 | u128::from(*byte));
                return (element.addr != 0).then_some(element);
            }
            Kind::BitmapPort => {
                let has_ports = matches!(self.tuple.proto, proto::TCP | proto::UDP);
                element.port = self.port(first).filter(|_| has_ports)?;
                return Some(element);
            }
            _ => {}
        }
        let full = width(self.tuple.family);
        element.addr = self.addr(first);
        (element.prefix, element.prefix2) = (full, full);
        if spec.kind.has_port() {
            element.proto = self.tuple.proto;
            element.port = self.port(directions.is_src(1))?;
        }
        if spec.kind.has_second_address() {
            element.addr2 = self.addr(directions.is_src(2));
        }
        if spec.kind == Kind::HashNetIface {
            let nic = if directions.is_src(1) { self.ingress } else { self.egress? };
            element.iface = iface(nic);
        }
        Some(element)
    }
}

/// Ports as ipset reads them (`ip_set_getport.c`): of protocols that have none they are zero; of a later fragment those
/// of protocols that have some are not known, and with IPv6 nothing is.
#[inline]
const fn ports(packet: &Packet) -> Option<(u16, u16)> {
    let is_later = matches!(packet.fragment, Fragment::Later);
    if matches!(packet.tuple.family, Family::V6)
        && (is_later || matches!(packet.l4_fault, Some(L4Fault::NoUpperLayer)))
    {
        return None;
    }
    match packet.tuple.proto {
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP => {
            if packet.has_l4 {
                Some((packet.tuple.src_port, packet.tuple.dst_port))
            } else {
                None
            }
        }
        proto::ICMP if matches!(packet.tuple.family, Family::V4) => icmp(packet),
        proto::ICMPV6 if matches!(packet.tuple.family, Family::V6) => icmp(packet),
        _ => Some((0, 0)),
    }
}

const fn icmp(packet: &Packet) -> Option<(u16, u16)> {
    let both = (packet.icmp_type as u16) << 8 | packet.icmp_code as u16;
    if packet.has_l4 { Some((both, both)) } else { None }
}
