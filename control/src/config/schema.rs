//! The JSON Schema of the configuration file, made from the list of settings, so that editors complete names, explain
//! them and mark what does not fit. What a schema cannot say (that a NIC is used once) `fwctl config check` does.

use super::Config;
use super::differ::as_json;
use super::names::{ETHERTYPE_MIN, ETHERTYPES, IFACE_NAME_MAX};
use super::settings::{Change, Kind, Known, SECTIONS, WIRE};
use dataplane::ids::{PORTS_MAX, WORKERS_MAX};
use serde_json::{Map, Value, json};

/// The schema, in JSON Schema draft 7: what editors' TOML support understands.
#[must_use]
pub fn schema() -> Value {
    let defaults = Config::default();
    let mut properties = Map::new();
    let wire = WIRE.iter().map(|setting| {
        (setting.name.to_owned(), about(setting.kind, setting.doc, setting.change, Value::Null))
    });
    properties.insert(
        "wire".to_owned(),
        json!({
            "type": "array",
            "maxItems": PORTS_MAX / 2,
            "description": "The wires: what comes in on one NIC leaves on the other.",
            "items": { "type": "object", "additionalProperties": false, "properties": Value::Object(wire.collect()) },
        }),
    );
    for (section, explained) in SECTIONS {
        let settings = Known::all().filter(|known| known.section() == *section).map(|known| {
            let default = as_json(known.show(&defaults));
            (known.leaf().to_owned(), about(known.kind(), known.doc(), known.change(), default))
        });
        let object = json!({
            "type": "object",
            "description": explained,
            "additionalProperties": false,
            "properties": Value::Object(settings.collect()),
        });
        properties.insert((*section).to_owned(), object);
    }
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Palisade's configuration",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

/// One setting.
fn about(kind: Kind, doc: &str, change: Change, default: Value) -> Value {
    let mut about = values(kind);
    about.insert("description".to_owned(), format!("{doc} {}", change.words()).into());
    about.insert("x-change".to_owned(), json!(change));
    if default != Value::Null {
        about.insert("default".to_owned(), default);
    }
    Value::Object(about)
}

/// What a setting takes.
fn values(kind: Kind) -> Map<String, Value> {
    let number = |min: u32, max: u32| json!({"type": "integer", "minimum": min, "maximum": max});
    let powers = |min: u32, max: u32| {
        let powers: Vec<u32> =
            (0..32).map(|bit| 1_u32 << bit).filter(|power| (min..=max).contains(power)).collect();
        json!({ "enum": powers })
    };
    let auto = json!({"const": "auto"});
    let value = match kind {
        Kind::Switch => json!({"anyOf": [{"type": "boolean"}, {"enum": [0, 1]}]}),
        Kind::Int(min, max) => number(min, max),
        Kind::AutoInt(min, max) => json!({"anyOf": [auto, number(min, max)]}),
        Kind::Pow2(min, max) => powers(min, max),
        Kind::AutoPow2(min, max) => json!({"anyOf": [auto, powers(min, max)]}),
        Kind::Words(words) => {
            let words = words();
            let is_switch = words.contains(&"on") && words.contains(&"off");
            let switches = if is_switch { vec![json!(true), json!(false)] } else { Vec::new() };
            json!({"enum": words.into_iter().map(Value::from).chain(switches).collect::<Vec<_>>()})
        }
        Kind::Iface => {
            json!({"type": "string", "minLength": 1, "maxLength": IFACE_NAME_MAX, "pattern": r"^[^/:\s]+$"})
        }
        Kind::Name(_) | Kind::File => json!({"type": "string", "minLength": 1}),
        Kind::AbsoluteFile => json!({"type": "string", "pattern": "^/"}),
        Kind::FileOr(words) => {
            json!({"anyOf": [{ "enum": words }, {"type": "string", "pattern": "^/"}]})
        }
        // Addresses are left to `fwctl config check`, which says what is wrong with one.
        Kind::HostNames => json!({"type": "array", "items": {"type": "string", "minLength": 1}}),
        Kind::Endpoint => json!({"type": "string", "pattern": r":[0-9]+$"}),
        Kind::Listen => json!({"type": "string"}),
        Kind::Cores => json!({"anyOf": [auto, number(1, u32::try_from(WORKERS_MAX).unwrap_or(u32::MAX)), {
            "type": "array",
            "items": number(0, u32::from(u16::MAX)),
            "minItems": 1,
            "maxItems": WORKERS_MAX,
            "uniqueItems": true,
        }]}),
        Kind::EtherTypes => {
            let names: Vec<&str> = ETHERTYPES.iter().map(|(name, _)| *name).chain(["llc"]).collect();
            json!({"anyOf": [{"enum": ["all", "none"]}, {"type": "array", "items": {"anyOf": [
                { "enum": names },
                {"type": "string", "pattern": "^0[xX][0-9a-fA-F]+$"},
                number(ETHERTYPE_MIN.into(), u16::MAX.into()),
            ]}}]})
        }
        Kind::TimeoutPolicies => json!({"type": "array", "items": {"type": "string", "minLength": 1}}),
    };
    match value {
        Value::Object(map) => map,
        other => Map::from_iter([("const".to_owned(), other)]),
    }
}

#[cfg(test)]
mod tests;
