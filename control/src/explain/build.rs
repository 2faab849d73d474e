//! Packets to explain, made of what an operator says: words of a 5-tuple and the like, or hexadecimal digits. Pure.

use crate::api::types::PacketSpec;
use crate::iptables::names::{nearest, protocol_number};
use crate::iptables::options::icmp;
use dataplane::packet::{Family, proto, tcp_flag};
use dataplane::testing::packets::{self, Builder};
use dataplane::wire::checksum;
use std::net::IpAddr;

/// Most VLAN tags of a packet that is built: more than are read, so that it can be asked what becomes of too many.
const VLANS_MAX: usize = 8;

/// Longest frame that is taken: no wire has longer ones.
pub const FRAME_MAX: usize = 65_535 + 14 + 4 * VLANS_MAX;

/// Source port of a packet that does not say.
const SPORT: u16 = 40_000;

/// TCP's flags by name, in the order in which they are shown.
pub(super) const FLAGS: [(&str, u8); 8] = [
    ("FIN", tcp_flag::FIN),
    ("SYN", tcp_flag::SYN),
    ("RST", tcp_flag::RST),
    ("PSH", tcp_flag::PSH),
    ("ACK", tcp_flag::ACK),
    ("URG", tcp_flag::URG),
    ("ECE", tcp_flag::ECE),
    ("CWR", tcp_flag::CWR),
];

/// What a packet that does not say takes from the connection it belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Sequence and acknowledgement number.
    pub numbers: (u32, u32),
    /// Whether it answers a SYN that nobody has answered yet.
    pub answers_syn: bool,
}

/// The frame of a packet. `known` is the connection it would belong to, if that is there.
///
/// # Errors
/// Says what is missing, or does not go together.
pub fn frame(spec: &PacketSpec, known: Option<Known>) -> Result<Vec<u8>, String> {
    let proto = protocol(&spec.proto)?;
    let src = spec.src.ok_or("the packet has no source address: say `PROTOCOL SOURCE DESTINATION`")?;
    let dst = spec.dst.ok_or("the packet has no destination address: say `PROTOCOL SOURCE DESTINATION`")?;
    if src.is_ipv4() != dst.is_ipv4() {
        return Err(format!("{src} and {dst} are not of one family"));
    }
    let family = if src.is_ipv4() { Family::V4 } else { Family::V6 };
    check_options(spec, proto, family)?;
    let mut builder = upper(spec, proto, family, src, dst, known)?;
    builder = builder.ttl(spec.ttl.unwrap_or(64));
    let macs =
        (mac(spec.mac_src.as_deref(), packets::SRC_MAC)?, mac(spec.mac_dst.as_deref(), packets::DST_MAC)?);
    builder = builder.macs(macs.0, macs.1);
    if spec.vlan.len() > VLANS_MAX {
        return Err(format!("{} VLAN tags: a packet has {VLANS_MAX} at most", spec.vlan.len()));
    }
    for tag in &spec.vlan {
        if *tag > 4094 {
            return Err(format!("VLAN {tag}: a VLAN has a number from 0 to 4094"));
        }
        builder = builder.vlan(*tag);
    }
    let bare = builder.build();
    let l3 = 14 + 4 * spec.vlan.len();
    let frame = match spec.len {
        None => bare,
        Some(len) => {
            let least = bare.len() - l3;
            let more = usize::from(len).checked_sub(least);
            let more = more.ok_or_else(|| format!("length {len}: the headers alone have {least} bytes"))?;
            builder.payload(&[payload_of(proto), vec![0; more]].concat()).build()
        }
    };
    Ok(match spec.tos {
        Some(tos) => with_tos(frame, l3, family, tos),
        None => frame,
    })
}

/// What does not go together.
fn check_options(spec: &PacketSpec, proto: u8, family: Family) -> Result<(), String> {
    let name = &spec.proto;
    let has_ports = matches!(proto, proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP);
    if has_ports && spec.dport.is_none() {
        return Err(format!("{name} to which port? Write the destination as ADDRESS:PORT"));
    }
    if !has_ports && (spec.sport.is_some() || spec.dport.is_some()) {
        return Err(format!("{name} has no ports: write addresses without them"));
    }
    if proto == proto::SCTP && spec.len.is_some() {
        return Err(
            "the length of an SCTP packet follows from its chunks: give such a packet as a frame".to_owned()
        );
    }
    let is_icmp = matches!(proto, proto::ICMP | proto::ICMPV6);
    for (given, what, fits) in [
        (spec.flags.is_some(), "flags", proto == proto::TCP),
        (spec.seq.is_some(), "a sequence number", proto == proto::TCP),
        (spec.ack.is_some(), "an acknowledgement number", proto == proto::TCP),
        (spec.icmp_type.is_some(), "an ICMP type", is_icmp),
        (spec.icmp_id.is_some(), "an ICMP identifier", is_icmp),
    ] {
        if given && !fits {
            return Err(format!("{name} has not {what}"));
        }
    }
    match (proto, family) {
        (proto::ICMP, Family::V6) => Err("IPv6 has icmpv6, not icmp".to_owned()),
        (proto::ICMPV6, Family::V4) => Err("IPv4 has icmp, not icmpv6".to_owned()),
        _ => Ok(()),
    }
}

