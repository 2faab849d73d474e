//! The figures of the classifier: what finding the first rule costs beside DPDK's `rte_acl`, what building and keeping
//! it costs, and what compiling a ruleset of 100,000 rules takes as a whole.

use crate::conntrack::HugePages;
use crate::dpdk::RuntimeDir;
use crate::gateway::Plan;
use crate::report::{Report, median, range};
use crate::rulesets::{self, SHAPES, Set};
use crate::{Error, affinity};
use dataplane::packet::Family;
use dataplane::rules::Compiled;
use dataplane::rules::classifier::{Classifier, Keys, Rule};
use dataplane::rules::model::{self, Match, PortSide, RuleId, Ruleset, Target};
use rustix::time::{ClockId, clock_gettime};
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Headers of a set: more than a branch predictor could learn by heart. Both sides look them up in turn.
const HEADERS: usize = 60_000;
/// Headers of which the first rule is also found by looking at each rule.
const CHECKED: usize = 1_000;
/// Bursts that are measured.
const BURSTS: [usize; 2] = [32, 8];
/// Most of the peer's build time.
const BUILD_GOAL: f64 = 0.15;
/// Most bytes for a rule.
const BYTES_GOAL: f64 = 256.0;
/// Seconds to compile 100,000 rules.
const COMPILE_GOAL: f64 = 1.5;

/// What is wanted of sets of one size, as shares of the peer's time.
#[derive(Clone, Copy, Debug)]
struct Size {
    name: &'static str,
    /// Rules, of our own sets.
    rules: usize,
    /// Mean and worst set in bursts of 32, mean in bursts of 8.
    goals: [f64; 3],
    /// Huge pages the peer is given, of 2 MiB.
    pages: u32,
}

const SIZES: [Size; 3] = [
    Size { name: "1k", rules: 1_000, goals: [1.0, 1.4, 0.55], pages: 600 },
    Size { name: "10k", rules: 10_000, goals: [0.5, 0.9, 0.27], pages: 1_200 },
    Size { name: "100k", rules: 100_000, goals: [0.33, 0.5, 0.13], pages: 2_500 },
];

/// What was measured of one set.
#[derive(Clone, Debug, Default)]
struct Outcome {
    /// Median ratio to the peer for each burst; empty without a peer.
    ratios: Vec<f64>,
    build_ratio: Option<f64>,
    bytes_per_rule: f64,
}

/// Measures them all, with ClassBench's files in `sets` if there are any, else with our own sets.
///
/// # Errors
/// If one cannot be measured.
pub fn measure(plan: &Plan, sets: Option<&Path>, report: &mut Report) -> Result<(), Error> {
    affinity::pin_to(plan.cores - 1)?;
    let mut bytes = Vec::new();
    let mut builds = Vec::new();
    for size in SIZES {
        let sets = match sets {
            Some(folder) => files(folder, size.name)?,
            None => own(size.rules, false),
        };
        let outcomes =
            sets.iter().map(|set| one(plan, set, size.pages, report)).collect::<Result<Vec<_>, _>>()?;
        bytes.extend(outcomes.iter().map(|outcome| outcome.bytes_per_rule));
        builds.extend(outcomes.iter().filter_map(|outcome| outcome.build_ratio));
        for (n, burst) in BURSTS.into_iter().enumerate() {
            let ratios: Vec<f64> =
                outcomes.iter().filter_map(|outcome| outcome.ratios.get(n).copied()).collect();
            if ratios.is_empty() {
                continue;
            }
            let what = format!("first rule of {}, bursts of {burst}, of rte_acl", size.name);
            let mean_goal = if burst == 32 { size.goals[0] } else { size.goals[2] };
            report.at_most(&format!("{what}, mean of sets"), geometric_mean(&ratios), mean_goal);
            if burst == 32 {
                report.at_most(&format!("{what}, worst set"), range(&ratios).1, size.goals[1]);
            }
        }
    }
    if !builds.is_empty() {
        report.at_most("time to build, of rte_acl", geometric_mean(&builds), BUILD_GOAL);
    }
    report.at_most("bytes for an IPv4 rule, mean of sets", geometric_mean(&bytes), BYTES_GOAL);
    for size in &SIZES[..2] {
        for set in own(size.rules, true).iter().step_by(2) {
            one(plan, set, SIZES[1].pages, report)?;
        }
    }
    compile(report)
}

