//! `fwctl doctor`: looks for what makes a gateway slow, deaf or wrong, and says of each finding what it leads to and which
//! command mends it.
//!
//! Three steps: [`gather()`] describes the machine, each of the checks looks at the description and at nothing else, and
//! [`Fix`] does what may be done without asking. Runs in `fwctl`, beside a daemon or without one, in the network namespace
//! of the NICs.

mod gather;
mod host;
mod machine;
mod nics;
mod rights;
mod rss;
#[cfg(test)]
mod tests;

pub use gather::gather;
pub use machine::{Daemon, Host, Machine, Nic, Program, RunsAs, Wire};
pub use rights::runs_as;

use crate::net;
use serde::Serialize;
use std::path::Path;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// It runs, but slower or less surely than it could.
    Warning,
    /// It does not run, or loses packets.
    Fault,
}

/// Something worth saying.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check found it; stable.
    pub check: &'static str,
    /// A NIC, a wire, or `machine`.
    pub subject: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is.
    pub what: String,
    /// What it leads to.
    pub consequence: String,
    /// The command that mends it; empty if there is none.
    pub mend: String,
    /// What `--fix` can do about it.
    #[serde(skip)]
    pub fix: Option<Fix>,
}

/// What may be done without asking: nothing here loses more than what is lost already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fix {
    /// Takes off a program of ours that nobody holds any more.
    TakeOff {
        /// The NIC.
        ifindex: u32,
        /// The program.
        program: u32,
    },
    /// Makes a NIC what it was before a daemon that has died.
    PutBack {
        /// The NIC.
        nic: String,
    },
    /// Switches off the offloads that break AF_XDP.
    OffloadsOff {
        /// The NIC.
        nic: String,
    },
    /// Sets the MTU.
    Mtu {
        /// The NIC.
        nic: String,
        /// In bytes.
        mtu: u32,
    },
}

/// What [`Fix`] does, for the help text.
pub const SAFE_FIXES: &str = "--fix does only this: takes off a Palisade program that a dead daemon left on a NIC; puts \
    back what a dead daemon changed on a NIC; switches off offloads that came back on while the gateway runs; lowers the \
    larger of two different MTUs of a wire. For everything else it prints the command.";

/// A check: looks at the machine, says what it finds.
type Check = fn(&Machine) -> Vec<Finding>;

/// All of them, in the order in which findings of equal severity are told.
const CHECKS: &[Check] = &[
    nics::present,
    nics::link,
    nics::programs,
    nics::left_behind,
    nics::driver,
    nics::zero_copy,
    nics::queues,
    rss::agreement,
    rss::observed,
    nics::mtu,
    nics::vlan_stripping,
    nics::offloads,
    nics::checksums,
    nics::addresses,
    host::workers,
    host::rights,
    rights::of_daemon,
    host::memlock,
    host::hugepages,
    host::kernel,
    host::clocksource,
    host::governor,
    host::irqbalance,
    host::isolation,
    host::placement,
    host::interrupts,
    host::page,
];

/// Everything found, worst first.
#[must_use]
pub fn examine(machine: &Machine) -> Vec<Finding> {
    let mut findings: Vec<Finding> = CHECKS.iter().flat_map(|check| check(machine)).collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

impl Finding {
    fn new(check: &'static str, subject: &str, severity: Severity) -> Self {
        Self {
            check,
            subject: subject.to_owned(),
            severity,
            what: String::new(),
            consequence: String::new(),
            mend: String::new(),
            fix: None,
        }
    }

    fn what(self, what: impl Into<String>) -> Self {
        Self { what: what.into(), ..self }
    }

    fn leads_to(self, consequence: impl Into<String>) -> Self {
        Self { consequence: consequence.into(), ..self }
    }

    fn mended_by(self, mend: impl Into<String>) -> Self {
        Self { mend: mend.into(), ..self }
    }

    fn fixed_by(self, fix: Option<Fix>) -> Self {
        Self { fix, ..self }
    }
}

impl Fix {
    /// Does it.
    ///
    /// # Errors
    /// What keeps it from being done, in words.
    pub fn apply(&self, journal_dir: &Path) -> Result<(), String> {
        let nic = |name: &str| net::Nic::find(name).map_err(|error| error.to_string());
        let stubborn = |left: Vec<String>| {
            if left.is_empty() { Ok(()) } else { Err(format!("{} would not change", left.join(", "))) }
        };
        match self {
            Self::TakeOff { ifindex, program } => {
                bpf::take_off(*ifindex, *program).map_err(|error| error.to_string())
            }
            Self::PutBack { nic: name } => stubborn(nic(name)?.put_back(journal_dir)),
            Self::OffloadsOff { nic: name } => stubborn(nic(name)?.switch_offloads_off()),
            Self::Mtu { nic: name, mtu } => nic(name)?.set_mtu(*mtu).map_err(|error| error.to_string()),
        }
    }
}
