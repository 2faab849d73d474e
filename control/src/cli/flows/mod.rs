//! `fwctl flows`: tracked flows and what happens to them, asked for and printed as conntrack(8) does it.

mod action;
pub(super) mod args;
mod change;
mod events;
mod expect;
mod facts;
mod list;
mod print;
mod save;
#[cfg(test)]
mod tests;
mod xml;

pub use action::{Format, Output};
pub(super) use action::{percent_encode, query};
pub use expect::{write_expect_event, write_expectation};
pub use print::{write_deleted, write_event, write_flow};

use super::CliError;
use super::client::Client;
use crate::api::types::{Family, UpdateRequest};
use action::{Action, filter};
use args::{FlowsArgs, TableArg};
use std::io::{self, Write};

pub(super) fn run(
    client: &Client,
    args: &FlowsArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    let action = Action::of(args)?;
    let (mut filter, output) = (filter(&args.filter)?, Output::of(args)?);
    let family = args.filter.family.map(Family::from);
    match action {
        Action::List(TableArg::Conntrack) => list::list(client, &filter, &output, out, err),
        Action::List(TableArg::Dying | TableArg::Unconfirmed) => {
            // Nothing of ours is ever there.
            said(err, 0, "flow entries have been shown", &output)?;
            Ok(0)
        }
        Action::Get => list::get(client, &filter, &output, out, err),
        Action::Count(TableArg::Conntrack) => list::count(client, &filter, &output, out),
        Action::Delete => change::delete(client, &filter, &output, out, err),
        Action::Update { mark, labels: _, timeout_secs } => {
            filter.mark = None;
            let label_add = (!args.label_add.is_empty()).then(|| args.label_add.join(","));
            let label_del = args.label_del.as_ref().map(|labels| labels.join(","));
            let request = UpdateRequest { filter, mark, label_add, label_del, timeout_secs };
            change::update(client, &request, &output, out, err)
        }
        Action::Flush(TableArg::Conntrack) => change::flush(client, &output, err),
        Action::Event(TableArg::Conntrack) => events::events(client, args, &filter, &output, out, err),
        Action::Stats => list::stats(client, out),
        Action::List(TableArg::Expect) => expect::list(client, family, &output, out, err),
        Action::Count(_) => expect::count(client, family, out),
        Action::Flush(_) => expect::flush(client, &output, err),
        Action::Event(_) => expect::events(client, family, &output, out, err),
    }
}

/// The last word, in conntrack's: that so many `flow entries have been shown`. JSON goes without.
fn said(err: &mut dyn Write, count: u64, what: &str, output: &Output) -> io::Result<()> {
    if output.is_json() {
        return Ok(());
    }
    writeln!(err, "fwctl v{}: {count} {what}.", env!("CARGO_PKG_VERSION"))
}
