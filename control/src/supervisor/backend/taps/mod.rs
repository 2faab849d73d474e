//! Captures, traces and the last drops: what workers have seen of packets, in the words of the API. API threads.
//!
//! A [`Session`] hangs a tap into the workers' snapshot and reads its rings until it is dropped. Memory is bounded by what is
//! asked for, and that, of all sessions together, by [`Budget`]; a client that does not read costs packets, which are counted, and nothing else.

mod capture;
mod drops;
mod names;
mod trace;

use super::LiveBackend;
use crate::api::backend::ApplyError;
use crate::api::types::{ErrorKind, Fate, TapFilter};
use dataplane::clock::Now;
use dataplane::reason::DropReason;
use dataplane::rules::model::RuleId;
use dataplane::rules::trace::Step;
use dataplane::worker::tap::{Filter, Instruction, Point, Sighting, Tap, TapReader, TapSpec};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most memory for packets that wait to be read, of all captures and traces.
const BYTES_MAX: usize = 1 << 30;

/// Most instructions of all filters: each packet may have to run them at every point, and a worker runs about one in a
/// nanosecond. `host` 200 times over is 1000.
const STEPS_MAX: usize = 1024;

/// How long the rings are left alone when they were found empty. Short beside the time in which the smallest of them fills
/// up: at ten million packets a second that is a hundred times as long.
const PAUSE: Duration = Duration::from_millis(2);

/// How often there is a sign of life.
const SIGN_EVERY: Duration = Duration::from_millis(500);

/// How long workers may take to let go of a tap; they look between bursts.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Packets read in a row before the clock is looked at.
const BATCH: usize = 256;

/// What all sessions have together.
#[derive(Debug, Default)]
pub(super) struct Budget(Mutex<Share>);

/// What one session has of it, or all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    /// Bytes of rings.
    bytes: usize,
    /// Instructions of filters.
    steps: usize,
}

/// A [`Share`] that goes back when dropped.
#[derive(Debug)]
struct Spent<'a> {
    budget: &'a Budget,
    share: Share,
}

impl Budget {
    fn spend(&self, share: Share) -> Result<Spent<'_>, ApplyError> {
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (bytes, steps) = (spent.bytes.saturating_add(share.bytes), spent.steps + share.steps);
        let why = if bytes > BYTES_MAX {
            let [all, own, others] =
                [BYTES_MAX, share.bytes, spent.bytes].map(|bytes| bytes.div_ceil(1 << 20));
            format!(
                "packets that wait to be read, of all captures and traces, have {all} MiB; this one wants {own}, others have {others}"
            )
        } else if steps > STEPS_MAX {
            format!(
                "the filters of all captures and traces have {STEPS_MAX} instructions at most; this one has {}, others have {}",
                share.steps, spent.steps
            )
        } else {
            *spent = Share { bytes, steps };
            return Ok(Spent { budget: self, share });
        };
        // What would not do if it were alone will not later.
        let never = share.bytes > BYTES_MAX || share.steps > STEPS_MAX;
        Err(ApplyError::new(if never { ErrorKind::BadRequest } else { ErrorKind::Busy }, why))
    }
}

impl Drop for Spent<'_> {
    fn drop(&mut self) {
        let mut spent = self.budget.0.lock().unwrap_or_else(PoisonError::into_inner);
        spent.bytes -= self.share.bytes;
        spent.steps -= self.share.steps;
    }
}

/// A tap being read.
struct Session<'a> {
    backend: &'a LiveBackend,
    tap: Arc<Tap>,
    readers: Vec<TapReader>,
    began: Instant,
    /// What was seen later is not told any more.
    until: Option<Now>,
    left: u64,
    /// Goes back last: the rings are freed before.
    _spent: Spent<'a>,
}

/// What a session has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    taken: u64,
    lost: u64,
    skipped: u64,
}

/// What a session has to tell.
enum News<'a> {
    /// A packet.
    Packet(&'a Sighting, &'a [Step], &'a [u8]),
    /// Nothing, but it lives.
    Sign,
}

impl<'a> Session<'a> {
    /// Begins to look at packets. `room` is how many packets, and how many bytes of them, may wait per worker.
    fn begin(
        backend: &'a LiveBackend,
        filter: &TapFilter,
        spec: TapSpec,
        room: (usize, usize),
    ) -> Result<Self, ApplyError> {
        let workers = backend.workers.len();
        let spent = backend.tap_budget.spend(Share {
            bytes: workers * (room.0 * size_of::<Sighting>() + room.1),
            steps: spec.filter.as_ref().map_or(0, Filter::step_count),
        })?;
        let (tap, readers) = Tap::new(spec, workers, room.0, room.1);
        let tap = Arc::new(tap);
        backend.publisher.add_tap(&tap).map_err(|why| ApplyError::new(ErrorKind::Busy, why.to_string()))?;
        for worker in &backend.ownership.wakers {
            worker.wake();
        }
        let began = Instant::now();
        let until =
            (filter.secs > 0).then(|| backend.now().plus_nanos(filter.secs.saturating_mul(1_000_000_000)));
        let left = if filter.count > 0 { filter.count } else { u64::MAX };
        Ok(Self { backend, tap, readers, began, until, left, _spent: spent })
    }

    fn tally(&self) -> Tally {
        self.tap.counters().fold(Tally::default(), |sum, counters| Tally {
            taken: sum.taken + counters.taken.get(),
            lost: sum.lost + counters.lost.get(),
            skipped: sum.skipped + counters.skipped.get(),
        })
    }

