use super::*;
use std::os::unix::fs::PermissionsExt as _;

fn daemon() -> Identity {
    identity("daemon").unwrap()
}

#[test]
fn users_are_found_and_missing_ones_say_how_to_make_them() {
    assert_eq!(target("root"), Ok(Target::Stay(None)));
    let user = daemon();
    assert_eq!((user.name.as_str(), user.uid), ("daemon", 1));
    assert_eq!(
        identity("daemon:nogroup").unwrap().gid,
        Group::from_name("nogroup").unwrap().unwrap().gid.as_raw()
    );
    let error = target("no-such-user").unwrap_err();
    assert!(error.contains("useradd --system") && error.contains("no-such-user"), "{error}");
    assert!(identity("daemon:no-such-group").unwrap_err().contains("groupadd"));
}

#[test]
fn modes_say_who_may_what() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.v4");
    fs::write(&file, "").unwrap();
    let stranger = Identity { name: "x".to_owned(), uid: 4_000_000, gid: 4_000_000, groups: vec![4_000_001] };
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    set(dir.path(), 0o700);
    assert!(stranger.reads(&file).unwrap_err().contains("cannot be entered"));
    set(dir.path(), 0o711);
    set(&file, 0o640);
    assert!(stranger.reads(&file).unwrap_err().contains("chmod g+r"));
    set(&file, 0o644);
    assert_eq!(stranger.reads(&file), Ok(()));
    let own = fs::metadata(&file).unwrap();
    let member = Identity { groups: vec![own.gid()], ..stranger };
    set(&file, 0o640);
    assert_eq!(member.reads(&file), Ok(()));
}

#[test]
fn only_our_own_files_and_directories_are_handed_over() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let owner = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
    // A state directory of a daemon that ran as root.
    let state = dir.path().join("state");
    fs::create_dir_all(state.join("history")).unwrap();
    let files = ["lock", "audit.log", "audit.log.1", "history/000001.v4", "history/000001.json"];
    for file in files {
        fs::write(state.join(file), "").unwrap();
    }
    hand_over_dir(&state, 0o700, &daemon()).unwrap();
    for path in files.iter().map(|file| state.join(file)).chain([state.clone(), state.join("history")]) {
        assert_eq!(owner(&path), 1, "{}", path.display());
    }
    // A new one.
    let new = dir.path().join("run/palisade");
    hand_over_dir(&new, 0o755, &daemon()).unwrap();
    assert_eq!(owner(&new), 1);
    // Somebody else's, named by mistake.
    let foreign = dir.path().join("etc");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("passwd"), "").unwrap();
    fs::write(foreign.join("audit.log"), "").unwrap();
    let error = hand_over_dir(&foreign, 0o755, &daemon()).unwrap_err();
    assert!(error.contains("not ours") && error.contains("chown daemon"), "{error}");
    assert_eq!(
        (owner(&foreign), owner(&foreign.join("passwd")), owner(&foreign.join("audit.log"))),
        (0, 0, 0)
    );
    // A link in the place of one of ours leads nowhere.
    let target = dir.path().join("shadow");
    fs::write(&target, "").unwrap();
    let linked = dir.path().join("linked");
    fs::create_dir(&linked).unwrap();
    std::os::unix::fs::symlink(&target, linked.join("audit.log")).unwrap();
    hand_over_dir(&linked, 0o700, &daemon()).unwrap();
    assert_eq!(owner(&target), 0);
}

#[test]
fn what_a_thread_gives_up_is_gone() {
    let (before, after) = std::thread::spawn(|| {
        let before = rustix::thread::capabilities(None).unwrap();
        set(CapabilitySet::empty()).unwrap();
        (before, rustix::thread::capabilities(None).unwrap())
    })
    .join()
    .unwrap();
    assert!(after.permitted.is_empty() && after.effective.is_empty() && after.inheritable.is_empty());
    assert_eq!(rustix::thread::capabilities(None).unwrap(), before, "threads have rights of their own");
}
