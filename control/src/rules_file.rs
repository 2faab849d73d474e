//! Rules files on disk: read, understood, reported on. What `fwd`, `fwctl check` and `fwctl replay` share. Control thread
//! and tools only.

use crate::iptables::diagnostics::{Severity, render_all};
use crate::iptables::names::FileServices;
use crate::iptables::syntax::{Counters, File};
use crate::iptables::{Loaded, load, load_with, printer};
use crate::labels::LabelNames;
use crate::lint::lint;
use dataplane::flow::TimeoutPolicy;
use dataplane::packet::Family;
use dataplane::rules::model::{RuleRef, Ruleset};
use dataplane::sets::Slot;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

/// Largest rules file read, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 30;

/// Where service names come from, if the machine has it.
pub const SERVICES_PATH: &str = "/etc/services";

/// Rules that can run, and how they are written.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What they mean.
    pub ruleset: Arc<Ruleset>,
    /// How they are written; positions are those of `ruleset`.
    pub file: Arc<File>,
}

impl Rules {
    /// An empty table with ACCEPT policies, as a kernel without rules has it.
    ///
    /// # Panics
    /// Never: the text is a good one.
    #[must_use]
    pub fn empty(family: Family) -> Self {
        let loaded = load("*filter\nCOMMIT\n", "nothing", family);
        Self::from_loaded(loaded).expect("an empty table is right in either family")
    }

    /// The rules, if nothing kept them from running.
    #[must_use]
    pub fn from_loaded(loaded: Loaded) -> Option<Self> {
        let (ruleset, file) = loaded.ruleset.zip(loaded.syntax)?;
        Some(Self { ruleset: Arc::new(ruleset), file: Arc::new(file) })
    }

    /// A rule as `-A CHAIN ...`, a policy as `-P CHAIN VERDICT`.
    #[must_use]
    pub fn line(&self, by: RuleRef) -> String {
        let chain = &self.file.chains[by.chain.0 as usize];
        match by.rule {
            Some(rule) => printer::rule_line(&chain.name, &chain.rules[rule as usize]),
            None => format!("-P {} {}", chain.name, printer::policy_name(chain.policy)),
        }
    }

    /// Where a rule, or a chain with its policy, is written: `FILE:LINE`. `None` of a chain that no line speaks of.
    #[must_use]
    pub fn place(&self, by: RuleRef) -> Option<String> {
        let chain = &self.file.chains[by.chain.0 as usize];
        let line = by.rule.map_or(chain.span.line, |rule| chain.rules[rule as usize].span.line);
        match (line, by.rule) {
            // Lines are numbered from 1; what was edited in has none.
            (0, Some(_)) => Some("added with `fwctl rule`".to_owned()),
            (0, None) => None,
            (line, _) => Some(format!("{}:{line}", self.file.name)),
        }
    }

    /// The table as iptables-save prints it, the policies with what they have counted.
    #[must_use]
    pub fn save(&self, policies: &dyn Fn(RuleRef) -> Counters) -> String {
        printer::save_with_policies(&self.file, policies)
    }
}

/// Reads a file; `-` is standard input.
///
/// # Errors
/// If it cannot be read or is unreasonably large.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let source: Box<dyn Read> =
        if path == Path::new("-") { Box::new(io::stdin()) } else { Box::new(std::fs::File::open(path)?) };
    let mut text = Vec::new();
    source.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Understands rules, service names by the machine's own table; warns of what is hardly meant.
#[must_use]
pub fn understand(text: &[u8], name: &str, family: Family, policies: &[TimeoutPolicy]) -> Loaded {
    let named = Named { policies, sets: &Sets::new(), labels: &LabelNames::none() };
    understand_with(text, name, family, named)
}

/// Sets that rules may name.
pub type Sets = BTreeMap<String, Arc<Slot>>;

/// What rules may name that stands elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Timeout policies.
    pub policies: &'a [TimeoutPolicy],
    /// Sets.
    pub sets: &'a Sets,
    /// Labels.
    pub labels: &'a LabelNames,
}

/// The same with all that the rules may name.
#[must_use]
pub fn understand_with(text: &[u8], name: &str, family: Family, named: Named<'_>) -> Loaded {
    let Named { policies, sets, labels } = named;
    let services =
        std::fs::read_to_string(SERVICES_PATH).map(|text| FileServices::parse(&text)).unwrap_or_default();
    let services =
        services.with_timeout_policies(policies).with_sets(sets.clone()).with_labels(labels.clone());
    let mut loaded = load_with(text, name, family, &services);
    if let (Some(ruleset), Some(file)) = (&loaded.ruleset, &loaded.syntax) {
        loaded.diagnostics.extend(lint(ruleset, file));
        loaded.diagnostics.sort_by_key(|found| (found.span.line == 0, found.span.line, found.span.start));
    }
    loaded
}

/// Reads a rules file and reports everything about it on `err`. The inner error is the exit code: 1 wrong or not there,
/// 3 right but not supported.
///
/// # Errors
/// Only if writing to `err` fails.
pub fn load_file(
    path: &Path,
    family: Family,
    named: Named<'_>,
    err: &mut dyn Write,
) -> io::Result<Result<Rules, u8>> {
    let name = path.display().to_string();
    let text = match read(path) {
        Ok(text) => text,
        Err(error) => {
            writeln!(err, "error: cannot read rules from {name}: {error}")?;
            return Ok(Err(1));
        }
    };
    let loaded = understand_with(&text, &name, family, named);
    err.write_all(render_all(&loaded.diagnostics, &text, &name, false).as_bytes())?;
    let code = if loaded.worst() == Some(Severity::Error) { 1 } else { 3 };
    Ok(Rules::from_loaded(loaded).ok_or(code))
}
