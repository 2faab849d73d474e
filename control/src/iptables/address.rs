//! Addresses with masks, as `-s` and `-d` take them and iptables-save prints them.

use dataplane::packet::Family;
use std::net::{Ipv4Addr, Ipv6Addr};

/// An address and which of its bits count; the others are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Masked {
    pub(super) addr: u128,
    pub(super) mask: u128,
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressFault {
    /// It looks like a host name.
    Name,
    /// It is of the other family.
    OtherFamily,
    /// It is nothing.
    Malformed,
    /// What follows the slash is no mask.
    Mask,
}

/// All bits of an address of this family.
const fn all(family: Family) -> u128 {
    match family {
        Family::V4 => u32::MAX as u128,
        Family::V6 => u128::MAX,
    }
}

const fn width(family: Family) -> u32 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

/// The mask of a prefix.
const fn prefix_mask(len: u32, family: Family) -> u128 {
    if len == 0 { 0 } else { (all(family) << (width(family) - len)) & all(family) }
}

/// Reads `ADDR`, `ADDR/LEN` or `ADDR/MASK`. IPv4 may leave out trailing zero bytes (`10/8`).
pub(super) fn parse(text: &str, family: Family) -> Result<Masked, AddressFault> {
    let (address, mask) = match text.split_once('/') {
        Some((address, mask)) => (address, Some(mask)),
        None => (text, None),
    };
    let addr = parse_address(address, mask.is_some(), family)?;
    let mask = match mask {
        None => all(family),
        Some(mask) => parse_mask(mask, family).ok_or(AddressFault::Mask)?,
    };
    Ok(Masked { addr: addr & mask, mask })
}

fn parse_address(text: &str, has_mask: bool, family: Family) -> Result<u128, AddressFault> {
    let other = match family {
        Family::V4 => text.parse::<Ipv6Addr>().is_ok(),
        Family::V6 => text.parse::<Ipv4Addr>().is_ok(),
    };
    let parsed = match family {
        Family::V4 => parse_v4(text, has_mask),
        Family::V6 => text.parse::<Ipv6Addr>().ok().map(Ipv6Addr::to_bits),
    };
    parsed.ok_or_else(|| {
        let is_name = !other
            && text.chars().any(char::is_alphabetic)
            && text.chars().all(|char| char.is_alphanumeric() || "-._".contains(char));
        match (other, is_name) {
            (true, _) => AddressFault::OtherFamily,
            (_, true) => AddressFault::Name,
            _ => AddressFault::Malformed,
        }
    })
}

fn parse_v4(text: &str, has_mask: bool) -> Option<u128> {
    let mut octets = [0_u8; 4];
    let mut count = 0;
    for part in text.split('.') {
        let octet = octets.get_mut(count)?;
        let is_number = !part.is_empty() && part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
        *octet = part.parse().ok().filter(|_| is_number)?;
        count += 1;
    }
    (count == 4 || has_mask).then(|| u128::from(u32::from_be_bytes(octets)))
}

fn parse_mask(text: &str, family: Family) -> Option<u128> {
    if let Ok(len) = text.parse::<u32>() {
        return (len <= width(family)).then(|| prefix_mask(len, family));
    }
    match family {
        Family::V4 => text.parse::<Ipv4Addr>().ok().map(|mask| u128::from(mask.to_bits())),
        Family::V6 => text.parse::<Ipv6Addr>().ok().map(Ipv6Addr::to_bits),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "IPv4 lives in the low 32 bits")]
fn address(value: u128, family: Family) -> String {
    match family {
        Family::V4 => Ipv4Addr::from_bits(value as u32).to_string(),
        Family::V6 => Ipv6Addr::from_bits(value).to_string(),
    }
}

impl Masked {
    /// Prefix length, if the mask is one.
    fn prefix_len(self, family: Family) -> Option<u32> {
        let len = self.mask.count_ones();
        (self.mask == prefix_mask(len, family)).then_some(len)
    }

    /// As iptables-save writes it, always with its mask.
    pub(super) fn canonical(self, family: Family) -> String {
        let addr = address(self.addr, family);
        match self.prefix_len(family) {
            Some(len) => format!("{addr}/{len}"),
            None => format!("{addr}/{}", address(self.mask, family)),
        }
    }

    /// As `iptables -L -n` writes it: hosts without mask.
    pub(super) fn listed(self, family: Family) -> String {
        if self.mask == all(family) { address(self.addr, family) } else { self.canonical(family) }
    }

    /// What `iptables -L -n` writes where a rule does not say.
    pub(super) const fn anywhere(family: Family) -> &'static str {
        match family {
            Family::V4 => "0.0.0.0/0",
            Family::V6 => "::/0",
        }
    }
}
