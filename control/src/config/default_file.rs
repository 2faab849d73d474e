//! The configuration file that says nothing new: every setting, explained, at its default.

use super::Config;
use super::settings::{Kind, Known, SECTIONS, WIRE};
use std::fmt::Write as _;

/// See [`Config::default_toml`].
pub(super) fn default_toml() -> String {
    let config = Config::default();
    let mut out = String::from(
        "# Palisade's configuration, every setting at its default. Give it to fwd with --config.\n\
         # Any setting can be given as --set NAME=VALUE too, which wins over this file.\n\n\
         # The wires: what comes in on one NIC leaves on the other. One [[wire]] each.\n# [[wire]]\n",
    );
    let examples = ["\"wire0\"", "\"eth0\"", "\"eth1\"", "\"auto\""];
    for (setting, example) in WIRE.iter().zip(examples) {
        comment(&mut out, setting.doc, setting.kind);
        let _ = writeln!(out, "# {} = {example}", setting.name);
    }
    for (section, about) in SECTIONS {
        let _ = writeln!(out, "\n# {about}\n[{section}]");
        for known in Known::all().filter(|known| known.section() == *section) {
            comment(&mut out, known.doc(), known.kind());
            let _ = match known.show(&config) {
                Some(value) => writeln!(out, "{} = {value}", known.leaf()),
                None => writeln!(out, "# {} = \"{}\"", known.leaf(), known.example()),
            };
        }
    }
    out
}

fn comment(out: &mut String, doc: &str, kind: Kind) {
    // Words are explained by the sentence itself; limits of numbers are not.
    let _ = match kind {
        Kind::Int(..) | Kind::AutoInt(..) | Kind::Pow2(..) | Kind::AutoPow2(..) => {
            writeln!(out, "# {doc} Takes {}.", kind.takes())
        }
        _ => writeln!(out, "# {doc}"),
    };
}
