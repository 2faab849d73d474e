//! Fields of IPv6's extension headers: `-m ah`, `-m frag`, `-m hbh`, `-m dst`.

use std::fmt::Write as _;

use dataplane::packet::Family;
use dataplane::rules::header::{Auth, FragmentHeader, HeaderMatch, Options, WantedOption};
use dataplane::rules::model::Match;

use super::values::{Span as Numbers, bang, mark, word32};
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number, part_of};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;

const ID: u8 = 1;
const LEN: u8 = 2;
const RES: u8 = 3;
const FIRST: u8 = 4;
const MORE: u8 = 5;
const LAST: u8 = 6;
const OPTS: u8 = 7;

const MAX: u64 = u32::MAX as u64;
/// Options that one rule may ask for: `IP6T_OPTS_OPTSNR`.
const OPTS_MAX: usize = 16;

const fn option(name: &'static str, id: u8, slot: u8) -> OptionSpec {
    OptionSpec {
        name,
        id,
        slot,
        args: matches!(id, ID | LEN | OPTS) as u8,
        invertible: matches!(id, ID | LEN),
    }
}

const fn extension(
    names: &'static [&'static str],
    options: &'static [OptionSpec],
    new: fn(Family) -> Box<dyn Instance>,
) -> Extension {
    Extension {
        kind: Kind::Match,
        names,
        family: Some(Family::V6),
        protocol: None,
        repeatable: true,
        options,
        new,
    }
}

/// `-m ah` of IPv6.
pub static AH6: Extension =
    extension(&["ah"], &[option("ahspi", ID, 1), option("ahlen", LEN, 2), option("ahres", RES, 3)], |_| {
        Box::new(Ah { spi: Numbers::all(MAX), len: (0, false), reserved: false })
    });

/// `-m frag`.
pub static FRAG: Extension = extension(
    &["frag"],
    &[
        option("fragid", ID, 1),
        option("fraglen", LEN, 2),
        option("fragres", RES, 3),
        option("fragfirst", FIRST, 4),
        option("fragmore", MORE, 5),
        option("fraglast", LAST, 5),
    ],
    |_| Box::new(Frag { id: Numbers::all(MAX), len: None, reserved: false, first: false, more: None }),
);

/// `-m hbh`.
pub static HBH: Extension =
    extension(&["hbh"], &[option("hbh-len", LEN, 1), option("hbh-opts", OPTS, 2)], |_| {
        Box::new(Opts { options: Options { destination: false, len: None, options: None } })
    });

/// `-m dst`.
pub static DST: Extension =
    extension(&["dst"], &[option("dst-len", LEN, 1), option("dst-opts", OPTS, 2)], |_| {
        Box::new(Opts { options: Options { destination: true, len: None, options: None } })
    });

#[derive(Debug)]
struct Ah {
    spi: Numbers,
    len: (u32, bool),
    reserved: bool,
}

impl Instance for Ah {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        match given.id {
            ID => self.spi = Numbers::read_some(given, MAX)?,
            LEN => self.len = (word32(given)?, given.invert),
            _ => self.reserved = true,
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, _span: Span) -> Result<(), Diagnostic> {
        Ok(())
    }

    fn print(&self, out: &mut String) {
        let Self { spi, len: (len, invert), reserved } = *self;
        out.push_str(" -m ah");
        if !spi.is_all(MAX) {
            let _ = write!(out, "{} --ahspi {spi}", bang(spi.invert));
        }
        if len != 0 || invert {
            let _ = write!(out, "{} --ahlen {len}", bang(invert));
        }
        out.push_str(if reserved { " --ahres" } else { "" });
    }

    fn list(&self, out: &mut String) {
        let Self { spi, len: (len, invert), reserved } = *self;
        out.push_str(" ah ");
        list_ids(out, "spi", spi);
        if len != 0 || invert {
            let _ = write!(out, "length:{}{len}", mark(invert));
        }
        out.push_str(if reserved { " reserved" } else { "" });
    }

    fn lower(&self) -> Lowered {
        let auth = Auth { spi: self.spi.narrow(u32::MAX), len: self.len, reserved: self.reserved };
        Lowered::Matches(vec![Match::Header(HeaderMatch::Auth(auth))])
    }
}

/// `id:5`, `ids:!5:7`, nothing for all.
fn list_ids(out: &mut String, name: &str, span: Numbers) {
    if !span.is_all(MAX) {
        let plural = if span.low == span.high { "" } else { "s" };
        let _ = write!(out, "{name}{plural}:{}{span}", mark(span.invert));
    }
}

#[derive(Debug)]
struct Frag {
    id: Numbers,
    len: Option<(u32, bool)>,
    reserved: bool,
    first: bool,
    more: Option<bool>,
}

