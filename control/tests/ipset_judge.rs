//! The kernel's ipset as judge of the language of sets: what it takes we take, what it refuses we refuse, and what it
//! saves and lists we save and list. Needs root and ipset 7.17; skips otherwise. In a network namespace of its own.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail loudly")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use control::iptables::diagnostics::Severity;
use control::sets::Store;
use control::sets::file::services;

struct Namespace(String);

impl Namespace {
    fn new(test: &str) -> Option<Self> {
        let is_root =
            std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0);
        let name = format!("palisade-{test}-{}", std::process::id());
        if !is_root || !Command::new("ip").args(["netns", "add", &name]).status().is_ok_and(|s| s.success()) {
            println!("skipped: needs root");
            return None;
        }
        let namespace = Self(name);
        if !namespace.run(&["--version"], "").1.contains("v7.17") {
            println!("skipped: the judge is ipset 7.17");
            return None;
        }
        Some(namespace)
    }

    fn run(&self, words: &[&str], input: &str) -> (bool, String) {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.0, "ipset"])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Lines in order of their text, without what differs by nature: sizes of the hash and of memory, and of a timeout the
/// seconds that passed.
fn normal(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("Size in memory") && !line.starts_with("<memsize>"))
        .map(|line| {
            // XML reads as text once its marks are blanks; members of both follow each other in any order.
            let line = if line.starts_with('<') {
                line.replace("<forceadd/>", "").replace("</", "<").replace(['<', '>'], " ")
            } else {
                line.to_owned()
            };
            let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            for at in 1..words.len() {
                match words[at - 1].as_str() {
                    "hashsize" | "initval" => words[at] = "?".to_owned(),
                    "timeout" => {
                        if let Ok(secs) = words[at].parse::<u32>() {
                            words[at] =
                                if secs % 100 >= 90 { secs.next_multiple_of(100) } else { secs }.to_string();
                        }
                    }
                    _ => {}
                }
            }
            // Told by us alone: the kernel takes it from ipset 7.17, and neither keeps to it nor tells.
            words.retain(|word| word != "forceadd");
            words.join(" ")
        })
        .collect();
    lines.sort();
    lines
}

/// Lines that only one of two texts has.
fn differences(theirs: &str, ours: &str) -> Vec<String> {
    let (theirs, ours) = (normal(theirs), normal(ours));
    let only = |of: &[String], other: &[String], who: &str| {
        of.iter()
            .filter(|line| !other.contains(line))
            .map(|line| format!("only {who}: {line}"))
            .collect::<Vec<_>>()
    };
    let mut found = only(&theirs, &ours, "ipset");
    found.extend(only(&ours, &theirs, "we"));
    if found.is_empty() && theirs.len() != ours.len() {
        found.push(format!("{} lines of ipset's, {} of ours", theirs.len(), ours.len()));
    }
    found
}

#[test]
fn every_command_is_taken_or_refused_and_printed_as_ipset_does() {
    let Some(namespace) = Namespace::new("sets") else { return };
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/sets.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let store = Store::new(&[]);
    let mut failures = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let theirs = namespace.run(&["restore"], &format!("{line}\n")).0;
        let done = store.command(line.as_bytes(), &services());
        let ours = match &done {
            Ok(answer) => answer.is_in != Some(false),
            Err(error) if error.severity == Severity::Unsupported => continue,
            Err(_) => false,
        };
        if theirs != ours {
            failures.push(format!("{line}: ipset {theirs}, we {ours}: {done:?}"));
        }
    }
    for command in [
        "save",
        "list",
        "list -output xml",
        "list -terse",
        "list -terse -output xml",
        "list -name -output xml",
        "list -name -output save",
        "list -sorted -output save",
        "save -terse",
        "save -name",
        "save -output xml",
        "save -output plain",
    ] {
        let ours = store.command(command.as_bytes(), &services()).unwrap().text;
        let words: Vec<_> = command.split(' ').collect();
        let found = differences(&namespace.run(&words, "").1, &ours);
        failures.extend(found.into_iter().map(|found| format!("{command}: {found}")));
    }
    // Names in the same order.
    let ours = store.command(b"list -n", &services()).unwrap().text;
    let theirs = namespace.run(&["list", "-n"], "").1;
    if theirs != ours {
        failures.push(format!("--- ipset list -n\n{theirs}--- ours\n{ours}"));
    }
    assert!(failures.is_empty(), "{} differences\n{}", failures.len(), failures.join("\n"));
    let saved = store.command(b"save", &services()).unwrap().text;
    let again = Store::new(&[]);
    again.restore(saved.as_bytes(), false, &services()).unwrap();
    assert_eq!(normal(&again.command(b"save", &services()).unwrap().text), normal(&saved), "restored");
    assert!(namespace.run(&["flush"], "").0 && namespace.run(&["destroy"], "").0);
    let (taken, _) = namespace.run(&["restore"], &saved);
    assert!(taken, "ipset restores what we save");
    assert_eq!(normal(&namespace.run(&["save"], "").1), normal(&saved));
}
