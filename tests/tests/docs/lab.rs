//! A lab for a page: two hosts, the gateway between them with NICs `eth1` and `eth2`, and directories of its own where the
//! daemon and its operator expect theirs (`/etc`, `/run`, `/var/lib`, `/var/log`), so that commands are run as shown.
//!
//! A page may say in a comment what it begins with: `<!-- lab: daemon -->` has the daemon running with the files that the
//! quick start shows; `queues=N` gives NICs N queues.

use super::book::{Block, Page, pages};
use super::console::{End, Place, Step, begins_as_shown, is_as_shown, steps};
use palisade_tests::daemon::binary;
use palisade_tests::lab::{GATEWAY_LEFT, GATEWAY_RIGHT, Lab, Process};
use palisade_tests::require_root;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest a command may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Most lines of output that a failure prints.
const SAID_MAX: usize = 60;

/// Why commands may not be run here.
const REASONS: [(&str, &str); 11] = [
    ("needs-systemd", "there is no systemd in a namespace"),
    ("needs-dpkg", "installs a package on the machine"),
    ("needs-nic", "asks or changes real hardware"),
    ("needs-ice", "an Intel E810"),
    ("needs-i40e", "an Intel X710 or XL710"),
    ("needs-mlx5", "an NVIDIA ConnectX-4 Lx or later"),
    ("needs-ena", "an Amazon EC2 instance"),
    ("needs-virtio", "a virtual machine"),
    ("builds", "compiles, which the scripts' own tests do"),
    ("run-elsewhere", "the quick start runs it"),
    ("other-machine", "is run on another machine than the gateway"),
];

/// The page whose files the daemon starts with.
const QUICK_START: &str = "docs/src/quick-start.md";

struct Stage {
    lab: Lab,
    work: TempDir,
    /// Holds the gateway's mounts.
    keeper: Process,
    background: Vec<(usize, Process)>,
}

impl Stage {
    fn new(queues: u32) -> Self {
        let lab = Lab::builder().queues(queues).build();
        for (old, new) in [(GATEWAY_LEFT, "eth1"), (GATEWAY_RIGHT, "eth2")] {
            lab.gateway.ip(&["link", "set", old, "down"]);
            lab.gateway.ip(&["link", "set", old, "name", new]);
            lab.gateway.ip(&["link", "set", new, "up"]);
        }
        let work = TempDir::with_prefix("palisade-docs-").expect("a temporary directory");
        let etc = work.path().join("etc");
        let script = format!(
            "set -e; cp -a /etc {etc}; mount --bind {etc} /etc
            for dir in /run /var/lib /var/log; do mount -t tmpfs tmpfs $dir; done
            mkdir -p /etc/palisade /run/palisade /var/lib/palisade /var/log/palisade
            echo there; exec sleep infinity",
            etc = etc.display()
        );
        let keeper = lab.gateway.spawn("unshare", &["-m", "sh", "-c", &script]);
        assert!(keeper.wait_for_line("there", PATIENCE), "mounts of its own: {}", keeper.stderr());
        fs::create_dir(work.path().join("home")).expect("a new directory has room");
        Self { lab, work, keeper, background: Vec::new() }
    }

    fn home(&self) -> std::path::PathBuf {
        self.work.path().join("home")
    }

    fn command(&self, place: Place, text: &str) -> Command {
        let mut command = match place {
            Place::Gateway => {
                let mut command = Command::new("nsenter");
                command.args(["-t", &self.keeper.pid().to_string(), "-m", "-n", "bash"]);
                command
            }
            Place::Client => self.lab.left.netns.command("bash"),
            Place::Server => self.lab.right.netns.command("bash"),
        };
        let programs = binary("fwctl").parent().map(Path::to_path_buf).unwrap_or_default();
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", programs.display()));
        command.env("HOME", self.home()).env("LC_ALL", "C.UTF-8").env("COLUMNS", "120");
        command.args(["-c", &format!("cd {} && exec 2>&1\n{text}\n", self.home().display())]);
        command
    }

    fn write(&self, name: &str, text: &str) {
        if !name.starts_with('/') {
            let path = self.home().join(name);
            return fs::write(&path, text).unwrap_or_else(|error| panic!("write {name}: {error}"));
        }
        let staged = self.work.path().join("staged");
        fs::write(&staged, text).expect("a temporary directory has room");
        let copy = format!("mkdir -p $(dirname {name}) && cp {} {name}", staged.display());
        let exit = Process::spawn(self.command(Place::Gateway, &copy)).wait(PATIENCE);
        let _ = exit.expect_success(name);
    }

    /// Starts the daemon as the quick start does.
    fn start_daemon(&mut self) {
        let page = pages().into_iter().find(|page| page.path == Path::new(QUICK_START));
        let page = page.expect("there is a quick start");
        for block in page.blocks() {
            if let Some(file) = block.file.as_deref().filter(|file| file.starts_with("/etc/palisade/")) {
                self.write(file, &block.text());
            }
        }
        let text = "exec fwd --config /etc/palisade/fwd.toml";
        let daemon = Process::spawn(self.command(Place::Gateway, text));
        assert!(daemon.wait_for_line("ready", PATIENCE), "{}", daemon.stdout());
        self.background.push((0, daemon));
        self.wait_for_links();
    }

