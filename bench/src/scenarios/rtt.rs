//! Round trips through an idle gateway, and under a load that is the same for every peer: half of what Linux's bridge with
//! iptables carries.
//!
//! The paced generator sends stamped frames from the left host, each at its own moment. A program on the right host's
//! interface turns them round, and one on the left host's reads the stamps of what comes back. A run that the generator
//! did not keep is repeated, and never published.

use super::search::{self, Found, Limit, Trial};
use super::throughput::count;
use super::{KNOWN_FLOWS, Plan, turns};
use crate::bed::Bed;
use crate::load::{Amount, Load};
use crate::pace::{self, Paced, Spacing};
use crate::peers::{Peer, Rules, Running, Setup};
use crate::results::{Better, Table};
use crate::sink::{Latencies, Options, Role, Sink, Storage};
use crate::{Error, iface_index, interrupt};
use palisade_tests::lab::{HOST_IFACE, Host};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::thread;
use std::time::Duration;

/// What is read from each histogram.
const QUANTILES: [(&str, f64); 6] =
    [("p10", 0.1), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("longest", 1.0)];

/// Packets a second that leave a gateway idle: 200 us between two, so that whoever sleeps then has gone to sleep.
const IDLE_PPS: u64 = 5_000;

/// Whose capacity the load is half of.
const REFERENCE: Peer = Peer::BridgeIptables;

/// Rates among which that capacity is, in packets a second. The paced generator keeps no higher one.
const RATES: RangeInclusive<u64> = 10_000..=4_000_000;

/// Longest trial of a rate.
const TRIAL_MAX: Duration = Duration::from_millis(500);

/// Packets of which one may be lost in a trial.
const LOSS_OF: u64 = 1_000;

/// Packets of which one may be lost by whoever is measured.
const LOSS_MAX_OF: u64 = 100;

/// Times a run may fail to keep its rate.
const ATTEMPTS: usize = 5;

/// Packets a second of the run that makes flows known.
const WARM_UP_PPS: u64 = 10_000;

/// How long nothing must come back until nothing more is waited for.
const REST: Duration = Duration::from_millis(150);

/// Room for connections.
const MAX_FLOWS: u32 = 100_000;

/// Measures it.
pub(super) fn measure(plan: &Plan) -> Result<Table, Error> {
    let (mut near, mut far) = (Storage::default(), Storage::default());
    let track = Track::new(plan.cores, &mut near, &mut far)?;
    let points: Vec<String> = ["idle", "loaded"]
        .iter()
        .flat_map(|state| QUANTILES.map(|(name, _)| format!("{state} {name}")))
        .collect();
    let title = format!("Round trip time, 64 B, {KNOWN_FLOWS} flows, 10 rules");
    let mut table = Table::new("rtt", &title, ("us", Better::Lower), &points);
    let setup = Setup { rules: Rules::new(10), max_flows: MAX_FLOWS, ..Setup::default() };
    table.notes.push(format!(
        "the way there and back, {KNOWN_FLOWS} flows made known before, sent by a Poisson process; frames are sent to the right \
         host's MAC address, or to the router's where one routes"
    ));
    let (idle, loaded) = (0..QUANTILES.len(), QUANTILES.len()..points.len());
    let mut books = Books::default();
    turns::take(plan, &track.bed, &setup, (&mut table, idle), |running| {
        track.quantiles(running, IDLE_PPS, plan.time, &mut books)
    })?;
    table.notes.push(format!("idle: {} packets a second; {books}", count(IDLE_PPS)));
    match track.capacity(plan, &setup) {
        Ok(found) => {
            let rate_pps = found.rate_pps / 2;
            let mut books = Books::default();
            turns::take(plan, &track.bed, &setup, (&mut table, loaded), |running| {
                track.quantiles(running, rate_pps, plan.time, &mut books)
            })?;
            table.notes.push(format!("loaded: {} packets a second for everybody; {books}", count(rate_pps)));
            table.notes.push(explain(found));
        }
        Err(error) => {
            interrupt::check()?;
            for peer in &plan.peers {
                // Who is missing altogether has said so, which is the better reason.
                let reason = match table.series_mut(peer.name()).missing {
                    Some(_) => String::new(),
                    None => format!("no load to measure under: {error}"),
                };
                table.enter(peer.name(), &loaded, Err(&reason));
            }
        }
    }
    Ok(table)
}

/// Where the load comes from.
fn explain(Found { rate_pps, limit }: Found) -> String {
    let limit = match limit {
        Limit::Loss => "above, it lost more",
        Limit::Generator => "above, the generator did not keep the rate",
        Limit::Range => "more was not tried",
    };
    format!(
        "that load is half of {} packets a second, the highest rate tried of which {} sent back all but one in {LOSS_OF}; {limit}",
        count(rate_pps),
        REFERENCE.name(),
    )
}

/// Two hosts of which the right one sends back what the left one sends.
struct Track<'storage> {
    bed: Bed,
    near: Sink<'storage>,
    _far: Sink<'storage>,
}

/// One run.
struct Trips {
    paced: Paced,
    returned: u64,
    latencies: Latencies,
}

