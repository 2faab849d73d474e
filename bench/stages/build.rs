//! Notes which compiler this is built with: instructions are only comparable between builds of one.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=RUSTC");
    let rustc = env::var_os("RUSTC").expect("cargo says which compiler it uses");
    let output = Command::new(rustc).arg("--version").output().expect("the compiler runs");
    let version = String::from_utf8_lossy(&output.stdout);
    // `rustc 1.95.0 (59807616e 2026-04-14)`
    let number = version.split(' ').nth(1).unwrap_or("unknown");
    println!("cargo::rustc-env=STAGES_RUSTC={number}");
}
