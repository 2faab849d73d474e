//! Conversations: two ends that take turns, with sequence numbers relative to where each starts.

use super::kernel::{Kernel, Topology};
use super::stage::{Setting, Stage};
use dataplane::ids::PortId;
use dataplane::testing::gateway::{LEFT, RIGHT};
use dataplane::testing::packets::{Builder, tcp};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// The end on the left.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The end on the right.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The end on the left, IPv6.
pub(crate) const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
/// The end on the right, IPv6.
pub(crate) const SERVER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

/// Where the client's and the server's sequence numbers start.
pub(crate) const ISN: [u32; 2] = [1_000_000, 3_000_000_000];

/// Options of a usual SYN: maximum segment size, SACK permitted, window scale 7.
pub(crate) const SYN_OPTIONS: [u8; 12] = [2, 4, 5, 180, 4, 2, 1, 3, 3, 7, 1, 1];

/// Name, rules and sysctls, and what is said.
pub(crate) type Scenario<'a> = (&'a str, Setting<'a>, &'a dyn Fn(&mut Talk<'_>));

/// Runs scenarios one after the other on one judge, and fails with everything that they disagreed about. Once where Linux
/// is a bridge, once where it is a router.
pub(crate) fn perform(scenarios: &[Scenario<'_>]) {
    perform_on(Topology::Bridge, scenarios);
    perform_on(Topology::Router, scenarios);
}

/// The same with a bridge only: a router looks at hops, options and scopes of addresses before conntrack does, and cuts
/// some datagrams anew.
pub(crate) fn perform_on_bridge(scenarios: &[Scenario<'_>]) {
    perform_on(Topology::Bridge, scenarios);
}

/// The same with a router only: a bridge that has no way to the ends does not answer them.
pub(crate) fn perform_on_router(scenarios: &[Scenario<'_>]) {
    perform_on(Topology::Router, scenarios);
}

/// Runs scenarios whose rules name these sets.
pub(crate) fn perform_with_sets(sets: &str, scenarios: &[Scenario<'_>]) {
    perform_all(Topology::Bridge, sets, scenarios);
    perform_all(Topology::Router, sets, scenarios);
}

/// The same with a router only, whose NICs are called as ours are.
pub(crate) fn perform_with_sets_on_router(sets: &str, scenarios: &[Scenario<'_>]) {
    perform_all(Topology::Router, sets, scenarios);
}

fn perform_on(topology: Topology, scenarios: &[Scenario<'_>]) {
    perform_all(topology, "", scenarios);
}

fn perform_all(topology: Topology, sets: &str, scenarios: &[Scenario<'_>]) {
    if !super::may_run() {
        return;
    }
    let mut kernel = Kernel::new(topology);
    let mut failures = Vec::new();
    let mut frames = 0;
    for (name, setting, scenario) in scenarios {
        let stage = Stage::new(&mut kernel, setting, sets);
        let mut talk = Talk { stage, ports: (40_000, 80), six: false, options: true };
        scenario(&mut talk);
        talk.stage.compare();
        frames += talk.stage.frames;
        failures.extend(talk.stage.end().into_iter().map(|failure| format!("{name}: {failure}")));
    }
    println!(
        "{topology:?}: {} scenarios, {frames} frames, {} disagreements",
        scenarios.len(),
        failures.len()
    );
    assert!(failures.is_empty(), "{topology:?}: {} disagreements\n{}", failures.len(), failures.join("\n"));
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Left.
    Client,
    /// Right.
    Server,
}
pub(crate) use End::{Client, Server};

impl End {
    /// The NIC it is behind.
    pub(crate) const fn side(self) -> PortId {
        match self {
            Self::Client => LEFT,
            Self::Server => RIGHT,
        }
    }
}

/// A conversation on the stage.
#[derive(Debug)]
pub(crate) struct Talk<'a> {
    /// Where it takes place.
    pub(crate) stage: Stage<'a>,
    /// Client's and server's port.
    pub(crate) ports: (u16, u16),
    /// Over IPv6.
    pub(crate) six: bool,
    /// Whether SYNs carry the usual options.
    pub(crate) options: bool,
}

impl Talk<'_> {
    /// The addresses of a packet from one end.
    pub(crate) fn addresses(&self, from: End) -> (IpAddr, IpAddr) {
        let ends: (IpAddr, IpAddr) =
            if self.six { (CLIENT6.into(), SERVER6.into()) } else { (CLIENT.into(), SERVER.into()) };
        if from == Client { ends } else { (ends.1, ends.0) }
    }

    /// A segment without flags, numbers counted from where the two ends start.
    pub(crate) fn segment(&self, from: End, seq: i64, ack: i64) -> Builder {
        let (src, dst) = self.addresses(from);
        let (own, other) = if from == Client { (ISN[0], ISN[1]) } else { (ISN[1], ISN[0]) };
        let (sport, dport) = if from == Client { self.ports } else { (self.ports.1, self.ports.0) };
        let at =
            |isn: u32, offset: i64| u32::try_from((i64::from(isn) + offset).rem_euclid(1 << 32)).unwrap();
        tcp(src, dst).ports(sport, dport).numbers(at(own, seq), at(other, ack))
    }

    /// Sends a frame of one end.
    pub(crate) fn send(&mut self, from: End, packet: &Builder, note: &str) {
        self.stage.send(from.side(), &packet.build(), note);
    }

    /// Sends a segment with these flags, by their first letters, and this much data.
    pub(crate) fn says(&mut self, from: End, flags: &str, seq: i64, ack: i64, data: usize) {
        let ack =
            if flags.contains('A') || ack != 0 { ack } else { -i64::from(ISN[usize::from(from == Client)]) };
        let mut packet = self.segment(from, seq, ack).flags(flag_bits(flags)).payload(&vec![b'x'; data]);
        if flags.contains('S') && self.options {
            packet = packet.tcp_options(&SYN_OPTIONS);
        }
        self.send(from, &packet, &format!("{from:?} {flags} seq {seq} ack {ack} len {data}"));
    }

    /// The three-way handshake.
    pub(crate) fn opens(&mut self) {
        self.says(Client, "S", 0, 0, 0);
        self.says(Server, "SA", 0, 1, 0);
        self.says(Client, "A", 1, 1, 0);
    }

    /// Lets time pass.
    pub(crate) fn waits(&mut self, secs: f64) {
        self.stage.wait(Duration::from_secs_f64(secs));
    }

    /// The next conversation, between other ports.
    pub(crate) fn again(&mut self) {
        self.ports.0 += 1;
    }
}

/// `SA` and the like as bits.
pub(crate) fn flag_bits(flags: &str) -> u8 {
    flags.bytes().fold(0, |bits, flag| {
        bits | match flag {
            b'F' => 0x01,
            b'S' => 0x02,
            b'R' => 0x04,
            b'P' => 0x08,
            b'A' => 0x10,
            b'U' => 0x20,
            b'E' => 0x40,
            b'C' => 0x80,
            _ => 0,
        }
    })
}
