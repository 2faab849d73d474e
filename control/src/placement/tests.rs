use super::*;
use crate::config::Cores;
use dataplane::ids::PortId;
use dataplane::worker::deal_lanes;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Files of a made-up machine.
fn machine_of(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

/// Two sockets of four physical cores with two hyper-threads each: 0-3 and 8-11 here, 4-7 and 12-15 there. `eth0` and
/// `eth1` are on the second one; `mgmt` interrupts core 7.
fn two_sockets() -> Vec<(String, String)> {
    let mut files = vec![
        ("sys/devices/system/cpu/online".to_owned(), "0-15".to_owned()),
        ("sys/devices/system/node/node0/cpulist".to_owned(), "0-3,8-11\n".to_owned()),
        ("sys/devices/system/node/node1/cpulist".to_owned(), "4-7,12-15\n".to_owned()),
        ("sys/class/net/mgmt/device/msi_irqs/99".to_owned(), "msix".to_owned()),
        ("proc/irq/99/effective_affinity_list".to_owned(), "7".to_owned()),
    ];
    for cpu in 0..16 {
        let path = format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        files.push((path, format!("{},{}", cpu % 8, cpu % 8 + 8)));
    }
    for (nic, name) in ["eth0", "eth1"].iter().enumerate() {
        let dir = format!("sys/class/net/{name}");
        files.push((format!("{dir}/ifindex"), (nic + 2).to_string()));
        files.push((format!("{dir}/device/numa_node"), "1\n".to_owned()));
        for queue in 0..4 {
            let irq = 100 + 10 * nic + queue;
            files.push((format!("{dir}/device/msi_irqs/{irq}"), "msix".to_owned()));
            files.push((format!("proc/irq/{irq}/smp_affinity_list"), "0-15\n".to_owned()));
            files.push((format!("proc/irq/{irq}/{name}-TxRx-{queue}/x"), String::new()));
        }
    }
    files
}

fn made(files: &[(String, String)]) -> tempfile::TempDir {
    machine_of(&files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect::<Vec<_>>())
}

fn read(root: &Path, allowed: impl IntoIterator<Item = u16>) -> Machine {
    let allowed: Vec<u16> = allowed.into_iter().collect();
    Machine::read(root, &allowed, |_| true, &[("eth0".to_owned(), 2), ("eth1".to_owned(), 3)])
}

fn lanes(queues: u32) -> impl Fn(usize) -> Vec<Vec<(PortId, u32)>> {
    move |workers| deal_lanes(&[queues, queues], workers)
}

fn cores(placement: &Placement) -> Vec<u16> {
    placement.workers.iter().map(|placed| placed.core).collect()
}

#[test]
fn workers_get_physical_cores_on_the_nics_socket_away_from_other_interrupts() {
    let root = made(&two_sockets());
    let machine = read(root.path(), 0..16);
    let placement = choose(&machine, &Cores::Auto, 4, lanes(4)).unwrap();
    // 7 takes interrupts of another NIC, but its sibling 15 does not.
    assert_eq!(cores(&placement), [12, 13, 14, 15]);
    assert_eq!(placement.warnings, []);
    for placed in &placement.workers {
        assert!(placed.why.contains("NUMA node 1") && placed.why.contains("physical core"), "{}", placed.why);
    }
}

#[test]
fn more_workers_than_the_socket_has_go_to_the_other_one_before_they_share_a_core() {
    let root = made(&two_sockets());
    let machine = read(root.path(), 0..16);
    let placement = choose(&machine, &Cores::Count(6), 4, lanes(4)).unwrap();
    let chosen = cores(&placement);
    assert_eq!(chosen.iter().map(|core| core % 8).collect::<BTreeSet<_>>().len(), 6, "{chosen:?}");
    assert!(!chosen.contains(&0) && !chosen.contains(&8), "the system's core stays free: {chosen:?}");
    assert_eq!(placement.warnings.iter().filter(|warning| warning.what.contains("NUMA node 1")).count(), 2);
    let all = choose(&machine, &Cores::Count(9), 4, lanes(4)).unwrap();
    assert!(
        all.warnings.iter().any(|warning| warning.what.contains("share one physical core")),
        "{:?}",
        all.warnings
    );
}

#[test]
fn as_many_workers_as_queues_but_one_core_stays_free() {
    let root = made(&two_sockets());
    let few = read(root.path(), [1, 2, 9]);
    let chosen = choose(&few, &Cores::Auto, 4, lanes(4)).unwrap();
    assert_eq!(chosen.workers.len(), 1, "two physical cores, one for the system");
    let one = read(root.path(), [3]);
    assert_eq!(cores(&choose(&one, &Cores::Auto, 4, lanes(4)).unwrap()), [3]);
}

#[test]
fn a_cpuset_and_cores_that_are_offline_are_respected() {
    let mut files = two_sockets();
    files[0].1 = "0-5,8-13".to_owned();
    let root = made(&files);
    let machine = read(root.path(), [4, 5, 6, 12, 13]);
    assert_eq!(machine.cpus.iter().map(|cpu| cpu.id).collect::<Vec<_>>(), [4, 5, 12, 13]);
    assert_eq!(cores(&choose(&machine, &Cores::Count(2), 4, lanes(4)).unwrap()), [12, 13]);
    assert_eq!(
        choose(&machine, &Cores::List(vec![6]), 4, lanes(4)),
        Err(PlacementError::NoSuchCore { core: 6, have: vec![4, 5, 12, 13] })
    );
    assert_eq!(
        choose(&machine, &Cores::Count(5), 4, lanes(4)),
        Err(PlacementError::TooFew { wanted: 5, have: 4 })
    );
}

#[test]
fn isolated_cores_come_first_even_if_the_process_was_not_given_them() {
    let mut files = two_sockets();
    files.push(("sys/devices/system/cpu/isolated".to_owned(), "2-3,10-11\n".to_owned()));
    let root = made(&files);
    let given = || (0..16).filter(|core| ![2, 3, 10, 11].contains(core));
    let machine = read(root.path(), given());
    let placement = choose(&machine, &Cores::Count(2), 4, lanes(4)).unwrap();
    assert_eq!(cores(&placement), [10, 11], "isolation outweighs the node");
    assert!(placement.workers[0].why.contains("isolated"), "{}", placement.workers[0].why);
    let elsewhere = choose(&machine, &Cores::List(vec![12]), 4, lanes(4)).unwrap();
    assert!(
        elsewhere.warnings.iter().any(|warning| warning.what.contains("[2, 3, 10, 11]")),
        "{:?}",
        elsewhere.warnings
    );
    // Who was told to stay on two cores stays there.
    let told = read(root.path(), [4, 5]);
    assert_eq!(cores(&choose(&told, &Cores::Count(2), 4, lanes(4)).unwrap()), [4, 5]);
}

#[test]
fn a_configured_core_with_other_interrupts_or_a_sibling_is_warned_about() {
    let root = made(&two_sockets());
    let machine = read(root.path(), 0..16);
    let placement = choose(&machine, &Cores::List(vec![7, 15, 1]), 4, lanes(4)).unwrap();
    assert_eq!(cores(&placement), [7, 15, 1], "as configured");
    let has = |words: &str| placement.warnings.iter().any(|warning| warning.to_string().contains(words));
    assert!(
        has("interrupts of mgmt")
            && has("hyper-threads 7 and 15")
            && has("worker 2 on core 1 is not on NUMA node 1")
    );
}

#[test]
fn a_container_that_shows_nothing_still_gets_cores() {
    let root = machine_of(&[]);
    let machine = read(root.path(), [0, 1, 2]);
    let placement = choose(&machine, &Cores::Auto, 8, lanes(8)).unwrap();
    assert_eq!(cores(&placement), [1, 2], "the first one is left to the system");
    assert_eq!(placement.warnings, []);
    let lanes = deal_lanes(&[8, 8], 2);
    assert_eq!(irqs::steer(root.path(), &machine, PortId(0), &lanes, &[1, 2]), [0; 0]);
}

#[test]
fn another_namespaces_nic_of_the_same_name_is_not_ours() {
    let root = made(&two_sockets());
    let named = [("eth0".to_owned(), 77), ("eth1".to_owned(), 3)];
    let machine = Machine::read(root.path(), &[0, 1], |_| true, &named);
    assert_eq!((machine.nics[0].node, machine.nics[0].irqs.len()), (None, 0));
    assert_eq!((machine.nics[1].node, machine.nics[1].irqs.len()), (Some(1), 4));
}

#[test]
fn interrupts_go_to_their_workers_and_back() {
    let root = made(&two_sockets());
    let machine = read(root.path(), 0..16);
    let before = irqs::Affinities::read(root.path(), &machine, PortId(1));
    assert_eq!(before.0.len(), 4);
    let at =
        |irq: u32| fs::read_to_string(root.path().join(format!("proc/irq/{irq}/smp_affinity_list"))).unwrap();
    assert_eq!(irqs::steer(root.path(), &machine, PortId(1), &lanes(4)(2), &[14, 15]), [0; 0]);
    assert_eq!([110, 111, 112, 113].map(at), ["14", "15", "14", "15"]);
    assert_eq!(at(100), "0-15\n", "not asked for");
    assert_eq!(before.restore(root.path(), &crate::net::held::Held::default()), [0; 0]);
    assert_eq!(at(113), "0-15");
    fs::remove_dir_all(root.path().join("proc/irq/112")).unwrap();
    assert_eq!(
        irqs::steer(root.path(), &machine, PortId(1), &lanes(4)(2), &[14, 15]),
        [112],
        "what would not go"
    );
}
