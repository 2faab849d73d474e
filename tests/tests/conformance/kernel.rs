//! Linux: a bridge, or a router, between two veth pairs in one namespace, their far ends in another one that has no
//! addresses and answers nothing. The connection state of a forwarded frame is written into its DSCP by rules at the very
//! end.

use dataplane::packet::Family;
use dataplane::testing::packets::udp;
use palisade_tests::lab::{Netns, PacketSocket, Process};
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

/// Names of the connection states, by DSCP.
const STATES: [&str; 5] = ["NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"];

/// A packet between two addresses for documentation (RFC 5737) marks the end of a batch: no scenario speaks of them.
const MARKER_ENDS: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2)];

/// No rules.
const EMPTY: &str = "*raw\nCOMMIT\n*mangle\nCOMMIT\n*filter\n:FORWARD ACCEPT\nCOMMIT\n";

/// Source of connections that nobody has, made to be told of: then all that happened before was told too.
const BELL: &str = "203.0.113.7";

/// No rule sees it.
const MARKERS_PASS: &str = "\
*raw
-I PREROUTING -s 203.0.113.1 -j ACCEPT
-I PREROUTING -s 203.0.113.1 -j NOTRACK
COMMIT
*mangle
-I PREROUTING -s 203.0.113.1 -j ACCEPT
-I FORWARD -s 203.0.113.1 -j ACCEPT
-I POSTROUTING -s 203.0.113.1 -j ACCEPT
COMMIT
*filter
-I FORWARD -s 203.0.113.1 -j ACCEPT
COMMIT
";

/// Timeout policies that rules may name, on both sides.
pub(crate) const TIMEOUT_POLICIES: [&str; 5] = [
    "fast inet tcp syn_sent 17 syn_recv 16 established 90 fin_wait 15 close_wait 14 last_ack 13 time_wait 12 close 11 \
     retrans 40 unacknowledged 50",
    "dns inet udp unreplied 6 replied 21",
    "dns6 inet6 udp unreplied 6 replied 21",
    "echo inet icmp timeout 8",
    "rest inet generic timeout 9",
];

/// What Linux is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    /// A bridge with br_netfilter: what comes out is what went in.
    Bridge,
    /// A router, which sends on what comes in on one side out of the other, whatever its destination. It writes MAC
    /// addresses of its own and counts hops.
    Router,
}

/// What came out of one side: the frame as it went in, and the state it had.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The frame, its DSCP zero again.
    pub(crate) frame: Vec<u8>,
    /// Its connection state.
    pub(crate) state: Option<&'static str>,
}

/// The judge.
#[derive(Debug)]
pub(crate) struct Kernel {
    wire: Netns,
    ends: [PacketSocket; 2],
    topology: Topology,
    /// MAC addresses of the near ends.
    macs: [Vec<u8>; 2],
    /// Behind the sockets: they are closed first.
    _ends: Netns,
    batches: u32,
    bells: u16,
}

impl Kernel {
    /// Builds it.
    #[must_use]
    pub(crate) fn new(topology: Topology) -> Self {
        let (wire, ends) = (Netns::new("judge"), Netns::new("ends"));
        for name in ["all", "default"] {
            ends.sysctl(&format!("net.ipv6.conf.{name}.disable_ipv6"), "1");
            if topology == Topology::Bridge {
                wire.sysctl(&format!("net.ipv6.conf.{name}.disable_ipv6"), "1");
            }
        }
        for name in ["left", "right"] {
            let ends_name = ends.name();
            wire.ip(&[
                "link", "add", name, "mtu", "9000", "type", "veth", "peer", "name", name, "mtu", "9000",
                "netns", ends_name,
            ]);
            ends.ip(&["link", "set", name, "up"]);
            // A veth end calls unverified checksums verified unless told otherwise.
            for netns in [&wire, &ends] {
                netns.run(
                    "ethtool",
                    &["-K", name, "rx", "off", "tx", "off", "gro", "off", "gso", "off", "tso", "off"],
                );
            }
        }
        match topology {
            Topology::Bridge => make_bridge(&wire),
            Topology::Router => make_router(&wire),
        }
        for policy in TIMEOUT_POLICIES {
            let words: Vec<&str> = ["add", "timeout"].into_iter().chain(policy.split(' ')).collect();
            wire.run("nfct", &words);
        }
        let sockets = ["left", "right"].map(|name| PacketSocket::open(&ends, name));
        let macs = ["left", "right"].map(|name| mac_of(&wire, name));
        let kernel = Self { wire, ends: sockets, topology, macs, _ends: ends, batches: 0, bells: 0 };
        kernel.load(&[], &[]);
        kernel.settle();
        kernel
    }