impl Instance for Frag {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        match given.id {
            ID => self.id = Numbers::read_some(given, MAX)?,
            LEN => self.len = Some((word32(given)?, given.invert)),
            RES => self.reserved = true,
            FIRST => self.first = true,
            id => self.more = Some(id == MORE),
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, _span: Span) -> Result<(), Diagnostic> {
        Ok(())
    }

    fn print(&self, out: &mut String) {
        let Self { id, len, reserved, first, more } = *self;
        out.push_str(" -m frag");
        if !id.is_all(MAX) {
            let _ = write!(out, "{} --fragid {id}", bang(id.invert));
        }
        if let Some((len, invert)) = len {
            let _ = write!(out, "{} --fraglen {len}", bang(invert));
        }
        out.push_str(if reserved { " --fragres" } else { "" });
        out.push_str(if first { " --fragfirst" } else { "" });
        out.push_str(match more {
            Some(true) => " --fragmore",
            Some(false) => " --fraglast",
            None => "",
        });
    }

    fn list(&self, out: &mut String) {
        let Self { id, len, reserved, first, more } = *self;
        out.push_str(" frag ");
        list_ids(out, "id", id);
        if let Some((len, invert)) = len {
            let _ = write!(out, " length:{}{len}", mark(invert));
        }
        out.push_str(if reserved { " reserved" } else { "" });
        out.push_str(if first { " first" } else { "" });
        out.push_str(match more {
            Some(true) => " more",
            Some(false) => " last",
            None => "",
        });
    }

    fn lower(&self) -> Lowered {
        let Self { id, len: _, reserved, first, more } = *self;
        let fragment = FragmentHeader { id: id.narrow(u32::MAX), reserved, first, more };
        Lowered::Matches(vec![Match::Header(HeaderMatch::Fragment(fragment))])
    }
}

#[derive(Debug)]
struct Opts {
    options: Options,
}

/// Reads `TYPE[:LENGTH],...`; both count modulo 256, and a length of 255 is any.
fn options(word: &Word) -> Result<Box<[WantedOption]>, Diagnostic> {
    let (mut options, mut from) = (Vec::new(), 0);
    for item in word.text.split(',') {
        let span = part_of(word, from, from + item.len());
        from += item.len() + 1;
        let byte = |text: &str| {
            let bad = || Diagnostic::error(span, format!("`{text}` is no number"));
            number(text, u64::MAX).map(|value| value.to_le_bytes()[0]).ok_or_else(bad)
        };
        let (kind, len) = item.split_once(':').map_or((item, None), |(kind, len)| (kind, Some(len)));
        let kind = byte(kind)?;
        let is_last = options.len() + 1 >= OPTS_MAX;
        if options.len() >= OPTS_MAX || len.is_some() && is_last {
            return Err(Diagnostic::error(
                span,
                format!("more than {OPTS_MAX} options, or a length of the last"),
            ));
        }
        if kind == 0 && len.is_some() {
            return Err(Diagnostic::error(span, "option 0 is a byte of padding and has no length"));
        }
        let len = len.map(byte).transpose()?.filter(|len| *len != u8::MAX);
        options.push((kind, len));
    }
    Ok(options.into())
}

impl Opts {
    fn module(&self) -> &'static str {
        if self.options.destination { "dst" } else { "hbh" }
    }

    fn options(&self) -> Option<String> {
        let one =
            |&(kind, len): &WantedOption| len.map_or_else(|| kind.to_string(), |len| format!("{kind}:{len}"));
        self.options.options.as_ref().map(|options| options.iter().map(one).collect::<Vec<_>>().join(","))
    }
}

impl Instance for Opts {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        if given.id == LEN {
            self.options.len = Some((word32(given)?, given.invert));
        } else {
            self.options.options = Some(options(first(given)?)?);
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, _span: Span) -> Result<(), Diagnostic> {
        Ok(())
    }

    fn print(&self, out: &mut String) {
        let module = self.module();
        let _ = write!(out, " -m {module}");
        if let Some((len, invert)) = self.options.len {
            let _ = write!(out, "{} --{module}-len {len}", bang(invert));
        }
        if let Some(options) = self.options() {
            let _ = write!(out, " --{module}-opts {options}");
        }
    }

    fn list(&self, out: &mut String) {
        let _ = write!(out, " {}", self.module());
        if let Some((len, invert)) = self.options.len {
            let _ = write!(out, " length:{}{len}", mark(invert));
        }
        if let Some(options) = self.options() {
            let _ = write!(out, " opts {options}");
        }
    }

    fn lower(&self) -> Lowered {
        Lowered::Matches(vec![Match::Header(HeaderMatch::Options(Box::new(self.options.clone())))])
    }
}
