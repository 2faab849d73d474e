//! How a NIC spreads packets over its queues: read, made alike on all NICs, and put back.
//!
//! What a NIC is told: the symmetric key of [`dataplane::rss`], Toeplitz, no transformation of the input, ports hashed for
//! the protocols that have them, and which queue each bucket goes to. Whatever it refuses is kept in [`Programmed`] for
//! whoever asks, and costs handovers between workers, never correctness. Everything is read back: drivers that say yes and
//! do otherwise count as refusing.

mod kernel;

pub(super) use kernel::KernelRss;
pub use kernel::RssTable;

use dataplane::packet::{Family, proto};
use dataplane::rss::{BUCKETS, Fields, FlowType, symmetric_key};
use serde::{Deserialize, Serialize};
use std::io;

/// Source and destination address, `RXH_IP_SRC | RXH_IP_DST` of `include/uapi/linux/ethtool.h`.
const ADDRESSES: u64 = 1 << 4 | 1 << 5;
/// The same and both ports, `RXH_L4_B_0_1 | RXH_L4_B_2_3`.
const WITH_PORTS: u64 = ADDRESSES | 1 << 6 | 1 << 7;
/// `ETH_RSS_HASH_TOP`: Toeplitz.
pub(super) const TOEPLITZ: u8 = 1;

/// What a NIC hashes with, and where to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HashConfig {
    /// Queue of each entry of its table.
    pub(super) indirection: Vec<u32>,
    /// Its key.
    pub(super) key: Vec<u8>,
    /// Its hash function, one of the bits `ETH_RSS_HASH_*`.
    pub(super) function: u8,
    /// What is done to the input first, bits `RXH_XFRM_*`.
    pub(super) transform: u8,
}

/// What was there before us, for the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Before {
    /// Key, table and function; `None` where there is no RSS.
    pub(super) config: Option<HashConfig>,
    /// Fields by flow type, in the order of [`FlowType::ALL`]; `None` where the driver does not say.
    pub(super) fields: [Option<u64>; 6],
}

/// What ethtool can tell and do about one NIC's RSS.
pub(super) trait Rss {
    /// Key, table and function.
    fn config(&self) -> io::Result<HashConfig>;
    /// Sets all of them. An empty table or key stays as it is.
    fn set_config(&self, config: &HashConfig) -> io::Result<()>;
    /// What is hashed of packets of this type.
    fn fields(&self, flow: FlowType) -> io::Result<u64>;
    /// Sets it.
    fn set_fields(&self, flow: FlowType, fields: u64) -> io::Result<()>;
}

/// How far a NIC spreads packets as workers own flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RssState {
    /// It has one queue: there is nothing to spread.
    #[default]
    SingleQueue,
    /// Its key, function and table are ours.
    Agrees,
    /// It does not, or only in part: packets are handed over between workers.
    Differs,
}

/// What came of programming a NIC, or of only looking at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programmed {
    /// In one word.
    pub state: RssState,
    /// What the NIC refused, or has otherwise than workers go by: one sentence each.
    pub refused: Vec<String>,
    /// Entries of its table; 0 without RSS.
    pub entries: usize,
    /// Flow types whose ports it hashes.
    pub fields: Fields,
    /// Whether its table may be changed.
    pub is_movable: bool,
}

impl Default for Programmed {
    fn default() -> Self {
        Self {
            state: RssState::default(),
            refused: Vec::new(),
            entries: 0,
            fields: Fields::ALL,
            is_movable: false,
        }
    }
}

impl Before {
    pub(super) fn read(nic: &impl Rss) -> Self {
        let fields = FlowType::ALL.map(|flow| nic.fields(flow).ok());
        Self { config: nic.config().ok(), fields }
    }

    /// Makes the NIC what it was. Returns what could not be put back.
    pub(super) fn restore(&self, nic: &impl Rss) -> Vec<String> {
        let mut failed = Vec::new();
        if let Some(before) = &self.config
            && nic.config().is_ok_and(|now| now != *before)
            && nic.set_config(before).is_err()
        {
            failed.push("rss key and table".to_owned());
        }
        for (flow, before) in FlowType::ALL.into_iter().zip(self.fields) {
            let Some(before) = before else { continue };
            if nic.fields(flow).is_ok_and(|now| now != before) && nic.set_fields(flow, before).is_err() {
                failed.push(format!("rss fields of {}", name(flow)));
            }
        }
        failed
    }
}

/// The name that `ethtool -N IF rx-flow-hash` has for a flow type.
fn name(flow: FlowType) -> &'static str {
    match (flow.proto, flow.family) {
        (proto::TCP, Family::V4) => "tcp4",
        (proto::TCP, Family::V6) => "tcp6",
        (proto::UDP, Family::V4) => "udp4",
        (proto::UDP, Family::V6) => "udp6",
        (_, Family::V4) => "sctp4",
        (_, Family::V6) => "sctp6",
    }
}

