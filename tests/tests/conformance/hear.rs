//! What both sides tell of flows while it happens: `conntrack -E` in the judge's namespace, and our events as fwctl prints
//! them. Lines are compared flow by flow, in their order; times and numbers that name a flow only by their shape.

use super::kernel::{Kernel, numbered};
use super::ours::Ours;
use control::api::{Shown, Wall, event_row};
use control::cli::{Output, write_event};
use dataplane::flow::FlowEvent;
use palisade_tests::lab::Process;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Seconds two timers may differ by.
const TIMER_TOLERANCE: u32 = 2;

/// Events after which conntrack gets time to read: its socket holds some 160, whatever `-b` says.
const BATCH: usize = 50;

/// How long it gets, should it have less to tell than we have.
const PATIENCE: Duration = Duration::from_millis(200);

/// Both sides' events.
#[derive(Debug)]
pub(crate) struct Ears {
    kernel: Process,
    /// Lines of the kernel's that were compared already.
    compared: usize,
    output: Output,
    heard: Vec<String>,
    /// How many of them there were when conntrack last got time to read.
    rested: usize,
}

/// An event's line, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// All but the timer.
    text: String,
    timer: Option<u32>,
}

/// An event as fwctl prints it.
pub(crate) fn line(event: &FlowEvent, output: &Output) -> String {
    let mut line = Vec::new();
    let wall = Wall { tick: event.at.tick(), micros: event.at.nanos / 1000 };
    let row = event_row(event, &Shown { start: None, ..Shown::default() }, wall);
    write_event(&row, output, &mut line).unwrap();
    String::from_utf8(line).unwrap().trim_end_matches('\n').to_owned()
}

impl Ears {
    /// Has both sides tell, with these options of conntrack's to print by.
    pub(crate) fn new(kernel: &mut Kernel, ours: &mut Ours, options: &str, output: Output) -> Self {
        ours.listen();
        let kernel = kernel.listen(options);
        Self { compared: kernel.stdout().lines().count(), kernel, output, heard: Vec::new(), rested: 0 }
    }

