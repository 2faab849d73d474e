//! Commands about sets.

use super::LiveBackend;
use crate::api::backend::ApplyError;
use crate::api::types::{Diagnostic, ErrorKind, SetsAnswer, SetsRequest};
use crate::iptables::diagnostics::{self, Severity};
use crate::sets::{file, store::Answer};

impl LiveBackend {
    /// Carries a command out, or a file of them.
    pub(super) fn change_sets(&self, request: &SetsRequest) -> Result<SetsAnswer, ApplyError> {
        let SetsRequest { text, file, restore, exist } = request;
        let (bytes, services) = (text.as_bytes(), file::services());
        let done = if *restore {
            self.sets.restore(bytes, *exist, &services)
        } else {
            self.sets.command(bytes, &services).map_err(|error| vec![error])
        };
        let Answer { text, notes, is_in } = done.map_err(|found| refused(&found, bytes, file))?;
        Ok(SetsAnswer { text, notes, is_in })
    }
}

/// What is wrong with a file, as an answer.
pub(super) fn refused(found: &[diagnostics::Diagnostic], text: &[u8], file: &str) -> ApplyError {
    let is_wrong = found.iter().any(|found| found.severity == Severity::Error);
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let shown = found.iter().map(|found| Diagnostic {
        file: file.to_owned(),
        line: found.span.line,
        column: number(found.column(text)),
        message: found.message.clone(),
        hint: found.hint.clone(),
        rendered: found.render(text, file, false),
    });
    ApplyError {
        kind: if is_wrong { ErrorKind::BadRules } else { ErrorKind::Unsupported },
        message: found.first().map_or_else(String::new, |found| found.message.clone()),
        diagnostics: shown.collect(),
    }
}
