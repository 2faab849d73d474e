//! A packet's headers in one line, as netfilter's LOG target writes them with sequence numbers: what log readers know. Pure;
//! reads no further than there are bytes.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// The line. `frame` is the frame's beginning, its IP header at `l3`; `interface` where it came in.
#[must_use]
pub fn line(prefix: &str, interface: &str, frame: &[u8], l3: usize) -> String {
    let mut line = format!("{prefix}IN={interface} OUT= MAC=");
    for (at, byte) in frame.iter().take(ETHERNET).enumerate() {
        let colon = if at == 0 { "" } else { ":" };
        let _ = write!(line, "{colon}{byte:02x}");
    }
    line.push(' ');
    packet(&mut line, frame.get(l3..).unwrap_or_default(), true);
    line.truncate(line.trim_end().len());
    line
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// An IP packet; in an ICMP error the packet it is about, which is not looked into any further.
fn packet(line: &mut String, ip: &[u8], is_outer: bool) {
    let written = match ip.first().map(|byte| byte >> 4) {
        Some(4) => ipv4(line, ip, is_outer),
        Some(6) => ipv6(line, ip, is_outer),
        _ => None,
    };
    if written.is_none() {
        line.push_str("TRUNCATED ");
    }
}

fn ipv4(line: &mut String, ip: &[u8], is_outer: bool) -> Option<()> {
    let header: &[u8; 20] = ip.first_chunk()?;
    let address = |at: usize| be32(header, at).map(Ipv4Addr::from_bits);
    let (src, dst, len) = (address(12)?, address(16)?, be16(header, 2)?);
    let [_, tos, _, _, id, id_low, ..] = *header;
    let _ = write!(
        line,
        "SRC={src} DST={dst} LEN={len} TOS=0x{:02X} PREC=0x{:02X} TTL={} ID={} ",
        tos & 0x1e,
        tos & 0xe0,
        header[8],
        u16::from_be_bytes([id, id_low])
    );
    let place = be16(header, 6)?;
    for (bit, word) in [(0x8000, "CE "), (0x4000, "DF "), (0x2000, "MF ")] {
        if place & bit != 0 {
            line.push_str(word);
        }
    }
    let offset = place & 0x1fff;
    if offset != 0 {
        let _ = write!(line, "FRAG:{offset} ");
    }
    let header_len = usize::from(header[0] & 15) * 4;
    let total = usize::from(len).saturating_sub(header_len);
    upper(line, header[9], ip.get(header_len..).unwrap_or_default(), total, offset == 0, is_outer);
    Some(())
}

fn ipv6(line: &mut String, ip: &[u8], is_outer: bool) -> Option<()> {
    const HEADERS_MAX: usize = 8;
    let header: &[u8; 40] = ip.first_chunk()?;
    let address = |at: usize| -> Option<String> {
        let address = Ipv6Addr::from_octets(*header.get(at..)?.first_chunk()?);
        Some(address.segments().map(|word| format!("{word:04x}")).join(":"))
    };
    let (src, dst, first) = (address(8)?, address(24)?, be32(header, 0)?);
    let payload = be16(header, 4)?;
    let _ = write!(
        line,
        "SRC={src} DST={dst} LEN={} TC={} HOPLIMIT={} FLOWLBL={} ",
        u32::from(payload) + 40,
        first >> 20 & 0xff,
        header[7],
        first & 0xf_ffff
    );
    let (mut next, mut rest, mut is_first) = (header[6], &ip[40..], true);
    for _ in 0..HEADERS_MAX {
        let len = match next {
            0 | 43 | 60 => (usize::from(*rest.get(1)?) + 1) * 8,
            44 => {
                let (place, id) = (be16(rest, 2)?, be32(rest, 4)?);
                let _ = write!(line, "FRAG:{} ", place & 0xfff8);
                if place & 1 != 0 {
                    line.push_str("INCOMPLETE ");
                }
                let _ = write!(line, "ID:{id:08x} ");
                is_first = place & 0xfff8 == 0;
                8
            }
            _ => break,
        };
        next = *rest.first()?;
        rest = rest.get(len..).unwrap_or_default();
    }
    let total = (usize::from(payload) + 40).saturating_sub(ip.len() - rest.len());
    upper(line, next, rest, total, is_first, is_outer);
    Some(())
}

/// What is above IP: `total` bytes, of which we have the first.
fn upper(line: &mut String, proto: u8, bytes: &[u8], total: usize, is_first: bool, is_outer: bool) {
    let name = match proto {
        1 => "ICMP",
        6 => "TCP",
        17 => "UDP",
        58 => "ICMPv6",
        136 => "UDPLITE",
        _ => {
            let _ = write!(line, "PROTO={proto} ");
            return;
        }
    };
    let _ = write!(line, "PROTO={name} ");
    if !is_first {
        return;
    }
    let written = match proto {
        6 => tcp(line, bytes),
        17 | 136 => udp(line, bytes),
        _ => icmp(line, proto, bytes, is_outer),
    };
    if written.is_none() {
        let _ = write!(line, "INCOMPLETE [{total} bytes] ");
    }
}

fn tcp(line: &mut String, bytes: &[u8]) -> Option<()> {
    const FLAGS: [(u8, &str); 8] = [
        (0x80, "CWR"),
        (0x40, "ECE"),
        (0x20, "URG"),
        (0x10, "ACK"),
        (0x08, "PSH"),
        (0x04, "RST"),
        (0x02, "SYN"),
        (0x01, "FIN"),
    ];
    let header: &[u8; 20] = bytes.first_chunk()?;
    let (seq, ack, window) = (be32(header, 4)?, be32(header, 8)?, be16(header, 14)?);
    let _ = write!(line, "SPT={} DPT={} ", be16(header, 0)?, be16(header, 2)?);
    let _ = write!(line, "SEQ={seq} ACK={ack} WINDOW={window} RES=0x{:02x} ", header[12] & 15);
    for (_, name) in FLAGS.into_iter().filter(|(bit, _)| header[13] & bit != 0) {
        let _ = write!(line, "{name} ");
    }
    let _ = write!(line, "URGP={} ", be16(header, 18)?);
    Some(())
}

fn udp(line: &mut String, bytes: &[u8]) -> Option<()> {
    let header: &[u8; 8] = bytes.first_chunk()?;
    let field = |at: usize| be16(header, at);
    let _ = write!(line, "SPT={} DPT={} LEN={} ", field(0)?, field(2)?, field(4)?);
    Some(())
}

fn icmp(line: &mut String, proto: u8, bytes: &[u8], is_outer: bool) -> Option<()> {
    let [ty, code] = *bytes.first_chunk()?;
    let _ = write!(line, "TYPE={ty} CODE={code} ");
    let (is_query, is_error) = match proto {
        1 => (matches!(ty, 0 | 8 | 13..=18), matches!(ty, 3 | 4 | 5 | 11 | 12)),
        _ => (matches!(ty, 128 | 129), ty < 128),
    };
    if is_query && let (Some(id), Some(seq)) = (be16(bytes, 4), be16(bytes, 6)) {
        let _ = write!(line, "ID={id} SEQ={seq} ");
    } else if is_error && is_outer && bytes.len() > 8 {
        line.push('[');
        packet(line, &bytes[8..], false);
        line.push_str("] ");
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::testing::packets::{Builder, icmp, icmp_error, ip, ping, tcp, udp};
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const A: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
    const B: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 2);

    /// A frame's line without prefix, interface and MAC addresses.
    fn of(frame: &[u8]) -> String {
        let line = line("", "ra", frame, 14);
        line.split_once(":00 SRC")
            .or(line.split_once(":dd SRC"))
            .map_or(line.clone(), |(_, rest)| format!("SRC{rest}"))
    }

    fn built(packet: &Builder, id: u16) -> Vec<u8> {
        let mut frame = packet.build();
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        // Do not fragment.
        frame[20] |= 0x40;
        frame
    }

    /// Every line was written by Linux 6.18 about such a packet.
    #[test]
    fn lines_are_those_of_the_kernel() {
        let v4 = "SRC=10.1.0.2 DST=10.2.0.2";
        let mut offender = udp(B, A).ports(1, 2).build();
        offender[18..22].fill(0);
        let numbered = |mut echo: Vec<u8>| {
            echo[41] = 1;
            echo
        };
        let segment = tcp(A, B).ports(1, 2).numbers(3, 4).window(1000);
        for (frame, expected) in [
            (
                built(&segment.clone().flags(0x29), 57557),
                "LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=57557 DF PROTO=TCP SPT=1 DPT=2 SEQ=3 ACK=4 WINDOW=1000 RES=0x00 \
                 URG PSH FIN URGP=0",
            ),
            (
                built(&segment.syn_ack(), 57558),
                "LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=57558 DF PROTO=TCP SPT=1 DPT=2 SEQ=3 ACK=4 WINDOW=1000 RES=0x00 \
                 ACK SYN URGP=0",
            ),
            (
                numbered(built(&ping(A, B, 23781).payload(&[0; 56]), 39254)),
                "LEN=84 TOS=0x00 PREC=0x00 TTL=64 ID=39254 DF PROTO=ICMP TYPE=8 CODE=0 ID=23781 SEQ=1",
            ),
            (
                built(&ip(A, B, 99).payload(&[0x12; 20]), 23531),
                "LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=23531 DF PROTO=99",
            ),
            (
                built(&ip(A, B, 6).payload(&[0, 1, 0, 2]), 24027),
                "LEN=24 TOS=0x00 PREC=0x00 TTL=64 ID=24027 DF PROTO=TCP INCOMPLETE [4 bytes]",
            ),
            (
                built(&ip(A, B, 17).payload(&[0, 1]), 20915),
                "LEN=22 TOS=0x00 PREC=0x00 TTL=64 ID=20915 DF PROTO=UDP INCOMPLETE [2 bytes]",
            ),
            (
                built(&icmp_error(A, B, 3, 1, &offender, 28), 39269),
                "LEN=56 TOS=0x00 PREC=0x00 TTL=64 ID=39269 DF PROTO=ICMP TYPE=3 CODE=1 [SRC=10.2.0.2 DST=10.1.0.2 \
                 LEN=28 TOS=0x00 PREC=0x00 TTL=64 ID=0 PROTO=UDP SPT=1 DPT=2 LEN=8 ]",
            ),
        ] {
            assert_eq!(of(&frame), format!("{v4} {expected}"));
        }
        let v6 = |host: u16| Ipv6Addr::new(0xfd00 + host, 0, 0, 0, 0, 0, 0, 2);
        let ends = "SRC=fd01:0000:0000:0000:0000:0000:0000:0002 DST=fd02:0000:0000:0000:0000:0000:0000:0002";
        let labelled = |packet: &Builder, label: [u8; 3]| {
            let mut frame = packet.build();
            frame[15] = frame[15] & 0xf0 | label[0];
            frame[16..18].copy_from_slice(&label[1..]);
            frame
        };
        let (a, b) = (v6(1), v6(2));
        for (frame, expected) in [
            (
                labelled(&udp(a, b).ports(7000, 7001).payload(b"x"), [0x0b, 0x00, 0x1a]),
                "LEN=49 TC=0 HOPLIMIT=64 FLOWLBL=720922 PROTO=UDP SPT=7000 DPT=7001 LEN=9",
            ),
            (
                labelled(&tcp(a, b).ports(1, 2).numbers(3, 4).window(4096).syn_ack(), [0x0a, 0xdb, 0x65]),
                "LEN=60 TC=0 HOPLIMIT=64 FLOWLBL=711525 PROTO=TCP SPT=1 DPT=2 SEQ=3 ACK=4 WINDOW=4096 RES=0x00 ACK \
                 SYN URGP=0",
            ),
            (
                labelled(&icmp(a, b, 135, 0).payload(&[0; 24]), [0, 0, 0]),
                "LEN=72 TC=0 HOPLIMIT=64 FLOWLBL=0 PROTO=ICMPv6 TYPE=135 CODE=0",
            ),
        ] {
            assert_eq!(of(&frame), format!("{ends} {expected}"));
        }
    }

    #[test]
    fn prefix_interface_and_addresses_stand_in_front() {
        let frame = udp(A, B).ports(1, 2).macs([1; 6], [2; 6]).build();
        let line = line("nf_ct_proto_17: why ", "eth0", &frame, 14);
        assert!(
            line.starts_with(
                "nf_ct_proto_17: why IN=eth0 OUT= MAC=02:02:02:02:02:02:01:01:01:01:01:01:08:00 SRC="
            ),
            "{line}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_line(bytes in proptest::collection::vec(any::<u8>(), 0..140), l3 in 0..40_usize,
            version in prop_oneof![Just(4_u8), Just(6), any::<u8>()]) {
            let mut bytes = bytes;
            if let Some(first) = bytes.get_mut(l3) {
                *first = *first & 15 | version << 4;
            }
            let line = line("p ", "x", &bytes, l3);
            prop_assert!(line.starts_with("p IN=x OUT= MAC=") && !line.contains('\n'));
        }
    }
}
