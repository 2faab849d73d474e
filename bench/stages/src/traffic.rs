//! Packets of many flows, cheap enough to make for tens of millions of them.

use dataplane::testing::packets::{Builder, udp};
use dataplane::wire::checksum;
use std::net::Ipv4Addr;

/// Bytes of every packet, Ethernet header included.
pub const PACKET: usize = 64;

/// A flow's packets, one from each side.
pub type Talk = [[u8; PACKET]; 2];

/// Hosts start at 10.0.0.0, each with as many flows as it has ports here.
const HOST: u32 = 0x0a00_0000;
const PORTS: u32 = 16;
const FIRST_PORT: u16 = 10_000;
const WEB: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const WEB_PORT: u16 = 7000;

/// Where checksums are: of the IP header, and of UDP.
const IP_CHECK: usize = 24;
const UDP_CHECK: usize = 40;

/// Makes the flows' packets: datagrams that the last of the ten rules accepts, and the answers to them.
#[derive(Clone, Copy, Debug)]
pub struct Talks {
    first: Talk,
}

impl Talks {
    /// Ready to make them.
    ///
    /// # Panics
    /// Never: the packets are of that size.
    #[must_use]
    pub fn new() -> Self {
        let payload = [b'x'; PACKET - 42];
        let frame = |builder: Builder| builder.payload(&payload).build().try_into().expect("64 bytes");
        let host = Ipv4Addr::from(HOST);
        Self {
            first: [
                frame(udp(host, WEB).ports(FIRST_PORT, WEB_PORT)),
                frame(udp(WEB, host).ports(WEB_PORT, FIRST_PORT)),
            ],
        }
    }

    /// Both packets of flow `number`: those of the first with another host and port, and checksums mended.
    #[must_use]
    pub fn of(&self, number: u32) -> Talk {
        let host = HOST + number / PORTS;
        let port = FIRST_PORT + u16::try_from(number % PORTS).unwrap_or(0);
        let [mut there, mut back] = self.first;
        put(&mut there, 26, host, 34, port);
        put(&mut back, 30, host, 36, port);
        [there, back]
    }
}

impl Default for Talks {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes the host's address and port.
fn put(packet: &mut [u8; PACKET], host_at: usize, host: u32, port_at: usize, port: u16) {
    let [a, b, c, d] = host.to_be_bytes();
    replace(packet, host_at, [a, b], &[IP_CHECK, UDP_CHECK]);
    replace(packet, host_at + 2, [c, d], &[IP_CHECK, UDP_CHECK]);
    replace(packet, port_at, port.to_be_bytes(), &[UDP_CHECK]);
}

/// Writes a word, and what that does to the checksums that cover it.
fn replace(packet: &mut [u8; PACKET], at: usize, new: [u8; 2], checks: &[usize]) {
    let old = u16::from_be_bytes([packet[at], packet[at + 1]]);
    for &check in checks {
        let before = u16::from_be_bytes([packet[check], packet[check + 1]]);
        let after = checksum::replaced(before, old, u16::from_be_bytes(new));
        packet[check..check + 2].copy_from_slice(&after.to_be_bytes());
    }
    packet[at..at + 2].copy_from_slice(&new);
}

/// Another order, always the same for one seed.
pub fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ seed;
    for at in (1..items.len()).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        items.swap(at, usize::try_from(random % (at as u64 + 1)).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_those_that_a_builder_makes_at_length() {
        let talks = Talks::new();
        for number in [0, 1, 15, 16, 65_536 * 16 + 3, 9_999_999] {
            let host = Ipv4Addr::from(HOST + number / PORTS);
            let port = FIRST_PORT + u16::try_from(number % PORTS).unwrap();
            let payload = [b'x'; PACKET - 42];
            let [there, back] = talks.of(number);
            assert_eq!(there[..], udp(host, WEB).ports(port, WEB_PORT).payload(&payload).build()[..]);
            assert_eq!(back[..], udp(WEB, host).ports(WEB_PORT, port).payload(&payload).build()[..]);
        }
    }
}
