//! `-j LOG`: the lines that the kernel writes about packets, and ours about the same. A router names NICs as a wire does.

use super::kernel::{Kernel, Topology};
use super::ours::Ours;
use super::talk::{CLIENT, CLIENT6, SERVER, SERVER6, SYN_OPTIONS};
use control::packet_log::{Around, TRACE_STYLE, line, trace_prefix};
use control::rules_file::understand;
use dataplane::ids::PortId;
use dataplane::packet::Family;
use dataplane::rules::log::LogTo;
use dataplane::testing::gateway::{GatewayConfig, LEFT};
use dataplane::testing::packets::{Builder, icmp, icmp_error, ip, ping, tcp, udp, udplite};
use dataplane::worker::{NoteReader, Why};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;

/// Whether namespaces other than the first one may log.
const SWITCH: &str = "/proc/sys/net/netfilter/nf_log_all_netns";

/// The kernel's log from here on.
pub(super) struct KernelLog(File);

impl KernelLog {
    /// The log, namespaces made to write to it; `None` if this cannot be, which is said.
    pub(super) fn open() -> Option<Self> {
        let nonblocking = libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(nonblocking).open("/dev/kmsg");
        let Some(file) = file.ok().filter(|file| (&*file).seek(SeekFrom::End(0)).is_ok()) else {
            println!("skipped: the kernel's log cannot be read");
            return None;
        };
        // Left on: other tests of this kind may run beside this one, and it is no harm.
        if fs::write(SWITCH, "1").is_err() {
            println!("skipped: namespaces cannot be made to log");
            return None;
        }
        Some(Self(file))
    }

    /// Lines since the last call that hold this word.
    pub(super) fn lines(&mut self, word: &str) -> Vec<String> {
        let (mut lines, mut record) = (Vec::new(), [0; 8192]);
        loop {
            match self.0.read(&mut record) {
                Ok(len) => {
                    let text = String::from_utf8_lossy(&record[..len]).into_owned();
                    let said = text.split_once(';').map_or("", |(_, said)| said);
                    let said = said.lines().next().unwrap_or_default().trim_end();
                    lines.extend(said.contains(word).then(|| said.to_owned()));
                }
                // Records that were written over before we came to them.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(_) => return lines,
            }
        }
    }
}

/// Our lines of what was noted.
pub(super) fn ours(notes: &mut NoteReader) -> Vec<String> {
    const NAMES: [&str; 2] = ["left", "right"];
    let name = |port: PortId| NAMES[port.index()];
    let (mut lines, mut bytes) = (Vec::new(), Vec::new());
    while let Some(note) = notes.read(&mut bytes) {
        let (prefix, style) = match note.why {
            Why::Rule { spec, .. } => match spec.to {
                LogTo::Line(style) => (spec.prefix.to_string(), style),
                LogTo::Capture { .. } => continue,
            },
            Why::Step { chain, kind, number } => (trace_prefix(&chain, kind, number), TRACE_STYLE),
            Why::Invalid { .. } => continue,
        };
        let (ingress, egress) = (name(note.ingress), note.egress.map_or("", name));
        let around = Around { prefix: &prefix, ingress, egress, mark: note.mark };
        lines.push(line(&around, style, &bytes, usize::from(note.l3_offset)));
    }
    lines
}

pub(super) fn packets(family: Family) -> Vec<Builder> {
    let (client, server): (IpAddr, IpAddr) = match family {
        Family::V4 => (CLIENT.into(), SERVER.into()),
        Family::V6 => (CLIENT6.into(), SERVER6.into()),
    };
    let offender = udp(server, client).ports(9, 10).payload(&[1; 20]).build();
    let syn = tcp(client, server).ports(1, 2).numbers(77, 0).syn();
    let mut all = vec![
        udp(client, server).ports(5, 6).payload(b"hello"),
        udplite(client, server).ports(5, 6).payload(b"hello"),
        syn.clone(),
        syn.clone().tcp_options(&SYN_OPTIONS),
        tcp(client, server).ports(1, 3).numbers(1, 2).flags(0xff).payload(&[1; 9]),
        ping(client, server, 9).payload(&[1; 8]),
        ip(client, server, 99).payload(&[1; 9]),
        ip(client, server, 47).payload(&[0, 0, 8, 0, 1]),
        ip(client, server, 50).payload(&[0, 0, 1, 2, 3, 4, 5, 6]),
        ip(client, server, 51).payload(&[
            17, 4, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 6, 0, 8, 0, 0,
        ]),
        ip(client, server, 132).payload(&[0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]),
        ip(client, server, 6).payload(&[0, 1, 0, 2]),
        ip(client, server, 17).payload(&[0, 1]),
    ];
    match family {
        Family::V4 => {
            all.extend([0, 3, 4, 5, 11, 12].map(|ty| icmp_error(client, server, ty, 1, &offender, 28)));
            all.extend([13, 14, 17, 18, 9].map(|ty| icmp(client, server, ty, 0).payload(&[3; 12])));
            all.push(syn.clone().ip_options(&[1, 1, 1, 0]));
            all.push(udp(client, server).ports(1, 2).payload(&[5; 32]).fragment(0, true));
            all.push(ip(client, server, 17).payload(&[5; 32]).fragment(64, false));
        }
        Family::V6 => {
            all.extend([1, 2, 3, 4].map(|ty| icmp_error(client, server, ty, 0, &offender, 48)));
            all.extend([129, 144].map(|ty| icmp(client, server, ty, 0).payload(&[3; 12])));
            all.push(syn.clone().extension(60, &[1, 4, 0, 0, 0, 0]));
            all.push(udp(client, server).ports(1, 2).payload(&[5; 32]).fragment(0, true));
            all.push(ip(client, server, 17).payload(&[5; 32]).fragment(64, false));
        }
    }
    all
}

