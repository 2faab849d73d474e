//! Describes the machine we run on. What cannot be read is left out: no file missing from `/proc` or `/sys` is an error.

use super::machine::{Daemon, Host, Machine, Nic, Program, Wire};
use crate::config::Config;
use crate::net;
use crate::placement;
use crate::system::{capabilities, cores};
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
    let mut machine = Machine { wires: wires.collect(), daemon, left_behind, config, ..Machine::default() };
    let named: Vec<(String, u32)> = machine.nics().map(|nic| (nic.name.clone(), nic.ifindex)).collect();
    machine.cores = placement::Machine::read(Path::new("/"), &cores::allowed(), cores::is_usable, &named);
    machine.host = host(&machine.cores);
    machine
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
        rss: found.spreading(),
        programs: programs.iter().map(program).collect(),
        native: features.native,
        zero_copy: features.zero_copy,
        multi_buffer: features.multi_buffer,
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

fn host(machine: &placement::Machine) -> Host {
    let release = word("/proc/sys/kernel/osrelease");
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    let governor = |cpu: &placement::Cpu| {
        let text = word(format!("{CPUS}/cpu{}/cpufreq/scaling_governor", cpu.id));
        Some((cpu.id, text)).filter(|(_, text)| !text.is_empty())
    };
    Host {
        kernel: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)),
        clocksource: word("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        jit: number(Path::new("/proc/sys/net/core/bpf_jit_enable")).map(|value| value != 0),
        governors: machine.cpus.iter().filter_map(governor).collect(),
        irqbalance: process_named("irqbalance"),
        hugepages_free: pages("free_hugepages"),
        hugepages: pages("nr_hugepages"),
        memlock: capabilities::lock_limit(),
        missing_rights: capabilities::missing(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_kernel_and_cores() {
        let machine = gather(Config::default(), None, &[]);
        assert!(machine.host.kernel > (4, 0), "{:?}", machine.host);
        assert!(!machine.cores.cpus.is_empty());
    }
}
