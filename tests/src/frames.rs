//! Frames for raw injection, whole and broken. Whole ones come from etherparse; a broken one is a whole one with one
//! thing changed, so that exactly that is wrong with it.

use crate::lab::Lab;
use etherparse::PacketBuilder;

/// Length of an Ethernet header.
pub const ETHERNET_BYTES: usize = 14;

/// TPID of an 802.1Q tag.
pub const TPID_8021Q: u16 = 0x8100;

/// TPID of an 802.1ad service tag, the outer one of QinQ.
pub const TPID_8021AD: u16 = 0x88a8;

const HOP_LIMIT: u8 = 64;

/// A frame that must not come out on the other side.
#[derive(Clone, Debug)]
pub struct Malformed {
    /// The drop reason that must count it.
    pub reason: &'static str,
    /// Its bytes.
    pub frame: Vec<u8>,
}

/// A UDP datagram over IPv4 from the left host to the right one.
///
/// # Panics
/// If `payload` is longer than a datagram may be.
#[must_use]
pub fn udp_v4(lab: &Lab, src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(lab.left.mac, lab.right.mac)
        .ipv4(lab.left.v4.octets(), lab.right.v4.octets(), HOP_LIMIT)
        .udp(src_port, dst_port);
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, payload).expect("a vector takes every byte of a datagram that fits");
    frame
}

/// The same over IPv6.
///
/// # Panics
/// If `payload` is longer than a datagram may be.
#[must_use]
pub fn udp_v6(lab: &Lab, src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(lab.left.mac, lab.right.mac)
        .ipv6(lab.left.v6.octets(), lab.right.v6.octets(), HOP_LIMIT)
        .udp(src_port, dst_port);
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, payload).expect("a vector takes every byte of a datagram that fits");
    frame
}

/// A TCP SYN over IPv4 from the left host to the right one.
///
/// # Panics
/// Never: a SYN fits every frame.
#[must_use]
pub fn syn_v4(lab: &Lab, src_port: u16, dst_port: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(lab.left.mac, lab.right.mac)
        .ipv4(lab.left.v4.octets(), lab.right.v4.octets(), HOP_LIMIT)
        .tcp(src_port, dst_port, 1, 64_000)
        .syn();
    let mut frame = Vec::new();
    builder.write(&mut frame, &[]).expect("a vector takes every byte");
    frame
}

/// `frame` with VLAN tags (TPID, VLAN id) put in, the outermost first.
#[must_use]
pub fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let (macs, rest) = frame.split_at(ETHERNET_BYTES - 2);
    let mut out = macs.to_vec();
    for (tpid, vlan) in tags {
        out.extend(tpid.to_be_bytes());
        out.extend(vlan.to_be_bytes());
    }
    out.extend(rest);
    out
}

/// A frame of `ether_type` between the hosts with `payload` behind the Ethernet header.
#[must_use]
pub fn ethernet(lab: &Lab, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET_BYTES + payload.len());
    frame.extend(lab.right.mac);
    frame.extend(lab.left.mac);
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Every malformed frame that a packet socket can send, with the reason it deserves.
#[must_use]
pub fn malformed(lab: &Lab) -> Vec<Malformed> {
    let v4 = udp_v4(lab, 4000, 7000, b"malformed");
    let v6 = udp_v6(lab, 4000, 7000, b"malformed");
    let broken = |reason, frame: &[u8], change: fn(&mut Vec<u8>)| {
        let mut frame = frame.to_vec();
        change(&mut frame);
        Malformed { reason, frame }
    };
    vec![
        broken("ethernet_truncated", &ethernet(lab, TPID_8021Q, &[0]), |_| {}),
        broken("vlan_too_deep", &tagged(&v4, &[(TPID_8021Q, 5); 9]), |_| {}),
        broken("link_local_mac", &v4, |f| put(f, 0, &[0x01, 0x80, 0xc2, 0, 0, 0x01])),
        broken("ipv4_truncated", &v4, |f| f.truncate(ETHERNET_BYTES + 12)),
        broken("ipv4_version", &v4, |f| put(f, ETHERNET_BYTES, &[0x65])),
        broken("ipv4_header_length", &v4, |f| put(f, ETHERNET_BYTES, &[0x44])),
        // Header checksums are verified first, so this one is kept right: RFC 1624, the field grows, the sum shrinks.
        broken("ipv4_total_length", &v4, |f| {
            let field = |f: &[u8], at: usize| {
                u16::from_be_bytes([f[ETHERNET_BYTES + at], f[ETHERNET_BYTES + at + 1]])
            };
            let (old, check) = (field(f, 2), field(f, 10));
            let sum = u32::from(!check) + u32::from(!old) + 0x7fff;
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = (sum & 0xffff) + (sum >> 16);
            put(f, ETHERNET_BYTES + 2, &[0x7f, 0xff]);
            put(f, ETHERNET_BYTES + 10, &(!sum).to_be_bytes()[2..]);
        }),
        broken("ipv4_checksum", &v4, |f| put(f, ETHERNET_BYTES + 10, &[0xde, 0xad])),
        broken("ipv6_truncated", &v6, |f| f.truncate(ETHERNET_BYTES + 30)),
        broken("ipv6_version", &v6, |f| put(f, ETHERNET_BYTES, &[0x50])),
        broken("ipv6_payload_length", &v6, |f| put(f, ETHERNET_BYTES + 4, &[0x7f, 0xff])),
        // A hop-by-hop header of 2,048 bytes in a packet that has none of them.
        broken("ipv6_hop_by_hop", &v6, |f| {
            put(f, ETHERNET_BYTES + 6, &[0]);
            put(f, ETHERNET_BYTES + 40, &[17, 255]);
        }),
    ]
}

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    for (place, byte) in frame.iter_mut().skip(at).zip(bytes) {
        *place = *byte;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_goes_between_addresses_and_ether_type() {
        let mut frame = vec![1; 12];
        frame.extend([0x08, 0x00, 0x45]);
        let frame = tagged(&frame, &[(TPID_8021AD, 7), (TPID_8021Q, 0x123)]);
        assert_eq!(frame[12..], [0x88, 0xa8, 0, 7, 0x81, 0, 1, 0x23, 8, 0, 0x45]);
    }
}
