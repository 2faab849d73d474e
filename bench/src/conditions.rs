//! What the machine was doing while it was measured. A figure without it cannot be compared with anything.

use std::fs;
use std::thread;

/// Prints what a reader of the figures needs to know about the machine.
pub fn print() {
    println!("conditions:");
    println!("  kernel    {}", first_line("/proc/sys/kernel/osrelease"));
    println!("  processor {}, {} cores", processor(), thread::available_parallelism().map_or(0, usize::from));
    let governor = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    println!(
        "  governor  {}",
        if governor.is_empty() { "none to be seen (virtual machine?)" } else { &governor }
    );
    let load = first_line("/proc/loadavg");
    println!("  load      {load}");
    if load.split(' ').next().and_then(|load| load.parse().ok()).is_some_and(|load: f64| load > 0.5) {
        println!("  warning   something else is running: every rate below suffers, ratios less so");
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
