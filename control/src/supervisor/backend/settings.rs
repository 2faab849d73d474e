//! Connection tracking settings under netfilter's names, shown and changed.

use super::LiveBackend;
use crate::iptables::names::nearest;
use dataplane::flow::{SettingError, TrackSettings};

impl LiveBackend {
    /// Most flows as things are: what the tables were made for, or less if so set.
    pub(super) fn flows_max_now(&self) -> u32 {
        match self.publisher.track_settings().max.0 {
            0 => self.flows_max,
            max => max.min(self.flows_max),
        }
    }

    /// All settings by name, and what can only be read.
    pub(super) fn all_settings(&self) -> Vec<(String, u32)> {
        let sum =
            |of: fn(&super::WorkerFacts) -> u32| self.workers.iter().map(of).fold(0, u32::saturating_add);
        let track = self.publisher.track_settings();
        let mut all: Vec<_> = track.iter().map(|(name, value)| (name.to_owned(), value)).collect();
        all.retain(|(name, _)| name != "max");
        all.push(("max".to_owned(), self.flows_max_now()));
        all.push(("count".to_owned(), sum(|worker| worker.region.flow_count())));
        all.push(("buckets".to_owned(), sum(|worker| worker.region.bucket_count())));
        all.sort();
        all
    }

    /// Changes one of them.
    pub(super) fn change_setting(&self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "count" => return Err("count: can only be read; it is how many flows there are".to_owned()),
            "buckets" => {
                return Err(
                    "buckets: can only be read; flows.max says at start how large the tables are".to_owned()
                );
            }
            "max" if value.trim().parse::<u32>().is_ok_and(|max| max > self.flows_max) => {
                return Err(format!(
                    "max: the tables were made for {} flows; start with a larger flows.max for more",
                    self.flows_max
                ));
            }
            _ => {}
        }
        self.publisher.set(name, value).map_err(|error| match error {
            SettingError::Unknown { name } => unknown(&name),
            error => error.to_string(),
        })?;
        self.hub.enable(self.publisher.track_settings().events.0 != 0);
        Ok(())
    }
}

fn unknown(name: &str) -> String {
    match nearest(name, TrackSettings::NAMES.iter().copied()) {
        Some(near) => format!("there is no setting `{name}`; did you mean `{near}`?"),
        None => format!("there is no setting `{name}`; `fwctl sysctl` lists all"),
    }
}
