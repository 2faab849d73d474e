//! `-j SET`: what rules want added to sets and removed. A worker only notes it: [`SetAsk`]s wait with the packet's marks
//! until it has been judged, go over a bounded ring to control, and are carried out there, in order, milliseconds later.

use super::edit::Extras;
use super::kind::{NetPart, Spec};
use super::set::{Content, Set};
use super::slot::SlotId;
use super::subject::{Directions, Subject};
use crate::clock::Now;
use crate::ids::PortId;
use crate::rules::Facts;
use crate::rules::model::Hook;

/// A set and the ends of the packet that go in or out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SetUse {
    /// The set.
    pub slot: SlotId,
    /// Which ends.
    pub directions: Directions,
}

/// `-j SET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetOrder {
    /// `--add-set`.
    pub add: Option<SetUse>,
    /// `--del-set`, carried out after that.
    pub del: Option<SetUse>,
    /// `--exist`: what is there gets the new timeout.
    pub exist: bool,
    /// `--timeout`, in seconds.
    pub timeout: Option<u32>,
    /// Where the rule stands; the compiler fills it in.
    pub hook: Hook,
}

/// An order about one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetAsk {
    /// What is to be done.
    pub order: SetOrder,
    subject: Subject,
}

impl SetOrder {
    /// The order of a rule that stands there.
    #[must_use]
    pub const fn at(self, hook: Hook) -> Self {
        Self { hook, ..self }
    }

    /// The order about a packet.
    #[must_use]
    pub fn about(self, facts: &Facts<'_>) -> SetAsk {
        SetAsk { order: self, subject: Subject::of(facts, self.hook) }
    }
}

impl SetAsk {
    /// Carries it out on a set: adds, or removes. Whether it could; a list goes on to its next set until one could.
    /// Control.
    pub fn carry_out(&self, set: &Set, directions: Directions, adds: bool) -> bool {
        let spec = set.spec();
        if directions.count < spec.kind.parts()
            || spec.family.is_some_and(|family| family != self.subject.family())
        {
            return false;
        }
        if let Content::List(_) = &set.content {
            return set.members().iter().any(|slot| self.carry_out(&slot.set(), directions, adds));
        }
        let now = Now { nanos: self.subject.nanos };
        let iface = |port: PortId| set.nic_number(port);
        let Some(mut element) = self.subject.element(spec, directions, iface) else { return false };
        // Linux `INIT_CIDR`: rules add and remove networks as long as the smallest there is.
        match (spec.kind.net(), set.longest_prefix()) {
            (NetPart::First, Some(prefix)) => element.prefix = prefix,
            (NetPart::Second, Some(prefix)) => element.prefix2 = prefix,
            _ => {}
        }
        if !is_allowed(&element, spec) {
            return false;
        }
        if !adds {
            return set.remove(element, now).is_ok();
        }
        let counts = spec.counters.then_some((1, u64::from(self.subject.len)));
        let extras = Extras { timeout: self.order.timeout, counts, ..Extras::default() };
        set.add(element, &extras, self.order.exist, now).is_ok()
    }
}

/// Whether a set of this kind may hold it.
fn is_allowed(element: &super::Element, spec: &Spec) -> bool {
    use super::Kind;
    match spec.kind {
        Kind::HashIp => element.masked(spec).addr != 0,
        Kind::BitmapIp => (u128::from(spec.range.0)..=u128::from(spec.range.1)).contains(&element.addr),
        Kind::BitmapPort => (spec.range.0..=spec.range.1).contains(&u32::from(element.port)),
        _ => true,
    }
}

impl Set {
    /// The number of a NIC's name, which is given one if it has none.
    fn nic_number(&self, port: PortId) -> u16 {
        self.port_name(port).and_then(|name| self.iface(&name)).unwrap_or(0)
    }
}
