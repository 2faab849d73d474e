//! The load generator as a command: sends a load into an interface of the namespace it is run in, from inside the kernel
//! or, paced, frame by frame through an AF_XDP socket.

use bench::load::{Amount, Flood, Load, Order, Protocol, Sent, Sizes};
use bench::pace::{self, Paced, Spacing};
use bench::{Error, affinity, iface_index};
use clap::{ArgGroup, Parser, ValueEnum};
use serde_json::json;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

/// Sends UDP datagrams or TCP segments, millions a second from inside the kernel, or paced.
///
/// Flows differ in source port and, beyond 60,000, in source address; sources are 10.77.64.0 and up or fd77:0:0:1::4000 and
/// up, a flood's 10.77.128.0 or fd77:0:0:1::8000 and up. The destination port is 7000. The far end of a veth needs an XDP
/// program (`sink`) or GRO turned on, or frames vanish.
#[derive(Debug, Parser)]
#[command(name = "generate", version, group = ArgGroup::new("amount").required(true))]
struct Args {
    /// Interface to send into.
    #[arg(long, value_name = "IF")]
    iface: String,
    /// Send this many packets.
    #[arg(long, group = "amount")]
    packets: Option<u32>,
    /// Send for this long.
    #[arg(long, group = "amount")]
    seconds: Option<f64>,
    /// Flows, up to 16,777,216.
    #[arg(long, default_value_t = 1)]
    flows: u32,
    /// Number of the first of them, to go on with flows that another load has not had.
    #[arg(long, value_name = "N", default_value_t = 0)]
    first_flow: u32,
    /// Which flow a packet belongs to.
    #[arg(long, value_enum, default_value_t = OrderName::InTurn)]
    order: OrderName,
    /// Exponent of Zipf's distribution, 0 to 10.
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    exponent: f64,
    /// What packets are. `tcp` are data segments of connections that `syn` opens; `sink --role server` and
    /// `--role client` complete them.
    #[arg(long, value_enum, default_value_t = ProtocolName::Udp)]
    protocol: ProtocolName,
    /// Length of each frame in bytes, Ethernet header included, FCS not; or `imix`: of twelve frames seven of 60 bytes
    /// (more where headers and stamp need it), four of 590, one of 1514.
    #[arg(long, value_name = "BYTES|imix", default_value = "64", value_parser = parse_sizes)]
    size: Sizes,
    /// Put number and time into each payload, for a sink to tell loss, reordering and latency.
    #[arg(long)]
    stamp: bool,
    /// Packets a second; without it as fast as it goes.
    #[arg(long, value_name = "PPS")]
    rate: Option<u64>,
    /// Send each frame at its own moment through an AF_XDP socket, and say how late frames left. Needs `--rate` and a core
    /// of its own. Without it frames leave in batches of 64.
    #[arg(long, requires = "rate", value_name = "SPACING", num_args = 0..=1, default_missing_value = "even")]
    pace: Option<SpacingName>,
    /// Add packets of ever new flows, of this kind.
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    flood: Option<ProtocolName>,
    /// Of so many packets one belongs to the flows, all others to the flood; 0: all belong to the flood.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "flood")]
    honest_every: u32,
    /// Number of the flood's first flow, to go on where another one ended.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "flood")]
    flood_first: u32,
    /// Core to run on.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Source MAC address.
    #[arg(long, value_name = "MAC", default_value = "02:00:00:00:77:01", value_parser = parse_mac)]
    src_mac: [u8; 6],
    /// Destination MAC address.
    #[arg(long, value_name = "MAC", default_value = "02:00:00:00:77:02", value_parser = parse_mac)]
    dst_mac: [u8; 6],
    /// Destination address, IPv4 or IPv6.
    #[arg(long, default_value = "10.77.0.2")]
    dst: IpAddr,
    /// Print one JSON object instead of a sentence.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OrderName {
    /// One after the other.
    InTurn,
    /// At random, all as likely.
    Uniform,
    /// At random by Zipf's distribution.
    Zipf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProtocolName {
    /// Datagrams.
    Udp,
    /// TCP data segments.
    Tcp,
    /// TCP SYNs.
    Syn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SpacingName {
    /// The same time between all frames.
    Even,
    /// Random times, as if no frame knew of the others.
    Poisson,
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
    affinity::pin_to(args.cpu)?;
    let load = load(args);
    let amount = match (args.packets, args.seconds) {
        (Some(packets), _) => Amount::Packets(packets),
        (None, seconds) => Amount::Time(Duration::try_from_secs_f64(seconds.unwrap_or_default())?),
    };
    let ifindex = iface_index(&args.iface)?;
    match args.pace {
        None => print_sent(&load.run(ifindex, amount)?, args.json),
        Some(SpacingName::Even) => {
            print_paced(&pace::run(&load, ifindex, Spacing::Even, amount)?, args.json);
        }
        Some(SpacingName::Poisson) => {
            print_paced(&pace::run(&load, ifindex, Spacing::Poisson, amount)?, args.json);
        }
    }
    Ok(())
}

fn load(args: &Args) -> Load {
    let flood = args.flood.map(|name| Flood {
        protocol: name.into(),
        honest_every: args.honest_every,
        first: args.flood_first,
    });
    let order = match args.order {
        OrderName::InTurn => Order::InTurn,
        OrderName::Uniform => Order::Uniform,
        OrderName::Zipf => Order::Zipf { exponent: args.exponent },
    };
    Load {
        flows: args.flows,
        first_flow: args.first_flow,
        order,
        protocol: args.protocol.into(),
        sizes: args.size,
        stamp: args.stamp,
        rate_pps: args.rate,
        flood,
        ..Load::new(args.src_mac, args.dst_mac, args.dst)
    }
}

fn print_sent(sent: &Sent, as_json: bool) {
    let Sent { packets, flood, elapsed, waited } = sent;
    let seconds = elapsed.as_secs_f64();
    if as_json {
        let waited = waited.as_secs_f64();
        println!(
            "{}",
            json!({ "packets": packets, "flood": flood, "seconds": seconds, "waited_seconds": waited })
        );
    } else if *flood > 0 {
        println!("{packets} packets, {flood} of them of the flood, in {seconds:.3} s");
    } else {
        println!("{packets} packets in {seconds:.3} s");
    }
}

fn print_paced(paced: &Paced, as_json: bool) {
    let Paced { packets, flood, elapsed, lateness, moved } = paced;
    let seconds = elapsed.as_secs_f64();
    if as_json {
        let at = |quantile| lateness.value_at_quantile(quantile);
        let late = json!({ "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": lateness.max() });
        let moved = moved.as_secs_f64();
        println!(
            "{}",
            json!({
                "packets": packets, "flood": flood, "seconds": seconds, "rate_kept": paced.is_kept(),
                "moved_seconds": moved, "late_ns": late,
            })
        );
    } else {
        println!("{packets} packets, {flood} of them of a flood, in {seconds:.3} s; {}", paced.verdict());
    }
}

impl From<ProtocolName> for Protocol {
    fn from(name: ProtocolName) -> Self {
        match name {
            ProtocolName::Udp => Self::Udp,
            ProtocolName::Tcp => Self::Tcp,
            ProtocolName::Syn => Self::Syn,
        }
    }
}

fn parse_sizes(text: &str) -> Result<Sizes, String> {
    if text == "imix" {
        return Ok(Sizes::Imix);
    }
    text.parse().map(Sizes::Fixed).map_err(|_| "a size is a number of bytes, or imix".into())
}

fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| "a MAC address is six bytes, 02:00:00:00:77:02".into())
}
