//! Syntax back to text: as `iptables-save` 1.8.9 prints what `iptables-restore` loaded, and as `iptables -L -v -n
//! --line-numbers` lists it. Control thread and tools only.
//!
//! Invariant: what [`save`] prints, `load` reads back to the same rules.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::packet::Family;
use dataplane::rules::model::{ChainId, Policy, RuleRef, Table};

use super::names::protocol_name;
use super::options::basic::full_mask;
use super::syntax::{Addresses, Chain, Counters, File, Iface, Net, Rule, Target};

/// Gives the counters of a rule, or of a chain's policy.
pub type CounterSource<'a> = &'a dyn Fn(RuleRef) -> Counters;

/// The file as iptables-save prints it, without its comment lines: `*TABLE`, chains, rules, `COMMIT`. With `counters`
/// the `[p:b]` before each rule appear too, as with `iptables-save -c`.
#[must_use]
pub fn save(file: &File, counters: Option<CounterSource<'_>>) -> String {
    let none = |_| Counters::default();
    print_tables(file, counters.unwrap_or(&none), counters.is_some())
}

/// The same with the counters of policies only, as plain `iptables-save` has them.
#[must_use]
pub fn save_with_policies(file: &File, counters: CounterSource<'_>) -> String {
    print_tables(file, counters, false)
}

/// Tables the file has, in the order packets meet them.
#[must_use]
pub fn tables(file: &File) -> Vec<Table> {
    let has = |table: &Table| file.chains.iter().any(|chain| chain.table == *table);
    [Table::Raw, Table::Mangle, Table::Filter].into_iter().filter(has).collect()
}

fn print_tables(file: &File, counters: CounterSource<'_>, of_rules: bool) -> String {
    tables(file).into_iter().map(|table| print_table(file, table, counters, of_rules)).collect()
}

fn print_table(file: &File, table: Table, counters: CounterSource<'_>, of_rules: bool) -> String {
    let mut out = format!("*{}\n", table.name());
    let order = print_order(file, table);
    for &(id, chain) in &order {
        let Counters { packets, bytes } = match chain.policy {
            Some(_) => counters(RuleRef { chain: id, rule: None }),
            None => Counters::default(),
        };
        let _ = writeln!(out, ":{} {} [{packets}:{bytes}]", chain.name, policy_name(chain.policy));
    }
    for &(id, chain) in &order {
        for (number, rule) in (0u32..).zip(&chain.rules) {
            if of_rules {
                let Counters { packets, bytes } = counters(RuleRef { chain: id, rule: Some(number) });
                let _ = write!(out, "[{packets}:{bytes}] ");
            }
            out.push_str(&rule_line(&chain.name, rule));
            out.push('\n');
        }
    }
    out.push_str("COMMIT\n");
    out
}

/// `ACCEPT`, `DROP`, or `-` for a chain without policy.
#[must_use]
pub const fn policy_name(policy: Option<Policy>) -> &'static str {
    match policy {
        Some(Policy::Accept) => "ACCEPT",
        Some(Policy::Drop) => "DROP",
        None => "-",
    }
}

/// One rule as iptables-save prints it: `-A CHAIN ...`, without a newline.
#[must_use]
pub fn rule_line(chain: &str, rule: &Rule) -> String {
    let Rule { span: _, counters: _, src, dst, in_iface, out_iface, proto, fragment, matches, target } = rule;
    let mut out = format!("-A {chain}");
    print_addresses(&mut out, "-s", src.as_ref());
    print_addresses(&mut out, "-d", dst.as_ref());
    print_iface(&mut out, "-i", in_iface.as_ref());
    print_iface(&mut out, "-o", out_iface.as_ref());
    if let Some(proto) = proto {
        let name = protocol_name(proto.number).map_or_else(|| proto.number.to_string(), str::to_owned);
        let _ = write!(out, "{} -p {name}", bang(proto.invert));
    }
    if let &Some(invert) = fragment {
        let _ = write!(out, "{} -f", bang(invert));
    }
    for instance in matches {
        instance.print(&mut out);
    }
    match target {
        Target::None => {}
        Target::Accept => out.push_str(" -j ACCEPT"),
        Target::Drop => out.push_str(" -j DROP"),
        Target::Return => out.push_str(" -j RETURN"),
        Target::Chain { name, goto, .. } => {
            let _ = write!(out, " {} {name}", if *goto { "-g" } else { "-j" });
        }
        Target::Extension(instance) => instance.print(&mut out),
    }
    out
}

