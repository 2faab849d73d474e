//! What the API says, as data: shared by the server and `fwctl`. Field names are the JSON names and stay as they are.
//! All counters count since the daemon started unless said otherwise; bytes of packets are Ethernet frames without FCS.

mod build;
mod changes;
mod config;
mod counters;
mod events;
mod expect;
mod explain;
mod filter;
mod flows;
mod net;
mod rules;
mod sets;
mod stats;
mod tables;
mod taps;
mod top;
mod web;
mod workers;

pub use build::*;
pub use changes::*;
pub use config::*;
pub use counters::*;
pub use events::*;
pub use expect::*;
pub use explain::*;
pub use filter::*;
pub use flows::*;
pub use net::*;
pub use rules::*;
pub use sets::*;
pub use stats::*;
pub use tables::*;
pub use taps::*;
pub use top::*;
pub use web::*;
pub use workers::*;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Address family, written 4 and 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u8", into = "u8")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What kind of "no" an answer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request made no sense.
    BadRequest,
    /// There is no such thing here.
    NotFound,
    /// Who asks may not.
    Forbidden,
    /// The rules are wrong.
    BadRules,
    /// The rules are right but ask for something not supported.
    Unsupported,
    /// Others are at it: an `apply` is under way, or too many listen to events.
    Busy,
    /// The daemon failed.
    #[default]
    Internal,
}

/// Why a request was not done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// What kind of "no".
    pub kind: ErrorKind,
    /// One sentence.
    pub message: String,
    /// Everything that is wrong with the rules.
    #[serde(default)]
    pub diagnostics: Vec<Diagnostic>,
}

impl Family {
    /// 4 or 6.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
}

impl TryFrom<u8> for Family {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        match number {
            4 => Ok(Self::V4),
            6 => Ok(Self::V6),
            other => Err(format!("a family is 4 or 6, not {other}")),
        }
    }
}

impl From<Family> for u8 {
    fn from(family: Family) -> Self {
        family.number()
    }
}

impl From<dataplane::packet::Family> for Family {
    fn from(family: dataplane::packet::Family) -> Self {
        match family {
            dataplane::packet::Family::V4 => Self::V4,
            dataplane::packet::Family::V6 => Self::V6,
        }
    }
}

impl From<Family> for dataplane::packet::Family {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::V4,
            Family::V6 => Self::V6,
        }
    }
}
