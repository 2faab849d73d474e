//! The daemon's configuration as it works with it, and changes of it.

use crate::config::{Change, Origin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A setting as the daemon works with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SettingView {
    /// Full name; `wire.0.left` for wires.
    pub name: String,
    /// Its value; `null` if it has none.
    pub value: Value,
    /// Its value unless told otherwise.
    pub default: Value,
    /// When another value takes effect.
    pub change: Change,
    /// Where its value comes from.
    pub origin: Origin,
    /// What it takes.
    pub takes: String,
    /// What it does.
    pub about: String,
}

/// A setting that has, or would have, another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SettingChange {
    /// Full name.
    pub name: String,
    /// When the other value takes effect.
    pub change: Change,
    /// The value the daemon worked with; `null`: none.
    pub before: Value,
    /// The other one.
    pub after: Value,
}

/// What the daemon works with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigView {
    /// The configuration file it was started with.
    pub file: Option<String>,
    /// Every setting, wires first.
    pub settings: Vec<SettingView>,
    /// What the file says otherwise by now and only a restart brings into effect.
    pub waiting: Vec<SettingChange>,
}

/// Settings to be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigSetRequest {
    /// Each `NAME=VALUE`, as with `fwd --set`.
    pub set: Vec<String>,
}

/// What a change of the configuration came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigReport {
    /// What has changed.
    pub changed: Vec<SettingChange>,
    /// What only a restart brings into effect.
    pub waiting: Vec<SettingChange>,
}
