//! What is written down when the compiled rules are caught disagreeing with their meaning: the rules, and the header about
//! which they disagree, in one file that `fwctl check` reads. Control thread and API threads.

use crate::iptables::syntax::Counters;
use crate::rules_file::Rules;
use dataplane::rules::CompileError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why rules cannot run, in words; for a defect of ours with the file that reproduces it.
#[must_use]
pub fn describe(error: &CompileError, state_dir: &Path, rules: &[&Rules]) -> String {
    let CompileError::SelfCheck(said) = error else { return error.to_string() };
    match write(state_dir, said, rules) {
        Ok(paths) => {
            let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            format!("{error}\nrules and header are in {}", paths.join(" and "))
        }
        Err(io_error) => {
            format!("{error}\nthe rules could not be written to {}: {io_error}", state_dir.display())
        }
    }
}

/// Writes one file per ruleset. The same defect of the same rules has the same name: trying again fills no disk.
fn write(state_dir: &Path, said: &str, rules: &[&Rules]) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(state_dir)?;
    let mut paths = Vec::new();
    for rules in rules {
        let mut text = String::from(
            "# The compiled form of these rules disagrees with their meaning about this header:\n",
        );
        for line in said.lines() {
            text.push_str(&format!("#   {line}\n"));
        }
        text.push_str(&rules.save(&|_| Counters::default()));
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let path = state_dir.join(format!("selfcheck-{hash:016x}.rules"));
        fs::write(&path, text)?;
        paths.push(path);
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::load;
    use dataplane::packet::Family;

    #[test]
    fn a_defect_is_written_down_once_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let text = "*filter\n-A FORWARD -p tcp -j DROP\nCOMMIT\n";
        let rules = Rules::from_loaded(load(text, "t", Family::V4)).unwrap();
        let error = CompileError::SelfCheck("a header\n  compiled: DROP\n  meaning: ACCEPT".to_owned());
        let message = describe(&error, dir.path(), &[&rules]);
        assert_eq!(message, describe(&error, dir.path(), &[&rules]));
        let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()).collect();
        let [file] = files.as_slice() else { panic!("{files:?}") };
        assert!(message.contains(file.to_str().unwrap()), "{message}");
        let written = fs::read_to_string(file).unwrap();
        assert!(written.contains("#   a header\n#     compiled: DROP\n"), "{written}");
        assert_eq!(load(&written, "t", Family::V4).ruleset.as_ref(), Some(&*rules.ruleset));
    }

    #[test]
    fn where_nothing_can_be_written_the_error_says_so() {
        let rules = Rules::empty(Family::V4);
        let error = CompileError::SelfCheck("a header".to_owned());
        assert!(
            describe(&error, Path::new("/proc/none"), &[&rules])
                .contains("could not be written to /proc/none")
        );
        assert_eq!(
            describe(&CompileError::TooManyPorts(99), Path::new("/proc/none"), &[&rules]),
            CompileError::TooManyPorts(99).to_string()
        );
    }
}
