//! What `recent` and `hashlimit` rules keep of addresses: looked at and changed beside the workers, which never wait
//! for it. Threads of the server.

use super::LiveBackend;
use crate::api::address;
use crate::api::backend::ApplyError;
use crate::api::types::{
    ErrorKind, Family, HashlimitEntry, RecentChange, RecentEdit, RecentEntry, TableLine, TablesRequest,
};
use dataplane::packet;
use dataplane::rules::rate::{HashRow, RecentRow};
use std::net::IpAddr;
use std::ops::ControlFlow;

/// Tables of one kind with their families and names.
type Named<T> = Vec<(packet::Family, Box<str>, T)>;

impl LiveBackend {
    /// Goes through `recent` lists.
    pub(super) fn list_recent(
        &self,
        which: &TablesRequest,
        each: &mut dyn FnMut(TableLine<RecentEntry>) -> ControlFlow<()>,
    ) {
        walk(self.publisher.tables().recent(), which, each, |list, family, each| {
            list.rows().try_for_each(|RecentRow { address: bits, ttl, stamps, next, last }| {
                let address = address(bits, family);
                each(RecentEntry { address, ttl, last_seen: last, oldest_pkt: next, stamps })
            })
        });
    }

    /// Goes through `hashlimit` tables.
    pub(super) fn list_hashlimit(
        &self,
        which: &TablesRequest,
        each: &mut dyn FnMut(TableLine<HashlimitEntry>) -> ControlFlow<()>,
    ) {
        let now = self.now();
        walk(self.publisher.tables().hash(), which, each, |table, family, each| {
            table.rows(now).try_for_each(|row| {
                let HashRow { src, dst, src_port, dst_port, expires_in, credit, credit_cap, cost } = row;
                each(HashlimitEntry {
                    expires_secs: expires_in / 1000,
                    src: address(src, family),
                    sport: src_port,
                    dst: address(dst, family),
                    dport: dst_port,
                    credit,
                    credit_cap,
                    cost,
                })
            })
        });
    }

    /// Changes a `recent` list.
    pub(super) fn change_recent(&self, request: &RecentEdit) -> Result<(), ApplyError> {
        let RecentEdit { name, edit } = request;
        let family = match edit {
            RecentChange::Add(address) | RecentChange::Del(address) => {
                Some(if address.is_ipv4() { Family::V4 } else { Family::V6 })
            }
            RecentChange::Flush => None,
        };
        let which = TablesRequest { name: Some(name.clone()), family };
        let lists = wanted(self.publisher.tables().recent(), &which);
        if lists.is_empty() {
            let of = match family {
                Some(Family::V4) => "IPv4 ",
                Some(Family::V6) => "IPv6 ",
                None => "",
            };
            let message = format!("no {of}rule in force has a recent list named `{name}`");
            return Err(ApplyError::new(ErrorKind::NotFound, message));
        }
        for (_, _, list) in lists {
            match edit {
                RecentChange::Add(address) => list.add(bits(*address), self.now()),
                RecentChange::Del(address) => list.remove(bits(*address)),
                RecentChange::Flush => list.flush(),
            }
        }
        Ok(())
    }
}

/// Those asked for, by name, IPv4 first.
fn wanted<T>(tables: Named<T>, which: &TablesRequest) -> Vec<(Family, Box<str>, T)> {
    let mut wanted: Vec<_> =
        tables.into_iter().map(|(family, name, table)| (Family::from(family), name, table)).collect();
    wanted.retain(|(family, name, _)| which.fits(name, *family));
    wanted.sort_by(|one, other| (&one.1, one.0 == Family::V6).cmp(&(&other.1, other.0 == Family::V6)));
    wanted
}

/// Hands out each table and its entries until told to stop.
fn walk<T, E>(
    tables: Named<T>,
    which: &TablesRequest,
    each: &mut dyn FnMut(TableLine<E>) -> ControlFlow<()>,
    entries: impl Fn(&T, packet::Family, &mut dyn FnMut(E) -> ControlFlow<()>) -> ControlFlow<()>,
) {
    let _ = wanted(tables, which).into_iter().try_for_each(|(family, name, table)| {
        each(TableLine::Table { name: name.into_string(), family })?;
        entries(&table, family.into(), &mut |entry| each(TableLine::Entry(entry)))
    });
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}
