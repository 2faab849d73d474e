//! Asks the daemon again and again, on a thread of its own, so that keys are obeyed while the daemon is slow or gone.

use super::state::{Answer, Ask};
use crate::api::types::{HistoryReport, Stats, TopReport};
use crate::cli::CliError;
use crate::cli::client::Client;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// Time between two attempts to find a daemon that is gone.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Asks every interval what `asks` said last, until nobody wants answers any more.
pub(super) fn run(client: &Client, mut ask: Ask, asks: &Receiver<Ask>, answers: &Sender<Answer>) {
    loop {
        let start = Instant::now();
        let mut wait = ask.interval;
        match counters(client) {
            Ok(counters) => {
                if answers.send(counters).is_err() {
                    return;
                }
                let answer = top(client, &ask).unwrap_or_else(|error| {
                    wait = wait.max(RETRY_EVERY);
                    failure(&error)
                });
                if answers.send(answer).is_err() {
                    return;
                }
            }
            Err(error) => {
                wait = RETRY_EVERY;
                if answers.send(failure(&error)).is_err() {
                    return;
                }
            }
        }
        match asks.recv_timeout(wait.saturating_sub(start.elapsed())) {
            Ok(other) => ask = other,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        // Only the last of several counts.
        while let Ok(other) = asks.try_recv() {
            ask = other;
        }
    }
}

/// What there is to know at once.
pub(super) fn counters(client: &Client) -> Result<Answer, CliError> {
    let stats: Stats = client.get("/v1/stats")?;
    let history: HistoryReport = client.get("/v1/history")?;
    Ok(Answer::Counters(Box::new(stats), Box::new(history)))
}

/// What takes as long as the interval, the first time.
pub(super) fn top(client: &Client, ask: &Ask) -> Result<Answer, CliError> {
    let report: TopReport = client.get(&ask.target())?;
    Ok(Answer::Top(ask.clone(), Box::new(report)))
}

fn failure(error: &CliError) -> Answer {
    match error {
        CliError::Unreachable(why) => Answer::Gone(why.clone()),
        other => Answer::Refused(other.to_string()),
    }
}
