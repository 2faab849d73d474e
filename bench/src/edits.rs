//! How soon a small edit of very many rules reaches packets: the words of an operator in, another generation of rules in
//! a worker's hands out. The worker is a thread that only looks for it; rules are compiled as a whole behind the edits, on
//! whatever core is free.

use crate::Error;
use crate::peers;
use crate::report::{Report, median};
use control::api::types::EditKind;
use control::iptables::edit::{Edit, Edited, edit};
use control::publish::{BothRules, Publisher};
use control::rules_file::{Rules, understand};
use dataplane::ids::WorkerId;
use dataplane::packet::Family;
use dataplane::rules::model::Table;
use dataplane::worker::Settings;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Rules that are edited.
const RULES: u32 = 100_000;

/// Edits, in a row.
const EDITS: u32 = 60;

/// Goal, in milliseconds.
const GOAL_MS: f64 = 10.0;

/// Measures it.
///
/// # Errors
/// If an edit is refused.
pub fn measure(report: &mut Report) -> Result<(), Error> {
    let text = peers::Rules::new(RULES).iptables_save();
    let rules = Rules::from_loaded(understand(text.as_bytes(), "rules", Family::V4, &[]));
    let rules = rules.ok_or("the rules of this bench are refused")?;
    let both = BothRules { v4: Arc::new(rules), v6: Arc::new(Rules::empty(Family::V6)) };
    let ports = vec!["left".to_owned(), "right".to_owned()];
    let publisher = Arc::new(Publisher::new(both, Settings::default(), ports, 1, false)?);
    let stop = AtomicBool::new(false);
    let times = thread::scope(|scope| {
        scope.spawn(|| adopt(&publisher, &stop));
        let times = (0..EDITS).map(|number| one(&publisher, number)).collect::<Result<Vec<f64>, Error>>();
        while publisher.is_behind() {
            thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::Relaxed);
        times
    })?;
    let slowest = times.iter().copied().fold(0.0, f64::max);
    println!("  {EDITS} edits of {RULES} rules in a row: median {:.2} ms", median(&times));
    report.at_most("slowest of them, ms until packets meet it", slowest, GOAL_MS);
    Ok(())
}

/// A worker that does nothing but take over new rules.
fn adopt(publisher: &Publisher, stop: &AtomicBool) {
    let mailbox = publisher.mailbox();
    let mut snapshot = mailbox.newest();
    while !stop.load(Ordering::Relaxed) {
        if let Some(newest) = mailbox.observe(snapshot.generation) {
            snapshot = newest;
            mailbox.adopt(WorkerId(0), snapshot.generation);
        }
        thread::yield_now();
    }
}

/// Does an edit; how long it took until the worker had it, in milliseconds.
fn one(publisher: &Arc<Publisher>, number: u32) -> Result<f64, Error> {
    let place = (number * 7919 % RULES + 1).to_string();
    let spec = format!("-s 203.0.113.{number} -p tcp -m tcp --dport 443 -j DROP");
    let (kind, words) = match number % 4 {
        0 => (EditKind::Insert, format!("{place} {spec}")),
        1 => (EditKind::Delete, format!("-s 203.0.113.{} -p tcp -m tcp --dport 443 -j DROP", number - 1)),
        2 => (EditKind::Replace, format!("{place} {spec}")),
        _ => (EditKind::Delete, place),
    };
    let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
    let start = Instant::now();
    let running = publisher.running();
    let Rules { ruleset, file } = &*running.v4;
    let wanted = Edit { kind, table: Table::Filter, chain: "FORWARD", words: &words };
    let read = |text: &[u8]| understand(text, "rule", Family::V4, &[]);
    let refused = |refused: control::iptables::edit::Refused| format!("{refused:?}");
    let Edited { ruleset, file, steps } = edit(ruleset, file, wanted, read).map_err(refused)?;
    let rules = Rules { ruleset: Arc::new(ruleset), file: Arc::new(file) };
    let generation =
        publisher.publish_edited(rules, &steps.ok_or("rules of this bench are all different")?)?;
    while publisher.adopted(WorkerId(0)).0 < generation.0 {
        std::hint::spin_loop();
    }
    let millis = start.elapsed().as_secs_f64() * 1e3;
    publisher.reclaim();
    Ok(millis)
}