fn own(rules: usize, wide: bool) -> Vec<Set> {
    let seeds = if rules < 100_000 { 1..=2 } else { 1..=1 };
    SHAPES
        .iter()
        .flat_map(|shape| seeds.clone().map(move |seed| rulesets::generate(shape, rules, seed, wide)))
        .collect()
}

/// ClassBench's files of one size, by name.
fn files(folder: &Path, size: &str) -> Result<Vec<Set>, Error> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    let wanted = format!("_{size}.");
    paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(&wanted)));
    paths.sort();
    paths.iter().map(|path| rulesets::read(path)).collect()
}

/// Measures one set: builds both, compares what they find, then lets them look the same headers up in turn.
fn one(plan: &Plan, set: &Set, pages: u32, report: &mut Report) -> Result<Outcome, Error> {
    let headers = set.headers(HEADERS);
    let mut peer = Peer::start(set, &headers, pages)?;
    let attempts = if set.rules.len() < 50_000 { 3 } else { 1 };
    let builds: Vec<f64> = (0..attempts).map(|_| timed(|| Classifier::new(&set.rules, set.wide)).1).collect();
    let classifier = Classifier::new(&set.rules, set.wide);
    let keys = classifier.keys(&headers);
    let mut found = vec![0; headers.len()];
    classifier.first(&keys, 0..headers.len(), &mut found);
    let wrong =
        headers.iter().zip(&found).take(CHECKED).filter(|(header, found)| set.plain_first(header) != **found);
    let mut wrong = wrong.count();
    if let Some(peer) = &mut peer {
        wrong +=
            peer.found(headers.len())?.iter().zip(&found).filter(|(theirs, ours)| theirs != ours).count();
    }
    if wrong > 0 {
        report.exactly(&format!("{}, headers with another first rule", set.name), wrong as i128, 0);
    }
    let build = builds.iter().copied().fold(f64::INFINITY, f64::min) * 1e3;
    let shape = classifier.shape();
    let mut outcome =
        Outcome { bytes_per_rule: shape.bytes as f64 / set.rules.len() as f64, ..Outcome::default() };
    let mut text = String::new();
    let slice = plan.time / 30;
    for burst in BURSTS {
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..plan.repetitions {
            let our = time(&classifier, &keys, burst, slice, &mut found);
            ours.push(our);
            if let Some(peer) = &mut peer {
                let their = peer.run(burst, slice)?;
                theirs.push(their);
                ratios.push(our / their);
            }
        }
        text += &format!("; b{burst} {:.1} ns", range(&ours).0);
        if peer.is_some() {
            let ratio = median(&ratios);
            text += &format!(" of {:.1}, {ratio:.2}", range(&theirs).0);
            outcome.ratios.push(ratio);
        }
    }
    if let Some(peer) = &peer {
        outcome.build_ratio = Some(build / peer.built);
        text += &format!(
            "; rte_acl {} built in {:.0} ms, {:.0} B a rule",
            peer.form,
            peer.built,
            peer.bytes / set.rules.len() as f64
        );
    }
    println!(
        "  {} ({} rules, {:?}): {} trees, built in {build:.1} ms, {:.0} B a rule{text}",
        set.name,
        set.rules.len(),
        classifier.level(),
        shape.trees,
        outcome.bytes_per_rule,
    );
    Ok(outcome)
}

/// Nanoseconds of thread time per header.
fn time(classifier: &Classifier, keys: &Keys, burst: usize, time: Duration, found: &mut [u32]) -> f64 {
    let end = found.len() / burst * burst;
    let (mut headers, mut spent) = (0, 0.0);
    while spent < time.as_secs_f64() {
        let ((), seconds) = timed(|| {
            for start in (0..end).step_by(burst) {
                classifier.first(keys, start..start + burst, &mut found[start..start + burst]);
            }
        });
        spent += seconds;
        headers += end;
    }
    spent * 1e9 / headers as f64
}

/// Runs `f` and says how many seconds of thread time it took.
fn timed<T>(f: impl FnOnce() -> T) -> (T, f64) {
    let now = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
    };
    let from = now();
    let result = f();
    (result, now() - from)
}

fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp()
}

