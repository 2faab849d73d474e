//! Console blocks: which commands, where they are run, and what they are expected to say. Pure.
//!
//! ```text
//! $ fwctl stats              a command on the gateway; `client$` and `server$` are the hosts on its left and right
//! client$ ping -c 1 \        goes on behind `> ` as long as a line ends in a backslash
//! > 10.77.0.2
//! wire0 ...                  what it says: `...` stands for anything within a line, alone for any number of lines
//! (exit code 3)              it ends with that instead of 0
//! $ fwd --config x &         goes on in the background; waited for until it has said what is shown
//! $ fwctl flows -E           the same, and then interrupted
//! ^C
//! ```
//!
//! Without a line of output only the exit code is compared. Spaces count as one.

use super::book::Block;

/// Where a command is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The machine in the middle.
    Gateway,
    /// The host on the left.
    Client,
    /// The host on the right.
    Server,
}

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with this exit code.
    Code(i32),
    /// With the page: it goes on in the background.
    Page,
    /// Interrupted once it has said what is shown.
    Interrupt,
}

/// A command and what it is expected to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Line in the page, from 1.
    pub(crate) line: usize,
    /// Where.
    pub(crate) place: Place,
    /// For a shell.
    pub(crate) command: String,
    /// What it says; empty if that is not shown.
    pub(crate) output: Vec<String>,
    /// How it ends.
    pub(crate) end: End,
}

/// What prompts look like.
const PROMPTS: [(&str, Place); 3] =
    [("$ ", Place::Gateway), ("client$ ", Place::Client), ("server$ ", Place::Server)];

/// The steps of a block.
///
/// # Errors
/// What is wrong with it, and in which line.
pub(crate) fn steps(block: &Block) -> Result<Vec<Step>, (usize, String)> {
    let mut steps: Vec<Step> = Vec::new();
    let mut goes_on = false;
    for (index, text) in block.lines.iter().enumerate() {
        let line = block.line + index;
        let prompt = PROMPTS.iter().find_map(|(prompt, place)| Some((text.strip_prefix(prompt)?, *place)));
        if goes_on {
            let step = steps.last_mut().ok_or((line, "nothing goes on here".to_owned()))?;
            let Some(more) = text.strip_prefix("> ") else {
                return Err((
                    line,
                    "a line ends in a backslash, and the next one does not begin with `> `".to_owned(),
                ));
            };
            step.command.truncate(step.command.len() - 1);
            step.command.push_str(more);
            goes_on = more.ends_with('\\');
        } else if let Some((command, place)) = prompt {
            goes_on = command.ends_with('\\');
            let command = command.to_owned();
            steps.push(Step { line, place, command, output: Vec::new(), end: End::Code(0) });
        } else {
            let Some(step) = steps.last_mut() else {
                return Err((
                    line,
                    "output before the first command: `$ `, `client$ ` or `server$ `".to_owned(),
                ));
            };
            let code = text.strip_prefix("(exit code ").and_then(|rest| rest.strip_suffix(')'));
            if let Some(code) = code {
                let code = code.parse().map_err(|_| (line, format!("`{code}` is no exit code")))?;
                step.end = End::Code(code);
            } else if text == "^C" {
                step.end = End::Interrupt;
            } else {
                step.output.push(text.clone());
            }
        }
    }
    for step in &mut steps {
        if let Some(command) = step.command.strip_suffix(" &") {
            step.command = command.to_owned();
            step.end = End::Page;
        }
        while step.output.last().is_some_and(|line| line.trim().is_empty()) {
            step.output.pop();
        }
    }
    if steps.is_empty() {
        return Err((block.line, "a console block without a command".to_owned()));
    }
    Ok(steps)
}

/// Whether `said` is what `shown` stands for.
pub(crate) fn is_as_shown(shown: &[String], said: &str) -> bool {
    let plain = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: Vec<String> = shown.iter().map(|line| plain(line)).collect();
    let said: Vec<String> = said.trim_end().lines().map(plain).collect();
    lines_fit(&shown, &said)
}

/// Whether what was said so far begins as shown: a process that goes on says more.
pub(crate) fn begins_as_shown(shown: &[String], said: &str) -> bool {
    let open: Vec<String> = shown.iter().cloned().chain(["...".to_owned()]).collect();
    is_as_shown(&open, said)
}

fn lines_fit(shown: &[String], said: &[String]) -> bool {
    match shown.split_first() {
        None => said.is_empty(),
        Some((any, rest)) if any == "..." => {
            (0..=said.len()).any(|skipped| lines_fit(rest, &said[skipped..]))
        }
        Some((line, rest)) => {
            said.split_first().is_some_and(|(first, left)| line_fits(line, first) && lines_fit(rest, left))
        }
    }
}

fn line_fits(shown: &str, said: &str) -> bool {
    let mut parts = shown.split("...");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = said.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[test]
fn commands_are_read_with_what_they_say() {
    let lines =
        ["$ a \\", "> b", "x ...", "...", "client$ c", "(exit code 3)", "server$ d &", "$ e", "y", "", "^C"];
    let lines = lines.map(str::to_owned).to_vec();
    let block = Block { line: 10, kind: "console".into(), file: None, ignored: None, lines };
    let steps = steps(&block).unwrap();
    let seen: Vec<_> = steps
        .iter()
        .map(|step| (step.line, step.place, step.command.as_str(), step.output.len(), step.end))
        .collect();
    assert_eq!(
        seen,
        [
            (10, Place::Gateway, "a b", 2, End::Code(0)),
            (14, Place::Client, "c", 0, End::Code(3)),
            (16, Place::Server, "d", 0, End::Page),
            (17, Place::Gateway, "e", 1, End::Interrupt),
        ]
    );
    let wrong = Block { lines: vec!["output".into()], ..block.clone() };
    assert_eq!(super::console::steps(&wrong).unwrap_err().0, 10);
    assert!(super::console::steps(&Block { lines: vec!["$ a \\".into(), "b".into()], ..block }).is_err());
}

#[test]
fn output_fits_by_its_dots() {
    let fits =
        |shown: &str, said: &str| is_as_shown(&shown.lines().map(str::to_owned).collect::<Vec<_>>(), said);
    assert!(fits("a  b", "a b\n"));
    assert!(fits("a ... c", "a b b c"));
    assert!(fits("a...", "a"));
    assert!(fits("...\nb\n...", "x\ny\nb\n"));
    assert!(fits("...", ""));
    assert!(fits("1 ... 2 ... 3", "1 x 2 y 2 3"));
    assert!(!fits("a", "a\nb"));
    assert!(!fits("a\nb", "a"));
    assert!(!fits("a ... c", "a b"));
    assert!(!fits("...\nb", "b\nc"));
    assert!(!fits("a", "ab"));
    assert!(begins_as_shown(&["a".to_owned()], "a\nb\nc"));
    assert!(!begins_as_shown(&["b".to_owned()], "a\nb\nc"));
}
