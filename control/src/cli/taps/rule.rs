//! Rules as operators name them: by place, or by id.

use crate::api::types::{ChainView, RulesView};
use crate::cli::CliError;
use crate::cli::client::Client;

/// A rule's id, of `CHAIN:NUMBER`, `TABLE/CHAIN:NUMBER`, or itself.
pub(super) fn find(client: &Client, name: &str, is_v6: bool) -> Result<String, CliError> {
    if name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(name.to_ascii_lowercase());
    }
    let wrong = |why: String| CliError::Usage(format!("--rule {name}: {why}"));
    let (chain, number) = name
        .rsplit_once([':', ' '])
        .and_then(|(chain, number)| Some((chain, number.parse::<u32>().ok()?)))
        .ok_or_else(|| {
            wrong("a rule is CHAIN:NUMBER, TABLE/CHAIN:NUMBER or an id of 16 digits".to_owned())
        })?;
    let (table, chain) = chain.split_once('/').unwrap_or(("filter", chain));
    let family = if is_v6 { 6 } else { 4 };
    let views: Vec<RulesView> = client.get(&format!("/v1/rules?family={family}"))?;
    let is_it = |view: &&ChainView| view.table == table && view.name == chain;
    let found = views.iter().flat_map(|view| &view.chains).find(is_it);
    let found = found.ok_or_else(|| wrong(format!("table {table} of IPv{family} has no chain {chain}")))?;
    let rule = found.rules.iter().find(|rule| rule.num == number);
    let rule = rule.ok_or_else(|| {
        wrong(match found.rules.len() {
            0 => format!("chain {chain} has no rules"),
            last => format!("chain {chain} has rules 1 to {last}"),
        })
    })?;
    Ok(rule.id.clone())
}
