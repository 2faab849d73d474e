//! The kernel as judge: the same frames, with the same gaps, through Linux (a bridge with br_netfilter, and a router)
//! and through Palisade's worker, tracker and rules. Compared per frame: forwarded or not, in which connection state,
//! what came back; then the lists of connections: tuple, state, flags and timer; and what is told of them meanwhile. No
//! expected value is written down anywhere.
//!
//! `kernel` is the judge in network namespaces, `ours` our side, `stage` drives both and compares, `list` and `hear` what is compared,
//! `talk` lets a scenario read as a conversation; the other files are scenarios. Needs root; skips otherwise. `PALISADE_SEED` and `PALISADE_PACKETS`
//! choose another or a longer random run.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod alter;
mod asked;
mod connlimit;
mod datagrams;
mod events;
mod expectations;
mod fragment_limits;
mod fragments;
mod headers;
mod hear;
mod join;
mod kernel;
mod labels;
mod list;
mod log;
mod ours;
mod packets;
mod random;
mod rates;
mod raw;
mod rules;
mod sctp;
mod sets;
mod stage;
mod talk;
mod tcp;
mod trace;
mod tracking;
mod trains;

/// Whether the judge can be called; says why not.
fn may_run() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: needs root");
    }
    is_root
}
