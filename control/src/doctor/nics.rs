//! Checks of NICs and of the wires they make.

use super::{Finding, Fix, Machine, Nic, Severity};
use crate::config::{Auto, Offloads};
use crate::net::frame_fits;

/// Frames of 4 KiB are the largest there are.
const FRAME_SIZE_MAX: u32 = 4096;

/// The NICs are there and may be asked.
pub(super) fn present(machine: &Machine) -> Vec<Finding> {
    let nics = machine.wires.iter().flat_map(|wire| &wire.nics);
    let missing = nics.filter_map(|nic| Some((nic, nic.trouble.as_ref()?)));
    let mut findings: Vec<Finding> = missing
        .map(|(nic, trouble)| {
            Finding::new("nic", &nic.name, Severity::Fault)
                .what(trouble)
                .leads_to("the gateway cannot start on it")
                .mended_by("ip link show")
        })
        .collect();
    if machine.wires.is_empty() {
        findings.push(
            Finding::new("nic", "machine", Severity::Note)
                .what("no daemon runs and no NICs were named")
                .leads_to("only the machine itself was looked at")
                .mended_by("fwctl doctor --config FILE, or fwctl doctor --left IF --right IF"),
        );
    }
    findings
}

/// Cables are in.
pub(super) fn link(machine: &Machine) -> Vec<Finding> {
    let dark = |nic: &&Nic| nic.up && !nic.carrier;
    let say = |nic: &Nic| {
        Finding::new("link", &nic.name, Severity::Warning)
            .what("there is no carrier: the cable is out, or the far end is down")
            .leads_to("its wire carries nothing")
            .mended_by(format!("ethtool {}", nic.name))
    };
    // A NIC that is down is set up by the daemon.
    machine.nics().filter(dark).map(say).collect()
}

/// Nobody's program is in the way, and none of ours was left.
pub(super) fn programs(machine: &Machine) -> Vec<Finding> {
    let daemon = machine.daemon.as_ref().map(|daemon| daemon.pid);
    let mut findings = Vec::new();
    for nic in machine.nics() {
        let running = |program: &&super::Program| program.held_by.is_none() || program.held_by != daemon;
        for program in nic.programs.iter().filter(running) {
            let finding = Finding::new("program", &nic.name, Severity::Fault).what(&program.words);
            let off = format!("ip link set dev {} xdp off", nic.name);
            findings.push(if program.ours && program.stays {
                finding
                    .leads_to("left behind by a dead process: it takes frames that nobody reads")
                    .mended_by(off)
                    .fixed_by(Some(Fix::TakeOff { ifindex: nic.ifindex, program: program.id }))
            } else if program.stays {
                finding.leads_to("the gateway does not take a NIC from somebody else").mended_by(off)
            } else {
                let stop = program.held_by.map_or_else(
                    || "bpftool net show; bpftool link show".to_owned(),
                    |pid| format!("stop process {pid}: its end takes the program off"),
                );
                finding.leads_to("the gateway does not take a NIC from somebody else").mended_by(stop)
            });
        }
    }
    findings
}

/// What dead daemons changed was put back.
pub(super) fn left_behind(machine: &Machine) -> Vec<Finding> {
    if machine.daemon.is_some() {
        // Those are its own notes.
        return Vec::new();
    }
    let say = |nic: &String| {
        Finding::new("journal", nic, Severity::Warning)
            .what("a daemon that died has not put this NIC back")
            .leads_to("its offloads stay off until the gateway has run and ended, or they are put back")
            .mended_by("fwctl doctor --fix")
            .fixed_by(Some(Fix::PutBack { nic: nic.clone() }))
    };
    machine.left_behind.iter().map(say).collect()
}

