//! Commands on elements: `add`, `del`, `test`.

use super::Run;
use crate::iptables::diagnostics::Diagnostic;
use crate::sets::command::What;
use crate::sets::element::Pattern;
use crate::sets::store::Answer;
use dataplane::packet::Family;
use dataplane::sets::{EditError, Element, Extras, Kind, Set, Slot};
use std::ops::ControlFlow;
use std::sync::Arc;

impl Run<'_> {
    fn edit_error(&self, error: EditError) -> Diagnostic {
        self.wrong(2, error.to_string())
    }

    pub(super) fn add(&self, name: &str, what: &What, extras: &Extras) -> Result<(), Diagnostic> {
        let set = self.slot(name, 1)?.set();
        let exist = self.options().exist;
        let refused = |error| self.edit_error(error);
        let pattern = match what {
            What::Elements(pattern) => pattern,
            What::Member(member, beside) => {
                let slot = self.member(member)?;
                let beside = match beside {
                    Some((by, is_after)) => Some((self.slot(by, 4)?.id(), *is_after)),
                    None => None,
                };
                return set.add_member(&slot, beside, extras, exist, self.now).map(|_| ()).map_err(refused);
            }
        };
        self.each(&set, pattern, |element| {
            set.add(element, extras, exist, self.now).map(|_| ()).map_err(refused)
        })
    }

    pub(super) fn del(&self, name: &str, what: &What) -> Result<(), Diagnostic> {
        let set = self.slot(name, 1)?.set();
        let exist = self.options().exist;
        let refused = |error| self.edit_error(error);
        let pattern = match what {
            What::Elements(pattern) => pattern,
            What::Member(member, _) => {
                let removed = set.remove_member(self.member(member)?.id(), self.now);
                return if exist { Ok(()) } else { removed.map_err(refused) };
            }
        };
        self.each(&set, pattern, |element| {
            let removed = set.remove(element, self.now);
            if exist { Ok(()) } else { removed.map_err(refused) }
        })
    }

    pub(super) fn test(&self, name: &str, what: &What) -> Result<Answer, Diagnostic> {
        let set = self.slot(name, 1)?.set();
        let is_in = match what {
            What::Elements(pattern) => {
                let element = pattern.first(set.spec(), self.iface(&set, pattern)?);
                self.check(&set, &element)?;
                set.is_in(element, self.now) == Some(false)
            }
            What::Member(member, beside) => {
                let id = self.member(member)?.id();
                let members: Vec<_> = set.members().iter().map(|slot| slot.id()).collect();
                let at = members.iter().position(|known| *known == id);
                match beside {
                    None => at.is_some(),
                    Some((by, is_after)) => {
                        let by = self.slot(by, 4)?.id();
                        let by = members.iter().position(|known| *known == by);
                        let (first, then) = if *is_after { (by, at) } else { (at, by) };
                        first.zip(then).is_some_and(|(first, then)| first + 1 == then)
                    }
                }
            }
        };
        let word = self.asked.words.get(2).map_or("", |word| word.text.as_str());
        let note = if is_in {
            format!("Warning: {word} is in set {name}.")
        } else {
            format!("{word} is NOT in set {name}.")
        };
        let notes = if self.options().quiet { Vec::new() } else { vec![note] };
        Ok(Answer { notes, is_in: Some(is_in), ..Answer::default() })
    }

    /// Does something with every element that a pattern stands for, until it cannot be done with one.
    fn each(
        &self,
        set: &Set,
        pattern: &Pattern,
        mut act: impl FnMut(Element) -> Result<(), Diagnostic>,
    ) -> Result<(), Diagnostic> {
        self.check_ends(set, pattern)?;
        let iface = self.iface(set, pattern)?;
        let done = pattern.each(set.spec(), iface, |element| {
            match self.check(set, &element).and_then(|()| act(element)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(error),
            }
        });
        if let ControlFlow::Break(error) = done { Err(error) } else { Ok(()) }
    }

    /// Whether all of a range is within that of a bitmap.
    fn check_ends(&self, set: &Set, pattern: &Pattern) -> Result<(), Diagnostic> {
        let spec = set.spec();
        let (from, to) = pattern.ends();
        let is_bitmap = matches!(spec.kind, Kind::BitmapIp | Kind::BitmapPort);
        if is_bitmap && (from < spec.range.0 || to > spec.range.1) {
            return Err(self.wrong(2, "the element is out of the range of the set"));
        }
        Ok(())
    }

    /// Whether the set may hold it.
    fn check(&self, set: &Set, element: &Element) -> Result<(), Diagnostic> {
        let spec = set.spec();
        let is_within = match spec.kind {
            Kind::BitmapIp => (u128::from(spec.range.0)..=u128::from(spec.range.1)).contains(&element.addr),
            Kind::BitmapPort => (spec.range.0..=spec.range.1).contains(&u32::from(element.port)),
            _ => true,
        };
        if !is_within {
            return Err(self.wrong(2, "the element is out of the range of the set"));
        }
        if matches!(spec.kind, Kind::HashIp | Kind::HashMac) && element.masked(spec).addr == 0 {
            return Err(self.wrong(2, "an address of zero is no element of a hash"));
        }
        // Linux loops over addresses from there, and finds none.
        if spec.kind == Kind::HashIpPort && spec.family == Some(Family::V4) && element.addr == 0 {
            return Err(self.wrong(2, "0.0.0.0 is no element of hash:ip,port"));
        }
        Ok(())
    }

    fn iface(&self, set: &Set, pattern: &Pattern) -> Result<u16, Diagnostic> {
        let Some(name) = &pattern.iface else { return Ok(0) };
        set.iface(name).ok_or_else(|| self.wrong(2, "the set knows 65535 names of NICs and takes no more"))
    }

    /// A set that a list may have.
    fn member(&self, name: &str) -> Result<Arc<Slot>, Diagnostic> {
        let slot = self.slot(name, 2)?;
        if slot.set().spec().kind == Kind::ListSet {
            return Err(self.wrong(2, "a list cannot stand in a list"));
        }
        Ok(slot)
    }
}
