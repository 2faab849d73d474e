//! Every setting of a configuration with its value, and what differs between two configurations: what `fwctl config show`
//! and a reload of the file are made from.

use super::settings::{Change, Known, WIRE};
use super::{Config, WireConfig};
use serde_json::Value;
use std::collections::BTreeMap;

/// A setting that two configurations have different values of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Full name; `wire.0.left` for wires.
    pub name: String,
    /// When another value takes effect.
    pub change: Change,
    /// The value before; `null` if there is none.
    pub before: Value,
    /// The value after.
    pub after: Value,
}

/// A setting with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Full name; `wire.0.left` for wires.
    pub name: String,
    /// When another value takes effect.
    pub change: Change,
    /// Its value, `null` if there is none.
    pub value: Value,
    /// Its value unless told otherwise, `null` if there is none.
    pub default: Value,
    /// What it takes.
    pub takes: String,
    /// What it does.
    pub doc: &'static str,
}

impl Config {
    /// Every setting, wires first, in the order of the default file.
    #[must_use]
    pub fn items(&self) -> Vec<Item> {
        let defaults = Self::default();
        let mut items = Vec::new();
        for (index, wire) in self.wires.iter().enumerate() {
            let plain = WireConfig::default();
            items.extend(WIRE.iter().map(|setting| Item {
                name: format!("wire.{index}.{}", setting.name),
                change: setting.change,
                value: as_json((setting.show)(wire)),
                default: match setting.name {
                    "name" => Value::from(format!("wire{index}")),
                    _ => as_json((setting.show)(&plain)),
                },
                takes: setting.kind.takes(),
                doc: setting.doc,
            }));
        }
        items.extend(Known::all().map(|known| Item {
            name: known.name(),
            change: known.change(),
            value: as_json(known.show(self)),
            default: as_json(known.show(&defaults)),
            takes: known.kind().takes(),
            doc: known.doc(),
        }));
        items
    }

    /// What another configuration has different. A wire that only one of them has differs in every setting; where another wire
    /// has its place nothing changes before a restart.
    #[must_use]
    pub fn differences(&self, after: &Self) -> Vec<Difference> {
        let (before, mut later) = (self.items(), by_name(after));
        let is_moved = |item: &str| {
            let Some((index, _)) = item.strip_prefix("wire.").and_then(|rest| rest.split_once('.')) else {
                return false;
            };
            let wire = |config: &Self| {
                let WireConfig { name, left, right, .. } = config.wires.get(index.parse::<usize>().ok()?)?;
                Some((name.clone(), left.clone(), right.clone()))
            };
            after.wires.len() != self.wires.len() || wire(self) != wire(after)
        };
        let mut differences = Vec::new();
        for item in before {
            let value = later.remove(&item.name).map_or(Value::Null, |later| later.value);
            if value != item.value {
                let Item { name, mut change, value: before, .. } = item;
                if is_moved(&name) {
                    change = Change::Restart;
                }
                differences.push(Difference { name, change, before, after: value });
            }
        }
        // What is left belongs to wires that were not there before.
        differences.extend(later.into_values().filter(|item| item.value != Value::Null).map(|item| {
            Difference { name: item.name, change: Change::Restart, before: Value::Null, after: item.value }
        }));
        differences
    }

    /// Takes over one setting, by its full name, from another configuration with as many wires.
    pub fn take_over(&mut self, name: &str, from: &Self) {
        if let Some(rest) = name.strip_prefix("wire.") {
            let Some((index, field)) = rest.split_once('.') else { return };
            let index: usize = index.parse().unwrap_or(usize::MAX);
            let setting = WIRE.iter().find(|setting| setting.name == field);
            if let (Some(setting), Some(to), Some(from)) =
                (setting, self.wires.get_mut(index), from.wires.get(index))
            {
                (setting.copy)(to, from);
            }
        } else if let Some(known) = Known::find(name) {
            known.copy(self, from);
        }
    }
}

fn by_name(config: &Config) -> BTreeMap<String, Item> {
    config.items().into_iter().map(|item| (item.name.clone(), item)).collect()
}

/// A value as TOML has it, as JSON.
pub(super) fn as_json(toml: Option<String>) -> Value {
    let Some(toml) = toml else { return Value::Null };
    let table: Result<toml::Table, _> = format!("value = {toml}").parse();
    let value = table.ok().and_then(|mut table| table.remove("value"));
    value.and_then(|value| serde_json::to_value(value).ok()).unwrap_or(Value::String(toml))
}
