//! One element of a set, and the words it is kept as.

use super::kind::{Kind, NetPart, Spec, mask, width};
use crate::packet::Family;

/// An element: the parts its set has, the others zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Element {
    /// First address; the MAC address of a `hash:mac`.
    pub addr: u128,
    /// Its prefix.
    pub prefix: u8,
    /// Protocol.
    pub proto: u8,
    /// Port; of ICMP the type and code.
    pub port: u16,
    /// Second address.
    pub addr2: u128,
    /// Its prefix.
    pub prefix2: u8,
    /// Name of a NIC, see [`super::Set::iface`].
    pub iface: u16,
    /// `physdev:` before that name.
    pub physdev: bool,
}

/// Words an element is known by: one with everything but the addresses, and those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) meta: u64,
    pub(super) words: [u64; 4],
}

/// Set in each [`Key::meta`], so that it is no empty place.
pub(super) const USED: u64 = 1 << 1;
/// Beside the key: the entry is an exception.
pub(super) const NOMATCH: u64 = 1 << 2;
const PHYSDEV: u64 = 1 << 3;

/// Address words in the keys of a set.
pub(super) const fn key_words(spec: &Spec) -> usize {
    match (spec.family, spec.kind) {
        (Some(Family::V6), Kind::HashIpPortIp | Kind::HashIpPortNet) => 4,
        (Some(Family::V6), _) => 2,
        _ => 1,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
const fn halves(word: u128) -> [u64; 2] {
    [(word >> 64) as u64, word as u64]
}

const fn whole(halves: [u64; 2]) -> u128 {
    (halves[0] as u128) << 64 | halves[1] as u128
}

impl Element {
    /// The element as a set keeps it: its networks without host bits.
    #[must_use]
    pub fn masked(mut self, spec: &Spec) -> Self {
        let Some(family) = spec.family else { return self };
        let full = width(family);
        (self.prefix, self.prefix2) = match spec.kind.net() {
            NetPart::First => (self.prefix, 0),
            NetPart::Second => (full, self.prefix2),
            NetPart::None => (full, 0),
        };
        let kept =
            if matches!(spec.kind, Kind::HashIp | Kind::BitmapIp) { spec.netmask } else { self.prefix };
        self.addr &= mask(family, kept);
        if spec.kind == Kind::HashIpPortNet {
            self.addr2 &= mask(family, self.prefix2);
        }
        self
    }

    pub(super) const fn key(&self, spec: &Spec) -> Key {
        let (a, b) = (halves(self.addr), halves(self.addr2));
        let words = match (spec.family, spec.kind) {
            (Some(Family::V6), _) => [a[0], a[1], b[0], b[1]],
            (_, Kind::HashMac) => [a[1], 0, 0, 0],
            _ => [a[1] | b[1] << 32, 0, 0, 0],
        };
        // A prefix that every element has says nothing.
        let (prefix, prefix2) = match spec.kind.net() {
            NetPart::First => (self.prefix, 0),
            NetPart::Second => (0, self.prefix2),
            NetPart::None => (0, 0),
        };
        let meta = USED
            | if self.physdev { PHYSDEV } else { 0 }
            | (prefix as u64) << 8
            | (prefix2 as u64) << 16
            | (self.proto as u64) << 24
            | (self.port as u64) << 32
            | (self.iface as u64) << 48;
        Key { meta, words }
    }

    #[expect(clippy::cast_possible_truncation, reason = "fields of a word")]
    pub(super) const fn of_key(key: &Key, spec: &Spec) -> Self {
        let Key { meta, words } = *key;
        let (addr, addr2) = match (spec.family, spec.kind) {
            (Some(Family::V6), _) => (whole([words[0], words[1]]), whole([words[2], words[3]])),
            (_, Kind::HashMac) => (words[0] as u128, 0),
            _ => ((words[0] & 0xffff_ffff) as u128, (words[0] >> 32) as u128),
        };
        let full = match spec.family {
            Some(family) => width(family),
            None => 0,
        };
        let (prefix, prefix2) = match spec.kind.net() {
            NetPart::First => ((meta >> 8) as u8, 0),
            NetPart::Second => (full, (meta >> 16) as u8),
            NetPart::None => (full, 0),
        };
        Self {
            addr,
            prefix,
            proto: (meta >> 24) as u8,
            port: (meta >> 32) as u16,
            addr2,
            prefix2,
            iface: (meta >> 48) as u16,
            physdev: meta & PHYSDEV != 0,
        }
    }
}
