//! One rule: from the words behind `-A CHAIN` to conditions, target and canonical text.

use super::address::{self, AddressFault, Masked};
use super::diagnostics::Reporter;
use super::lexer::Word;
use super::matches::{self, Asked, Context, Given, Kind, OptionSpec};
use super::names;
use super::target::{self, Wanted};
use super::text::RuleText;
use crate::config::names::nearest;
use dataplane::packet::Family;
use dataplane::rules::model::{IfacePattern, Match, Target};
use std::ops::Range;

/// A rule understood, but for which chain its target names.
#[derive(Clone, Debug)]
pub(super) struct ParsedRule {
    pub(super) matches: Vec<Match>,
    pub(super) target: target::Understood,
    /// The target's name, and where it stands.
    pub(super) target_name: Option<(String, Range<usize>)>,
    pub(super) goto: bool,
    pub(super) text: RuleText,
}

/// Options that belong to no extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Basic {
    Protocol,
    Source,
    Destination,
    InIface,
    OutIface,
    Fragment,
    Match,
    Jump,
    Goto,
    Counters,
    Family4,
    Family6,
}

/// Short name, long names, what it is, words it takes.
const BASIC: &[(char, &[&str], Basic, usize)] = &[
    ('p', &["protocol", "proto"], Basic::Protocol, 1),
    ('s', &["source", "src"], Basic::Source, 1),
    ('d', &["destination", "dst"], Basic::Destination, 1),
    ('i', &["in-interface"], Basic::InIface, 1),
    ('o', &["out-interface"], Basic::OutIface, 1),
    ('f', &["fragments"], Basic::Fragment, 0),
    ('m', &["match"], Basic::Match, 1),
    ('j', &["jump"], Basic::Jump, 1),
    ('g', &["goto"], Basic::Goto, 1),
    ('c', &["set-counters"], Basic::Counters, 2),
    ('4', &["ipv4"], Basic::Family4, 0),
    ('6', &["ipv6"], Basic::Family6, 0),
];

/// What an option word turned out to be.
#[derive(Clone, Copy, Debug)]
enum Resolved {
    Basic(Basic, usize),
    /// An option of a match extension, loaded or about to be by its protocol.
    Match(Kind, OptionSpec),
    Target(OptionSpec),
}

type Flagged<T> = (T, bool, Range<usize>);

/// What has been read of a rule so far.
#[derive(Debug, Default)]
struct Draft {
    source: Option<Flagged<Vec<Masked>>>,
    destination: Option<Flagged<Vec<Masked>>>,
    in_iface: Option<Flagged<String>>,
    out_iface: Option<Flagged<String>>,
    protocol: Option<Flagged<u8>>,
    fragment: Option<Flagged<()>>,
    matches: Vec<Asked>,
    target: Option<Wanted>,
}

/// Reads the words of a rule. Lists of addresses make several rules. Empty after reporting what is wrong.
pub(super) fn parse(words: &[Word], family: Family, report: &mut Reporter<'_>) -> Vec<ParsedRule> {
    let faults = report.faults();
    let mut reader = Reader { words, at: 0, family, draft: Draft::default() };
    while reader.at < words.len() {
        if reader.option(report).is_none() {
            return Vec::new();
        }
    }
    let rules = reader.draft.finish(family, report);
    if report.faults() > faults { Vec::new() } else { rules }
}

struct Reader<'a> {
    words: &'a [Word],
    at: usize,
    family: Family,
    draft: Draft,
}

