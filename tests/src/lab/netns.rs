//! One network namespace, and how to do something inside it. A thread that enters a namespace stays there, so work is
//! done on threads made for it; sockets opened inside keep their namespace wherever they are used later.

use super::process::{Exit, Process, run};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// Where iproute2 keeps named namespaces.
const NETNS_DIR: &str = "/run/netns";

/// What every name starts with; the id of the owning process follows.
const PREFIX: &str = "palisade-";

/// Longest a set-up command such as `ip` or `ethtool` may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);

static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// A network namespace that exists as long as this value does.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace whose name nobody else has, with its loopback up.
    ///
    /// # Panics
    /// If the kernel refuses, which without root it does.
    #[must_use]
    pub fn new(role: &str) -> Self {
        SWEEP.call_once(sweep);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{n}-{role}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let netns = Self { name };
        netns.ip(&["link", "set", "lo", "up"]);
        netns
    }

    /// Its name, as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `f` on a thread inside the namespace and returns what it returned.
    ///
    /// # Panics
    /// If `f` does, or the namespace cannot be entered.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                f()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Panics
    /// If the namespace is gone or the caller is not root.
    pub fn enter(&self) {
        let path = format!("{NETNS_DIR}/{}", self.name);
        let file = File::open(&path).unwrap_or_else(|error| panic!("open {path}: {error}"));
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .unwrap_or_else(|error| panic!("enter namespace {}: {error}", self.name));
    }

    /// A command that will run inside, with `/sys` showing this namespace's interfaces.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Starts a program inside.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(&self, program: &str, args: &[&str]) -> Process {
        let mut command = self.command(program);
        command.args(args);
        Process::spawn(command)
    }

    /// Runs a program inside to its end.
    ///
    /// # Panics
    /// If it cannot be started or takes longer than 20 seconds.
    pub fn exec(&self, program: &str, args: &[&str]) -> Exit {
        self.spawn(program, args).wait(COMMAND_TIMEOUT)
    }

    /// Runs a program inside that must succeed; returns its standard output.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        self.exec(program, args).expect_success(&format!("{program} {}", args.join(" ")))
    }

    /// Runs `ip ARGS` inside.
    ///
    /// # Panics
    /// If it fails.
    pub fn ip(&self, args: &[&str]) -> String {
        let mut all = vec!["-n", &self.name];
        all.extend_from_slice(args);
        run("ip", &all)
    }

    /// Sets a sysctl inside, `net.ipv6.conf.all.disable_ipv6` for example.
    ///
    /// # Panics
    /// If there is no such sysctl.
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        // `/proc/sys/net` shows the namespace of the thread that opens it.
        self.within(|| fs::write(&path, value)).unwrap_or_else(|error| panic!("write {path}: {error}"));
    }

    /// What `ip -j link show dev IFACE` says, parsed.
    ///
    /// # Panics
    /// If there is no such interface.
    #[must_use]
    pub fn link(&self, iface: &str) -> serde_json::Value {
        let text = self.ip(&["-j", "-d", "link", "show", "dev", iface]);
        let mut links: serde_json::Value = serde_json::from_str(&text).expect("ip -j prints JSON");
        links.get_mut(0).map_or(serde_json::Value::Null, serde_json::Value::take)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Ends what still runs in a namespace of ours and removes it. Never panics: it runs while a test unwinds.
fn remove(name: &str) {
    if let Ok(output) = Command::new("ip").args(["netns", "pids", name]).output() {
        for pid in String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| line.trim().parse().ok())
        {
            // Threads of this very process may still be inside; they end with their work.
            if pid != rustix::process::getpid().as_raw_nonzero().get()
                && let Some(pid) = rustix::process::Pid::from_raw(pid)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
    if let Err(error) = Command::new("ip").args(["netns", "del", name]).status() {
        eprintln!("cannot remove namespace {name}: {error}");
    }
}

/// Removes the namespaces of processes that are gone.
fn sweep() {
    let Ok(entries) = fs::read_dir(NETNS_DIR) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(true)) {
            remove(&name);
        }
    }
}