fn upper(
    spec: &PacketSpec,
    proto: u8,
    family: Family,
    src: IpAddr,
    dst: IpAddr,
    known: Option<Known>,
) -> Result<Builder, String> {
    let ports = (spec.sport.unwrap_or(SPORT), spec.dport.unwrap_or(0));
    Ok(match proto {
        proto::TCP => {
            let unsaid = match known {
                None => tcp_flag::SYN,
                Some(Known { answers_syn: true, .. }) => tcp_flag::SYN | tcp_flag::ACK,
                Some(_) => tcp_flag::ACK,
            };
            let flags = spec.flags.as_deref().map_or(Ok(unsaid), flags)?;
            let (seq, ack) = known.map_or((1000, 0), |known| known.numbers);
            let ack = if flags & tcp_flag::ACK == 0 { 0 } else { ack };
            packets::tcp(src, dst)
                .ports(ports.0, ports.1)
                .flags(flags)
                .numbers(spec.seq.unwrap_or(seq), spec.ack.unwrap_or(ack))
        }
        proto::UDP => packets::udp(src, dst).ports(ports.0, ports.1),
        proto::UDPLITE => packets::udplite(src, dst).ports(ports.0, ports.1),
        proto::ICMP | proto::ICMPV6 => {
            let (ty, code) = match &spec.icmp_type {
                Some(text) => icmp::type_and_code(text, family)?,
                None if family == Family::V4 => (8, 0),
                None => (128, 0),
            };
            packets::icmp(src, dst, ty, code).id(spec.icmp_id.unwrap_or(1))
        }
        proto::SCTP => packets::ip(src, dst, proto).payload(&sctp_init(ports)),
        _ => packets::ip(src, dst, proto).payload(&payload_of(proto)),
    })
}

/// What a packet of a protocol carries at least.
fn payload_of(proto: u8) -> Vec<u8> {
    match proto {
        // No flags, and IPv4 within.
        proto::GRE => vec![0, 0, 8, 0],
        proto::ESP => [1_u32, 1].iter().flat_map(|word| word.to_be_bytes()).collect(),
        _ => Vec::new(),
    }
}

/// An INIT, which is what begins an association. RFC 9260 section 3.3.2.
fn sctp_init((src, dst): (u16, u16)) -> Vec<u8> {
    let mut packet = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    packet.extend([0; 8]);
    packet.extend([1, 0, 0, 20]);
    packet.extend(1_u32.to_be_bytes());
    packet.extend(65_536_u32.to_be_bytes());
    packet.extend([0, 1, 0, 1]);
    packet.extend(1000_u32.to_be_bytes());
    let check = checksum::crc32c(&[&packet]);
    packet[8..12].copy_from_slice(&check.to_le_bytes());
    packet
}

/// Writes the TOS byte or the traffic class.
fn with_tos(mut frame: Vec<u8>, l3: usize, family: Family, tos: u8) -> Vec<u8> {
    match family {
        Family::V4 => {
            frame[l3 + 1] = tos;
            frame[l3 + 10..l3 + 12].fill(0);
            let check = checksum::finish(checksum::sum(&frame[l3..l3 + 20], 0));
            frame[l3 + 10..l3 + 12].copy_from_slice(&check.to_be_bytes());
        }
        Family::V6 => {
            frame[l3] = frame[l3] & 0xf0 | tos >> 4;
            frame[l3 + 1] = frame[l3 + 1] & 0x0f | tos << 4;
        }
    }
    frame
}

/// A protocol's number by its name, or as it is.
fn protocol(text: &str) -> Result<u8, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let lower = text.to_ascii_lowercase();
    protocol_number(&lower).filter(|number| *number != 0).ok_or_else(|| {
        let known = ["tcp", "udp", "icmp", "icmpv6", "sctp", "udplite", "gre", "esp", "ah"];
        let hint = nearest(&lower, known.into_iter()).map_or_else(
            || format!("one of {}, or a number from 0 to 255", known.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        format!("`{text}` is no protocol: {hint}")
    })
}

/// TCP's flags.
fn flags(text: &str) -> Result<u8, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(0);
    }
    text.split(',').try_fold(0, |flags, word| {
        let found = FLAGS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word.trim()));
        let (_, bit) = found.ok_or_else(|| {
            let names = FLAGS.map(|(name, _)| name.to_ascii_lowercase()).join(", ");
            format!("`{word}` is no TCP flag: {names}, comma-separated, or none")
        })?;
        Ok(flags | bit)
    })
}

