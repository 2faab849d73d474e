//! Every setting in words, for manuals. Any thread; the list is made from [`super::settings`] and says the same.

use super::Config;
use super::settings::{Change, Known, SECTIONS, WIRE};

/// A section, and what is in it.
#[derive(Clone, Debug)]
pub struct Section {
    /// Name, as between the brackets; `wire` for the list of wires.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Its settings, in the order of the default file.
    pub settings: Vec<Listed>,
}

/// A setting as a manual describes it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Name within its section.
    pub name: &'static str,
    /// What it takes: `a whole number from 0 to 10000`.
    pub takes: String,
    /// Its value unless told otherwise, as TOML; `None`: nothing.
    pub default: Option<String>,
    /// What it does.
    pub doc: &'static str,
    /// When another value takes effect in a daemon that runs.
    pub change: Change,
}

/// All sections, wires first, as in the default file.
#[must_use]
pub fn sections() -> Vec<Section> {
    let config = Config::default();
    let wire = super::WireConfig::default();
    let settings = WIRE.iter().map(|setting| Listed {
        name: setting.name,
        takes: setting.kind.takes(),
        default: (setting.show)(&wire).filter(|value| value != "\"\""),
        doc: setting.doc,
        change: setting.change,
    });
    let wires = Section {
        name: "wire",
        about: "The wires: what comes in on one NIC leaves on the other. One [[wire]] each.",
        settings: settings.collect(),
    };
    let others = SECTIONS.iter().map(|(name, about)| Section {
        name,
        about,
        settings: Known::all()
            .filter(|known| known.section() == *name)
            .map(|known| Listed {
                name: known.leaf(),
                takes: known.kind().takes(),
                default: known.show(&config),
                doc: known.doc(),
                change: known.change(),
            })
            .collect(),
    });
    std::iter::once(wires).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_out_and_defaults_are_those_of_the_default_file() {
        let sections = sections();
        let file = Config::default_toml();
        let count: usize = sections.iter().map(|section| section.settings.len()).sum();
        assert_eq!(count, WIRE.len() + Known::all().count());
        for section in &sections[1..] {
            let header = format!("\n[{}]\n", section.name);
            let body = file.split(&header).nth(1).unwrap_or_else(|| panic!("no {header}"));
            let body = body.split("\n[").next().unwrap_or_default();
            for setting in &section.settings {
                let line = match &setting.default {
                    Some(value) => format!("{} = {value}", setting.name),
                    None => format!("# {} = ", setting.name),
                };
                assert!(body.lines().any(|have| have.starts_with(&line)), "{line} in {body}");
                assert!(!setting.doc.is_empty() && !setting.takes.is_empty(), "{}", setting.name);
            }
        }
    }
}
