//! Reads file, options and `--set` into one [`Config`], collecting every problem on the way.

use super::error::{Place, Source};
use super::hints::{misfit_problem, unknown_in_section, unknown_in_wire, unknown_section, unknown_set};
use super::origin::{Loaded, Origins};
use super::settings::{Kind, Known, SECTIONS, Setting, WIRE};
use super::value::{Raw, RawKind, Value};
use super::{Config, ConfigErrors, FwdArgs, Problem, WireConfig};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What the command line is called in reports.
pub(super) const COMMAND_LINE: &str = "command line";

/// Largest configuration file read, so that a wrong file name (a device, a disk image) ends in a clear refusal.
const FILE_SIZE_MAX_BYTES: u64 = 4 << 20;

/// Reads everything `args` names. See [`Config::load`].
pub(super) fn load(args: &FwdArgs) -> Result<Loaded, ConfigErrors> {
    let mut loader = Loader::default();
    loader.read_args(args);
    loader.check_complete();
    loader.finish()
}

/// See [`Config::from_settings`].
pub(super) fn from_settings(set: &[String]) -> Result<Config, ConfigErrors> {
    let mut loader = Loader::default();
    for text in set {
        loader.read_set("--set", text);
    }
    loader.finish().map(|loaded| loaded.config)
}

/// See [`Config::with_settings`].
pub(super) fn with_settings(base: &Config, set: &[String]) -> Result<Loaded, ConfigErrors> {
    let mut loader = Loader { config: base.clone(), ..Loader::default() };
    for text in set {
        loader.read_set("fwctl config set", text);
    }
    loader.finish()
}

/// A configuration in the making.
#[derive(Default)]
pub(super) struct Loader {
    pub(super) config: Config,
    pub(super) problems: Vec<Problem>,
    /// Where each setting was given last, by full name (`wire.0.left` for wires).
    pub(super) places: BTreeMap<String, Place>,
    /// Something about a wire could not be read, and has been reported: what is missing there is not news.
    pub(super) wire_misread: bool,
    pub(super) sources: Vec<Source>,
    /// Whether the configuration file could not be read.
    pub(super) unreadable: bool,
}

impl Loader {
    /// File, options and `--set`, in the order in which the later ones win.
    pub(super) fn read_args(&mut self, args: &FwdArgs) {
        if let Some(path) = &args.config {
            self.read_file(path);
        }
        self.read_options(args);
        for text in &args.set {
            self.read_set("--set", text);
        }
    }

    pub(super) fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn add_source(&mut self, name: String, text: String) -> usize {
        self.sources.push(Source { name, text });
        self.sources.len() - 1
    }

    // ---- the file ----

    fn read_file(&mut self, path: &Path) {
        let text = match read_text(path) {
            Ok(text) => text,
            Err(why) => {
                (self.wire_misread, self.unreadable) = (true, true);
                let problem =
                    Problem::new(format!("cannot read the configuration file {}: {why}", path.display()));
                return self.problem(problem.hint("check the path given with --config"));
            }
        };
        let source = self.add_source(path.display().to_string(), text.clone());
        let (table, syntax_errors) = DeTable::parse_recoverable(&text);
        self.wire_misread |= !syntax_errors.is_empty();
        let mut broken: Vec<usize> = Vec::new();
        for error in &syntax_errors {
            let span = error.span().unwrap_or(0..0);
            let line = line_of(&text, span.start);
            // What follows on a broken line is mostly the parser finding its feet again.
            if !broken.contains(&line) {
                broken.push(line);
                self.problem(
                    Problem::new(format!("not TOML: {}", error.message())).at(Place { source, span }),
                );
            }
        }
        let known_before = self.problems.len();
        let base = path.parent().unwrap_or(Path::new("")).to_owned();
        self.read_table(table.get_ref(), source, &base);
        if !broken.is_empty() {
            // What was recovered from a broken line may be made up (its span is empty then); the break is the news.
            let later = self.problems.split_off(known_before);
            self.problems.extend(later.into_iter().filter(|problem| {
                problem.place.as_ref().is_none_or(|place| {
                    !place.span.is_empty() && !broken.contains(&line_of(&text, place.span.start))
                })
            }));
        }
    }

