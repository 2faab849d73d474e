//! A packet's headers in one line, as netfilter's LOG target writes them: what log readers know. Pure; reads no further than
//! there are bytes.

use dataplane::rules::log::LineStyle;
use dataplane::rules::trace::{StepKind, TracedChain};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// How a traced packet's lines are written: a warning with all there is (Linux `ip_tables.c`).
pub const TRACE_STYLE: LineStyle =
    LineStyle { level: 4, tcp_sequence: true, tcp_options: true, ip_options: true, mac_decode: false };

/// What a traced packet's line begins with.
#[must_use]
pub fn trace_prefix(chain: &TracedChain, kind: StepKind, number: u32) -> String {
    format!("TRACE: {}:{}:{}:{number} ", chain.table.name(), chain.name, kind.name())
}

/// What stands around a packet's headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around<'a> {
    /// What the line begins with.
    pub prefix: &'a str,
    /// Name of the NIC it came in on; empty where it has none.
    pub ingress: &'a str,
    /// Name of the NIC it would leave on.
    pub egress: &'a str,
    /// Its mark; zero is not written.
    pub mark: u32,
}

/// The line. `frame` is the frame's beginning, its IP header at `l3`.
#[must_use]
pub fn line(around: &Around<'_>, style: LineStyle, frame: &[u8], l3: usize) -> String {
    let Around { prefix, ingress, egress, mark } = around;
    let mut line = Line { text: format!("{prefix}IN={ingress} OUT={egress} "), style, ended: false };
    if !ingress.is_empty() {
        line.macs(frame, l3);
    }
    line.packet(frame.get(l3..).unwrap_or_default(), true);
    if *mark != 0 && !line.ended {
        line.add(format_args!("MARK={mark:#x} "));
    }
    let mut text = line.text;
    text.truncate(text.trim_end().len());
    text
}

