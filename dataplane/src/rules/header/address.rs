//! What an address says by itself.

use crate::packet::Family;

/// Types of addresses that need no routing table, for `-m addrtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AddressTypes {
    /// `UNSPEC`: the unspecified address of IPv6; no address of IPv4.
    pub unspecified: bool,
    /// `UNICAST`: what is none of the others. In IPv6 neither are the IPv4 addresses that are written as IPv6 ones.
    pub unicast: bool,
    /// `BROADCAST`: 255.255.255.255 and 0.0.0.0. Of subnets a wire knows nothing. IPv4 only.
    pub broadcast: bool,
    /// `MULTICAST`.
    pub multicast: bool,
}

impl AddressTypes {
    /// Whether an address is of one of these types, or in IPv6 of all of them.
    pub(super) const fn contain(self, address: u128, family: Family) -> bool {
        match family {
            Family::V4 => {
                let is_broadcast = address == 0 || address == u32::MAX as u128;
                let is_multicast = address >> 28 == 0xe;
                self.broadcast && is_broadcast
                    || self.multicast && is_multicast
                    || self.unicast && !is_broadcast && !is_multicast
            }
            Family::V6 => {
                let is_multicast = address >> 120 == 0xff;
                let is_mapped = address >> 32 == 0xffff;
                let is_unicast = !is_multicast && !is_mapped && address != 0;
                (!self.unspecified || address == 0)
                    && (!self.multicast || is_multicast)
                    && (!self.unicast || is_unicast)
                    && !self.broadcast
            }
        }
    }
}

/// Whether the low half of an IPv6 address is made of a MAC address. RFC 4291 appendix A.
pub(super) const fn is_made_of(address: u128, mac: [u8; 6]) -> bool {
    let [a, b, c, d, e, f] = mac;
    let wanted = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    address & u64::MAX as u128 == wanted as u128
}
