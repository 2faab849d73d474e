//! IPv6's extension headers: `-m ah`, `-m frag`, `-m ipv6header`, `-m hbh`, `-m dst`, `-m rt`. RFC 8200 section 4.

use super::view::{Cut, View};
use super::{Answer, Range};
use crate::packet::proto;

/// Bytes of the fixed header.
const FIXED_LEN: usize = 40;

/// Where the first header of a kind starts; `None` if there is none. A chain that breaks off before that is a [`Cut`];
/// behind the header of a later fragment there is nothing to find. Linux `ipv6_find_hdr`.
fn find(ip: &[u8], wanted: u8) -> Result<Option<usize>, Cut> {
    let mut kind = *ip.get(6).ok_or(Cut)?;
    let mut at = FIXED_LEN;
    loop {
        if !matches!(kind, proto::HOP_BY_HOP | proto::ROUTING | proto::FRAGMENT | proto::AH | proto::DST_OPTS)
        {
            return Ok(None);
        }
        let [next, units] = *ip.get(at..).and_then(<[u8]>::first_chunk).ok_or(Cut)?;
        let needs = if matches!(kind, proto::ROUTING | proto::FRAGMENT) { 4 } else { 2 };
        let header = ip.get(at..at + needs).ok_or(Cut)?;
        if kind == wanted {
            return Ok(Some(at));
        }
        let len = match kind {
            proto::FRAGMENT => {
                if u16::from_be_bytes([header[2], header[3]]) & !7 != 0 {
                    return Ok(None);
                }
                8
            }
            proto::AH => auth_len(units),
            _ => extension_len(units),
        };
        (kind, at) = (next, at + len);
    }
}

const fn extension_len(units: u8) -> usize {
    (units as usize + 1) * 8
}

/// RFC 4302 section 2.2.
const fn auth_len(units: u8) -> usize {
    (units as usize + 2) * 4
}

/// An extension header, as long as it says it is.
fn extension(ip: &[u8], at: usize) -> Result<&[u8], Cut> {
    let units = *ip.get(at + 1).ok_or(Cut)?;
    ip.get(at..at + extension_len(units)).ok_or(Cut)
}

/// IPv6's `-m ah`: an authentication header somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth {
    /// `--ahspi`.
    pub spi: Range<u32>,
    /// `--ahlen`: bytes of the header; 0 is any.
    pub len: (u32, bool),
    /// `--ahres`: the reserved field is zero.
    pub reserved: bool,
}

impl Auth {
    pub(super) fn ask(&self, view: &View<'_>) -> Answer {
        let Some(at) = find(view.ip, proto::AH)? else { return Ok(false) };
        let header: &[u8; 12] = view.ip.get(at..).and_then(<[u8]>::first_chunk).ok_or(Cut)?;
        let [_, units, high, low, a, b, c, d, ..] = *header;
        let (len, invert) = self.len;
        Ok(self.spi.holds(&u32::from_be_bytes([a, b, c, d]))
            && (len == 0 || (usize::try_from(len) == Ok(auth_len(units))) != invert)
            && !(self.reserved && [high, low] != [0, 0]))
    }
}

/// `-m frag`: a fragment header. `--fraglen` is not here: the kernel does not look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentHeader {
    /// `--fragid`.
    pub id: Range<u32>,
    /// `--fragres`: reserved fields are zero.
    pub reserved: bool,
    /// `--fragfirst`.
    pub first: bool,
    /// `--fragmore`, false for `--fraglast`.
    pub more: Option<bool>,
}

impl FragmentHeader {
    pub(super) fn ask(&self, view: &View<'_>) -> Answer {
        let Some(at) = find(view.ip, proto::FRAGMENT)? else { return Ok(false) };
        let header: &[u8; 8] = view.ip.get(at..).and_then(<[u8]>::first_chunk).ok_or(Cut)?;
        let [_, reserved, high, low, a, b, c, d] = *header;
        let field = u16::from_be_bytes([high, low]);
        Ok(self.id.holds(&u32::from_be_bytes([a, b, c, d]))
            && !(self.reserved && (reserved != 0 || field & 6 != 0))
            && !(self.first && field & !7 != 0)
            && self.more.is_none_or(|more| (field & 1 != 0) == more))
    }
}

/// `-m ipv6header`: which extension headers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions {
    /// Kinds asked for, see [`Extensions::bit`].
    pub kinds: u8,
    /// `--soft`: these and perhaps others, rather than just these.
    pub soft: bool,
    /// With `!`.
    pub invert: bool,
}

impl Extensions {
    /// An upper-layer header, in the manner of a kind.
    pub const UPPER_LAYER: u8 = 1;

    /// The bit of a kind of header; 0 of none that there is a bit for.
    #[must_use]
    pub const fn bit(kind: u8) -> u8 {
        match kind {
            proto::HOP_BY_HOP => 0x80,
            proto::DST_OPTS => 0x40,
            proto::ROUTING => 0x20,
            proto::FRAGMENT => 0x10,
            proto::AH => 0x08,
            proto::ESP => 0x04,
            proto::NONE => 0x02,
            _ => 0,
        }
    }

