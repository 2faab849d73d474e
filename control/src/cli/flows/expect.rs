//! `fwctl flows -L expect` and its kin: connections that helpers expect.

use super::super::client::Client;
use super::action::{Format, Output};
use super::events::{listen, lost};
use super::print::{tag, write_json};
use super::xml::{self, Document};
use super::{CliError, said};
use crate::api::types::{ExpectEventRow, ExpectMaster, ExpectRow, Family, FlowKey, Tally};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{SystemTime, UNIX_EPOCH};

fn query(family: Option<Family>) -> String {
    family.map_or_else(String::new, |family| format!("?family={}", family.number()))
}

fn expected(client: &Client, family: Option<Family>) -> Result<Vec<ExpectRow>, CliError> {
    client.get(&format!("/v1/expectations{}", query(family)))
}

/// `-L expect`.
pub(super) fn list(
    client: &Client,
    family: Option<Family>,
    output: &Output,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    let rows = expected(client, family)?;
    let mut document = Document::of("expect", output);
    for row in &rows {
        match (output.format, &mut document) {
            (Format::Json, _) => write_json(row, out)?,
            (_, Some(document)) => {
                document.open(out)?;
                xml::write_expectation(row, None, output, out)?;
            }
            _ => {
                if output.timestamp {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    write_time(u64::try_from(now.as_micros()).unwrap_or_default(), out)?;
                }
                write_expectation(row, out)?;
            }
        }
    }
    if let Some(document) = document {
        document.close(out)?;
    }
    out.flush()?;
    said(err, rows.len() as u64, "expectations have been shown", output)?;
    Ok(0)
}

/// `-C expect`.
pub(super) fn count(client: &Client, family: Option<Family>, out: &mut dyn Write) -> Result<u8, CliError> {
    writeln!(out, "{}", expected(client, family)?.len())?;
    Ok(0)
}

/// `-F expect`.
pub(super) fn flush(client: &Client, output: &Output, err: &mut dyn Write) -> Result<u8, CliError> {
    let Tally { .. } = client.parse(&client.post_bytes("/v1/expectations/flush", Vec::new())?)?;
    if !output.is_json() {
        writeln!(err, "fwctl v{}: expectation table has been emptied.", env!("CARGO_PKG_VERSION"))?;
    }
    Ok(0)
}

/// `-E expect`.
pub(super) fn events(
    client: &Client,
    family: Option<Family>,
    output: &Output,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    let target = format!("/v1/expectations/events{}", query(family));
    let document = Document::of("expect", output);
    let mut is_wanted = |row: &ExpectEventRow| {
        lost(row.lost, err)?;
        Ok(true)
    };
    let shown = listen(client, &target, document, out, &mut is_wanted, |row, out| {
        write_expect_event(row, output, out)
    })?;
    said(err, shown, "expectation events have been shown", output)?;
    Ok(0)
}

/// One line of `conntrack -E expect`.
///
/// # Errors
/// If it cannot be written.
pub fn write_expect_event(row: &ExpectEventRow, output: &Output, out: &mut dyn Write) -> io::Result<()> {
    match output.format {
        Format::Json => return write_json(row, out),
        Format::Xml => {
            return xml::write_expectation(&row.expectation, Some((row.kind, row.at_us)), output, out);
        }
        Format::Line | Format::Save => {}
    }
    if output.timestamp {
        write_time(row.at_us, out)?;
    }
    write!(out, "{:>9} ", tag(row.kind))?;
    write_expectation(&row.expectation, out)
}

/// Here conntrack does not fill the fraction up with zeroes, as it does for flows.
fn write_time(micros: u64, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "[{:<8}.{:<6}]\t", micros / 1_000_000, micros % 1_000_000)
}

/// One line of `conntrack -L expect`.
///
/// # Errors
/// If it cannot be written.
pub fn write_expectation(row: &ExpectRow, out: &mut dyn Write) -> io::Result<()> {
    let ExpectRow { family, proto, timeout_secs, src, dst, dport, master, helper, zone: _ } = row;
    let mask = mask(*family);
    write!(out, "{timeout_secs} proto={proto} src={src} dst={dst} sport=0 dport={dport} ")?;
    write!(out, "mask-src={mask} mask-dst={mask} sport=0 dport=65535 ")?;
    let ExpectMaster { src, dst, key } = master;
    write!(out, "master-src={src} master-dst={dst} ")?;
    if let FlowKey::Ports { sport, dport } = key {
        write!(out, "sport={sport} dport={dport} ")?;
    }
    writeln!(out, "class=0 helper={helper}")
}

/// The mask of an expectation's addresses: all of their bits count.
pub(super) fn mask(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::BROADCAST.into(),
        Family::V6 => Ipv6Addr::from_bits(u128::MAX).into(),
    }
}
