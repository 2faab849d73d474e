//! Linux: a bridge between two veth pairs in one namespace, their far ends in another one that has no addresses and
//! answers nothing. The connection state of a forwarded frame is written into its DSCP by rules at the very end.

use dataplane::packet::Family;
use palisade_tests::lab::{Netns, PacketSocket};
use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

/// Names of the connection states, by DSCP.
const STATES: [&str; 5] = ["NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"];

/// An EtherType for experiments (IEEE 802), which no rule sees: a frame of it marks the end of a batch.
const MARKER: [u8; 2] = [0x88, 0xb5];

/// Timeout policies that rules may name, on both sides.
pub(crate) const TIMEOUT_POLICIES: [&str; 4] = [
    "fast inet tcp syn_sent 17 syn_recv 16 established 90 fin_wait 15 close_wait 14 last_ack 13 time_wait 12 close 11 \
     retrans 40 unacknowledged 50",
    "dns inet udp unreplied 6 replied 21",
    "echo inet icmp timeout 8",
    "rest inet generic timeout 9",
];

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
    /// Behind the sockets: they are closed first.
    _ends: Netns,
    batches: u32,
}

impl Kernel {
    /// Builds the bridge.
    #[must_use]
    pub(crate) fn new() -> Self {
        let (wire, ends) = (Netns::new("judge"), Netns::new("ends"));
        for netns in [&wire, &ends] {
            for name in ["all", "default"] {
                netns.sysctl(&format!("net.ipv6.conf.{name}.disable_ipv6"), "1");
            }
        }
        wire.ip(&["link", "add", "br0", "type", "bridge", "mcast_snooping", "0", "stp_state", "0"]);
        for name in ["left", "right"] {
            let ends_name = ends.name();
            wire.ip(&[
                "link", "add", name, "mtu", "9000", "type", "veth", "peer", "name", name, "mtu", "9000",
                "netns", ends_name,
            ]);
            wire.ip(&["link", "set", name, "master", "br0", "up"]);
            wire.run("bridge", &["link", "set", "dev", name, "learning", "off"]);
            ends.ip(&["link", "set", name, "up"]);
            // A veth end calls unverified checksums verified unless told otherwise.
            for netns in [&wire, &ends] {
                netns.run(
                    "ethtool",
                    &["-K", name, "rx", "off", "tx", "off", "gro", "off", "gso", "off", "tso", "off"],
                );
            }
        }
        wire.ip(&["link", "set", "br0", "mtu", "9000", "up"]);
        // Without a way to the ends the kernel would not answer for REJECT.
        wire.ip(&["address", "add", "10.0.0.254/24", "dev", "br0"]);
        for family in ["iptables", "ip6tables"] {
            wire.sysctl(&format!("net.bridge.bridge-nf-call-{family}"), "1");
        }
        for policy in TIMEOUT_POLICIES {
            let words: Vec<&str> = ["add", "timeout"].into_iter().chain(policy.split(' ')).collect();
            wire.run("nfct", &words);
        }
        let sockets = ["left", "right"].map(|name| PacketSocket::open(&ends, name));
        let kernel = Self { wire, ends: sockets, _ends: ends, batches: 0 };
        kernel.settle();
        kernel
    }

    /// Waits until frames pass: a bridge port starts a little after its link.
    fn settle(&self) {
        let probe = Self::marker(u32::MAX);
        for _ in 0..500 {
            self.ends[0].send(&probe);
            if self.ends[1].receive(Duration::from_millis(20), |frame| frame == probe).is_some() {
                return;
            }
        }
        panic!("the bridge does not forward");
    }

    /// Loads rules (tables of both families), forgets all connections and sets sysctls, `nf_conntrack_` left out.
    pub(crate) fn load(&self, rules: &[(Family, &str)], sysctls: &[(&str, &str)]) {
        for family in [Family::V4, Family::V6] {
            let text = rules.iter().find(|(of, _)| *of == family).map_or("", |(_, text)| text);
            let empty = "*raw\nCOMMIT\n*mangle\nCOMMIT\n*filter\n:FORWARD ACCEPT\nCOMMIT\n";
            self.restore(family, &format!("{empty}{}", with_states_shown(text)));
        }
        for (name, value) in [("acct", "1")].iter().chain(sysctls) {
            self.wire.sysctl(&format!("net.netfilter.nf_conntrack_{name}"), value);
        }
        self.forget();
    }

    /// Forgets all connections, and with them what they expected.
    pub(crate) fn forget(&self) {
        self.wire.exec("conntrack", &["-F"]);
        self.wire.exec("conntrack", &["-F", "expect"]);
    }

    fn restore(&self, family: Family, text: &str) {
        let tool = if family == Family::V4 { "iptables-restore" } else { "ip6tables-restore" };
        let mut child = self.wire.command(tool).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{tool} refuses\n{text}");
    }

    /// The value of a sysctl.
    pub(crate) fn sysctl(&self, name: &str) -> String {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        self.wire.within(|| fs::read_to_string(&path)).unwrap_or_default().trim().to_owned()
    }

    fn marker(number: u32) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8];
        frame.extend(MARKER);
        frame.extend(number.to_be_bytes());
        frame.resize(60, 0);
        frame
    }

    /// Puts a frame into one side.
    pub(crate) fn send(&self, side: usize, frame: &[u8]) {
        self.ends[side].send(frame);
    }

    /// Everything that has come out since the last call, by side.
    pub(crate) fn collect(&mut self) -> [Vec<Seen>; 2] {
        self.batches += 1;
        let marker = Self::marker(self.batches);
        [0, 1].map(|side| {
            self.ends[1 - side].send(&marker);
            let mut seen = Vec::new();
            loop {
                let frame =
                    self.ends[side].receive(Duration::from_secs(5), |_| true).expect("the marker arrives");
                if frame == marker {
                    return seen;
                }
                if frame.get(12..14) != Some(&MARKER) {
                    seen.push(unmark(frame));
                }
            }
        })
    }

    /// What `conntrack -L` says of one family.
    pub(crate) fn connections(&self, family: Family) -> String {
        let family = if family == Family::V4 { "ipv4" } else { "ipv6" };
        self.wire.run("conntrack", &["-L", "-f", family])
    }
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
