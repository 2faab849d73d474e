//! Counts the instructions each stage takes per packet, by callgrind, and holds them against `bench/instructions.toml`: a
//! figure that no neighbour on the machine can shake. `check` exits 1 if a stage has grown.
//!
//! The program runs itself under valgrind, a stage at a time, and counts only what happens inside [`counted`]. Everything
//! in there is the same in every run: seeds are fixed, time stands still, and valgrind's processor, which knows AVX2 and not
//! AVX-512, is the same on all machines that have as much.

use clap::{Parser, Subcommand};
use dataplane::rules::classifier::Level;
use stages::ratchet::{Baseline, Change, Line};
use stages::{BURST, Error, Named, STAGES, Scale, Stage};
use std::env;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The compiler this was built with.
const RUSTC: &str = env!("STAGES_RUSTC");

/// Bursts that are run before those that count: long enough for all that is set up at first use.
const WARM_UP: u32 = 200;

/// Bursts that count. A table of a thousand flows is gone through four times.
const BURSTS: u32 = 256;

/// Counts instructions per packet, and tells when there are more than there were.
#[derive(Debug, Parser)]
struct Args {
    /// Where the baseline is.
    #[arg(long, default_value = "bench/instructions.toml")]
    baseline: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Counts all stages, or those whose names contain the text, and exits 1 if one has grown by more than 3 %.
    Check {
        /// Part of a stage's name.
        filter: Option<String>,
    },
    /// Counts all stages and writes the baseline.
    Update,
    /// Runs one stage: what the others run under valgrind.
    Stage {
        /// Its name.
        name: String,
        /// How many bursts count.
        #[arg(long, default_value_t = BURSTS)]
        bursts: u32,
        /// Flows in the table.
        #[arg(long, default_value_t = Scale::COUNTED.flows)]
        flows: u32,
    },
}

fn main() -> ExitCode {
    let Args { baseline, what } = Args::parse();
    let done = match what {
        What::Check { filter } => check(&baseline, filter.as_deref()),
        What::Update => update(&baseline).map(|()| true),
        What::Stage { name, bursts, flows } => run(&name, bursts, flows).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

// Under valgrind.

/// Runs one stage and says which vector instructions it found.
fn run(name: &str, bursts: u32, flows: u32) -> Result<(), Error> {
    let stage = STAGES.iter().find(|stage| stage.name == name).ok_or_else(|| no_stage(name))?;
    let mut stage = (stage.make)(Scale { flows, ..Scale::COUNTED })?;
    for _ in 0..WARM_UP {
        stage.prepare();
        black_box(stage.burst());
    }
    for _ in 0..bursts {
        stage.prepare();
        if counted(&mut *stage) != BURST {
            return Err(format!("{name}: not every packet came out as it should").into());
        }
    }
    println!("{:?}", Level::best());
    Ok(())
}

/// What callgrind counts: it is told this function's name.
#[inline(never)]
fn counted(stage: &mut dyn Stage) -> usize {
    black_box(stage.burst())
}

fn no_stage(name: &str) -> String {
    let names: Vec<_> = STAGES.iter().map(|stage| stage.name).collect();
    format!("there is no stage {name}; there are {}", names.join(", "))
}

// Around it.

/// What was counted, by which vector instructions.
struct Counts {
    simd: String,
    by_stage: Vec<(String, f64)>,
}

fn count(filter: Option<&str>) -> Result<Counts, Error> {
    let folder = tempfile::tempdir()?;
    let wanted = |stage: &&Named| filter.is_none_or(|filter| stage.name.contains(filter));
    let mut counts = Counts { simd: String::new(), by_stage: Vec::new() };
    for stage in STAGES.iter().filter(wanted) {
        let (instructions, simd) = callgrind(stage.name, folder.path())?;
        let per_packet = instructions as f64 / f64::from(BURSTS) / BURST as f64;
        counts.by_stage.push((stage.name.to_owned(), (per_packet * 100.0).round() / 100.0));
        counts.simd = simd;
    }
    if counts.by_stage.is_empty() {
        return Err(no_stage(filter.unwrap_or_default()).into());
    }
    Ok(counts)
}

/// Runs one stage under callgrind; instructions that counted, and the level it ran at.
fn callgrind(name: &str, folder: &Path) -> Result<(u64, String), Error> {
    let out = folder.join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=instructions::counted*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe()?)
        .args(["stage", name, "--bursts", &BURSTS.to_string()])
        // How long the environment is moves the stack.
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .output()
        .map_err(|error| {
            format!("valgrind does not start ({error}): install it, on Debian the package valgrind")
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name} under valgrind: {}\n{said}", output.status).into());
    }
    let instructions = total(&fs::read_to_string(&out)?).filter(|total| *total > 0).ok_or_else(|| {
        format!("{name}: callgrind has counted nothing; was the program stripped of its symbols?")
    })?;
    Ok((instructions, String::from_utf8_lossy(&output.stdout).trim().to_owned()))
}

/// All that callgrind's file says was counted.
fn total(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")))?
        .trim()
        .parse()
        .ok()
}

/// Counts and compares. False if a stage has grown.
fn check(path: &Path, filter: Option<&str>) -> Result<bool, Error> {
    let baseline = read(path)?;
    let counts = count(filter)?;
    let differs = baseline.differs_from(RUSTC, &counts.simd);
    let lines = baseline.judge(&counts.by_stage, filter.is_none());
    print(&lines);
    if let Some(differs) = differs {
        println!("nothing is compared: {differs}");
        return Ok(true);
    }
    let bad = lines.iter().filter(|line| line.change.fails()).count();
    match bad {
        0 => println!("instructions: all as they were, {} stages", lines.len()),
        _ => println!(
            "instructions: {bad} of {} stages are not as the baseline has them; to write it anew: ./scripts/bench instructions update",
            lines.len()
        ),
    }
    Ok(bad == 0)
}

/// Writes what is counted now, and shows it beside what was there.
fn update(path: &Path) -> Result<(), Error> {
    let Counts { simd, by_stage } = count(None)?;
    let baseline = Baseline { rustc: RUSTC.to_owned(), simd, stages: by_stage.iter().cloned().collect() };
    let before = if path.exists() { read(path)? } else { baseline.clone() };
    let head = "# Instructions per packet, by callgrind. Written by ./scripts/bench instructions update.\n";
    fs::write(path, head.to_owned() + &toml::to_string(&baseline)?)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    print(&before.judge(&by_stage, true));
    println!("written to {}", path.display());
    Ok(())
}

fn read(path: &Path) -> Result<Baseline, Error> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("{}: {error}; run update to write it", path.display()))?;
    toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()).into())
}

fn print(lines: &[Line]) {
    println!("{:16} {:>10} {:>10} {:>8}", "instructions", "before", "now", "change");
    for Line { name, before, now, change } in lines {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let moved = before
            .zip(*now)
            .map_or_else(String::new, |(before, now)| format!("{:+.2} %", (now / before - 1.0) * 100.0));
        let line =
            format!("{name:16} {:>10} {:>10} {moved:>8}  {}", number(*before), number(*now), change.advice());
        println!("{}", line.trim_end());
    }
    let grown = lines.iter().any(|line| line.change == Change::Grown);
    if grown {
        println!("grown means more than 3 % above the baseline");
    }
}
