//! The audit log: who has changed what, when, from what to what, and what came of it. One JSON object per line, in a file
//! that only root, the daemon and its group may read. Every change that comes by the API is written down, those that were
//! refused too, and what the daemon does by itself (SIGHUP, a change taken back because nobody confirmed it).
//!
//! A record is written before the answer is sent. A log that cannot be written keeps nobody from changing anything: a full
//! disk must not lock an operator out of a firewall. The record then goes to the daemon's own log, as an error, the loss is
//! counted, and `fwctl audit` and every further record's failure say so.
//!
//! Control threads, under a lock that is held for one write at a time.

mod file;
mod who;

pub use who::Who;

use crate::config::Config;
use chrono::{SecondsFormat, Utc};
use file::Log;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tracing::{error, info};

/// Longest text in a record, in bytes.
const TEXT_MAX: usize = 4096;

/// Records remembered where there is no file.
const REMEMBERED: usize = 1000;

/// Most records that are read back at once.
pub const RECORDS_MAX: usize = 10_000;

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is done.
    #[default]
    Done,
    /// It was not let be done, or what was given is wrong; nothing has changed.
    Refused,
    /// The daemon failed on it.
    Failed,
    /// Nothing was to be changed: somebody looked at what passes.
    Looked,
}

/// One line of the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// When, in UTC, to the microsecond.
    pub time: String,
    /// Who.
    pub who: Who,
    /// What kind of change: `apply`, `sysctl`, `flows delete`, ...
    pub action: String,
    /// What exactly.
    pub what: String,
    /// What was before, as far as it can be told in short.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub before: Value,
    /// What is now.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub after: Value,
    /// What came of it.
    pub result: Outcome,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What the log says when asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditReport {
    /// The last records, oldest first.
    pub records: Vec<Record>,
    /// The file they are in; `None`: in the daemon's own log.
    pub file: Option<String>,
    /// Records that could not be written since the daemon started.
    pub lost: u64,
    /// What is wrong with the file.
    pub trouble: Option<String>,
}

/// The log.
#[derive(Debug, Default)]
pub struct AuditLog {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    log: Option<Log>,
    /// The last ones, where there is no file, or none that can be written.
    remembered: VecDeque<Record>,
    lost: u64,
    trouble: Option<String>,
}

/// Where the log goes: `log.audit`.
#[must_use]
pub fn path_of(config: &Config) -> Option<PathBuf> {
    match config.log.audit.as_str() {
        "log" => None,
        "state" => Some(config.state.dir.join("audit.log")),
        path => Some(path.into()),
    }
}

impl AuditLog {
    /// Opens the log that a configuration asks for. A file that cannot be written is trouble, not an end.
    #[must_use]
    pub fn open(config: &Config) -> Self {
        match path_of(config) {
            None => Self::default(),
            Some(path) => {
                Self::in_file(&path, u64::from(config.log.audit_file_kib) * 1024, config.log.audit_files)
            }
        }
    }

    /// A log in a file of at most so many bytes, with so many older ones kept.
    #[must_use]
    pub fn in_file(path: &Path, bytes_max: u64, files: u32) -> Self {
        let mut log = Log::new(path, bytes_max, files);
        let trouble = log.make_ready().err().map(|error| trouble(path, &error));
        if let Some(trouble) = &trouble {
            error!("{trouble}; changes are written to this log instead");
        }
        Self { inner: Mutex::new(Inner { log: Some(log), trouble, ..Inner::default() }) }
    }

    /// Writes a record down.
    pub fn write(&self, mut record: Record) {
        record.time = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
        for text in [&mut record.what, &mut record.action] {
            shorten(text);
        }
        if let Some(error) = &mut record.error {
            shorten(error);
        }
        let line = serde_json::to_string(&record)
            .unwrap_or_else(|error| format!("{{\"error\":{:?}}}", error.to_string()));
        let mut inner = self.inner();
        let Inner { log, lost, trouble: known, .. } = &mut *inner;
        match log {
            Some(log) => match log.append(&line) {
                Ok(()) => {
                    *known = None;
                    return;
                }
                Err(error) => {
                    *lost += 1;
                    let trouble = trouble(log.path(), &error);
                    error!("{trouble}; the record: {line}");
                    *known = Some(trouble);
                }
            },
            None => info!("audit: {line}"),
        }
        inner.remember(record);
    }

    /// The last records.
    #[must_use]
    pub fn last(&self, count: usize) -> AuditReport {
        let inner = self.inner();
        let count = count.min(RECORDS_MAX);
        let mut trouble = inner.trouble.clone();
        let mut records = match &inner.log {
            Some(log) => log.last(count).unwrap_or_else(|error| {
                trouble = Some(format!("{}: {error}", log.path().display()));
                Vec::new()
            }),
            None => Vec::new(),
        };
        records.extend(inner.remembered.iter().cloned());
        records.sort_by(|one, other| one.time.cmp(&other.time));
        records.drain(..records.len().saturating_sub(count));
        let file = inner.log.as_ref().map(|log| log.path().display().to_string());
        AuditReport { records, file, lost: inner.lost, trouble }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn remember(&mut self, record: Record) {
        if self.remembered.len() >= REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back(record);
    }
}

fn trouble(path: &Path, error: &std::io::Error) -> String {
    format!("the audit log {} cannot be written: {error}", path.display())
}

/// Cuts a text off where it is longer than a record should hold.
fn shorten(text: &mut String) {
    if text.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let left_out = text.len() - end;
        text.truncate(end);
        text.push_str(&format!("... ({left_out} bytes more)"));
    }
}

#[cfg(test)]
mod tests;
