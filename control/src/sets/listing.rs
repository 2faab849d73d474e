//! `list` and `save`: sets taken down under the store's lock and printed without it, in any of ipset's forms.

use super::command::{Asked, Form, Options};
use super::print::{self, Field};
use super::store::{Inner, Named};
use crate::iptables::diagnostics::Diagnostic;
use dataplane::clock::Now;
use dataplane::sets::{Kind, Set, SlotId};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

struct Listed {
    name: String,
    set: Arc<Set>,
    references: usize,
}

/// What is to be printed, and how.
pub(super) struct Listing {
    sets: Vec<Listed>,
    /// Names of members of lists.
    names: HashMap<SlotId, String>,
    form: Form,
    /// Names only.
    only_names: bool,
    /// No members.
    terse: bool,
    sorted: bool,
}

impl Listing {
    /// One set, or all: lists behind the sets they name. `form` is the command's own.
    pub(super) fn new(
        inner: &Inner,
        name: Option<&str>,
        asked: &Asked,
        form: Form,
    ) -> Result<Self, Diagnostic> {
        let wanted: Vec<&Named> = match name {
            Some(name) => {
                let missing = || asked.wrong(1, format!("there is no set `{name}`"));
                vec![inner.find(name).ok_or_else(missing)?]
            }
            None => {
                let is_list = |named: &&Named| named.slot.set().spec().kind == Kind::ListSet;
                let lists = inner.sets.iter().filter(is_list);
                inner.sets.iter().filter(|named| !is_list(named)).chain(lists).collect()
            }
        };
        let sets = wanted.into_iter().map(|named| Listed {
            name: named.name.clone(),
            set: named.slot.set(),
            references: inner.references(&named.slot),
        });
        let Options { terse, names, sorted, form: other, .. } = asked.options;
        // As in ipset they are of `list`, and not of what may be restored.
        let is_list = form == Form::Plain && other != Some(Form::Save);
        Ok(Self {
            sets: sets.collect(),
            names: inner.sets.iter().map(|named| (named.slot.id(), named.name.clone())).collect(),
            form: other.unwrap_or(form),
            only_names: names && is_list,
            terse: terse && is_list,
            sorted,
        })
    }

    /// Prints it.
    pub(super) fn print(&self, now: Now) -> String {
        let mut out = String::new();
        if self.form == Form::Xml {
            out.push_str("<ipsets>\n");
        }
        for (at, listed) in self.sets.iter().enumerate() {
            match self.form {
                Form::Plain if self.only_names => {
                    let _ = writeln!(out, "{}", listed.name);
                }
                Form::Xml if self.only_names => {
                    let _ = writeln!(out, "<ipset name=\"{}\"/>", print::escaped(&listed.name));
                }
                Form::Save => self.save(&mut out, listed, now),
                Form::Plain => {
                    out.push_str(if at > 0 { "\n" } else { "" });
                    self.plain(&mut out, listed, now);
                }
                Form::Xml => self.xml(&mut out, listed, now),
            }
        }
        if self.form == Form::Xml {
            out.push_str("</ipsets>\n");
        }
        out
    }

    /// The members of a set, each with what goes with it.
    fn members(&self, set: &Set, now: Now) -> impl Iterator<Item = (String, Vec<Field>)> {
        let name_of = |id| self.names.get(&id).cloned().unwrap_or_default();
        let entries = print::entries(set, self.sorted, now).into_iter();
        entries.map(move |entry| (print::element(set, &entry, &name_of), print::extras(&entry)))
    }

    fn save(&self, out: &mut String, listed: &Listed, now: Now) {
        let Listed { name, set, .. } = listed;
        let spec = set.spec();
        let _ = writeln!(out, "create {name} {} {}", spec.kind.name(), print::text(&print::header(spec)));
        for (element, extras) in self.members(set, now) {
            let blank = if extras.is_empty() { "" } else { " " };
            let _ = writeln!(out, "add {name} {element}{blank}{}", print::text(&extras));
        }
    }

    fn plain(&self, out: &mut String, listed: &Listed, now: Now) {
        let Listed { name, set, references } = listed;
        let spec = set.spec();
        let _ = write!(
            out,
            "Name: {name}\nType: {}\nRevision: {}\nHeader: {}\nSize in memory: {}\nReferences: {references}\n\
             Number of entries: {}\n",
            spec.kind.name(),
            print::revision(spec.kind),
            print::text(&print::header(spec)),
            set.bytes(),
            set.len(),
        );
        if self.terse {
            return;
        }
        out.push_str("Members:\n");
        for (element, extras) in self.members(set, now) {
            let blank = if extras.is_empty() { "" } else { " " };
            let _ = writeln!(out, "{element}{blank}{}", print::text(&extras));
        }
    }

    fn xml(&self, out: &mut String, listed: &Listed, now: Now) {
        let Listed { name, set, references } = listed;
        let spec = set.spec();
        let _ = write!(
            out,
            "<ipset name=\"{}\">\n<type>{}</type>\n<revision>{}</revision>\n<header>{}\n<memsize>{}</memsize>\n\
             <references>{references}</references>\n<numentries>{}</numentries>\n</header>\n",
            print::escaped(name),
            spec.kind.name(),
            print::revision(spec.kind),
            print::xml(&print::header(spec)),
            set.bytes(),
            set.len(),
        );
        if !self.terse {
            out.push_str("<members>\n");
            for (element, extras) in self.members(set, now) {
                let element = print::escaped(&element);
                let _ = writeln!(out, "<member><elem>{element}</elem>{}</member>", print::xml(&extras));
            }
            out.push_str("</members>\n");
        }
        out.push_str("</ipset>\n");
    }
}
