//! Machines made up: one where all is well, and that one with each thing wrong in turn.

use super::*;
use crate::api::types::{HandoffRow, PortStats, QueueStats, Stalled, Stats, Traffic, WorkerStats};
use crate::config::{Auto, Cores, Offloads};
use crate::net::Spreading;
use crate::placement::{self, Cpu, Irq, NicFacts};

fn good_nic(name: &str, ifindex: u32) -> Nic {
    let offloads = ["rx", "tx", "sg", "tso", "gso", "gro", "lro", "rxvlan", "txvlan"];
    Nic {
        name: name.to_owned(),
        ifindex,
        driver: "mlx5_core".to_owned(),
        mtu: 1500,
        up: true,
        carrier: true,
        offloads: offloads.iter().map(|offload| ((*offload).to_owned(), false)).collect(),
        queues: 2,
        rss: Some(Spreading {
            key: [0x6d, 0x5a].repeat(20),
            indirection: vec![0, 1, 0, 1],
            toeplitz: Some(true),
            fields: [Some(0xf0), Some(0xf0)],
        }),
        native: true,
        zero_copy: true,
        multi_buffer: true,
        ..Nic::default()
    }
}

/// Four hyper-threads of two physical cores, the last two of them isolated.
fn cpu(id: u16) -> Cpu {
    Cpu { id, node: Some(0), siblings: [id % 2, id % 2 + 2].into(), isolated: id >= 2, tickless: false }
}

/// A NIC whose interrupts come to the workers' cores.
fn nic_facts(name: &str, first_irq: u32) -> NicFacts {
    let irq =
        |queue: u32, core: u16| Irq { number: first_irq + queue, queue: Some(queue), cores: [core].into() };
    NicFacts { name: name.to_owned(), node: Some(0), irqs: vec![irq(0, 2), irq(1, 3)] }
}

/// Nothing to complain of, a gateway running.
fn good() -> Machine {
    let worker = |id: u8| WorkerStats {
        id,
        core: u32::from(id) + 2,
        rx: Traffic { packets: 5_000, bytes: 0 },
        ..WorkerStats::default()
    };
    let queue = |id: u8| QueueStats { queue: u32::from(id), worker: id, ..QueueStats::default() };
    let port = |name: &str| PortStats {
        name: name.to_owned(),
        zero_copy: true,
        queues: vec![queue(0), queue(1)],
        ..PortStats::default()
    };
    let stats = Stats {
        workers: vec![worker(0), worker(1)],
        ports: vec![port("eth1"), port("eth2")],
        ..Stats::default()
    };
    Machine {
        daemon: Some(Daemon { pid: 77, stats, page: None, runs_as: None }),
        host: Host {
            kernel: (6, 18),
            clocksource: "tsc".to_owned(),
            jit: Some(true),
            hugepages_free: 4096,
            hugepages: 4096,
            ..Host::default()
        },
        cores: placement::Machine {
            cpus: (0..4).map(cpu).collect(),
            nics: vec![nic_facts("eth1", 100), nic_facts("eth2", 110)],
            others: Vec::new(),
        },
        wires: vec![Wire { name: "wire0".to_owned(), nics: [good_nic("eth1", 5), good_nic("eth2", 6)] }],
        ..Machine::default()
    }
}

/// The same before the gateway is started.
fn stopped() -> Machine {
    let mut machine = Machine { daemon: None, ..good() };
    machine.config.workers.cores = Cores::List(vec![2, 3]);
    machine
}

/// What is found on a machine with one thing changed, and was not before.
fn found(mut machine: Machine, change: impl FnOnce(&mut Machine)) -> Vec<Finding> {
    let before = examine(&machine);
    change(&mut machine);
    examine(&machine).into_iter().filter(|finding| !before.contains(finding)).collect()
}

/// The only finding on a machine with one thing changed: check, subject, severity; it says what it leads to.
#[track_caller]
fn finds(
    machine: Machine,
    change: impl FnOnce(&mut Machine),
    check: &str,
    subject: &str,
    severity: Severity,
) -> Finding {
    let mut findings = found(machine, change);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let finding = findings.remove(0);
    assert_eq!((finding.check, finding.subject.as_str(), finding.severity), (check, subject, severity));
    assert!(!finding.what.is_empty() && !finding.consequence.is_empty(), "{finding:?}");
    finding
}

fn left(machine: &mut Machine) -> &mut Nic {
    &mut machine.wires[0].nics[0]
}

fn stats(machine: &mut Machine) -> &mut Stats {
    &mut machine.daemon.as_mut().unwrap().stats
}

