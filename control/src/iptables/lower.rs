//! Syntax to `rules::model`: chains assembled in order, iptables' own checks, rules named. Control thread and tools only.
//!
//! Invariant: the `Ruleset` made from a `File` has its chains and rules at the same positions.

use std::collections::{HashMap, VecDeque};

use dataplane::packet::Family;
use dataplane::rules::model::{self, Around, ChainId, Match, Policy, RuleId, Ruleset};

use super::diagnostics::{Diagnostic, Span};
use super::names::nearest;
use super::options::{Instance, Lowered, basic};
use super::parser::DIAGNOSTICS_MAX;
use super::printer;
use super::syntax::{Addresses, Chain, Command, Counters, File, Rule, Table, Target};

/// Chains that a walk may be inside of below a built-in one: the kernel's NFT_JUMP_STACK_SIZE (16) less the built-in.
pub const JUMP_DEPTH_MAX: usize = 15;

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
    /// Boxed, so that inserting in the middle of a long chain moves pointers only.
    rules: Vec<VecDeque<Box<Rule>>>,
    by_name: HashMap<String, usize>,
    rule_count: usize,
}

/// Assembles tables: declarations, policies, rules in their final order, lists expanded. Adds what is wrong to
/// `diagnostics` and leaves it out.
#[must_use]
pub fn assemble(tables: Vec<Table>, family: Family, diagnostics: &mut Vec<Diagnostic>) -> File {
    let mut file = File { family, chains: Vec::new() };
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
            chain.rules = rules.into_iter().map(|rule| *rule).collect();
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
                None => rules.push_back(Box::new(copy)),
                // iptables inserts each of them at the same place, so they end up in reverse.
                Some(at) => rules.insert(at, Box::new(copy)),
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

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    Unseen,
    Open,
    /// Left, with the number of chains on the longest walk from here, itself included.
    Done(usize),
}

/// Reports jumps that loop, and walks deeper than the kernel allows.
fn check_walks(chains: &[Chain], diagnostics: &mut Vec<Diagnostic>) {
    let index: HashMap<&str, usize> =
        chains.iter().enumerate().map(|(index, chain)| (chain.name.as_str(), index)).collect();
    let edges: Vec<Vec<(usize, Span)>> = chains
        .iter()
        .map(|chain| chain.rules.iter().filter_map(|rule| edge(rule, &index)).collect())
        .collect();
    let mut marks = vec![Mark::Unseen; chains.len()];
    for start in 0..chains.len() {
        let reachable = chains.get(start).is_some_and(|chain| chain.policy.is_some());
        if let Some((cycle, span)) = walk(start, &edges, &mut marks) {
            let names: Vec<&str> = cycle
                .iter()
                .filter_map(|&chain| chains.get(chain))
                .map(|chain| chain.name.as_str())
                .collect();
            let message = format!("jumps go round in a loop: {}", names.join(" -> "));
            diagnostics.push(if reachable {
                Diagnostic::error(span, message)
            } else {
                Diagnostic::unsupported(span, message)
                    .hint("no built-in chain reaches it, so iptables lets it be; remove it")
            });
            return;
        }
        if let (true, Some(Mark::Done(depth)), Some(chain)) = (reachable, marks.get(start), chains.get(start))
            && depth - 1 > JUMP_DEPTH_MAX
        {
            let span = edges.get(start).and_then(|edges| edges.first()).map_or(chain.span, |&(_, span)| span);
            let message = format!(
                "chains nest {} deep below {}, the kernel allows {JUMP_DEPTH_MAX}",
                depth - 1,
                chain.name
            );
            diagnostics.push(Diagnostic::error(span, message));
        }
    }
}

fn edge(rule: &Rule, index: &HashMap<&str, usize>) -> Option<(usize, Span)> {
    match &rule.target {
        Target::Chain { name, span, .. } => index.get(name.as_str()).map(|&to| (to, *span)),
        _ => None,
    }
}

/// Depth-first walk without recursion; gives the first loop found, first chain repeated at its end.
fn walk(start: usize, edges: &[Vec<(usize, Span)>], marks: &mut [Mark]) -> Option<(Vec<usize>, Span)> {
    if marks[start] != Mark::Unseen {
        return None;
    }
    marks[start] = Mark::Open;
    // Chain, next edge to follow, longest walk below it so far.
    let mut path: Vec<(usize, usize, usize)> = vec![(start, 0, 0)];
    while let Some((chain, next, below)) = path.last_mut() {
        let Some(&(to, span)) = edges[*chain].get(*next) else {
            let (chain, depth) = (*chain, *below + 1);
            marks[chain] = Mark::Done(depth);
            path.pop();
            if let Some((_, _, below)) = path.last_mut() {
                *below = depth.max(*below);
            }
            continue;
        };
        *next += 1;
        match marks[to] {
            Mark::Done(depth) => *below = depth.max(*below),
            Mark::Open => {
                let loop_start = path.iter().position(|&(chain, _, _)| chain == to).unwrap_or(0);
                let mut cycle: Vec<usize> = path[loop_start..].iter().map(|&(chain, _, _)| chain).collect();
                cycle.push(to);
                return Some((cycle, span));
            }
            Mark::Unseen => {
                marks[to] = Mark::Open;
                path.push((to, 0, 0));
            }
        }
    }
    None
}