impl<'storage> Track<'storage> {
    fn new(cores: usize, near: &'storage mut Storage, far: &'storage mut Storage) -> Result<Self, Error> {
        let bed = Bed::new(cores)?;
        let attach = |host: &Host, storage, role| {
            // Hosts that speak IPv6 send now and then what nobody asked for.
            host.netns.sysctl("net.ipv6.conf.all.disable_ipv6", "1");
            let options = Options { flows: KNOWN_FLOWS, stamps: true, role };
            host.netns.within(|| Sink::attach_as(storage, iface_index(HOST_IFACE)?, options))
        };
        let near = attach(&bed.lab.left, near, Role::DropReplies)?;
        let far = attach(&bed.lab.right, far, Role::Echo)?;
        Ok(Self { bed, near, _far: far })
    }

    /// Sends and waits for what comes back.
    fn run(&self, dst_mac: [u8; 6], rate_pps: u64, amount: Amount) -> Result<Trips, Error> {
        interrupt::check()?;
        self.near.reset()?;
        let (left, right) = (&self.bed.lab.left, &self.bed.lab.right);
        let load = Load {
            flows: KNOWN_FLOWS,
            stamp: true,
            rate_pps: Some(rate_pps),
            ..Load::new(left.mac, dst_mac, right.v4)
        };
        let paced =
            left.netns.within(|| pace::run(&load, iface_index(HOST_IFACE)?, Spacing::Poisson, amount))?;
        let returned = self.returned(paced.packets)?;
        Ok(Trips { paced, returned, latencies: self.near.latencies()? })
    }

    /// Waits until all have come back, or no more do; returns how many.
    fn returned(&self, sent: u64) -> Result<u64, Error> {
        let mut before = self.near.counts()?.packets;
        while before < sent {
            thread::sleep(REST);
            let now = self.near.counts()?.packets;
            if now == before {
                break;
            }
            before = now;
        }
        Ok(before)
    }

    /// Has every flow answered, so that every peer knows it.
    fn warm_up(&self, running: &Running<'_>) -> Result<(), Error> {
        self.run(running.dst_mac(), WARM_UP_PPS, Amount::Packets(2 * KNOWN_FLOWS)).map(drop)
    }

    /// Quantiles of round trips in microseconds, at a rate that was kept.
    fn quantiles(
        &self,
        running: &Running<'_>,
        rate_pps: u64,
        time: Duration,
        books: &mut Books,
    ) -> Result<Vec<f64>, Error> {
        self.warm_up(running)?;
        let mut verdict = String::new();
        for _ in 0..ATTEMPTS {
            let trips = self.run(running.dst_mac(), rate_pps, Amount::Time(time))?;
            if trips.paced.is_kept() {
                trips.check_loss()?;
                books.enter(running.peer(), &trips);
                return trips.quantiles_us();
            }
            verdict = trips.paced.verdict();
        }
        Err(format!(
            "the generator did not keep {} packets a second in {ATTEMPTS} attempts; of the last one: {verdict}",
            count(rate_pps)
        )
        .into())
    }

    /// What the reference carries.
    fn capacity(&self, plan: &Plan, setup: &Setup) -> Result<Found, Error> {
        let running = REFERENCE.start(&self.bed, setup)?;
        self.warm_up(&running)?;
        let time = plan.time.min(TRIAL_MAX);
        let found = search::highest(RATES, |rate_pps| {
            let Trips { paced, returned, .. } = self.run(running.dst_mac(), rate_pps, Amount::Time(time))?;
            let lost = paced.packets.saturating_sub(returned);
            Ok(match paced.is_kept() {
                false => Trial::NotKept,
                true if lost > paced.packets / LOSS_OF => Trial::Lost,
                true => Trial::Held,
            })
        });
        running.stop()?;
        found.map_err(|error| format!("{}: {error}", REFERENCE.name()).into())
    }
}

impl Trips {
    /// Packets that do not come back have no time: whoever loses many must not look the faster for it.
    fn check_loss(&self) -> Result<(), Error> {
        let (sent, returned) = (self.paced.packets, self.returned);
        if returned >= sent - sent / LOSS_MAX_OF {
            return Ok(());
        }
        Err(format!("does not carry the load: {returned} of {sent} packets came back").into())
    }

    fn quantiles_us(&self) -> Result<Vec<f64>, Error> {
        let Latencies { histogram, from_future, beyond } = &self.latencies;
        if histogram.is_empty() {
            return Err(format!("of {} packets none came back", self.paced.packets).into());
        }
        if from_future + beyond > 0 {
            return Err(format!("{} stamps make no sense", from_future + beyond).into());
        }
        let micros =
            |(_, quantile)| Duration::from_nanos(histogram.value_at_quantile(quantile)).as_secs_f64() * 1e6;
        Ok(QUANTILES.map(micros).to_vec())
    }
}

/// Packets sent and lost, by peer.
#[derive(Default)]
struct Books(BTreeMap<&'static str, (u64, u64)>);

impl Books {
    fn enter(&mut self, peer: Peer, trips: &Trips) {
        let (sent, lost) = self.0.entry(peer.name()).or_default();
        *sent += trips.paced.packets;
        *lost += trips.paced.packets.saturating_sub(trips.returned);
    }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("packets that did not come back:")?;
        for (at, (peer, (sent, lost))) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma} {peer} {} of {}", count(*lost), count(*sent))?;
        }
        if self.0.is_empty() { f.write_str(" nobody was measured") } else { Ok(()) }
    }
}
