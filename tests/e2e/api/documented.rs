//! docs/api.md is true.

use std::collections::BTreeSet;

use cangw::api::{methods, service};
use cangw_tests::namespace::Namespace;
use serde_json::{Value, json};

use super::Served;
use crate::topologies::TWO_BUSES;

/// The exchanges in docs/api.md.
#[test]
fn the_documented_exchanges_are_real() {
    let gateway = Namespace::new("api");
    let served = Served::new(&gateway, TWO_BUSES);
    let network = format!("35ef932212dd{}", "0".repeat(52));
    let options = json!({ "com.docker.network.generic": { "fd": "true", "host_if": "tool0" } });
    let network = json!({ "NetworkID": network, "Options": options });
    let docker = |call: &str| {
        let answer = cangw_tests::docker::call(&served.state.docker(), call, &network);
        assert_eq!(answer, json!({}));
    };
    docker("CreateNetwork");
    let text = include_str!("../../../docs/api.md");
    let mut methods = BTreeSet::new();
    for block in text.split("```exchange\n").skip(1) {
        let block = block.split("```").next().expect("a block");
        let lines: Vec<&str> = block.lines().collect();
        for exchange in lines.chunks(2) {
            let [request, expected] = exchange else {
                panic!("a request without an answer: {exchange:?}");
            };
            let answer = served.ask(request);
            let expected: Value = serde_json::from_str(expected).expect("JSON");
            assert!(
                is_like(&answer, &expected),
                "{request}\nis answered\n{answer}\nand not\n{expected}"
            );
            let request: Value = serde_json::from_str(request).expect("JSON");
            methods.insert(request["id"].as_str().expect("a method").to_owned());
        }
    }
    docker("DeleteNetwork");
    let all = methods::ALL.iter().chain(service::ALL);
    for (method, _) in all {
        assert!(
            methods.contains(*method) || *method == "rule_flush",
            "{method} is documented"
        );
    }
}

/// Whether a value is as in the documentation, where `…` stands for what is left out.
fn is_like(value: &Value, expected: &Value) -> bool {
    const REST: &str = "…";
    match (value, expected) {
        (_, Value::String(text)) if text == REST => true,
        (Value::String(value), Value::String(text)) => match text.split_once(REST) {
            Some((begin, end)) => value.starts_with(begin) && value.ends_with(end),
            None => value == text,
        },
        (Value::Array(values), Value::Array(expected)) => {
            let rest = expected.last().is_some_and(|last| last == REST);
            let known = expected.len() - usize::from(rest);
            (values.len() == known || rest && values.len() >= known)
                && values
                    .iter()
                    .zip(&expected[..known])
                    .all(|(v, e)| is_like(v, e))
        }
        (Value::Object(values), Value::Object(expected)) => {
            let rest = expected.contains_key(REST);
            let mut known = expected.iter().filter(|(key, _)| *key != REST);
            // What an error has beside its text is no part of most examples.
            let rest = rest || expected.get("success") == Some(&Value::Bool(false));
            (rest || values.len() == expected.len())
                && known.all(|(key, e)| values.get(key).is_some_and(|v| is_like(v, e)))
        }
        _ => value == expected,
    }
}
