//! What Palisade's end-to-end tests stand on: namespaces joined by veth pairs ([`lab`]), the daemon and its tool as
//! child processes ([`daemon`]), a browser ([`browser`]), and traffic that checks itself ([`traffic`], [`frames`]).
//!
//! Everything here reports a failure by a panic with a sentence, as a test wants it, and cleans up on the way out. It
//! knows the programs under test by their command line only, so that what passes here is what an operator gets.

pub mod browser;
pub mod daemon;
pub mod frames;
pub mod lab;
pub mod openmetrics;
pub mod traffic;

/// Whether this process may make namespaces and attach XDP programs.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Ends the test, saying so, unless it runs as root.
#[macro_export]
macro_rules! require_root {
    () => {
        if !$crate::is_root() {
            eprintln!("skipped: needs root");
            return;
        }
    };
}
