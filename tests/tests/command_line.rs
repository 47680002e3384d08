//! The command line: what can be asked of the program without running it, and how a
//! configuration is put together.

use std::path::Path;
use std::process::{Command, Output};

use forebay_codec::signal::Signal;
use forebay_tests::forebay::{Process, RECEIVERS, SERVICE, config, program};
use forebay_tests::items;
use forebay_tests::sink::Sink;
use forebay_tests::wire::Http1;
use tempfile::TempDir;

/// A folder with files in it.
fn files(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("it can be written");
    }
    folder
}

/// Runs the program in `folder`, as an operator would.
fn ask(folder: &Path, arguments: &[&str]) -> Output {
    ask_with(folder, arguments, &[])
}

fn ask_with(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program());
    command.current_dir(folder).args(arguments).envs(environment.iter().copied());
    command.output().expect("forebay runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

#[test]
fn validate_says_in_one_line_that_a_good_file_can_run_and_leaves_with_0() {
    let folder = files(&[("good.yaml", &config("[nop]", "exporters: {nop: {}}\n"))]);
    let output = ask(folder.path(), &["validate", "--config", "good.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "valid: 3 pipelines behind 2 listeners\n");
    assert_eq!(stderr(&output), "");
}

#[test]
fn validate_says_where_a_file_is_wrong_and_what_was_meant_and_leaves_with_1() {
    let bad = format!(
        "{RECEIVERS}{SERVICE}  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_grpc]}}
exporters:
  otlp_grpc:
    endpont: http://collector:4317
    timeout: 5
"
    );
    let line = 1 + bad.lines().position(|line| line.contains("endpont")).expect("it is there");
    let folder = files(&[("bad.yaml", &bad)]);
    for verb in ["validate", "run", "print-config"] {
        let output = ask(folder.path(), &[verb, "--config", "bad.yaml"]);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{verb}: {told}");
        assert!(told.contains(&format!("error: bad.yaml:{line}:5: ")), "{verb}: {told}");
        assert!(told.contains("\"endpoint\"") && told.contains("hint: "), "{verb}: {told}");
        let next = line + 1;
        assert!(told.contains(&format!("bad.yaml:{next}:")), "all at once, {verb}: {told}");
        assert_eq!(stdout(&output), "", "{verb}");
    }
}

#[test]
fn what_is_no_yaml_or_not_there_is_said_with_its_name() {
    let folder = files(&[("broken.yaml", "receivers: [otlp\nservice: }\n")]);
    let output = ask(folder.path(), &["validate", "--config", "broken.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("broken.yaml:"), "{}", stderr(&output));
    let output = ask(folder.path(), &["validate", "--config", "missing.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("missing.yaml"), "{}", stderr(&output));
}

#[test]
fn several_files_merge_by_key_and_set_has_the_last_word() {
    let base = config("[otlp_grpc]", "exporters: {otlp_grpc: {endpoint: \"http://base:4317\"}}\n");
    let site = "exporters:\n  otlp_grpc: {timeout: 7s}\nengine: {drain_timeout: 3s}\n";
    let folder = files(&[("base.yaml", &base), ("site.yaml", site)]);
    let both = ["print-config", "--config", "base.yaml", "--config", "site.yaml"];
    let printed = stdout(&ask(folder.path(), &both));
    for part in ["endpoint: http://base:4317", "timeout: 7s", "drain_timeout: 3s"] {
        assert!(printed.contains(part), "{part} in {printed}");
    }
    let set = ["--set", "exporters.otlp_grpc.timeout=9s", "--set", "engine::drain_timeout=4s"];
    let printed = stdout(&ask(folder.path(), &[&both[..], &set].concat()));
    for part in ["timeout: 9s", "drain_timeout: 4s", "endpoint: http://base:4317"] {
        assert!(printed.contains(part), "{part} in {printed}");
    }
    assert!(!printed.contains("7s") && !printed.contains("3s"), "{printed}");
    let wrong = ["validate", "--config", "base.yaml", "--set", "exporters.otlp_grpc.tiemout=9s"];
    let output = ask(folder.path(), &wrong);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--set exporters.otlp_grpc.tiemout"), "{}", stderr(&output));
}

#[test]
fn what_print_config_prints_reads_back_to_the_same() {
    let text = config("[otlp_http]", "exporters: {otlp_http: {endpoint: \"http://c:4318\"}}\n");
    let folder = files(&[("first.yaml", &text)]);
    let printed = stdout(&ask(folder.path(), &["print-config", "--config", "first.yaml"]));
    std::fs::write(folder.path().join("second.yaml"), &printed).expect("it can be written");
    let again = ask(folder.path(), &["print-config", "--config", "second.yaml"]);
    assert_eq!(stdout(&again), printed, "{}", stderr(&again));
}

#[test]
fn variables_are_expanded_and_one_that_is_missing_is_an_error() {
    let exporter = "exporters: {otlp_grpc: {endpoint: \"${env:FLEET}\", \
                    timeout: \"${env:PATIENCE:-6s}\", user_agent: \"a $$ sign\"}}\n";
    let folder = files(&[("file.yaml", &config("[otlp_grpc]", exporter))]);
    let print = ["print-config", "--config", "file.yaml"];
    let output = ask_with(folder.path(), &print, &[("FLEET", "http://fleet:4317")]);
    let printed = stdout(&output);
    for part in ["endpoint: http://fleet:4317", "timeout: 6s", "a $$ sign"] {
        assert!(printed.contains(part), "{part} in {printed}{}", stderr(&output));
    }
    let both = [("FLEET", "http://fleet:4317"), ("PATIENCE", "8s")];
    let printed = stdout(&ask_with(folder.path(), &print, &both));
    assert!(printed.contains("timeout: 8s"), "{printed}");
    let output = ask(folder.path(), &print);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("FLEET"), "{}", stderr(&output));
}

#[test]
fn a_whole_configuration_may_come_from_a_variable_or_the_command_line() {
    let folder = files(&[]);
    let text = config("[nop]", "exporters: {nop: {}}\n");
    let from_variable =
        ["validate", "--config", "env:SETTINGS", "--config", "yaml:engine::drain_timeout: 5s"];
    let output = ask_with(folder.path(), &from_variable, &[("SETTINGS", &text)]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_running_process_uses_the_variables_it_was_started_with() {
    let sink = Sink::start();
    let exporter = sink.grpc_exporter().replace(&sink.grpc.to_string(), "${env:SINK}");
    let text = config("[otlp_grpc]", &format!("exporters: {{otlp_grpc: {exporter}}}\n"));
    let forebay = Process::start_with(&text, &[("SINK", &sink.grpc.to_string())]);
    let headers = [("content-type", "application/json")];
    let body = items::json(Signal::Logs, 0, 10);
    let mut connection = Http1::connect(forebay.http_address());
    assert_eq!(connection.post("/v1/logs", &headers, &body).status, 200);
    sink.wait_for(Signal::Logs, 10);
    assert_eq!(forebay.stop().ledger["delivered_items"], 10);
}

#[test]
fn components_lists_what_a_configuration_may_name() {
    let folder = files(&[]);
    let output = ask(folder.path(), &["components"]);
    assert_eq!(output.status.code(), Some(0));
    let listed = stdout(&output);
    for part in [
        "version: ",
        "receivers:\n  - otlp",
        "otlp_grpc",
        "otlp_http",
        "file",
        "debug",
        "nop",
        "batch",
        "health_check",
    ] {
        assert!(listed.contains(part), "{part:?} in {listed}");
    }
}

#[test]
fn version_and_help_answer_on_standard_output() {
    let folder = files(&[]);
    let output = ask(folder.path(), &["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), format!("forebay {}\n", env!("CARGO_PKG_VERSION")));
    let output = ask(folder.path(), &["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = stdout(&output);
    for part in ["validate", "print-config", "components", "--config", "--set", "SIGTERM", "${env:"]
    {
        assert!(help.contains(part), "{part} in {help}");
    }
    assert!(help.lines().count() <= 50, "within a screen");
}

#[test]
fn a_mistake_on_the_command_line_is_said_with_what_there_is_instead() {
    let folder = files(&[]);
    let output = ask(folder.path(), &["validat"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("validate"), "{}", stderr(&output));
    let output = ask(folder.path(), &["--config", "https://example.test/forebay.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("fetch it first"), "{}", stderr(&output));
}
