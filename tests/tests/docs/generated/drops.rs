//! Every drop reason: what it means, from the dataplane's list, and what to do.

use control::advice::{Area, advice, area};
use dataplane::flow::InvalidReason;
use dataplane::reason::DropReason;
use std::fmt::Write as _;

pub(super) fn page() -> String {
    let mut out = String::from(
        "# Drop reasons\n\n\
         A packet that comes in is forwarded, still on its way, or dropped for exactly one of these reasons. `fwctl stats` \
         counts packets and bytes of each, per wire and in all (`--all` shows those that are zero, too). Names are stable: \
         the API, metrics, captures and the log use the same ones.\n\n\
         INVALID is not among them. Connection tracking only says that a packet is INVALID; a rule drops it, or does not. \
         [Its causes](#causes-of-invalid) are counted beside the reasons, in `fwctl stats`.\n\n\
         | reason | packets of |\n|---|---|\n",
    );
    for reason in DropReason::ALL {
        let _ = writeln!(out, "| [`{0}`](#{0}) | {1} |", reason.name(), area(*reason).title());
    }
    for area_of in Area::ALL {
        let _ = write!(out, "\n## {}\n", area_of.title());
        for reason in DropReason::ALL.iter().filter(|reason| area(**reason) == area_of) {
            let _ = write!(out, "\n### {}\n\n{}\n\n", reason.name(), reason.text().trim());
            let _ = writeln!(out, "**What to do.** {}", advice(*reason));
        }
    }
    out.push_str(
        "\n## Causes of INVALID\n\n\
         Not drops: such a packet meets the rules as INVALID, and they decide about it.\n\n| cause | meaning |\n|---|---|\n",
    );
    for reason in InvalidReason::ALL {
        let _ = writeln!(out, "| `{}` | {} |", reason.name(), super::cell(reason.text().trim()));
    }
    out
}
