//! Commands about sets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A command in the language of ipset(8), or a file of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetsRequest {
    /// The command, without the word `ipset`; or the file.
    pub text: String,
    /// What messages call the file.
    #[serde(default)]
    pub file: String,
    /// Whether it is a file: read as a whole, then carried out line by line.
    #[serde(default)]
    pub restore: bool,
    /// Of a file: whether what is there already, or is not there, is no error.
    #[serde(default)]
    pub exist: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SetsAnswer {
    /// What ipset(8) would print.
    pub text: String,
    /// What it would print on standard error.
    pub notes: Vec<String>,
    /// Of a test: whether the element is in the set.
    pub is_in: Option<bool>,
}
