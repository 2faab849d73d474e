//! `fwctl check FILE`: is this rules file good, wrong, or right but not for us? Reads one file or standard input and
//! touches nothing else; runs in the tool, never in the daemon.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use dataplane::packet::Family;
use dataplane::rules::Compiled;

use crate::iptables::diagnostics::{Diagnostic, Severity, Span, render_all};
use crate::iptables::{Loaded, printer};
use crate::rules_file::{Named, read, understand_with};

/// What to check and how to tell.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// A path, or `-` for standard input.
    pub path: &'a str,
    /// Family of the rules; IPv4 unless told.
    pub family: Option<Family>,
    /// What the rules may name.
    pub named: Named<'a>,
    /// Whether to print the rules back in canonical form.
    pub print: bool,
    /// Whether warnings are errors.
    pub strict: bool,
    /// Whether to answer in JSON.
    pub json: bool,
    /// Whether diagnostics may have colours.
    pub colours: bool,
}

/// The outcome; as a number it is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// The rules are good.
    Good = 0,
    /// iptables would refuse them too; or there are warnings, and they are to be errors.
    Wrong = 1,
    /// The file could not be read.
    Unreadable = 2,
    /// Right, but not supported by us.
    Unsupported = 3,
}

impl Outcome {
    /// The exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    fn of(loaded: &Loaded) -> Self {
        match loaded.worst() {
            Some(Severity::Error) => Self::Wrong,
            Some(Severity::Unsupported) => Self::Unsupported,
            _ if loaded.ruleset.is_none() => Self::Unsupported,
            _ => Self::Good,
        }
    }
}

/// Checks a file. Canonical rules and JSON go to `stdout`, diagnostics to `stderr`.
///
/// # Errors
/// Only if `stdout` or `stderr` cannot be written to.
pub fn run(request: Request<'_>, stdout: &mut dyn Write, stderr: &mut dyn Write) -> io::Result<Outcome> {
    let text = match read(Path::new(request.path)) {
        Ok(text) => text,
        Err(error) => {
            writeln!(stderr, "fwctl check: cannot read {}: {error}", request.path)?;
            return Ok(Outcome::Unreadable);
        }
    };
    let name = if request.path == "-" { "<stdin>" } else { request.path };
    let family = request.family.unwrap_or(Family::V4);
    let mut loaded = understand_with(&text, name, family, request.named);
    compile(&mut loaded);
    let outcome = match Outcome::of(&loaded) {
        Outcome::Good if request.strict && loaded.worst() >= Some(Severity::Warning) => Outcome::Wrong,
        outcome => outcome,
    };
    let printed =
        loaded.syntax.as_ref().filter(|_| outcome == Outcome::Good).map(|file| printer::save(file, None));
    if request.json {
        write_json(&loaded, &text, name, outcome, printed.as_deref().filter(|_| request.print), stdout)?;
        return Ok(outcome);
    }
    stderr.write_all(render_all(&loaded.diagnostics, &text, name, request.colours).as_bytes())?;
    if let (true, Some(printed)) = (request.print, printed) {
        stdout.write_all(printed.as_bytes())?;
    } else {
        writeln!(stdout, "{name}: {}", summary(&loaded, outcome))?;
    }
    Ok(outcome)
}

/// What the daemon would do with the rules: a check that passes must mean that they load.
fn compile(loaded: &mut Loaded) {
    let Some(ruleset) = loaded.ruleset.take() else { return };
    match Compiled::new(Arc::new(ruleset.clone()), &["left".to_owned(), "right".to_owned()]) {
        Ok(_) => loaded.ruleset = Some(ruleset),
        Err(error) => loaded.diagnostics.push(Diagnostic::unsupported(Span::default(), error.to_string())),
    }
}

fn summary(loaded: &Loaded, outcome: Outcome) -> String {
    let count =
        |severity| loaded.diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count();
    let rules = loaded
        .ruleset
        .as_ref()
        .map_or(0, |ruleset| ruleset.chains.iter().map(|chain| chain.rules.len()).sum());
    let chains = loaded.ruleset.as_ref().map_or(0, |ruleset| ruleset.chains.len());
    let (errors, unsupported) = (count(Severity::Error), count(Severity::Unsupported));
    match outcome {
        Outcome::Good => {
            format!("good, {rules} rules in {chains} chains, {} warnings", count(Severity::Warning))
        }
        Outcome::Wrong if errors == 0 => format!("{} warnings", count(Severity::Warning)),
        Outcome::Wrong => format!("wrong, {errors} errors, {unsupported} unsupported"),
        Outcome::Unsupported | Outcome::Unreadable => {
            format!("right, but {unsupported} things are not supported yet")
        }
    }
}

