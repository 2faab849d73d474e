//! `POST /v1/capture`: packets as a pcapng file.

use super::names::RuleNames;
use super::{News, Session, verdict};
use crate::api::backend::ApplyError;
use crate::api::types::{CapturePoint, CaptureRequest};
use crate::pcapng::{Packet, Section};
use crate::publish::Publisher;
use crate::supervisor::backend::LiveBackend;
use crate::supervisor::wall::WallClock;
use dataplane::ids::Generation;
use dataplane::packet::Family;
use dataplane::reason::DropReason;
use dataplane::rules::model::RuleId;
use dataplane::worker::Fate;
use dataplane::worker::tap::{Point, SNAP_MAX, Sighting, TapSpec};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// MiB for packets that wait to be read, unless told otherwise.
const BUFFER_MIB: u32 = 32;

/// Bytes of the file collected before they are sent.
const PIECE_BYTES: usize = 256 << 10;

/// How often the file says how many packets were lost so far.
const STATISTICS_EVERY: Duration = Duration::from_secs(1);

/// Comments that are remembered: nearly every packet has one of few.
const COMMENTS_KEPT: usize = 4096;

/// What a comment hangs on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct CommentKey {
    point: Point,
    fate: Option<(u8, Option<DropReason>, Option<u8>)>,
    rule: Option<(u32, Option<u32>)>,
    since: (Option<u8>, u32),
}

#[derive(Default)]
struct Comments {
    kept: HashMap<CommentKey, Arc<str>>,
    /// The packet before had mostly the same: finding it again was a third of what the daemon does for a packet.
    last: Option<(CommentKey, Arc<str>)>,
}

impl Comments {
    /// Rules that a packet is the first to meet are looked up: they may have been put into force a moment ago.
    fn of(
        &mut self,
        sighting: &Sighting,
        names: &mut RuleNames,
        publisher: &Publisher,
        nics: &[&str],
    ) -> &str {
        let fate = sighting.fate;
        let key = CommentKey {
            point: sighting.point,
            fate: fate.map(|fate| (fate.ingress.0, fate.dropped, fate.ct_state.map(|state| state as u8))),
            rule: fate.and_then(|fate| fate.rule).map(|by| (by.chain.0, by.rule)),
            since: (sighting.family.map(|family| family as u8), sighting.since.0),
        };
        if self.last.as_ref().is_none_or(|(last, _)| *last != key) {
            if self.kept.len() >= COMMENTS_KEPT {
                self.kept.clear();
            }
            let Sighting { point, fate, family, since, rule, .. } = *sighting;
            let comment = self.kept.entry(key).or_insert_with(|| {
                names.look(publisher);
                let said = fate.map(|fate| comment(&fate, family, since, rule, names, nics));
                said.unwrap_or_else(|| format!("point={}", point.name())).into()
            });
            self.last = Some((key, Arc::clone(comment)));
        }
        self.last.as_ref().map_or("", |(_, comment)| comment)
    }
}

/// What stands beside a packet in a capture file: `verdict=drop reason=rule_drop ct=NEW in=eth0 out=eth1 rule=filter/FORWARD:2
/// id=0123456789abcdef -A FORWARD -p tcp -j DROP`.
pub(super) fn comment(
    fate: &Fate,
    family: Option<Family>,
    since: Generation,
    id: Option<RuleId>,
    names: &RuleNames,
    nics: &[&str],
) -> String {
    let Fate { ingress, dropped, ct_state, rule } = *fate;
    let mut line = format!("verdict={}", verdict(dropped).word());
    if let Some(reason) = dropped {
        let _ = write!(line, " reason={}", reason.name());
    }
    if let Some(state) = ct_state {
        let _ = write!(line, " ct={}", state.name());
    }
    let nic = |port: dataplane::ids::PortId| nics.get(port.index()).copied().unwrap_or_default();
    let _ = write!(line, " in={} out={}", nic(ingress), nic(ingress.peer()));
    let (Some(by), Some(family)) = (rule, family) else { return line };
    if let Some(id) = id {
        let _ = write!(line, " id={:016x}", id.0);
    }
    match names.place(family, since, by, id) {
        Some(place) => {
            let number = place.number.map_or("policy".to_owned(), |number| number.to_string());
            let _ = write!(line, " rule={}/{}:{number} {}", place.table, place.chain, place.text);
        }
        None => {
            let _ = write!(line, " rule=? of generation {}, replaced since", since.0);
        }
    }
    line
}

