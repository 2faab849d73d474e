//! The gateway's NICs as a peer found them. Peers put most of what they change back themselves; whatever one that was
//! killed, or that does not care, has left is put back here, and looked at again.

use super::changes::run;
use crate::Error;
use palisade_tests::lab::{GATEWAY_LEFT, GATEWAY_RIGHT, Lab, Netns};
use serde_json::Value;
use std::collections::BTreeMap;

/// Both NICs before a peer came.
pub(super) struct Nics<'bed> {
    netns: &'bed Netns,
    before: [State; 2],
}

/// What there is to one NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    name: &'static str,
    /// Offloads that can be changed, by the names `ethtool` has for them, and whether they are on.
    offloads: BTreeMap<String, bool>,
    is_promiscuous: bool,
    is_up: bool,
    /// Whether the kernel runs an XDP program on it.
    has_xdp: bool,
    mac: String,
    mtu: String,
    /// The bridge it belongs to.
    master: Option<String>,
    addresses: Vec<String>,
    /// Cores that receive steering may send its packets to, as a mask.
    rps_cpus: String,
}

impl<'bed> Nics<'bed> {
    /// Looks at them.
    ///
    /// # Errors
    /// If one is not there.
    pub(super) fn read(lab: &'bed Lab) -> Result<Self, Error> {
        let netns = &lab.gateway;
        Ok(Self { netns, before: [State::read(netns, GATEWAY_LEFT)?, State::read(netns, GATEWAY_RIGHT)?] })
    }

    /// Makes them what they were.
    ///
    /// # Errors
    /// If one still is not, or is not there.
    pub(super) fn restore(&self) -> Result<(), Error> {
        for before in &self.before {
            let now = State::read(self.netns, before.name)?;
            if now == *before {
                continue;
            }
            before.bring_back(self.netns, &now)?;
            let now = State::read(self.netns, before.name)?;
            if now != *before {
                return Err(format!("{} is left as {now:?}, it was {before:?}", before.name).into());
            }
        }
        Ok(())
    }
}

impl State {
    fn read(netns: &Netns, name: &'static str) -> Result<Self, Error> {
        let json: Value =
            serde_json::from_str(&run(netns, &["ip", "-j", "-d", "addr", "show", "dev", name])?)?;
        let link = json.get(0).ok_or_else(|| format!("there is no {name}"))?;
        let text = |key: &str| link.get(key).map(|value| value.to_string().trim_matches('"').to_owned());
        let list = |key: &str| link.get(key).and_then(Value::as_array).into_iter().flatten();
        let has_flag = |wanted: &str| list("flags").any(|flag| flag == wanted);
        let address = |info: &Value| {
            format!("{}/{}", info.get("local").and_then(Value::as_str)?, info.get("prefixlen")?).into()
        };
        Ok(Self {
            name,
            offloads: offloads(&run(netns, &["ethtool", "-k", name])?),
            is_promiscuous: has_flag("PROMISC"),
            is_up: has_flag("UP"),
            has_xdp: link.get("xdp").is_some(),
            mac: text("address").unwrap_or_default(),
            mtu: text("mtu").unwrap_or_default(),
            master: text("master"),
            addresses: list("addr_info").filter_map(address).collect(),
            rps_cpus: run(netns, &["cat", &rps_path(name)])?.trim().to_owned(),
        })
    }

    /// Makes the NIC this again, which is `now` otherwise.
    fn bring_back(&self, netns: &Netns, now: &Self) -> Result<(), Error> {
        let Self { name, offloads, is_promiscuous, is_up, has_xdp, mac, mtu, master, addresses, rps_cpus } =
            self;
        let set = |words: &[&str]| run(netns, &[&["ip", "link", "set", "dev", *name], words].concat());
        if now.has_xdp && !has_xdp {
            set(&["xdp", "off"])?;
        }
        if now.master != *master {
            set(&master.as_deref().map_or(vec!["nomaster"], |master| vec!["master", master]))?;
        }
        for address in now.addresses.iter().filter(|address| !addresses.contains(address)) {
            run(netns, &["ip", "addr", "del", address, "dev", name])?;
        }
        let changed = offloads.iter().filter(|(offload, is_on)| now.offloads.get(*offload) != Some(is_on));
        let words: Vec<&str> = changed
            .flat_map(|(offload, is_on)| [offload.as_str(), if *is_on { "on" } else { "off" }])
            .collect();
        if !words.is_empty() {
            // At once, for some cannot be on without others.
            run(netns, &[&["ethtool", "-K", name], &words[..]].concat())?;
        }
        if now.rps_cpus != *rps_cpus {
            run(netns, &["sh", "-c", &format!("echo {rps_cpus} > {}", rps_path(name))])?;
        }
        if (&now.mac, &now.mtu) != (mac, mtu) {
            set(&["address", mac, "mtu", mtu])?;
        }
        if now.is_promiscuous != *is_promiscuous {
            set(&["promisc", if *is_promiscuous { "on" } else { "off" }])?;
        }
        if now.is_up != *is_up {
            set(&[if *is_up { "up" } else { "down" }])?;
        }
        Ok(())
    }
}

/// Where receive steering of a NIC's first queue is set.
pub(super) fn rps_path(iface: &str) -> String {
    format!("/sys/class/net/{iface}/queues/rx-0/rps_cpus")
}

/// What `ethtool -k` prints, without what cannot be changed, and without the sums of others.
fn offloads(text: &str) -> BTreeMap<String, bool> {
    let lines = text.lines().filter_map(|line| line.trim().split_once(": "));
    let changeable = lines.filter(|(name, state)| !state.ends_with("[fixed]") && !SUMS.contains(name));
    // Behind the state there may be what was asked for.
    changeable.map(|(name, state)| (name.to_owned(), state.starts_with("on"))).collect()
}

/// Offloads that are no more than several others together.
const SUMS: [&str; 3] = ["tx-checksumming", "scatter-gather", "tcp-segmentation-offload"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offloads_that_are_fixed_or_sums_are_left_out() {
        let text = "Features for left:\nrx-checksumming: on\ntx-checksumming: on\n\ttx-checksum-ipv4: off [fixed]\n\
                    \ttx-checksum-ip-generic: on\ngeneric-receive-offload: off\n\ttx-lockless: on [fixed]\n";
        let expected =
            [("generic-receive-offload", false), ("rx-checksumming", true), ("tx-checksum-ip-generic", true)];
        assert_eq!(offloads(text), expected.map(|(name, is_on)| (name.to_owned(), is_on)).into());
    }
}