fn write_json(
    loaded: &Loaded,
    text: &[u8],
    name: &str,
    outcome: Outcome,
    printed: Option<&str>,
    stdout: &mut dyn Write,
) -> io::Result<()> {
    let word = match outcome {
        Outcome::Good => "good",
        Outcome::Wrong => "wrong",
        Outcome::Unsupported => "unsupported",
        Outcome::Unreadable => "unreadable",
    };
    let diagnostics: Vec<_> =
        loaded.diagnostics.iter().map(|diagnostic| diagnostic.to_json(text, name)).collect();
    let rules = loaded
        .ruleset
        .as_ref()
        .map(|ruleset| ruleset.chains.iter().map(|chain| chain.rules.len()).sum::<usize>());
    let answer = serde_json::json!({
        "file": name,
        "outcome": word,
        "rules": rules,
        "diagnostics": diagnostics,
        "canonical": printed,
    });
    writeln!(stdout, "{answer}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::LabelNames;
    use crate::rules_file::Sets;

    fn check(text: &str, print: bool, json: bool) -> (Outcome, String, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let request = Request {
            path: &path,
            family: None,
            named: Named { policies: &[], sets: &Sets::new(), labels: &LabelNames::none() },
            print,
            strict: false,
            json,
            colours: false,
        };
        let outcome = run(request, &mut out, &mut err).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&path, "FILE");
        (outcome, text(out), text(err))
    }

    #[test]
    fn a_good_file_exits_zero_and_prints_canonically() {
        let (outcome, out, err) =
            check("*filter\n-A FORWARD -p tcp --dport ssh -j ACCEPT\nCOMMIT\n", true, false);
        assert_eq!((outcome.code(), err.as_str()), (0, ""));
        assert_eq!(
            out,
            "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A FORWARD -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n"
        );
    }

    #[test]
    fn a_wrong_file_exits_one_with_all_errors() {
        let (outcome, out, err) = check("*filter\n-A FORWARD -p tpc\n-A FOO -j X\nCOMMIT\n", true, false);
        assert_eq!(outcome.code(), 1);
        assert_eq!(out, "FILE: wrong, 2 errors, 0 unsupported\n");
        assert!(err.contains("FILE:2:15") && err.contains("FILE:3:4"), "{err}");
    }

    #[test]
    fn an_unsupported_file_exits_three() {
        let (outcome, out, _) = check("*filter\n-A FORWARD -m rateest -j ACCEPT\nCOMMIT\n", false, true);
        assert_eq!(outcome.code(), 3);
        let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(answer["outcome"], "unsupported");
        assert_eq!(answer["diagnostics"][0]["column"], 15);
        assert_eq!(answer["diagnostics"][0]["severity"], "unsupported");
    }

    #[test]
    fn warnings_are_told_with_their_place_and_count_when_strict() {
        let text = "*filter\n-A FORWARD -p tcp -j DROP\n-A FORWARD -p tcp --dport 22 -j ACCEPT\nCOMMIT\n";
        let (outcome, out, err) = check(text, false, false);
        assert_eq!((outcome.code(), out.as_str()), (0, "FILE: good, 2 rules in 3 chains, 1 warnings\n"));
        assert!(err.contains("warning: no packet comes to this rule") && err.contains("FILE:3:1"), "{err}");
        assert!(err.contains("line 2: `-A FORWARD -p tcp -j DROP`"), "{err}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let path = file.path().to_str().unwrap();
        let request = Request {
            path,
            family: None,
            named: Named { policies: &[], sets: &Sets::new(), labels: &LabelNames::none() },
            print: false,
            strict: true,
            json: true,
            colours: false,
        };
        let mut out = Vec::new();
        assert_eq!(run(request, &mut out, &mut Vec::new()).unwrap().code(), 1);
        let answer: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(answer["diagnostics"][0]["severity"], "warning");
    }

    #[test]
    fn bad_input_is_refused_at_once_with_its_places() {
        let wide: String = (0..14).map(|level| format!(":c{level} - [0:0]\n")).collect();
        let jumps: String = (0..13)
            .map(|level| format!("-A c{level} -j c{}\n", level + 1).repeat(16))
            .chain(["-A FORWARD -j c0\n".to_owned()])
            .collect();
        let body = |rules: &str| format!("*filter\n{rules}COMMIT\n").into_bytes();
        for (text, code, place) in [
            (body("-A FORWARD --no-such-option 1\n"), 1, "FILE:2:12"),
            (body("-A FORWARD -p tcp --dport 65536\n"), 1, "FILE:2:27"),
            (body(":x - [0:0]\n-N x\n"), 1, "FILE:3:4"),
            (body(":x - [0:0]\n:y - [0:0]\n-A x -j y\n-A y -j x\n-A FORWARD -j x\n"), 1, "FILE:5:9"),
            (body(&format!("-A FORWARD -m comment --comment {}\n", "x".repeat(10_000_000))), 1, "FILE:2:1"),
            (body(&format!("{wide}{jumps}")), 3, "unfold to more than"),
            ([b"*filter\n".as_slice(), &[0, 255, 200, 10, 7, 0], b"\nCOMMIT\n"].concat(), 1, "FILE:2:1"),
            ((0..=255_u8).cycle().take(100_000).collect(), 1, "FILE:1:1"),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &text).unwrap();
            let path = file.path().to_str().unwrap().to_owned();
            let request = Request {
                path: &path,
                family: None,
                named: Named { policies: &[], sets: &Sets::new(), labels: &LabelNames::none() },
                print: false,
                strict: false,
                json: false,
                colours: false,
            };
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let start = std::time::Instant::now();
            let outcome = run(request, &mut out, &mut err).unwrap();
            let err = String::from_utf8(err).unwrap().replace(&path, "FILE");
            let head: String = err.chars().take(300).collect();
            assert_eq!(outcome.code(), code, "{head}");
            assert!(err.contains(place), "{place} in {head}");
            assert!(start.elapsed().as_secs() < 10, "{:?}: {head}", start.elapsed());
        }
    }

    #[test]
    fn a_file_that_is_not_there_exits_two() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let request = Request {
            path: "/nonexistent/rules",
            family: Some(Family::V6),
            named: Named { policies: &[], sets: &Sets::new(), labels: &LabelNames::none() },
            print: false,
            strict: false,
            json: false,
            colours: false,
        };
        assert_eq!(run(request, &mut out, &mut err).unwrap().code(), 2);
        assert!(String::from_utf8(err).unwrap().starts_with("fwctl check: cannot read /nonexistent/rules"));
    }
}
