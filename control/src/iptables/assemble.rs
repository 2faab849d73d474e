//! Tables as they are written put together to chains with their rules in final order, with iptables' own checks. Control
//! thread and tools only.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use dataplane::packet::Family;
use dataplane::rules::model::{self, Policy};

use super::diagnostics::{Diagnostic, Span};
use super::names::nearest;
use super::options::{Instance, basic};
use super::parser::DIAGNOSTICS_MAX;
use super::syntax::{Addresses, Chain, Command, Counters, File, Rule, Table, Target};
use super::walks::check_walks;

/// Most rules of one table, lists expanded: beyond it memory is at stake, not meaning.
pub const RULES_MAX: usize = 1_000_000;

/// Built-in chains of a table, in kernel order.
const fn built_in(table: model::Table) -> &'static [&'static str] {
    match table {
        model::Table::Filter => &["INPUT", "FORWARD", "OUTPUT"],
        model::Table::Mangle => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
        model::Table::Raw => &["PREROUTING", "OUTPUT"],
    }
}

struct Building {
    kind: model::Table,
    chains: Vec<Chain>,
    rules: Vec<VecDeque<Arc<Rule>>>,
    by_name: HashMap<String, usize>,
    rule_count: usize,
}

/// Assembles tables: declarations, policies, rules in their final order, lists expanded. Adds what is wrong to
/// `diagnostics` and leaves it out.
#[must_use]
pub fn assemble(tables: Vec<Table>, family: Family, diagnostics: &mut Vec<Diagnostic>) -> File {
    let mut file = File { name: "".into(), family, chains: Vec::new() };
    for table in tables {
        let mut building = Building::new(table.kind);
        for command in table.commands {
            if diagnostics.len() >= DIAGNOSTICS_MAX {
                break;
            }
            if let Err(diagnostic) = building.command(command, diagnostics) {
                diagnostics.push(diagnostic);
            }
        }
        let chains = building.finish();
        check_walks(&chains, diagnostics);
        super::hooks::check(&chains, diagnostics);
        file.chains.extend(chains);
    }
    note_host_chains(&file, diagnostics);
    file
}

impl Building {
    fn new(kind: model::Table) -> Self {
        let chain = |name: &str| Chain {
            table: kind,
            name: name.to_owned(),
            span: Span::default(),
            policy: Some(Policy::Accept),
            counters: Counters::default(),
            rules: Vec::new(),
        };
        let names = built_in(kind);
        let by_name = names.iter().enumerate().map(|(index, name)| ((*name).to_owned(), index)).collect();
        let chains: Vec<Chain> = names.iter().map(|name| chain(name)).collect();
        let rules = chains.iter().map(|_| VecDeque::new()).collect();
        Self { kind, chains, rules, by_name, rule_count: 0 }
    }

    fn is_built_in(&self, index: usize) -> bool {
        index < built_in(self.kind).len()
    }

    fn finish(mut self) -> Vec<Chain> {
        for (chain, rules) in self.chains.iter_mut().zip(self.rules) {
            chain.rules = rules.into();
        }
        self.chains
    }

    fn command(&mut self, command: Command, diagnostics: &mut Vec<Diagnostic>) -> Result<(), Diagnostic> {
        match command {
            Command::Declare { name, span, policy, counters, exclusive } => {
                self.declare(name, span, policy, counters, exclusive, diagnostics)
            }
            Command::Policy { name, span, policy } => match self.by_name.get(&name) {
                Some(&index) if self.is_built_in(index) => self.set_policy(index, &policy),
                Some(_) => Err(Diagnostic::error(
                    span,
                    format!("`{name}` is not a built-in chain and has no policy"),
                )),
                None => Err(no_chain(&name, span, &self.by_name)),
            },
            Command::Rule { chain, span, insert, rule } => self.rule(&chain, span, insert, &rule),
        }
    }

