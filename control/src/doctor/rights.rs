//! What the daemon runs as, by `/proc`.

use super::{Finding, Machine, RunsAs, Severity};
use crate::system::seccomp::FILTERS;
use rustix::thread::CapabilitySet;
use std::fmt;
use std::fs;

/// What a daemon needs once it runs; CAP_BPF on older kernels.
const NEEDED: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::BPF);

/// The rights of a process; `None` if it cannot be seen.
#[must_use]
pub fn runs_as(pid: u32) -> Option<RunsAs> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let uid: u32 = line(&status, "Uid:")?.split_whitespace().nth(1)?.parse().ok()?;
    let user = match nix::unistd::User::from_uid(uid.into()) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    };
    let mut workers = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let is_worker =
            fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("worker-"));
        if is_worker && let Ok(worker) = fs::read_to_string(task.path().join("status")) {
            workers.push(is_filtered(&worker, &status));
        }
    }
    Some(RunsAs {
        user,
        is_root: uid == 0,
        capabilities: names(capabilities(&status)?),
        workers_filtered: !workers.is_empty() && workers.iter().all(|is_filtered| *is_filtered),
    })
}

/// Whether a worker has what it puts on itself, by its status and that of the first thread: whoever started the daemon may have
/// put filters on all of it.
fn is_filtered(worker: &str, first: &str) -> bool {
    let filters = |status| line(status, "Seccomp_filters:")?.parse::<usize>().ok();
    match (filters(worker), filters(first)) {
        (Some(worker), Some(first)) => worker >= first + FILTERS,
        // The kernel counts them from 5.10 on.
        _ => line(worker, "Seccomp:") == Some("2"),
    }
}

fn line<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn capabilities(status: &str) -> Option<CapabilitySet> {
    u64::from_str_radix(line(status, "CapPrm:")?, 16).ok().map(CapabilitySet::from_bits_retain)
}

/// As capabilities(7) calls them.
fn names(set: CapabilitySet) -> Vec<String> {
    set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
}

impl fmt::Display for RunsAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, capabilities, workers_filtered, .. } = self;
        let rights = match capabilities.as_slice() {
            [] => "no capability".to_owned(),
            [first, second, third, rest @ ..] if !rest.is_empty() => {
                format!("{first}, {second}, {third} and {} more capabilities", rest.len())
            }
            few => few.join(", "),
        };
        let filter = if *workers_filtered { "filtered" } else { "not filtered" };
        write!(f, "{user} with {rights}, system calls of its workers {filter}")
    }
}

/// The daemon has no more rights than it needs.
pub(super) fn of_daemon(machine: &Machine) -> Vec<Finding> {
    let Some(runs_as) = machine.daemon.as_ref().and_then(|daemon| daemon.runs_as.as_ref()) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let finding = || Finding::new("privileges", "machine", Severity::Note);
    if runs_as.is_root {
        findings.push(
            finding()
                .what("the daemon runs as root")
                .leads_to("somebody who takes it over has root's files")
                .mended_by(
                    "useradd --system --no-create-home --shell /usr/sbin/nologin palisade, set privileges.user, restart",
                ),
        );
    }
    let needed = names(NEEDED);
    let more: Vec<&str> =
        runs_as.capabilities.iter().filter(|name| !needed.contains(name)).map(String::as_str).collect();
    if !more.is_empty() {
        findings.push(
            finding()
                .what(format!(
                    "the daemon keeps {} capabilities that it does not need: {}",
                    more.len(),
                    more.join(", ")
                ))
                .leads_to("somebody who takes it over can do that, too")
                .mended_by("restart it: it gives them up at start"),
        );
    }
    if !runs_as.workers_filtered {
        findings.push(
            finding()
                .what("the workers may make any system call")
                .leads_to("somebody who takes one over by a packet meets no filter")
                .mended_by("privileges.seccomp = \"on\" in the configuration, then a restart"),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_seen_and_is_told_in_one_line() {
        let own = runs_as(std::process::id()).unwrap();
        assert_eq!(own.is_root, rustix::process::geteuid().is_root());
        assert!(!own.workers_filtered, "it has none");
        assert!(own.to_string().starts_with(&format!("{} with ", own.user)), "{own}");
        assert_eq!(runs_as(u32::MAX), None);
    }

    #[test]
    fn filters_of_the_whole_service_are_none_of_the_workers() {
        let status = |filters: u32| format!("Seccomp:\t2\nSeccomp_filters:\t{filters}\n");
        assert!(is_filtered(&status(11), &status(9)));
        assert!(!is_filtered(&status(9), &status(9)), "off");
        assert!(!is_filtered(&status(10), &status(9)), "log");
        assert!(is_filtered("Seccomp:\t2\n", "Seccomp:\t0\n"));
    }

    #[test]
    fn what_is_more_than_needed_is_noted() {
        let look = |runs_as| {
            let daemon = super::super::Daemon { runs_as: Some(runs_as), ..Default::default() };
            of_daemon(&Machine { daemon: Some(daemon), ..Machine::default() }).len()
        };
        let good = RunsAs {
            user: "palisade".to_owned(),
            is_root: false,
            capabilities: vec!["CAP_NET_ADMIN".to_owned()],
            workers_filtered: true,
        };
        assert_eq!(look(good.clone()), 0);
        assert_eq!(look(RunsAs { is_root: true, ..good.clone() }), 1);
        assert_eq!(look(RunsAs { capabilities: vec!["CAP_SYS_ADMIN".to_owned()], ..good.clone() }), 1);
        assert_eq!(look(RunsAs { workers_filtered: false, ..good }), 1);
    }
}
