//! Matches on what is in one packet. Each question has a client (or a port) of its own, whose packets it drops if it holds;
//! every question of a group is put to every frame of that group. There is no connection tracking, so fragments are asked
//! as they come. Questions marked `never` must never hold, all others of some frame but not of all.

use super::kernel::{Kernel, Topology};
use super::ours::Ours;
use control::rules_file::understand;
use dataplane::packet::Family;
use dataplane::testing::gateway::{GatewayConfig, LEFT};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod frames;

use frames::Frame;

/// Whose packets a question drops.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) client: IpAddr,
    pub(super) server: IpAddr,
    pub(super) port: u16,
}

/// Port and client of nobody: what passes under it passes if no rule asks.
const NOBODY: u16 = 999;

impl Key {
    fn new(number: u16, six: bool, by_port: bool) -> Self {
        let (own, port) = if by_port { (1, number) } else { (number, 40_000) };
        let [high, low] = own.to_be_bytes();
        if six {
            let client = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, own).into();
            return Self { client, server: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).into(), port };
        }
        Self {
            client: Ipv4Addr::new(10, 1, high, low).into(),
            server: Ipv4Addr::new(10, 0, 0, 2).into(),
            port,
        }
    }
}

struct Group {
    name: &'static str,
    six: bool,
    by_port: bool,
    questions: &'static [&'static str],
    frames: fn(&Key) -> Vec<Frame>,
}

/// A question, and whether it must never hold.
fn question(text: &str) -> (&str, bool) {
    text.strip_prefix("never ").map_or((text, false), |text| (text, true))
}

impl Group {
    fn keys(&self) -> impl Iterator<Item = (Key, &'static str)> {
        let (six, by_port) = (self.six, self.by_port);
        (1..).zip(self.questions).map(move |(number, question)| (Key::new(number, six, by_port), *question))
    }

    fn rules(&self, (table, chain): (&str, &str)) -> String {
        let rule = |(key, text): (Key, &str)| {
            let Key { client, port, .. } = key;
            let owner =
                if self.by_port { format!("-p udp -m udp --sport {port}") } else { format!("-s {client}") };
            format!("-A {chain} {owner} {} -j DROP\n", question(text).0)
        };
        let rules: String = self.keys().map(rule).collect();
        format!("*{table}\n{rules}COMMIT\n{}", if table == "filter" { "" } else { "*filter\nCOMMIT\n" })
    }
}

/// Puts all questions to both sides.
fn ask(kernel: &mut Kernel, group: &Group, place: (&str, &str), failures: &mut Vec<String>) -> usize {
    let topology = kernel.topology();
    let family = if group.six { Family::V6 } else { Family::V4 };
    let text = group.rules(place);
    kernel.load_bare(&[(family, &text)]);
    let rules = || {
        let loaded = understand(text.as_bytes(), "questions", family, &[]);
        vec![loaded.ruleset.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))]
    };
    let config = GatewayConfig { track_always: false, ..GatewayConfig::default() };
    let mut ours = Ours::new(rules, &config);
    let may_be_asked = |frame: &Frame| topology == Topology::Bridge || !frame.bridge_only;
    let nobody = Key::new(NOBODY, group.six, group.by_port);
    // A router drops some of them itself.
    let passing: Vec<bool> = (group.frames)(&nobody)
        .iter()
        .map(|frame| may_be_asked(frame) && kernel.forwards(LEFT.index(), &frame.bytes))
        .collect();
    let mut asked = 0;
    for (key, text) in group.keys() {
        let (question, never) = question(text);
        let mut held = 0;
        let mut of = 0;
        for (frame, _) in (group.frames)(&key).into_iter().zip(&passing).filter(|(_, passes)| **passes) {
            let theirs = !kernel.forwards(LEFT.index(), &frame.bytes);
            let own = ours.send(LEFT, &frame.bytes).forwarded.is_empty();
            (held, of) = (held + usize::from(theirs), of + 1);
            if theirs != own {
                let said = |holds| if holds { "drops" } else { "passes" };
                failures.push(format!(
                    "{topology:?} {} {place:?} `{question}`: {}: kernel {}, we {}",
                    group.name,
                    frame.note,
                    said(theirs),
                    said(own)
                ));
            }
        }
        asked += of;
        let is_telling = if never { held == 0 } else { held > 0 && held < of };
        if topology == Topology::Bridge && !is_telling {
            failures.push(format!("{} `{question}` says nothing: it held of {held} of {of}", group.name));
        }
    }
    asked
}

