//! `-j TRACE`: every further step of the packet is logged.

use dataplane::rules::conn::Effect;
use dataplane::rules::model::{self, Target};

use super::{Extension, Facts, Given, Instance, Kind, Lowered};
use crate::iptables::diagnostics::{Diagnostic, Span};

/// `-j TRACE`.
pub static TRACE: Extension = Extension {
    kind: Kind::Target,
    names: &["TRACE"],
    family: None,
    protocol: None,
    repeatable: false,
    options: &[],
    new: |_| Box::new(Trace),
};

#[derive(Debug)]
struct Trace;

impl Instance for Trace {
    fn option(&mut self, _given: &Given<'_>) -> Result<(), Diagnostic> {
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, _span: Span) -> Result<(), Diagnostic> {
        Ok(())
    }

    fn print(&self, out: &mut String) {
        out.push_str(" -j TRACE");
    }

    fn list(&self, _out: &mut String) {}

    fn lower(&self) -> Lowered {
        Lowered::Target(Target::Effect(Effect::Trace))
    }

    fn target_name(&self) -> &'static str {
        "TRACE"
    }

    fn tables(&self) -> &'static [model::Table] {
        &[model::Table::Raw]
    }
}
