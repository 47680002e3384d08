//! Configurations in, problems or plans out.

mod cors;
mod docs;
mod fleets;
mod flows;
mod http3;
mod plans;
mod problems;
mod registries;
mod robustness;
mod tls;
mod tls_out;

use super::problem::Problem;
use super::{Loaded, Source, load_in};

/// A whole configuration around a few lines, so that cases show only what they are about.
const AROUND: &str = "\
receivers: {otlp: {protocols: {grpc: {endpoint: 'localhost:0'}}}}
exporters: {debug: {}}
service:
  pipelines: {traces: {receivers: [otlp], exporters: [debug]}}
  telemetry: {metrics: {level: none}}
";

/// Variables that cases may use.
fn environment(name: &str) -> Option<String> {
    let value = match name {
        "ENDPOINT" => "http://collector:4317",
        "TOKEN" => "s3cret",
        "SIZE" => "77",
        "EMPTY" => "",
        "NOTHING" => "null",
        "HEADERS" => "{x-a: '1', x-b: '2'}",
        "DOLLAR" => "${env:TOKEN}",
        _ => return None,
    };
    Some(value.to_owned())
}

fn text(name: &str, text: &str) -> Source {
    Source::Text { name: name.to_owned(), text: text.to_owned() }
}

fn load_text(yaml: &str) -> Result<Loaded, Vec<Problem>> {
    load_in(&environment, &[text("c.yaml", yaml)], &[])
}

/// `yaml` laid over [`AROUND`].
fn load_over(yaml: &str) -> Result<Loaded, Vec<Problem>> {
    load_in(&environment, &[text("around.yaml", AROUND), text("c.yaml", yaml)], &[])
}

#[track_caller]
fn loaded(result: Result<Loaded, Vec<Problem>>) -> Loaded {
    result.unwrap_or_else(|problems| panic!("{}", texts(&problems).join("\n")))
}

fn texts(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(Problem::to_string).collect()
}

/// As many problems as expectations, and each text contains all parts of its expectation, which
/// are separated by ` & `.
#[track_caller]
fn check(problems: &[Problem], expected: &[&str]) {
    let texts = texts(problems);
    let fits = texts.len() == expected.len()
        && texts
            .iter()
            .zip(expected)
            .all(|(text, parts)| parts.split(" & ").all(|part| text.contains(part)));
    assert!(fits, "expected {expected:#?}\ngot:\n{}", texts.join("\n"));
}