#[test]
fn a_good_machine_has_no_findings_running_or_not() {
    assert_eq!(examine(&good()), []);
    // But for what only traffic can tell.
    let told = examine(&stopped());
    assert_eq!(told.iter().map(|finding| finding.check).collect::<Vec<_>>(), ["rss"]);
    assert!(told[0].severity == Severity::Note && told[0].what.contains("not tried"), "{told:?}");
}

#[test]
fn without_nics_only_the_machine_is_looked_at() {
    let finding = finds(stopped(), |machine| machine.wires.clear(), "nic", "machine", Severity::Note);
    assert!(finding.mend.contains("--config"));
}

#[test]
fn a_nic_that_is_not_there_is_said_and_nothing_else_of_it() {
    let gone = |machine: &mut Machine| {
        *left(machine) =
            Nic { name: "eth1".into(), trouble: Some("no such interface".into()), ..Nic::default() };
    };
    let _ = finds(stopped(), gone, "nic", "eth1", Severity::Fault);
}

#[test]
fn cables_drivers_and_addresses_are_looked_at() {
    let _ = finds(good(), |machine| left(machine).carrier = false, "link", "eth1", Severity::Warning);
    let _ = finds(good(), |machine| left(machine).addresses = 2, "addresses", "eth1", Severity::Warning);
    let _ = finds(stopped(), |machine| left(machine).native = false, "driver", "eth1", Severity::Warning);
    // The daemon sets up what is down.
    let down = |machine: &mut Machine| (left(machine).up, left(machine).carrier) = (false, false);
    assert_eq!(found(stopped(), down), []);
}

#[test]
fn programs_are_told_apart_by_whose_they_are() {
    let program = Program { id: 9, words: "XDP program `x`".into(), ours: true, held_by: None, stays: true };
    let with = |program: Program| move |machine: &mut Machine| left(machine).programs = vec![program];
    let stale = finds(good(), with(program.clone()), "program", "eth1", Severity::Fault);
    assert_eq!(stale.fix, Some(Fix::TakeOff { ifindex: 5, program: 9 }));
    let foreign = Program { ours: false, ..program.clone() };
    let foreign = finds(good(), with(foreign), "program", "eth1", Severity::Fault);
    assert_eq!((foreign.fix, foreign.mend.as_str()), (None, "ip link set dev eth1 xdp off"));
    let other = Program { held_by: Some(78), stays: false, ..program.clone() };
    let other = finds(good(), with(other), "program", "eth1", Severity::Fault);
    assert!(other.mend.contains("78") && other.fix.is_none(), "{other:?}");
    assert_eq!(found(good(), with(Program { held_by: Some(77), stays: false, ..program })), []);
}

#[test]
fn notes_of_a_dead_daemon_are_no_matter_while_one_runs() {
    let note = |machine: &mut Machine| machine.left_behind = vec!["eth1".to_owned()];
    let finding = finds(stopped(), note, "journal", "eth1", Severity::Warning);
    assert_eq!(finding.fix, Some(Fix::PutBack { nic: "eth1".to_owned() }));
    assert_eq!(found(good(), note), []);
}

#[test]
fn copy_mode_is_as_bad_as_what_was_wanted() {
    let copies = |machine: &mut Machine| stats(machine).ports[0].zero_copy = false;
    let _ = finds(good(), copies, "zero-copy", "eth1", Severity::Warning);
    let cannot = |machine: &mut Machine| left(machine).zero_copy = false;
    let _ = finds(stopped(), cannot, "zero-copy", "eth1", Severity::Note);
    let must = |machine: &mut Machine| {
        cannot(machine);
        machine.config.xdp.zero_copy = Auto::On;
    };
    let _ = finds(stopped(), must, "zero-copy", "eth1", Severity::Fault);
}

#[test]
fn queues_are_equal_and_as_configured() {
    let fewer = |machine: &mut Machine| {
        left(machine).queues = 1;
    };
    let finding = finds(good(), fewer, "queues", "wire0", Severity::Warning);
    assert_eq!(finding.mend, "ethtool -L eth2 combined 1");
    let wanted = |machine: &mut Machine| {
        fewer(machine);
        machine.config.wires = vec![crate::config::WireConfig {
            left: "eth1".into(),
            right: "eth2".into(),
            queues: Some(2),
            ..crate::config::WireConfig::default()
        }];
    };
    let finding = finds(stopped(), wanted, "queues", "eth1", Severity::Fault);
    assert_eq!(finding.mend, "ethtool -L eth1 combined 2");
}

