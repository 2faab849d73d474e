//! One ruleset, described once, and its forms for every firewall of the bench. All forms decide alike about every packet:
//!
//! 1. what belongs to a known connection passes, and what is related to one;
//! 2. strangers: rules about addresses and ports of nobody here, which each packet that starts a connection has to be
//!    compared with;
//! 3. echo requests pass, and new connections to TCP and UDP ports 7000 to 7999; everything else is dropped.
//!
//! No two strangers are about the same packet. So their order says nothing, and a form may sort them into tables.

mod iptables;
mod nft;
mod openflow;
#[cfg(test)]
mod tests;

use crate::Error;
use std::collections::HashSet;
use std::ops::RangeInclusive;

/// Ports to which new connections pass.
pub const OPEN_PORTS: RangeInclusive<u16> = 7000..=7999;

/// Rules that are not strangers: known connections, echo requests, TCP, UDP.
const OTHERS: u32 = 4;

/// Ports of a stranger that is about several.
const PORTS: u16 = 11;

/// Lowest port that a stranger is about.
const PORT_FIRST: u16 = 1024;

/// Ranges of [`PORTS`] between [`PORT_FIRST`] and the load's ports.
const PORT_RANGES: u32 = 500;

/// Most rules: above, finding strangers that nobody is like takes longer than measuring.
const MOST: u32 = 1_000_000;

/// A ruleset of a given length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How many rules, of each IP version. In IPv6 two more let neighbours find each other.
    pub count: u32,
}

/// A rule about somebody else's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stranger {
    shape: Shape,
    /// Number of a network, below 4096.
    net: u16,
    /// Number of a host.
    host: u16,
    /// Destination port, or the first of [`PORTS`].
    port: u16,
    accepts: bool,
}

/// What a stranger looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shape {
    /// TCP from a network to a host's port.
    NetHostPort,
    /// UDP to a host's port.
    HostPort,
    /// TCP from a network to a range of ports.
    NetPorts,
    /// Anything from a host to a network.
    HostNet,
}

/// Of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Rules {
    /// `count` rules.
    #[must_use]
    pub const fn new(count: u32) -> Self {
        Self { count }
    }

    /// Whether there can be such a ruleset.
    ///
    /// # Errors
    /// If it would have too few or too many rules.
    pub fn check(&self) -> Result<(), Error> {
        if (OTHERS..=MOST).contains(&self.count) {
            return Ok(());
        }
        Err(format!("a ruleset has {OTHERS} to {MOST} rules, not {}", self.count).into())
    }

    /// The IPv4 rules as `iptables-save` prints them.
    #[must_use]
    pub fn iptables_save(&self) -> String {
        iptables::save(self, Family::V4)
    }

    /// The IPv6 rules as `ip6tables-save` prints them.
    #[must_use]
    pub fn ip6tables_save(&self) -> String {
        iptables::save(self, Family::V6)
    }

    /// A file for `nft -f` that exchanges the rules in one transaction. Strangers are looked up in maps, as somebody
    /// writes them who knows nft.
    #[must_use]
    pub fn nft(&self) -> String {
        nft::file(self)
    }

    /// Flows for `ovs-ofctl replace-flows`, between ports 1 and 2 of a bridge.
    #[must_use]
    pub fn openflow(&self) -> String {
        openflow::flows(self)
    }

    /// The strangers: always the same for the same count, and of two counts the shorter list begins the longer one.
    fn strangers(&self) -> impl Iterator<Item = Stranger> {
        let mut known = HashSet::new();
        let candidates = (0..).map(Stranger::candidate);
        // Two that differ in their verdict only are about the same packets.
        let apart = candidates.filter(move |stranger| known.insert(Stranger { accepts: false, ..*stranger }));
        apart.take(self.count.saturating_sub(OTHERS) as usize)
    }
}

impl Stranger {
    /// The `number`th of a long list in which some come twice.
    fn candidate(number: u32) -> Self {
        let spread = number.wrapping_mul(0x9e37_79b1);
        let bits =
            |shift: u32, count: u32| u16::try_from(spread >> shift & ((1 << count) - 1)).unwrap_or_default();
        let (net, host) = (bits(8, 12), bits(16, 16));
        let range = u16::try_from((spread >> 4) % PORT_RANGES).unwrap_or_default();
        let port = PORT_FIRST + range * PORTS;
        let accepts = !number.is_multiple_of(3);
        // What a shape does not look at is zero, so that equal rules are equal; the upper half of the networks is for
        // ranges of ports only, which the first shape might otherwise run into.
        match number % 4 {
            0 => Self { shape: Shape::NetHostPort, net: net & 0x7ff, host, port, accepts },
            1 => Self { shape: Shape::HostPort, net: 0, host, port, accepts },
            2 => Self { shape: Shape::NetPorts, net: net | 0x800, host: 0, port, accepts },
            _ => Self { shape: Shape::HostNet, net, host, port: 0, accepts },
        }
    }

    /// The last port of a range.
    const fn port_last(&self) -> u16 {
        self.port + PORTS - 1
    }
}

impl Family {
    /// The network of a stranger, all of which are in 172.16.0.0/12 or fdac:10::/48.
    fn net(self, number: u16) -> String {
        match self {
            Self::V4 => format!("172.{}.{}.0/24", 16 + (number >> 8), number & 255),
            Self::V6 => format!("fdac:10:0:{number:x}::/64"),
        }
    }

    /// The host of a stranger, all of which are in 198.51.0.0/16 or 2001:db8:51::/112.
    fn host(self, number: u16) -> String {
        match self {
            Self::V4 => format!("198.51.{}.{}", number >> 8, number & 255),
            Self::V6 => format!("2001:db8:51::{number:x}"),
        }
    }
}