fn ask_all(groups: &[Group]) {
    if !super::may_run() {
        return;
    }
    let mut failures = Vec::new();
    for topology in [Topology::Bridge, Topology::Router] {
        let mut kernel = Kernel::new(topology);
        let mut asked = 0;
        for group in groups {
            asked += ask(&mut kernel, group, ("mangle", "PREROUTING"), &mut failures);
            // A router has counted the hop before.
            if topology == Topology::Bridge {
                asked += ask(&mut kernel, group, ("filter", "FORWARD"), &mut failures);
            }
        }
        println!("{topology:?}: {asked} answers");
    }
    assert!(failures.is_empty(), "{} disagreements\n{}", failures.len(), failures.join("\n"));
}

const IP: &[&str] = &[
    "-m length --length 29:128",
    "-m length ! --length 100:200",
    "-m length --length 1000:",
    "-m length --length :60",
    "never -m length --length 200:100",
    "-m tos --tos 0x10",
    "-m tos ! --tos 0",
    "-m tos --tos 0x08/0x18",
    "-m tos --tos Minimize-Delay",
    "-m tos ! --tos 0x00/0x03",
    "never -m tos --tos 0x10/0x0f",
    "-m dscp --dscp 46",
    "-m dscp ! --dscp-class BE",
    "-m dscp --dscp-class AF41",
    "-m ecn --ecn-ip-ect 0",
    "-m ecn --ecn-ip-ect 1",
    "-m ecn ! --ecn-ip-ect 2",
    "-m ecn --ecn-ip-ect 3",
    "-m mac --mac-source 02:00:00:00:00:77",
    "-m mac ! --mac-source 02:00:00:00:00:77",
    "-m string --algo bm --string needle",
    "-m string --algo kmp --string needle",
    "-m string --algo bm ! --string needle",
    "-m string --algo kmp --string NEEDLE --icase",
    "-m string --algo bm --string nEEdle --icase",
    "-m string --algo kmp --hex-string |006e65|",
    "-m string --algo kmp --hex-string |e4df| --icase",
    "-m string --algo kmp --hex-string |c4bf| --icase",
    "-m string --algo kmp --string aaab",
    "-m string --algo bm --string aaab",
    "-m string --algo bm --string needle --from 60",
    "-m string --algo kmp --string needle --to 60",
    "-m string --algo kmp --string needle --from 28 --to 100",
    "never -m string --algo kmp --string needle --from 30 --to 30",
    "-m string --algo kmp --string needle --from 1000",
    "-m u32 --u32 \"0>>28=4,6\" -m length --length 28:100",
    "-m u32 --u32 \"60=0:0xffffffff\"",
    "-m u32 ! --u32 \"60=0:0xffffffff\"",
    "-m u32 --u32 \"100=0:0xffffffff&&104&0=0\"",
];

const IP4: &[&str] = &[
    "-m length --length 28",
    "-m u32 --u32 \"26&0xffff=0x6e65:0x6e66\"",
    "-m u32 --u32 \"8&0xffff<<16>>31=1\"",
    "-m ttl --ttl-eq 64",
    "-m ttl ! --ttl-eq 64",
    "-m ttl --ttl-lt 64",
    "-m ttl --ttl-gt 64",
    "never -m ttl --ttl-lt 0",
    "never -m ttl --ttl-gt 255",
    "-m u32 --u32 \"0>>22&0x3C@6&0xffff=0x6e65\"",
    "-m u32 --u32 \"0>>22&0x3C@8=0x6e656564\"",
    "-m u32 --u32 \"6&0xff=17&&0>>22&0x3c@0>>16=40000\" -m length ! --length 28",
];