    fn read_table(&mut self, table: &DeTable<'_>, source: usize, base: &Path) {
        for (key, value) in table {
            let (name, span) = (key.get_ref().as_ref(), key.span());
            if name == "wire" {
                self.read_wires(value, source);
            } else if SECTIONS.iter().any(|(section, _)| *section == name) {
                self.read_section(name, value, source, base);
            } else {
                self.problem(unknown_section(name).at(Place { source, span }));
            }
        }
    }

    fn read_section(&mut self, section: &str, value: &Spanned<DeValue<'_>>, source: usize, base: &Path) {
        let DeValue::Table(table) = value.get_ref() else {
            let problem = Problem::new(format!("`{section}` is a section, not a setting"));
            let place = Place { source, span: value.span() };
            return self.problem(problem.hint(format!("write [{section}] and its settings below")).at(place));
        };
        for (key, value) in table {
            let leaf = key.get_ref().as_ref();
            match Known::find(&format!("{section}.{leaf}")) {
                Some(known) => self.read_setting(known, &Raw::from_toml(value), source, Some(base)),
                None => {
                    let problem = unknown_in_section(section, leaf);
                    self.problem(problem.at(Place { source, span: key.span() }));
                }
            }
        }
    }

    fn read_setting(&mut self, known: Known, raw: &Raw, source: usize, base: Option<&Path>) {
        let name = known.name();
        match known.kind().read(raw) {
            Ok(value) => {
                let value = match (known.kind(), value, base) {
                    (Kind::File, Value::Text(file), Some(base)) => {
                        Value::Text(base.join(file).to_string_lossy().into_owned())
                    }
                    (_, value, _) => value,
                };
                known.put(&mut self.config, value);
                self.places.insert(name, Place { source, span: raw.span.clone() });
            }
            Err(misfit) => self.problem(misfit_problem(&name, known.kind(), raw, misfit, source)),
        }
    }

    fn read_wires(&mut self, value: &Spanned<DeValue<'_>>, source: usize) {
        let hint = "write [[wire]], with two brackets, once for each wire";
        let place = Place { source, span: value.span() };
        let DeValue::Array(tables) = value.get_ref() else {
            self.wire_misread = true;
            return self.problem(Problem::new("`wire` is a list of wires").hint(hint).at(place));
        };
        for table in tables {
            let DeValue::Table(fields) = table.get_ref() else {
                self.wire_misread = true;
                let place = Place { source, span: table.span() };
                self.problem(Problem::new("a wire is a table").hint(hint).at(place));
                continue;
            };
            let index = self.config.wires.len();
            self.config.wires.push(WireConfig::default());
            self.places.insert(format!("wire.{index}"), Place { source, span: table.span() });
            for (key, value) in fields {
                let field = key.get_ref().as_ref();
                match wire_setting(field) {
                    Some(setting) => self.read_wire_setting(index, setting, &Raw::from_toml(value), source),
                    None => {
                        self.wire_misread = true;
                        self.problem(unknown_in_wire(field).at(Place { source, span: key.span() }));
                    }
                }
            }
        }
    }

    fn read_wire_setting(&mut self, index: usize, setting: &Setting<WireConfig>, raw: &Raw, source: usize) {
        let name = format!("wire.{index}.{}", setting.name);
        match setting.kind.read(raw) {
            Ok(value) => {
                if let Some(wire) = self.config.wires.get_mut(index) {
                    (setting.put)(wire, value);
                }
                self.places.insert(name, Place { source, span: raw.span.clone() });
            }
            Err(misfit) => {
                self.wire_misread = true;
                self.problem(misfit_problem(&name, setting.kind, raw, misfit, source));
            }
        }
    }