/// Whether a NIC has a table at all.
pub(super) fn is_there(nic: &impl Rss) -> bool {
    nic.config().is_ok_and(|config| !config.indirection.is_empty())
}

/// Looks at a NIC's key, function and fields, and with `program` sets them first.
pub(super) fn agree(nic: &impl Rss, program: bool) -> Programmed {
    let mut done = Programmed { state: RssState::Agrees, ..Programmed::default() };
    let before = match nic.config() {
        Ok(config) if !config.key.is_empty() && !config.indirection.is_empty() => config,
        Ok(_) => return without(&done, "it has no RSS key or table".to_owned()),
        Err(error) => return without(&done, format!("it has no RSS that can be read: {error}")),
    };
    done.entries = before.indirection.len();
    if !done.entries.is_power_of_two() {
        return without(
            &done,
            format!("its RSS table has {} entries, no power of two", before.indirection.len()),
        );
    }
    let ours = HashConfig {
        indirection: Vec::new(),
        key: symmetric_key(before.key.len()),
        function: TOEPLITZ,
        transform: 0,
    };
    let matches =
        |config: &HashConfig| config.key == ours.key && config.function == TOEPLITZ && config.transform == 0;
    if program
        && !matches(&before)
        && let Err(error) = nic.set_config(&ours)
    {
        done.refused.push(format!("its RSS key cannot be set: {error}"));
    }
    if !nic.config().is_ok_and(|now| matches(&now)) {
        done.state = RssState::Differs;
        done.refused
            .push("its RSS key or function is not the symmetric one: directions of a flow differ".to_owned());
    }
    for flow in FlowType::ALL {
        if program && nic.fields(flow).is_ok_and(|now| now != WITH_PORTS) {
            // What came of it is read back below; addresses alone serve as well.
            let _ = nic.set_fields(flow, WITH_PORTS);
        }
        match nic.fields(flow) {
            Ok(WITH_PORTS) => {}
            Ok(ADDRESSES) => done.fields = done.fields.without(flow),
            Ok(other) => {
                done.fields = done.fields.without(flow);
                done.refused.push(format!("it hashes {} by other fields ({other:#x})", name(flow)));
            }
            // Drivers that do not know a protocol's ports do not say what they do: they hash addresses.
            Err(_) => done.fields = done.fields.without(flow),
        }
    }
    done
}

fn without(done: &Programmed, refused: String) -> Programmed {
    let fields = Fields::NONE;
    Programmed { state: RssState::Differs, refused: vec![refused], fields, ..done.clone() }
}

/// Has a NIC hash ports only where all NICs do.
pub(super) fn narrow(nic: &impl Rss, done: &mut Programmed, common: Fields, program: bool) {
    for flow in FlowType::ALL {
        if !done.fields.has_ports(flow) || common.has_ports(flow) {
            continue;
        }
        let set = if program { nic.set_fields(flow, ADDRESSES) } else { Ok(()) };
        if set.is_err() || nic.fields(flow).is_ok_and(|now| now != ADDRESSES) {
            done.refused.push(format!("it hashes ports of {}, and not every NIC does", name(flow)));
        }
    }
}

/// Sets the table alone, and reads it back.
fn set_table(nic: &impl Rss, queues: &[u32; BUCKETS]) -> io::Result<()> {
    let now = nic.config()?;
    let indirection: Vec<u32> = (0..now.indirection.len()).map(|entry| queues[entry % BUCKETS]).collect();
    nic.set_config(&HashConfig { indirection: indirection.clone(), ..now })?;
    if nic.config()?.indirection == indirection {
        return Ok(());
    }
    Err(io::Error::other("the driver took it and has another one"))
}

/// Points a NIC's table at the queues of the workers that own its buckets: `queues` has the queue of each bucket. With
/// `program` it is set; either way it is compared. Whether it agrees now.
pub(super) fn point(nic: &impl Rss, done: &mut Programmed, queues: &[u32; BUCKETS], program: bool) -> bool {
    if done.entries == 0 {
        return false;
    }
    let wanted: Vec<u32> = (0..done.entries).map(|entry| queues[entry % BUCKETS]).collect();
    let is_right = |nic: &_| Rss::config(nic).is_ok_and(|now| now.indirection == wanted);
    done.is_movable = program;
    if !is_right(nic) {
        let set =
            if program { set_table(nic, queues) } else { Err(io::Error::other("net.rss is \"leave\"")) };
        if let Err(error) = set {
            done.is_movable = false;
            done.refused.push(format!("its RSS table cannot be set: {error}"));
        }
    }
    let agrees = is_right(nic);
    if !agrees {
        done.state = RssState::Differs;
    }
    agrees
}

#[cfg(test)]
mod tests;
