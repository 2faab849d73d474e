//! Configuration and rules that pages show, given to what reads them in earnest.

use super::book::{Block, Page, pages};
use control::config::{Config, FwdArgs};
use palisade_tests::daemon::binary;
use std::fs;
use std::path::Path;
use std::process::Command;

fn each(kinds: &[&str], mut check: impl FnMut(&Page, &Block, &Path) -> Result<(), String>) {
    let dir = tempfile::TempDir::with_prefix("palisade-docs-").expect("a temporary directory");
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in pages() {
        for block in page.blocks() {
            if kinds.contains(&block.kind.as_str()) && block.ignored.is_none() {
                count += 1;
                if let Err(why) = check(&page, &block, dir.path()) {
                    wrong.push(format!("{}: {why}", page.at(block.line)));
                }
            }
        }
    }
    assert!(count > 0, "the book shows {kinds:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn configuration_is_read_by_the_daemons_reader() {
    each(&["toml"], |_, block, dir| {
        let text = block.text();
        let path = dir.join("fwd.toml");
        fs::write(&path, &text).map_err(|error| error.to_string())?;
        let is_there = |word: &str| text.lines().any(|line| line.trim_start().starts_with(word));
        let mut args = FwdArgs { config: Some(path), ..FwdArgs::default() };
        if !is_there("[[wire]]") {
            (args.left, args.right) = (Some("eth1".into()), Some("eth2".into()));
        }
        if !is_there("v4") && !is_there("v6") {
            args.rules = Some("rules.v4".into());
        }
        Config::load(&args).map(drop).map_err(|errors| errors.to_string())
    });
}

/// Rules as a whole file: those without a table stand in filter, and a file about others has an empty one.
fn whole(text: &str) -> String {
    let has = |word: &str| text.lines().any(|line| line.starts_with(word));
    if has("*filter") {
        return text.to_owned();
    }
    let filter = "*filter\n:FORWARD ACCEPT [0:0]\n";
    if has("*") { format!("{text}{filter}COMMIT\n") } else { format!("{filter}{text}COMMIT\n") }
}

#[test]
fn rules_are_checked_by_fwctl() {
    each(&["iptables", "ip6tables"], |page, block, dir| {
        let rules = dir.join("rules");
        fs::write(&rules, whole(&block.text())).map_err(|error| error.to_string())?;
        let sets: String = page.blocks().iter().filter(|b| b.kind == "ipset").map(Block::text).collect();
        let sets_path = dir.join("sets");
        fs::write(&sets_path, sets).map_err(|error| error.to_string())?;
        let family = if block.kind == "iptables" { "4" } else { "6" };
        let mut command = Command::new(binary("fwctl"));
        command.args(["check", "--family", family, "--sets"]).args([&sets_path, &rules]);
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    });
}

/// Kinds of blocks that nobody runs or reads, and those that others here do.
const KINDS: [&str; 9] = ["console", "toml", "iptables", "ip6tables", "ipset", "text", "json", "ini", "yaml"];

/// Whether this line belongs to the README's walk, which `tests/walk.rs` runs.
fn is_walk(page: &Page, line: usize) -> bool {
    let heading = page.text.lines().take(line).filter(|text| text.starts_with("## ")).last();
    page.path.as_os_str() == "README.md" && heading == Some("## Try it")
}

#[test]
fn every_block_says_what_it_is() {
    let mut wrong = Vec::new();
    for page in pages() {
        for block in page.blocks() {
            if block.kind.is_empty() && is_walk(&page, block.line) {
                continue;
            }
            if !KINDS.contains(&block.kind.as_str()) {
                wrong.push(format!(
                    "{}: a block of kind `{}`; known are {KINDS:?}",
                    page.at(block.line),
                    block.kind
                ));
            }
            if matches!(block.kind.as_str(), "text" | "json" | "ini" | "yaml")
                && block.lines.iter().any(|line| line.starts_with("$ "))
            {
                wrong.push(format!(
                    "{}: a command that nobody runs; make it a console block",
                    page.at(block.line)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