/// The driver runs XDP programs.
pub(super) fn driver(machine: &Machine) -> Vec<Finding> {
    let say = |nic: &Nic| {
        Finding::new("driver", &nic.name, Severity::Warning)
            .what(format!("the driver {} has no native XDP", nic.driver))
            .leads_to("packets take the generic hook: several times slower, and every packet is copied")
            .mended_by("use a NIC with native XDP (mlx5, ice, i40e, ixgbe, virtio_net, ena, veth)")
    };
    machine.nics().filter(|nic| !nic.native).map(say).collect()
}

/// Zero-copy was got where it can be had.
pub(super) fn zero_copy(machine: &Machine) -> Vec<Finding> {
    let got = |nic: &Nic| {
        let ports = machine.daemon.iter().flat_map(|daemon| &daemon.stats.ports);
        ports.into_iter().find(|port| port.name == nic.name).map(|port| port.zero_copy)
    };
    let wanted = machine.config.xdp.zero_copy;
    let mut findings = Vec::new();
    for nic in machine.nics() {
        let finding = |severity| Finding::new("zero-copy", &nic.name, severity);
        let slower = "every packet is copied by the kernel on its way in and out";
        if nic.zero_copy && got(nic) == Some(false) {
            findings.push(
                finding(Severity::Warning)
                    .what("the driver can do zero-copy, but the sockets run in copy mode")
                    .leads_to(slower)
                    .mended_by("set xdp.zero_copy = \"on\" and restart: fwd then says why not (all NICs share one memory, so \
                                one without zero-copy takes it from all)"),
            );
        } else if !nic.zero_copy && wanted == Auto::On {
            findings.push(
                finding(Severity::Fault)
                    .what(format!("xdp.zero_copy is \"on\", but the driver {} cannot", nic.driver))
                    .leads_to("the gateway does not start")
                    .mended_by("set xdp.zero_copy = \"auto\""),
            );
        } else if !nic.zero_copy {
            findings.push(
                finding(Severity::Note)
                    .what(format!("the driver {} has no zero-copy", nic.driver))
                    .leads_to(slower),
            );
        }
    }
    findings
}

/// Both NICs of a wire have the queues that are wanted, and as many as each other.
pub(super) fn queues(machine: &Machine) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (wire, left, right) in machine.whole_wires() {
        let configured = machine.config.wires.iter().find(|known| known.left == left.name);
        let wanted = configured.and_then(|known| known.queues).map(u32::from);
        for nic in [left, right] {
            if let Some(wanted) = wanted.filter(|wanted| *wanted != nic.queues) {
                findings.push(
                    Finding::new("queues", &nic.name, Severity::Fault)
                        .what(format!("it has {} queue(s), configured are {wanted}", nic.queues))
                        .leads_to(
                            "the gateway does not start: a queue without a socket would lose its frames",
                        )
                        .mended_by(format!("ethtool -L {} combined {wanted}", nic.name)),
                );
            }
        }
        if wanted.is_none() && left.queues != right.queues {
            let (more, fewer) = if left.queues > right.queues { (left, right) } else { (right, left) };
            findings.push(
                Finding::new("queues", &wire.name, Severity::Warning)
                    .what(format!(
                        "{} has {} queues, {} has {}",
                        more.name, more.queues, fewer.name, fewer.queues
                    ))
                    .leads_to("the two do not spread flows alike: packets are handed from worker to worker")
                    .mended_by(format!("ethtool -L {} combined {}", more.name, fewer.queues)),
            );
        }
    }
    findings
}

