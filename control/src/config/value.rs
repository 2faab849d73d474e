//! One setting's value: what the sources can write, what a setting takes, and how both meet.

use super::endpoint::is_host_and_port;
use super::names::{ETHERTYPE_MIN, ETHERTYPES, check_iface, nearest};
use super::{Cores, HostNames, L2Pass, Listen, timeout_policy};
use dataplane::flow::{Policies, TimeoutPolicy};
use std::ops::Range;
use toml::Spanned;
use toml::de::DeValue;

/// A value as written.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub(super) kind: RawKind,
    /// Where it stands in its source.
    pub(super) span: Range<usize>,
    /// The characters themselves, when they came from the command line, where strings need no quotes.
    pub(super) written: Option<String>,
}

/// What a value looks like before anyone knows which setting it is for.
#[derive(Clone, Debug)]
pub(super) enum RawKind {
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<Raw>),
    /// Something no setting takes, described.
    Other(&'static str),
}

/// What a setting takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// On or off; 0 and 1 as well, as sysctls are written.
    Switch,
    /// A whole number within limits.
    Int(u32, u32),
    /// A whole number within limits, or `"auto"`.
    AutoInt(u32, u32),
    /// A power of two within limits.
    Pow2(u32, u32),
    /// A power of two within limits, or `"auto"`.
    AutoPow2(u32, u32),
    /// One of these words.
    Words(fn() -> Vec<&'static str>),
    /// An interface name.
    Iface,
    /// Any text but the empty one; says what it names.
    Name(&'static str),
    /// A file; relative ones start at the configuration file's directory, on the command line at the current one.
    File,
    /// A file with its full path.
    AbsoluteFile,
    /// A file with its full path, or one of these words.
    FileOr(&'static [&'static str]),
    /// Worker cores: a number, a list of cores, or `"auto"`.
    Cores,
    /// EtherTypes: `"all"` or a list.
    EtherTypes,
    /// A list of timeout policies.
    TimeoutPolicies,
    /// A TCP address to listen on, or nothing.
    Listen,
    /// A list of names of hosts.
    HostNames,
    /// A host and a port.
    Endpoint,
}

/// A value that its setting takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Switch(bool),
    Int(u32),
    Auto,
    Word(&'static str),
    Text(String),
    Cores(Cores),
    EtherTypes(L2Pass),
    TimeoutPolicies(Vec<TimeoutPolicy>),
    Listen(Listen),
    HostNames(HostNames),
}

/// Why a value does not fit: which part of it, and more than "takes X" if there is more to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    pub(super) span: Range<usize>,
    pub(super) why: Option<String>,
    pub(super) hint: Option<String>,
}

impl Raw {
    /// From a parsed TOML value.
    pub(super) fn from_toml(value: &Spanned<DeValue<'_>>) -> Self {
        let kind = match value.get_ref() {
            DeValue::Boolean(on) => RawKind::Bool(*on),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(RawKind::Other("a number that large"), RawKind::Int),
            DeValue::String(text) => RawKind::Text(text.clone().into_owned()),
            DeValue::Array(items) => RawKind::List(items.iter().map(Self::from_toml).collect()),
            DeValue::Float(_) => RawKind::Other("a number with a fraction"),
            DeValue::Datetime(_) => RawKind::Other("a date"),
            DeValue::Table(_) => RawKind::Other("a table"),
        };
        Self { kind, span: value.span(), written: None }
    }

    /// From the command line: TOML if it reads as TOML, else the characters as they are. `offset` is where they stand.
    pub(super) fn from_command_line(text: &str, offset: usize) -> Self {
        let span = offset..offset + text.len();
        let kind = match DeValue::parse(text) {
            Ok(value) => Self::from_toml(&value).kind,
            Err(_) => RawKind::Text(text.to_owned()),
        };
        let mut raw = Self { kind, span: span.clone(), written: Some(text.to_owned()) };
        if let RawKind::List(items) = &mut raw.kind {
            for item in items {
                item.span = item.span.start + offset..item.span.end + offset;
            }
        }
        raw
    }