fn mac(text: Option<&str>, unsaid: [u8; 6]) -> Result<[u8; 6], String> {
    let Some(text) = text else { return Ok(unsaid) };
    let parts: Vec<_> = text.split([':', '-']).map(|part| u8::from_str_radix(part, 16)).collect();
    let bytes: Result<Vec<u8>, _> = parts.into_iter().collect();
    bytes
        .ok()
        .and_then(|bytes| <[u8; 6]>::try_from(bytes).ok())
        .ok_or_else(|| format!("`{text}` is no MAC address: six bytes as 02:00:00:00:00:01"))
}

/// Reads a frame from hexadecimal digits. Spaces, colons and dashes may stand between bytes; `0x` may stand before them, and
/// at the beginning of a line the offset that tcpdump and xxd write, behind the digits what they show as text. Where there are
/// offsets, lines without one say something else: tcpdump begins with what the packet is.
///
/// # Errors
/// Says what is no digit, and where.
pub fn hex(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let has_offsets = text.lines().any(|line| behind_offset(line).is_some());
    for (number, line) in (1_usize..).zip(text.lines()) {
        let line = behind_offset(line).unwrap_or(if has_offsets { "" } else { line });
        // Text that tcpdump and xxd add stands behind two spaces.
        let digits = line.trim_start();
        let digits = digits.find("  ").map_or(digits, |end| &digits[..end]);
        for word in digits.split([' ', '\t', ':', '-', ',']).filter(|word| !word.is_empty()) {
            let word = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")).unwrap_or(word);
            if let Some(wrong) = word.chars().find(|c| !c.is_ascii_hexdigit()) {
                return Err(format!("line {number}: `{wrong}` in `{word}` is no hexadecimal digit"));
            }
            if word.len() % 2 != 0 {
                return Err(format!(
                    "line {number}: `{word}` is half a byte too short: bytes have two digits"
                ));
            }
            let pairs = word.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok());
            bytes.extend(pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()));
            if bytes.len() > FRAME_MAX {
                return Err(format!("a frame has {FRAME_MAX} bytes at most"));
            }
        }
    }
    if bytes.is_empty() {
        return Err(
            "there is no frame: give its bytes from the Ethernet header on, as `tcpdump -xx` prints them"
                .to_owned(),
        );
    }
    Ok(bytes)
}

