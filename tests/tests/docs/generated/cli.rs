//! The help of both programs, command by command.

use clap::{Command, CommandFactory};
use std::fmt::Write as _;

pub(super) fn page() -> String {
    let mut out = String::from(
        "# Command reference\n\n\
         What `fwctl COMMAND --help` and `fwd --help` say. Every command that reads takes `--json` and then prints what the \
         [API](../api/index.md) answers.\n\n\
         ## Exit codes of fwctl\n\n\
         | code | meaning |\n|---|---|\n\
         | 0 | done |\n\
         | 1 | refused, or something given is wrong |\n\
         | 2 | bad usage |\n\
         | 3 | right, but asks for something not supported |\n\
         | 4 | the daemon cannot be reached |\n\
         | 5 | `doctor` found warnings |\n\
         | 6 | `doctor` found faults |\n",
    );
    for program in [control::cli::args::Cli::command(), control::config::FwdArgs::command()] {
        let name = program.get_name().to_owned();
        let mut program = program.term_width(100).disable_help_subcommand(true);
        program.build();
        describe(&mut out, &mut program, &name, 2);
    }
    out
}

fn describe(out: &mut String, command: &mut Command, name: &str, level: usize) {
    let help = command.clone().bin_name(name).render_long_help().to_string();
    let _ = write!(out, "\n{} {name}\n\n```text\n", "#".repeat(level.min(4)));
    for line in help.trim_end().lines() {
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out.push_str("```\n");
    let below: Vec<String> = command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set())
        .map(|sub| sub.get_name().to_owned())
        .collect();
    for sub in below {
        if let Some(found) = command.find_subcommand_mut(&sub) {
            describe(out, found, &format!("{name} {sub}"), level + 1);
        }
    }
}
