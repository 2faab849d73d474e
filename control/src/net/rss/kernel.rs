//! The kernel's side of RSS: ethtool's ioctls. Numbers and layouts from `include/uapi/linux/ethtool.h`.

use super::{HashConfig, Rss};
use crate::net::ioctl;
use dataplane::packet::{Family, proto};
use dataplane::rss::{BUCKETS, FlowType};
use rustix::fd::OwnedFd;
use std::io;
use std::sync::Arc;

const GET_FIELDS: u32 = 0x29;
const SET_FIELDS: u32 = 0x2a;
const GET_CONFIG: u32 = 0x46;
const SET_CONFIG: u32 = 0x47;
/// Words of `struct ethtool_rxfh` before the table.
const HEADER_WORDS: usize = 6;
/// `ETH_RXFH_INDIR_NO_CHANGE`.
const KEEP_TABLE: u32 = u32::MAX;
/// More than any NIC has; keeps what a driver claims from becoming an allocation of gigabytes.
const ENTRIES_MAX: u32 = 1 << 16;
const KEY_MAX: u32 = 1 << 10;

/// A NIC as ethtool knows it.
pub(in crate::net) struct KernelRss<'a> {
    pub(in crate::net) socket: &'a OwnedFd,
    pub(in crate::net) name: &'a str,
}

/// The table of a NIC that may be changed while packets come.
#[derive(Debug)]
pub struct RssTable {
    pub(in crate::net) socket: Arc<OwnedFd>,
    pub(in crate::net) name: String,
}

impl RssTable {
    /// Points it at the queue of each bucket.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn point(&self, queues: &[u32; BUCKETS]) -> io::Result<()> {
        super::set_table(&KernelRss { socket: &self.socket, name: &self.name }, queues)
    }
}

/// `TCP_V4_FLOW` and so on.
const fn number(flow: FlowType) -> u32 {
    let of_v4 = match flow.proto {
        proto::TCP => 1,
        proto::UDP => 2,
        _ => 3,
    };
    match flow.family {
        Family::V4 => of_v4,
        Family::V6 => of_v4 + 4,
    }
}

impl KernelRss<'_> {
    fn call(&self, words: &mut [u32]) -> io::Result<()> {
        ioctl::ethtool_words(self.socket, self.name, words)
    }
}

impl Rss for KernelRss<'_> {
    fn config(&self) -> io::Result<HashConfig> {
        // Asked without room, the driver says how much it wants.
        let mut sizes = [GET_CONFIG, 0, 0, 0, 0, 0];
        self.call(&mut sizes)?;
        let [_, _, entries, key_bytes, ..] = sizes;
        if entries > ENTRIES_MAX || key_bytes > KEY_MAX {
            return Err(io::Error::other("the driver speaks of an absurd RSS table"));
        }
        let (entries, key_bytes) = (entries as usize, key_bytes as usize);
        let mut words = vec![0; HEADER_WORDS + entries + key_bytes.div_ceil(4)];
        words[..HEADER_WORDS].copy_from_slice(&[GET_CONFIG, 0, sizes[2], sizes[3], 0, 0]);
        self.call(&mut words)?;
        let [function, transform, ..] = words[4].to_ne_bytes();
        let (indirection, key) = words[HEADER_WORDS..].split_at(entries);
        let key = key.iter().flat_map(|word| word.to_ne_bytes()).take(key_bytes).collect();
        Ok(HashConfig { indirection: indirection.to_vec(), key, function, transform })
    }

    fn set_config(&self, config: &HashConfig) -> io::Result<()> {
        let size = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
        let entries =
            if config.indirection.is_empty() { KEEP_TABLE } else { size(config.indirection.len())? };
        let how = u32::from_ne_bytes([config.function, config.transform, 0, 0]);
        let mut words = vec![SET_CONFIG, 0, entries, size(config.key.len())?, how, 0];
        words.extend(&config.indirection);
        for bytes in config.key.chunks(4) {
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            words.push(u32::from_ne_bytes(word));
        }
        self.call(&mut words)
    }

    fn fields(&self, flow: FlowType) -> io::Result<u64> {
        let mut words = [GET_FIELDS, number(flow), 0, 0];
        self.call(&mut words)?;
        let halves = [words[2].to_ne_bytes(), words[3].to_ne_bytes()];
        Ok(u64::from_ne_bytes(std::array::from_fn(|byte| halves[byte / 4][byte % 4])))
    }

    fn set_fields(&self, flow: FlowType, fields: u64) -> io::Result<()> {
        let bytes = fields.to_ne_bytes();
        let half = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        self.call(&mut [SET_FIELDS, number(flow), half(0), half(4)])
    }
}
