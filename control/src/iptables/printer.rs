//! Syntax back to text: as `iptables-save` 1.8.9 prints what `iptables-restore` loaded, and as `iptables -L -v -n
//! --line-numbers` lists it. Control thread and tools only.
//!
//! Invariant: what [`save`] prints, `load` reads back to the same rules.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::packet::Family;
use dataplane::rules::model::{ChainId, Policy, RuleRef};

use super::names::protocol_name;
use super::options::basic::full_mask;
use super::syntax::{Addresses, Chain, Counters, File, Iface, Net, Rule, Target};

/// Gives the counters of a rule, or of a chain's policy.
pub type CounterSource<'a> = &'a dyn Fn(RuleRef) -> Counters;

/// The file as iptables-save prints it, without its comment lines: `*filter`, chains, rules, `COMMIT`. With `counters`
/// the `[p:b]` before each rule appear too, as with `iptables-save -c`.
#[must_use]
pub fn save(file: &File, counters: Option<CounterSource<'_>>) -> String {
    let mut out = String::from("*filter\n");
    let order = print_order(file);
    let count =
        |id, rule| counters.map_or(Counters::default(), |counters| counters(RuleRef { chain: id, rule }));
    for &(id, chain) in &order {
        let policy = match chain.policy {
            Some(Policy::Accept) => "ACCEPT",
            Some(Policy::Drop) => "DROP",
            None => "-",
        };
        let Counters { packets, bytes } =
            if chain.policy.is_some() { count(id, None) } else { Counters::default() };
        let _ = writeln!(out, ":{} {policy} [{packets}:{bytes}]", chain.name);
    }
    for &(id, chain) in &order {
        for (number, rule) in (0u32..).zip(&chain.rules) {
            if counters.is_some() {
                let Counters { packets, bytes } = count(id, Some(number));
                let _ = write!(out, "[{packets}:{bytes}] ");
            }
            out.push_str(&rule_line(&chain.name, rule));
            out.push('\n');
        }
    }
    out.push_str("COMMIT\n");
    out
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

/// Built-in chains as they are, user chains by name: the order of iptables-save and -L.
fn print_order(file: &File) -> Vec<(ChainId, &Chain)> {
    let mut order: Vec<(ChainId, &Chain)> = (0u32..).map(ChainId).zip(&file.chains).collect();
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
fn net_text(net: Net, six: bool) -> String {
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

fn address_text(addr: u128, six: bool) -> String {
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

/// The table as `iptables -L -v -n --line-numbers` shows it.
#[must_use]
pub fn listing(file: &File, counters: CounterSource<'_>) -> String {
    let mut out = String::new();
    let references = references(file);
    for (position, (id, chain)) in print_order(file).into_iter().enumerate() {
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

/// How many rules point at each chain.
fn references(file: &File) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for rule in file.chains.iter().flat_map(|chain| &chain.rules) {
        if let Target::Chain { name, .. } = &rule.target {
            *counts.entry(name.as_str()).or_insert(0) += 1;
        }
    }
    counts
}

fn list_rule(out: &mut String, number: u32, rule: &Rule, counters: Counters, family: Family) {
    let target = match &rule.target {
        Target::None => "",
        Target::Accept => "ACCEPT",
        Target::Drop => "DROP",
        Target::Return => "RETURN",
        Target::Chain { name, .. } => name,
        Target::Extension(instance) => instance.target_name(),
    };
    let (packets, bytes) = (short_number(counters.packets), short_number(counters.bytes));
    let flag = |invert: bool| if invert { '!' } else { ' ' };
    let (proto, proto_flag) = rule.proto.map_or((0, ' '), |proto| (proto.number, flag(proto.invert)));
    let fragment = match rule.fragment {
        None => "--",
        Some(false) => "-f",
        Some(true) => "!f",
    };
    let (in_iface, out_iface) = (iface_cell(rule.in_iface.as_ref()), iface_cell(rule.out_iface.as_ref()));
    let (src, src_flag) = net_cell(rule.src.as_ref(), family);
    let (dst, dst_flag) = net_cell(rule.dst.as_ref(), family);
    let _ =
        write!(out, "{number:<4} {packets:>5} {bytes:>5} {target:<9} {proto_flag}{proto:<4} {fragment}  ");
    let _ = write!(out, "{in_iface:<6} {out_iface:<6} {src_flag}{src:<19} {dst_flag}{dst:<19} ");
    if let Target::Chain { goto: true, .. } = rule.target {
        out.push_str("[goto] ");
    }
    for instance in &rule.matches {
        instance.list(out);
    }
    if let Target::Extension(instance) = &rule.target {
        instance.list(out);
    }
    out.push('\n');
}

fn iface_cell(iface: Option<&Iface>) -> String {
    iface.map_or("*".to_owned(), |Iface { pattern, invert }| {
        let (bang, plus) = (if *invert { "!" } else { "" }, if pattern.prefix { "+" } else { "" });
        format!("{bang}{}{plus}", pattern.name)
    })
}

/// An address in the listing: a single host stands without its mask.
fn net_cell(addresses: Option<&Addresses>, family: Family) -> (String, char) {
    let everything = if family == Family::V4 { "0.0.0.0/0" } else { "::/0" };
    let net = addresses.and_then(|list| Some((*list.nets.first()?, list.invert)));
    net.map_or((everything.to_owned(), ' '), |(net, invert)| {
        let host = net.mask == full_mask(net.family);
        let text = if host {
            address_text(net.addr, net.family == Family::V6)
        } else {
            net_text(net, net.family == Family::V6)
        };
        (text, if invert { '!' } else { ' ' })
    })
}

/// A counter in at most five columns: `99999`, `100K`, `12M`, rounded as iptables rounds.
fn short_number(number: u64) -> String {
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