    /// The value as text: a string, or whatever stands on the command line.
    fn text(&self) -> Option<&str> {
        match &self.kind {
            RawKind::Text(text) => Some(text),
            _ => self.written.as_deref(),
        }
    }

    /// The elements of a list; on the command line also words between commas.
    fn items(&self) -> Option<Vec<Self>> {
        match &self.kind {
            RawKind::List(items) => Some(items.clone()),
            RawKind::Text(text) if self.written.is_some() => {
                let mut start = self.span.start;
                let split = text.split(',').map(|part| {
                    let item = Self::from_command_line(part, start);
                    start += part.len() + 1;
                    item
                });
                Some(split.collect())
            }
            _ => None,
        }
    }

    /// How to call this value in a sentence.
    pub(super) fn describe(&self) -> String {
        match &self.kind {
            RawKind::Bool(on) => format!("`{on}`"),
            RawKind::Int(number) => format!("`{number}`"),
            RawKind::Text(text) if text.is_empty() => "an empty text".to_owned(),
            RawKind::Text(text) => format!("`{}`", text.escape_debug()),
            RawKind::List(_) => "a list".to_owned(),
            RawKind::Other(what) => (*what).to_owned(),
        }
    }

    fn misfit(&self) -> Misfit {
        Misfit { span: self.span.clone(), why: None, hint: None }
    }
}

