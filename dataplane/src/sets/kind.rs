//! What kinds of sets there are, and what a set is made with. Immutable.

use crate::packet::Family;

/// A type of set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `hash:ip`.
    HashIp,
    /// `hash:net`.
    HashNet,
    /// `hash:ip,port`.
    HashIpPort,
    /// `hash:net,port`.
    HashNetPort,
    /// `hash:ip,port,ip`.
    HashIpPortIp,
    /// `hash:ip,port,net`.
    HashIpPortNet,
    /// `hash:net,iface`.
    HashNetIface,
    /// `hash:mac`.
    HashMac,
    /// `bitmap:ip`.
    BitmapIp,
    /// `bitmap:port`.
    BitmapPort,
    /// `list:set`.
    ListSet,
}

/// Which address of an element is a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetPart {
    /// None of them.
    None,
    /// The first.
    First,
    /// The second.
    Second,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::HashIp,
        Self::HashNet,
        Self::HashIpPort,
        Self::HashNetPort,
        Self::HashIpPortIp,
        Self::HashIpPortNet,
        Self::HashNetIface,
        Self::HashMac,
        Self::BitmapIp,
        Self::BitmapPort,
        Self::ListSet,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HashIp => "hash:ip",
            Self::HashNet => "hash:net",
            Self::HashIpPort => "hash:ip,port",
            Self::HashNetPort => "hash:net,port",
            Self::HashIpPortIp => "hash:ip,port,ip",
            Self::HashIpPortNet => "hash:ip,port,net",
            Self::HashNetIface => "hash:net,iface",
            Self::HashMac => "hash:mac",
            Self::BitmapIp => "bitmap:ip",
            Self::BitmapPort => "bitmap:port",
            Self::ListSet => "list:set",
        }
    }

    /// How many parts an element has: as many directions a rule must give at least.
    #[must_use]
    pub const fn parts(self) -> u8 {
        match self {
            Self::HashIp
            | Self::HashNet
            | Self::HashMac
            | Self::BitmapIp
            | Self::BitmapPort
            | Self::ListSet => 1,
            Self::HashIpPort | Self::HashNetPort | Self::HashNetIface => 2,
            Self::HashIpPortIp | Self::HashIpPortNet => 3,
        }
    }

    /// Which part is a network.
    #[must_use]
    pub const fn net(self) -> NetPart {
        match self {
            Self::HashNet | Self::HashNetPort | Self::HashNetIface => NetPart::First,
            Self::HashIpPortNet => NetPart::Second,
            _ => NetPart::None,
        }
    }

    /// Whether elements begin with an address.
    #[must_use]
    pub const fn has_address(self) -> bool {
        !matches!(self, Self::HashMac | Self::BitmapPort | Self::ListSet)
    }

    /// Whether elements have a second address.
    #[must_use]
    pub const fn has_second_address(self) -> bool {
        matches!(self, Self::HashIpPortIp | Self::HashIpPortNet)
    }

    /// Whether elements have a protocol and a port behind the first address.
    #[must_use]
    pub const fn has_port(self) -> bool {
        matches!(self, Self::HashIpPort | Self::HashNetPort | Self::HashIpPortIp | Self::HashIpPortNet)
    }

    /// Whether its name begins with `hash:`.
    #[must_use]
    pub const fn is_hash(self) -> bool {
        !matches!(self, Self::BitmapIp | Self::BitmapPort | Self::ListSet)
    }
}

/// What a set is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its type.
    pub kind: Kind,
    /// Family of its addresses; `None` if it has none, and then it is asked about packets of both.
    pub family: Option<Family>,
    /// First and last value of a bitmap.
    pub range: (u32, u32),
    /// Prefix under which addresses are kept (`netmask`), where it may be given.
    pub netmask: u8,
    /// `hashsize`: room at first.
    pub hashsize: u32,
    /// `maxelem`: most entries.
    pub maxelem: u32,
    /// `size` of a `list:set`: kept to be printed.
    pub size: u32,
    /// `timeout`: seconds an entry lives unless told otherwise, 0 is for ever; `None`: entries have no timeouts.
    pub timeout: Option<u32>,
    /// `counters`.
    pub counters: bool,
    /// `comment`.
    pub comment: bool,
    /// `forceadd`.
    pub forceadd: bool,
    /// `bucketsize`: kept to be printed.
    pub bucketsize: u8,
    /// `initval`: kept to be printed, and part of the hash.
    pub initval: u32,
}

/// Bits of an address.
#[must_use]
pub const fn width(family: Family) -> u8 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

/// The upper bits of an address, by prefix length.
#[must_use]
pub const fn mask(family: Family, prefix: u8) -> u128 {
    let host = width(family).saturating_sub(prefix) as u32;
    let full = match family {
        Family::V4 => u32::MAX as u128,
        Family::V6 => u128::MAX,
    };
    match u128::MAX.checked_shl(host) {
        Some(mask) => full & mask,
        None => 0,
    }
}

impl Spec {
    /// A set of this type with ipset's defaults.
    #[must_use]
    pub const fn new(kind: Kind, family: Option<Family>) -> Self {
        let netmask = match family {
            Some(family) => width(family),
            None => 0,
        };
        Self {
            kind,
            family,
            range: (0, 0),
            netmask,
            hashsize: 1024,
            maxelem: 65_536,
            size: 8,
            timeout: None,
            counters: false,
            comment: false,
            forceadd: false,
            bucketsize: 12,
            initval: 0,
        }
    }

    /// Most entries it takes.
    #[must_use]
    pub fn entries_max(&self) -> usize {
        let max = match self.kind {
            Kind::ListSet => u32::MAX,
            Kind::BitmapIp => {
                let step = u32::from(32 - self.netmask.min(32));
                ((u64::from(self.range.1) - u64::from(self.range.0) >> step) + 1)
                    .try_into()
                    .unwrap_or(u32::MAX)
            }
            Kind::BitmapPort => self.range.1 - self.range.0 + 1,
            _ => self.maxelem,
        };
        max as usize
    }
}
