use super::*;
use crate::api::backend::Peer;
use std::os::unix::fs::PermissionsExt as _;

fn record(what: &str) -> Record {
    Record {
        action: "sysctl".to_owned(),
        what: what.to_owned(),
        who: Who::daemon("test"),
        ..Record::default()
    }
}

fn whats(report: &AuditReport) -> Vec<&str> {
    report.records.iter().map(|record| record.what.as_str()).collect()
}

#[test]
fn records_are_lines_that_read_back_and_others_may_not_read_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let log = AuditLog::in_file(&path, 1 << 20, 3);
    log.write(record("one"));
    log.write(Record {
        before: 30.into(),
        after: 7.into(),
        result: Outcome::Refused,
        ..record("line\nbreak")
    });
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 2);
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert!(first["time"].as_str().unwrap().ends_with('Z') && first.get("before").is_none(), "{first}");
    let report = log.last(10);
    assert_eq!((whats(&report), report.lost, &report.trouble), (vec!["one", "line\nbreak"], 0, &None));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    // Another daemon goes on with it, behind whatever a full disk has left of a line.
    std::fs::write(&path, format!("{text}{{\"time\":\"half")).unwrap();
    let log = AuditLog::in_file(&path, 1 << 20, 3);
    log.write(record("two"));
    assert_eq!(whats(&log.last(2)), ["line\nbreak", "two"]);
}

#[test]
fn a_file_has_its_size_and_older_ones_are_kept_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let log = AuditLog::in_file(&path, 1000, 3);
    for number in 0..40 {
        log.write(record(&number.to_string()));
    }
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["audit.log", "audit.log.1", "audit.log.2"]);
    for name in &names {
        assert!(std::fs::metadata(dir.path().join(name)).unwrap().len() <= 1000);
    }
    let report = log.last(12);
    assert_eq!(whats(&report), (28..40).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(log.last(RECORDS_MAX).records.len() < 40, "the oldest are gone");
}

#[test]
fn a_file_that_was_put_aside_by_others_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let log = AuditLog::in_file(&path, 1 << 20, 3);
    log.write(record("one"));
    std::fs::rename(&path, dir.path().join("old")).unwrap();
    log.write(record("two"));
    assert_eq!(std::fs::read_to_string(dir.path().join("old")).unwrap().lines().count(), 1);
    assert_eq!(whats(&log.last(10)), ["two"]);
}

#[test]
fn what_cannot_be_written_is_counted_remembered_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gone").join("audit.log");
    let log = AuditLog::in_file(&path, 1 << 20, 3);
    log.write(record("one"));
    let report = log.last(10);
    assert_eq!((whats(&report), report.lost), (vec!["one"], 1));
    assert!(report.trouble.unwrap().contains("cannot be written"));
    // Once it can be written again, it is.
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    log.write(record("two"));
    let report = log.last(10);
    assert_eq!((whats(&report), report.lost, &report.trouble), (vec!["one", "two"], 1, &None));
    // A device that takes nothing.
    let full = AuditLog::in_file(Path::new("/dev/full"), 1 << 20, 3);
    full.write(record("three"));
    assert_eq!((full.last(1).lost, whats(&full.last(1))), (1, vec!["three"]));
    // One that takes everything has no size to be put aside for.
    let null = dir.path().join("null");
    std::os::unix::fs::symlink("/dev/null", &null).unwrap();
    let log = AuditLog::in_file(&null, 10, 3);
    (0..3).for_each(|_| log.write(record("four")));
    assert!(null.is_symlink() && !dir.path().join("null.1").is_symlink());
}

#[test]
fn without_a_file_the_last_ones_are_remembered() {
    let log = AuditLog::default();
    for number in 0..REMEMBERED + 5 {
        log.write(record(&number.to_string()));
    }
    let report = log.last(RECORDS_MAX);
    assert_eq!((report.records.len(), report.file, report.lost), (REMEMBERED, None, 0));
    assert_eq!(report.records[0].what, "5");
}

#[test]
fn long_texts_are_cut_and_the_process_is_named() {
    let log = AuditLog::default();
    log.write(record(&"ä".repeat(5000)));
    let what = &log.last(1).records[0].what;
    assert!(what.len() < TEXT_MAX + 40 && what.ends_with("(5904 bytes more)"), "{}", what.len());
    let own = Peer { uid: Some(0), pid: Some(std::process::id().cast_signed()) };
    let who = Who::of(own);
    assert_eq!((who.uid, who.user.as_str()), (Some(0), "root"));
    assert!(who.command.is_some_and(|command| command.contains("control")));
    assert_eq!(Who::of(Peer { uid: Some(4_000_000_000), pid: None }).user, "4000000000");
}
