//! `fwctl rule`: one rule more, less or another, in iptables' words.

use super::CliError;
use super::apply::{body, report};
use super::args::{RuleArgs, RuleEdit, RuleWords};
use super::client::Client;
use crate::api::types::{EditKind, EditRequest, Family};
use std::io::Write;

pub(super) fn run(
    client: &Client,
    args: &RuleArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    let RuleArgs { table, v4: _, v6, confirm, flows, comment, json, edit } = args;
    let (edit, RuleWords { chain, words }) = match edit {
        RuleEdit::Add(words) => (EditKind::Add, words),
        RuleEdit::Insert(words) => (EditKind::Insert, words),
        RuleEdit::Delete(words) => (EditKind::Delete, words),
        RuleEdit::Replace(words) => (EditKind::Replace, words),
    };
    let request = EditRequest {
        family: if *v6 { Family::V6 } else { Family::V4 },
        table: table.clone(),
        edit,
        chain: chain.clone(),
        words: words.clone(),
        flows: (*flows).into(),
        confirm_secs: *confirm,
        comment: comment.clone(),
    };
    let answer = client.post_bytes("/v1/rules/edit", body(&request)?)?;
    report(client, &answer, *json, out, err)
}
