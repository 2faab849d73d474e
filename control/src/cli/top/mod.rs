//! `fwctl top`: who has the traffic, what is dropped, and how the gateway fares, on a screen or as text.
//!
//! ```text
//! fetch   a thread that asks the daemon every interval         Answer ->
//! state   what is known and chosen; keys and answers go in              -> Ask
//! lists   the lists, draw   the screen (look: numbers, bars, cuts)
//! ```
//!
//! Only this file and `terminal` touch a terminal; the rest is tested without.

pub mod args;
mod draw;
mod fetch;
mod filter;
mod lists;
mod look;
mod rates;
mod state;
mod terminal;
#[cfg(test)]
mod tests;

pub use args::TopArgs;

use super::CliError;
use super::client::Client;
use crate::api::types::{HistoryReport, Stats, TopReport};
use filter::Filter;
use look::Look;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use serde::{Deserialize, Serialize};
use state::{Ask, State};
use std::io::{IsTerminal as _, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use terminal::Taken;

/// How often is looked whether there is an answer or a signal.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Columns of text for nobody knows whom.
const COLUMNS: usize = 100;

/// What `--json` prints.
#[derive(Serialize, Deserialize)]
struct Picture {
    stats: Stats,
    history: HistoryReport,
    top: TopReport,
}

/// Shows it, until the operator has seen enough.
pub(super) fn run(
    client: Client,
    args: &TopArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    let filter =
        Filter::parse(&args.filter.join(" ")).map_err(|why| CliError::Usage(format!("filter: {why}")))?;
    let ask = Ask { interval: args.interval, by: args.by.into(), entries: args.entries, filter };
    if args.json {
        let count = args.count.or(if args.batch { None } else { Some(1) });
        return repeat(count, args.interval, || json(&client, &ask, out));
    }
    let look = Look::of_environment(args.no_color);
    let is_screen = std::io::stdout().is_terminal() && std::io::stdin().is_terminal() && !look::is_dumb();
    if args.once || args.batch || !is_screen {
        let count = if args.once { Some(1) } else { args.count };
        if !args.once && !args.batch {
            writeln!(err, "fwctl: no terminal to draw on, so this is text as with --batch")?;
        }
        return text(&client, &ask, look, count, out);
    }
    screen(client, ask.for_screen(), look)
}

/// Does something again and again, `pace` apart, so many times or for ever.
fn repeat(
    count: Option<u64>,
    pace: Duration,
    mut step: impl FnMut() -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut done = 0;
    loop {
        let start = Instant::now();
        step()?;
        done += 1;
        if count.is_some_and(|count| done >= count) {
            return Ok(());
        }
        std::thread::sleep(pace.saturating_sub(start.elapsed()));
    }
}

fn json(client: &Client, ask: &Ask, out: &mut dyn Write) -> Result<(), CliError> {
    // First what takes as long as the interval, so that all three are of the same moment.
    let top = client.get(&ask.target())?;
    let picture = Picture { stats: client.get("/v1/stats")?, history: client.get("/v1/history")?, top };
    let line = serde_json::to_string(&picture).map_err(std::io::Error::other)?;
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn text(
    client: &Client,
    ask: &Ask,
    look: Look,
    count: Option<u64>,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let columns = columns.filter(|columns| (40..=1000).contains(columns)).unwrap_or(COLUMNS);
    let look = Look { colour: false, ..look };
    let mut state = State::new(ask.clone(), Instant::now());
    // What rates begin at.
    state.take(fetch::counters(client)?, Instant::now());
    let mut is_first = true;
    repeat(count, ask.interval, || {
        state.take(fetch::top(client, ask)?, Instant::now());
        state.take(fetch::counters(client)?, Instant::now());
        if !is_first {
            writeln!(out)?;
        }
        is_first = false;
        write!(out, "{}", draw::text(&state, look, columns, Instant::now()))?;
        Ok(out.flush()?)
    })
}

fn screen(client: Client, ask: Ask, look: Look) -> Result<(), CliError> {
    let (asks, asked) = mpsc::channel();
    let (answer, answers) = mpsc::channel();
    let first = ask.clone();
    let mut state = State::new(ask, Instant::now());
    let mut taken = Taken::new()?;
    // Nobody waits for it: it ends when nobody listens any more, or with the process.
    std::thread::Builder::new()
        .name("fetch".to_owned())
        .spawn(move || fetch::run(&client, first, &asked, &answer))?;
    let mut is_stale = true;
    let mut drawn = Instant::now();
    while !state.is_over && !taken.is_signalled() {
        while let Ok(answer) = answers.try_recv() {
            state.take(answer, Instant::now());
            is_stale = true;
        }
        // Once a second anyway: seconds of silence are counted.
        if is_stale || drawn.elapsed() >= Duration::from_secs(1) {
            taken.screen.draw(|frame| draw::screen(frame, &state, look, Instant::now()))?;
            (is_stale, drawn) = (false, Instant::now());
        }
        if !event::poll(LOOK_EVERY)? {
            continue;
        }
        match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                if state.press(key) {
                    // The thread lives as long as we do; if it panicked, the screen says that nothing comes.
                    let _ = asks.send(state.ask.clone());
                }
                is_stale = true;
            }
            Event::Resize(..) => is_stale = true,
            _ => {}
        }
    }
    Ok(())
}
