//! Requests on the control socket. What is understood is understood in the same way when it is written again; what is not is refused in words.

use cangw::api::{Request, methods};
use serde_json::{Value, json};

use super::{Target, outcome, refused};

const KEYS: &[&str] = &[
    "\"id\": ",
    "\"data\": ",
    "\"api\": 1",
    "\"document\": {\"version\": 1, \"rule\": [",
    "\"rule\": {",
    "\"source\": \"a\", \"target\": \"b\"",
    "\"id\": [\"123\"]",
    "\"rate\": \"10/s\"",
    "\"kind\": \"fd\"",
    "\"modify\": [\"SET:I:1.0.0000000000000000\"]",
    "\"change\": {\"exclusive\": true}",
    "\"settings\": {\"max_hops\": 1, \"log\": false}",
    "{}",
    "[]",
    "null",
    "true",
    "4294967296",
    "-1",
    ", ",
    "}",
];

fn understand(id: &str, data: Value) -> Option<cangw::Result<Value>> {
    let line = json!({"id": id, "data": data}).to_string();
    methods::understand(Request::parse(line.as_bytes()).expect("a request"))
}

pub(super) fn targets() -> Vec<Target> {
    vec![Target {
        name: "api",
        run: |input| {
            let request = match Request::parse(input) {
                Ok(request) => request,
                Err(e) => return refused(&e),
            };
            let id = request.id.clone();
            match methods::understand(request) {
                None => 0,
                Some(Err(e)) => {
                    assert!(e.to_string().starts_with(&format!("{id}: ")), "{e}");
                    refused(&e)
                }
                Some(Ok(data)) => {
                    let again = understand(&id, data.clone()).expect("a method");
                    assert_eq!(again.expect("it was understood before"), data, "{id}");
                    outcome((id, data.to_string()))
                }
            }
        },
        seeds: || {
            let seeds = [
                r#"{"id": "rule_add", "data": {"document": {"version": 1, "rule": [{"source": "a", "target": "b", "id": ["123"], "rate": "10/s"}], "interface": [{"name": "a", "exclusive": true}]}}}"#,
                r#"{"id": "rule_replace", "data": {"old": {"source": "a", "target": "b"}, "new": {"source": "a", "action": "drop", "filter": "123:7FF"}}}"#,
                r#"{"id": "interface_set", "data": {"interface": "a", "change": {"policy": "deny", "engine": "tc"}}}"#,
                r#"{"id": "settings_set", "data": {"settings": {"max_hops": 2, "log": true}}}"#,
                r#"{"id": "rule_test", "data": {"source": "a", "frame": "123#11"}}"#,
                r#"{"id": "stats", "api": 1}"#,
            ];
            seeds.map(|text| text.as_bytes().to_vec()).to_vec()
        },
        words: KEYS,
    }]
}