    fn declare(
        &mut self,
        name: String,
        span: Span,
        policy: Option<(String, Span)>,
        counters: Counters,
        exclusive: bool,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<(), Diagnostic> {
        if let Some(&index) = self.by_name.get(&name) {
            if exclusive {
                return Err(Diagnostic::error(span, format!("chain `{name}` already exists")));
            }
            return self.declare_again(index, span, policy, counters, diagnostics);
        }
        basic::check_chain_name(&name, span)?;
        if let Some((word, place)) = policy.filter(|(word, _)| word != "-") {
            let warning = Diagnostic::warning(
                place,
                format!("policy `{word}` on the user chain `{name}` has no effect"),
            );
            diagnostics.push(warning.hint("only built-in chains have a policy; write `-`"));
        }
        self.by_name.insert(name.clone(), self.chains.len());
        self.chains.push(Chain { table: self.kind, name, span, policy: None, counters, rules: Vec::new() });
        self.rules.push(VecDeque::new());
        Ok(())
    }

    fn declare_again(
        &mut self,
        index: usize,
        span: Span,
        policy: Option<(String, Span)>,
        counters: Counters,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<(), Diagnostic> {
        let built_in = self.is_built_in(index);
        let (Some(chain), Some(rules)) = (self.chains.get_mut(index), self.rules.get_mut(index)) else {
            return Ok(());
        };
        if chain.span.line != 0 {
            let lost = if built_in { 0 } else { rules.len() };
            let mut warning = Diagnostic::warning(span, format!("chain `{}` is declared twice", chain.name));
            if lost > 0 {
                warning =
                    warning.hint(format!("as in iptables-restore, the {lost} rules it had so far are gone"));
                rules.clear();
                self.rule_count -= lost;
            }
            diagnostics.push(warning);
        }
        chain.span = span;
        chain.counters = counters;
        match policy {
            Some(policy) if built_in && policy.0 != "-" => self.set_policy(index, &policy),
            _ => Ok(()),
        }
    }

    fn set_policy(&mut self, index: usize, (word, span): &(String, Span)) -> Result<(), Diagnostic> {
        let policy = match word.as_str() {
            "ACCEPT" => Policy::Accept,
            "DROP" => Policy::Drop,
            _ => {
                return Err(Diagnostic::error(*span, format!("bad policy `{word}`"))
                    .hint("the policy of a built-in chain is ACCEPT or DROP"));
            }
        };
        if let Some(chain) = self.chains.get_mut(index) {
            chain.policy = Some(policy);
        }
        Ok(())
    }

    fn rule(
        &mut self,
        chain: &str,
        span: Span,
        insert: Option<(u32, Span)>,
        rule: &Rule,
    ) -> Result<(), Diagnostic> {
        let index = *self.by_name.get(chain).ok_or_else(|| no_chain(chain, span, &self.by_name))?;
        self.check_target(rule, index)?;
        let Some(rules) = self.rules.get_mut(index) else { return Ok(()) };
        let at = match insert {
            None => None,
            Some((position, place)) => {
                let at = usize::try_from(position - 1).unwrap_or(usize::MAX);
                if at > rules.len() {
                    let message = format!(
                        "position {position} is beyond the end of `{chain}`, which has {} rules",
                        rules.len()
                    );
                    return Err(Diagnostic::error(place, message));
                }
                Some(at)
            }
        };
        let copies = rule.src.as_ref().map_or(1, |list| list.nets.len())
            * rule.dst.as_ref().map_or(1, |list| list.nets.len());
        self.rule_count += copies;
        if self.rule_count > RULES_MAX {
            self.rule_count -= copies;
            return Err(Diagnostic::unsupported(
                rule.span,
                format!("more than {RULES_MAX} rules, address lists counted out"),
            ));
        }
        for copy in expand(rule) {
            match at {
                None => rules.push_back(Arc::new(copy)),
                // iptables inserts each of them at the same place, so they end up in reverse.
                Some(at) => rules.insert(at, Arc::new(copy)),
            }
        }
        Ok(())
    }

    fn check_target(&self, rule: &Rule, chain: usize) -> Result<(), Diagnostic> {
        let (name, span) = match &rule.target {
            Target::Chain { name, span, .. } => (name, span),
            Target::Extension(instance) if !instance.tables().contains(&self.kind) => {
                let message =
                    format!("`{}` cannot stand in table {}", instance.target_name(), self.kind.name());
                let names: Vec<_> = instance.tables().iter().map(|table| table.name()).collect();
                return Err(
                    Diagnostic::error(rule.span, message).hint(format!("it belongs to {}", names.join(", ")))
                );
            }
            Target::Extension(instance) => return self.check_chain(rule, instance.as_ref(), chain),
            _ => return Ok(()),
        };
        match self.by_name.get(name) {
            Some(&index) if self.is_built_in(index) => Err(Diagnostic::error(
                *span,
                format!("`{name}` is a built-in chain; rules cannot jump to it"),
            )),
            Some(_) => Ok(()),
            None => Err(no_target(name, *span, &self.by_name)),
        }
    }
}

impl Building {
    /// Whether a target may stand in that chain.
    fn check_chain(&self, rule: &Rule, instance: &dyn Instance, chain: usize) -> Result<(), Diagnostic> {
        let name = self.chains.get(chain).map_or("", |chain| chain.name.as_str());
        match instance.built_in_chains() {
            Some(allowed) if self.is_built_in(chain) && !allowed.contains(&name) => {
                let message =
                    format!("`{}` with these options cannot stand in {name}", instance.target_name());
                Err(Diagnostic::error(rule.span, message)
                    .hint(format!("it belongs to {}", allowed.join(", "))))
            }
            _ => Ok(()),
        }
    }
}

/// One rule per source and destination, sources outermost, as iptables does.
fn expand(rule: &Rule) -> impl Iterator<Item = Rule> + '_ {
    let options = |list: &Option<Addresses>| -> Vec<Option<Addresses>> {
        match list {
            None => vec![None],
            Some(list) => list
                .nets
                .iter()
                .map(|&net| (net.mask != 0).then(|| Addresses { nets: vec![net], invert: list.invert }))
                .collect(),
        }
    };
    let destinations = options(&rule.dst);
    options(&rule.src).into_iter().flat_map(move |src| {
        destinations
            .iter()
            .map(|dst| Rule { src: src.clone(), dst: dst.clone(), ..rule.clone() })
            .collect::<Vec<_>>()
    })
}

fn no_chain(name: &str, span: Span, known: &HashMap<String, usize>) -> Diagnostic {
    let error = Diagnostic::error(span, format!("chain `{name}` does not exist"));
    match nearest_chain(name, known) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(format!("declare it before its first rule: `:{name} - [0:0]`")),
    }
}

