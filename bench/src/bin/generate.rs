//! The load generator as a command: sends UDP into an interface of the namespace it is run in.

use bench::load::{Amount, Load, Sizes};
use bench::{Error, affinity, iface_index};
use clap::{ArgGroup, Parser};
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

/// Sends UDP datagrams over IPv4 from inside the kernel, millions a second.
#[derive(Debug, Parser)]
#[command(name = "generate", version, group = ArgGroup::new("amount").required(true))]
struct Args {
    /// Interface to send into.
    #[arg(long, value_name = "IF")]
    iface: String,
    /// Flows, sent in turn.
    #[arg(long, default_value_t = 1)]
    flows: u32,
    /// Length of each frame in bytes, Ethernet header included, FCS not.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    size: usize,
    /// Send this many packets.
    #[arg(long, group = "amount")]
    packets: Option<u32>,
    /// Send for this long.
    #[arg(long, group = "amount")]
    seconds: Option<f64>,
    /// Packets a second; without it as fast as it goes.
    #[arg(long, value_name = "PPS")]
    rate: Option<u64>,
    /// Core to run on.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// Destination MAC address.
    #[arg(long, value_name = "MAC", default_value = "02:00:00:00:77:02", value_parser = parse_mac)]
    dst_mac: [u8; 6],
    /// Destination address.
    #[arg(long, default_value = "10.77.0.2")]
    dst: Ipv4Addr,
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
    let load = Load {
        flows: args.flows,
        sizes: Sizes::Fixed(args.size),
        rate_pps: args.rate,
        ..Load::new([0x02, 0, 0, 0, 0x77, 0x01], args.dst_mac, args.dst)
    };
    let amount = match (args.packets, args.seconds) {
        (Some(packets), _) => Amount::Packets(packets),
        (None, seconds) => Amount::Time(Duration::try_from_secs_f64(seconds.unwrap_or_default())?),
    };
    let sent = load.run(iface_index(&args.iface)?, amount)?;
    println!("{} packets in {:.3} s", sent.packets, sent.elapsed.as_secs_f64());
    Ok(())
}

fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| "a MAC address is six bytes, 02:00:00:00:77:02".into())
}
