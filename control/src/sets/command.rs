//! One command of ipset(8): a line of `ipset save`, or the words behind `fwctl set`.

use super::create::{self, TIMEOUT_MAX, argument, unknown, value};
use super::element::Pattern;
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;
use crate::iptables::names::{Services, nearest};
use dataplane::sets::{Extras, Kind, NetPart, Spec};

/// Longest name of a set, in bytes.
pub const NAME_MAX: usize = 31;

/// Longest comment, in bytes.
const COMMENT_MAX: usize = 255;

/// What is added, removed or tested.
#[derive(Clone, Debug)]
pub enum What {
    /// Elements.
    Elements(Pattern),
    /// A set in a list, and the one it stands before (or, with true, after).
    Member(String, Option<(String, bool)>),
}

/// A command.
#[derive(Clone, Debug)]
pub enum Command {
    /// `create`.
    Create(String, Box<Spec>),
    /// `add`.
    Add(String, Box<(What, Extras)>),
    /// `del`.
    Del(String, Box<What>),
    /// `test`.
    Test(String, Box<What>),
    /// `destroy`.
    Destroy(Option<String>),
    /// `flush`.
    Flush(Option<String>),
    /// `rename`.
    Rename(String, String),
    /// `swap`.
    Swap(String, String),
    /// `list`.
    List(Option<String>),
    /// `save`.
    Save(Option<String>),
    /// Nothing: the end of what was saved.
    Commit,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Form {
    /// As `ipset list` does.
    #[default]
    Plain,
    /// As `ipset save` does.
    Save,
    /// As `ipset -output xml` does.
    Xml,
}

/// Options that may stand anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// `-exist`: what is there already, or is not, is no error.
    pub exist: bool,
    /// `-terse`: no members.
    pub terse: bool,
    /// `-name`: names only.
    pub names: bool,
    /// `-sorted`.
    pub sorted: bool,
    /// `-quiet`.
    pub quiet: bool,
    /// `-output`.
    pub form: Option<Form>,
}

/// A command as read.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The command.
    pub command: Command,
    /// With these options.
    pub options: Options,
    /// The words, for places in messages.
    pub words: Vec<Word>,
}

impl Asked {
    /// Something wrong with the word at that position.
    pub(super) fn wrong(&self, at: usize, message: impl Into<String>) -> Diagnostic {
        let span = self.words.get(at).or(self.words.first()).map_or_else(Span::default, |word| word.span);
        Diagnostic::error(span, message)
    }
}

/// Names of commands; the first is the one in messages.
const COMMANDS: &[&[&str]] = &[
    &["create", "-N", "--create", "n"],
    &["add", "-A", "--add", "a"],
    &["del", "-D", "--del", "d"],
    &["test", "-T", "--test", "t"],
    &["destroy", "-X", "--destroy", "x"],
    &["list", "-L", "--list", "l"],
    &["save", "-S", "--save", "s"],
    &["flush", "-F", "--flush", "f"],
    &["rename", "-E", "--rename", "e"],
    &["swap", "-W", "--swap", "w"],
    &["COMMIT"],
];

/// The command a word names: by one of its names, or by how the first one begins.
fn command_of(text: &str) -> Option<&'static [&'static str]> {
    let exact = COMMANDS.iter().find(|names| names.contains(&text));
    let begins = || COMMANDS.iter().find(|names| !text.is_empty() && names[0].starts_with(text));
    exact.or_else(begins).copied()
}

/// Takes the options out of a line.
fn take_options(words: Vec<Word>) -> Result<(Vec<Word>, Options), Diagnostic> {
    let mut options = Options::default();
    let mut rest = Vec::with_capacity(words.len());
    let mut words = words.into_iter();
    // Behind `comment` any word is one.
    let mut is_comment = false;
    while let Some(word) = words.next() {
        match word.text.as_str() {
            _ if is_comment => rest.push(word.clone()),
            "-exist" | "--exist" | "-!" => options.exist = true,
            "-terse" | "--terse" | "-t" => options.terse = true,
            "-name" | "--name" | "-n" => options.names = true,
            "-sorted" | "--sorted" | "-s" => options.sorted = true,
            "-quiet" | "--quiet" | "-q" => options.quiet = true,
            "-resolve" | "--resolve" | "-r" => {
                return Err(Diagnostic::unsupported(word.span, "names of addresses are not looked up"));
            }
            "-output" | "--output" | "-o" => {
                let form = argument(&word, &mut words.as_slice().iter())?;
                options.form = Some(match form.text.as_str() {
                    "plain" => Form::Plain,
                    "save" => Form::Save,
                    "xml" => Form::Xml,
                    other => {
                        let found = format!("`{other}` is no form of output: plain, save, xml");
                        return Err(Diagnostic::error(form.span, found));
                    }
                });
                words.next();
            }
            _ => rest.push(word.clone()),
        }
        is_comment = matches!(word.text.as_str(), "comment" | "--comment");
    }
    Ok((rest, options))
}