#[test]
fn rss_that_treats_directions_differently_is_found_in_what_the_driver_says() {
    let rss =
        |change: fn(&mut Spreading)| move |machine: &mut Machine| change(left(machine).rss.as_mut().unwrap());
    for (change, word) in [
        (rss(|rss| rss.key[3] ^= 1), "key"),
        (rss(|rss| rss.toeplitz = Some(false)), "Toeplitz"),
        (rss(|rss| rss.fields[1] = Some(0x30)), "UDP"),
        (rss(|rss| rss.indirection = vec![0; 4]), "1 of its 2 queues"),
    ] {
        let finding = finds(good(), change, "rss", "eth1", Severity::Warning);
        assert!(finding.what.contains(word), "{finding:?}");
    }
    let other_key = rss(|rss| rss.key = [1, 2].repeat(20));
    assert!(finds(good(), other_key, "rss", "wire0", Severity::Warning).what.contains("different keys"));
    let silent = |machine: &mut Machine| left(machine).rss = None;
    let _ = finds(good(), silent, "rss", "eth1", Severity::Warning);
    // With one queue there is nothing to spread.
    let one_queue = |machine: &mut Machine| {
        machine.wires[0].nics.iter_mut().for_each(|nic| (nic.queues, nic.rss) = (1, None));
    };
    assert_eq!(found(good(), one_queue), []);
}

#[test]
fn rss_is_judged_by_what_workers_hand_over_too() {
    let handed = |of_thousand: u64| {
        move |machine: &mut Machine| {
            let row = |cause: &str, out| HandoffRow { cause: cause.to_owned(), out, taken: 0 };
            // Fragments and the like go to other workers however packets are spread.
            stats(machine).workers[0].handoffs =
                vec![row("misdirected", 10 * of_thousand), row("fragment", 9_000)];
        }
    };
    let finding = finds(good(), handed(500), "rss", "machine", Severity::Warning);
    assert!(finding.what.contains("50 %"), "{finding:?}");
    assert_eq!(found(good(), handed(10)), []);
}

#[test]
fn mtus_are_equal_and_fit_a_frame() {
    let finding = finds(good(), |machine| left(machine).mtu = 1600, "mtu", "wire0", Severity::Warning);
    assert_eq!(finding.mend, "ip link set dev eth1 mtu 1500");
    assert_eq!(finding.fix, Some(Fix::Mtu { nic: "eth1".to_owned(), mtu: 1500 }));
    let jumbo = |machine: &mut Machine| {
        for nic in &mut machine.wires[0].nics {
            (nic.mtu, nic.multi_buffer) = (9000, false);
        }
    };
    let findings = found(stopped(), jumbo);
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(findings.iter().all(|finding| finding.check == "mtu" && finding.severity == Severity::Fault));
}

#[test]
fn offloads_matter_while_the_gateway_runs_or_when_it_is_to_leave_them() {
    let on = |machine: &mut Machine| {
        for name in ["tso", "gro"] {
            left(machine).offloads.insert(name.to_owned(), true);
        }
    };
    let finding = finds(good(), on, "offloads", "eth1", Severity::Warning);
    assert_eq!(finding.mend, "ethtool -K eth1 gro off tso off");
    assert_eq!(finding.fix, Some(Fix::OffloadsOff { nic: "eth1".to_owned() }));
    assert_eq!(found(stopped(), on), []);
    let leave = |machine: &mut Machine| {
        on(machine);
        machine.config.net.offloads = Offloads::Leave;
    };
    assert_eq!(finds(stopped(), leave, "offloads", "eth1", Severity::Warning).fix, None);
    let stripping = |machine: &mut Machine| {
        left(machine).offloads.insert("rxvlan".to_owned(), true);
    };
    let finding = finds(good(), stripping, "vlan-stripping", "eth1", Severity::Warning);
    assert!(finding.what.contains("rxvlan is on"), "{finding:?}");
}

#[test]
fn peers_without_hardware_are_suspected_of_wrong_checksums_and_more_so_where_there_are_some() {
    let veth = |machine: &mut Machine| left(machine).driver = "veth".to_owned();
    let _ = finds(good(), veth, "checksums", "eth1", Severity::Note);
    let wrong = |machine: &mut Machine| {
        veth(machine);
        stats(machine).invalid.insert("bad_checksum".to_owned(), 12);
    };
    assert!(finds(good(), wrong, "checksums", "eth1", Severity::Warning).what.starts_with("12 packets"));
}

#[test]
fn a_worker_that_does_not_poll_comes_first() {
    let stall = |machine: &mut Machine| {
        left(machine).mtu = 1600;
        let stalled =
            Stalled { ms: 4200, why: "its thread is stopped".into(), advice: "let it go on".into() };
        stats(machine).workers[1].stalled = Some(stalled);
    };
    let findings = found(good(), stall);
    assert_eq!((findings.len(), findings[0].check, findings[0].subject.as_str()), (2, "worker", "worker 1"));
    assert_eq!(findings[0].mend, "let it go on");
}