/// A table's chains, built-in ones as they are, user chains by name: the order of iptables-save and -L.
#[must_use]
pub fn print_order(file: &File, table: Table) -> Vec<(ChainId, &Chain)> {
    let of_table = |(_, chain): &(ChainId, &Chain)| chain.table == table;
    let mut order: Vec<(ChainId, &Chain)> =
        (0u32..).map(ChainId).zip(&file.chains).filter(of_table).collect();
    order.sort_by(|(_, a), (_, b)| match (a.policy.is_some(), b.policy.is_some()) {
        (false, false) => a.name.cmp(&b.name),
        (a, b) => b.cmp(&a),
    });
    order
}

fn bang(invert: bool) -> &'static str {
    if invert { " !" } else { "" }
}

fn print_addresses(out: &mut String, option: &str, addresses: Option<&Addresses>) {
    if let Some(Addresses { nets, invert }) = addresses {
        let list: Vec<String> = nets.iter().map(|&net| net_text(net, net.family == Family::V6)).collect();
        let _ = write!(out, "{} {option} {}", bang(*invert), list.join(","));
    }
}

fn print_iface(out: &mut String, option: &str, iface: Option<&Iface>) {
    if let Some(Iface { pattern, invert }) = iface {
        let plus = if pattern.prefix { "+" } else { "" };
        let _ = write!(out, "{} {option} {}{plus}", bang(*invert), pattern.name);
    }
}

/// `10.0.0.0/8`, `1.0.3.0/255.0.255.0`, `2001:db8::/32`.
#[must_use]
pub fn net_text(net: Net, six: bool) -> String {
    let text = address_text(net.addr, six);
    match prefix_len(net) {
        Some(len) => format!("{text}/{len}"),
        None => format!("{text}/{}", address_text(net.mask, six)),
    }
}

fn prefix_len(net: Net) -> Option<u32> {
    let (full, width) = if net.family == Family::V6 { (u128::MAX, 128) } else { (full_mask(Family::V4), 32) };
    let holes = full & !net.mask;
    // The bits left out must be the low ones: one less than a power of two.
    (holes & holes.wrapping_add(1) == 0).then(|| width - (full & !net.mask).count_ones())
}

/// An address as the C library writes it.
#[must_use]
pub fn address_text(addr: u128, six: bool) -> String {
    if !six {
        return Ipv4Addr::from(u32::try_from(addr & u128::from(u32::MAX)).unwrap_or_default()).to_string();
    }
    // The C library writes addresses below ::1:0:0 with a dotted tail, unless the tail is one group only.
    match u32::try_from(addr) {
        Ok(low) if low > 0xffff => format!("::{}", Ipv4Addr::from(low)),
        _ => Ipv6Addr::from(addr).to_string(),
    }
}

/// Appends a value as iptables-save quotes it: bare if only letters, digits, `_` and `-`, else in double quotes with
/// backslashes before quotes and backslashes.
pub fn quote(text: &str, out: &mut String) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !text.is_empty() && text.bytes().all(plain) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '\'') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// A table as `iptables -L -v -n --line-numbers` shows it.
#[must_use]
pub fn listing(file: &File, table: Table, counters: CounterSource<'_>) -> String {
    let mut out = String::new();
    let references = references(file, table);
    for (position, (id, chain)) in print_order(file, table).into_iter().enumerate() {
        if position > 0 {
            out.push('\n');
        }
        let Counters { packets, bytes } = counters(RuleRef { chain: id, rule: None });
        let _ = match chain.policy {
            Some(policy) => {
                let policy = if policy == Policy::Accept { "ACCEPT" } else { "DROP" };
                let (packets, bytes) = (short_number(packets), short_number(bytes));
                writeln!(out, "Chain {} (policy {policy} {packets} packets, {bytes} bytes)", chain.name)
            }
            None => writeln!(
                out,
                "Chain {} ({} references)",
                chain.name,
                references.get(chain.name.as_str()).unwrap_or(&0)
            ),
        };
        out.push_str(
            "num   pkts bytes target     prot opt in     out     source               destination         \n",
        );
        for (number, rule) in (0u32..).zip(&chain.rules) {
            list_rule(
                &mut out,
                number + 1,
                rule,
                counters(RuleRef { chain: id, rule: Some(number) }),
                file.family,
            );
        }
    }
    out
}

/// How many rules point at each chain of a table.
#[must_use]
pub fn references(file: &File, table: Table) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    let chains = file.chains.iter().filter(|chain| chain.table == table);
    for rule in chains.flat_map(|chain| &chain.rules) {
        if let Target::Chain { name, .. } = &rule.target {
            *counts.entry(name.as_str()).or_insert(0) += 1;
        }
    }
    counts
}