/// Rules of every hook and option; the word in their prefix tells this run's lines from others'.
fn rules(word: &str) -> Vec<String> {
    let options = [
        "",
        "--log-tcp-sequence",
        "--log-tcp-options --log-uid",
        "--log-ip-options",
        "--log-macdecode --log-level debug",
        "--log-tcp-sequence --log-tcp-options --log-ip-options",
    ];
    let in_forward = options
        .iter()
        .map(|options| format!("*filter\n-A FORWARD -j LOG --log-prefix \"{word} \" {options}\nCOMMIT\n"));
    let elsewhere = [
        format!("*raw\n-A PREROUTING -j LOG --log-prefix {word}\nCOMMIT\n*filter\nCOMMIT\n"),
        format!(
            "*mangle\n-A PREROUTING -j MARK --set-mark 0x1f\n-A PREROUTING -j LOG --log-prefix \"{word}: \"\n-A POSTROUTING -j LOG --log-prefix \"{word} out\"\nCOMMIT\n*filter\nCOMMIT\n"
        ),
        format!(
            "*mangle\n-A FORWARD -j LOG --log-prefix {word}1\n-A FORWARD -j TOS --set-tos 0xff\n-A FORWARD -j LOG --log-prefix {word}2\nCOMMIT\n*filter\nCOMMIT\n"
        ),
    ];
    in_forward.chain(elsewhere).collect()
}

#[test]
fn lines_are_those_that_the_kernel_writes() {
    if !super::may_run() {
        return;
    }
    let Some(mut log) = KernelLog::open() else { return };
    let word = format!("plsd{}", std::process::id());
    let mut kernel = Kernel::new(Topology::Router);
    let (mut failures, mut count) = (Vec::new(), 0);
    for (family, text) in [Family::V4, Family::V6]
        .into_iter()
        .flat_map(|family| rules(&word).into_iter().map(move |text| (family, text)))
    {
        kernel.load_bare(&[(family, &text)]);
        let rules = || {
            let loaded = understand(text.as_bytes(), "rule", family, &[]);
            vec![loaded.ruleset.unwrap_or_else(|| panic!("{text}: {:?}", loaded.diagnostics))]
        };
        let config = GatewayConfig { track_always: false, ..GatewayConfig::default() };
        let mut gateway = Ours::new(rules, &config);
        let _ = kernel.collect_bare();
        let _ = log.lines(&word);
        // A router has counted hops by the time of FORWARD.
        let hops = if text.contains("PREROUTING") { 0 } else { 1 };
        for packet in packets(family) {
            let frame = packet.clone().ttl(65).build();
            kernel.send(LEFT.index(), &frame);
            let _ = gateway.send(LEFT, &kernel.addressed(LEFT.index(), &packet.ttl(65 - hops).build()));
            let _ = kernel.collect_bare();
            let is_ours = |line: &String| !line.contains("203.0.113.");
            // In POSTROUTING a router has counted hops, behind its PREROUTING too.
            let uniform = |line: String| match line.contains(" out") {
                true => line.replace("TTL=64", "TTL=65").replace("HOPLIMIT=64", "HOPLIMIT=65"),
                false => line,
            };
            let theirs: Vec<_> = log.lines(&word).into_iter().filter(is_ours).map(uniform).collect();
            let own: Vec<_> = gateway.log().into_iter().map(uniform).collect();
            count += theirs.len();
            if theirs != own {
                failures.push(format!("{text}  kernel {theirs:#?}\n  we     {own:#?}"));
            }
        }
    }
    println!("{count} lines, {} disagreements", failures.len());
    let shown: Vec<_> = failures.iter().take(12).cloned().collect();
    assert!(failures.is_empty() && count > 0, "{} disagreements\n{}", failures.len(), shown.join("\n"));
}