    pub(super) fn hold(self, view: &View<'_>) -> bool {
        let Some(found) = Self::found(view.ip) else { return false };
        if !self.soft {
            return (found == self.kinds) != self.invert;
        }
        let wanted = if self.invert { 0 } else { self.kinds };
        found & self.kinds == wanted
    }

    /// What the chain holds; `None` if the packet ends within. What follows a fragment header is taken for one more
    /// header, in later fragments too.
    fn found(ip: &[u8]) -> Option<u8> {
        let mut kind = *ip.get(6)?;
        let mut at = FIXED_LEN;
        let mut found = 0;
        loop {
            let bit = Self::bit(kind);
            match kind {
                _ if bit == 0 => return Some(found | Self::UPPER_LAYER),
                proto::NONE => return Some(found | bit),
                _ => {}
            }
            let [next, units] = *ip.get(at..)?.first_chunk()?;
            found |= bit;
            if kind == proto::ESP {
                return Some(found);
            }
            at += match kind {
                proto::FRAGMENT => 8,
                proto::AH => auth_len(units),
                _ => extension_len(units),
            };
            kind = next;
            if at > ip.len() {
                let is_upper = !matches!(kind, proto::NONE | proto::ESP);
                return Some(found | u8::from(is_upper));
            }
        }
    }
}

/// An option's type, and the length of its value if that matters.
pub type WantedOption = (u8, Option<u8>);

/// `-m hbh`, `-m dst`: a header of options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether destination options rather than hop-by-hop options.
    pub destination: bool,
    /// `--hbh-len`, `--dst-len`: bytes of the header, inverted.
    pub len: Option<(u32, bool)>,
    /// `--hbh-opts`, `--dst-opts`: its first options, in order.
    pub options: Option<Box<[WantedOption]>>,
}

impl Options {
    pub(super) fn ask(&self, view: &View<'_>) -> Answer {
        let kind = if self.destination { proto::DST_OPTS } else { proto::HOP_BY_HOP };
        let Some(at) = find(view.ip, kind)? else { return Ok(false) };
        let header = extension(view.ip, at)?;
        let len = header.len();
        let len_fits = self.len.is_none_or(|(wanted, invert)| (usize::try_from(wanted) == Ok(len)) != invert);
        Ok(len_fits && self.options.as_ref().is_none_or(|wanted| begins_with(&header[2..], wanted)))
    }
}

/// Whether a header's options begin with these. The last one may say that it is longer than the header.
fn begins_with(mut options: &[u8], wanted: &[WantedOption]) -> bool {
    wanted.iter().enumerate().all(|(index, &(kind, wanted_len))| {
        let len = match (options.first(), kind, options.get(1)) {
            (Some(&found), _, _) if found != kind => return false,
            (Some(_), 0, _) => 1,
            (Some(_), _, Some(&len)) if wanted_len.is_none_or(|wanted| wanted == len) => usize::from(len) + 2,
            _ => return false,
        };
        match options.get(len..) {
            Some(rest) => options = rest,
            None if index + 1 < wanted.len() => return false,
            None => options = &[],
        }
        true
    })
}

/// `-m rt`: a routing header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routing {
    /// `--rt-type`, inverted.
    pub kind: Option<(u32, bool)>,
    /// `--rt-segsleft`.
    pub segments_left: Range<u32>,
    /// `--rt-len`: bytes of the header, inverted.
    pub len: Option<(u32, bool)>,
    /// `--rt-0-res`: the reserved field is zero.
    pub reserved: bool,
    /// `--rt-0-addrs`: its addresses.
    pub addresses: Option<Box<[u128]>>,
    /// `--rt-0-not-strict`: these in this order, and perhaps others between them.
    pub not_strict: bool,
}

impl Routing {
    pub(super) fn ask(&self, view: &View<'_>) -> Answer {
        let Some(at) = find(view.ip, proto::ROUTING)? else { return Ok(false) };
        let header = extension(view.ip, at)?;
        let (kind, segments_left) = (u32::from(header[2]), u32::from(header[3]));
        let fits = |asked: Option<(u32, bool)>, have: u32| {
            asked.is_none_or(|(wanted, invert)| (wanted == have) != invert)
        };
        Ok(self.segments_left.holds(&segments_left)
            && fits(self.len, u32::try_from(header.len()).unwrap_or(u32::MAX))
            && fits(self.kind, kind)
            && !(self.reserved && header[4..8] != [0; 4])
            && self.addresses.as_ref().is_none_or(|wanted| self.visits(&header[8..], wanted)))
    }

    fn visits(&self, addresses: &[u8], wanted: &[u128]) -> bool {
        let (addresses, _) = addresses.as_chunks::<16>();
        let mut addresses = addresses.iter().map(|bytes| u128::from_be_bytes(*bytes));
        if self.not_strict {
            return wanted.len() <= addresses.len()
                && wanted.iter().all(|wanted| addresses.any(|have| have == *wanted));
        }
        wanted.iter().copied().eq(addresses)
    }
}