const IP6: &[&str] = &[
    "-m length --length 48",
    "-m u32 --u32 \"46&0xffff=0x6e65:0x6e66\"",
    "-m u32 --u32 \"4>>16@34=0x6e656564\"",
    "-m u32 ! --u32 \"0@0=0:0xffffffff\" -m length --length 48:60",
    "-m hl --hl-eq 64",
    "-m hl ! --hl-eq 64",
    "-m hl --hl-lt 64",
    "-m hl --hl-gt 64",
    "never -m hl --hl-lt 0",
];

const LINK: &[&str] = &[
    "-m pkttype --pkt-type unicast",
    "-m pkttype ! --pkt-type unicast",
    "-m pkttype --pkt-type broadcast",
    "-m pkttype --pkt-type multicast",
    "never -m pkttype --pkt-type otherhost",
];

const UPPER: &[&str] = &[
    "-p tcp -m tcp",
    "-p udp -m udp",
    "-p tcp -m tcp --tcp-option 2",
    "-p tcp -m tcp ! --tcp-option 2",
    "-p tcp -m tcp --tcp-option 8 --dport 80",
    "-p tcp -m tcp --tcp-option 8 --dport 81",
    "-p tcp -m tcp --syn --tcp-option 3",
    "-p tcp -m tcpmss --mss 1460",
    "-p tcp -m tcpmss --mss 500:1000",
    "-p tcp -m tcpmss ! --mss 1460",
    "-p tcp -m ecn --ecn-tcp-ece",
    "-p tcp -m ecn ! --ecn-tcp-ece",
    "-p tcp -m ecn --ecn-tcp-cwr ! --ecn-tcp-ece",
    "-p tcp -m ecn --ecn-tcp-cwr --ecn-ip-ect 1",
    "-p esp -m esp",
    "-p esp -m esp --espspi 0x100:0x1ff",
    "-p esp -m esp ! --espspi 0x100:0x1ff",
    "-p sctp -m sctp",
    "-p sctp -m sctp --dport 7",
    "-p sctp -m sctp --chunk-types any INIT",
    "-p sctp -m sctp ! --chunk-types any INIT",
    "-p sctp -m sctp --chunk-types any DATA:E",
    "-p sctp -m sctp --chunk-types any DATA:bE",
    "-p sctp -m sctp --chunk-types all DATA,SACK",
    "-p sctp -m sctp --chunk-types all DATA:B,SACK",
    "-p sctp -m sctp ! --chunk-types all DATA,SACK",
    "-p sctp -m sctp --chunk-types only DATA,SACK",
    "-p sctp -m sctp --chunk-types only DATA:BE",
    "-p sctp -m sctp --chunk-types any ABORT:T,SHUTDOWN_COMPLETE:t",
    "-p sctp -m sctp --chunk-types all ALL",
    "-p sctp -m sctp --chunk-types only ALL",
    "-p sctp -m sctp --chunk-types any NONE",
    "-p sctp -m sctp --chunk-types all NONE",
    "-p sctp -m sctp --sport 1 --chunk-types any INIT",
    "-p dccp -m dccp",
    "-p dccp -m dccp --dport 7",
    "-p dccp -m dccp ! --dport 7",
    "-p dccp -m dccp --dccp-types REQUEST,DATA",
    "-p dccp -m dccp ! --dccp-types REQUEST,DATA",
    "-p dccp -m dccp --dccp-types INVALID",
    "-p dccp -m dccp --dccp-option 33",
    "-p dccp -m dccp ! --dccp-option 33",
    "-p dccp -m multiport --dports 1:9",
    "-p dccp -m multiport ! --sports 1:9",
    "-m string --algo bm --string needle -p tcp -m tcpmss --mss 1460",
];

const UPPER4: &[&str] =
    &["-p ah -m ah", "-p ah -m ah --ahspi 0x100:0x1ff", "-p ah -m ah ! --ahspi 0x100:0x1ff"];

