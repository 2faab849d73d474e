//! `fwctl config check`: everything that is wrong with a configuration file, and what this machine lacks for it.
//! Runs in the tool; nothing is changed, no daemon is asked.

use super::load::Loader;
use super::{ConfigErrors, FwdArgs, Problem};
use std::fs::File;
use std::path::Path;

/// What a check has found.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Everything worth saying; warnings too.
    pub errors: ConfigErrors,
    /// Whether the file could not be read at all.
    pub unreadable: bool,
}

impl Checked {
    /// Whether the daemon would refuse the file.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.errors.problems().iter().any(|problem| !problem.is_warning)
    }

    /// How many problems are errors, and how many can be lived with.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let warnings = self.errors.problems().iter().filter(|problem| problem.is_warning).count();
        (self.errors.problems().len() - warnings, warnings)
    }
}

/// Checks a configuration file by itself: what the command line may add (wires, rules) is a warning where it is missing, and
/// so is what this machine lacks, which may not be the one the file is for.
#[must_use]
pub fn check_file(path: &Path) -> Checked {
    let mut loader = Loader::default();
    loader.read_args(&FwdArgs { config: Some(path.to_owned()), ..FwdArgs::default() });
    let unreadable = loader.unreadable;
    loader.check_whole();
    if !unreadable {
        loader.check_left_out();
        loader.check_machine();
    }
    Checked { errors: loader.into_errors(), unreadable }
}

impl Loader {
    /// What the command line has to say if the file does not.
    fn check_left_out(&mut self) {
        if self.config.wires.is_empty() && !self.wire_misread {
            let problem = Problem::new("no wire: the command line must name one").warning();
            self.problem(problem.hint("add a [[wire]], or start fwd with --left IF --right IF"));
        }
        let rules = &self.config.rules;
        if rules.v4.is_none() && rules.v6.is_none() {
            let problem = Problem::new("no rules: the command line must name some").warning();
            self.problem(problem.hint("set rules.v4 or rules.v6, or start fwd with --rules FILE"));
        }
    }

    /// Files and groups that are not there.
    fn check_machine(&mut self) {
        let rules = &self.config.rules;
        let files = [("rules.v4", &rules.v4), ("rules.v6", &rules.v6), ("rules.sets", &rules.sets)];
        let missing: Vec<(&str, String)> = files
            .into_iter()
            .filter_map(|(name, path)| {
                let path = path.as_ref()?;
                let error = File::open(path).err()?;
                Some((name, format!("{} cannot be read: {error}", path.display())))
            })
            .collect();
        for (name, why) in missing {
            self.warn_at(name, why, "check the path; relative ones start at this file's directory");
        }
        let groups = [
            ("api.group", self.config.api.group.clone()),
            ("api.write_group", self.config.api.write_group.clone()),
        ];
        if let Err(why) = crate::system::privileges::exists(&self.config.privileges.user) {
            let (what, hint) = why
                .split_once(": make it")
                .map_or((why.as_str(), String::new()), |(what, how)| (what, format!("make it{how}")));
            self.warn_at("privileges.user", what.to_owned(), &hint);
        }
        for (name, group) in groups {
            let Some(group) = group else { continue };
            let is_there = group.parse::<u32>().is_ok()
                || nix::unistd::Group::from_name(&group).is_ok_and(|group| group.is_some());
            if !is_there {
                self.warn_at(
                    name,
                    format!("there is no group `{group}` here"),
                    &format!("groupadd --system {group}"),
                );
            }
        }
    }

    fn warn_at(&mut self, name: &str, message: String, hint: &str) {
        let problem = Problem::new(message).hint(hint).warning();
        let problem = match self.places.get(name) {
            Some(place) => problem.at(place.clone()),
            None => problem,
        };
        self.problem(problem);
    }
}
