//! Orders of raw rules to the tracker (`-j CT`, `-j NOTRACK`), and what they speak of: zones, helpers, timeout policies,
//! events. Plain values.

use crate::flow::Direction;

/// What a `-j CT` or `-j NOTRACK` rule orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Orders {
    /// Do not track the packet.
    pub notrack: bool,
    /// Zone the packet is looked up in.
    pub zone: Zone,
    /// The zone's number is the packet's mark as it is after all raw rules.
    pub zone_is_mark: bool,
    /// Helper a connection gets that starts with this packet.
    pub helper: Option<Helper>,
    /// Timeout policy it gets.
    pub timeouts: Option<PolicyId>,
    /// Events it tells; `None`: all.
    pub events: Option<CtEvents>,
}

impl Orders {
    /// The same for a packet with this mark. Linux `nf_ct_zone_tmpl`: a zone is the low half of the mark.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "so does the kernel")]
    pub const fn with_mark(mut self, mark: u32) -> Self {
        if self.zone_is_mark {
            self.zone.id = mark as u16;
        }
        self
    }
}

/// A timeout policy, by its place in [`crate::worker::Settings::policies`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PolicyId(pub u8);

/// A set of things that happen to a connection. Bits are the kernel's (`IPCT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct CtEvents(pub u16);

impl CtEvents {
    /// It has entered the table.
    pub const NEW: Self = Self(1 << 0);
    /// It has, announced by another one.
    pub const RELATED: Self = Self(1 << 1);
    /// It has left.
    pub const DESTROY: Self = Self(1 << 2);
    /// It was answered.
    pub const REPLY: Self = Self(1 << 3);
    /// It became ASSURED.
    pub const ASSURED: Self = Self(1 << 4);
    /// Its protocol's state changed.
    pub const PROTOINFO: Self = Self(1 << 5);
    /// Its mark changed.
    pub const MARK: Self = Self(1 << 7);
    /// Its labels changed.
    pub const LABEL: Self = Self(1 << 10);
    /// A connection that it announced is expected. A bit of ours: the kernel has a set of its own for these.
    pub const EXPECT_NEW: Self = Self(1 << 12);

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set itself if `yes`, else nothing.
    #[must_use]
    pub const fn when(self, yes: bool) -> Self {
        if yes { self } else { Self(0) }
    }
}

/// A connection tracking zone: connections with the same tuple in different zones are different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Zone {
    /// Its number.
    pub id: u16,
    /// Whether the original direction is in the zone (else in zone 0).
    pub orig: bool,
    /// Whether the reply direction is.
    pub reply: bool,
}

impl Zone {
    /// The zone of one direction.
    #[must_use]
    #[inline]
    pub const fn of(self, direction: Direction) -> u16 {
        let is_in = match direction {
            Direction::Orig => self.orig,
            Direction::Reply => self.reply,
        };
        if is_in { self.id } else { 0 }
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self { id: 0, orig: true, reply: true }
    }
}

/// A connection tracking helper: reads a control connection and announces those it speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Helper {
    /// FTP (RFC 959, RFC 2428): PORT, EPRT, 227, 229.
    Ftp = 1,
    /// TFTP (RFC 1350): the server answers from another port.
    Tftp = 2,
}

impl Helper {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Ftp, Self::Tftp];

    /// The name rules call it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ftp => "ftp",
            Self::Tftp => "tftp",
        }
    }

    /// Protocol it helps.
    #[must_use]
    pub const fn proto(self) -> u8 {
        match self {
            Self::Ftp => crate::packet::proto::TCP,
            Self::Tftp => crate::packet::proto::UDP,
        }
    }

    /// Undoes `as u8`; 0 is none.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            1 => Some(Self::Ftp),
            2 => Some(Self::Tftp),
            _ => None,
        }
    }
}