/// A rule in the columns of `iptables -L -v -n`, which `fwctl rules` and the API show too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Target or chain name; empty for a rule that only counts.
    pub target: String,
    /// Whether `target` is a chain that is gone to (`-g`).
    pub goto: bool,
    /// Protocol number, `0` for all, and whether it is inverted.
    pub proto: (u8, bool),
    /// `--`, `-f` or `!f`.
    pub opt: &'static str,
    /// Ingress interface, `*` for any.
    pub in_iface: String,
    /// Egress interface, `*` for any.
    pub out_iface: String,
    /// Source, and whether it is inverted.
    pub src: (String, bool),
    /// Destination, and whether it is inverted.
    pub dst: (String, bool),
    /// Matches and target options, each followed by a blank where iptables puts one.
    pub extra: String,
}

/// The columns of one rule.
#[must_use]
pub fn row(rule: &Rule, family: Family) -> Row {
    let (target, goto) = match &rule.target {
        Target::None => ("", false),
        Target::Accept => ("ACCEPT", false),
        Target::Drop => ("DROP", false),
        Target::Return => ("RETURN", false),
        Target::Chain { name, goto, .. } => (name.as_str(), *goto),
        Target::Extension(instance) => (instance.target_name(), false),
    };
    let mut extra = String::new();
    for instance in &rule.matches {
        instance.list(&mut extra);
    }
    if let Target::Extension(instance) = &rule.target {
        instance.list(&mut extra);
    }
    Row {
        target: target.to_owned(),
        goto,
        proto: rule.proto.map_or((0, false), |proto| (proto.number, proto.invert)),
        opt: match rule.fragment {
            None => "--",
            Some(false) => "-f",
            Some(true) => "!f",
        },
        in_iface: iface_cell(rule.in_iface.as_ref()),
        out_iface: iface_cell(rule.out_iface.as_ref()),
        src: net_cell(rule.src.as_ref(), family),
        dst: net_cell(rule.dst.as_ref(), family),
        extra,
    }
}

fn list_rule(out: &mut String, number: u32, rule: &Rule, counters: Counters, family: Family) {
    let Row { target, goto, proto: (proto, not_proto), opt, in_iface, out_iface, src, dst, extra } =
        row(rule, family);
    let (packets, bytes) = (short_number(counters.packets), short_number(counters.bytes));
    let flag = |invert: bool| if invert { '!' } else { ' ' };
    let (proto_flag, src_flag, dst_flag) = (flag(not_proto), flag(src.1), flag(dst.1));
    let _ = write!(out, "{number:<4} {packets:>5} {bytes:>5} {target:<9} {proto_flag}{proto:<4} {opt}  ");
    let _ = write!(out, "{in_iface:<6} {out_iface:<6} {src_flag}{:<19} {dst_flag}{:<19} ", src.0, dst.0);
    if goto {
        out.push_str("[goto] ");
    }
    out.push_str(&extra);
    out.push('\n');
}

fn iface_cell(iface: Option<&Iface>) -> String {
    iface.map_or("*".to_owned(), |Iface { pattern, invert }| {
        let (bang, plus) = (if *invert { "!" } else { "" }, if pattern.prefix { "+" } else { "" });
        format!("{bang}{}{plus}", pattern.name)
    })
}

/// An address in the listing: a single host stands without its mask.
fn net_cell(addresses: Option<&Addresses>, family: Family) -> (String, bool) {
    let everything = if family == Family::V4 { "0.0.0.0/0" } else { "::/0" };
    let net = addresses.and_then(|list| Some((*list.nets.first()?, list.invert)));
    net.map_or((everything.to_owned(), false), |(net, invert)| {
        let host = net.mask == full_mask(net.family);
        let text = if host {
            address_text(net.addr, net.family == Family::V6)
        } else {
            net_text(net, net.family == Family::V6)
        };
        (text, invert)
    })
}

/// A counter in at most five columns: `99999`, `100K`, `12M`, rounded as iptables rounds.
#[must_use]
pub fn short_number(number: u64) -> String {
    if number <= 99_999 {
        return number.to_string();
    }
    let mut number = number;
    for unit in ['K', 'M', 'G'] {
        number = number.saturating_add(500) / 1000;
        if number <= 9_999 {
            return format!("{number}{unit}");
        }
    }
    format!("{}T", number.saturating_add(500) / 1000)
}

/// The counters a file was loaded with: what [`save`] and [`listing`] show right after a load with counters.
#[must_use]
pub fn initial_counters(file: &File, at: RuleRef) -> Counters {
    let chain = usize::try_from(at.chain.0).ok().and_then(|chain| file.chains.get(chain));
    match at.rule {
        None => chain.map(|chain| chain.counters),
        Some(rule) => {
            chain.and_then(|chain| chain.rules.get(usize::try_from(rule).ok()?)).map(|rule| rule.counters)
        }
    }
    .unwrap_or_default()
}
