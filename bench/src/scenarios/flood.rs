//! Honest traffic beside a flood of SYNs, each from somebody else, which nobody answers: how much of it arrives when the
//! peer's table has no room left. Two kinds of honest traffic:
//!
//! * *Open*: data of a thousand connections that were opened by true handshakes before the flood. Every table knows them
//!   for assured ones; what they lose, they lose to the work that a flood makes.
//! * *New*: connections that begin meanwhile. Each has one SYN; one that is lost is not sent again, as a host would.
//!
//! The flood goes on from run to run without a flow that was there before, so that a table that was filled stays full.

use super::ends::{Ends, syns};
use super::{KNOWN_FLOWS, Plan, turns};
use crate::Error;
use crate::bed::Bed;
use crate::handshake::Storage;
use crate::load::{Amount, Flood, Load, Protocol};
use crate::peers::{Running, Setup};
use crate::results::{Better, Table};
use std::time::Duration;

/// Room of every peer's table. What Linux gives itself on a machine of 4 GiB or more: its limit is only ever raised by the
/// bench, and a lower one for all others would be no comparison.
const MAX_FLOWS: u32 = 262_144;

/// Honest packets a second where the rate is set.
const HONEST_PPS: u64 = 10_000;

/// Of so many packets one is honest when there is as much flood as there can be; of 2 million packets a second as many as
/// in the other runs.
const HONEST_EVERY_AT_MOST: u32 = 200;

/// Most new connections a second that can be among those: more than one core generates.
const NEW_PPS_MAX: u32 = 10_000_000 / HONEST_EVERY_AT_MOST;

/// Time that the flood has to fill the tables. The weaker one brings twice what they hold.
const FILLING: Duration = Duration::from_secs(1);

/// Connections a second at which those that are there before the flood are opened.
const OPENING_PPS: u64 = 10_000;

/// How much flood there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strength {
    None,
    /// So many packets a second.
    Pps(u64),
    /// As many as the generator makes.
    Most,
}

const STRENGTHS: [(&str, Strength); 3] =
    [("no flood", Strength::None), ("0.5 Mpps", Strength::Pps(500_000)), ("most", Strength::Most)];

/// One peer under attack.
struct Attack<'run> {
    bed: &'run Bed,
    ends: &'run Ends<'run>,
    running: &'run Running<'run>,
    time: Duration,
    /// The flood's next flow.
    flood: u32,
    /// The next new connection.
    fresh: u32,
}

/// Measures it.
pub(super) fn measure(plan: &Plan) -> Result<Table, Error> {
    let points = STRENGTHS.map(|(name, _)| ["open", "new"].map(|kind| format!("{kind}, {name}")));
    let title = format!("Honest packets beside a flood of SYNs, table of {MAX_FLOWS} flows, 10 rules");
    let mut table = Table::new("flood", &title, ("% arrived", Better::Higher), points.as_flattened());
    let mut storages = [Storage::default(), Storage::default()];
    let bed = Bed::new(plan.cores)?;
    let fresh = u32::try_from(STRENGTHS.len())? * fresh_flows(plan.time);
    let ends = Ends::attach(&bed, &mut storages, KNOWN_FLOWS + fresh)?;
    // Its users' setting: the flood's connections are half open, and the honest ones are not.
    let setup = Setup { max_flows: MAX_FLOWS, half_open_guard: true, ..Setup::default() };
    turns::take(plan, &bed, &setup, (&mut table, 0..points.as_flattened().len()), |running| {
        Attack::begin(&bed, &ends, running, plan.time)?.all()
    })?;
    table.notes.extend([
        format!("open: data of {KNOWN_FLOWS} connections opened before; new: handshakes completed of SYNs sent, none sent twice"),
        "a flood beyond what a peer can take is lost at the NIC's ring with what is honest: compare with the floor".to_owned(),
    ]);
    Ok(table)
}