impl Reader<'_> {
    /// Reads one option with its values. `None` when the rest of the line makes no sense any more.
    fn option(&mut self, report: &mut Reporter<'_>) -> Option<()> {
        let mut invert = None;
        while let Some(word) = self.words.get(self.at).filter(|word| word.text == "!" && !word.quoted) {
            if invert.replace(word.span.clone()).is_some() {
                report.error(&word.span, "two `!` in a row", None);
                return None;
            }
            self.at += 1;
        }
        let Some(word) = self.words.get(self.at) else {
            report.error(&invert.unwrap_or_default(), "`!` with nothing behind it", None);
            return None;
        };
        self.at += 1;
        let (name, attached) = split_option(word, report)?;
        let resolved = self.resolve(&name, word, report)?;
        let count = match resolved {
            Resolved::Basic(_, count) => count,
            Resolved::Match(_, spec) | Resolved::Target(spec) => spec.values,
        };
        let values = self.values(word, count, attached, report)?;
        self.apply(resolved, word, invert, values, report)
    }

    /// The values an option takes.
    fn values(
        &mut self,
        option: &Word,
        count: usize,
        attached: Option<Word>,
        report: &mut Reporter<'_>,
    ) -> Option<Vec<Word>> {
        if let (Some(value), 0) = (&attached, count) {
            report.error(&value.span, format!("`{}` takes no value", option.text), None);
            return None;
        }
        let mut values: Vec<Word> = attached.into_iter().collect();
        while values.len() < count {
            let Some(value) = self.words.get(self.at) else {
                report.error(&option.span, format!("`{}` needs a value", option.text), None);
                return None;
            };
            if value.text == "!" && !value.quoted {
                let hint = format!("write `! {} ...`", option.text);
                report.error(&value.span, "`!` stands before the option, not behind it", Some(hint));
                return None;
            }
            values.push(value.clone());
            self.at += 1;
        }
        Some(values)
    }

    /// Finds out which option a name is: basic, of a loaded match, of the protocol's own match, or of the target.
    /// Long names may be abbreviated as long as only one fits.
    fn resolve(&self, name: &OptionName, word: &Word, report: &mut Reporter<'_>) -> Option<Resolved> {
        let long = match name {
            OptionName::Short(short) => {
                let found = BASIC.iter().find(|(known, ..)| known == short);
                if found.is_none() {
                    report.error(&word.span, format!("unknown option `{}`", word.text), None);
                }
                return found.map(|(_, _, basic, values)| Resolved::Basic(*basic, *values));
            }
            OptionName::Long(long) => long,
        };
        let all = self.known_options();
        if let Some((_, resolved)) = all.iter().find(|(known, _)| known == long) {
            return Some(*resolved);
        }
        let begins: Vec<_> = all.iter().filter(|(known, _)| !long.is_empty() && known.starts_with(long.as_str())).collect();
        match begins.as_slice() {
            [(_, resolved)] => Some(*resolved),
            [] => {
                self.unknown(long, word, &all, report);
                None
            }
            several => {
                let names: Vec<String> = several.iter().map(|(name, _)| format!("--{name}")).collect();
                report.error(&word.span, format!("`--{long}` could be {}", names.join(" or ")), None);
                None
            }
        }
    }

    fn unknown(&self, long: &str, word: &Word, all: &[(&str, Resolved)], report: &mut Reporter<'_>) {
        let every = [Kind::Tcp, Kind::Sctp, Kind::Multiport, Kind::Icmp, Kind::Conntrack, Kind::State, Kind::Comment];
        let owner = every.iter().find(|kind| kind.options(self.family).iter().any(|spec| spec.name == long));
        let hint = match owner {
            Some(Kind::Tcp | Kind::Udp | Kind::Sctp) => Some(format!("`--{long}` needs `-p tcp` or `-p udp` before it")),
            Some(Kind::Icmp) => Some(format!("`--{long}` needs `-p {}` before it", names::protocol_name(names::icmp_proto(self.family)))),
            Some(Kind::Multiport) => Some(format!("`--{long}` needs `-m multiport` before it")),
            Some(Kind::Conntrack) => Some(format!("`--{long}` needs `-m conntrack` before it")),
            Some(Kind::State) => Some(format!("`--{long}` needs `-m state` before it")),
            Some(Kind::Comment) => Some(format!("`--{long}` needs `-m comment` before it")),
            None if long == "reject-with" => Some("`--reject-with` needs `-j REJECT` before it".to_owned()),
            None => nearest(long, all.iter().map(|(name, _)| *name)).map(|name| format!("did you mean `--{name}`?")),
        };
        report.error(&word.span, format!("unknown option `{}`", word.text), hint);
    }

    /// All long options that make sense at this point.
    fn known_options(&self) -> Vec<(&'static str, Resolved)> {
        let mut all = Vec::new();
        for asked in self.draft.matches.iter().rev() {
            all.extend(asked.kind.options(self.family).iter().map(|spec| (spec.name, Resolved::Match(asked.kind, *spec))));
        }
        for (_, long, basic, values) in BASIC {
            all.extend(long.iter().map(|name| (*name, Resolved::Basic(*basic, *values))));
        }
        if let Some(target) = &self.draft.target {
            all.extend(target::options(&target.name).iter().map(|spec| (spec.name, Resolved::Target(*spec))));
        }
        if let Some((protocol, false, _)) = self.draft.protocol
            && let Some(kind) = Kind::of_protocol(protocol, self.family)
            && !self.draft.matches.iter().any(|asked| asked.kind == kind)
        {
            all.extend(kind.options(self.family).iter().map(|spec| (spec.name, Resolved::Match(kind, *spec))));
        }
        // Synonyms of one option are not rivals of each other.
        let mut seen: Vec<(&'static str, Resolved)> = Vec::new();
        for (name, resolved) in all {
            if !seen.iter().any(|(known, _)| *known == name) {
                seen.push((name, resolved));
            }
        }
        seen
    }

    fn apply(
        &mut self,
        resolved: Resolved,
        word: &Word,
        invert: Option<Range<usize>>,
        values: Vec<Word>,
        report: &mut Reporter<'_>,
    ) -> Option<()> {
        let span = word.span.start..values.last().map_or(word.span.end, |value| value.span.end);
        match resolved {
            Resolved::Basic(basic, _) => self.basic(basic, invert, &values, &span, report),
            Resolved::Match(kind, spec) => {
                if !self.draft.matches.iter().any(|asked| asked.kind == kind) {
                    self.draft.matches.push(Asked { kind, span: word.span.clone(), given: Vec::new() });
                }
                let given = Given { spec, invert: invert.is_some(), values, span };
                self.draft.matches.iter_mut().rev().find(|asked| asked.kind == kind)?.given.push(given);
                Some(())
            }
            Resolved::Target(spec) => {
                if let Some(bang) = invert {
                    report.error(&bang, format!("`--{}` cannot be negated", spec.name), None);
                    return None;
                }
                self.draft.target.as_mut()?.given.push(Given { spec, invert: false, values, span });
                Some(())
            }
        }
    }

    fn basic(
        &mut self,
        basic: Basic,
        invert: Option<Range<usize>>,
        values: &[Word],
        span: &Range<usize>,
        report: &mut Reporter<'_>,
    ) -> Option<()> {
        let negatable = matches!(
            basic,
            Basic::Protocol | Basic::Source | Basic::Destination | Basic::InIface | Basic::OutIface | Basic::Fragment
        );
        if let Some(bang) = invert.as_ref().filter(|_| !negatable) {
            report.error(bang, "this option cannot be negated", None);
            return None;
        }
        let negated = invert.is_some();
        let first = values.first();
        match basic {
            Basic::Protocol => {
                let protocol = protocol(first?, negated, report)?;
                set(&mut self.draft.protocol, (protocol, negated, span.clone()), "-p", report)
            }
            Basic::Source => {
                let list = addresses(first?, negated, self.family, report)?;
                set(&mut self.draft.source, (list, negated, span.clone()), "-s", report)
            }
            Basic::Destination => {
                let list = addresses(first?, negated, self.family, report)?;
                set(&mut self.draft.destination, (list, negated, span.clone()), "-d", report)
            }
            Basic::InIface => {
                let name = iface(first?, report)?;
                set(&mut self.draft.in_iface, (name, negated, span.clone()), "-i", report)
            }
            Basic::OutIface => {
                let name = iface(first?, report)?;
                set(&mut self.draft.out_iface, (name, negated, span.clone()), "-o", report)
            }
            Basic::Fragment if self.family == Family::V6 => {
                report.error(span, "`-f` is for IPv4 only", Some("ip6tables has `-m frag`".to_owned()));
                None
            }
            Basic::Fragment => set(&mut self.draft.fragment, ((), negated, span.clone()), "-f", report),
            Basic::Match => self.load_match(first?, report),
            Basic::Jump | Basic::Goto => self.set_target(first?, basic == Basic::Goto, report),
            Basic::Counters => {
                let numbers = values.iter().all(|value| value.text.parse::<u64>().is_ok());
                if !numbers {
                    report.error(span, "`-c` needs a packet and a byte count", None);
                }
                numbers.then_some(())
            }
            Basic::Family4 | Basic::Family6 => {
                let fits = (basic == Basic::Family4) == (self.family == Family::V4);
                if !fits {
                    report.error(span, "this rule is for the other family", None);
                }
                fits.then_some(())
            }
        }
    }

    fn load_match(&mut self, word: &Word, report: &mut Reporter<'_>) -> Option<()> {
        if let Some(kind) = Kind::named(&word.text, self.family) {
            self.draft.matches.push(Asked { kind, span: word.span.clone(), given: Vec::new() });
            return Some(());
        }
        let name = &word.text;
        if names::is_known_match(name) {
            report.unsupported(&word.span, format!("match `{name}` is not supported yet"), None);
        } else {
            report.error(&word.span, format!("there is no match `{name}`"), None);
        }
        None
    }

    fn set_target(&mut self, word: &Word, goto: bool, report: &mut Reporter<'_>) -> Option<()> {
        if self.draft.target.is_some() {
            report.error(&word.span, "a rule has one target only", None);
            return None;
        }
        self.draft.target = Some(Wanted { name: word.text.clone(), goto, span: word.span.clone(), given: Vec::new() });
        // A target we do not have may take any options; they are not worth a message of their own.
        if !goto && names::is_known_target(&word.text) {
            report.unsupported(&word.span, format!("target `{}` is not supported yet", word.text), None);
            return None;
        }
        Some(())
    }
}

