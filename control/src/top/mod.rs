//! Who has the most traffic: the arithmetic behind `GET /v1/top`, on threads of the API. Flows are looked at twice, read-only,
//! and what each counted in between is summed up by flow, host and service.
//!
//! Time: one walk over all flows per answer (two for the first one); no packet waits for it. Memory: [`marks`] keeps 24 bytes
//! for each flow record ever used, as long as somebody asks; [`heavy`] keeps [`KEYS`] to twice as many hosts and services
//! for the time of one walk, exact up to there, and says how far it may be off beyond.

mod heavy;
mod marks;
mod survey;

pub(crate) use heavy::Sums;
pub(crate) use marks::{Growth, Marks};
pub(crate) use survey::{Found, Host, Service, Survey};

/// Hosts, and services, that are kept count of at least.
pub(crate) const KEYS: usize = 16_384;

/// What was summed up, by what it is wanted by.
pub(crate) const fn weigher(by: crate::api::types::TopBy) -> fn(&Sums) -> u64 {
    use crate::api::types::TopBy;
    match by {
        TopBy::Bytes => |sums| sums.bytes[0] + sums.bytes[1],
        TopBy::Packets => |sums| sums.packets[0] + sums.packets[1],
        TopBy::New => |sums| sums.new,
    }
}
