//! Everything about a lab that a peer may have changed.

use palisade_tests::lab::{GATEWAY_LEFT, GATEWAY_RIGHT, Lab, Netns};
use std::collections::BTreeSet;
use std::fs;

/// Facts of one lab, a sentence each.
pub(crate) struct State(BTreeSet<String>);

impl State {
    pub(crate) fn of(lab: &Lab) -> Self {
        let mut facts = BTreeSet::new();
        for (role, netns) in
            [("gateway", &lab.gateway), ("left", &lab.left.netns), ("right", &lab.right.netns)]
        {
            facts.extend(machine(netns).map(|fact| format!("{role}: {fact}")));
        }
        for name in [GATEWAY_LEFT, GATEWAY_RIGHT] {
            let rps = lab.gateway.run("cat", &[&format!("/sys/class/net/{name}/queues/rx-0/rps_cpus")]);
            let lines = lab.offloads(name) + "steering: " + &rps;
            facts.extend(lines.lines().map(|line| format!("NIC {name}: {}", line.trim())));
        }
        facts.extend(dpdk_files());
        Self(facts)
    }

    /// Says what is different now, if anything is.
    #[track_caller]
    pub(crate) fn assert_is_that_of(&self, lab: &Lab) {
        let now = Self::of(lab);
        let (gone, new) = (self.0.difference(&now.0), now.0.difference(&self.0));
        let (gone, new): (Vec<_>, Vec<_>) = (gone.collect(), new.collect());
        assert!(gone.is_empty() && new.is_empty(), "left behind: {new:#?}\nin place of: {gone:#?}");
    }
}

/// Facts of one namespace.
fn machine(netns: &Netns) -> impl Iterator<Item = String> {
    let text = [
        // One line for an interface, with its XDP program and bridge.
        netns.ip(&["-d", "-o", "addr"]),
        netns.ip(&["-d", "-o", "link"]),
        netns.ip(&["neigh", "show", "nud", "permanent"]),
        netns.ip(&["-4", "route"]),
        netns.ip(&["-6", "route"]),
        netns.run("sysctl", &["-a", "-r", "^net[.]"]),
        // Nothing where there is no nft, and then no rules that it would show.
        netns.exec("nft", &["list", "ruleset"]).stdout,
        format!("{} processes", netns.run("ip", &["netns", "pids", netns.name()]).lines().count()),
    ]
    .join("\n");
    // Entries of a table, not a setting.
    let facts = text.lines().filter(|line| !line.contains("nf_conntrack_count"));
    facts.map(str::to_owned).collect::<Vec<_>>().into_iter()
}

/// What there is where programs on DPDK keep their files if nobody tells them otherwise.
pub(crate) fn dpdk_files() -> Vec<String> {
    let folders = fs::read_dir("/var/run/dpdk").into_iter().flatten().flatten().map(|entry| entry.path());
    let files = folders.flat_map(|folder| {
        let files = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
        std::iter::once(folder).chain(files)
    });
    files.map(|path| path.display().to_string()).collect()
}

/// How many connections and buckets the whole machine may have.
pub(crate) fn conntrack_limits() -> [u32; 2] {
    ["nf_conntrack_max", "nf_conntrack_buckets"].map(|name| {
        let text = fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).unwrap();
        text.trim().parse().unwrap()
    })
}
