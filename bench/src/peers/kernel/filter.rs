//! Who filters in the kernel, and how rules get there: a whole ruleset in one transaction, as after a boot and as at a
//! change.

use crate::Error;
use crate::peers::Rules;
use crate::peers::changes::{Changes, run};
use palisade_tests::lab::Netns;
use std::io::Write as _;

/// The tool that loads rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::peers) enum Filter {
    /// `iptables-restore` and `ip6tables-restore`, in the form that the system has: nf_tables on Debian, the older one
    /// where an operator chose it.
    Iptables,
    /// `nft -f`.
    Nft,
}

impl Filter {
    /// Puts these rules in place of what is there.
    ///
    /// # Errors
    /// If they are refused.
    pub(super) fn load(self, netns: &Netns, rules: &Rules) -> Result<(), Error> {
        match self {
            Self::Iptables => {
                load_file(netns, &["iptables-restore"], &rules.iptables_save())?;
                load_file(netns, &["ip6tables-restore"], &rules.ip6tables_save())
            }
            Self::Nft => load_file(netns, &["nft", "-f"], &rules.nft()),
        }
    }

    /// Has rules and connections removed at the end. The connections after the rules: no packet makes another one then.
    pub(super) fn empty_on_undo<'bed>(self, changes: &mut Changes<'bed>, netns: &'bed Netns) {
        changes.on_undo(netns, &["conntrack", "-F"]);
        // Both tools' rules are nf_tables' on Debian. Where iptables is the older one, it has to be asked itself.
        changes.on_undo(netns, &["nft", "flush", "ruleset"]);
        if self == Self::Iptables {
            for tool in ["iptables", "ip6tables"] {
                changes.on_undo(netns, &[tool, "-P", "FORWARD", "ACCEPT"]);
                changes.on_undo(netns, &[tool, "-F"]);
            }
        }
    }
}

fn load_file(netns: &Netns, command: &[&str], text: &str) -> Result<(), Error> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(text.as_bytes())?;
    run(netns, &[command, &[&file.path().to_string_lossy()]].concat()).map(drop)
}