const EXTENSIONS: &[&str] = &[
    "-m ah",
    "-m ah --ahspi 0x100:0x1ff",
    "-m ah ! --ahspi 0x100:0x1ff",
    "-m ah --ahlen 24",
    "-m ah ! --ahlen 24",
    "-m ah ! --ahlen 0",
    "-m ah --ahres",
    "-m frag",
    "-m frag --fragid 77",
    "-m frag ! --fragid 77",
    "-m frag --fragfirst",
    "-m frag --fragmore",
    "-m frag --fraglast",
    "-m frag --fragres",
    "-m frag --fraglen 99",
    "-m ipv6header --header prot",
    "-m ipv6header ! --header prot",
    "-m ipv6header --header hop,prot",
    "-m ipv6header --header frag,prot",
    "-m ipv6header --header none",
    "-m ipv6header --header esp",
    "-m ipv6header --header hop,dst,route --soft",
    "-m ipv6header --header dst --soft",
    "-m ipv6header ! --header hop --soft",
    "-m ipv6header ! --header frag,prot --soft",
    "-m ipv6header --header auth --soft",
    "-m hbh",
    "-m hbh --hbh-len 8",
    "-m hbh ! --hbh-len 8",
    "-m hbh --hbh-opts 1",
    "-m hbh --hbh-opts 1:4",
    "-m hbh --hbh-opts 5:2,1:0",
    "-m hbh --hbh-opts 5,0,0",
    "-m hbh --hbh-opts 5:2,0,0,0",
    "-m dst",
    "-m dst --dst-len 16",
    "-m dst ! --dst-len 16 --dst-opts 1",
    "-m dst --dst-opts 30:200",
    "-m dst --dst-opts 30:200,1",
    "-m dst --dst-opts 30:4,30:4",
    "-m rt",
    "-m rt --rt-type 0",
    "-m rt ! --rt-type 0",
    "-m rt --rt-type 256",
    "-m rt --rt-segsleft 1:2",
    "-m rt ! --rt-segsleft 1:2",
    "-m rt --rt-len 24",
    "-m rt --rt-type 0 --rt-0-res",
    "-m rt --rt-type 0 --rt-0-addrs fd00::a",
    "-m rt --rt-type 0 --rt-0-addrs fd00::a,fd00::b",
    "-m rt --rt-type 0 --rt-0-addrs fd00::b --rt-0-not-strict",
    "-m rt --rt-type 0 --rt-0-addrs fd00::b,fd00::a --rt-0-not-strict",
];

/// Asked where no authentication header stands in the way: `-p` ends there in the kernel.
const BEHIND: &[&str] = &[
    "-p udp -m udp --dport 53",
    "-p udp -m udp",
    "-p tcp -m ecn ! --ecn-tcp-cwr",
    "-p tcp -m tcpmss ! --mss 5",
    "-p tcp -m tcp --tcp-option 2",
    "-p tcp -m tcp",
];

const ADDRESSES4: &[&str] = &[
    "-m iprange --src-range 10.1.0.0-10.1.255.255",
    "-m iprange --src-range 10.1.0.1",
    "-m iprange ! --src-range 10.0.255.255-10.1.0.1",
    "-m iprange --src-range 9.255.255.255-10.1.0.0",
    "never -m iprange --src-range 10.2.0.0-10.1.0.0",
    "-m iprange --dst-range 10.0.0.3-10.0.0.200",
    "-m iprange ! --dst-range 10.0.0.3-10.0.0.200",
    "-m iprange --src-range 10.1.0.1-10.1.0.1 ! --dst-range 10.0.0.2-10.0.0.9",
    "-m addrtype --dst-type UNICAST",
    "-m addrtype ! --dst-type UNICAST",
    "-m addrtype --dst-type MULTICAST",
    "-m addrtype --dst-type BROADCAST",
    "-m addrtype --dst-type BROADCAST,MULTICAST",
    "-m addrtype --src-type UNICAST ! --dst-type MULTICAST",
    "-m addrtype --src-type BROADCAST",
    "never -m addrtype --src-type UNSPEC",
];