impl LiveBackend {
    /// Calls `each` with pieces of a pcapng file, and with nothing once it has begun and now and then, until it says stop.
    pub(in crate::supervisor::backend) fn capture_packets(
        &self,
        request: &CaptureRequest,
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), ApplyError> {
        let points = request.points.iter().fold(0, |all, point| {
            all | match point {
                CapturePoint::Rx => Point::Rx.bit(),
                CapturePoint::Verdict => Point::Verdict.bit(),
                CapturePoint::Tx => Point::Tx.bit(),
            }
        });
        let points = if points == 0 { Point::Verdict.bit() } else { points };
        let buffer = if request.buffer_mib == 0 { BUFFER_MIB } else { request.buffer_mib };
        let snap = if request.snap_len == 0 { SNAP_MAX } else { request.snap_len.min(SNAP_MAX) };
        let spec = TapSpec { snap, ..self.tap_spec(&request.filter, points)? };
        let per_worker = ((buffer as usize) << 20) / self.workers.len().max(1);
        // A quarter for what is said of packets, the rest for their bytes; small packets need more of the former.
        let room = (per_worker / 4 / size_of::<Sighting>(), per_worker / 4 * 3);
        let mut session = Session::begin(self, &request.filter, spec, room)?;
        let nics: Vec<&str> = self.ports.iter().map(|port| port.name.as_str()).collect();
        let Ok((mut section, _)) = Section::begin(Vec::with_capacity(PIECE_BYTES * 2), nics.iter().copied())
        else {
            return Ok(());
        };
        let mut clock = WallClock::read(self.started);
        let (mut names, mut comments) = (RuleNames::default(), Comments::default());
        names.look(&self.publisher);
        let mut said = Instant::now();
        let mut stopped = each(&[]).is_break();
        if stopped {
            return Ok(());
        }
        let mut send = |section: &mut Section<Vec<u8>>, enough: usize| {
            if section.out().len() < enough.max(1) {
                return ControlFlow::Continue(());
            }
            let sent = each(section.out());
            section.out().clear();
            sent
        };
        session.run(&mut |session, news| {
            let done = match news {
                News::Packet(sighting, _, bytes) => {
                    let comment = comments.of(sighting, &mut names, &self.publisher, &nics);
                    // Writing to memory does not fail.
                    let _ = section.packet(&Packet {
                        port: sighting.port.0,
                        at: clock.at(sighting.at),
                        frame_len: sighting.frame_len,
                        bytes,
                        is_outbound: Some(sighting.point == Point::Tx),
                        comment,
                    });
                    send(&mut section, PIECE_BYTES)
                }
                News::Sign => {
                    names.look(&self.publisher);
                    if said.elapsed() >= STATISTICS_EVERY {
                        said = Instant::now();
                        clock = WallClock::read(self.started);
                        let tally = session.tally();
                        let _ = section.statistics(clock.at(self.now()), tally.taken, tally.lost);
                    }
                    send(&mut section, 1)
                }
            };
            stopped |= done.is_break();
            done
        });
        if !stopped {
            let tally = session.tally();
            let _ = section.statistics(clock.at(self.now()), tally.taken, tally.lost);
            let _ = send(&mut section, 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::BothRules;
    use crate::rules_file::{Rules, understand};
    use dataplane::clock::Now;
    use dataplane::ids::PortId;
    use dataplane::worker::Settings;

    fn rules(port: u16) -> Rules {
        let text = format!("*filter\n-A FORWARD -p tcp -m tcp --dport {port} -j DROP\nCOMMIT\n");
        Rules::from_loaded(understand(text.as_bytes(), "test", Family::V4, &[])).unwrap()
    }

    #[test]
    fn a_packet_that_met_new_rules_first_is_said_to_have_met_those() {
        let both = BothRules { v4: Arc::new(rules(1)), v6: Arc::new(Rules::empty(Family::V6)) };
        let ports = vec!["left".to_owned(), "right".to_owned()];
        let publisher = Publisher::new(both, Settings::default(), ports, 1, false).unwrap();
        let rule = rules(1).ruleset.references().find(|by| by.rule.is_some());
        let sighting = |since| Sighting {
            at: Now::default(),
            point: Point::Verdict,
            port: PortId(0),
            fate: Some(Fate {
                ingress: PortId(0),
                dropped: Some(DropReason::RuleDrop),
                ct_state: None,
                rule,
            }),
            family: Some(Family::V4),
            since: Generation(since),
            rule: None,
            findings: None,
            frame_len: 60,
            kept: 0,
            steps: 0,
        };
        let (mut names, mut comments) = (RuleNames::default(), Comments::default());
        for (since, port) in [(1, 1), (2, 2), (1, 1)] {
            if port == 2 {
                publisher.publish(Some(rules(port)), None).unwrap();
            }
            let comment = comments.of(&sighting(since), &mut names, &publisher, &["left", "right"]);
            assert!(
                comment.ends_with(&format!("-A FORWARD -p tcp -m tcp --dport {port} -j DROP")),
                "{comment}"
            );
        }
    }
}