#[test]
fn rights_and_memory_matter_before_the_start() {
    let rights = |machine: &mut Machine| machine.host.missing_rights = Some("missing CAP_BPF".into());
    let _ = finds(stopped(), rights, "rights", "machine", Severity::Fault);
    assert_eq!(found(good(), rights), []);
    let page = |addr: &str| {
        let addr = addr.parse().unwrap();
        move |machine: &mut Machine| machine.daemon.as_mut().unwrap().page = Some(addr)
    };
    assert_eq!(found(good(), page("127.0.0.1:8080")), []);
    assert_eq!(found(good(), page("[::1]:8080")), []);
    let open = finds(good(), page("0.0.0.0:8080"), "web", "machine", Severity::Warning);
    assert!(open.mend.contains("127.0.0.1:8080"), "{open:?}");
    let limit = |machine: &mut Machine| machine.host.memlock = Some(65_536);
    let _ = finds(stopped(), limit, "memlock", "machine", Severity::Fault);
    let pages = |machine: &mut Machine| (machine.host.hugepages, machine.host.hugepages_free) = (3, 1);
    let finding = finds(stopped(), pages, "hugepages", "machine", Severity::Note);
    let asked: u64 = finding.mend.strip_prefix("sysctl vm.nr_hugepages=").unwrap().parse().unwrap();
    let pages_used = 2;
    let ring = u64::from(stopped().config.umem.ring_size_descs);
    assert_eq!(asked, pages_used + (4 * (4 * ring + 64) * 2048).div_ceil(2 << 20));
    let must = |machine: &mut Machine| {
        pages(machine);
        machine.config.umem.hugepages = Auto::On;
    };
    let _ = finds(stopped(), must, "hugepages", "machine", Severity::Fault);
}

#[test]
fn the_kernel_is_new_enough_and_translates() {
    let old = |machine: &mut Machine| machine.host.kernel = (5, 10);
    let _ = finds(good(), old, "kernel", "machine", Severity::Fault);
    let no_jit = |machine: &mut Machine| machine.host.jit = Some(false);
    let _ = finds(good(), no_jit, "kernel", "machine", Severity::Warning);
    // What only matters in copy mode is not said where nothing is copied.
    assert_eq!(found(good(), |machine| machine.host.kernel = (6, 1)), []);
}

#[test]
fn clocks_governors_and_irqbalance_are_looked_at() {
    let hpet = |machine: &mut Machine| machine.host.clocksource = "hpet".to_owned();
    let _ = finds(good(), hpet, "clocksource", "machine", Severity::Warning);
    let governor = |core| {
        move |machine: &mut Machine| {
            machine.host.governors.insert(core, "powersave".to_owned());
        }
    };
    let _ = finds(good(), governor(2), "governor", "machine", Severity::Warning);
    assert_eq!(found(good(), governor(0)), []);
    let irqbalance = |machine: &mut Machine| machine.host.irqbalance = Some(12);
    assert!(finds(good(), irqbalance, "irqbalance", "machine", Severity::Warning).what.contains("12"));
}

#[test]
fn workers_have_cores_of_their_own_near_their_nics() {
    let shared = |machine: &mut Machine| machine.cores.cpus.iter_mut().for_each(|cpu| cpu.isolated = false);
    assert!(finds(good(), shared, "isolation", "machine", Severity::Note).mend.contains("isolcpus=2,3"));
    let siblings = |machine: &mut Machine| machine.cores.cpus[2].siblings = [2, 3].into();
    let finding = finds(stopped(), siblings, "placement", "machine", Severity::Warning);
    assert!(finding.what.contains("hyper-threads 2 and 3"), "{finding:?}");
    let far = |machine: &mut Machine| machine.cores.cpus[3].node = Some(1);
    assert!(finds(good(), far, "placement", "machine", Severity::Warning).what.contains("NUMA node 0"));
    let one_core = |machine: &mut Machine| machine.cores.cpus.truncate(1);
    let _ = finds(good(), one_core, "isolation", "machine", Severity::Warning);
    let too_many = |machine: &mut Machine| machine.config.workers.cores = Cores::Count(5);
    let _ = finds(stopped(), too_many, "placement", "machine", Severity::Fault);
}

#[test]
fn interrupts_come_to_their_workers() {
    let elsewhere = |machine: &mut Machine| machine.cores.nics[1].irqs[1].cores = [0, 1].into();
    let finding = finds(good(), elsewhere, "interrupts", "eth2", Severity::Note);
    assert!(finding.mend.contains("echo 3 > /proc/irq/111/smp_affinity_list"), "{finding:?}");
    // The daemon steers them when it starts.
    assert_eq!(found(stopped(), elsewhere), []);
}
