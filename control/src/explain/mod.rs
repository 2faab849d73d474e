//! `explain`: what would become of a packet, and why. The dataplane walks it ([`dataplane::explain`]); here it is made from
//! what an operator says ([`build`]), and what comes of it is told with names, places and sentences. Nothing is
//! sent and nothing is changed.
//!
//! API threads and tools. With the tables of the daemon that runs, or offline with rules from files ([`Offline`]).

pub mod build;
mod offline;
mod tell;
mod words;

pub use offline::Offline;
pub(crate) use tell::named_invalid;
pub use tell::{Scenery, named_reason, rule_place, summary, tell, what_it_is};

use crate::api::types::{ExplainRequest, Explanation, Fate};
use crate::iptables::names::nearest;
use build::Known;
use dataplane::explain::{Live, explain, flow_of};
use dataplane::flow::Direction;
use dataplane::ids::PortId;
use dataplane::worker::{Settings, Snapshot};
use std::sync::Arc;

/// Why a packet was not explained: one sentence.
#[derive(Debug, thiserror::Error)]
pub enum Unexplained {
    /// The request makes no sense.
    #[error("{0}")]
    Request(String),
    /// There is no memory for it.
    #[error("no memory to explain a packet with: {0}")]
    System(#[from] std::io::Error),
}

/// Explains the packet of a request.
///
/// # Errors
/// What is wrong with the request, or that there is no memory.
pub fn answer(
    request: &ExplainRequest,
    live: &Live<'_>,
    scenery: &Scenery<'_>,
) -> Result<Explanation, Unexplained> {
    let ingress = ingress(&request.ingress, live.names).map_err(Unexplained::Request)?;
    let (frame, borrowed) = frame(request, live).map_err(Unexplained::Request)?;
    let unchecked;
    let mut live = *live;
    if request.is_cut {
        unchecked = without_checksums(live.snapshot);
        live.snapshot = &unchecked;
    }
    let explained = explain(&live, &frame, ingress)?;
    let mut told = tell(scenery, &explained, &frame, ingress);
    if borrowed {
        told.notes.push(
            "flags and sequence numbers that were not given are those its connection has come to".to_owned(),
        );
    }
    if request.is_cut {
        told.notes.push("the capture has cut the packet: its checksums were not verified".to_owned());
    }
    if told.verdict.verdict == Fate::Held {
        told.notes.push(
            "it is a fragment: it waits for the rest of its datagram, and what becomes of that is decided for the whole"
                .to_owned(),
        );
    }
    Ok(told)
}

/// The NIC of a name.
fn ingress(name: &str, names: &[String]) -> Result<PortId, String> {
    let at = names.iter().position(|known| known == name).and_then(|at| u8::try_from(at).ok());
    at.map(PortId).ok_or_else(|| {
        let known = names.join(", ");
        match nearest(name, names.iter().map(String::as_str)) {
            _ if name.is_empty() => format!("on which NIC does it come in? Name it with --in: {known}"),
            Some(near) => format!("the gateway has no NIC `{name}`; did you mean `{near}`? It has {known}"),
            None => format!("the gateway has no NIC `{name}`; it has {known}"),
        }
    })
}

/// The frame that is asked about, and whether parts of it come from the connection it would belong to.
fn frame(request: &ExplainRequest, live: &Live<'_>) -> Result<(Vec<u8>, bool), String> {
    let spec = match (&request.packet, &request.frame) {
        (Some(spec), None) => spec,
        (None, Some(text)) => return Ok((build::hex(text)?, false)),
        (None, None) => return Err("there is no packet: give `packet` or `frame`".to_owned()),
        (Some(_), Some(_)) => return Err("there are two packets: give either `packet` or `frame`".to_owned()),
    };
    let first = build::frame(spec, None)?;
    if spec.flags.is_some() && spec.seq.is_some() && spec.ack.is_some() {
        return Ok((first, false));
    }
    let found = flow_of(live, &first);
    let numbers = found.and_then(|found| Some((found, live.tables().next_numbers(&found)?)));
    let Some((found, next)) = numbers else { return Ok((first, false)) };
    let answers_syn = found.direction == Direction::Reply && !found.view.is_seen_reply();
    let is_repeated = found.direction == Direction::Orig && !next.is_answered;
    if is_repeated {
        // A handshake that waits for its answer: the packet is its first one once more.
        return Ok((first, false));
    }
    let known = Known { numbers: (next.seq, next.ack), answers_syn };
    Ok((build::frame(spec, Some(known))?, true))
}

/// The same rules and settings for a packet whose checksums say nothing.
fn without_checksums(snapshot: &Snapshot) -> Snapshot {
    let mut settings: Settings = snapshot.settings.clone();
    settings.track.checksum = false;
    Snapshot {
        generation: snapshot.generation,
        v4: Arc::clone(&snapshot.v4),
        v6: Arc::clone(&snapshot.v6),
        settings,
    }
}
