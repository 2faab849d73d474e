//! Contradictions between settings, looked for once everything has been read.

use super::Problem;
use super::load::Loader;
use dataplane::ids::PORTS_MAX;
use std::collections::BTreeMap;

impl Loader {
    /// Gives wires without a name one of their own.
    pub(super) fn name_wires(&mut self) {
        let taken: Vec<String> = self.config.wires.iter().map(|wire| wire.name.clone()).collect();
        for (index, wire) in self.config.wires.iter_mut().enumerate() {
            if wire.name.is_empty() {
                let mut name = format!("wire{index}");
                while taken.contains(&name) {
                    name.push('_');
                }
                wire.name = name;
            }
        }
    }

    /// There is something to forward between, and something to forward by.
    pub(super) fn check_complete(&mut self) {
        if self.config.wires.is_empty() && !self.wire_misread {
            self.problem(
                Problem::new("no wire: nothing to forward between")
                    .hint("give --left IF --right IF, or a [[wire]] in the configuration file"),
            );
        }
        let rules = &self.config.rules;
        if rules.v4.is_none() && rules.v6.is_none() && self.problems.is_empty() {
            self.problem(
                Problem::new("no rules: a firewall without rules is a wire")
                    .hint("give --rules FILE (iptables-save), --rules6 FILE (ip6tables-save), or both"),
            );
        }
    }

    /// A wire has two ends, a NIC is one end of one wire, names tell wires apart.
    pub(super) fn check_wires(&mut self) {
        let already_reported = self.wire_misread;
        let wires = self.config.wires.clone();
        if wires.len() > PORTS_MAX / 2 {
            self.problem(Problem::new(format!(
                "{} wires, but one process serves {}",
                wires.len(),
                PORTS_MAX / 2
            )));
        }
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        let mut nics: BTreeMap<&str, String> = BTreeMap::new();
        for (index, wire) in wires.iter().enumerate() {
            if let Some(first) = names.insert(&wire.name, index) {
                let problem = Problem::new(format!("two wires are called `{}`", wire.name));
                self.report_pair(problem, &format!("wire.{index}.name"), &format!("wire.{first}.name"));
            }
            for (side, nic) in [("left", &wire.left), ("right", &wire.right)] {
                let place = format!("wire.{index}.{side}");
                if nic.is_empty() {
                    if !already_reported {
                        let problem = Problem::new(format!("wire `{}` has no {side} NIC", wire.name))
                            .hint(format!("set `{side}` to an interface name"));
                        self.report_pair(problem, &format!("wire.{index}"), "");
                    }
                } else if let Some(first) = nics.insert(nic, place.clone()) {
                    let problem = Problem::new(format!("NIC `{nic}` is used twice"))
                        .hint("a NIC is one end of one wire; two ends need two NICs");
                    self.report_pair(problem, &place, &first);
                }
            }
        }
    }

    /// Memory has room for the rings.
    pub(super) fn check_sizes(&mut self) {
        let umem = &self.config.umem;
        let least = umem.ring_size_descs.saturating_mul(2);
        if let Some(frames) = umem.frames_per_worker.filter(|frames| *frames < least) {
            let problem = Problem::new(format!(
                "{frames} frames per worker cannot fill rings of {} descriptors",
                umem.ring_size_descs
            ));
            let hint = format!("at least {least} are needed; \"auto\" chooses enough");
            self.report_pair(problem.hint(hint), "umem.frames_per_worker", "umem.ring_size_descs");
        }
    }

    /// Everybody who listens has an address of their own.
    pub(super) fn check_listeners(&mut self) {
        let (metrics, web) = (self.config.metrics.listen.0, self.config.web.listen.0);
        if let Some(addr) = metrics.filter(|addr| Some(*addr) == web && addr.port() != 0) {
            let problem = Problem::new(format!("metrics.listen and web.listen are both {addr}"))
                .hint("each needs an address of its own: choose another port for one of them");
            self.report_pair(problem, "web.listen", "metrics.listen");
        }
    }

    /// Reports a problem at the place of one setting, pointing at another one it clashes with.
    fn report_pair(&mut self, mut problem: Problem, name: &str, other: &str) {
        // Of a pair one may be as it was before.
        if let Some(place) = self.places.get(name).or_else(|| self.places.get(other)) {
            problem = problem.at(place.clone());
            if let Some(other) = self.places.get(other).filter(|other| *other != place) {
                problem = problem.related(other.clone(), "the other one");
            }
        }
        self.problem(problem);
    }
}