/// Whether a line is a command that changes nothing, by the same reading as [`parse`]. One that cannot be read is taken for
/// a change.
#[must_use]
pub fn only_looks(line: &[u8]) -> bool {
    let read = super::words::words(line, 1, 0).and_then(take_options);
    let command = read.ok().and_then(|(words, _)| command_of(&words.first()?.text));
    command.is_some_and(|names| matches!(names[0], "test" | "list" | "save"))
}

/// Reads a command. `spec_of` knows the sets there are.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse(
    words: Vec<Word>,
    spec_of: &dyn Fn(&str) -> Option<Spec>,
    services: &dyn Services,
) -> Result<Asked, Diagnostic> {
    let (words, options) = take_options(words)?;
    let Some((first, rest)) = words.split_first() else {
        return Err(Diagnostic::error(Default::default(), "no command"));
    };
    let Some(names) = command_of(&first.text) else {
        let found = Diagnostic::error(first.span, format!("there is no command `{}`", first.text));
        return Err(match nearest(&first.text, COMMANDS.iter().map(|names| names[0])) {
            Some(near) => found.hint(format!("did you mean `{near}`?")),
            None => found,
        });
    };
    let mut line = Line { first, rest, spec_of, services };
    let command = match names[0] {
        "create" => line.create()?,
        "add" => line.add()?,
        "del" => line.del_or_test(Command::Del)?,
        "test" => line.del_or_test(Command::Test)?,
        "destroy" => Command::Destroy(line.optional()?),
        "flush" => Command::Flush(line.optional()?),
        "list" => Command::List(line.optional()?),
        "save" => Command::Save(line.optional()?),
        "rename" => line.pair(Command::Rename)?,
        "swap" => line.pair(Command::Swap)?,
        _ => Command::Commit,
    };
    if let Some(word) = line.rest.first() {
        return Err(unknown(word, &word.text));
    }
    Ok(Asked { command, options, words })
}

struct Line<'a> {
    first: &'a Word,
    rest: &'a [Word],
    spec_of: &'a dyn Fn(&str) -> Option<Spec>,
    services: &'a dyn Services,
}

