//! The API described to programs: an OpenAPI 3.1 document, answered at `GET /v1/openapi.json`, which the reference in the
//! book is made from as well. Pure; made once, on the first request.
//!
//! Schemas are those of the types that the server itself reads and writes, derived by `schemars`, which goes by the same
//! serde attributes: what a field is called, whether it may be missing, what a newtype looks like on the wire. (OpenAPI 3.1
//! takes JSON Schema as it is.) Paths stand in `operations`, one entry for each; a test holds that list against the router.

mod operations;
#[cfg(test)]
mod tests;

pub use operations::{Answer, Method, OPERATIONS, Operation};

use super::access::Access;
use schemars::Schema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// Where schemas stand in the document, and what their names are prefixed with in references.
const SCHEMAS: &str = "#/components/schemas/";

/// Refusals that any request may meet, with what they mean. The body is an `ErrorBody`.
const REFUSALS: &[(&str, &str)] = &[
    ("400", "The request made no sense, or named something that is not there to be changed."),
    ("403", "Whoever asks may not: the message names the group that may."),
    ("404", "There is no such thing."),
    ("405", "This address does not take such a request."),
    ("408", "The request did not come in time."),
    (
        "409",
        "Others are at it: a change is under way or waits for its confirmation, or too many listen already.",
    ),
    ("413", "The request is too large."),
    ("422", "The rules are wrong, or ask for something not supported; `diagnostics` has each place."),
    ("500", "The daemon failed; its log says more."),
];

/// The document, as text.
#[must_use]
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", document()));
    &TEXT
}

/// The document.
#[must_use]
pub fn document() -> Value {
    let mut schemas = Schemas::default();
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let described = describe(operation, &mut schemas);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(methods) = path.as_object_mut() {
            methods.insert(operation.method.key().to_owned(), described);
        }
    }
    let error = schemas.answers.subschema_for::<super::types::ErrorBody>();
    let refusals: Map<String, Value> = REFUSALS
        .iter()
        .map(|(status, why)| {
            let body = json!({ "description": why, "content": { "application/json": { "schema": error } } });
            ((*status).to_owned(), body)
        })
        .collect();
    let mut document = json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Palisade",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What fwd says and does over its Unix socket, and read-only over TCP where that is switched on. \
                Counters count since the daemon started unless said otherwise. Bytes are those of Ethernet frames without \
                FCS, those of rules and flows begin at the IP header. One request per connection.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "http://localhost", "description": "curl --unix-socket /run/palisade/fwd.sock" }],
        "paths": paths,
        "components": { "responses": refusals, "schemas": schemas.finish() },
    });
    tidy(&mut document);
    document
}

/// Schemas met so far. What is read may leave fields out that what is written always has.
struct Schemas {
    requests: SchemaGenerator,
    answers: SchemaGenerator,
}

impl Default for Schemas {
    fn default() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = SCHEMAS.into();
                settings.meta_schema = None;
            })
        };
        Self {
            requests: settings().for_deserialize().into_generator(),
            answers: settings().for_serialize().into_generator(),
        }
    }
}

impl Schemas {
    /// All that were referred to. One that is both read and written is described as it is written.
    fn finish(mut self) -> Map<String, Value> {
        let mut all = self.requests.take_definitions(true);
        all.extend(self.answers.take_definitions(true));
        all
    }
}

/// One operation as the document has it.
fn describe(operation: &Operation, schemas: &mut Schemas) -> Value {
    let mut responses: Map<String, Value> = operation
        .refusals
        .iter()
        .chain(&[403])
        .map(|status| (status.to_string(), json!({ "$ref": format!("#/components/responses/{status}") })))
        .collect();
    responses.insert("200".to_owned(), answer(operation, schemas));
    let mut described = json!({
        "operationId": operation.id(),
        "summary": operation.summary,
        "description": join(operation.description, operation.access().map_or("", who)),
        "tags": [operation.tag],
        "responses": responses,
    });
    if let Some(query) = operation.query {
        described["parameters"] = parameters(&query(&mut schemas.requests), &mut schemas.requests);
    }
    if let Some(body) = operation.body {
        let schema = body(&mut schemas.requests);
        described["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    described
}

/// Who may ask, in a sentence.
const fn who(access: Access) -> &'static str {
    match access {
        Access::Read => "For whoever may look.",
        Access::Look => "For whoever may look; that it was asked stands in the audit log.",
        Access::Write => "For whoever may change.",
        Access::Depends => "For whoever may look, or change if it changes something.",
    }
}

/// Sentences, one behind the other.
fn join(one: &str, other: &str) -> String {
    [one, other].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}

/// What comes back when it was done.
fn answer(operation: &Operation, schemas: &mut Schemas) -> Value {
    let (kind, schema, what) = match operation.answer {
        Answer::Json(schema) => ("application/json", schema(&mut schemas.answers), "The answer."),
        Answer::Lines(schema) => {
            ("application/x-ndjson", schema(&mut schemas.answers), "One such object per line.")
        }
        Answer::Text(kind) => (kind, schemars::json_schema!({ "type": "string" }), "Text."),
    };
    json!({ "description": what, "content": { kind: { "schema": schema } } })
}

/// The fields of a query, each a parameter of its own.
fn parameters(query: &Schema, schemas: &mut SchemaGenerator) -> Value {
    let whole = match query.get("$ref").and_then(Value::as_str).and_then(|at| at.strip_prefix(SCHEMAS)) {
        Some(name) => schemas.definitions().get(name).cloned().unwrap_or_default(),
        None => query.clone().to_value(),
    };
    let required: Vec<&str> =
        whole["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let fields = whole["properties"].as_object().into_iter().flatten();
    let parameters = fields.map(|(name, schema)| {
        let mut schema = schema.clone();
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        json!({
            "name": name,
            "in": "query",
            "required": required.contains(&name.as_str()),
            "description": description.unwrap_or_default(),
            "schema": schema,
        })
    });
    parameters.collect()
}

/// Descriptions are doc comments: their links and line ends mean nothing here.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == "description" => {
                        *text = text.replace("[`", "`").replace("`]", "`").replace('\n', " ");
                    }
                    other => tidy(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
