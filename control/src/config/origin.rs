//! Where each setting's value comes from: what `fwctl config show` tells beside it.

use super::Config;
use super::error::{Place, Source};
use super::load::COMMAND_LINE;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a setting's value comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Origin {
    /// Nobody has said anything about it.
    #[default]
    Default,
    /// The configuration file.
    File {
        /// Its name as it was given.
        file: String,
        /// Line, from 1.
        line: usize,
    },
    /// The daemon's command line.
    CommandLine {
        /// The option and its value.
        option: String,
    },
    /// Changed while the daemon runs; gone with it, and with the next reload.
    Runtime {
        /// Who changed it.
        by: String,
        /// When, in microseconds since 1970.
        at_us: u64,
    },
}

/// Where every setting that somebody has given comes from, by full name (`wire.0.left` for wires).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<String, Origin>);

/// A configuration and where it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Where its settings come from.
    pub origins: Origins,
}

impl Origins {
    pub(super) fn of(places: &BTreeMap<String, Place>, sources: &[Source]) -> Self {
        let origin = |place: &Place| {
            let source = sources.get(place.source)?;
            Some(if source.name == COMMAND_LINE {
                Origin::CommandLine { option: source.text.clone() }
            } else {
                let before = source.text.get(..place.span.start).unwrap_or_default();
                Origin::File { file: source.name.clone(), line: before.matches('\n').count() + 1 }
            })
        };
        Self(places.iter().filter_map(|(name, place)| Some((name.clone(), origin(place)?))).collect())
    }

    /// Where a setting comes from.
    #[must_use]
    pub fn get(&self, name: &str) -> Origin {
        self.0.get(name).cloned().unwrap_or_default()
    }

    /// Notes that a setting comes from elsewhere now.
    pub fn set(&mut self, name: &str, origin: Origin) {
        self.0.insert(name.to_owned(), origin);
    }

    /// The names of the settings that were given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::CommandLine { option } => f.write_str(option),
            Self::Runtime { by, .. } => write!(f, "changed by {by}"),
        }
    }
}
