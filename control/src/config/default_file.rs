//! The configuration file that says nothing new: every setting, explained, at its default.

use super::Config;
use super::settings::{Change, Kind, Known, SECTIONS, WIRE};
use dataplane::flow::TIMEOUT_MAX_SECS;
use std::fmt::Write as _;

/// Width that comments are wrapped at.
const COLUMNS: usize = 100;

/// See [`Config::default_toml`].
pub(super) fn default_toml() -> String {
    let config = Config::default();
    let mut out = String::from(
        "# Palisade's configuration, every setting at its default. Give it to fwd with --config.\n\
         # Any setting can be given as --set NAME=VALUE too, which wins over this file.\n\
         # Where it is said, a setting changes while the daemon runs: fwctl config reload (or SIGHUP) reads\n\
         # this file again, fwctl config set changes one until then. Everything else needs a restart.\n\n\
         # The wires: what comes in on one NIC leaves on the other. One [[wire]] each.\n# [[wire]]\n",
    );
    let examples = ["\"wire0\"", "\"eth0\"", "\"eth1\"", "\"auto\"", "\"drop-new\""];
    for (setting, example) in WIRE.iter().zip(examples) {
        comment(&mut out, &about(setting.doc, setting.change), setting.kind);
        let _ = writeln!(out, "# {} = {example}", setting.name);
    }
    for (section, explained) in SECTIONS {
        out.push('\n');
        remark(&mut out, explained);
        let _ = writeln!(out, "[{section}]");
        for known in Known::all().filter(|known| known.section() == *section) {
            // Of connection tracking the section's own words say it.
            let change = if *section == "conntrack" { Change::Restart } else { known.change() };
            comment(&mut out, &about(known.doc(), change), known.kind());
            let _ = match known.show(&config) {
                Some(value) => writeln!(out, "{} = {value}", known.leaf()),
                None => writeln!(out, "# {} = \"{}\"", known.leaf(), known.example()),
            };
        }
    }
    out
}

/// What a setting does, and when another value takes effect unless that is by a restart.
fn about(doc: &str, change: Change) -> String {
    match change {
        Change::Restart => doc.to_owned(),
        change => format!("{doc} {}", change.words()),
    }
}

fn comment(out: &mut String, doc: &str, kind: Kind) {
    match kind {
        // Words are explained by the sentence itself, and any number of seconds is one; other limits are not obvious.
        Kind::Int(_, TIMEOUT_MAX_SECS) => remark(out, doc),
        Kind::Int(..) | Kind::AutoInt(..) | Kind::Pow2(..) | Kind::AutoPow2(..) => {
            remark(out, &format!("{doc} Takes {}.", kind.takes()));
        }
        _ => remark(out, doc),
    }
}

/// Appends comment lines, broken between words.
fn remark(out: &mut String, text: &str) {
    let mut column = COLUMNS;
    for word in text.split(' ') {
        let width = word.chars().count();
        if column + 1 + width > COLUMNS {
            out.push_str(if out.ends_with('\n') { "#" } else { "\n#" });
            column = 1;
        }
        out.push(' ');
        out.push_str(word);
        column += 1 + width;
    }
    out.push('\n');
}
