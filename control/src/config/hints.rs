//! What to say about a name nobody knows or a value that does not fit.

use super::Problem;
use super::error::Place;
use super::names::nearest;
use super::settings::{CONNTRACK, Kind, Known, SECTIONS, WIRE};
use super::value::{Misfit, Raw};

pub(super) fn misfit_problem(name: &str, kind: Kind, raw: &Raw, misfit: Misfit, source: usize) -> Problem {
    let Misfit { span, why, hint } = misfit;
    let message = why.map_or_else(
        || format!("`{name}` takes {}, not {}", kind.takes(), raw.describe()),
        |why| format!("`{name}`: {why}"),
    );
    let problem = Problem::new(message).at(Place { source, span });
    match hint {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

pub(super) fn unknown_section(name: &str) -> Problem {
    let problem = Problem::new(format!("there is no section `{name}`"));
    let misplaced = Known::all().find(|known| known.leaf() == name);
    if let Some(known) = misplaced {
        return problem.hint(format!("the setting `{name}` stands in [{}]", known.section()));
    }
    let sections = SECTIONS.iter().map(|(section, _)| *section);
    match nearest(name, sections.clone().chain(["wire"])) {
        Some("wire") => problem.hint("did you mean [[wire]]?"),
        Some(section) => problem.hint(format!("did you mean [{section}]?")),
        None => {
            problem.hint(format!("the sections are [[wire]], {}", sections.collect::<Vec<_>>().join(", ")))
        }
    }
}

pub(super) fn unknown_in_section(section: &str, leaf: &str) -> Problem {
    let problem = Problem::new(format!("there is no setting `{leaf}` in [{section}]"));
    let bare = leaf.strip_prefix("nf_conntrack_").unwrap_or(leaf);
    if section == "conntrack" && bare != leaf && CONNTRACK.iter().any(|setting| setting.name == bare) {
        return problem.hint(format!("write it without the prefix: `{bare}`"));
    }
    let near = Known::all().filter(|known| known.section() == section).map(Known::leaf);
    if let Some(name) = nearest(leaf, near) {
        return problem.hint(format!("did you mean `{name}`?"));
    }
    if let Some(known) = Known::all().find(|known| known.leaf() == leaf) {
        return problem.hint(format!("it stands in [{}]", known.section()));
    }
    match nearest(leaf, Known::all().map(Known::leaf)) {
        Some(name) => problem.hint(format!("did you mean `{name}`?")),
        None => problem.hint("`fwd --print-defaults` shows every setting"),
    }
}

pub(super) fn unknown_in_wire(field: &str) -> Problem {
    let problem = Problem::new(format!("there is no setting `{field}` in [[wire]]"));
    match nearest(field, WIRE.iter().map(|setting| setting.name)) {
        Some(name) => problem.hint(format!("did you mean `{name}`?")),
        None => problem.hint("a wire has name, left, right, queues and full"),
    }
}

pub(super) fn unknown_set(name: &str) -> Problem {
    let problem = Problem::new(format!("there is no setting `{name}`"));
    let full: Vec<String> = Known::all().map(Known::name).collect();
    let mut all: Vec<&str> = Known::all().map(Known::leaf).collect();
    all.extend(WIRE.iter().map(|setting| setting.name));
    all.extend(full.iter().map(String::as_str));
    match nearest(name, all) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => problem.hint("`fwd --print-defaults` shows every setting"),
    }
}