    /// Waits until a daemon that has just begun knows of both carriers, which the kernel tells a moment after links came up.
    /// Whoever types has waited by then.
    fn wait_for_links(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let exit = Process::spawn(self.command(Place::Gateway, "fwctl stats")).wait(PATIENCE);
            if exit.stdout.matches("link up").count() == 2 {
                return;
            }
            assert!(Instant::now() < deadline, "the links do not come up\n{}", exit.stdout);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Does one step.
    ///
    /// # Errors
    /// What was otherwise than shown.
    fn step(&mut self, step: &Step) -> Result<(), String> {
        let shown = step.output.join("\n");
        let differs = |what: &str, said: &str| {
            // Enough to see what was meant.
            let said = said.trim_end().lines().take(SAID_MAX).collect::<Vec<_>>().join("\n");
            format!("`{}` {what}\n--- shown\n{shown}\n--- said\n{said}\n---", step.command)
        };
        match step.end {
            End::Code(code) => {
                let exit = Process::spawn(self.command(step.place, &step.command)).try_wait(PATIENCE);
                let exit = exit.map_err(|exit| differs("does not end", &exit.stdout))?;
                if exit.code != Some(code) {
                    return Err(differs(
                        &format!("ended with {:?} instead of {code}", exit.code),
                        &exit.stdout,
                    ));
                }
                if !step.output.is_empty() && !is_as_shown(&step.output, &exit.stdout) {
                    return Err(differs("said something else", &exit.stdout));
                }
            }
            End::Page | End::Interrupt => {
                let mut process = Process::spawn(self.command(step.place, &format!("exec {}", step.command)));
                let deadline = Instant::now() + PATIENCE;
                while !step.output.is_empty() && !begins_as_shown(&step.output, &process.stdout()) {
                    if Instant::now() > deadline || !process.is_running() {
                        return Err(differs("never said it", &process.stdout()));
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                if step.end == End::Interrupt {
                    process.signal(Signal::INT);
                    let ended = process.try_wait(PATIENCE);
                    let _ = ended.map_err(|exit| differs("does not end when interrupted", &exit.stdout))?;
                } else {
                    self.background.push((step.line, process));
                    if step.command.starts_with("fwd ") {
                        self.wait_for_links();
                    }
                }
            }
        }
        Ok(())
    }
}

/// What the page's comment says it begins with.
fn setting(page: &Page) -> (bool, u32) {
    let words = page.text.split("<!-- lab:").nth(1).and_then(|rest| rest.split("-->").next());
    let mut setting = (false, 1);
    for word in words.unwrap_or_default().split_whitespace() {
        match word.split_once('=') {
            None if word == "daemon" => setting.0 = true,
            Some(("queues", queues)) => setting.1 = queues.parse().expect("queues=N"),
            _ => panic!("{}: `{word}` in its lab comment", page.path.display()),
        }
    }
    setting
}

fn is_run(block: &Block) -> bool {
    block.kind == "console" && block.ignored.is_none()
}

/// Runs what a page shows; gives how many commands that were.
fn run(page: &Page) -> Result<usize, String> {
    let blocks = page.blocks();
    let (with_daemon, queues) = setting(page);
    let mut stage = Stage::new(queues);
    if with_daemon {
        stage.start_daemon();
    }
    let mut count = 0;
    for block in &blocks {
        if let Some(file) = &block.file {
            stage.write(file, &block.text());
        }
        if is_run(block) {
            let steps = steps(block).map_err(|(line, why)| format!("{}: {why}", page.at(line)))?;
            for step in &steps {
                stage.step(step).map_err(|why| format!("{}: {why}", page.at(step.line)))?;
                count += 1;
            }
        }
    }
    Ok(count)
}

#[test]
fn every_command_does_what_is_shown() {
    require_root!();
    // PALISADE_PAGE=tuning runs the pages with that in their path.
    let only = std::env::var("PALISADE_PAGE").unwrap_or_default();
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in pages() {
        let path = page.path.to_string_lossy().into_owned();
        if !path.contains(&only) || !page.blocks().iter().any(is_run) {
            continue;
        }
        let start = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| run(&page))) {
            Ok(Ok(steps)) => {
                count += steps;
                println!("{steps:>4} commands in {:>5.1} s  {path}", start.elapsed().as_secs_f64());
            }
            Ok(Err(why)) => wrong.push(why),
            Err(panic) => {
                let why = panic.downcast_ref::<String>().map_or("a panic without words", String::as_str);
                wrong.push(format!("{path}: {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} pages differ\n{}", wrong.len(), wrong.join("\n\n"));
    assert!(count > 0, "no page shows a command");
}

#[test]
fn what_is_not_run_says_why() {
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut run = 0;
    for page in pages() {
        for block in page.blocks().iter().filter(|block| block.kind == "console") {
            let steps = steps(block).unwrap_or_else(|(line, why)| panic!("{}: {why}", page.at(line)));
            match &block.ignored {
                None => run += steps.len(),
                Some(why) => {
                    assert!(
                        REASONS.iter().any(|(known, _)| known == why),
                        "{}: `{why}` is no reason; known are {REASONS:?}",
                        page.at(block.line)
                    );
                    let places = steps.iter().map(|step| format!("{}: {}", page.at(step.line), step.command));
                    reasons.entry(why.clone()).or_default().extend(places);
                }
            }
        }
    }
    let mut said = format!("{run} commands are run\n");
    for (why, places) in &reasons {
        let _ = writeln!(said, "{} are not, {why}:\n    {}", places.len(), places.join("\n    "));
    }
    println!("{said}");
    let ignored: usize = reasons.values().map(Vec::len).sum();
    assert!(run > ignored, "more is shown than is run\n{said}");
}
