//! The sink as a command: counts what arrives on an interface of the namespace it is run in, and drops it, sends it back,
//! or answers handshakes.

use bench::handshake::{self, End, Ending, Responder, Segments};
use bench::sink::{Counts, Latencies, Options, Role, Sequence, Sink, Storage};
use bench::{Error, iface_index};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How soon a signal is seen.
const POLL: Duration = Duration::from_millis(20);

/// Counts the load generator's packets on an interface. Nothing that arrives there reaches the host, but for handshakes'
/// ends what is not TCP.
///
/// Prints `ready`, a line a second, and at the end what was asked for. SIGINT and SIGTERM end it early.
#[derive(Debug, Parser)]
#[command(name = "sink", version)]
struct Args {
    /// Interface to listen on.
    #[arg(long, value_name = "IF")]
    iface: String,
    /// Listen for so many seconds, then end.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// What becomes of what arrives.
    #[arg(long, value_enum, default_value_t = RoleName::Drop)]
    role: RoleName,
    /// Read stamps: print latency and, of the flows counted one by one, loss and reordering.
    #[arg(long)]
    stamps: bool,
    /// Flows to count one by one, up to as many as the generator has. Handshakes need it.
    #[arg(long, default_value_t = 0)]
    flows: u32,
    /// How the server ends connections that have been opened.
    #[arg(long, value_enum, default_value_t = EndingName::Open)]
    ending: EndingName,
    /// After `ready` print nothing but, at the end, one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleName {
    /// It is dropped.
    Drop,
    /// It is sent back.
    Echo,
    /// It has been sent back, and is dropped.
    DropReplies,
    /// It is answered as the far end of TCP handshakes.
    Server,
    /// It is answered as the generator's end of them.
    Client,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EndingName {
    /// Not at all.
    Open,
    /// By FIN, answered by FIN.
    Fin,
    /// By RST.
    Reset,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Error> {
    let ifindex = iface_index(&args.iface)?;
    let role = match args.role {
        RoleName::Drop => Role::Drop,
        RoleName::Echo => Role::Echo,
        RoleName::DropReplies => Role::DropReplies,
        RoleName::Client | RoleName::Server => return respond(args, ifindex),
    };
    if args.ending != EndingName::Open {
        return Err("--ending is for --role server".into());
    }
    let mut storage = Storage::default();
    let options = Options { flows: args.flows, stamps: args.stamps, role };
    let sink = Sink::attach_as(&mut storage, ifindex, options)?;
    let mut before = 0;
    listen(args, || {
        let Counts { packets, flood, others, .. } = sink.counts()?;
        let rate = packets - before;
        before = packets;
        Ok(format!("{rate} packets/s, {packets} in all, {flood} of a flood, {others} others"))
    })?;
    let counts = sink.counts()?;
    let stamps = if args.stamps { Some((sink.latencies()?, sink.sequences()?)) } else { None };
    let totals = stamps.map(|(latencies, sequences)| (latencies, sequences.into_iter().sum::<Sequence>()));
    if args.json {
        println!("{}", as_json(&counts, totals.as_ref(), args.flows > 0));
    } else if let Some((latencies, sequence)) = totals {
        print_stamps(&counts, &latencies, args.flows.gt(&0).then_some(&sequence));
    }
    Ok(())
}

/// As one end of handshakes.
fn respond(args: &Args, ifindex: u32) -> Result<(), Error> {
    if args.stamps {
        return Err("an end of handshakes reads no stamps: leave --stamps out".into());
    }
    if args.role == RoleName::Client && args.ending != EndingName::Open {
        return Err("the server ends connections: give it --ending".into());
    }
    if args.flows == 0 {
        return Err(
            "say by --flows how many flows the generator has, to tell handshakes from repeated ones".into()
        );
    }
    let ending = match args.ending {
        EndingName::Open => Ending::Open,
        EndingName::Fin => Ending::Fin,
        EndingName::Reset => Ending::Reset,
    };
    let end = if args.role == RoleName::Client { End::Client } else { End::Server(ending) };
    let mut storage = handshake::Storage::default();
    let responder = Responder::attach(&mut storage, ifindex, end, args.flows)?;
    let mut before = Segments::default();
    listen(args, || {
        let now = responder.segments()?;
        let line = format!(
            "{} opened/s, {} handshakes/s; in all {} and {}, {} closed, {} repeated, {} wrong",
            now.opened - before.opened,
            now.completed - before.completed,
            now.opened,
            now.completed,
            now.closed,
            now.repeated,
            now.wrong,
        );
        before = now;
        Ok(line)
    })?;
    if args.json {
        let Segments { opened, completed, closed, repeated, data, flood, wrong, others } =
            responder.segments()?;
        println!(
            "{}",
            json!({
                "opened": opened, "completed": completed, "closed": closed, "repeated": repeated, "data": data,
                "flood": flood, "wrong": wrong, "others": others,
            })
        );
    }
    Ok(())
}

/// Prints a line a second until the time is up or a signal comes.
fn listen(args: &Args, mut line: impl FnMut() -> Result<String, Error>) -> Result<(), Error> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    println!("ready");
    let start = Instant::now();
    for second in 1..=args.seconds {
        let end = start + Duration::from_secs(second.into());
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            thread::sleep(left.min(POLL));
        }
        if !args.json {
            println!("{}", line()?);
        }
    }
    Ok(())
}

fn print_stamps(counts: &Counts, latencies: &Latencies, sequence: Option<&Sequence>) {
    let Latencies { histogram, from_future, beyond } = latencies;
    if histogram.is_empty() {
        println!("latency: nothing with a stamp has arrived");
    } else {
        let at = |quantile| histogram.value_at_quantile(quantile);
        println!(
            "latency of {} packets, ns: least {}, median {}, p90 {}, p99 {}, p99.9 {}, most {}",
            histogram.len(),
            histogram.min(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            histogram.max(),
        );
    }
    println!("without stamp {}, stamped later than now {from_future}, too old {beyond}", counts.unstamped);
    if let Some(Sequence { packets, expected, lost, late, duplicates, ancient }) = sequence {
        println!(
            "{packets} of {expected} numbers: {lost} lost, {late} late ({ancient} of them too late to tell from duplicates), \
             {duplicates} duplicates"
        );
    }
}

fn as_json(counts: &Counts, stamps: Option<&(Latencies, Sequence)>, has_flows: bool) -> Value {
    let Counts { packets, bytes, flood, others, unstamped } = counts;
    let mut all = json!({ "packets": packets, "bytes": bytes, "flood": flood, "others": others });
    let Some((Latencies { histogram, from_future, beyond }, sequence)) = stamps else { return all };
    all["unstamped"] = json!(unstamped);
    let at = |quantile| histogram.value_at_quantile(quantile);
    // No percentile of nothing.
    all["latency_ns"] = if histogram.is_empty() {
        Value::Null
    } else {
        json!({
            "count": histogram.len(), "min": histogram.min(), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99),
            "p999": at(0.999), "max": histogram.max(), "from_future": from_future, "beyond": beyond,
        })
    };
    if has_flows {
        let Sequence { packets, expected, lost, late, duplicates, ancient } = sequence;
        all["sequence"] = json!({
            "packets": packets, "expected": expected, "lost": lost, "late": late, "duplicates": duplicates,
            "ancient": ancient,
        });
    }
    all
}
