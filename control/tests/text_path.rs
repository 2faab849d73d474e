//! Rules and sets as text through everything that reads it: whatever comes in, nothing fails, nothing takes long, and what is good
//! means the same after it was printed.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail loudly")]

use control::api::types::EditKind;
use control::diff::diff;
use control::iptables::edit::{Edit, Edited, edit, line_of};
use control::iptables::printer;
use control::rules_file::{Rules, understand};
use control::sets::{self, Store};
use dataplane::packet::Family;
use dataplane::rules::Compiled;
use dataplane::rules::model::{Chain, Policy, RuleId, Ruleset, Table};
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SAMPLES: [&str; 4] = [
    include_str!("data/rules/gateway4.rules"),
    include_str!("data/rules/gateway6.rules"),
    include_str!("data/rules/stateless4.rules"),
    include_str!("data/rules/minimal4.rules"),
];

/// Longest that a small file may take; by far more than it does, as machines may be busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// Lines that every reader has an opinion on.
fn lines(name: &str) -> Vec<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// Table, name, policy and rules of a chain.
type ChainRules = (String, String, Option<Policy>, Vec<RuleId>);

/// The rules of every chain, by name: printing sorts chains, and jumps are told by the rules' ids.
fn by_name(ruleset: &Ruleset) -> HashSet<ChainRules> {
    let ids = |chain: &Chain| chain.rules.iter().map(|rule| rule.id).collect();
    let chains = ruleset.chains.iter();
    chains
        .map(|chain| (chain.table.name().to_owned(), chain.name.clone(), chain.policy, ids(chain)))
        .collect()
}

/// Reads, warns, compiles, prints, reads again, compares, edits.
fn through_everything(text: &[u8], family: Family, words: &[String]) {
    let start = Instant::now();
    let loaded = understand(text, "t", family, &[]);
    for found in &loaded.diagnostics {
        let _ = found.render(text, "t", false);
        let _ = found.to_json(text, "t");
    }
    if let Some(rules) = Rules::from_loaded(loaded) {
        let names = ["left".to_owned(), "right".to_owned()];
        let _ = Compiled::new(Arc::clone(&rules.ruleset), &names);
        let printed = printer::save(&rules.file, None);
        let again = Rules::from_loaded(understand(printed.as_bytes(), "t", family, &[])).unwrap();
        assert_eq!(by_name(&rules.ruleset), by_name(&again.ruleset), "{printed}");
        assert_eq!(printed, printer::save(&again.file, None));
        let report = diff(&rules, &again, &HashMap::new());
        assert!(report.chains.is_empty(), "{report:?}");
        for kind in [EditKind::Add, EditKind::Insert, EditKind::Delete, EditKind::Replace] {
            let wanted = Edit { kind, table: Table::Filter, chain: "FORWARD", words };
            let _ = line_of(wanted);
            if let Ok(Edited { ruleset, file, .. }) =
                edit(&rules.ruleset, &rules.file, wanted, |text| understand(text, "t", family, &[]))
            {
                let printed = printer::save(&file, None);
                let read = Rules::from_loaded(understand(printed.as_bytes(), "t", family, &[])).unwrap();
                assert_eq!(by_name(&read.ruleset), by_name(&ruleset), "{printed}");
            }
        }
    }
    assert!(start.elapsed() < PATIENCE, "{:?} for {:?}", start.elapsed(), String::from_utf8_lossy(text));
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "-p",
            "tcp",
            "-j",
            "DROP",
            "!",
            "-s",
            "10.0.0.0/8",
            "--dport",
            "80",
            "1",
            "-m",
            "comment",
            "--comment",
            "-A",
            "FORWARD",
            "-t",
            "COMMIT",
            "*filter",
            "\"",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..3000), words in prop::collection::vec(word(), 0..6)) {
        for family in [Family::V4, Family::V6] {
            through_everything(&bytes, family, &words);
            through_everything(&[b"*filter\n", bytes.as_slice(), b"\nCOMMIT\n"].concat(), family, &words);
        }
    }

    #[test]
    fn good_rules_gone_wrong(
        sample in prop::sample::select(SAMPLES.as_slice()),
        changes in prop::collection::vec((any::<Index>(), any::<Index>(), 0..6_u8), 0..12),
        words in prop::collection::vec(word(), 0..6),
    ) {
        let mut lines: Vec<String> = sample.lines().map(str::to_owned).collect();
        for (one, other, how) in changes {
            let (one, other) = (one.index(lines.len()), other.index(lines.len()));
            match how {
                0 => { lines.remove(one); }
                1 => { let line = lines[one].clone(); lines.insert(other, line); }
                2 => lines.swap(one, other),
                3 => { let tail = lines[other].clone(); lines[one].push(' '); lines[one].push_str(&tail); }
                4 => lines[one] = lines[one].split(' ').rev().collect::<Vec<_>>().join(" "),
                _ => {
                    let words: Vec<&str> = lines[one].split(' ').collect();
                    let skipped = other % words.len();
                    let kept = words.iter().enumerate().filter(|(at, _)| *at != skipped).map(|(_, word)| *word);
                    lines[one] = kept.collect::<Vec<_>>().join(" ");
                }
            }
            if lines.is_empty() {
                lines.push("COMMIT".to_owned());
            }
        }
        for family in [Family::V4, Family::V6] {
            through_everything(lines.join("\n").as_bytes(), family, &words);
        }
    }
}

