//! Packets that workers noted, from their rings to where they are wanted: lines in the daemon's log for `-j LOG`, `-j TRACE` and INVALID
//! packets (`nf_conntrack_log_invalid`), capture files for `-j NFLOG`. Control thread.

use super::captures::{Captures, Packet};
use super::plane::Plane;
use super::wall::WallClock;
use crate::packet_log::{self, Around, TRACE_STYLE};
use dataplane::ids::PortId;
use dataplane::rules::log::{LineStyle, LogSpec, LogTo};
use dataplane::worker::{Note, Why};
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// How often is said how many were too many.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Writes them out, as often as it is told to look.
#[derive(Debug)]
pub(super) struct NoteLog {
    captures: Captures,
    /// Packets not logged that have been spoken of.
    unlogged: u64,
    said: Instant,
    bytes: Vec<u8>,
}

impl NoteLog {
    pub(super) fn new(captures: Captures) -> Self {
        Self { captures, unlogged: 0, said: Instant::now(), bytes: Vec::new() }
    }

    /// Writes captures elsewhere from now on.
    pub(super) fn write_to(&mut self, captures: Captures) {
        self.captures.flush();
        self.captures = captures;
    }

    /// Logs what has come since it last looked.
    pub(super) fn look(&mut self, plane: &Plane) {
        for worker in &plane.workers {
            let mut notes = worker.notes.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(note) = notes.read(&mut self.bytes) {
                self.write(plane, &note);
            }
        }
        self.captures.flush();
        if self.said.elapsed() < SAY_EVERY {
            return;
        }
        self.said = Instant::now();
        let unlogged = plane.workers.iter().map(|worker| worker.counters.polls.unlogged.get()).sum();
        let more = unlogged - std::mem::replace(&mut self.unlogged, unlogged);
        if more > 0 {
            warn!("{more} more packets were too many to be logged");
        }
        for complaint in self.captures.complaints() {
            warn!("{complaint}");
        }
    }

    fn write(&mut self, plane: &Plane, note: &Note) {
        let name = |port: PortId| plane.ports.get(port.index()).map_or("", |port| port.nic.name.as_str());
        let (ingress, egress) = (name(note.ingress), note.egress.map_or("", name));
        match note.why {
            Why::Invalid { reason, proto } => {
                let prefix = format!("nf_ct_proto_{proto}: {} ", reason.name());
                let around = Around { prefix: &prefix, ingress, egress, mark: 0 };
                let style = LineStyle { tcp_sequence: true, ..LineStyle::default() };
                info!("{}", packet_log::line(&around, style, &self.bytes, usize::from(note.l3_offset)));
            }
            Why::Step { chain, kind, number } => {
                let prefix = packet_log::trace_prefix(&chain, kind, number);
                let around = Around { prefix: &prefix, ingress, egress, mark: note.mark };
                let line = packet_log::line(&around, TRACE_STYLE, &self.bytes, usize::from(note.l3_offset));
                say(TRACE_STYLE.level, &line);
            }
            Why::Rule { spec, id } => {
                let LogSpec { prefix, to } = &*spec;
                let around = Around { prefix, ingress, egress, mark: note.mark };
                match *to {
                    LogTo::Line(style) => {
                        let line = packet_log::line(&around, style, &self.bytes, usize::from(note.l3_offset));
                        say(style.level, &line);
                    }
                    LogTo::Capture { group, .. } => {
                        let nics: Vec<&str> = plane.ports.iter().map(|port| port.nic.name.as_str()).collect();
                        let at = WallClock::read(plane.started).at(note.at);
                        self.captures.write(
                            group,
                            &nics,
                            &Packet { at, note, around: &around, rule: id, bytes: &self.bytes },
                        );
                    }
                }
            }
        }
    }
}

/// Says it as loudly as the rule wants, but never so softly that the daemon would keep it to itself unless told otherwise
/// (`log.level`).
fn say(level: u8, line: &str) {
    match level {
        0..=3 => error!("{line}"),
        4 => warn!("{line}"),
        _ => info!("{line}"),
    }
}