    /// Calls `each` for packets as they come, those of several workers in the order of time as far as they are there, and
    /// with a sign of life now and then, until it says stop, there are as many as were asked for, or all are told that were
    /// seen in time.
    fn run(&mut self, each: &mut dyn FnMut(&Self, News<'_>) -> std::ops::ControlFlow<()>) {
        let (mut steps, mut bytes) = (Vec::new(), Vec::new());
        let mut signed = self.began;
        while self.left > 0 {
            let mut read = 0;
            while read < BATCH && self.left > 0 {
                let heads =
                    self.readers.iter().enumerate().filter_map(|(at, reader)| Some((reader.next_at()?, at)));
                let Some((at, first)) = heads.min() else { break };
                if self.until.is_some_and(|until| at > until) {
                    return;
                }
                let Some(sighting) = self.readers[first].read(&mut steps, &mut bytes) else { break };
                read += 1;
                self.left -= 1;
                if each(self, News::Packet(&sighting, &steps, &bytes)).is_break() {
                    return;
                }
            }
            let now = Instant::now();
            if read < BATCH && self.until.is_some_and(|until| self.backend.now() > until) {
                return;
            }
            if now.duration_since(signed) >= SIGN_EVERY
                || read == 0 && now.duration_since(signed) >= PAUSE * 10
            {
                signed = now;
                if each(self, News::Sign).is_break() {
                    return;
                }
            }
            if read < BATCH {
                std::thread::sleep(PAUSE);
            }
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let publisher = &self.backend.publisher;
        publisher.remove_tap(&self.tap);
        // A worker writes until it has taken that up. Rings are freed here, so we wait.
        let deadline = Instant::now() + RELEASE_TIMEOUT;
        while !publisher.is_settled() && Instant::now() < deadline {
            for worker in &self.backend.ownership.wakers {
                worker.wake();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        publisher.reclaim();
    }
}

/// What became of a packet, in the words of the API.
const fn verdict(dropped: Option<DropReason>) -> Fate {
    match dropped {
        None => Fate::Accept,
        Some(DropReason::RuleReject | DropReason::RuleRejectSilent) => Fate::Reject,
        Some(_) => Fate::Drop,
    }
}

impl LiveBackend {
    /// What a tap is to look for: everything that is wrong with the request at once.
    fn tap_spec(&self, filter: &TapFilter, points: u8) -> Result<TapSpec, ApplyError> {
        let mut wrong = Vec::new();
        let program: Vec<Instruction> = filter
            .program
            .iter()
            .map(|&(code, jump_true, jump_false, operand)| Instruction {
                code,
                jump_true,
                jump_false,
                operand,
            })
            .collect();
        let compiled = (!program.is_empty()).then(|| Filter::new(&program)).transpose();
        let compiled = compiled.unwrap_or_else(|error| {
            wrong.push(format!("the filter's program is not one: {error}"));
            None
        });
        let mut ports = if filter.interfaces.is_empty() { u64::MAX } else { 0 };
        for name in &filter.interfaces {
            match self.ports.iter().position(|port| port.name == *name) {
                Some(port) => ports |= 1 << port,
                None => wrong.push(format!("`{name}` is none of the gateway's NICs: {}", self.nics())),
            }
        }
        let mut reasons = filter.drops.then_some(u64::MAX);
        if !filter.reasons.is_empty() {
            let mut named = 0;
            for name in &filter.reasons {
                match DropReason::ALL.iter().find(|reason| reason.name() == name) {
                    Some(reason) => named |= 1 << *reason as u8,
                    None => wrong.push(format!("`{name}` is no drop reason; `fwctl stats --all` lists them")),
                }
            }
            reasons = Some(named);
        }
        let rule = filter.rule.as_deref().map(|id| u64::from_str_radix(id, 16).map(RuleId));
        let rule = rule.transpose().unwrap_or_else(|_| {
            wrong.push("a rule's id has 16 hexadecimal digits; `fwctl rules --json` has them".to_owned());
            None
        });
        let only_verdict = points == Point::Verdict.bit();
        if (reasons.is_some() || rule.is_some()) && !only_verdict {
            wrong.push(
                "what becomes of a packet is not known when it comes in, and only that it passes when it leaves: \
                 drops, reasons and rules go with the point `verdict` alone"
                    .to_owned(),
            );
        }
        if !wrong.is_empty() {
            return Err(ApplyError::new(ErrorKind::BadRequest, wrong.join("; ")));
        }
        Ok(TapSpec {
            points,
            follows: false,
            filter: compiled,
            ports,
            reasons,
            rule,
            snap: dataplane::worker::tap::SNAP_MAX,
            every: filter.every.max(1),
            per_sec: filter.per_sec,
        })
    }

    fn nics(&self) -> String {
        self.ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_have_no_more_than_there_is_however_many_there_are() {
        let budget = Budget::default();
        let refused = |share| budget.spend(share).map(drop).unwrap_err();
        let half = Share { bytes: BYTES_MAX / 2, steps: STEPS_MAX / 2 };
        let (first, second) = (budget.spend(half).unwrap(), budget.spend(half).unwrap());
        let error = refused(Share { bytes: 1, steps: 0 });
        assert_eq!(error.kind, ErrorKind::Busy);
        assert!(error.message.contains("1024 MiB; this one wants 1, others have 1024"), "{}", error.message);
        drop(first);
        let error = refused(Share { bytes: 0, steps: STEPS_MAX / 2 + 1 });
        assert_eq!(error.kind, ErrorKind::Busy);
        assert!(error.message.contains("1024 instructions at most; this one has 513, others have 512"));
        assert_eq!(refused(Share { bytes: usize::MAX, steps: 0 }).kind, ErrorKind::BadRequest);
        drop(second);
        drop(budget.spend(Share { bytes: BYTES_MAX, steps: STEPS_MAX }).unwrap());
        assert_eq!(*budget.0.lock().unwrap(), Share::default());
    }
}
