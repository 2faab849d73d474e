//! The API's reference, from its OpenAPI document: requests by what they are about, then every type.

use super::cell;
use control::api::openapi::{self, Answer, OPERATIONS, Operation};
use serde_json::{Map, Value};
use std::fmt::Write as _;

pub(super) fn page() -> String {
    let document = openapi::document();
    let mut out = String::from(
        "# API reference\n\n\
         Made from the [OpenAPI document](openapi.json), which `GET /v1/openapi.json` answers as well. How to ask, with \
         examples: [The API](index.md).\n\n\
         | request | what it does |\n|---|---|\n",
    );
    for operation in OPERATIONS {
        let (title, summary) = (title(operation), operation.summary);
        let _ = writeln!(out, "| [`{title}`](#{}) | {} |", operation.id(), cell(summary));
    }
    let mut tags: Vec<&str> = Vec::new();
    for operation in OPERATIONS {
        if !tags.contains(&operation.tag) {
            tags.push(operation.tag);
        }
    }
    for tag in tags {
        let _ = write!(out, "\n## {tag}\n");
        for operation in OPERATIONS.iter().filter(|operation| operation.tag == tag) {
            describe(&mut out, operation, &document);
        }
    }
    out.push_str(
        "\n## Refusals\n\nWhatever is refused is answered with an [`ErrorBody`](#type-errorbody).\n\n",
    );
    out.push_str("| status | meaning |\n|---|---|\n");
    for (status, response) in fields(&document, "/components/responses") {
        let _ = writeln!(out, "| {status} | {} |", cell(text(&response, "description")));
    }
    out.push_str("\n## Types\n");
    for (name, schema) in fields(&document, "/components/schemas") {
        let _ = write!(out, "\n### <a id=\"type-{}\"></a>{name}\n\n", name.to_lowercase());
        type_of(&mut out, &schema);
    }
    out
}

fn title(operation: &Operation) -> String {
    format!("{} {}", operation.method.name(), operation.path)
}

fn describe(out: &mut String, operation: &Operation, document: &Value) {
    let at = format!("/paths/{}/{}", operation.path.replace('/', "~1"), operation.method.key());
    let described = document.pointer(&at).expect("every operation is in the document");
    let _ = write!(
        out,
        "\n### <a id=\"{}\"></a>`{}`\n\n{}.",
        operation.id(),
        title(operation),
        operation.summary
    );
    let _ = write!(out, " {}", text(described, "description"));
    out.push_str("\n\n");
    if let Some(parameters) = described.get("parameters").and_then(Value::as_array) {
        out.push_str("| parameter | type | meaning |\n|---|---|---|\n");
        for parameter in parameters {
            let required = if parameter["required"] == true { " Required." } else { "" };
            let _ = writeln!(
                out,
                "| `{}` | {} | {}{required} |",
                text(parameter, "name"),
                kind(&parameter["schema"]).replace(" or null", ""),
                cell(text(parameter, "description"))
            );
        }
        out.push('\n');
    }
    if let Some(body) = described.pointer("/requestBody/content/application~1json/schema") {
        let _ = writeln!(out, "* Body: {}", kind(body));
    }
    let content = described.pointer("/responses/200/content").and_then(Value::as_object);
    let schema = content.and_then(|content| content.values().next()).map(|content| &content["schema"]);
    let answer = match (operation.answer, schema) {
        (Answer::Json(_), Some(schema)) => kind(schema),
        (Answer::Lines(_), Some(schema)) => format!("lines of {}", kind(schema)),
        (Answer::Text(media), _) => format!("text, `{media}`"),
        _ => String::new(),
    };
    let _ = writeln!(out, "* Answer: {answer}");
    let refusals = described.get("responses").and_then(Value::as_object).into_iter().flatten();
    let refusals: Vec<&str> =
        refusals.map(|(status, _)| status.as_str()).filter(|status| *status != "200").collect();
    let _ = writeln!(out, "* Refusals: {}", refusals.join(", "));
}

/// The fields of an object, or what else it is.
fn type_of(out: &mut String, schema: &Value) {
    let about = text(schema, "description");
    if !about.is_empty() {
        let _ = write!(out, "{}\n\n", cell(about));
    }
    let variants = ["oneOf", "anyOf"].iter().find_map(|key| schema.get(key)?.as_array());
    let has_fields =
        schema.get("properties").and_then(Value::as_object).is_some_and(|fields| !fields.is_empty());
    if has_fields {
        table(out, schema);
    }
    if let Some(variants) = variants {
        out.push_str(if has_fields { "\nBeside these, one of:\n\n" } else { "One of:\n\n" });
        for variant in variants {
            let about = text(variant, "description");
            let about = if about.is_empty() { String::new() } else { format!(": {}", cell(about)) };
            let _ = writeln!(out, "* {}{about}", inline(variant));
        }
    } else if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        let _ = writeln!(out, "One of {}.", words.join(", "));
    } else if !has_fields {
        let _ = writeln!(out, "Written as {}.", kind(schema));
    }
}

fn table(out: &mut String, schema: &Value) {
    out.push_str("| field | type | meaning |\n|---|---|---|\n");
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let may_miss = if required.contains(&name.as_str()) { "" } else { " May be missing." };
        let meaning = cell(text(field, "description"));
        let _ = writeln!(out, "| `{name}` | {} | {meaning}{may_miss} |", kind(field));
    }
}

/// A variant: a word, or an object by its fields.
fn inline(schema: &Value) -> String {
    match schema.get("properties").and_then(Value::as_object) {
        Some(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(name, field)| format!("`{name}` ({})", kind(field))).collect();
            format!("an object with {}", fields.join(", "))
        }
        None => kind(schema),
    }
}

/// A type in a few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next()) {
        return format!("[{name}](#type-{})", name.to_lowercase());
    }
    if let Some(word) = schema.get("const") {
        return format!("`{word}`");
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ");
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(variants) = schema.get(key).and_then(Value::as_array) {
            return variants.iter().map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    match schema.get("type") {
        Some(Value::Array(kinds)) => {
            let kinds: Vec<String> = kinds
                .iter()
                .map(|one| {
                    let mut schema = schema.as_object().cloned().unwrap_or_default();
                    schema.insert("type".to_owned(), one.clone());
                    kind(&Value::Object(schema))
                })
                .collect();
            kinds.join(" or ")
        }
        Some(Value::String(word)) if word == "array" => array(schema),
        Some(Value::String(word)) if word == "object" => match schema.get("additionalProperties") {
            Some(values) if values.is_object() => format!("object of {}", kind(values)),
            _ if schema
                .get("properties")
                .is_some_and(|fields| fields.as_object().is_some_and(|f| !f.is_empty())) =>
            {
                inline(schema)
            }
            _ => "object".to_owned(),
        },
        Some(Value::String(word)) if word == "string" => match text(schema, "format") {
            "" => "string".to_owned(),
            "ip" => "IP address".to_owned(),
            other => format!("string ({other})"),
        },
        Some(Value::String(word)) => word.clone(),
        _ => "anything".to_owned(),
    }
}

fn array(schema: &Value) -> String {
    match schema.get("prefixItems").and_then(Value::as_array) {
        Some(items) => format!("[{}]", items.iter().map(kind).collect::<Vec<_>>().join(", ")),
        None => format!("list of {}", kind(&schema["items"])),
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn fields(document: &Value, at: &str) -> Map<String, Value> {
    document.pointer(at).and_then(Value::as_object).cloned().unwrap_or_default()
}