impl<'a> Line<'a> {
    fn word(&mut self, what: &str) -> Result<&'a Word, Diagnostic> {
        let missing = || Diagnostic::error(self.first.span, format!("`{}` wants {what}", self.first.text));
        let (word, rest) = self.rest.split_first().ok_or_else(missing)?;
        self.rest = rest;
        Ok(word)
    }

    fn name(&mut self) -> Result<&'a Word, Diagnostic> {
        let word = self.word("the name of a set")?;
        if word.text.is_empty() || word.text.len() > NAME_MAX {
            return Err(Diagnostic::error(
                word.span,
                format!("a name of a set has 1 to {NAME_MAX} characters"),
            ));
        }
        Ok(word)
    }

    fn optional(&mut self) -> Result<Option<String>, Diagnostic> {
        if self.rest.is_empty() { Ok(None) } else { self.name().map(|word| Some(word.text.clone())) }
    }

    fn pair(&mut self, make: fn(String, String) -> Command) -> Result<Command, Diagnostic> {
        let first = self.name()?.text.clone();
        Ok(make(first, self.name()?.text.clone()))
    }

    fn create(&mut self) -> Result<Command, Diagnostic> {
        let name = self.name()?.text.clone();
        let kind_word = self.word("a type")?;
        let kind = create::kind(kind_word)?;
        let spec = create::options(kind, std::mem::take(&mut self.rest), kind_word, self.services)?;
        Ok(Command::Create(name, Box::new(spec)))
    }

    /// The set a command is about, and how it is made.
    fn set(&mut self) -> Result<(String, Spec), Diagnostic> {
        let word = self.name()?;
        let missing = || Diagnostic::error(word.span, format!("there is no set `{}`", word.text));
        Ok((word.text.clone(), (self.spec_of)(&word.text).ok_or_else(missing)?))
    }

    fn what(&mut self, spec: &Spec) -> Result<What, Diagnostic> {
        let word = self.word("an element")?;
        if spec.kind != Kind::ListSet {
            return Ok(What::Elements(Pattern::parse(word, spec, self.services)?));
        }
        let mut beside = None;
        if let Some((place, rest)) = self.rest.split_first()
            && matches!(place.text.as_str(), "before" | "after")
        {
            self.rest = rest;
            let by = self.name()?.text.clone();
            beside = Some((by, place.text == "after"));
        }
        Ok(What::Member(word.text.clone(), beside))
    }

    fn del_or_test(&mut self, make: fn(String, Box<What>) -> Command) -> Result<Command, Diagnostic> {
        let (name, spec) = self.set()?;
        let what = self.what(&spec)?;
        // As in ipset: it says nothing here, but is taken.
        if let Some((word, rest)) = self.rest.split_first()
            && word.text == "nomatch"
            && spec.kind.net() != NetPart::None
        {
            self.rest = rest;
        }
        Ok(make(name, Box::new(what)))
    }

    fn add(&mut self) -> Result<Command, Diagnostic> {
        let (name, spec) = self.set()?;
        let what = self.what(&spec)?;
        let mut extras = Extras::default();
        let mut counts = (None, None);
        let mut given: Vec<&str> = Vec::new();
        let mut words = std::mem::take(&mut self.rest).iter();
        while let Some(word) = words.next() {
            let option = word.text.strip_prefix("--").unwrap_or(&word.text);
            create::once(&mut given, option, word)?;
            let without = |has: bool, what: &str| {
                let refused = || {
                    Diagnostic::error(word.span, format!("set `{name}` was made without `{what}`"))
                        .hint(format!("make it with `{what}`"))
                };
                if has { Ok(()) } else { Err(refused()) }
            };
            match option {
                "timeout" => {
                    without(spec.timeout.is_some(), "timeout")?;
                    extras.timeout = u32::try_from(value(word, &mut words, TIMEOUT_MAX)?).ok();
                }
                "packets" => {
                    without(spec.counters, "counters")?;
                    counts.0 = Some(value(word, &mut words, u64::MAX - 1)?);
                }
                "bytes" => {
                    without(spec.counters, "counters")?;
                    counts.1 = Some(value(word, &mut words, u64::MAX - 1)?);
                }
                "comment" => {
                    without(spec.comment, "comment")?;
                    let word = argument(word, &mut words)?;
                    if !(1..=COMMENT_MAX).contains(&word.text.len()) || word.text.contains('"') {
                        let message =
                            format!("a comment has 1 to {COMMENT_MAX} characters, none of them a quote");
                        return Err(Diagnostic::error(word.span, message));
                    }
                    extras.comment = Some(word.text.as_str().into());
                }
                "nomatch" if spec.kind.net() != NetPart::None => extras.nomatch = true,
                "wildcard" if spec.kind == Kind::HashNetIface => {
                    let found = Diagnostic::unsupported(word.span, "`wildcard` is not supported");
                    return Err(found.hint("add an element for each NIC"));
                }
                "skbmark" | "skbprio" | "skbqueue" => {
                    return Err(Diagnostic::unsupported(
                        word.span,
                        format!("`{}` is not supported", word.text),
                    ));
                }
                other => return Err(unknown(word, other)),
            }
        }
        if counts != (None, None) {
            extras.counts = Some((counts.0.unwrap_or(0), counts.1.unwrap_or(0)));
        }
        Ok(Command::Add(name, Box::new((what, extras))))
    }
}

#[cfg(test)]
mod tests {
    use super::only_looks;

    #[test]
    fn what_only_looks_is_told_from_what_changes() {
        for line in ["list", "save a", "-o save list a", "test a 10.0.0.1", "-L", "s", "-exist -T a 10.0.0.1"]
        {
            assert!(only_looks(line.as_bytes()), "{line}");
        }
        for line in [
            "add a 10.0.0.1",
            "-output save add a 10.0.0.1",
            "-o save -A a 10.0.0.1",
            "",
            "flush",
            "list\nflush",
        ] {
            assert!(!only_looks(line.as_bytes()), "{line}");
        }
    }
}
