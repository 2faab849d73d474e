//! The command line of `fwctl explain`.

use crate::api::types::PacketSpec;
use clap::{ArgGroup, Args};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Arguments of `fwctl explain`.
#[derive(Clone, Debug, Default, Args)]
// What would do nothing is an error.
#[command(group = ArgGroup::new("frame").args(["hex", "pcap"]))]
#[command(group = ArgGroup::new("offline").args(["rules", "rules6"]).multiple(true))]
#[command(after_help = "\
Examples:
  fwctl explain --in eth1 tcp 10.0.0.1:40000 192.0.2.7:443
  fwctl explain --in eth1 udp '[2001:db8::1]:5353' '[2001:db8::2]:53'
  fwctl explain --in eth1 icmp 10.0.0.1 192.0.2.7 --icmp-type echo-request
  fwctl explain --in eth2 tcp 192.0.2.7:443 10.0.0.1:40000 --flags syn,ack
  tcpdump -c1 -xx -i eth1 | fwctl explain --in eth1 --hex -
  fwctl explain --in eth1 --pcap lost.pcapng --packet 12
  fwctl explain --rules new.v4 --in left tcp 10.0.0.1:40000 192.0.2.7:443

Of rules that did not match are shown those that would have decided about the packet, the ones it missed most closely, with
the condition that failed. Rules that keep a rate say what they would say now; nothing is counted.")]
pub struct ExplainArgs {
    /// The NIC the packet comes in on. With --rules: what the rules call it; the left one unless given.
    #[arg(long = "in", value_name = "NIC")]
    pub ingress: Option<String>,

    /// tcp, udp, icmp, icmpv6, sctp, udplite, gre, esp, ah, or a number; then where it comes from and where it goes, with
    /// ports where the protocol has them. Source port 40000 unless given.
    #[arg(value_name = "PROTOCOL SOURCE DESTINATION", num_args = 0..=3, conflicts_with = "frame")]
    pub packet: Vec<String>,

    /// TCP flags: syn, ack, fin, rst, psh, urg, ece, cwr, comma-separated, or none. Unless given: syn, or ack if the
    /// connection is there.
    #[arg(long, value_name = "FLAGS", conflicts_with = "frame")]
    pub flags: Option<String>,

    /// TCP sequence number. Unless given: the one that the connection has come to.
    #[arg(long, value_name = "NUMBER", conflicts_with = "frame")]
    pub seq: Option<u32>,

    /// TCP acknowledgement number, likewise.
    #[arg(long, value_name = "NUMBER", conflicts_with = "frame")]
    pub ack: Option<u32>,

    /// ICMP type, by name or as 3/1; an echo request unless given.
    #[arg(long, value_name = "TYPE", alias = "icmpv6-type", conflicts_with = "frame")]
    pub icmp_type: Option<String>,

    /// ICMP identifier; 1 unless given.
    #[arg(long, value_name = "NUMBER", conflicts_with = "frame")]
    pub icmp_id: Option<u16>,

    /// TTL or hop limit; 64 unless given.
    #[arg(long, value_name = "NUMBER", conflicts_with = "frame")]
    pub ttl: Option<u8>,

    /// TOS byte or traffic class; 0 unless given. 0x10 is 16.
    #[arg(long, value_name = "NUMBER", value_parser = parse_byte, conflicts_with = "frame")]
    pub tos: Option<u8>,

    /// Bytes of the IP packet; as few as there can be unless given.
    #[arg(long = "len", value_name = "BYTES", conflicts_with = "frame")]
    pub len: Option<u16>,

    /// Source MAC address.
    #[arg(long, value_name = "MAC", conflicts_with = "frame")]
    pub mac: Option<String>,

    /// Destination MAC address.
    #[arg(long, value_name = "MAC", conflicts_with = "frame")]
    pub dst_mac: Option<String>,

    /// VLAN tag; again for one inside.
    #[arg(long, value_name = "ID", conflicts_with = "frame")]
    pub vlan: Vec<u16>,

