//! What Palisade's packages hold beside the programs. Manual pages and completions are made from the command lines that the
//! programs themselves read, and the page of the configuration file from the list of settings, so that none of them can say
//! anything else than what is built. Nothing of this is in `fwd` or `fwctl`.
//!
//! Units, maintainer scripts and the example configuration are files in this directory as they are installed; tests hold them
//! against the programs.

mod manual;
mod roff;
#[cfg(test)]
mod tests;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use control::cli::args::Cli;
use control::config::FwdArgs;
use std::fs;
use std::io;
use std::path::Path;

/// Shells that completions are made for, and the directories they are put in.
const SHELLS: &[(Shell, &str)] = &[(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")];

/// What the file of a program is called: as the shell looks for it.
fn completion_file(shell: Shell, program: &str) -> String {
    match shell {
        Shell::Zsh => format!("_{program}"),
        Shell::Fish => format!("{program}.fish"),
        _ => program.to_owned(),
    }
}

/// The command lines, as the programs read them.
fn commands() -> [Command; 2] {
    [FwdArgs::command(), Cli::command()]
}

/// Writes everything into `dir`; returns how many files there are. `date` is the day that manual pages bear.
///
/// # Errors
/// If a file cannot be written.
pub fn write(dir: &Path, date: &str) -> io::Result<usize> {
    let man = dir.join("man");
    fs::create_dir_all(&man)?;
    let pages = manual::pages(date)?;
    for (name, text) in &pages {
        fs::write(man.join(name), text)?;
    }
    let mut count = pages.len();
    for (shell, name) in SHELLS {
        let dir = dir.join("completions").join(name);
        fs::create_dir_all(&dir)?;
        for mut command in commands() {
            let program = command.get_name().to_owned();
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut command, &program, &mut text);
            fs::write(dir.join(completion_file(*shell, &program)), text)?;
            count += 1;
        }
    }
    Ok(count)
}