/// The model of a file that was edited after it was assembled, with the same checks; `None` if they fail.
pub(super) fn relower(file: &File, diagnostics: &mut Vec<Diagnostic>) -> Option<Ruleset> {
    for table in file.chains.chunk_by(|one, other| one.table == other.table) {
        check_walks(table, diagnostics);
        let rules: usize = table.iter().map(|chain| chain.rules.len()).sum();
        if rules > RULES_MAX {
            let message = format!("more than {RULES_MAX} rules, address lists counted out");
            diagnostics.push(Diagnostic::unsupported(Span::default(), message));
        }
    }
    if diagnostics.is_empty() { lower(file) } else { None }
}

/// The model of an assembled file. `None` if it holds more chains than an id can count, or a target that was not checked.
#[must_use]
pub fn lower(file: &File) -> Option<Ruleset> {
    let mut index: Index<'_> = HashMap::new();
    for (position, chain) in file.chains.iter().enumerate() {
        index.insert((chain.table, chain.name.as_str()), ChainId(u32::try_from(position).ok()?));
    }
    let mut seen = HashMap::new();
    let mut chains = Vec::with_capacity(file.chains.len());
    for chain in &file.chains {
        let mut rules = Vec::with_capacity(chain.rules.len());
        for rule in &chain.rules {
            rules.push(lower_rule(chain, rule, &index, &mut seen)?);
        }
        chains.push(model::Chain {
            table: chain.table,
            name: chain.name.clone(),
            policy: chain.policy,
            rules,
        });
    }
    let find = |table, name| index.get(&(table, name)).copied();
    let around = Around {
        raw_prerouting: find(model::Table::Raw, "PREROUTING"),
        mangle_prerouting: find(model::Table::Mangle, "PREROUTING"),
        mangle_forward: find(model::Table::Mangle, "FORWARD"),
        mangle_postrouting: find(model::Table::Mangle, "POSTROUTING"),
    };
    Some(Ruleset { family: file.family, chains, forward: find(model::Table::Filter, "FORWARD")?, around })
}

/// Chains by table and name.
type Index<'a> = HashMap<(model::Table, &'a str), ChainId>;

fn lower_rule(
    chain: &Chain,
    rule: &Rule,
    index: &Index<'_>,
    seen: &mut HashMap<u64, u32>,
) -> Option<model::Rule> {
    let Rule { span: _, counters: _, src, dst, in_iface, out_iface, proto, fragment, matches, target } = rule;
    let mut lowered = Vec::new();
    if let Some((net, invert)) = src.as_ref().and_then(|list| Some((list.nets.first()?, list.invert))) {
        lowered.push(Match::Src { addr: net.addr, mask: net.mask, invert });
    }
    if let Some((net, invert)) = dst.as_ref().and_then(|list| Some((list.nets.first()?, list.invert))) {
        lowered.push(Match::Dst { addr: net.addr, mask: net.mask, invert });
    }
    if let Some(iface) = in_iface {
        lowered.push(Match::InIface { pattern: iface.pattern.clone(), invert: iface.invert });
    }
    if let Some(iface) = out_iface {
        lowered.push(Match::OutIface { pattern: iface.pattern.clone(), invert: iface.invert });
    }
    if let Some(proto) = proto {
        lowered.push(Match::Proto { proto: proto.number, invert: proto.invert });
    }
    if let &Some(invert) = fragment {
        lowered.push(Match::LaterFragment { invert });
    }
    for instance in matches {
        if let Lowered::Matches(more) = instance.lower() {
            lowered.extend(more);
        }
    }
    let is_bare = lowered.is_empty() && matches.is_empty();
    let target = match target {
        Target::None => model::Target::Continue,
        Target::Accept => model::Target::Accept,
        Target::Drop => model::Target::Drop,
        Target::Return => model::Target::Return,
        Target::Chain { name, goto, .. } => {
            let id = *index.get(&(chain.table, name.as_str()))?;
            if *goto { model::Target::Goto(id) } else { model::Target::Jump(id) }
        }
        Target::Extension(instance) => match instance.lower() {
            Lowered::Target(target) => target,
            Lowered::Matches(_) => return None,
        },
    };
    let line = printer::rule_line(&chain.name, rule);
    let text = match chain.table {
        model::Table::Filter => line,
        table => format!("*{} {line}", table.name()),
    };
    let management = matches.iter().any(|instance| instance.marks_management());
    Some(model::Rule { id: rule_id(&text, seen), matches: lowered, target, management, is_bare })
}

/// A rule's stable name: a hash of its canonical text, and of how many like it came before.
fn rule_id(text: &str, seen: &mut HashMap<u64, u32>) -> RuleId {
    let hash = fnv1a(text.bytes(), 0xcbf2_9ce4_8422_2325);
    let occurrence = seen.entry(hash).or_insert(0);
    *occurrence += 1;
    // The first of its kind keeps the plain hash.
    RuleId(if *occurrence == 1 { hash } else { fnv1a(occurrence.to_be_bytes().into_iter(), hash) })
}

/// FNV-1a, 64 bits (RFC 9923): fixed for ever, unlike the standard library's hashers.
fn fnv1a(bytes: impl Iterator<Item = u8>, start: u64) -> u64 {
    bytes.fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