    /// Writes down what our side has told.
    pub(crate) fn hear(&mut self, events: &[FlowEvent]) {
        self.heard.extend(events.iter().map(|event| line(event, &self.output)));
        if self.heard.len() >= self.rested + BATCH {
            self.rested = self.heard.len();
            let start = Instant::now();
            while self.kernel.stdout().lines().count() < self.compared + self.rested
                && start.elapsed() < PATIENCE
            {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// How the two differ, flow by flow; empty if they do not.
    pub(crate) fn differences(&mut self, kernel: &mut Kernel) -> Vec<String> {
        kernel.wait_for_events(&self.kernel);
        let text = numbered(&self.kernel.stdout());
        assert!(
            !self.kernel.stderr().contains("ENOBUFS"),
            "the judge cannot follow: {}",
            self.kernel.stderr()
        );
        let is_event =
            |line: &&str| !Kernel::is_bell(line) && !line.starts_with("<?xml") && *line != "<conntrack>";
        let theirs: Vec<String> =
            text.lines().skip(self.compared).filter(is_event).map(str::to_owned).collect();
        (self.compared, self.rested) = (text.lines().count(), 0);
        let (theirs, ours) = (by_flow(&theirs), by_flow(&std::mem::take(&mut self.heard)));
        let keys: std::collections::BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
        let mut found = Vec::new();
        for key in keys {
            let [theirs, ours] = [&theirs, &ours].map(|all| all.get(key).cloned().unwrap_or_default());
            let same = |(theirs, ours): (&Line, &Line)| {
                theirs.text == ours.text
                    && match (theirs.timer, ours.timer) {
                        (Some(theirs), Some(ours)) => theirs.abs_diff(ours) <= TIMER_TOLERANCE,
                        (theirs, ours) => theirs == ours,
                    }
            };
            if theirs.len() != ours.len() || !theirs.iter().zip(&ours).all(same) {
                let show = |lines: &[Line]| -> String {
                    lines.iter().map(|line| format!("\n      {:?} {}", line.timer, line.text)).collect()
                };
                found.push(format!("events: kernel{}\n    we{}", show(&theirs), show(&ours)));
            }
        }
        found
    }
}

/// Lines that two lists of flows have or lack, in a form with one flow per line: how they differ, but for timers.
pub(crate) fn differences(theirs: &str, ours: &str) -> Vec<String> {
    let lines = |text: &str| -> BTreeMap<String, Vec<Line>> {
        let is_flow = |line: &&str| line.starts_with("<flow") || line.starts_with('-');
        // No two of them look the same more than once.
        by_flow(&text.lines().filter(is_flow).map(str::to_owned).collect::<Vec<_>>())
    };
    let texts = |lines: BTreeMap<String, Vec<Line>>| -> std::collections::BTreeSet<String> {
        lines.into_values().flatten().map(|line| line.text.replace("<use>2</use>", "<use>1</use>")).collect()
    };
    let (theirs, ours) = (texts(lines(theirs)), texts(lines(ours)));
    let only = |whose: &str, lines: Vec<&String>| -> Vec<String> {
        lines.into_iter().map(|line| format!("only {whose}: {line}")).collect()
    };
    [only("the kernel", theirs.difference(&ours).collect()), only("we", ours.difference(&theirs).collect())]
        .concat()
}

/// Lines by the flow they are about.
pub(crate) fn by_flow(lines: &[String]) -> BTreeMap<String, Vec<Line>> {
    let mut flows = BTreeMap::<String, Vec<Line>>::new();
    for line in lines {
        let (key, line) = take_apart(line);
        flows.entry(key).or_default().push(line);
    }
    flows
}

/// An element of XML, and the text around it.
fn cut(text: &str, name: &str) -> Option<(String, String)> {
    let (before, rest) = text.split_once(&format!("<{name}>"))?;
    let (inside, after) = rest.split_once(&format!("</{name}>"))?;
    Some((inside.to_owned(), format!("{before}{after}")))
}

/// XML without the timer and what differs from run to run.
fn take_xml_apart(line: &str) -> (String, Line) {
    let (id, mut text) = cut(line, "id").unwrap();
    assert!(id.parse::<u64>().is_ok(), "{line}");
    if let Some((when, rest)) = cut(&text, "when") {
        text = rest;
        let names = ["hour", "min", "sec", "wday", "day", "month", "year"];
        let left = names.iter().fold(when, |left, name| cut(&left, name).unwrap().1);
        assert_eq!(left, "", "{line}");
        text.push_str("<when/>");
    }
    let timer = cut(&text, "timeout");
    let timer = timer.map(|(secs, rest)| {
        text = rest;
        secs.parse().unwrap()
    });
    let orig = text.split_once("<meta direction=\"reply\">").unwrap().0;
    let orig = orig.split_once("<meta direction=\"original\">").unwrap().1;
    let key = cut(orig, "counters").map_or(orig.to_owned(), |(_, rest)| rest);
    (key, Line { text, timer })
}

/// A command line without the timer.
fn take_command_apart(line: &str) -> (String, Line) {
    let mut words: Vec<&str> = line.split(' ').collect();
    let timer = words.iter().position(|word| *word == "-t").map(|at| {
        let secs = words[at + 1].parse().unwrap();
        words.drain(at..at + 2);
        secs
    });
    let from = words.iter().position(|word| *word == "-s").unwrap();
    let to = words.iter().position(|word| *word == "--state" || word.starts_with('[')).unwrap_or(words.len());
    (words[from..to].join(" "), Line { text: words.join(" "), timer })
}

fn take_apart(line: &str) -> (String, Line) {
    // conntrack names the process that asked; ours is nobody it could know.
    let line = line.find(" portid=").map_or(line, |at| &line[..at]);
    if line.starts_with('<') {
        return take_xml_apart(line);
    }
    if line.starts_with('-') {
        return take_command_apart(line);
    }
    let mut words: Vec<String> = line.split(' ').map(shape).collect();
    // What names the flow is the last of these; an ICMP identifier stands further ahead.
    let last = words.iter().rposition(|word| !word.starts_with('['));
    if let Some(id) = last.and_then(|at| words.get_mut(at)).filter(|word| word.starts_with("id=")) {
        "id=N".clone_into(id);
    }
    let number = words.iter().position(|word| word.parse::<u8>().is_ok()).unwrap_or_default();
    // With `-o extended` the network protocol's number is the first one.
    let number = if words[..number].iter().any(|word| word.starts_with("ipv")) {
        number
            + 1
            + words[number + 1..].iter().position(|word| word.parse::<u8>().is_ok()).unwrap_or_default()
    } else {
        number
    };
    let timer = words.get(number + 1).and_then(|word| word.parse().ok());
    if timer.is_some() {
        words.remove(number + 1);
    }
    let is_key = |word: &&String| {
        let name = word.split('=').next().unwrap_or_default();
        matches!(name, "src" | "dst" | "sport" | "dport" | "type" | "code" | "id" | "srckey" | "dstkey")
            && *word != "id=N"
    };
    let keys: Vec<&String> = words.iter().filter(is_key).collect();
    let orig: Vec<&str> = keys[..keys.len() / 2].iter().map(|word| word.as_str()).collect();
    (format!("{} {}", words[number], orig.join(" ")), Line { text: words.join(" "), timer })
}

/// A word without the time in front.
fn shape(word: &str) -> String {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((time, rest)) = word.strip_prefix('[').and_then(|rest| rest.split_once("]\t"))
        && let Some((secs, micros)) = time.split_once('.')
        && is_number(secs)
        && is_number(micros)
        && micros.len() == 6
    {
        return format!("[TIME]\t{rest}");
    }
    word.to_owned()
}
