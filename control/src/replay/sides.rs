//! Which side of the wire a captured frame came in on. A capture does not say; the operator's prefixes do, or else
//! whoever spoke first in each pair of addresses is taken to be on the left.

use crate::api::address;
use crate::api::types::Net;
use dataplane::ids::PortId;
use dataplane::packet::{Kind, Tuple};
use dataplane::testing::gateway::{LEFT, RIGHT};
use dataplane::wire;
use std::collections::HashMap;
use std::net::IpAddr;

/// Two ends of a conversation, lower one first: IP addresses, or MAC addresses for frames without.
type Pair = ([u8; 16], [u8; 16]);

/// Remembers who is where.
#[derive(Debug)]
pub(super) struct Sides {
    left: Vec<Net>,
    /// Whether the lower address of a pair is on the left.
    lower_is_left: HashMap<Pair, bool>,
}

impl Sides {
    pub(super) fn new(left: &[Net]) -> Self {
        Self { left: left.to_vec(), lower_is_left: HashMap::new() }
    }

    /// The side this frame comes in on.
    pub(super) fn side(&mut self, frame: &[u8]) -> PortId {
        let ends = u32::try_from(frame.len()).ok().and_then(|len| ip_ends(frame, len));
        let (src, dst) = match ends {
            Some((src, _)) if !self.left.is_empty() => {
                return if self.left.iter().any(|net| net.contains(src)) { LEFT } else { RIGHT };
            }
            Some((src, dst)) => (octets(src), octets(dst)),
            None => mac_ends(frame),
        };
        let pair = if src <= dst { (src, dst) } else { (dst, src) };
        let src_is_lower = src <= dst;
        let lower_is_left = *self.lower_is_left.entry(pair).or_insert(src_is_lower);
        if lower_is_left == src_is_lower { LEFT } else { RIGHT }
    }
}

fn ip_ends(frame: &[u8], len: u32) -> Option<(IpAddr, IpAddr)> {
    let packet = wire::parse(frame, len).ok()?;
    let Tuple { src, dst, family, .. } = packet.tuple;
    (packet.kind != Kind::NonIp).then(|| (address(src, family), address(dst, family)))
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn mac_ends(frame: &[u8]) -> ([u8; 16], [u8; 16]) {
    let mac = |range: std::ops::Range<usize>| {
        let mut end = [0_u8; 16];
        if let Some(bytes) = frame.get(range) {
            end[..6].copy_from_slice(bytes);
        }
        end
    };
    (mac(6..12), mac(0..6))
}