    // ---- the command line ----

    fn read_options(&mut self, args: &FwdArgs) {
        let FwdArgs { left, right, rules, rules6, config: _, set: _, socket, print_defaults: _ } = args;
        if let (Some(left), Some(right)) = (left, right) {
            self.read_left_right(left, right);
        }
        for (option, setting, path) in [
            ("--rules", "rules.v4", rules),
            ("--rules6", "rules.v6", rules6),
            ("--socket", "api.socket", socket),
        ] {
            if let (Some(path), Some(known)) = (path, Known::find(setting)) {
                let (source, raw) = self.option(option, &path.to_string_lossy());
                self.read_setting(known, &raw, source, None);
            }
        }
    }

    /// `--left` and `--right` name the one wire's NICs, whether the file has described it or not.
    fn read_left_right(&mut self, left: &str, right: &str) {
        match self.config.wires.len() {
            0 => self.config.wires.push(WireConfig::default()),
            1 => {}
            many => {
                let (source, raw) = self.option("--left", left);
                let problem =
                    Problem::new(format!("--left and --right name one wire, the file describes {many}"));
                let place = Place { source, span: raw.span };
                return self
                    .problem(problem.hint("use --set wire.NAME.left=IF for one of several").at(place));
            }
        }
        for (option, name, iface) in [("--left", "left", left), ("--right", "right", right)] {
            let (source, raw) = self.option(option, iface);
            if let Some(setting) = wire_setting(name) {
                self.read_wire_setting(0, setting, &raw, source);
            }
        }
    }

    fn option(&mut self, option: &str, value: &str) -> (usize, Raw) {
        let source = self.add_source(COMMAND_LINE.to_owned(), format!("{option} {value}"));
        let offset = option.len() + 1;
        let raw = Raw {
            kind: RawKind::Text(value.to_owned()),
            span: offset..offset + value.len(),
            written: Some(value.to_owned()),
        };
        (source, raw)
    }

    /// `NAME=VALUE`, as it stands behind `option`.
    fn read_set(&mut self, option: &str, text: &str) {
        let start = option.len() + 1;
        let source = self.add_source(COMMAND_LINE.to_owned(), format!("{option} {text}"));
        let Some((name, value)) = text.split_once('=') else {
            let span = start..start + text.len();
            let problem = Problem::new(format!("{option} takes NAME=VALUE"));
            return self.problem(
                problem.hint(format!("for example {option} tcp_loose=0")).at(Place { source, span }),
            );
        };
        let (name, value) = (name.trim(), value.trim());
        let name_start = start + text.find(name).unwrap_or(0);
        let name_span = name_start..name_start + name.len();
        // The value starts at the first character after `=` that is no blank.
        let after = &text[text.find('=').map_or(0, |at| at + 1)..];
        let value_start = start + text.len() - after.trim_start().len();
        let raw = Raw::from_command_line(value, value_start);
        match self.resolve(name) {
            Ok(Resolved::Known(known)) => self.read_setting(known, &raw, source, None),
            Ok(Resolved::Wires(wires, setting)) => {
                for index in wires {
                    if index == self.config.wires.len() {
                        self.config.wires.push(WireConfig::default());
                    }
                    self.read_wire_setting(index, setting, &raw, source);
                }
            }
            Err(problem) => {
                self.wire_misread |= name.contains("wire");
                self.problem(problem.at(Place { source, span: name_span }));
            }
        }
    }

