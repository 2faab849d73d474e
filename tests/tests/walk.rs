//! The README's first page, walked: its commands are taken out of it and run as they stand, and print what it says they
//! print. From a clone to the cause of a drop in under five commands.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use palisade_tests::daemon::binary;
use palisade_tests::require_root;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The section that is walked.
const SECTION: &str = "## Try it";

/// What a command must say for the cause to be found: the rule, and where it is written.
const CAUSE: &str = "by filter BLOCKED rule 2, scripts/try.rules:13";

/// A command and what is printed behind it.
#[derive(Debug)]
struct Shown {
    command: String,
    lines: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The commands of a section's code blocks, which stand behind `$ `, and the lines below each.
fn commands(readme: &str) -> Vec<Shown> {
    let section = readme.split_once(SECTION).expect("the README has the section").1;
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let mut all: Vec<Shown> = Vec::new();
    for block in section.split("```").skip(1).step_by(2) {
        for line in block.lines() {
            match (line.strip_prefix("$ "), all.last_mut()) {
                (Some(command), _) => all.push(Shown { command: command.to_owned(), lines: Vec::new() }),
                (None, Some(shown)) if !line.trim().is_empty() => shown.lines.push(line.to_owned()),
                _ => {}
            }
        }
    }
    all
}

/// Numbers that are others each time.
fn varies(line: &str) -> bool {
    ["bucket", " ms", "ttl=", "packets  ", "time "].iter().any(|word| line.contains(word))
}

fn without_digits(line: &str) -> String {
    let plain: String = line.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    let mut text = words.join(" ");
    while text.contains("##") {
        text = text.replace("##", "#");
    }
    text
}

/// Whether what the README shows is printed, in that order; `...` stands for anything.
fn assert_printed(shown: &Shown, printed: &str) {
    let mut rest = printed.lines();
    for wanted in shown.lines.iter().filter(|line| line.trim() != "...") {
        let found = if varies(wanted) {
            rest.any(|line| without_digits(line) == without_digits(wanted))
        } else {
            rest.any(|line| line.trim_end() == wanted.trim_end())
        };
        assert!(
            found,
            "`{}` does not print `{wanted}` where the README says it does:\n{printed}",
            shown.command
        );
    }
}

/// A gateway of the script's, which goes whatever happens.
struct Walk {
    lab: String,
}

impl Walk {
    fn run(&self, command: &str) -> Output {
        let programs = binary("fwd").parent().unwrap().to_owned();
        Command::new("bash")
            .args(["-c", command])
            .current_dir(root())
            .env("PALISADE_LAB", &self.lab)
            .env("PALISADE_BIN", programs)
            .output()
            .unwrap()
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        self.run("./scripts/try down");
    }
}

#[test]
fn the_first_page_leads_from_a_clone_to_the_cause_of_a_drop_in_under_five_commands() {
    require_root!();
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let all = commands(&readme);
    let walk = Walk { lab: format!("pawalk{}", std::process::id()) };
    let mut until_known = None;
    for (number, shown) in (1..).zip(&all) {
        let output = walk.run(&shown.command);
        let printed = String::from_utf8_lossy(&output.stdout);
        println!("$ {}\n{printed}{}", shown.command, String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() || shown.command.contains(" ping "), "`{}` fails", shown.command);
        assert_printed(shown, &printed);
        if printed.contains(CAUSE) {
            until_known.get_or_insert(number);
            assert!(shown.command.contains("fwctl explain"), "explain names it");
        }
    }
    assert!(
        until_known.is_some_and(|count| count < 5),
        "the cause is known after {until_known:?} of {all:#?}"
    );
    assert!(all.last().is_some_and(|last| last.command.ends_with("down")), "nothing is left behind");
    let left = Command::new("ip").args(["netns", "list"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&left.stdout).contains(&walk.lab), "a namespace is left");
}

#[test]
fn commands_are_read_with_what_they_print() {
    let all = commands(
        "# P\n## Try it\ntext\n```\n$ a b\nx 1\n...\n$ c\n```\nmore\n```\ny\n$ d\n```\n## Next\n```\n$ e\n```\n",
    );
    let said: Vec<(&str, usize)> =
        all.iter().map(|shown| (shown.command.as_str(), shown.lines.len())).collect();
    assert_eq!(said, [("a b", 2), ("c", 1), ("d", 0)]);
    assert_printed(&all[0], "w\nx 1\n");
    assert!(std::panic::catch_unwind(|| assert_printed(&all[0], "x 2\n")).is_err());
    assert_eq!(without_digits("rtt  12.5 ms"), "rtt #.# ms");
}
