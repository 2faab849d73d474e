//! The syntax tree: what a rules file says, with the place of everything. Control thread and tools only.
//!
//! Invariant: in a [`File`] handed out by `load`, chain and rule positions are those of the `Ruleset` beside it, and
//! each rule has at most one source and one destination (lists are already expanded).

use std::sync::Arc;

use dataplane::packet::Family;
use dataplane::rules::model::{self, IfacePattern, Policy};

use super::diagnostics::Span;
use super::options::Instance;

/// `[packets:bytes]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One family's tables.
#[derive(Clone, Debug)]
pub struct File {
    /// What it is called.
    pub name: Arc<str>,
    /// Family the file is for.
    pub family: Family,
    /// The chains of `filter`, then those of each other table the file has: built-in ones first in kernel order, then
    /// user chains as declared.
    pub chains: Vec<Chain>,
}

/// One chain.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Its table.
    pub table: model::Table,
    /// Its name.
    pub name: String,
    /// Where it was declared; line zero for a built-in chain the file does not mention.
    pub span: Span,
    /// Policy; built-in chains only.
    pub policy: Option<Policy>,
    /// Counters it was declared with.
    pub counters: Counters,
    /// Its rules. Shared, so that an edit of one does not copy the others.
    pub rules: Vec<Arc<Rule>>,
}

/// One rule.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// The whole line.
    pub span: Span,
    /// Counters in front of it, or given by `-c`.
    pub counters: Counters,
    /// `-s`.
    pub src: Option<Addresses>,
    /// `-d`.
    pub dst: Option<Addresses>,
    /// `-i`.
    pub in_iface: Option<Iface>,
    /// `-o`.
    pub out_iface: Option<Iface>,
    /// `-p`.
    pub proto: Option<Proto>,
    /// `-f`: whether it is inverted.
    pub fragment: Option<bool>,
    /// `-m ...` in the order they were loaded.
    pub matches: Vec<Arc<dyn Instance>>,
    /// `-j`, `-g`.
    pub target: Target,
}

/// The value of `-s` or `-d`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Any of these.
    pub nets: Vec<Net>,
    /// With `!`.
    pub invert: bool,
}

/// An address with a mask; the address is already masked. IPv4 sits in the low 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    /// The address.
    pub addr: u128,
    /// The mask; may have holes.
    pub mask: u128,
    /// Which kind of address it is; an IPv6 mask may lie in the low bits too.
    pub family: Family,
}

/// The value of `-i` or `-o`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iface {
    /// Name or prefix.
    pub pattern: IfacePattern,
    /// With `!`.
    pub invert: bool,
}

/// The value of `-p`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proto {
    /// Protocol number, never zero.
    pub number: u8,
    /// With `!`.
    pub invert: bool,
}

/// The value of `-j` or `-g`.
#[derive(Clone, Debug, Default)]
pub enum Target {
    /// None.
    #[default]
    None,
    /// `-j ACCEPT`.
    Accept,
    /// `-j DROP`.
    Drop,
    /// `-j RETURN`.
    Return,
    /// `-j CHAIN` or `-g CHAIN`.
    Chain {
        /// The chain's name.
        name: String,
        /// Whether `-g`.
        goto: bool,
        /// Where the name stands.
        span: Span,
    },
    /// A target extension such as REJECT.
    Extension(Arc<dyn Instance>),
}

/// One line of a table, in file order.
#[derive(Clone, Debug)]
pub enum Command {
    /// `:CHAIN POLICY [p:b]` or `-N CHAIN`.
    Declare {
        /// Name.
        name: String,
        /// Place of the name.
        span: Span,
        /// Policy word and its place; `None` for `-N`.
        policy: Option<(String, Span)>,
        /// Counters.
        counters: Counters,
        /// `-N` refuses an existing chain, `:` does not.
        exclusive: bool,
    },
    /// `-P CHAIN POLICY`.
    Policy {
        /// Chain.
        name: String,
        /// Place of the chain's name.
        span: Span,
        /// Policy word and its place.
        policy: (String, Span),
    },
    /// `-A CHAIN ...`, `-I CHAIN [n] ...`.
    Rule {
        /// Chain.
        chain: String,
        /// Place of the chain's name.
        span: Span,
        /// `-I`'s position, from one, and its place; `None` appends.
        insert: Option<(u32, Span)>,
        /// The rule; lists not expanded yet.
        rule: Box<Rule>,
    },
}

/// Everything one `*TABLE` ... `COMMIT` says.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Which table.
    pub kind: model::Table,
    /// Place of `*TABLE`.
    pub span: Span,
    /// Its lines.
    pub commands: Vec<Command>,
}
