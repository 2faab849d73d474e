//! The book in `docs/` and the README: every command they show is run, every configuration and rules file they show is
//! checked, every link leads somewhere, and what is generated is current.
//!
//! Fenced blocks say what they are, and a block that says nothing fails:
//!
//! | fence | what is done |
//! |---|---|
//! | `console` | each prompt's command is run in a lab, exit code and output compared ([`lab`]) |
//! | `toml` | read by the daemon's own reader; what a fragment leaves out is added |
//! | `iptables`, `ip6tables` | `fwctl check` finds nothing wrong; rules without a table stand in filter |
//! | `ipset` | read as `ipset save` prints it |
//! | `text`, `json`, `ini` | nothing: output, drawings, units |
//! | `..., file=PATH` | the block is written to that file first, for the page's commands |
//! | `..., ignore=REASON` | not run here; listed and counted by reason |
//!
//! The README's walk is run by `tests/walk.rs`.
//!
//! Pages that are generated are written by `PALISADE_BLESS=1 cargo test -p palisade-tests --test docs generated`, which
//! `./scripts/docs` does before it builds the book.

mod book;
mod console;
mod generated;
mod lab;
mod links;
mod snippets;
