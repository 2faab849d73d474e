//! `-m physdev` in a wire's terms: its two NICs are the ports of a bridge, and every packet is bridged from one to the other.

use super::super::model::{Hook, IfacePattern};
use super::HeaderMatch;

/// What is asked of the NICs. Conditions that are absent hold.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Device {
    /// `--physdev-in`, and whether inverted.
    pub ingress: Option<(IfacePattern, bool)>,
    /// `--physdev-out`, and whether inverted.
    pub egress: Option<(IfacePattern, bool)>,
    /// `--physdev-is-in`, false if inverted.
    pub is_in: Option<bool>,
    /// `--physdev-is-out`, false if inverted.
    pub is_out: Option<bool>,
    /// `--physdev-is-bridged`, false if inverted.
    pub is_bridged: Option<bool>,
}

impl Device {
    /// The same as sets of NICs, called `ports` by number. Where the egress NIC is not known yet a packet is not bridged
    /// yet either; the ingress NIC remains known to the end.
    pub(in crate::rules) fn resolve(&self, hook: Hook, ports: &[String]) -> HeaderMatch {
        let knows_egress = matches!(hook, Hook::Forward | Hook::Postrouting);
        let may = self.is_in.unwrap_or(true)
            && self.is_out.is_none_or(|asked| asked == knows_egress)
            && self.is_bridged.is_none_or(|asked| asked == knows_egress);
        if !may || self.egress.is_some() && !knows_egress {
            return HeaderMatch::Nics { ingress: 0, egress: 0 };
        }
        HeaderMatch::Nics {
            ingress: nics(self.ingress.as_ref(), ports),
            egress: nics(self.egress.as_ref(), ports),
        }
    }
}

fn nics(asked: Option<&(IfacePattern, bool)>, ports: &[String]) -> u64 {
    let fits = |name: &String| asked.is_none_or(|(pattern, invert)| pattern.fits(name) != *invert);
    (0_u32..64).zip(ports).filter(|(_, name)| fits(name)).fold(0, |set, (index, _)| set | 1 << index)
}
