//! What the machine was doing while it was measured. A figure without it cannot be compared with anything.

use serde::Serialize;
use std::fs;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

/// Load average from which on something else is running.
const BUSY_LOAD: f64 = 0.5;

/// The machine, as it was when a run began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conditions {
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the processor.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Frequency governor; none to be seen on most virtual machines.
    pub governor: String,
    /// Pages of 2 MiB that are set aside.
    pub hugepages: String,
    /// Load averages, as the kernel gives them.
    pub load: String,
    /// Seconds since 1970.
    pub time_secs: u64,
}

impl Conditions {
    /// As they are now.
    #[must_use]
    pub fn now() -> Self {
        let governor = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        Self {
            kernel: first_line("/proc/sys/kernel/osrelease"),
            processor: processor(),
            cores: thread::available_parallelism().map_or(0, usize::from),
            governor: if governor.is_empty() {
                "none to be seen (virtual machine?)".to_owned()
            } else {
                governor
            },
            hugepages: first_line("/proc/sys/vm/nr_hugepages"),
            load: first_line("/proc/loadavg"),
            time_secs: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        }
    }

    /// What they are called and what they are.
    #[must_use]
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("kernel", self.kernel.clone()),
            ("processor", format!("{}, {} cores", self.processor, self.cores)),
            ("governor", self.governor.clone()),
            ("huge pages", format!("{} of 2 MiB set aside", self.hugepages)),
            ("load", self.load.clone()),
        ];
        if self
            .load
            .split(' ')
            .next()
            .and_then(|load| load.parse().ok())
            .is_some_and(|load: f64| load > BUSY_LOAD)
        {
            lines.push((
                "warning",
                "something else is running: every rate suffers, ratios less so".to_owned(),
            ));
        }
        lines
    }
}

/// Prints what a reader of the figures needs to know about the machine.
pub fn print() {
    println!("conditions:");
    for (name, value) in Conditions::now().lines() {
        println!("  {name:<10} {value}");
    }
}

/// Time that the machine's host took away from it since boot, in hundredths of a second, all cores together.
#[must_use]
pub fn steal_ticks() -> u64 {
    // cpu user nice system idle iowait irq softirq steal
    first_line("/proc/stat")
        .split_whitespace()
        .nth(8)
        .and_then(|ticks| ticks.parse().ok())
        .unwrap_or_default()
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned())
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}
