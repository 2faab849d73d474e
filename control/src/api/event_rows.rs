//! Events as the workers tell them, turned into what the API says of them. Pure.

use super::flow_rows::{Shown, Wall, flow_row};
use super::types::{Changed, EventKind, EventRow};
use dataplane::flow::{self, FlowEvent};
use dataplane::rules::conn::CtEvents;

/// An event as the API tells it; it happened at `then`.
#[must_use]
pub fn event_row(event: &FlowEvent, shown: &Shown, then: Wall) -> EventRow {
    let FlowEvent { kind, news, at: _, asked, for_accounts: _, view } = event;
    let kind = match kind {
        flow::EventKind::New => EventKind::New,
        flow::EventKind::Update => EventKind::Update,
        flow::EventKind::Destroy => EventKind::Destroy,
    };
    let mut flow = flow_row(view, shown);
    // As the kernel's events do, it names labels that have changed.
    if news.and(CtEvents::LABEL).is_empty() || kind == EventKind::Destroy {
        flow.labels.clear();
    }
    if flow.start_ms.is_some() && kind == EventKind::Destroy {
        flow.stop_ms = Some(then.micros / 1000);
    }
    EventRow { kind, at_us: then.micros, lost: 0, changed: changes(*news), asked: *asked, flow }
}

/// What has changed, by name.
fn changes(news: CtEvents) -> Vec<Changed> {
    let names = [
        (CtEvents::REPLY, Changed::Reply),
        (CtEvents::ASSURED, Changed::Assured),
        (CtEvents::PROTOINFO, Changed::Protoinfo),
        (CtEvents::MARK, Changed::Mark),
        (CtEvents::LABEL, Changed::Label),
    ];
    names.into_iter().filter(|(event, _)| !news.and(*event).is_empty()).map(|(_, name)| name).collect()
}