/// The whole way from a ruleset to what workers run, its check against the rules' meaning included.
fn compile(report: &mut Report) -> Result<(), Error> {
    let ports = ["eth0".to_owned(), "eth1".to_owned()];
    let mut seconds = Vec::new();
    for shape in &SHAPES {
        let set = rulesets::generate(shape, 100_000, 1, false);
        let mut ruleset = Ruleset::empty(Family::V4);
        let at = ruleset.forward.0 as usize;
        ruleset.chains[at].rules = set.rules.iter().map(|rule| Arc::new(as_written(rule))).collect();
        let ruleset = Arc::new(ruleset);
        let (compiled, spent) = timed(|| Compiled::new(ruleset, &ports));
        let compiled = compiled?;
        let bytes = compiled.bytes() as f64 / set.rules.len() as f64;
        println!("  {}: compiled in {spent:.3} s, {bytes:.0} B a rule, lines included", set.name);
        seconds.push(spent);
    }
    report.at_most("seconds to compile 100,000 rules, slowest of sets", range(&seconds).1, COMPILE_GOAL);
    Ok(())
}

/// A rule as the operator's text has it.
fn as_written(rule: &Rule) -> model::Rule {
    let mut matches = Vec::new();
    if rule.src_mask != 0 {
        matches.push(Match::Src { addr: rule.src, mask: rule.src_mask, invert: false });
    }
    if rule.dst_mask != 0 {
        matches.push(Match::Dst { addr: rule.dst, mask: rule.dst_mask, invert: false });
    }
    matches.extend(rule.proto.map(|proto| Match::Proto { proto, invert: false }));
    for (which, range) in [(PortSide::Src, rule.src_ports), (PortSide::Dst, rule.dst_ports)] {
        if range != (0, u16::MAX) {
            matches.push(Match::Ports { which, ranges: vec![range], invert: false });
        }
    }
    model::Rule { id: RuleId(0), matches, target: Target::Accept, management: false, is_bare: false }
}

/// The peer, a process that waits for orders while we measure.
struct Peer {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Milliseconds it took to build.
    built: f64,
    bytes: f64,
    form: String,
    _pages: HugePages,
    _files: RuntimeDir,
}

impl Peer {
    /// Starts it with a set; `None` if it has not been built.
    fn start(
        set: &Set,
        headers: &[dataplane::rules::classifier::Header],
        pages: u32,
    ) -> Result<Option<Self>, Error> {
        let Some(program) = env::var_os("PALISADE_RTE_ACL").map(PathBuf::from) else { return Ok(None) };
        let folder = env::temp_dir().join(format!("palisade-rte-acl-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let (rules, trace) = (folder.join("rules"), folder.join("headers"));
        fs::write(&rules, set.rules_text())?;
        fs::write(&trace, set.headers_text(headers))?;
        let (pages, files) = (HugePages::ask(pages)?, RuntimeDir::new()?);
        let mut command = Command::new(program);
        files.give_to(&mut command);
        command.arg(if set.wide { "6" } else { "4" }).arg(&rules).arg(&trace);
        command.args(["--in-memory", "--no-pci", "--no-telemetry", "--log-level=error"]);
        let core = rustix::thread::sched_getcpu();
        let mut child =
            command.args(["-l", &core.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("rte_acl: no pipes".into());
        };
        let mut peer = Self {
            child,
            orders,
            answers: BufReader::new(answers),
            built: 0.0,
            bytes: 0.0,
            form: String::new(),
            _pages: pages,
            _files: files,
        };
        let line = peer.answer()?;
        let mut words = line.split_whitespace().skip(1);
        let mut number = || words.next().unwrap_or_default().parse::<f64>();
        (peer.built, peer.bytes) = (number()?, number()?);
        peer.form = words.collect::<Vec<_>>().join(" ");
        // It has read both once it has built and answers the first order.
        peer.run(BURSTS[0], Duration::from_millis(1))?;
        fs::remove_dir_all(&folder)?;
        Ok(Some(peer))
    }

    /// Nanoseconds of thread time per header.
    fn run(&mut self, burst: usize, time: Duration) -> Result<f64, Error> {
        writeln!(self.orders, "run {burst} {}", time.as_secs_f64())?;
        Ok(self.answer()?.parse()?)
    }

    /// The first rule of each header.
    fn found(&mut self, count: usize) -> Result<Vec<u32>, Error> {
        writeln!(self.orders, "check")?;
        (0..count).map(|_| Ok(self.answer()?.parse::<i64>()?.try_into().unwrap_or(u32::MAX))).collect()
    }

    fn answer(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err("rte_acl has ended, its errors are above".into());
        }
        Ok(line.trim().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