enum OptionName {
    Short(char),
    Long(String),
}

/// Takes an option word apart: `-p`, `-ptcp`, `--dport`, `--dport=80`.
fn split_option(word: &Word, report: &mut Reporter<'_>) -> Option<(OptionName, Option<Word>)> {
    let value = |text: &str, offset: usize| Word {
        text: text.to_owned(),
        span: (word.span.start + offset).min(word.span.end)..word.span.end,
        quoted: word.quoted,
    };
    if let Some(long) = word.text.strip_prefix("--") {
        return Some(match long.split_once('=') {
            Some((name, rest)) => (OptionName::Long(name.to_owned()), Some(value(rest, name.len() + 3))),
            None => (OptionName::Long(long.to_owned()), None),
        });
    }
    let mut chars = word.text.chars();
    match (chars.next(), chars.next()) {
        (Some('-'), Some(short)) if !word.quoted => {
            let rest = chars.as_str();
            Some((OptionName::Short(short), (!rest.is_empty()).then(|| value(rest, 1 + short.len_utf8()))))
        }
        _ => {
            report.error(&word.span, format!("`{}` is not an option", word.text), None);
            None
        }
    }
}

/// Sets an option that may be given once.
fn set<T>(slot: &mut Option<Flagged<T>>, value: Flagged<T>, name: &str, report: &mut Reporter<'_>) -> Option<()> {
    if slot.is_some() {
        report.error(&value.2, format!("`{name}` is given twice"), None);
        return None;
    }
    *slot = Some(value);
    Some(())
}

