//! Describes the machine we run on. What cannot be read is left out: no file missing from `/proc` or `/sys` is an error.

use super::machine::{Daemon, Host, Machine, Nic, Program, Wire};
use crate::config::Config;
use crate::net;
use crate::system::{capabilities, cores};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const CPUS: &str = "/sys/devices/system/cpu";
const HUGEPAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// Looks at everything. `wires` are pairs of interface names with what the pair is called.
#[must_use]
pub fn gather(config: Config, daemon: Option<Daemon>, wires: &[(String, [String; 2])]) -> Machine {
    let left_behind = net::left_behind(&config.net.journal_dir);
    let wires = wires
        .iter()
        .map(|(name, nics)| Wire { name: name.clone(), nics: nics.each_ref().map(|name| nic(name)) });
    Machine { wires: wires.collect(), daemon, left_behind, host: host(), config }
}

fn nic(name: &str) -> Nic {
    let nothing = |trouble: String| Nic { name: name.to_owned(), trouble: Some(trouble), ..Nic::default() };
    let found = match net::Nic::find(name) {
        Ok(found) => found,
        Err(error) => return nothing(error.to_string()),
    };
    let link = match found.link() {
        Ok(link) => link,
        Err(error) => return nothing(format!("{name}: {error}")),
    };
    let (programs, features) = bpf::inspect(found.ifindex).unwrap_or_default();
    Nic {
        name: name.to_owned(),
        trouble: None,
        ifindex: found.ifindex,
        driver: found.driver().unwrap_or_else(|| "unknown".to_owned()),
        mtu: link.mtu,
        up: found.is_set_up(),
        carrier: link.up,
        addresses: u32::try_from(found.addresses()).unwrap_or(u32::MAX),
        offloads: found.offloads().0,
        queues: found.queues(),
        rss: found.rss(),
        programs: programs.iter().map(program).collect(),
        native: features.native,
        zero_copy: features.zero_copy,
        multi_buffer: features.multi_buffer,
        node: node_of(name, found.ifindex),
    }
}

fn program(occupant: &bpf::Occupant) -> Program {
    Program {
        id: occupant.program_id,
        words: occupant.to_string(),
        ours: occupant.program == bpf::PROGRAM_NAME,
        held_by: occupant.holder.as_ref().map(|holder| holder.pid),
        stays: occupant.link_id.is_none(),
    }
}

/// `/sys` may show the NICs of another namespace: only what has our number is ours.
fn node_of(name: &str, ifindex: u32) -> Option<u32> {
    let dir = Path::new("/sys/class/net").join(name);
    let ours = number(&dir.join("ifindex")) == Some(i64::from(ifindex));
    // -1: the device is near all nodes, or there is only one.
    number(&dir.join("device/numa_node")).filter(|_| ours).and_then(|node| u32::try_from(node).ok())
}

fn host() -> Host {
    let release = word("/proc/sys/kernel/osrelease");
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    let cores = cores::allowed();
    let per_core = |file: &str| {
        let read = |core: &u16| {
            Some((*core, word(format!("{CPUS}/cpu{core}/{file}")))).filter(|(_, text)| !text.is_empty())
        };
        cores.iter().filter_map(read).collect::<BTreeMap<u16, String>>()
    };
    let mut siblings: Vec<Vec<u16>> =
        per_core("topology/thread_siblings_list").values().map(|list| core_list(list)).collect();
    siblings.retain(|group| group.len() > 1);
    siblings.sort();
    siblings.dedup();
    Host {
        kernel: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)),
        clocksource: word("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        jit: number(Path::new("/proc/sys/net/core/bpf_jit_enable")).map(|value| value != 0),
        governors: per_core("cpufreq/scaling_governor"),
        irqbalance: process_named("irqbalance"),
        hugepages_free: pages("free_hugepages"),
        hugepages: pages("nr_hugepages"),
        memlock: capabilities::lock_limit(),
        missing_rights: capabilities::missing(),
        isolated: core_list(&word(format!("{CPUS}/isolated"))),
        siblings,
        nodes: nodes(&cores),
        cores,
    }
}

fn nodes(cores: &[u16]) -> BTreeMap<u16, u32> {
    let Ok(entries) = fs::read_dir("/sys/devices/system/node") else { return BTreeMap::new() };
    let node = |entry: fs::DirEntry| {
        let node: u32 = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
        Some((node, core_list(&word(entry.path().join("cpulist")))))
    };
    let all = entries.flatten().filter_map(node);
    all.flat_map(|(node, of_node)| of_node.into_iter().map(move |core| (core, node)))
        .filter(|(core, _)| cores.contains(core))
        .collect()
}

fn pages(file: &str) -> u64 {
    number(&Path::new(HUGEPAGES).join(file)).and_then(|pages| u64::try_from(pages).ok()).unwrap_or(0)
}

fn process_named(name: &str) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pid = |entry: &fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    processes
        .filter_map(|entry| Some((pid(&entry)?, word(entry.path().join("comm")))))
        .find(|(_, comm)| comm == name)
        .map(|(pid, _)| pid)
}

/// A file's text without space around it; empty if there is none.
fn word(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn number(path: &Path) -> Option<i64> {
    word(path).parse().ok()
}

/// Cores from the kernel's way of listing them, `0-3,8`.
fn core_list(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<u16>().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read_as_the_kernel_writes_them() {
        assert_eq!(core_list("0-2,8,10-11\n"), [0, 1, 2, 8, 10, 11]);
        assert_eq!(core_list(""), [0_u16; 0]);
    }

    #[test]
    fn this_machine_has_a_kernel_and_cores() {
        let host = host();
        assert!(host.kernel > (4, 0), "{host:?}");
        assert!(!host.cores.is_empty());
    }
}