/// An address with all its digits, as the kernel prints it.
#[must_use]
pub fn in_full(address: Ipv6Addr) -> String {
    address.segments().map(|word| format!("{word:04x}")).join(":")
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Bytes of a header whose second byte counts units of eight beyond the first one.
fn extension_len(bytes: &[u8]) -> Option<usize> {
    Some((usize::from(*bytes.get(1)?) + 1) * 8)
}

/// A line that is being written.
struct Line {
    text: String,
    style: LineStyle,
    /// Whether the kernel would have stopped here, and not written the mark.
    ended: bool,
}

impl Line {
    fn add(&mut self, words: std::fmt::Arguments<'_>) {
        let _ = self.text.write_fmt(words);
    }

    fn hex(&mut self, bytes: &[u8], between: &str) {
        for (at, byte) in bytes.iter().enumerate() {
            self.add(format_args!("{}{byte:02x}", if at == 0 { "" } else { between }));
        }
    }

    /// Options in capitals.
    fn options(&mut self, bytes: &[u8]) {
        self.text.push_str("OPT (");
        bytes.iter().for_each(|byte| self.add(format_args!("{byte:02X}")));
        self.text.push_str(") ");
    }

    fn macs(&mut self, frame: &[u8], l3: usize) {
        let decoded = self.style.mac_decode.then(|| frame.first_chunk::<ETHERNET>()).flatten();
        let Some(ethernet) = decoded else {
            self.text.push_str("MAC=");
            self.hex(frame.get(..ETHERNET).unwrap_or(frame), ":");
            self.text.push(' ');
            return;
        };
        self.text.push_str("MACSRC=");
        self.hex(&ethernet[6..12], ":");
        self.text.push_str(" MACDST=");
        self.hex(&ethernet[..6], ":");
        self.text.push(' ');
        let mut protocol = be16(ethernet, 12).unwrap_or(0);
        // The outermost tag, and what is in it.
        if l3 > ETHERNET
            && let (Some(tag), Some(inner)) = (be16(frame, 14), be16(frame, 16))
        {
            self.add(format_args!("VPROTO={protocol:04x} VID={} ", tag & 0xfff));
            protocol = inner;
        }
        self.add(format_args!("MACPROTO={protocol:04x} "));
    }

    /// An IP packet; in an ICMP error the packet it is about, which is not looked into any further.
    fn packet(&mut self, ip: &[u8], is_outer: bool) {
        let written = match ip.first().map(|byte| byte >> 4) {
            Some(4) => self.ipv4(ip, is_outer),
            Some(6) => self.ipv6(ip, is_outer),
            _ => None,
        };
        if written.is_none() {
            self.text.push_str("TRUNCATED ");
            self.ended |= is_outer;
        }
    }

    fn ipv4(&mut self, ip: &[u8], is_outer: bool) -> Option<()> {
        let header: &[u8; 20] = ip.first_chunk()?;
        let address = |at: usize| be32(header, at).map(Ipv4Addr::from_bits);
        let (src, dst, len) = (address(12)?, address(16)?, be16(header, 2)?);
        let (tos, ttl, id) = (header[1], header[8], be16(header, 4)?);
        self.add(format_args!(
            "SRC={src} DST={dst} LEN={len} TOS=0x{:02X} PREC=0x{:02X} TTL={ttl} ID={id} ",
            tos & 0x1e,
            tos & 0xe0,
        ));
        let place = be16(header, 6)?;
        for (bit, word) in [(0x8000, "CE "), (0x4000, "DF "), (0x2000, "MF ")] {
            if place & bit != 0 {
                self.text.push_str(word);
            }
        }
        let offset = place & 0x1fff;
        if offset != 0 {
            self.add(format_args!("FRAG:{offset} "));
        }
        let header_len = usize::from(header[0] & 15) * 4;
        if self.style.ip_options && header_len > 20 {
            self.options(ip.get(20..header_len)?);
        }
        let total = usize::from(len).saturating_sub(header_len);
        self.upper(header[9], ip.get(header_len..).unwrap_or_default(), total, offset == 0, is_outer);
        Some(())
    }

    fn ipv6(&mut self, ip: &[u8], is_outer: bool) -> Option<()> {
        const HEADERS_MAX: usize = 8;
        let header: &[u8; 40] = ip.first_chunk()?;
        let address = |at: usize| -> Option<String> {
            Some(in_full(Ipv6Addr::from_octets(*header.get(at..)?.first_chunk()?)))
        };
        let (src, dst, first) = (address(8)?, address(24)?, be32(header, 0)?);
        let payload = be16(header, 4)?;
        self.add(format_args!(
            "SRC={src} DST={dst} LEN={} TC={} HOPLIMIT={} FLOWLBL={} ",
            u32::from(payload) + 40,
            first >> 20 & 0xff,
            header[7],
            first & 0xf_ffff
        ));
        let (mut next, mut rest, mut is_first) = (header[6], &ip[40..], true);
        for _ in 0..HEADERS_MAX {
            if !matches!(next, 0 | 43 | 44 | 50 | 51 | 60) {
                break;
            }
            let total = (usize::from(payload) + 40).saturating_sub(ip.len() - rest.len());
            let Some(len) = self.extension(next, rest, total, &mut is_first)? else {
                self.ended |= is_outer;
                return Some(());
            };
            next = *rest.first()?;
            rest = rest.get(len..).unwrap_or_default();
        }
        let total = (usize::from(payload) + 40).saturating_sub(ip.len() - rest.len());
        self.upper(next, rest, total, is_first, is_outer);
        Some(())
    }

    /// An extension header of IPv6, and its length; no length where the line ends with it. `None` if it is cut off.
    fn extension(
        &mut self,
        kind: u8,
        bytes: &[u8],
        total: usize,
        is_first: &mut bool,
    ) -> Option<Option<usize>> {
        const SECURITY: [u8; 2] = [50, 51];
        let shows = self.style.ip_options;
        bytes.first_chunk::<2>()?;
        if shows {
            self.text.push_str("OPT ( ");
        }
        let mut len = extension_len(bytes)?;
        if kind == 44 {
            let (place, id) = (be16(bytes, 2)?, be32(bytes, 4)?);
            self.add(format_args!("FRAG:{} ", place & 0xfff8));
            if place & 1 != 0 {
                self.text.push_str("INCOMPLETE ");
            }
            self.add(format_args!("ID:{id:08x} "));
            *is_first &= place & 0xfff8 == 0;
            len = 8;
        } else if SECURITY.contains(&kind) {
            if shows {
                self.text.push_str(if kind == 51 { "AH " } else { "ESP " });
            }
            if kind == 51 {
                len = (usize::from(*bytes.get(1)?) + 2) * 4;
            }
            let spi = be32(bytes, if kind == 51 { 4 } else { 0 });
            match spi {
                _ if !shows => {}
                _ if !*is_first => {}
                Some(spi) => self.add(format_args!("SPI={spi:#x} ")),
                None => self.add(format_args!("INCOMPLETE [{total} bytes] ")),
            }
            if kind == 50 || shows && (!*is_first || spi.is_none()) {
                if shows {
                    self.text.push(')');
                }
                return Some(None);
            }
        } else if !*is_first {
            if shows {
                self.text.push(')');
            }
            return Some(None);
        }
        if shows {
            self.text.push_str(") ");
        }
        Some(Some(len))
    }

    /// What is above IP: `total` bytes, of which we have the first.
    fn upper(&mut self, proto: u8, bytes: &[u8], total: usize, is_first: bool, is_outer: bool) {
        let name = match proto {
            1 => "ICMP",
            6 => "TCP",
            17 => "UDP",
            50 => "ESP",
            51 => "AH",
            58 => "ICMPv6",
            136 => "UDPLITE",
            _ => return self.add(format_args!("PROTO={proto} ")),
        };
        self.add(format_args!("PROTO={name} "));
        if !is_first {
            return;
        }
        let written = match proto {
            6 => self.tcp(bytes),
            17 | 136 => self.udp(bytes),
            50 => be32(bytes, 0).map(|spi| self.add(format_args!("SPI={spi:#x} "))),
            51 => be32(bytes, 4).map(|spi| self.add(format_args!("SPI={spi:#x} "))),
            _ => self.icmp(proto, bytes, total, is_outer),
        };
        if written.is_none() {
            self.add(format_args!("INCOMPLETE [{total} bytes] "));
            self.ended |= is_outer && matches!(proto, 6 | 17 | 136);
        }
    }

    fn tcp(&mut self, bytes: &[u8]) -> Option<()> {
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
        self.add(format_args!("SPT={} DPT={} ", be16(header, 0)?, be16(header, 2)?));
        if self.style.tcp_sequence {
            self.add(format_args!("SEQ={seq} ACK={ack} "));
        }
        self.add(format_args!("WINDOW={window} RES=0x{:02x} ", header[12] & 15));
        for (_, name) in FLAGS.into_iter().filter(|(bit, _)| header[13] & bit != 0) {
            self.add(format_args!("{name} "));
        }
        self.add(format_args!("URGP={} ", be16(header, 18)?));
        let header_len = usize::from(header[12] >> 4) * 4;
        if self.style.tcp_options && header_len > 20 {
            match bytes.get(20..header_len) {
                Some(options) => self.options(options),
                None => self.text.push_str("OPT (TRUNCATED) "),
            }
        }
        Some(())
    }

    fn udp(&mut self, bytes: &[u8]) -> Option<()> {
        let header: &[u8; 8] = bytes.first_chunk()?;
        let field = |at: usize| be16(header, at);
        self.add(format_args!("SPT={} DPT={} LEN={} ", field(0)?, field(2)?, field(4)?));
        Some(())
    }

    /// ICMP or ICMPv6. `None` if there are not even eight bytes of it.
    fn icmp(&mut self, proto: u8, bytes: &[u8], total: usize, is_outer: bool) -> Option<()> {
        let header: &[u8; 8] = bytes.first_chunk()?;
        let [ty, code, ..] = *header;
        self.add(format_args!("TYPE={ty} CODE={code} "));
        let rest = be32(header, 4)?;
        let is_v4 = proto == 1;
        let needed = match (is_v4, ty) {
            (true, 3 | 4 | 5 | 11 | 12) => 28,
            (true, 13 | 14) => 20,
            (true, 17 | 18) => 12,
            _ => 0,
        };
        if total < needed {
            return None;
        }
        match (is_v4, ty) {
            (true, 0 | 8) | (false, 128 | 129) => {
                self.add(format_args!("ID={} SEQ={} ", rest >> 16, rest & 0xffff));
            }
            (true, 12) => self.add(format_args!("PARAMETER={} ", rest >> 24)),
            (true, 5) => self.add(format_args!("GATEWAY={} ", Ipv4Addr::from_bits(rest))),
            (false, 4) => self.add(format_args!("POINTER={rest:08x} ")),
            _ => {}
        }
        let is_about_a_packet = matches!((is_v4, ty), (true, 3 | 4 | 5 | 11) | (false, 1..=4));
        if is_about_a_packet && is_outer {
            self.text.push('[');
            self.packet(&bytes[8..], false);
            self.text.push_str("] ");
        }
        match (is_v4, ty, code) {
            (true, 3, 4) => self.add(format_args!("MTU={} ", rest & 0xffff)),
            (false, 2, _) => self.add(format_args!("MTU={rest} ")),
            _ => {}
        }
        Some(())
    }
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
        let around = Around { ingress: "ra", ..Around::default() };
        let line = line(&around, LineStyle { tcp_sequence: true, ..LineStyle::default() }, frame, 14);
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
        let around = Around { prefix: "nf_ct_proto_17: why ", ingress: "eth0", ..Around::default() };
        let line = line(&around, LineStyle::default(), &frame, 14);
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
            let around = Around { prefix: "p ", ingress: "x", egress: "y", mark: 1 };
            let all = LineStyle {
                level: 4, tcp_sequence: true, tcp_options: true, ip_options: true, mac_decode: false
            };
            let line = line(&around, all, &bytes, l3);
            prop_assert!(line.starts_with("p IN=x OUT=y MAC=") && !line.contains('\n'));
        }
    }
}