fn no_target(name: &str, span: Span, known: &HashMap<String, usize>) -> Diagnostic {
    let error = Diagnostic::error(span, format!("no target or chain `{name}`"));
    let targets = ["ACCEPT", "DROP", "RETURN", "REJECT"];
    match nearest(name, targets.into_iter()).or_else(|| nearest_chain(name, known)) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(format!("a chain must be declared before it is jumped to: `:{name} - [0:0]`")),
    }
}

/// The nearest chain name; searched only among few, as a file may have many thousands of both.
fn nearest_chain<'a>(name: &str, known: &'a HashMap<String, usize>) -> Option<&'a str> {
    if known.len() > 1000 {
        return None;
    }
    let mut names: Vec<&str> = known.keys().map(String::as_str).collect();
    names.sort_unstable();
    nearest(name, names.into_iter())
}

/// One note for all rules a bump in the wire never consults.
fn note_host_chains(file: &File, diagnostics: &mut Vec<Diagnostic>) {
    let host = file.chains.iter().filter(|chain| chain.name == "INPUT" || chain.name == "OUTPUT");
    if let Some(rule) = host.flat_map(|chain| &chain.rules).min_by_key(|rule| rule.span.line) {
        diagnostics.push(
            Diagnostic::note(
                rule.span,
                "a bump in the wire does not consult INPUT and OUTPUT; their rules are kept, not used",
            )
            .hint("packets that pass through are judged by PREROUTING, FORWARD and POSTROUTING"),
        );
    }
}
