//! Compiles the XDP program and generates its skeleton.

use libbpf_cargo::SkeletonBuilder;
use std::path::PathBuf;
use std::{env, process};

fn main() {
    const SOURCE: &str = "src/palisade.bpf.c";
    println!("cargo:rerun-if-changed={SOURCE}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("palisade.skel.rs");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets the target");
    // Debian keeps asm/types.h in a directory named after the machine; clang's bpf target does not look there.
    let include = format!("-I/usr/include/{arch}-linux-gnu");
    if let Err(error) = SkeletonBuilder::new().source(SOURCE).clang_args([include]).build_and_generate(&out) {
        eprintln!("cannot compile {SOURCE}: {error:?}");
        eprintln!("needed: clang, libelf-dev, zlib1g-dev, linux-libc-dev (apt-get install them)");
        process::exit(1);
    }
}