/// A file of sets read, carried out, listed in every form, printed and read again; and each of its lines by itself.
fn sets_through_everything(text: &[u8]) {
    let start = Instant::now();
    let services = sets::file::services();
    let store = Store::new(&["left".to_owned(), "right".to_owned()]);
    if let Err(found) = store.restore(text, true, &services) {
        let rendered: Vec<_> = found.iter().map(|found| found.render(text, "t", false)).collect();
        assert!(rendered.iter().all(|found| found.contains("t:")), "{rendered:?}");
    }
    for line in text.split(|byte| *byte == b'\n') {
        let _ = store.command(line, &services);
    }
    for form in ["list", "list -o xml", "list -t", "list -n"] {
        store.command(form.as_bytes(), &services).unwrap();
    }
    let save = |store: &Store| store.command(b"-sorted save", &services).unwrap().text;
    let (saved, again) = (save(&store), Store::new(&[]));
    again.restore(saved.as_bytes(), false, &services).unwrap();
    assert_eq!(save(&again), saved);
    assert!(start.elapsed() < PATIENCE, "{:?} for {:?}", start.elapsed(), String::from_utf8_lossy(text));
}

/// Lines about sets that are good, or nearly: few enough elements that anything may become of their ranges.
fn set_lines() -> Vec<String> {
    lines("sets.txt").into_iter().filter(|line| !line.contains("timeout")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn random_bytes_as_sets(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        sets_through_everything(&bytes);
        sets_through_everything(&[b"create a hash:ip comment\nadd a 10.0.0.1 comment \"", bytes.as_slice()].concat());
    }

    #[test]
    fn good_sets_gone_wrong(
        picked in prop::collection::vec((any::<Index>(), any::<Index>(), 0..5_u8), 1..40),
    ) {
        let known = set_lines();
        let mut text = known.iter().filter(|line| line.starts_with("create")).cloned().collect::<Vec<_>>();
        for (one, other, how) in picked {
            let (line, other) = (one.get(&known), other.get(&known));
            let (words, others): (Vec<_>, Vec<_>) = (line.split(' ').collect(), other.split(' ').collect());
            text.push(match how {
                // One word of another line in place of its own, its end another's, one word less.
                0 => [&words[..words.len() - 1], &others[others.len() - 1..]].concat().join(" "),
                1 => format!("{line} {}", others[others.len() / 2..].join(" ")),
                2 => words[..words.len() - 1].join(" "),
                _ => line.clone(),
            });
        }
        sets_through_everything(text.join("\n").as_bytes());
        // And only those that are good, so that files with many sets are printed and read, too.
        let store = Store::new(&[]);
        let services = sets::file::services();
        let good = text.into_iter().filter(|line| store.command(line.as_bytes(), &services).is_ok());
        sets_through_everything(good.collect::<Vec<_>>().join("\n").as_bytes());
    }
}

#[test]
fn every_line_that_iptables_was_asked_about() {
    for (name, family) in [("lines4.txt", Family::V4), ("lines6.txt", Family::V6)] {
        for line in lines(name) {
            let words: Vec<String> = line.split(' ').skip(2).map(str::to_owned).collect();
            through_everything(format!("*filter\n:FOO - [0:0]\n{line}\nCOMMIT\n").as_bytes(), family, &words);
        }
    }
}