    /// The packet as a frame in hexadecimal digits, Ethernet header first, as `tcpdump -xx` prints it; `-` is standard input.
    #[arg(long, value_name = "DIGITS")]
    pub hex: Option<String>,

    /// A packet of this pcap or pcapng file: its first one, or FILE:N.
    #[arg(long, value_name = "FILE[:N]")]
    pub pcap: Option<PathBuf>,

    /// Which packet of the file, from 1.
    #[arg(long = "packet", value_name = "N", requires = "pcap", value_parser = clap::value_parser!(u64).range(1..))]
    pub number: Option<u64>,

    /// Offline: IPv4 rules, as iptables-save prints them. No daemon is asked, and there are no flows.
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,

    /// Offline: IPv6 rules, as ip6tables-save prints them.
    #[arg(long, value_name = "FILE")]
    pub rules6: Option<PathBuf>,

    /// Offline: sets that the rules name, as `ipset save` prints them.
    #[arg(long, value_name = "FILE", requires = "offline")]
    pub sets: Option<PathBuf>,

    /// Offline: any setting of the daemon's configuration, as with `fwd --set`.
    #[arg(long = "set", value_name = "NAME=VALUE", requires = "offline")]
    pub set: Vec<String>,

    /// Offline: what the rules call the left NIC.
    #[arg(long, value_name = "NAME", default_value = "left", requires = "offline")]
    pub left_if: String,

    /// Offline: what the rules call the right NIC.
    #[arg(long, value_name = "NAME", default_value = "right", requires = "offline")]
    pub right_if: String,

    /// One JSON object.
    #[arg(long)]
    pub json: bool,
}

impl ExplainArgs {
    /// Whether no daemon is asked.
    pub(super) const fn is_offline(&self) -> bool {
        self.rules.is_some() || self.rules6.is_some()
    }

    /// Which file, and which of its packets. A number behind a colon is part of a name that is there.
    pub(super) fn capture(&self, file: &Path) -> (PathBuf, u64) {
        let text = file.to_string_lossy();
        let split = text.rsplit_once(':').filter(|_| self.number.is_none() && !file.exists());
        let numbered = split.and_then(|(name, number)| Some((name, number.parse().ok().filter(|n| *n > 0)?)));
        numbered.map_or_else(
            || (file.to_owned(), self.number.unwrap_or(1)),
            |(name, number)| (PathBuf::from(name), number),
        )
    }

    /// The packet that the words describe.
    ///
    /// # Errors
    /// Says which word is wrong, or missing.
    pub(super) fn spec(&self) -> Result<PacketSpec, String> {
        let [proto, src, dst] = self.packet.as_slice() else {
            return Err(match self.packet.len() {
                0 => "which packet? Say PROTOCOL SOURCE DESTINATION, as `tcp 10.0.0.1:40000 192.0.2.7:443`, or --hex, or --pcap".to_owned(),
                _ => format!(
                    "`{}` is not a whole packet: say PROTOCOL SOURCE DESTINATION, as `tcp 10.0.0.1:40000 192.0.2.7:443`",
                    self.packet.join(" ")
                ),
            });
        };
        let (src, sport) = end(src)?;
        let (dst, dport) = end(dst)?;
        Ok(PacketSpec {
            proto: proto.clone(),
            src: Some(src),
            dst: Some(dst),
            sport,
            dport,
            flags: self.flags.clone(),
            seq: self.seq,
            ack: self.ack,
            icmp_type: self.icmp_type.clone(),
            icmp_id: self.icmp_id,
            ttl: self.ttl,
            tos: self.tos,
            len: self.len,
            mac_src: self.mac.clone(),
            mac_dst: self.dst_mac.clone(),
            vlan: self.vlan.clone(),
        })
    }
}