fn protocol(word: &Word, negated: bool, report: &mut Reporter<'_>) -> Option<u8> {
    match names::protocol(&word.text) {
        None => {
            let hint = "protocols are 0 to 255 or names such as tcp, udp, icmp".to_owned();
            report.error(&word.span, format!("unknown protocol `{}`", word.text), Some(hint));
            None
        }
        Some(0) if negated => {
            report.error(&word.span, "`! -p all` can never match", None);
            None
        }
        found => found,
    }
}

fn addresses(word: &Word, negated: bool, family: Family, report: &mut Reporter<'_>) -> Option<Vec<Masked>> {
    let mut list = Vec::new();
    for part in word.text.split(',') {
        match address::parse(part, family) {
            Ok(masked) => list.push(masked),
            Err(fault) => {
                let (message, hint) = match fault {
                    AddressFault::Name => (
                        format!("`{part}` is a host name"),
                        Some("write its address: rules must not depend on who answers DNS at load time".to_owned()),
                    ),
                    AddressFault::OtherFamily => {
                        (format!("`{part}` is of the other family"), Some("IPv4 and IPv6 rules have files of their own".to_owned()))
                    }
                    AddressFault::Malformed => (format!("`{part}` is no address"), None),
                    AddressFault::Mask => (format!("`{part}` has a bad mask"), None),
                };
                if fault == AddressFault::Name {
                    report.unsupported(&word.span, message, hint);
                } else {
                    report.error(&word.span, message, hint);
                }
                return None;
            }
        }
    }
    if negated && list.len() > 1 {
        let hint = "a packet outside one address is inside another: use a chain with RETURN".to_owned();
        report.error(&word.span, "a list of addresses cannot be negated", Some(hint));
        return None;
    }
    if negated && list.iter().any(|masked| masked.mask == 0) {
        report.error(&word.span, "everything but all addresses can never match", None);
        return None;
    }
    Some(list)
}

