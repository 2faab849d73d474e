//! One `-A`, `-I`, `-N` or `-P` line: getopt's rules, and which match or target an option belongs to. What the options
//! of iptables itself do is in [`rule`].

mod rule;

use dataplane::packet::Family;

use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;
use crate::iptables::names::{Services, nearest};
use crate::iptables::options::basic::{BASIC, Basic};
use crate::iptables::options::{self, EXTENSIONS, Extension, Facts, Given, Instance, Kind, OptionSpec};
use crate::iptables::syntax::{Command, Counters, Rule, Target};

/// Reads the words of one line.
pub(super) struct Reader<'a> {
    words: &'a [Word],
    at: usize,
    line: Span,
    family: Family,
    services: &'a dyn Services,
    warnings: &'a mut Vec<Diagnostic>,
    rule: Rule,
    loaded: Vec<Loaded>,
    command: Option<Head>,
    jump: bool,
    skip: bool,
    illegal: Option<Span>,
    /// Options a rule takes once, and where they were.
    seen: Vec<(Basic, Span)>,
}

/// A match or target met on this line.
struct Loaded {
    extension: &'static Extension,
    instance: Box<dyn Instance>,
    span: Span,
    used_slots: u32,
}

/// The command of the line.
enum Head {
    Append { chain: Word },
    Insert { chain: Word, position: u32, span: Span },
    New { chain: Word },
    Policy { chain: Word, policy: Word },
}

