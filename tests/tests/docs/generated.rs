//! Pages that are made from the code, so that they cannot be wrong about it.

use super::book::root;
use std::fs;

mod api;
mod cli;
mod config;
mod drops;
mod metrics;

/// How a file is made.
type Make = fn() -> String;

/// Generated files.
const FILES: [(&str, Make); 6] = [
    ("docs/src/api/openapi.json", || control::api::openapi::text().to_owned()),
    ("docs/src/api/reference.md", api::page),
    ("docs/src/reference/cli.md", cli::page),
    ("docs/src/reference/config.md", config::page),
    ("docs/src/concepts/drops.md", drops::page),
    ("docs/src/reference/metrics.md", metrics::page),
];

#[test]
fn generated_pages_are_current() {
    let bless = std::env::var_os("PALISADE_BLESS").is_some();
    let mut old = Vec::new();
    for (path, make) in FILES {
        let (file, text) = (root().join(path), make());
        if fs::read_to_string(&file).is_ok_and(|have| have == text) {
            continue;
        }
        if bless {
            if let Some(dir) = file.parent() {
                fs::create_dir_all(dir).expect("the book's directory can be written");
            }
            fs::write(&file, text).unwrap_or_else(|error| panic!("write {path}: {error}"));
            println!("written: {path}");
        } else {
            old.push(path);
        }
    }
    assert!(
        old.is_empty(),
        "not current: {old:?}; run PALISADE_BLESS=1 cargo test -p palisade-tests --test docs generated"
    );
}

/// A cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ").replace('<', "&lt;")
}