    /// Waits until frames pass: a bridge port starts a little after its link.
    fn settle(&self) {
        let probe = Self::marker(u32::MAX);
        for _ in 0..500 {
            self.send(0, &probe);
            if self.ends[1].receive(Duration::from_millis(20), |frame| is_marker(frame, &probe)).is_some() {
                return;
            }
        }
        panic!("the bridge does not forward");
    }

    /// Loads rules (tables of both families), forgets all connections and sets sysctls by the names we have for them.
    pub(crate) fn load(&self, rules: &[(Family, &str)], sysctls: &[(&str, &str)]) {
        for family in [Family::V4, Family::V6] {
            let text = rules.iter().find(|(of, _)| *of == family).map_or("", |(_, text)| text);
            self.restore(family, &format!("{EMPTY}{}", with_states_shown(text)), &[]);
        }
        self.restore(Family::V4, MARKERS_PASS, &["--noflush"]);
        for (name, value) in [("acct", "1")].iter().chain(sysctls) {
            self.wire.sysctl(&full_name(name), value);
        }
        self.forget();
    }

    /// Loads rules and nothing beside them: what shows a packet's state would turn tracking on.
    pub(crate) fn load_bare(&self, rules: &[(Family, &str)]) {
        for family in [Family::V4, Family::V6] {
            let text = rules.iter().find(|(of, _)| *of == family).map_or("", |(_, text)| text);
            self.restore(family, &format!("{EMPTY}{text}"), &[]);
        }
        self.forget();
    }

    /// Has traced packets written to the kernel's log; whether it can.
    pub(crate) fn traces_to_log(&self) -> bool {
        let logger = |number: u8, name: &str| {
            self.wire.within(|| fs::write(format!("/proc/sys/net/netfilter/nf_log/{number}"), name)).is_ok()
        };
        let takes = |tool: &str| self.wire.exec(tool, &["-t", "raw", "-S"]).code == Some(0);
        logger(2, "nf_log_ipv4")
            && logger(10, "nf_log_ipv6")
            && ["iptables-legacy", "ip6tables-legacy"].into_iter().all(takes)
    }

    /// Loads rules into the old tables (`iptables-legacy`), which nothing else uses.
    pub(crate) fn load_legacy(&self, family: Family, text: &str) {
        let tool = if family == Family::V4 { "iptables-legacy-restore" } else { "ip6tables-legacy-restore" };
        self.restore_by(tool, text, &[]);
    }

    /// Makes these sets and no others. No rules are loaded then: they might name one.
    pub(crate) fn load_sets(&self, text: &str) {
        self.load(&[], &[]);
        if text.is_empty() && self.wire.exec("ipset", &["list", "-n"]).stdout.is_empty() {
            return;
        }
        self.ipset(&["flush"], "");
        self.ipset(&["destroy"], "");
        self.ipset(&["restore"], text);
    }