/// What a long option turned out to be.
enum Found {
    Basic(Basic, char),
    Extension(usize, OptionSpec),
    Ambiguous,
    Unknown,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        words: &'a [Word],
        line: Span,
        family: Family,
        services: &'a dyn Services,
        warnings: &'a mut Vec<Diagnostic>,
    ) -> Self {
        Self {
            words,
            at: 0,
            line,
            family,
            services,
            warnings,
            rule: Rule { span: line, ..Rule::default() },
            loaded: Vec::new(),
            command: None,
            jump: false,
            skip: false,
            illegal: None,
            seen: Vec::new(),
        }
    }

    /// The command of the line; `None` if the line is for the other family (`-4`, `-6`).
    pub(super) fn read(mut self, counters: Counters) -> Result<Option<Command>, Diagnostic> {
        self.rule.counters = counters;
        let mut bang: Option<Span> = None;
        while let Some(word) = self.next() {
            match word.text.as_str() {
                "!" if bang.is_some() => return Err(Diagnostic::error(word.span, "several `!` in a row")),
                "!" => bang = Some(word.span),
                "--" => {
                    if let Some(extra) = self.next() {
                        return Err(bad_argument(extra));
                    }
                }
                text if text.starts_with("--") => self.long(word, bang.take())?,
                text if text.starts_with('-') && text.len() > 1 => self.short(word, bang.take())?,
                _ => return Err(self.stray(word)),
            }
        }
        if let Some(bang) = bang {
            return Err(Diagnostic::error(bang, "nothing follows this `!`"));
        }
        self.finish()
    }

    fn next(&mut self) -> Option<&'a Word> {
        let word = self.words.get(self.at)?;
        self.at += 1;
        Some(word)
    }

    fn place_of(&self, basic: Basic) -> Option<Span> {
        self.seen.iter().find(|(seen, _)| *seen == basic).map(|&(_, span)| span)
    }

    fn argument(&mut self, option: &Word) -> Result<&'a Word, Diagnostic> {
        self.next().ok_or_else(|| {
            Diagnostic::error(option.span, format!("option `{}` requires an argument", option.text))
        })
    }

    fn stray(&self, word: &Word) -> Diagnostic {
        let after_bang = self.at >= 2 && self.words.get(self.at - 2).is_some_and(|before| before.text == "!");
        let error = bad_argument(word);
        match word.text.as_str() {
            _ if after_bang => error.hint("`!` goes before the option: `! -s ADDRESS`, not `-s ! ADDRESS`"),
            text if text.starts_with('#') => {
                error.hint("a comment must begin in the first column of its line")
            }
            "COMMIT" => error.hint("iptables-restore wants the word alone on its line"),
            _ => error,
        }
    }

    fn short(&mut self, word: &Word, bang: Option<Span>) -> Result<(), Diagnostic> {
        let mut letters = word.text.chars().skip(1);
        let letter = letters.next().unwrap_or_default();
        let Some(&(_, _, basic)) = BASIC.iter().find(|&&(short, _, _)| short == letter && letter != '0')
        else {
            return Err(Diagnostic::error(word.span, format!("unknown option `-{letter}`")));
        };
        if letters.next().is_some() {
            return Err(Diagnostic::unsupported(
                word.span,
                format!("`{}`: an option run together", word.text),
            )
            .hint("iptables misreads most of these; write the option and its value as two words"));
        }
        self.basic(basic, letter, word, bang)
    }

    fn long(&mut self, word: &Word, bang: Option<Span>) -> Result<(), Diagnostic> {
        let text = word.text.get(2..).unwrap_or_default();
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let mut found = self.lookup(name);
        if matches!(found, Found::Unknown | Found::Ambiguous) && self.load_by_protocol(word.span) {
            found = self.lookup(name);
        }
        match found {
            Found::Basic(basic, letter) if value.is_none() => self.basic(basic, letter, word, bang),
            Found::Basic(..) => {
                Err(Diagnostic::unsupported(word.span, format!("`{}`: an option with `=`", word.text))
                    .hint("iptables misreads these; write the option and its value as two words"))
            }
            Found::Extension(position, spec) => self.extension_option(position, spec, word, value, bang),
            Found::Ambiguous => Err(Diagnostic::error(word.span, format!("ambiguous option `--{name}`"))
                .hint("write more of its name")),
            Found::Unknown => Err(self.unknown_option(name, word)),
        }
    }

    /// getopt's search: an exact name first, else the only option (or several that are the same) it abbreviates.
    fn lookup(&self, name: &str) -> Found {
        let basic = BASIC
            .iter()
            .map(|&(short, long, basic)| (long, Found::Basic(basic, short), usize::MAX, short as u32));
        // What was loaded last comes first: of `-m mark --mark 1 -m connmark --mark 2` each has its own.
        let own = self.loaded.iter().enumerate().rev().flat_map(|(position, loaded)| {
            loaded.extension.options.iter().map(move |spec| {
                (
                    spec.name,
                    Found::Extension(position, *spec),
                    position,
                    u32::from(spec.id) << 8 | u32::from(spec.args),
                )
            })
        });
        let mut only: Option<(Found, usize, u32)> = None;
        let mut ambiguous = false;
        for (long, found, owner, id) in basic.chain(own) {
            if long == name {
                return found;
            }
            if !name.is_empty() && long.starts_with(name) {
                match &only {
                    None => only = Some((found, owner, id)),
                    // Refused options share an id but are not each other's aliases.
                    Some((_, known_owner, known_id)) => {
                        let refused = matches!(found, Found::Extension(_, spec) if spec.slot == 0);
                        ambiguous |= (*known_owner, *known_id) != (owner, id) || refused;
                    }
                }
            }
        }
        match only {
            _ if ambiguous => Found::Ambiguous,
            Some((found, _, _)) => found,
            None => Found::Unknown,
        }
    }

    /// Loads the match that `-p` implies, once. Whether anything was loaded.
    fn load_by_protocol(&mut self, span: Span) -> bool {
        let Some(extension) =
            self.rule.proto.and_then(|proto| options::find_by_protocol(proto.number, self.family))
        else {
            return false;
        };
        if self.loaded.iter().any(|loaded| std::ptr::eq(loaded.extension, extension)) {
            return false;
        }
        self.load(extension, span);
        true
    }

    fn load(&mut self, extension: &'static Extension, span: Span) {
        let instance = (extension.new)(self.family);
        self.loaded.push(Loaded { extension, instance, span, used_slots: 0 });
    }

    fn unknown_option(&self, name: &str, word: &Word) -> Diagnostic {
        let error = Diagnostic::error(word.span, format!("unknown option `--{name}`"));
        let owners: Vec<String> = EXTENSIONS
            .iter()
            .filter(|extension| extension.options.iter().any(|spec| spec.name == name))
            .map(|extension| match (extension.kind, extension.protocol) {
                (Kind::Target, _) => format!("`-j {}`", extension.names[0]),
                (Kind::Match, Some(_)) => format!("`-p {}`", extension.names[0]),
                (Kind::Match, None) => format!("`-m {}`", extension.names[0]),
            })
            .collect();
        if !owners.is_empty() {
            let mut owners = owners;
            owners.dedup();
            return error.hint(format!("it needs {} before it", owners.join(" or ")));
        }
        let basic = BASIC.iter().map(|&(_, long, _)| long);
        let own = self.loaded.iter().flat_map(|loaded| loaded.extension.options.iter().map(|spec| spec.name));
        match nearest(name, basic.chain(own)) {
            Some(near) => error.hint(format!("did you mean `--{near}`?")),
            None => error,
        }
    }

    fn extension_option(
        &mut self,
        position: usize,
        spec: OptionSpec,
        word: &Word,
        value: Option<&str>,
        bang: Option<Span>,
    ) -> Result<(), Diagnostic> {
        if spec.slot == 0 {
            return Err(Diagnostic::unsupported(
                word.span,
                format!("`--{}` is valid iptables, not supported yet", spec.name),
            ));
        }
        if let (Some(bang), false) = (bang, spec.invertible) {
            return Err(Diagnostic::error(bang, format!("option `--{}` cannot be inverted", spec.name)));
        }
        let mut args = Vec::new();
        if let Some(value) = value {
            if spec.args == 0 {
                return Err(Diagnostic::error(
                    word.span,
                    format!("option `--{}` takes no argument", spec.name),
                ));
            }
            args.push(Word { text: value.to_owned(), span: word.span });
        }
        while args.len() < usize::from(spec.args) {
            args.push(self.argument(word)?.clone());
        }
        let facts = self.facts();
        let Some(loaded) = self.loaded.get_mut(position) else { return Ok(()) };
        let slot = 1u32.checked_shl(u32::from(spec.slot)).unwrap_or(0);
        if loaded.used_slots & slot != 0 {
            let message =
                format!("`--{}` does not go with an option given before, or is given twice", spec.name);
            return Err(Diagnostic::error(word.span, message));
        }
        loaded.used_slots |= slot;
        let given = Given { id: spec.id, invert: bang.is_some(), args: &args, span: word.span, facts };
        loaded.instance.option(&given)
    }

    fn facts(&self) -> Facts<'a> {
        Facts { family: self.family, proto: self.rule.proto, services: self.services }
    }

    fn basic(
        &mut self,
        basic: Basic,
        letter: char,
        word: &Word,
        bang: Option<Span>,
    ) -> Result<(), Diagnostic> {
        let invertible = matches!(
            basic,
            Basic::Source
                | Basic::Destination
                | Basic::InInterface
                | Basic::OutInterface
                | Basic::Protocol
                | Basic::Fragment
        );
        if let (Some(bang), false) = (bang, invertible) {
            return Err(Diagnostic::error(bang, format!("`!` is not allowed before `{}`", word.text)));
        }
        let invert = bang.is_some();
        match basic {
            Basic::Append | Basic::Insert | Basic::NewChain | Basic::Policy => return self.head(basic, word),
            Basic::OtherCommand => {
                return Err(Diagnostic::unsupported(
                    word.span,
                    format!("`-{letter}` edits a table instead of stating it"),
                )
                .hint("write the rules as they shall be, as iptables-save prints them"));
            }
            Basic::Misplaced => {
                return Err(Diagnostic::error(
                    word.span,
                    format!("option `{}` has no place in a rules file", word.text),
                ));
            }
            Basic::Ignored => {
                self.warnings.push(Diagnostic::note(
                    word.span,
                    format!("`{}` means nothing in a rules file", word.text),
                ));
            }
            Basic::Ipv4 => self.skip |= self.family != Family::V4,
            Basic::Ipv6 => self.skip |= self.family != Family::V6,
            _ => {
                // These belong to rules; -N and -P refuse them.
                self.illegal = self.illegal.or(Some(word.span));
                return self.rule_option(basic, word, invert);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Option<Command>, Diagnostic> {
        let Some(command) = self.command.take() else {
            return Err(Diagnostic::error(self.line, "no command on this line")
                .hint("a rule begins with `-A CHAIN`; for an empty line leave out the blanks"));
        };
        if self.skip {
            return Ok(None);
        }
        let (chain, insert) = match command {
            Head::Append { chain } => (chain, None),
            Head::Insert { chain, position, span } => (chain, Some((position, span))),
            Head::New { chain } => {
                self.only_command()?;
                return Ok(Some(Command::Declare {
                    name: chain.text,
                    span: chain.span,
                    policy: None,
                    counters: Counters::default(),
                    exclusive: true,
                }));
            }
            Head::Policy { chain, policy } => {
                self.only_command()?;
                return Ok(Some(Command::Policy {
                    name: chain.text,
                    span: chain.span,
                    policy: (policy.text, policy.span),
                }));
            }
        };
        self.check_chain_ifaces(&chain)?;
        self.check_lists()?;
        self.finish_extensions()?;
        Ok(Some(Command::Rule { chain: chain.text, span: chain.span, insert, rule: Box::new(self.rule) }))
    }

    fn only_command(&self) -> Result<(), Diagnostic> {
        self.illegal
            .map_or(Ok(()), |span| Err(Diagnostic::error(span, "this option does not go with this command")))
    }

    fn check_chain_ifaces(&self, chain: &Word) -> Result<(), Diagnostic> {
        let name = chain.text.as_str();
        let (option, span) = match name {
            "INPUT" | "PREROUTING" => ("-o", self.place_of(Basic::OutInterface)),
            "OUTPUT" | "POSTROUTING" => ("-i", self.place_of(Basic::InInterface)),
            _ => return Ok(()),
        };
        span.map_or(Ok(()), |span| {
            Err(Diagnostic::error(span, format!("`{option}` in {name}: no such interface is known there")))
        })
    }

    /// A list on one side and `!` on the other do not go together either.
    fn check_lists(&self) -> Result<(), Diagnostic> {
        let both = || self.rule.src.iter().chain(&self.rule.dst);
        if both().any(|side| side.invert) && both().any(|side| side.nets.len() > 1) {
            let span = self.place_of(Basic::Destination).unwrap_or(self.line);
            return Err(Diagnostic::error(span, "`!` is not allowed with several addresses on either side")
                .hint("write a chain with one rule per address"));
        }
        Ok(())
    }

    fn finish_extensions(&mut self) -> Result<(), Diagnostic> {
        let facts = self.facts();
        for mut loaded in std::mem::take(&mut self.loaded) {
            loaded.instance.finish(facts, loaded.span)?;
            if loaded.extension.kind == Kind::Target {
                self.rule.target = Target::Extension(loaded.instance.into());
            } else {
                self.rule.matches.push(loaded.instance.into());
            }
        }
        Ok(())
    }
}

fn bad_argument(word: &Word) -> Diagnostic {
    Diagnostic::error(word.span, format!("bad argument `{}`", word.text))
}