fn iface(word: &Word, report: &mut Reporter<'_>) -> Option<String> {
    let name = word.text.strip_suffix('+').unwrap_or(&word.text);
    let fault = if name.is_empty() && word.text == "+" { None } else { crate::config::names::check_iface(name).err() };
    match fault {
        None => Some(word.text.clone()),
        Some(fault) => {
            report.error(&word.span, format!("`{}`: {fault}", word.text), None);
            None
        }
    }
}

impl Draft {
    /// What the rule means and how it is written.
    fn finish(self, family: Family, report: &mut Reporter<'_>) -> Vec<ParsedRule> {
        let positive = self.protocol.as_ref().filter(|(_, negated, _)| !negated);
        let protocol = positive.map(|(protocol, ..)| *protocol).filter(|protocol| *protocol != 0);
        let context = Context { family, protocol };
        let extensions: Vec<Option<matches::Understood>> =
            self.matches.iter().map(|asked| asked.understand(context, report)).collect();
        let target = match &self.target {
            None => Some(target::Understood::Final(Target::Continue)),
            Some(wanted) => wanted.understand(family, protocol, report),
        };
        let (Some(extensions), Some(target)) = (extensions.into_iter().collect::<Option<Vec<_>>>(), target) else {
            return Vec::new();
        };
        let one = |list: &Option<Flagged<Vec<Masked>>>| match list {
            None => vec![None],
            Some((list, negated, _)) => list.iter().map(|masked| Some((*masked, *negated))).collect::<Vec<_>>(),
        };
        let mut rules = Vec::new();
        for source in one(&self.source) {
            for destination in one(&self.destination) {
                rules.push(self.rule(source, destination, &extensions, &target, family));
            }
        }
        rules
    }

