//! The daemon and its tool as an operator runs them: two binaries, found beside the test's own or named by the
//! environment (`FWD_BIN`, `FWCTL_BIN`).

use crate::lab::{Exit, GATEWAY_LEFT, GATEWAY_RIGHT, Lab, Process};
use rustix::process::Signal;
use serde_json::Value;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest the daemon may take to start or end.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest `fwctl` may take.
const FWCTL_TIMEOUT: Duration = Duration::from_secs(20);

/// How long counters may take to be published and frames to arrive.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Core the daemon's worker is pinned to: the last one, so that it shares as little as possible with the test.
fn worker_core() -> usize {
    std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1)
}

/// A running `fwd` between the NICs of a lab's gateway. Killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    dir: TempDir,
}

/// What a daemon is to be started with.
#[derive(Debug)]
pub struct DaemonBuilder<'lab> {
    lab: &'lab Lab,
    dir: TempDir,
    left: String,
    right: String,
    args: Vec<String>,
    wrapper: Vec<String>,
    core: usize,
}

impl Daemon {
    /// Starts the daemon with these IPv4 rules and waits until it is ready.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn start(lab: &Lab, rules: &str) -> Self {
        Self::builder(lab).rules(rules).start()
    }

    /// To choose more.
    ///
    /// # Panics
    /// If no temporary directory can be made.
    #[must_use]
    pub fn builder(lab: &Lab) -> DaemonBuilder<'_> {
        let dir = TempDir::with_prefix("palisade-test-").expect("a temporary directory can be made");
        let (left, right) = (GATEWAY_LEFT.to_owned(), GATEWAY_RIGHT.to_owned());
        DaemonBuilder { lab, dir, left, right, args: Vec::new(), wrapper: Vec::new(), core: worker_core() }
    }

    /// The child process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Path of its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("fwd.sock")
    }

    /// Path of the IPv4 rules file it was started with, if it was.
    #[must_use]
    pub fn rules_file(&self) -> PathBuf {
        self.dir.path().join("rules.v4")
    }

    /// Writes a file that lives as long as the daemon.
    ///
    /// # Panics
    /// If it cannot be written.
    #[must_use]
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        write_file(self.dir.path(), name, text)
    }

    /// Runs `fwctl` against it, whatever comes of it.
    ///
    /// # Panics
    /// If it cannot be run or hangs.
    pub fn try_fwctl(&self, args: &[&str]) -> Exit {
        let mut command = Command::new(binary("fwctl"));
        command.arg("--socket").arg(self.socket()).args(args);
        Process::spawn(command).wait(FWCTL_TIMEOUT)
    }

    /// Runs a `fwctl` command that must succeed; returns its standard output.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn fwctl(&self, args: &[&str]) -> String {
        self.try_fwctl(args).expect_success(&format!("fwctl {}", args.join(" ")))
    }

    /// The same for a command that prints JSON.
    ///
    /// # Panics
    /// If it fails or prints something else.
    #[must_use]
    #[track_caller]
    pub fn fwctl_json(&self, args: &[&str]) -> Value {
        let text = self.fwctl(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("fwctl {args:?}: {error} in {text}"))
    }

    /// What it counts, now.
    ///
    /// # Panics
    /// If `fwctl stats` fails.
    #[must_use]
    #[track_caller]
    pub fn stats(&self) -> Stats {
        Stats(self.fwctl_json(&["stats"]))
    }

    /// Waits until what it counts satisfies `is_there`: counters are published a moment after the packets.
    ///
    /// # Panics
    /// If that does not happen within 10 seconds.
    #[track_caller]
    pub fn stats_until(&self, what: &str, is_there: impl Fn(&Stats) -> bool) -> Stats {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            let stats = self.stats();
            if is_there(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "no {what} in {:#}\n{}", stats.0, self.process.stderr());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Loads new IPv4 rules.
    ///
    /// # Panics
    /// If they are refused.
    #[track_caller]
    pub fn apply(&self, rules: &str) {
        let path = self.file("applied.v4", rules);
        let _ = self.fwctl(&["apply", &path.to_string_lossy()]);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Asks it to end and waits for that.
    ///
    /// # Panics
    /// If it does not end.
    pub fn stop(self, signal: Signal) -> Exit {
        self.process.signal(signal);
        self.process.wait(START_TIMEOUT)
    }

    /// The same for who can go on without it.
    ///
    /// # Errors
    /// If it does not end: what it said until it was killed.
    pub fn try_stop(self, signal: Signal) -> Result<Exit, Exit> {
        self.process.signal(signal);
        self.process.try_wait(START_TIMEOUT)
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Ends it without giving it a chance to clean up.
    pub fn kill(self) -> Exit {
        self.process.kill()
    }
}

impl DaemonBuilder<'_> {
    /// IPv4 rules.
    #[must_use]
    pub fn rules(self, text: &str) -> Self {
        let path = write_file(self.dir.path(), "rules.v4", text);
        self.arg("--rules").arg(&path.to_string_lossy())
    }

    /// IPv6 rules.
    #[must_use]
    pub fn rules6(self, text: &str) -> Self {
        let path = write_file(self.dir.path(), "rules.v6", text);
        self.arg("--rules6").arg(&path.to_string_lossy())
    }

    /// A setting, as `--set NAME=VALUE`.
    #[must_use]
    pub fn set(self, name: &str, value: &str) -> Self {
        self.arg("--set").arg(&format!("{name}={value}"))
    }

    /// Any other argument.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Has users other than root come to its directory and its files, for a daemon that becomes one.
    ///
    /// # Panics
    /// If the directory's mode cannot be set.
    #[must_use]
    pub fn reachable(self) -> Self {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(self.dir.path(), mode).expect("the directory is ours");
        self
    }

    /// Other interfaces than the lab's own.
    #[must_use]
    pub fn ifaces(mut self, left: &str, right: &str) -> Self {
        (self.left, self.right) = (left.to_owned(), right.to_owned());
        self
    }

    /// A program that starts the daemon for us, `setpriv` with its arguments for example.
    #[must_use]
    pub fn wrapped_by(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// The core its worker is pinned to; the machine's last one otherwise.
    #[must_use]
    pub fn core(mut self, core: usize) -> Self {
        self.core = core;
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Daemon {
        self.try_start().unwrap_or_else(|exit| {
            panic!("fwd did not get ready: {:?}\n{}{}", exit.code, exit.stdout, exit.stderr)
        })
    }

    /// The same for who can go on without it.
    ///
    /// # Errors
    /// If it does not get ready: how it ended, by itself or killed.
    pub fn try_start(self) -> Result<Daemon, Exit> {
        let (process, dir) = self.spawn();
        if process.wait_for_line("ready", START_TIMEOUT) {
            Ok(Daemon { process, dir })
        } else {
            Err(process.kill())
        }
    }

    /// Starts it where it must refuse to run, and waits for its end.
    ///
    /// # Panics
    /// If it runs.
    #[track_caller]
    pub fn fail(self) -> Exit {
        let (process, _dir) = self.spawn();
        let exit = process.wait(START_TIMEOUT);
        assert!(!exit.stdout.lines().any(|line| line == "ready"), "fwd says it is ready: {exit:?}");
        exit
    }

    fn spawn(self) -> (Process, TempDir) {
        let fwd = binary("fwd");
        let mut words = self.wrapper;
        words.push(fwd.to_string_lossy().into_owned());
        let (program, args) = words.split_first().expect("fwd itself is in the list");
        let mut command = self.lab.gateway.command(program);
        command.args(args).args(["--left", &self.left, "--right", &self.right]);
        let dir = self.dir.path();
        for (name, file) in
            [("api.socket", "fwd.sock"), ("net.journal_dir", "journal"), ("state.dir", "state")]
        {
            let path = dir.join(file);
            command.arg("--set").arg(format!("{name}={}", path.display()));
        }
        command.arg("--set").arg(format!("workers.cores=[{}]", self.core));
        command.args(self.args);
        (Process::spawn(command), self.dir)
    }
}

/// What `fwctl stats --json` printed, with names for the parts that tests ask for.
#[derive(Clone, Debug)]
pub struct Stats(pub Value);

/// Every method panics with the whole text if what it asks for is not there.
impl Stats {
    /// Packets received by the gateway, all NICs together.
    #[must_use]
    pub fn rx(&self) -> u64 {
        self.sum("ports", "/rx/packets")
    }

    /// Packets forwarded, both directions.
    #[must_use]
    pub fn forwarded(&self) -> u64 {
        self.sum("wires", "/left_to_right/packets") + self.sum("wires", "/right_to_left/packets")
    }

    /// Packets dropped, for all reasons.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.sum("drops", "/packets")
    }

    /// Packets dropped for one reason.
    ///
    /// # Panics
    /// If there is no such reason.
    #[must_use]
    #[track_caller]
    pub fn drops(&self, reason: &str) -> u64 {
        let found =
            self.list("drops").iter().find(|drop| drop.pointer("/reason").is_some_and(|name| name == reason));
        let packets = found.and_then(|drop| drop.pointer("/packets")?.as_u64());
        packets.unwrap_or_else(|| panic!("no drop reason {reason} in {:#}", self.0))
    }

    /// Flows tracked now.
    #[must_use]
    pub fn flows(&self) -> u64 {
        self.number("/flows/count")
    }

    /// Flows made since the daemon started.
    #[must_use]
    pub fn flows_inserted(&self) -> u64 {
        self.number("/flows/inserted")
    }

    /// Number of the rules in force.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.number("/generation")
    }

    /// One counter of every queue of every NIC, summed: what the kernel and the rings say.
    #[must_use]
    pub fn queues(&self, counter: &str) -> u64 {
        let queues = self.list("ports").iter().filter_map(|port| port.get("queues")?.as_array()).flatten();
        let number = |queue: &Value| queue.get(counter).and_then(Value::as_u64);
        queues.map(|queue| number(queue).unwrap_or_else(|| panic!("no {counter} in {queue:#}"))).sum()
    }

    /// Whether every packet received was forwarded or dropped for a reason.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.rx() == self.forwarded() + self.dropped()
    }

    // A name that is not there must not read as zero: balances of zeros hold.
    #[track_caller]
    fn list(&self, name: &str) -> &[Value] {
        self.0.get(name).and_then(Value::as_array).unwrap_or_else(|| panic!("no list {name} in {:#}", self.0))
    }

    #[track_caller]
    fn sum(&self, list: &str, pointer: &str) -> u64 {
        let number = |item: &Value| item.pointer(pointer)?.as_u64();
        let known =
            |item| number(item).unwrap_or_else(|| panic!("no number {list}.*{pointer} in {:#}", self.0));
        self.list(list).iter().map(known).sum()
    }

    #[track_caller]
    fn number(&self, pointer: &str) -> u64 {
        let number = self.0.pointer(pointer).and_then(Value::as_u64);
        number.unwrap_or_else(|| panic!("no number {pointer} in {:#}", self.0))
    }
}

/// Where a program of this workspace is: `NAME_BIN` in the environment, or where cargo put it beside this one.
///
/// # Panics
/// If it has not been built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    find_binary(name).unwrap_or_else(|| {
        let own = env::current_exe().unwrap_or_default();
        panic!("no program {name} beside {}: run `cargo build --workspace` first", own.display())
    })
}

/// The same; `None` if it has not been built.
///
/// # Panics
/// If the kernel does not say which program this is.
#[must_use]
pub fn find_binary(name: &str) -> Option<PathBuf> {
    let variable = format!("{}_BIN", name.to_uppercase());
    if let Some(path) = env::var_os(&variable) {
        return Some(path.into());
    }
    let own = env::current_exe().expect("a process knows its program");
    // target/PROFILE/deps/test-0123 or target/PROFILE/program.
    own.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file())
}

fn write_file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
    path
}
