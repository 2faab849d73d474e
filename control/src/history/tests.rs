//! The history on disk and in memory.

use super::*;
use crate::rules_file::{Rules, understand};

fn both(rules: &str) -> BothRules {
    let text = format!("*filter\n{rules}\nCOMMIT\n");
    let v4 = Rules::from_loaded(understand(text.as_bytes(), "t", Family::V4, &[])).unwrap();
    BothRules { v4: Arc::new(v4), v6: Arc::new(Rules::empty(Family::V6)) }
}

fn note(what: &str) -> Note {
    Note { who: "root".to_owned(), what: what.to_owned(), ..Note::default() }
}

fn numbers(history: &History) -> Vec<u64> {
    history.entries().map(|entry| entry.number).collect()
}

#[test]
fn rulesets_survive_the_daemon_and_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = History::open(dir.path(), 3);
    let first = both("-A FORWARD -j DROP");
    assert_eq!(history.start(&first, note("start")), 1);
    let second = BothRules { v4: Arc::clone(&both("-A FORWARD -j ACCEPT").v4), v6: Arc::clone(&first.v6) };
    assert_eq!(history.record(&second, Note { comment: Some("why".into()), ..note("apply") }), 2);
    assert_eq!(history.before(), Ok(1));
    assert!(history.texts(1).unwrap().v4.contains("-A FORWARD -j DROP"));
    drop(history);

    let mut history = History::open(dir.path(), 3);
    assert_eq!(history.trouble(), None);
    assert_eq!(history.entries().last().unwrap().comment.as_deref(), Some("why"));
    assert_eq!(history.start(&second, note("start")), 2, "the same rules are the same entry");
    assert_eq!(history.record(&first, note("apply")), 3);
    assert_eq!(history.record(&second, note("apply")), 4);
    assert_eq!(numbers(&history), [2, 3, 4]);
    let error = history.texts(1).unwrap_err();
    assert_eq!(error, "there is no ruleset 1 in the history; there are 2 to 4");
    assert!(
        history.texts(2).unwrap().v6.starts_with("*filter"),
        "shared files outlive the first that had them"
    );
    let files = std::fs::read_dir(dir.path().join("history")).unwrap().count();
    assert_eq!(files, 9, "three files each");
}

#[test]
fn rollbacks_go_further_back_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = History::open(dir.path(), 20);
    let rules = both("-A FORWARD -j DROP");
    history.start(&rules, note("start"));
    history.record(&rules, note("apply"));
    history.record(&rules, note("apply"));
    let back = |history: &mut History| {
        let restores = history.before()?;
        history.record(&rules, Note { restores: Some(restores), ..note("rollback") });
        Ok::<_, String>(restores)
    };
    assert_eq!(back(&mut history), Ok(2));
    assert_eq!(back(&mut history), Ok(1));
    assert!(back(&mut history).is_err());
    assert_eq!(history.running(), 5);
}

#[test]
fn what_was_not_confirmed_when_the_daemon_ended_is_rolled_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut history = History::open(dir.path(), 20);
    history.record(&both("-A FORWARD -j DROP"), Note { unconfirmed: true, ..note("apply") });
    drop(history);
    let history = History::open(dir.path(), 20);
    assert_eq!(history.entries().last().unwrap().outcome, Outcome::RolledBack);
}

#[test]
fn without_a_disk_it_is_in_memory_and_says_so() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut history = History::open(file.path(), 2);
    assert!(history.trouble().is_some() && history.dir().is_none());
    let rules = both("-A FORWARD -j DROP");
    assert_eq!(history.record(&rules, note("apply")), 1);
    assert!(history.texts(1).unwrap().v4.contains("DROP"));
    history.record(&rules, note("apply"));
    history.record(&rules, note("apply"));
    assert_eq!(numbers(&history), [2, 3]);
}

#[test]
fn a_directory_has_one_daemon_and_damaged_entries_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = History::open(dir.path(), 20);
    first.record(&both("-A FORWARD -j DROP"), note("apply"));
    assert!(History::open(dir.path(), 20).trouble().unwrap().contains("another daemon"));
    drop(first);
    std::fs::write(dir.path().join("history/000002.json"), "{").unwrap();
    let history = History::open(dir.path(), 20);
    assert!(history.trouble().unwrap().contains("000002.json"));
    assert_eq!(numbers(&history), [1]);
}