/// An address, perhaps with a port.
fn end(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(both) = text.parse::<SocketAddr>() {
        return Ok((both.ip(), Some(both.port())));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map(|address| (address, None)).map_err(|_| {
        let hint = if text.matches(':').count() > 1 {
            "write an IPv6 address with a port as [2001:db8::1]:443"
        } else {
            "write ADDRESS or ADDRESS:PORT, as 10.0.0.1:443"
        };
        format!("`{text}` is no address: {hint}")
    })
}

fn parse_byte(text: &str) -> Result<u8, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "give a number from 0 to 255, or from 0x00 to 0xff".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_addresses_with_or_without_a_port() {
        let v4 = IpAddr::from([10, 0, 0, 1]);
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        for (text, wanted) in [
            ("10.0.0.1:443", (v4, Some(443))),
            ("10.0.0.1", (v4, None)),
            ("[2001:db8::1]:443", (v6, Some(443))),
            ("[2001:db8::1]", (v6, None)),
            ("2001:db8::1", (v6, None)),
        ] {
            assert_eq!(end(text), Ok(wanted), "{text}");
        }
        assert!(end("10.0.0.1:http").unwrap_err().contains("ADDRESS:PORT"));
        assert!(end("2001:db8::1::443").unwrap_err().contains("[2001:db8::1]:443"));
    }

    #[test]
    fn a_packet_of_a_capture_has_a_number() {
        let args = ExplainArgs::default();
        let of = |args: &ExplainArgs, text: &str| args.capture(Path::new(text));
        assert_eq!(of(&args, "lost.pcap"), ("lost.pcap".into(), 1));
        assert_eq!(of(&args, "lost.pcap:12"), ("lost.pcap".into(), 12));
        assert_eq!(of(&args, "lost.pcap:0"), ("lost.pcap:0".into(), 1));
        let seventh = ExplainArgs { number: Some(7), ..ExplainArgs::default() };
        assert_eq!(of(&seventh, "lost.pcap:12"), ("lost.pcap:12".into(), 7));
    }

    #[test]
    fn options_that_would_do_nothing_are_refused() {
        use crate::cli::args::Cli;
        use clap::Parser as _;
        let parse = |options: &str| {
            let words = ["fwctl", "explain"].into_iter().chain(options.split(' '));
            Cli::try_parse_from(words).map(drop).map_err(|error| error.kind())
        };
        let conflict = Err(clap::error::ErrorKind::ArgumentConflict);
        let missing = Err(clap::error::ErrorKind::MissingRequiredArgument);
        for option in [
            "--flags syn",
            "--seq 1",
            "--ack 1",
            "--ttl 1",
            "--tos 1",
            "--len 100",
            "--vlan 1",
            "--mac 02:00:00:00:00:01",
            "--dst-mac 02:00:00:00:00:01",
            "--icmp-type 8",
            "--icmp-id 1",
        ] {
            assert_eq!(parse(&format!("--hex 00 {option}")), conflict, "{option}");
            assert_eq!(parse(&format!("--pcap x {option}")), conflict, "{option}");
            assert_eq!(parse(&format!("tcp 10.0.0.1 10.0.0.2:1 {option}")), Ok(()), "{option}");
        }
        assert_eq!(parse("--hex 00 --pcap x"), conflict);
        assert_eq!(parse("--hex 00 tcp 10.0.0.1 10.0.0.2:1"), conflict);
        for option in ["--set tracking=always", "--sets x", "--left-if a", "--right-if b"] {
            assert_eq!(parse(&format!("--hex 00 {option}")), missing, "{option}");
            assert_eq!(parse(&format!("--hex 00 --rules6 x {option}")), Ok(()), "{option}");
        }
        assert_eq!(parse("--hex 00 --rules x --rules6 y"), Ok(()));
    }

    #[test]
    fn a_packet_has_three_words() {
        let spec = |words: &[&str]| {
            ExplainArgs {
                packet: words.iter().map(|word| (*word).to_owned()).collect(),
                ..Default::default()
            }
            .spec()
        };
        assert!(spec(&[]).unwrap_err().contains("which packet?"));
        assert!(spec(&["tcp", "10.0.0.1"]).unwrap_err().contains("`tcp 10.0.0.1` is not a whole packet"));
        let spec = spec(&["tcp", "10.0.0.1", "10.0.0.2:22"]).unwrap();
        assert_eq!((spec.sport, spec.dport), (None, Some(22)));
    }
}
