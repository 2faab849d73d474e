//! Versions and builds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which daemon is talking.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// Program version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// How it was built; `None` from a daemon that is too old to say.
    #[serde(default)]
    pub build: Option<BuildFacts>,
}

/// How a program was built.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BuildFacts {
    /// Commit of the source, with `-dirty` behind it if files had been changed; `None`: not known.
    pub commit: Option<String>,
    /// Target triple.
    pub target: String,
    /// The compiler, as `rustc --version` prints it.
    pub rustc: String,
    /// Cargo's profile: `release`, `debug` or one of one's own.
    pub profile: String,
    /// Optimisation level: 0 to 3, s or z.
    pub opt_level: String,
    /// Whether assertions and overflow checks that cost time are on.
    pub assertions: bool,
    /// Version of libbpf, linked statically.
    pub libbpf: String,
    /// Cargo's features that were switched on.
    pub features: Vec<String>,
    /// What the compiler took for granted of the processor. More is used where the processor has it.
    pub cpu_features: Vec<String>,
}

impl BuildFacts {
    /// What differs in a way that matters to somebody who runs both, each as `what: this here, that there`.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let differs = |what: &str, own: &str, others: &str| {
            (own != others).then(|| format!("{what} {own} here, {others} there"))
        };
        let commits = self.commit.as_deref().zip(other.commit.as_deref());
        let commits = commits.and_then(|(own, others)| differs("commit", own, others));
        let profiles = differs("profile", &self.profile, &other.profile);
        let targets = differs("target", &self.target, &other.target);
        commits.into_iter().chain(profiles).chain(targets).collect()
    }
}

/// Lines for people.
impl fmt::Display for BuildFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commit = self.commit.as_deref().unwrap_or("not known");
        writeln!(f, "  commit    {commit}")?;
        let assertions = if self.assertions { ", with assertions" } else { "" };
        writeln!(f, "  profile   {}, optimisation {}{assertions}", self.profile, self.opt_level)?;
        writeln!(f, "  compiler  {}", self.rustc)?;
        writeln!(f, "  target    {}", self.target)?;
        writeln!(f, "  libbpf    {}", self.libbpf)?;
        let or_none = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(" ") };
        writeln!(f, "  features  {}; processor: {}", or_none(&self.features), or_none(&self.cpu_features))
    }
}