const ADDRESSES6: &[&str] = &[
    "-m iprange --src-range fd00::1:0-fd00::1:ffff",
    "-m iprange ! --src-range fd00::1:1",
    "-m iprange --dst-range fd00::2-fd00:1::",
    "-m addrtype --dst-type UNICAST",
    "-m addrtype ! --dst-type UNICAST",
    "-m addrtype --dst-type MULTICAST",
    "-m addrtype ! --dst-type MULTICAST --src-type UNICAST",
    "never -m addrtype --dst-type UNICAST,MULTICAST",
    "never -m addrtype --src-type UNSPEC",
    "-m eui64",
];

const fn group(
    name: &'static str,
    (six, by_port): (bool, bool),
    questions: &'static [&'static str],
    frames: fn(&Key) -> Vec<Frame>,
) -> Group {
    Group { name, six, by_port, questions, frames }
}

#[test]
fn fields_and_payload_are_matched_alike() {
    ask_all(&[
        group("ip", (false, false), IP, frames::plain),
        group("ipv4", (false, false), IP4, frames::plain),
        group("ip, ipv6", (true, false), IP, frames::plain),
        group("ipv6", (true, false), IP6, frames::plain),
        group("link", (false, false), LINK, frames::links),
        group("link, ipv6", (true, false), LINK, frames::links),
        group("addresses", (false, true), ADDRESSES4, frames::addresses),
        group("addresses, ipv6", (true, true), ADDRESSES6, frames::addresses),
    ]);
}

#[test]
fn upper_layer_headers_are_matched_alike_whole_cut_and_in_pieces() {
    ask_all(&[
        group("upper", (false, false), UPPER, frames::upper),
        group("upper4", (false, false), UPPER4, frames::upper),
        group("upper, ipv6", (true, false), UPPER, frames::upper),
    ]);
}

#[test]
fn extension_headers_are_matched_alike() {
    ask_all(&[
        group("extensions", (true, false), EXTENSIONS, frames::extensions),
        group("behind", (true, false), BEHIND, frames::without_auth),
    ]);
}

/// Questions about the ports of a bridge, each of a client of its own.
const PORTS: &[&str] = &[
    "-m physdev --physdev-in left",
    "-m physdev ! --physdev-in left",
    "-m physdev --physdev-in le+",
    "-m physdev --physdev-in right",
    "-m physdev --physdev-out right",
    "-m physdev ! --physdev-out right",
    "-m physdev --physdev-out +",
    "-m physdev ! --physdev-out left",
    "-m physdev --physdev-in left --physdev-out right",
    "-m physdev --physdev-is-in",
    "-m physdev ! --physdev-is-in",
    "-m physdev --physdev-is-out",
    "-m physdev ! --physdev-is-out",
    "-m physdev --physdev-is-bridged",
    "-m physdev ! --physdev-is-bridged",
    "-m physdev --physdev-is-bridged --physdev-in right",
];

#[test]
fn ports_of_a_bridge_are_known_where_the_kernel_knows_them() {
    if !super::may_run() {
        return;
    }
    let mut kernel = Kernel::new(Topology::Bridge);
    let mut failures = Vec::new();
    let places = [
        ("raw", "PREROUTING"),
        ("mangle", "PREROUTING"),
        ("mangle", "FORWARD"),
        ("filter", "FORWARD"),
        ("mangle", "POSTROUTING"),
    ];
    for (six, place) in places.into_iter().flat_map(|place| [(false, place), (true, place)]) {
        let group = group("ports", (six, false), PORTS, frames::one);
        let family = if six { Family::V6 } else { Family::V4 };
        let text = group.rules(place);
        kernel.load_bare(&[(family, &text)]);
        let rules =
            || vec![understand(text.as_bytes(), "questions", family, &[]).ruleset.expect("understood")];
        let config = GatewayConfig { track_always: false, ..GatewayConfig::default() };
        let mut ours = Ours::new(rules, &config);
        for (key, question) in group.keys() {
            let frame = &frames::one(&key)[0].bytes;
            for side in [LEFT, LEFT.peer()] {
                let theirs = kernel.forwards(side.index(), frame);
                let own = !ours.send(side, frame).forwarded.is_empty();
                if theirs != own {
                    failures.push(format!("{place:?} `{question}` from {side:?}: kernel {theirs}, we {own}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} disagreements\n{}", failures.len(), failures.join("\n"));
}
