use super::super::ROUTES;
use super::super::testing::Fake;
use super::super::tests::Rig;
use super::*;
use std::collections::BTreeSet;

#[test]
fn every_route_is_described_and_nothing_else_is() {
    let there: BTreeSet<_> =
        ROUTES.iter().map(|route| (route.method.to_owned(), route.path.to_owned())).collect();
    let described: BTreeSet<_> = OPERATIONS
        .iter()
        .map(|operation| (operation.method.key().to_owned(), operation.path.to_owned()))
        .collect();
    assert_eq!(described.len(), OPERATIONS.len(), "each once");
    let missing: Vec<_> = there.difference(&described).collect();
    assert!(missing.is_empty(), "no entry in openapi/operations.rs for {missing:?}");
    let gone: Vec<_> = described.difference(&there).collect();
    assert!(gone.is_empty(), "openapi/operations.rs has entries without a route: {gone:?}");
}

#[test]
fn the_server_takes_what_is_described_and_no_other_method() {
    let rig = Rig::new(Fake::default());
    let paths: BTreeSet<&str> = OPERATIONS.iter().map(|operation| operation.path).collect();
    for path in paths {
        for method in [Method::Get, Method::Post] {
            let is_described =
                OPERATIONS.iter().any(|operation| (operation.method, operation.path) == (method, path));
            // A query that nobody takes: what is to be known is whether somebody is there to refuse it.
            let (status, body) = match method {
                Method::Get => rig.get(&format!("{path}?interval_ms=1")),
                Method::Post => rig.post(&format!("{path}?interval_ms=1"), ""),
            };
            assert_eq!(status == 405, !is_described, "{} {path}: {status} {body}", method.name());
            assert!(!body.contains("there is no such address"), "{} {path}: {body}", method.name());
        }
    }
    let (status, text) = rig.get("/v1/openapi.json");
    assert_eq!((status, text.as_str()), (200, super::text()));
}

#[test]
fn the_document_is_whole() {
    fn references<'a>(value: &'a Value, to: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                to.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| references(field, to));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, to)),
            _ => {}
        }
    }
    let document = document();
    let mut all = BTreeSet::new();
    references(&document, &mut all);
    assert!(all.len() > 30, "{all:?}");
    for reference in all {
        let at = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(at).is_some(), "{reference} leads nowhere");
    }
    let mut ids = BTreeSet::new();
    for operation in OPERATIONS {
        assert!(ids.insert(operation.id()), "{}", operation.id());
        let at = format!("/paths/{}/{}", operation.path.replace('/', "~1"), operation.method.key());
        let described = document.pointer(&at).unwrap_or_else(|| panic!("no {at}"));
        assert!(described.pointer("/responses/200/content").is_some(), "{at}");
        assert_eq!(described.get("requestBody").is_some(), operation.body.is_some(), "{at}");
        assert!(described.pointer("/responses/500").is_some(), "{at}");
    }
}

#[test]
fn schemas_are_those_of_the_wire() {
    let document = document();
    let schema =
        |at: &str| document.pointer(&format!("/components/schemas/{at}")).cloned().unwrap_or_default();
    // Newtypes are what they are written as.
    assert_eq!(schema("Family/type"), "integer");
    assert_eq!(schema("Net/type"), "string");
    assert_eq!(schema("Mark/type"), "string");
    // Renamed, flattened and optional fields.
    assert!(schema("RuleView/properties/in").is_object(), "{}", schema("RuleView"));
    let required = |at: &str| -> BTreeSet<String> {
        serde_json::from_value(schema(&format!("{at}/required"))).unwrap_or_default()
    };
    assert!(required("FlowRow").contains("orig"));
    assert!(!required("FlowRow").contains("helper"));
    assert!(required("ErrorBody").contains("message"));
    assert!(!required("ApplyRequest").contains("v4"), "what has a default need not be sent");
    let described = schema("Stats/properties/uptime_ms/description");
    assert_eq!(described, "Milliseconds since the daemon started, by the clock that never jumps.");
    let query = document.pointer("/paths/~1v1~1flows/get/parameters").and_then(Value::as_array).unwrap();
    assert!(query.iter().any(|field| field["name"] == "dport" && field["in"] == "query"), "{query:?}");
    assert!(query.iter().all(|field| field["required"] == false));
}
