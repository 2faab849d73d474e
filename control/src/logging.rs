//! The daemon's own log: lines on standard error, whose level can be changed while it runs.

use crate::config::LogLevel;
use std::io::IsTerminal as _;
use std::sync::Arc;
use tracing_subscriber::EnvFilter;

/// Changes how much is said.
#[derive(Clone)]
pub struct LogSwitch(Arc<dyn Fn(LogLevel) + Send + Sync>);

impl std::fmt::Debug for LogSwitch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogSwitch")
    }
}

impl LogSwitch {
    /// Changes nothing.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self(Arc::new(|_| ()))
    }

    /// From now on this much.
    pub fn set(&self, level: LogLevel) {
        (self.0)(level);
    }
}

/// Begins to log. Once per process, from its first thread.
#[must_use]
pub fn init(level: LogLevel) -> LogSwitch {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level.word()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_filter_reloading();
    let handle = builder.reload_handle();
    builder.init();
    LogSwitch(Arc::new(move |level| {
        // Only where the log is gone is there nothing to change.
        let _ = handle.reload(EnvFilter::new(level.word()));
    }))
}
