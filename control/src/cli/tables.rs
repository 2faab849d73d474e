//! `fwctl recent` and `fwctl hashlimit`: what those rules keep of addresses, in the lines of the kernel's files.

use super::CliError;
use super::apply::body;
use super::args::{RecentArgs, TablesArgs};
use super::client::Client;
use super::flows::query;
use crate::api::types::{
    Family, HashlimitEntry, RecentChange, RecentEdit, RecentEntry, TableLine, TablesRequest,
};
use crate::packet_log::in_full;
use serde::de::DeserializeOwned;
use std::io::{self, Write};
use std::net::IpAddr;

/// `fwctl recent`.
pub(super) fn recent(client: &Client, args: &RecentArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let RecentArgs { tables, add, del, flush } = args;
    let change = (add.map(RecentChange::Add)).or(del.map(RecentChange::Del));
    let change = change.or(flush.then_some(RecentChange::Flush));
    match (change, &tables.name) {
        (Some(edit), Some(name)) => {
            client.post_bytes("/v1/recent", body(&RecentEdit { name: name.clone(), edit })?)?;
            Ok(())
        }
        _ => list(client, "recent", tables, out, write_recent),
    }
}

/// `fwctl hashlimit`.
pub(super) fn hashlimit(client: &Client, args: &TablesArgs, out: &mut dyn Write) -> Result<(), CliError> {
    list(client, "hashlimit", args, out, write_hashlimit)
}

fn list<E: DeserializeOwned>(
    client: &Client,
    kind: &str,
    args: &TablesArgs,
    out: &mut dyn Write,
    write: impl Fn(&E, &mut dyn Write) -> io::Result<()>,
) -> Result<(), CliError> {
    let TablesArgs { name, family, json } = args;
    let which = TablesRequest { name: name.clone(), family: family.map(Family::from) };
    let mut count = 0_u64;
    client.get_lines(&format!("/v1/{kind}{}", query(&which)), &mut |line| {
        let read: TableLine<E> = client.parse(line)?;
        count += u64::from(matches!(read, TableLine::Table { .. }));
        match read {
            _ if *json => {
                out.write_all(line)?;
                writeln!(out)?;
            }
            // One file of the kernel's has no name in it.
            TableLine::Table { name: found, family } if name.is_none() => {
                writeln!(out, "{}# {found} (IPv{})", if count > 1 { "\n" } else { "" }, family.number())?;
            }
            TableLine::Table { .. } => {}
            TableLine::Entry(entry) => write(&entry, out)?,
        }
        Ok(())
    })?;
    match name {
        Some(name) if count == 0 => {
            Err(CliError::Wrong(format!("no rule in force has a {kind} table named `{name}`")))
        }
        _ => Ok(()),
    }
}

/// A line of `/proc/net/xt_recent/NAME`.
fn write_recent(entry: &RecentEntry, out: &mut dyn Write) -> io::Result<()> {
    let RecentEntry { address, ttl, last_seen, oldest_pkt, stamps } = entry;
    let src = full(*address);
    write!(out, "src={src} ttl: {ttl} last_seen: {last_seen} oldest_pkt: {oldest_pkt}")?;
    for (at, stamp) in stamps.iter().enumerate() {
        write!(out, "{} {stamp}", if at == 0 { "" } else { "," })?;
    }
    writeln!(out)
}

/// A line of `/proc/net/ipt_hashlimit/NAME`.
fn write_hashlimit(entry: &HashlimitEntry, out: &mut dyn Write) -> io::Result<()> {
    let HashlimitEntry { expires_secs, src, sport, dst, dport, credit, credit_cap, cost } = entry;
    let (src, dst) = (full(*src), full(*dst));
    writeln!(out, "{expires_secs} {src}:{sport}->{dst}:{dport} {credit} {credit_cap} {cost}")
}

fn full(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => in_full(address),
    }
}
