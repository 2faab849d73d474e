//! `fwctl config`: the configuration file checked and described, without a daemon; what a daemon works with shown and
//! changed.

use super::CliError;
use super::args::{
    ConfigArgs, ConfigCheckArgs, ConfigCommand, ConfigReloadArgs, ConfigSetArgs, ConfigShowArgs,
};
use super::client::Client;
use crate::api::types::{ConfigReport, ConfigSetRequest, ConfigView, SettingChange, SettingView};
use crate::config::{self, Change, Checked, Config, DEFAULT_CONFIG};
use serde::Serialize;
use serde_json::Value;
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;

/// Longest line behind which others are lined up.
const WIDTH_MAX: usize = 60;

/// Exit codes of `fwctl config check`, as those of `fwctl check`.
const WRONG: u8 = 1;
const UNREADABLE: u8 = 2;

/// One problem, for programs.
#[derive(Debug, Serialize)]
struct Told<'a> {
    severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    rendered: String,
}

/// The whole answer of a check, for programs.
#[derive(Debug, Serialize)]
struct Report<'a> {
    file: String,
    outcome: &'static str,
    errors: usize,
    warnings: usize,
    problems: Vec<Told<'a>>,
}

pub(super) fn run(
    client: &dyn Fn() -> Result<Client, CliError>,
    args: &ConfigArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<u8, CliError> {
    match &args.command {
        ConfigCommand::Check(args) => return check(args, out, err),
        ConfigCommand::Show(args) => show(&client()?, args, out)?,
        ConfigCommand::Set(ConfigSetArgs { set, json }) => {
            let body = serde_json::to_vec(&ConfigSetRequest { set: set.clone() }).map_err(io::Error::from)?;
            report(&client()?, "/v1/config/set", body, *json, out)?;
        }
        ConfigCommand::Reload(ConfigReloadArgs { json }) => {
            report(&client()?, "/v1/config/reload", Vec::new(), *json, out)?;
        }
        ConfigCommand::Schema => {
            serde_json::to_writer_pretty(&mut *out, &config::schema()).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        ConfigCommand::Defaults => out.write_all(Config::default_toml().as_bytes())?,
    }
    Ok(0)
}

fn show(client: &Client, args: &ConfigShowArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let ConfigShowArgs { names, changed, verbose, json } = args;
    let answer = client.get_bytes("/v1/config")?;
    if *json {
        out.write_all(&answer)?;
        return Ok(writeln!(out)?);
    }
    let ConfigView { file: _, settings, waiting } = client.parse(&answer)?;
    let is_asked = |setting: &&SettingView| {
        let SettingView { name, value, default, .. } = setting;
        let begins = |begin: &String| {
            name.strip_prefix(begin.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        (names.is_empty() || names.iter().any(begins)) && (!changed || value != default)
    };
    let asked: Vec<(String, &SettingView)> =
        settings.iter().filter(is_asked).map(|setting| (line(setting), setting)).collect();
    if let (true, [name, ..]) = (asked.is_empty() && !changed, names.as_slice()) {
        let message = format!("there is no setting `{name}`; `fwctl config show` lists all");
        return Err(CliError::Wrong(message));
    }
    let width = asked.iter().map(|(line, _)| line.chars().count()).filter(|width| *width <= WIDTH_MAX).max();
    for (line, setting) in &asked {
        writeln!(out, "{line:width$}  # {}", setting.origin, width = width.unwrap_or(0))?;
        if *verbose {
            let SettingView { about, takes, change, default, .. } = setting;
            writeln!(out, "    {about}\n    Takes {takes}; default {default}. {}", change.words())?;
        }
    }
    for SettingChange { name, before, after, .. } in &waiting {
        writeln!(out, "{name} needs a restart: {before} here, {after} in the configuration")?;
    }
    Ok(())
}

fn line(setting: &SettingView) -> String {
    match &setting.value {
        Value::Null => format!("{} is not set", setting.name),
        value => format!("{} = {value}", setting.name),
    }
}

/// Sends a change and tells what came of it.
fn report(
    client: &Client,
    target: &str,
    body: Vec<u8>,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let answer = client.post_bytes(target, body)?;
    if json {
        out.write_all(&answer)?;
        return Ok(writeln!(out)?);
    }
    let ConfigReport { changed, waiting } = client.parse(&answer)?;
    for SettingChange { name, change, before, after } in &changed {
        let when = if *change == Change::Rules { ", from the next SIGHUP on" } else { "" };
        writeln!(out, "{name}: {before} -> {after}{when}")?;
    }
    for SettingChange { name, before, after, .. } in &waiting {
        writeln!(out, "{name} needs a restart: {before} here, {after} in the configuration")?;
    }
    if changed.is_empty() && waiting.is_empty() {
        writeln!(out, "nothing has changed")?;
    }
    Ok(())
}

fn check(args: &ConfigCheckArgs, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8, CliError> {
    let ConfigCheckArgs { file, strict, json } = args;
    let path = file.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG));
    let checked = config::check_file(path);
    let (errors, warnings) = checked.counts();
    let (outcome, code) = match () {
        () if checked.unreadable => ("unreadable", UNREADABLE),
        () if errors > 0 || (*strict && warnings > 0) => ("wrong", WRONG),
        () => ("good", 0),
    };
    let name = path.display().to_string();
    if *json {
        let problems = told(&checked);
        let report = Report { file: name, outcome, errors, warnings, problems };
        serde_json::to_writer(&mut *out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
        return Ok(code);
    }
    if !checked.errors.problems().is_empty() {
        writeln!(err, "{}\n", checked.errors.render(io::stderr().is_terminal()))?;
    }
    match outcome {
        "unreadable" => {}
        "good" => writeln!(out, "{name}: good, {warnings} warnings")?,
        _ => writeln!(out, "{name}: wrong, {errors} errors, {warnings} warnings")?,
    }
    Ok(code)
}

fn told(checked: &Checked) -> Vec<Told<'_>> {
    checked.errors.problems().iter().map(|problem| tell(checked, problem)).collect()
}

fn tell<'a>(checked: &'a Checked, problem: &'a config::Problem) -> Told<'a> {
    let config::Problem { message, hint, is_warning, .. } = problem;
    let place = checked.errors.place(problem);
    Told {
        severity: if *is_warning { "warning" } else { "error" },
        file: place.map(|(file, ..)| file),
        line: place.map(|(_, line, _)| line),
        column: place.map(|(.., column)| column),
        message,
        hint: hint.as_deref(),
        rendered: checked.errors.render_one(problem, false),
    }
}
