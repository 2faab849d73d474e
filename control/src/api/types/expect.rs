//! Connections that helpers expect.

use super::{Family, FlowKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::net::IpAddr;

/// A connection that is expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExpectRow {
    /// Address family.
    pub family: Family,
    /// IP protocol number.
    pub proto: u8,
    /// Seconds until it is given up.
    pub timeout_secs: u32,
    /// Where it comes from, whatever the port.
    pub src: IpAddr,
    /// Where it goes.
    pub dst: IpAddr,
    /// The port there.
    pub dport: u16,
    /// The connection that announced it.
    pub master: ExpectMaster,
    /// That connection's helper.
    pub helper: Cow<'static, str>,
    /// Its zone; 0 is where flows are that no rule put elsewhere.
    #[serde(default)]
    pub zone: u16,
}

/// The original direction of a connection that has announced another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExpectMaster {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Ports.
    #[serde(flatten)]
    pub key: FlowKey,
}
