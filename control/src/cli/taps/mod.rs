//! `fwctl capture`, `fwctl trace` and `fwctl drops`: packets as they go by, and those that were dropped.

pub(super) mod args;
mod capture;
mod drops;
mod filter;
mod rule;
mod trace;

pub(super) use capture::run as capture;
pub(super) use drops::run as drops;
pub(super) use trace::run as trace;

use super::CliError;
use super::client::Client;
use crate::api::types::TapFilter;
use args::TapArgs;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What the daemon is asked to look for.
fn tap_filter(client: &Client, args: &TapArgs) -> Result<TapFilter, CliError> {
    let rule = args.rule.as_deref().map(|rule| rule::find(client, rule, args.family.is_v6())).transpose()?;
    Ok(TapFilter {
        program: filter::compile(&args.filter.join(" "))?,
        interfaces: args.interfaces.clone(),
        drops: args.drops,
        reasons: args.reasons.clone(),
        rule,
        every: args.sample.unwrap_or(1),
        per_sec: args.rate.unwrap_or(0),
        count: args.count.unwrap_or(0),
        secs: args.time.unwrap_or(0).into(),
    })
}

/// A flag that is set when somebody stops us. The second time ends the process at once.
pub(super) fn until_stopped() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}