/// New connections that a run needs at most.
fn fresh_flows(time: Duration) -> u32 {
    let secs = u32::try_from(time.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
    NEW_PPS_MAX.saturating_mul(secs)
}

impl<'run> Attack<'run> {
    /// Opens the connections that are to be there before.
    fn begin(
        bed: &'run Bed,
        ends: &'run Ends<'run>,
        running: &'run Running<'run>,
        time: Duration,
    ) -> Result<Self, Error> {
        ends.reset()?;
        let load = Load { rate_pps: Some(OPENING_PPS), ..syns(bed, running, 0, KNOWN_FLOWS) };
        bed.run(&load, Amount::Packets(KNOWN_FLOWS), |_| Ok(()))?;
        let completed = ends.at_rest()?.completed;
        if completed != u64::from(KNOWN_FLOWS) {
            return Err(format!("of {KNOWN_FLOWS} connections {completed} could be opened").into());
        }
        Ok(Self { bed, ends, running, time, flood: 0, fresh: KNOWN_FLOWS })
    }

    /// Percent of honest packets that arrive, by strength, open connections' and new ones'.
    fn all(mut self) -> Result<Vec<f64>, Error> {
        let mut shares = Vec::new();
        for (_, strength) in STRENGTHS {
            self.fill(strength)?;
            shares.extend([self.open(strength)?, self.new_ones(strength)?]);
        }
        Ok(shares)
    }

    /// Fills the table.
    fn fill(&mut self, strength: Strength) -> Result<(), Error> {
        let rate_pps = match strength {
            Strength::None => return Ok(()),
            Strength::Pps(rate) => Some(rate),
            Strength::Most => None,
        };
        let load = self.bed.load_to(self.running, KNOWN_FLOWS);
        self.run(&Load { rate_pps, flood: Some(self.flood_among(0)), ..load }, FILLING)?;
        Ok(())
    }

    /// Share of open connections' data.
    fn open(&mut self, strength: Strength) -> Result<f64, Error> {
        let load = Load { protocol: Protocol::Tcp, ..self.bed.load_to(self.running, KNOWN_FLOWS) };
        let before = self.ends.arrived()?.data;
        let honest = self.run(&self.beside(strength, &load), self.time)?;
        Ok(percent(self.ends.at_rest()?.data - before, honest))
    }

    /// Share of new connections that are opened.
    fn new_ones(&mut self, strength: Strength) -> Result<f64, Error> {
        let flows = fresh_flows(self.time);
        let load = syns(self.bed, self.running, self.fresh, flows);
        self.fresh += flows;
        let before = self.ends.arrived()?.completed;
        let honest = self.run(&self.beside(strength, &load), self.time)?;
        Ok(percent(self.ends.at_rest()?.completed - before, honest))
    }

    /// The load with the flood around it.
    fn beside(&self, strength: Strength, load: &Load) -> Load {
        match strength {
            Strength::None => Load { rate_pps: Some(HONEST_PPS), ..load.clone() },
            Strength::Pps(flood) => {
                let rate = flood + HONEST_PPS;
                let honest_every = u32::try_from(rate / HONEST_PPS).unwrap_or(u32::MAX);
                Load { rate_pps: Some(rate), flood: Some(self.flood_among(honest_every)), ..load.clone() }
            }
            Strength::Most => Load { flood: Some(self.flood_among(HONEST_EVERY_AT_MOST)), ..load.clone() },
        }
    }

    /// The flood from where it ended, one of so many packets being honest.
    const fn flood_among(&self, honest_every: u32) -> Flood {
        Flood { protocol: Protocol::Syn, honest_every, first: self.flood }
    }

    /// Sends it; returns how many packets were honest.
    fn run(&mut self, load: &Load, time: Duration) -> Result<u64, Error> {
        let (sent, ()) = self.bed.run(load, Amount::Time(time), |_| Ok(()))?;
        self.flood = self.flood.wrapping_add(u32::try_from(sent.flood)?);
        Ok(sent.packets - sent.flood)
    }
}

#[expect(clippy::cast_precision_loss, reason = "packet counts are far below 2^52")]
fn percent(arrived: u64, sent: u64) -> f64 {
    arrived as f64 / sent.max(1) as f64 * 100.0
}
