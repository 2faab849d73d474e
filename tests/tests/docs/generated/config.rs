//! Every setting, from the list that the daemon reads its configuration by.

use super::cell;
use control::config::Config;
use control::config::settings::{CONNTRACK, Change, SECTIONS, SETTINGS, WIRE};
use std::fmt::Write as _;

pub(super) fn page() -> String {
    let mut out = String::from(
        "# Configuration reference\n\n\
         One TOML file, given to `fwd --config`. Every setting has a default, so that the file need only say what differs; \
         `fwd --print-defaults` prints all of them. On the command line `--set NAME=VALUE` takes the full name \
         (`workers.idle=spin`) or, where that is unique, its last part, and wins over the file.\n\n\
         *At once*: by `fwctl config set`, or `fwctl config reload` (SIGHUP) when the file has changed. *With the rules*: when the rules \
         files are read again (SIGHUP). *By a restart*: the answer of a change says so. Of a `[[wire]]` `full` changes at once, \
         everything else by a restart.\n\n\
         What is wrong is reported whole and at once, with file, line and a hint, and the daemon does not start.\n\n\
         ## [[wire]]\n\n\
         The wires: what comes in on one NIC leaves on the other. One `[[wire]]` each.\n\n\
         | setting | takes | meaning |\n|---|---|---|\n",
    );
    for setting in WIRE {
        let _ =
            writeln!(out, "| `{}` | {} | {} |", setting.name, cell(&setting.kind.takes()), cell(setting.doc));
    }
    let defaults = defaults();
    for (section, about) in SECTIONS {
        let _ =
            write!(out, "\n## [{section}]\n\n{}\n\n", about.split_whitespace().collect::<Vec<_>>().join(" "));
        out.push_str("| setting | default | takes | changes | meaning |\n|---|---|---|---|---|\n");
        let mine = SETTINGS.iter().filter(|setting| setting.name.split('.').next() == Some(section));
        for setting in mine {
            row(&mut out, &defaults, (setting.name, setting.change), &setting.kind.takes(), setting.doc);
        }
        if *section == "conntrack" {
            for setting in CONNTRACK {
                let name = format!("conntrack.{}", setting.name);
                row(&mut out, &defaults, (&name, Change::Hot), &setting.kind.takes(), setting.doc);
            }
        }
    }
    out
}

fn row(out: &mut String, defaults: &toml::Table, (name, change): (&str, Change), takes: &str, doc: &str) {
    let (section, leaf) = name.split_once('.').unwrap_or(("", name));
    let default = defaults.get(section).and_then(|section| section.get(leaf)).map(ToString::to_string);
    let default = default.map_or_else(|| "none".to_owned(), |value| format!("`{value}`"));
    let change = match change {
        Change::Hot => "at once",
        Change::Rules => "with the rules",
        Change::Restart => "by a restart",
    };
    let (default, takes, doc) = (cell(&default), cell(takes), cell(doc));
    let _ = writeln!(out, "| `{leaf}` | {default} | {takes} | {change} | {doc} |");
}

/// Values of the file with every default.
fn defaults() -> toml::Table {
    Config::default_toml().parse().expect("the default file is TOML")
}