/// A packet that comes in on one NIC fits the other, and our frames.
pub(super) fn mtu(machine: &Machine) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (wire, left, right) in machine.whole_wires().filter(|(_, left, right)| left.mtu != right.mtu) {
        let (large, small) = if left.mtu > right.mtu { (left, right) } else { (right, left) };
        findings.push(
            Finding::new("mtu", &wire.name, Severity::Warning)
                .what(format!("{} has an MTU of {}, {} of {}", large.name, large.mtu, small.name, small.mtu))
                .leads_to(format!("packets above {} bytes from {} are dropped", small.mtu, large.name))
                .mended_by(format!("ip link set dev {} mtu {}", large.name, small.mtu))
                .fixed_by(Some(Fix::Mtu { nic: large.name.clone(), mtu: small.mtu })),
        );
    }
    let frame_size = machine.config.umem.frame_size_bytes.unwrap_or(FRAME_SIZE_MAX);
    for nic in machine.nics() {
        if let Err(error) = frame_fits(&nic.name, nic.mtu, frame_size, nic.multi_buffer) {
            findings.push(
                Finding::new("mtu", &nic.name, Severity::Fault)
                    .what(error.to_string())
                    .leads_to("the gateway does not start")
                    .mended_by(format!("ip link set dev {} mtu 3500", nic.name)),
            );
        }
    }
    findings
}

/// The tag is where we look for it.
pub(super) fn vlan_stripping(machine: &Machine) -> Vec<Finding> {
    let harm = "tags are taken out of frames: tagged packets are judged, and sent on, as untagged ones";
    offloads_on(machine, "vlan-stripping", &["rxvlan", "txvlan"], harm)
}

/// Frames arrive as they were sent.
pub(super) fn offloads(machine: &Machine) -> Vec<Finding> {
    let harm =
        "frames arrive merged, larger than a buffer, or without checksum, and are lost or forwarded broken";
    offloads_on(machine, "offloads", &["gro", "lro", "tso", "gso", "sg", "tx"], harm)
}

fn offloads_on(machine: &Machine, check: &'static str, names: &[&str], harm: &str) -> Vec<Finding> {
    let fixes = machine.config.net.offloads == Offloads::Fix;
    let mut findings = Vec::new();
    for nic in machine.nics() {
        let on: Vec<&str> =
            names.iter().copied().filter(|name| nic.offloads.get(*name) == Some(&true)).collect();
        if on.is_empty() || (fixes && machine.daemon.is_none()) {
            // Started, the daemon switches them off.
            continue;
        }
        let switches: String = on.iter().map(|name| format!(" {name} off")).collect();
        findings.push(
            Finding::new(check, &nic.name, Severity::Warning)
                .what(format!("{} on", are(&on)))
                .leads_to(harm)
                .mended_by(format!("ethtool -K {}{switches}", nic.name))
                .fixed_by(fixes.then(|| Fix::OffloadsOff { nic: nic.name.clone() })),
        );
    }
    findings
}

fn are(names: &[&str]) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

/// The far ends complete their checksums.
pub(super) fn checksums(machine: &Machine) -> Vec<Finding> {
    let bad = machine.daemon.as_ref().and_then(|daemon| daemon.stats.invalid.get("bad_checksum")).copied();
    let lazy = |nic: &&Nic| matches!(nic.driver.as_str(), "veth" | "virtio_net");
    let say = |nic: &Nic| {
        let finding = Finding::new("checksums", &nic.name, Severity::Note);
        let finding = match bad.filter(|count| *count > 0) {
            Some(count) => Finding { severity: Severity::Warning, ..finding }
                .what(format!("{count} packets with wrong checksums came, and {} may be why", nic.driver)),
            None => {
                finding.what(format!("a peer on {} may leave checksums to hardware there is not", nic.driver))
            }
        };
        finding
            .leads_to("such packets are INVALID here, and receivers drop them")
            .mended_by("on the far end, in its namespace or guest: ethtool -K IF tx off tso off")
    };
    machine.nics().filter(lazy).map(say).collect()
}

/// The host's own stack stays out of it.
pub(super) fn addresses(machine: &Machine) -> Vec<Finding> {
    let say = |nic: &Nic| {
        Finding::new("addresses", &nic.name, Severity::Warning)
            .what(format!("it has {} address(es)", nic.addresses))
            .leads_to("the host cannot be reached through it while the gateway runs, and answers for it when it does not")
            .mended_by(format!("ip addr flush dev {}", nic.name))
    };
    machine.nics().filter(|nic| nic.addresses > 0).map(say).collect()
}