impl Misfit {
    fn because(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Kind {
    /// What the setting takes, to follow "takes".
    #[must_use]
    pub fn takes(&self) -> String {
        match self {
            Self::Switch => "true or false".to_owned(),
            Self::Int(min, max) => format!("a whole number from {min} to {max}"),
            Self::AutoInt(min, max) => format!("a whole number from {min} to {max}, or \"auto\""),
            Self::Pow2(min, max) => format!("a power of two from {min} to {max}"),
            Self::AutoPow2(min, max) => format!("a power of two from {min} to {max}, or \"auto\""),
            Self::Words(words) => {
                let quoted: Vec<String> = words().iter().map(|word| format!("\"{word}\"")).collect();
                match quoted.split_last() {
                    Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
                    _ => quoted.concat(),
                }
            }
            Self::Iface => "an interface name".to_owned(),
            Self::Name(what) => (*what).to_owned(),
            Self::File => "a file name".to_owned(),
            Self::AbsoluteFile => "a full path".to_owned(),
            Self::FileOr(words) => {
                let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                format!("a full path, or {}", quoted.join(" or "))
            }
            Self::Cores => "a number of workers, a list of cores, or \"auto\"".to_owned(),
            Self::EtherTypes => "\"all\", or a list of EtherTypes".to_owned(),
            Self::TimeoutPolicies => "a list of timeout policies".to_owned(),
            Self::Endpoint => "a host and a port".to_owned(),
            Self::Listen => "an address and a port, or \"\"".to_owned(),
            Self::HostNames => "a list of names of hosts".to_owned(),
        }
    }

    /// Reads a value for a setting of this kind.
    pub(super) fn read(&self, raw: &Raw) -> Result<Value, Misfit> {
        match self {
            Self::Switch => read_switch(raw),
            Self::Int(min, max) => read_int(raw, *min, *max).map(Value::Int),
            Self::Pow2(min, max) => read_pow2(raw, *min, *max),
            Self::AutoInt(..) | Self::AutoPow2(..) if raw.text() == Some("auto") => Ok(Value::Auto),
            Self::AutoInt(min, max) => read_int(raw, *min, *max).map(Value::Int),
            Self::AutoPow2(min, max) => read_pow2(raw, *min, *max),
            Self::Words(words) => read_word(raw, &words()),
            Self::Iface => {
                let name = read_text(raw)?;
                check_iface(&name).map_err(|why| raw.misfit().because(why))?;
                Ok(Value::Text(name))
            }
            Self::Name(_) | Self::File => read_text(raw).map(Value::Text),
            Self::AbsoluteFile => match read_text(raw)? {
                path if path.starts_with('/') => Ok(Value::Text(path)),
                _ => Err(raw.misfit().hint("start it with `/`")),
            },
            Self::FileOr(words) => match read_text(raw)? {
                text if text.starts_with('/') || words.contains(&text.as_str()) => Ok(Value::Text(text)),
                _ => Err(raw.misfit().hint("start a path with `/`")),
            },
            Self::Cores => read_cores(raw).map(Value::Cores),
            Self::EtherTypes => read_ethertypes(raw).map(Value::EtherTypes),
            Self::TimeoutPolicies => read_policies(raw).map(Value::TimeoutPolicies),
            Self::HostNames => read_host_names(raw).map(Value::HostNames),
            Self::Endpoint => {
                let text = read_text(raw)?;
                let hint = || raw.misfit().hint("write it as \"HOST:PORT\" or \"[ADDRESS]:PORT\"");
                is_host_and_port(&text).then_some(Value::Text(text)).ok_or_else(hint)
            }
            Self::Listen => {
                let text = raw.text().ok_or_else(|| raw.misfit())?;
                let listen = Listen::parse(text).ok_or_else(|| raw.misfit().hint(Listen::hint(text)))?;
                Ok(Value::Listen(listen))
            }
        }
    }
}

fn read_host_names(raw: &Raw) -> Result<HostNames, Misfit> {
    let mut names = Vec::new();
    for item in raw.items().ok_or_else(|| raw.misfit())? {
        let name = item.text().filter(|name| HostNames::is_name(name)).ok_or_else(|| {
            let misfit = item.misfit().because(format!("{} is no name of a host", item.describe()));
            misfit.hint(
                "write it as a browser's address line has it, without scheme and port: \"gw.example.org\"",
            )
        })?;
        names.push(name.to_ascii_lowercase());
    }
    Ok(HostNames(names))
}

fn read_switch(raw: &Raw) -> Result<Value, Misfit> {
    match raw.kind {
        RawKind::Bool(on) => Ok(Value::Switch(on)),
        RawKind::Int(number @ (0 | 1)) => Ok(Value::Switch(number == 1)),
        _ => Err(raw.misfit()),
    }
}

fn read_int(raw: &Raw, min: u32, max: u32) -> Result<u32, Misfit> {
    match raw.kind {
        RawKind::Int(number) => u32::try_from(number)
            .ok()
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| raw.misfit()),
        RawKind::Text(_) if raw.written.is_none() => Err(raw.misfit().hint("write numbers without quotes")),
        _ => Err(raw.misfit()),
    }
}

fn read_pow2(raw: &Raw, min: u32, max: u32) -> Result<Value, Misfit> {
    let number = read_int(raw, min, max)?;
    if number.is_power_of_two() {
        return Ok(Value::Int(number));
    }
    let above = number.next_power_of_two();
    Err(raw.misfit().hint(format!("the nearest are {} and {above}", above / 2)))
}

fn read_word(raw: &Raw, words: &[&'static str]) -> Result<Value, Misfit> {
    // `hugepages = true` says what it means where "on" and "off" are among the words.
    let text = match raw.kind {
        RawKind::Bool(true) => "on",
        RawKind::Bool(false) => "off",
        _ => raw.text().ok_or_else(|| raw.misfit())?,
    };
    if let Some(word) = words.iter().find(|word| **word == text) {
        return Ok(Value::Word(word));
    }
    Err(match nearest(text, words.iter().copied()) {
        Some(word) => raw.misfit().hint(format!("did you mean \"{word}\"?")),
        None => raw.misfit(),
    })
}

fn read_text(raw: &Raw) -> Result<String, Misfit> {
    match raw.text() {
        Some(text) if !text.is_empty() && !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(raw.misfit()),
    }
}

fn read_cores(raw: &Raw) -> Result<Cores, Misfit> {
    let workers_max = u32::try_from(dataplane::ids::WORKERS_MAX).unwrap_or(u32::MAX);
    if raw.text() == Some("auto") {
        return Ok(Cores::Auto);
    }
    if matches!(raw.kind, RawKind::Int(_)) {
        let count = read_int(raw, 1, workers_max)
            .map_err(|misfit| misfit.because(format!("there can be 1 to {workers_max} workers")))?;
        return Ok(Cores::Count(u16::try_from(count).map_err(|_| raw.misfit())?));
    }
    let mut cores: Vec<u16> = Vec::new();
    for item in raw.items().ok_or_else(|| raw.misfit())? {
        let core = read_int(&item, 0, u32::from(u16::MAX))?;
        let core = u16::try_from(core).map_err(|_| item.misfit())?;
        if cores.contains(&core) {
            return Err(item.misfit().because(format!("core {core} is listed twice")));
        }
        cores.push(core);
    }
    match cores.len() {
        0 => Err(raw.misfit().because("an empty list leaves no worker")),
        len if len > dataplane::ids::WORKERS_MAX => {
            Err(raw.misfit().because(format!("there can be 1 to {workers_max} workers")))
        }
        _ => Ok(Cores::List(cores)),
    }
}

fn read_ethertypes(raw: &Raw) -> Result<L2Pass, Misfit> {
    match raw.text() {
        Some("all") => return Ok(L2Pass::All),
        Some("none") => return Ok(L2Pass::Only { ethertypes: Vec::new(), llc: false }),
        _ => {}
    }
    let mut ethertypes = Vec::new();
    let mut llc = false;
    for item in raw.items().ok_or_else(|| raw.misfit())? {
        if item.text() == Some("llc") {
            llc = true;
        } else {
            ethertypes.push(read_ethertype(&item)?);
        }
    }
    ethertypes.sort_unstable();
    ethertypes.dedup();
    Ok(L2Pass::Only { ethertypes, llc })
}

fn read_policies(raw: &Raw) -> Result<Vec<TimeoutPolicy>, Misfit> {
    let mut policies: Vec<TimeoutPolicy> = Vec::new();
    let items = raw.items().ok_or_else(|| raw.misfit())?;
    for item in &items {
        let text = item.text().ok_or_else(|| item.misfit().because("a timeout policy is a text"))?;
        let policy = timeout_policy::parse(text).map_err(|fault| {
            // Behind the quotation mark, if there is one.
            let start = item.span.start + usize::from(item.written.is_none());
            let span = start + fault.span.start..start + fault.span.end;
            Misfit { span, why: Some(fault.why), hint: fault.hint }
        })?;
        if policies.iter().any(|other| other.name == policy.name) {
            return Err(item.misfit().because(format!("there are two timeout policies `{}`", policy.name)));
        }
        policies.push(policy);
    }
    if policies.len() > Policies::MAX {
        return Err(raw.misfit().because(format!("there can be at most {} timeout policies", Policies::MAX)));
    }
    Ok(policies)
}

fn read_ethertype(raw: &Raw) -> Result<u16, Misfit> {
    let unknown = || raw.misfit().because(format!("{} is no EtherType", raw.describe()));
    let number = match (&raw.kind, raw.text()) {
        (RawKind::Int(number), _) => u16::try_from(*number).map_err(|_| unknown())?,
        (_, Some(text)) => match text.strip_prefix("0x").map(|hex| u16::from_str_radix(hex, 16)) {
            Some(Ok(number)) => number,
            Some(Err(_)) => return Err(unknown()),
            None => named_ethertype(text).ok_or_else(|| {
                let known = ETHERTYPES.iter().map(|(name, _)| *name).chain(["llc"]);
                match nearest(text, known.clone()) {
                    Some(name) => unknown().hint(format!("did you mean \"{name}\"?")),
                    None => unknown().hint(format!(
                        "write it as a number (\"0x88cc\") or as one of {}",
                        known.collect::<Vec<_>>().join(", ")
                    )),
                }
            })?,
        },
        _ => return Err(unknown()),
    };
    match number {
        0x0800 | 0x86dd => {
            Err(raw.misfit().because("IPv4 and IPv6 are judged by the rules, not by this list"))
        }
        0x8100 | 0x88a8 => {
            Err(raw.misfit().because("VLAN tags are looked through; list what is inside them"))
        }
        _ if number < ETHERTYPE_MIN => {
            Err(raw.misfit().because("EtherTypes start at 0x0600").hint("802.3 frames are \"llc\""))
        }
        _ => Ok(number),
    }
}

fn named_ethertype(name: &str) -> Option<u16> {
    ETHERTYPES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}