/// A line behind the offset it begins with, if it does: `0x0010:` or `00000010:`.
fn behind_offset(line: &str) -> Option<&str> {
    let (head, rest) = line.split_once(':')?;
    let head = head.trim();
    let digits = head.strip_prefix("0x").unwrap_or(head);
    // Two digits and a colon are a byte.
    let is_offset = digits.len() > 2 && digits.chars().all(|c| c.is_ascii_hexdigit());
    is_offset.then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::wire;

    fn tcp(dport: u16) -> PacketSpec {
        PacketSpec {
            proto: "tcp".to_owned(),
            src: Some([10, 0, 0, 1].into()),
            dst: Some([10, 0, 0, 2].into()),
            dport: Some(dport),
            ..PacketSpec::default()
        }
    }

    #[test]
    fn a_packet_is_what_was_said_and_sound() {
        let six = |text: &str| Some(text.parse().unwrap());
        let specs = [
            tcp(443),
            PacketSpec {
                flags: Some("syn,ack".into()),
                tos: Some(0x10),
                len: Some(1500),
                vlan: vec![7],
                ..tcp(1)
            },
            PacketSpec {
                proto: "17".into(),
                ttl: Some(1),
                mac_src: Some("02:00:00:00:00:09".into()),
                ..tcp(53)
            },
            PacketSpec { proto: "udplite".into(), ..tcp(53) },
            PacketSpec { proto: "sctp".into(), ..tcp(53) },
            PacketSpec { proto: "icmp".into(), dport: None, icmp_type: Some("3/4".into()), ..tcp(0) },
            PacketSpec { proto: "gre".into(), dport: None, ..tcp(0) },
            PacketSpec { proto: "89".into(), dport: None, len: Some(64), ..tcp(0) },
            PacketSpec { src: six("2001:db8::1"), dst: six("2001:db8::2"), tos: Some(0xb8), ..tcp(22) },
            PacketSpec {
                proto: "icmpv6".into(),
                src: six("2001:db8::1"),
                dst: six("2001:db8::2"),
                dport: None,
                icmp_type: Some("ping".into()),
                ..tcp(0)
            },
        ];
        for spec in specs {
            let frame = frame(&spec, None).unwrap();
            let packet = wire::parse(&frame, u32::try_from(frame.len()).unwrap()).unwrap();
            assert_eq!(packet.l4_fault, None, "{spec:?}");
            // As in Linux, what follows RFC 3828 is INVALID: its checksum is taken for UDP's.
            assert_eq!(checksum::l4_ok(&frame, &packet), spec.proto != "udplite", "{spec:?}");
            assert_eq!(packet.tuple.proto, protocol(&spec.proto).unwrap());
            if let Some(len) = spec.len {
                assert_eq!(packet.l3_len, u32::from(len), "{spec:?}");
            }
            assert_eq!(usize::from(packet.vlan_tags), spec.vlan.len());
        }
    }

    #[test]
    fn what_is_not_said_comes_from_the_connection() {
        let flags = |known| {
            let frame = frame(&tcp(443), known).unwrap();
            let packet = wire::parse(&frame, u32::try_from(frame.len()).unwrap()).unwrap();
            (packet.tcp_flags, frame[38..46].to_vec())
        };
        assert_eq!(flags(None).0, tcp_flag::SYN);
        let known = Known { numbers: (7, 9), answers_syn: false };
        assert_eq!(flags(Some(known)), (tcp_flag::ACK, vec![0, 0, 0, 7, 0, 0, 0, 9]));
        assert_eq!(flags(Some(Known { answers_syn: true, ..known })).0, tcp_flag::SYN | tcp_flag::ACK);
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let v6 = PacketSpec { dst: Some("::1".parse().unwrap()), ..tcp(1) };
        for (spec, says) in [
            (PacketSpec { proto: "tpc".into(), ..tcp(1) }, "did you mean `tcp`?"),
            (PacketSpec { dport: None, ..tcp(1) }, "which port?"),
            (PacketSpec { proto: "icmp".into(), ..tcp(1) }, "has no ports"),
            (PacketSpec { proto: "udp".into(), flags: Some("syn".into()), ..tcp(1) }, "has not flags"),
            (PacketSpec { flags: Some("syn,sny".into()), ..tcp(1) }, "`sny` is no TCP flag"),
            (PacketSpec { len: Some(39), ..tcp(1) }, "the headers alone have 40 bytes"),
            (PacketSpec { mac_src: Some("02:00".into()), ..tcp(1) }, "six bytes"),
            (PacketSpec { vlan: vec![4095], ..tcp(1) }, "from 0 to 4094"),
            (PacketSpec { vlan: vec![1; 9], ..tcp(1) }, "9 VLAN tags: a packet has 8 at most"),
            (PacketSpec { proto: "icmpv6".into(), dport: None, ..tcp(1) }, "IPv4 has icmp"),
            (
                PacketSpec { proto: "icmp".into(), dport: None, icmp_type: Some("png".into()), ..tcp(1) },
                "did you mean",
            ),
            (PacketSpec { proto: "sctp".into(), len: Some(100), ..tcp(1) }, "follows from its chunks"),
            (PacketSpec { src: None, ..tcp(1) }, "no source address"),
            (v6, "not of one family"),
        ] {
            let error = frame(&spec, None).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn frames_are_read_as_tools_print_them() {
        let wanted = [0x02, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0];
        for text in [
            "020000000002020000000001080045 00",
            "02:00:00:00:00:02:02:00:00:00:00:01:08:00:45:00",
            "\t0x0000:  0200 0000 0002 0200 0000 0001 0800 4500  ..............E.",
            "00000000: 0200 0000 0002 0200\n00000008: 0000 0001 0800 4500  ......E.",
            "12:34:56.789012 IP 10.0.0.1.53 > 10.0.0.2.53: UDP, length 0\n\t0x0000:  0200 0000 0002 0200\n\t0x0008:  0000 0001 0800 4500\n",
            "0x02 0x00 00-00-00 02 02,00,00,00,00,01\n08004500\n",
        ] {
            assert_eq!(hex(text).unwrap(), wanted, "{text}");
        }
        for (text, says) in [
            ("", "no frame"),
            ("0g", "line 1: `g` in `0g`"),
            ("02\n020", "line 2: `020` is half a byte"),
            (&"00".repeat(FRAME_MAX + 1), "at most"),
        ] {
            let error = hex(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
