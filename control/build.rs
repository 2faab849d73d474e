//! Notes facts about this build for `fwctl version` and `fwd --version`.
//!
//! The commit is `PALISADE_COMMIT` where that is set, as `scripts/package` does; else what git says of the checkout, in
//! optimised builds only. A development build knows none: it would have to be built anew after every commit. Without git,
//! from a source archive for example, the commit is unknown and everything else is as usual.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=PALISADE_COMMIT");
    let optimised = variable("PROFILE") == "release";
    let commit = variable("PALISADE_COMMIT");
    let commit = if commit.is_empty() && optimised { checked_out().unwrap_or_default() } else { commit };
    fact("COMMIT", &commit);
    fact("TARGET", &variable("TARGET"));
    fact("PROFILE", &profile());
    fact("OPT_LEVEL", &variable("OPT_LEVEL"));
    fact("RUSTC", &said(&variable("RUSTC"), &["--version"]).unwrap_or_default());
    fact("CPU_FEATURES", &variable("CARGO_CFG_TARGET_FEATURE"));
    fact("FEATURES", &features());
}

fn fact(name: &str, value: &str) {
    println!("cargo:rustc-env=PALISADE_BUILD_{name}={value}");
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// What a program prints; `None` if it is not there or fails.
fn said(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// The commit, and whether files have been changed since.
fn checked_out() -> Option<String> {
    // Every commit, checkout and rebase adds a line there, also in a worktree.
    let log = said("git", &["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo:rerun-if-changed={log}");
    }
    said("git", &["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
}

/// The profile's own name: `PROFILE` says release for everything that is made like a release.
fn profile() -> String {
    let out = variable("OUT_DIR");
    // target/[TRIPLE/]PROFILE/build/control-0123/out
    let name = Path::new(&out).ancestors().nth(3).and_then(Path::file_name);
    name.map_or_else(|| variable("PROFILE"), |name| name.to_string_lossy().into_owned())
}

/// Cargo's features of this crate, as cargo writes them in the environment.
fn features() -> String {
    let mut names: Vec<String> = env::vars_os()
        .filter_map(|(name, _)| name.to_str()?.strip_prefix("CARGO_FEATURE_").map(str::to_ascii_lowercase))
        .map(|name| name.replace('_', "-"))
        .collect();
    names.sort();
    names.join(",")
}
