//! Builds the XDP programs of the load generator, the sink and the handshakes and their skeletons.

use libbpf_cargo::SkeletonBuilder;
use std::env;
use std::path::PathBuf;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    println!("cargo::rerun-if-changed=bpf/traffic.h");
    for name in ["generate", "handshake", "sink"] {
        let source = format!("bpf/{name}.bpf.c");
        // Debian keeps <asm/types.h> in the architecture's own directory, where the BPF target does not look.
        SkeletonBuilder::new()
            .source(&source)
            .clang_args([
                format!("-I/usr/include/{arch}-linux-gnu"),
                "-Ibpf".to_owned(),
                // Atomic operations that return what was there before (Linux 5.12).
                "-mcpu=v3".to_owned(),
                "-Wall".to_owned(),
                "-Werror".to_owned(),
            ])
            .build_and_generate(out.join(format!("{name}.skel.rs")))
            .unwrap_or_else(|error| panic!("build {source} (needs clang and libbpf-dev): {error:#}"));
        println!("cargo::rerun-if-changed={source}");
    }
}