    /// What a name given to `--set` stands for: a full name, a sysctl's name, or the last part of a name where that is
    /// unique.
    fn resolve(&self, name: &str) -> Result<Resolved, Problem> {
        let fragments_v4 = || name.strip_prefix("net.ipv4.").filter(|rest| rest.starts_with("ipfrag_"));
        let name = name.strip_prefix("net.netfilter.").or_else(fragments_v4).unwrap_or(name);
        if name == "nf_conntrack_max" {
            return Known::find("flows.max").map(Resolved::Known).ok_or_else(|| unknown_set(name));
        }
        let name = name.strip_prefix("nf_conntrack_").unwrap_or(name);
        if let Some(known) = Known::find(name) {
            return Ok(Resolved::Known(known));
        }
        if let Some(rest) = name.strip_prefix("wire.") {
            return self.resolve_wire(rest);
        }
        let known: Vec<Known> = Known::all().filter(|known| known.leaf() == name).collect();
        match (known.as_slice(), wire_setting(name)) {
            ([known], None) => Ok(Resolved::Known(*known)),
            ([], Some(_)) => self.resolve_wire(name),
            ([], None) => Err(unknown_set(name)),
            (several, _) => {
                let names: Vec<String> = several.iter().map(|known| known.name()).collect();
                Err(Problem::new(format!("`{name}` is the name of several settings"))
                    .hint(format!("use the full name: {}", names.join(" or "))))
            }
        }
    }

    /// `NAME.FIELD`, `INDEX.FIELD` (the next free index adds a wire), or `FIELD` for the only wire; `queues` alone goes
    /// to every wire.
    fn resolve_wire(&self, name: &str) -> Result<Resolved, Problem> {
        let count = self.config.wires.len();
        let (key, field) = name.rsplit_once('.').map_or((None, name), |(key, field)| (Some(key), field));
        let setting = wire_setting(field).ok_or_else(|| unknown_in_wire(field))?;
        let wires = match key {
            None if field == "queues" && count > 0 => 0..count,
            None if count <= 1 => 0..1,
            None => {
                return Err(Problem::new(format!("there are {count} wires: say which"))
                    .hint(format!("--set wire.NAME.{field}=VALUE")));
            }
            Some(key) => {
                let named = self.config.wires.iter().position(|wire| wire.name == key);
                let index =
                    named.or_else(|| key.parse().ok().filter(|index| *index <= count)).ok_or_else(|| {
                        Problem::new(format!("there is no wire `{key}`"))
                            .hint("use a wire's name, or its number from 0; the next free number adds a wire")
                    })?;
                index..index + 1
            }
        };
        Ok(Resolved::Wires(wires, setting))
    }

    // ---- the whole ----

    pub(super) fn finish(mut self) -> Result<Loaded, ConfigErrors> {
        self.check_whole();
        if self.problems.is_empty() {
            let origins = Origins::of(&self.places, &self.sources);
            return Ok(Loaded { config: self.config, origins });
        }
        Err(self.into_errors())
    }

    /// Looks for contradictions.
    pub(super) fn check_whole(&mut self) {
        self.name_wires();
        self.check_wires();
        self.check_sizes();
        self.check_listeners();
    }

    /// The problems, in order.
    pub(super) fn into_errors(mut self) -> ConfigErrors {
        let order = |problem: &Problem| problem.place.as_ref().map(|place| (place.source, place.span.start));
        self.problems.sort_by_key(|problem| (problem.place.is_none(), order(problem)));
        ConfigErrors { sources: self.sources, problems: self.problems }
    }
}

/// What a name stands for.
enum Resolved {
    Known(Known),
    Wires(Range<usize>, &'static Setting<WireConfig>),
}

fn read_text(path: &Path) -> Result<String, String> {
    let meta = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if meta.is_dir() {
        return Err("it is a directory".to_owned());
    }
    if meta.len() > FILE_SIZE_MAX_BYTES {
        return Err(format!("it has {} bytes, more than any configuration", meta.len()));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes)
        .map_err(|error| format!("byte {} is not UTF-8", error.utf8_error().valid_up_to() + 1))
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
}

fn wire_setting(name: &str) -> Option<&'static Setting<WireConfig>> {
    WIRE.iter().find(|setting| setting.name == name)
}