    fn rule(
        &self,
        source: Option<(Masked, bool)>,
        destination: Option<(Masked, bool)>,
        extensions: &[matches::Understood],
        target: &target::Understood,
        family: Family,
    ) -> ParsedRule {
        let mut conditions = Vec::new();
        let mut spec: Vec<String> = Vec::new();
        let bang = |negated: bool| if negated { "! " } else { "" };
        for (end, option, is_source) in [(source, "-s", true), (destination, "-d", false)] {
            let Some((Masked { addr, mask }, invert)) = end.filter(|(masked, _)| masked.mask != 0) else { continue };
            spec.push(format!("{}{option} {}", bang(invert), Masked { addr, mask }.canonical(family)));
            conditions.push(if is_source { Match::Src { addr, mask, invert } } else { Match::Dst { addr, mask, invert } });
        }
        for (iface, option, is_in) in [(&self.in_iface, "-i", true), (&self.out_iface, "-o", false)] {
            let Some((name, invert, _)) = iface.as_ref().filter(|(name, negated, _)| name != "+" || *negated) else {
                continue;
            };
            let pattern = IfacePattern { name: name.trim_end_matches('+').to_owned(), prefix: name.ends_with('+') };
            spec.push(format!("{}{option} {name}", bang(*invert)));
            let invert = *invert;
            conditions.push(if is_in { Match::InIface { pattern, invert } } else { Match::OutIface { pattern, invert } });
        }
        if let Some((proto, invert, _)) = self.protocol.as_ref().filter(|(protocol, ..)| *protocol != 0) {
            spec.push(format!("{}-p {}", bang(*invert), names::protocol_name(*proto)));
            conditions.push(Match::Proto { proto: *proto, invert: *invert });
        }
        if let Some(((), invert, _)) = self.fragment {
            spec.push(format!("{}-f", bang(invert)));
            conditions.push(Match::LaterFragment { invert });
        }
        for extension in extensions {
            spec.push(extension.canonical.clone());
            conditions.extend(extension.conditions.iter().cloned());
        }
        spec.extend(self.written_target(target));
        ParsedRule {
            matches: conditions,
            target: target.clone(),
            target_name: self.target.as_ref().map(|wanted| (wanted.name.clone(), wanted.span.clone())),
            goto: self.target.as_ref().is_some_and(|wanted| wanted.goto),
            text: self.listed(spec.join(" "), source, destination, extensions, target, family),
        }
    }

    fn written_target(&self, target: &target::Understood) -> Option<String> {
        let wanted = self.target.as_ref()?;
        let option = if wanted.goto { "-g" } else { "-j" };
        Some(match target {
            target::Understood::Final(Target::Reject(with)) => {
                format!("{option} REJECT --reject-with {}", target::reject_name(*with))
            }
            _ => format!("{option} {}", wanted.name),
        })
    }

    /// The columns of `iptables -L`.
    fn listed(
        &self,
        spec: String,
        source: Option<(Masked, bool)>,
        destination: Option<(Masked, bool)>,
        extensions: &[matches::Understood],
        target: &target::Understood,
        family: Family,
    ) -> RuleText {
        let mark = |negated: bool| if negated { "!" } else { "" };
        let end = |end: Option<(Masked, bool)>| match end.filter(|(masked, _)| masked.mask != 0) {
            None => Masked::anywhere(family).to_owned(),
            Some((masked, negated)) => format!("{}{}", mark(negated), masked.listed(family)),
        };
        let iface = |iface: &Option<Flagged<String>>| match iface.as_ref().filter(|(name, negated, _)| name != "+" || *negated) {
            None => "*".to_owned(),
            Some((name, negated, _)) => format!("{}{name}", mark(*negated)),
        };
        let mut extra: Vec<String> = extensions.iter().map(|extension| extension.listed.clone()).collect();
        if let target::Understood::Final(Target::Reject(with)) = target {
            extra.push(format!("reject-with {}", target::reject_name(*with)));
        }
        RuleText {
            spec,
            target: self.target.as_ref().map(|wanted| wanted.name.clone()).unwrap_or_default(),
            goto: self.target.as_ref().is_some_and(|wanted| wanted.goto),
            prot: self.protocol.as_ref().map_or("0".to_owned(), |(protocol, negated, _)| format!("{}{protocol}", mark(*negated))),
            opt: match self.fragment {
                None => "--",
                Some(((), false, _)) => "-f",
                Some(((), true, _)) => "!f",
            }
            .to_owned(),
            in_iface: iface(&self.in_iface),
            out_iface: iface(&self.out_iface),
            source: end(source),
            destination: end(destination),
            extra: extra.join(" "),
        }
    }
}