    /// Runs ipset; what it prints.
    pub(crate) fn ipset(&self, words: &[&str], text: &str) -> String {
        let mut command = self.wire.command("ipset");
        let mut child = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "ipset {words:?} refuses\n{text}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Forgets all connections, and with them what they expected.
    pub(crate) fn forget(&self) {
        self.wire.exec("conntrack", &["-F"]);
        self.wire.exec("conntrack", &["-F", "expect"]);
    }

    fn restore(&self, family: Family, text: &str, options: &[&str]) {
        let tool = if family == Family::V4 { "iptables-restore" } else { "ip6tables-restore" };
        self.restore_by(tool, text, options);
    }

    fn restore_by(&self, tool: &str, text: &str, options: &[&str]) {
        let mut child = self.wire.command(tool).args(options).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{tool} refuses\n{text}");
    }

    /// The value of a sysctl.
    pub(crate) fn sysctl(&self, name: &str) -> String {
        let path = format!("/proc/sys/{}", full_name(name).replace('.', "/"));
        self.wire.within(|| fs::read_to_string(&path)).unwrap_or_default().trim().to_owned()
    }

    fn marker(number: u32) -> Vec<u8> {
        let [from, to] = MARKER_ENDS;
        udp(from, to).payload(&number.to_be_bytes()).build()
    }

    /// Puts a frame into one side.
    pub(crate) fn send(&self, side: usize, frame: &[u8]) {
        self.ends[side].send(&self.addressed(side, frame));
    }

    /// A frame as it goes into one side: a router takes what is sent to its own MAC address.
    pub(crate) fn addressed(&self, side: usize, frame: &[u8]) -> Vec<u8> {
        match self.topology {
            Topology::Bridge => frame.to_vec(),
            Topology::Router => [&self.macs[side], &frame[6..]].concat(),
        }
    }

    /// What it is.
    pub(crate) const fn topology(&self) -> Topology {
        self.topology
    }

    /// Everything that has come out since the last call, by side.
    pub(crate) fn collect(&mut self) -> [Vec<Seen>; 2] {
        self.collect_bare().map(|frames| frames.into_iter().map(unmark).collect())
    }

    /// The same as it came out, for rules that show no states.
    pub(crate) fn collect_bare(&mut self) -> [Vec<Vec<u8>>; 2] {
        self.batches += 1;
        let marker = Self::marker(self.batches);
        [0, 1].map(|side| {
            self.send(1 - side, &marker);
            let mut seen = Vec::new();
            loop {
                let frame =
                    self.ends[side].receive(Duration::from_secs(5), |_| true).expect("the marker arrives");
                if is_marker(&frame, &marker) {
                    return seen;
                }
                if !is_own_business(&frame) {
                    seen.push(frame);
                }
            }
        })
    }

    /// Whether a frame that goes into one side comes out of the other.
    pub(crate) fn forwards(&mut self, side: usize, frame: &[u8]) -> bool {
        self.send(side, frame);
        !self.collect()[1 - side].is_empty()
    }

    /// What `conntrack -L expect` says of one family.
    pub(crate) fn expectations(&self, family: Family) -> String {
        let family = if family == Family::V4 { "ipv4" } else { "ipv6" };
        self.wire.run("conntrack", &["-L", "expect", "-f", family])
    }

    /// Starts `conntrack -E`, and waits until it listens.
    pub(crate) fn listen(&mut self, options: &str) -> Process {
        let args: Vec<&str> = ["-E"].into_iter().chain(options.split_whitespace()).collect();
        let (program, args) = conntrack(&args);
        let listener = self.wire.spawn(program, &args);
        self.wait_for_events(&listener);
        listener
    }

    /// Waits until everything that has happened was told.
    pub(crate) fn wait_for_events(&mut self, listener: &Process) {
        for _ in 0..200 {
            self.bells += 1;
            let port = self.bells.to_string();
            let bell = ["-p", "udp", "-s", BELL, "-d", BELL, "--sport", &port, "--dport", &port];
            let _ = self.wire.exec("conntrack", &[&["-I", "-t", "100"], &bell[..]].concat());
            let _ = self.wire.exec("conntrack", &[&["-D"], &bell[..]].concat());
            // The last word about it, in whichever form.
            let ports = [
                format!("sport={port} dport={port} "),
                format!("<sport>{port}</sport><dport>{port}</dport>"),
                format!("--sport {port} --dport {port} "),
            ];
            let is_last = |line: &str| {
                Self::is_bell(line)
                    && ["[DESTROY]", "type=\"destroy\"", "-D "].iter().any(|word| line.contains(word))
            };
            let told = |text: &str| {
                text.lines().any(|line| is_last(line) && ports.iter().any(|ports| line.contains(ports)))
            };
            for _ in 0..20 {
                if told(&listener.stdout()) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        panic!("conntrack -E tells nothing: {}", listener.stderr());
    }

    /// Whether an event is about a connection made to be told of.
    pub(crate) fn is_bell(line: &str) -> bool {
        line.contains(BELL)
    }

    /// What `conntrack -L` says of one family.
    pub(crate) fn connections(&self, family: Family) -> String {
        self.connections_as(family, &[])
    }

    /// The same with options.
    pub(crate) fn connections_as(&self, family: Family, options: &[&str]) -> String {
        let family = if family == Family::V4 { "ipv4" } else { "ipv6" };
        let args = [&["-L", "-f", family], options].concat();
        let (program, args) = conntrack(&args);
        numbered(&self.wire.run(program, &args))
    }
}

/// conntrack, where it is to print labels in a mount namespace of its own that gives them names: it prints no others.
fn conntrack<'a>(args: &[&'a str]) -> (&'static str, Vec<&'a str>) {
    const NAMED: &str = "mount -t tmpfs none /mnt && mkdir /mnt/u /mnt/w \
        && mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc && mkdir -p /etc/xtables \
        && for label in $(seq 0 127); do echo $label n$label; done > /etc/xtables/connlabel.conf \
        && exec conntrack \"$@\"";
    if args.iter().any(|option| option.contains("labels")) {
        return ("unshare", [&["-m", "sh", "-c", NAMED, "conntrack"], args].concat());
    }
    ("conntrack", args.to_vec())
}

/// What conntrack prints, labels by their numbers.
pub(crate) fn numbered(text: &str) -> String {
    text.replace("=n", "=").replace(",n", ",").replace("<label>n", "<label>")
}

/// Where the kernel has a setting of ours: IPv4 puts fragments together for others than conntrack, too.
fn full_name(name: &str) -> String {
    let place = if name.starts_with("ipfrag_") { "net.ipv4." } else { "net.netfilter.nf_conntrack_" };
    format!("{place}{name}")
}

fn make_bridge(wire: &Netns) {
    wire.ip(&["link", "add", "br0", "type", "bridge", "mcast_snooping", "0", "stp_state", "0"]);
    for name in ["left", "right"] {
        wire.ip(&["link", "set", name, "master", "br0", "up"]);
        wire.run("bridge", &["link", "set", "dev", name, "learning", "off"]);
    }
    wire.ip(&["link", "set", "br0", "mtu", "9000", "up"]);
    // Without a way to the ends the kernel would not answer for REJECT. It needs no address of its own for that, and
    // with one it would speak unasked.
    wire.ip(&["address", "add", "10.0.0.254/24", "dev", "br0"]);
    wire.ip(&["link", "set", "br0", "addrgenmode", "none"]);
    wire.sysctl("net.ipv6.conf.br0.disable_ipv6", "0");
    wire.ip(&["-6", "route", "add", "fd00::/64", "dev", "br0"]);
    for family in ["iptables", "ip6tables"] {
        wire.sysctl(&format!("net.bridge.bridge-nf-call-{family}"), "1");
    }
}

/// What comes in on one side leaves on the other, to a neighbour whose MAC address is known; what the kernel itself says
/// goes to the end it is meant for.
fn make_router(wire: &Netns) {
    let sides = [("left", "1", ["10.0.0.1", "fd00::1"]), ("right", "2", ["10.0.0.2", "fd00::2"])];
    for (name, number, _) in sides {
        for (knob, value) in [
            ("ipv4.conf.NAME.rp_filter", "0"),
            ("ipv4.conf.NAME.send_redirects", "0"),
            ("ipv6.conf.NAME.accept_ra", "0"),
        ] {
            wire.sysctl(&format!("net.{}", knob.replace("NAME", name)), value);
        }
        wire.ip(&["link", "set", name, "addrgenmode", "none", "up"]);
        for (address, neighbour) in [
            (format!("10.99.{number}.254/24"), format!("10.99.{number}.1")),
            (format!("fd99:{number}::254/64"), format!("fd99:{number}::1")),
        ] {
            wire.ip(&["address", "add", &address, "dev", name, "noprefixroute"]);
            wire.ip(&[
                "neigh",
                "add",
                &neighbour,
                "lladdr",
                "02:00:00:00:00:09",
                "dev",
                name,
                "nud",
                "permanent",
            ]);
        }
    }
    for name in ["ipv4.ip_forward", "ipv6.conf.all.forwarding"] {
        wire.sysctl(&format!("net.{name}"), "1");
    }
    // As many ICMP errors as are owed.
    wire.sysctl("net.ipv4.icmp_ratemask", "0");
    wire.sysctl("net.ipv6.icmp.ratemask", "\n");
    for (at, (name, number, ends)) in sides.into_iter().enumerate() {
        let other = sides[1 - at].0;
        for (family, gateway, end) in
            [("-4", format!("10.99.{number}.1"), ends[0]), ("-6", format!("fd99:{number}::1"), ends[1])]
        {
            let table = format!("10{number}");
            wire.ip(&[family, "rule", "add", "iif", other, "lookup", &table]);
            wire.ip(&[
                family, "route", "add", "default", "via", &gateway, "dev", name, "onlink", "table", &table,
            ]);
            wire.ip(&[family, "route", "add", end, "via", &gateway, "dev", name, "onlink"]);
        }
    }
}

fn mac_of(netns: &Netns, name: &str) -> Vec<u8> {
    let link = netns.link(name);
    let text = link.get("address").and_then(serde_json::Value::as_str).unwrap();
    text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// Whether a frame is that marker; a router has changed its head.
fn is_marker(frame: &[u8], marker: &[u8]) -> bool {
    frame.get(26..) == marker.get(26..) && frame.get(12..14) == marker.get(12..14)
}

/// What a router says of itself: multicast memberships, whose source is nobody, and that it could not put an IPv6
/// datagram together in time, which a wire without an address does not say.
fn is_own_business(frame: &[u8]) -> bool {
    const TIME_EXCEEDED: [u8; 2] = [3, 1];
    let is_late = frame.get(22..24) == Some(&[0xfd, 0x99]) && frame.get(54..56) == Some(&TIME_EXCEEDED);
    frame.get(12..14) == Some(&[0x86, 0xdd]) && (frame.get(22..38) == Some(&[0; 16]) || is_late)
}

/// The rules, and behind all of them some that write a packet's state into its DSCP.
fn with_states_shown(text: &str) -> String {
    let rule = |(dscp, state): (usize, &&str)| {
        format!("-I POSTROUTING -m conntrack --ctstate {state} -j DSCP --set-dscp {}\n", dscp + 1)
    };
    let rules: String = STATES.iter().enumerate().map(rule).collect();
    let end = text.find("*mangle").and_then(|from| text[from..].find("COMMIT").map(|len| from + len));
    match end {
        Some(end) => format!("{}{rules}{}", &text[..end], &text[end..]),
        None => format!("{text}*mangle\n{rules}COMMIT\n"),
    }
}

/// Reads the state out of a frame and takes it away again.
fn unmark(mut frame: Vec<u8>) -> Seen {
    let dscp = match frame.get(12..14) {
        Some([0x08, 0x00]) => {
            let dscp = frame[15] >> 2;
            frame[15] &= 3;
            reseal(&mut frame);
            dscp
        }
        Some([0x86, 0xdd]) => {
            let class = frame[14] << 4 | frame[15] >> 4;
            frame[14] &= 0xf0;
            frame[15] = frame[15] & 0x0f | (class & 3) << 4;
            class >> 2
        }
        _ => 0,
    };
    let state = usize::from(dscp).checked_sub(1).and_then(|at| STATES.get(at)).copied();
    Seen { frame, state }
}

/// Writes the checksum of a frame's IPv4 header.
pub(crate) fn reseal(frame: &mut [u8]) {
    use dataplane::wire::checksum::{finish, sum};
    let end = 14 + usize::from(frame[14] & 0x0f) * 4;
    if frame.len() < end || end < 34 {
        return;
    }
    frame[24..26].fill(0);
    let check = finish(sum(&frame[14..end], 0));
    frame[24..26].copy_from_slice(&check.to_be_bytes());
}
