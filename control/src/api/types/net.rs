//! Addresses and marks of which some bits count.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// An address with the number of leading bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Net {
    addr: IpAddr,
    bits: u8,
}

impl Net {
    /// The address as given, bits that do not count included.
    #[must_use]
    pub const fn addr(&self) -> IpAddr {
        self.addr
    }

    /// How many leading bits count.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether `addr` is inside.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(net), IpAddr::V4(addr)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                (net.to_bits() ^ addr.to_bits()) & mask == 0
            }
            (IpAddr::V6(net), IpAddr::V6(addr)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                (net.to_bits() ^ addr.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

impl std::str::FromStr for Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (addr, bits) = text.split_once('/').map_or((text, None), |(addr, bits)| (addr, Some(bits)));
        let addr: IpAddr = addr.parse().map_err(|_| format!("`{addr}` is no IP address"))?;
        let most = if addr.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= most)
                .ok_or_else(|| format!("`/{bits}` is no prefix length; 0 to {most} are"))?,
        };
        Ok(Self { addr, bits })
    }
}

impl TryFrom<String> for Net {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Net> for String {
    fn from(net: Net) -> Self {
        format!("{}/{}", net.addr, net.bits)
    }
}

/// A mark of which some bits count, written `MARK` or `MARK/MASK`, decimal or `0x` hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Mark {
    /// The mark.
    pub value: u32,
    /// The bits that count; without a mask all of them.
    pub mask: u32,
}

impl Mark {
    /// Whether a flow's mark is this one, as conntrack compares them: bits of `value` outside the mask fit no flow.
    #[must_use]
    pub const fn fits(self, mark: u32) -> bool {
        mark & self.mask == self.value
    }
}

impl std::str::FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let parsed = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => text.parse(),
            };
            parsed.map_err(|_| format!("`{text}` is no number of 32 bits"))
        };
        let (value, mask) = text.split_once('/').map_or((text, None), |(value, mask)| (value, Some(mask)));
        Ok(Self { value: number(value)?, mask: mask.map_or(Ok(u32::MAX), number)? })
    }
}

impl TryFrom<String> for Mark {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Mark> for String {
    fn from(mark: Mark) -> Self {
        let Mark { value, mask } = mark;
        if mask == u32::MAX { format!("{value:#x}") } else { format!("{value:#x}/{mask:#x}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_fits_by_the_bits_of_its_mask() {
        for (text, fits, not) in [
            ("17", &[0x11][..], &[0x10, 0x111][..]),
            ("0x11/0xff", &[0x11, 0x111], &[0x10]),
            ("0/0", &[0, 1, u32::MAX], &[]),
            ("5/0", &[], &[0, 5]),
        ] {
            let mark: Mark = text.parse().unwrap();
            assert!(fits.iter().all(|value| mark.fits(*value)), "{text}");
            assert!(!not.iter().any(|value| mark.fits(*value)), "{text}");
            assert_eq!(String::from(mark).parse(), Ok(mark));
        }
        for wrong in ["", "x", "1/", "/1", "1/x", "4294967296", "0x"] {
            assert!(wrong.parse::<Mark>().is_err(), "{wrong}");
        }
    }
}
