//! Whole runs, from the command line: a good one has figures and files, a bad one a clear error and
//! neither.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use forebay_bench::result::Result as Findings;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const HEAD: &str = "about='a test'\nwarmup_ms=50\nwindow_ms=2000\nrepeats=2\n[[row]]\nname='row'\n\
                    items=20\nconnections=4\n";

fn bench() -> Command {
    Command::new(env!("CARGO_BIN_EXE_forebay-bench"))
}

/// `run` with a scenario of one row, `row` being its other keys.
fn run(folder: &TempDir, row: &str, more: &[&str]) -> Output {
    let scenario = folder.path().join("tiny.toml");
    std::fs::write(&scenario, format!("{HEAD}{row}")).expect("a file");
    let mut command = bench();
    command.arg("run").arg(&scenario).arg("--out").arg(folder.path().join("out")).args(more);
    command.stdin(Stdio::null()).output().expect("it runs")
}

/// With a program that is described by `toml` in forebay's place.
fn run_program(folder: &TempDir, toml: &str, more: &[&str]) -> Output {
    let program = folder.path().join("program.toml");
    std::fs::write(&program, toml).expect("a file");
    let program = program.display().to_string();
    let binary = env!("CARGO_BIN_EXE_forebay-bench");
    let with = ["--program", &program, "--program-binary", binary];
    run(folder, "", &[&with[..], more].concat())
}

fn findings(folder: &TempDir) -> Findings {
    let json = std::fs::read(folder.path().join("out/tiny.json")).expect("the result is there");
    serde_json::from_slice(&json).expect("and can be read")
}

/// Failed, said why, and left no figure: no file, and nothing on standard output.
fn assert_void(folder: &TempDir, output: &Output, why: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error: ") && stderr.contains(why), "{why:?} is not in:\n{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert!(!folder.path().join("out/tiny.json").is_file(), "there is a figure");
}

#[test]
fn a_good_run_has_figures_a_floor_and_files() {
    let folder = TempDir::new().unwrap();
    let output = run(&folder, "", &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let findings = findings(&folder);
    assert!(!findings.partial && !findings.machine.kernel.is_empty());
    let row = &findings.rows[0];
    assert_eq!((row.runs.len(), row.items_per_request), (2, 20));
    let median = &row.median;
    assert!(median.items > 0.0 && median.engine_cpu_ns_per_item > 0.0, "{median:?}");
    assert!(median.ratio_to_floor.is_some_and(|ratio| ratio > 1.0), "{median:?}");
    assert!(median.latency_us.p50 > 0.0 && median.latency_us.max >= median.latency_us.p9999);
    let [least, most] = row.spread["engine_cpu_ns_per_item"];
    assert!(least <= median.engine_cpu_ns_per_item && median.engine_cpu_ns_per_item <= most);
    assert!(folder.path().join("out/tiny.html").is_file());
    assert!(String::from_utf8_lossy(&output.stdout).contains("row"));
}

#[test]
fn delivered_acks_open_mode_and_a_failing_sink_lose_nothing() {
    let folder = TempDir::new().unwrap();
    let row = "rate_per_s=200\narrivals='bursts'\nengine={acks='delivered',batch=false}\n\
               faults={fail_every=10,retry_ms=10}\ncompression='gzip'";
    let output = run(&folder, row, &["--no-floor", "--repeats", "1"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let row = &findings(&folder).rows[0];
    assert_eq!((row.mode.as_str(), row.rate_per_s), ("open", Some(200.0)));
    assert_eq!(row.median.ratio_to_floor, None);
}

#[test]
fn over_tls_a_run_is_as_good_as_any_other() {
    for transport in ["grpc", "http1"] {
        let folder = TempDir::new().unwrap();
        let row = format!("transport='{transport}'\ntls=true");
        let output = run(&folder, &row, &["--no-floor", "--repeats", "1"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(findings(&folder).rows[0].median.items > 0.0);
    }
}

#[test]
fn over_http3_the_service_is_measured_by_its_own_ledger() {
    let folder = TempDir::new().unwrap();
    let row = "transport='http3'\nengine={exporter='nop'}";
    let service = ["--program", "h3-service", "--repeats", "1"];
    let output = run(&folder, row, &service);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = &findings(&folder).rows[0];
    assert!(found.median.items > 0.0 && found.program == "h3-service");
    // Nothing reaches the sink, and that is held against whoever should have sent it on.
    let folder = TempDir::new().unwrap();
    let output = run(&folder, "transport='http3'", &service);
    assert_void(&folder, &output, "items were acknowledged and never arrived");
}

#[test]
fn behind_the_engine_a_sink_that_loses_items_makes_the_run_void() {
    let folder = TempDir::new().unwrap();
    let output = run(&folder, "faults={drop_every=1000}", &[]);
    assert_void(&folder, &output, "items were acknowledged and never arrived");
    let folder = TempDir::new().unwrap();
    let output = run(&folder, "faults={double_every=1000}", &[]);
    assert_void(&folder, &output, "items arrived more often than they were sent");
}

#[test]
fn a_peer_that_answers_200_and_drops_is_no_result() {
    let folder = TempDir::new().unwrap();
    let dropper = "name='dropper'\ncommand=['{binary}','sink','--grpc','127.0.0.1:{grpc_port}']";
    let output = run_program(&folder, dropper, &[]);
    assert_void(&folder, &output, "items were acknowledged and never arrived");
}

#[test]
fn a_peer_that_refuses_everything_counts_zero_and_is_no_result() {
    let folder = TempDir::new().unwrap();
    let refuser = "name='refuser'\ncommand=['{binary}','sink','--fail-every','1','--grpc',\
                   '127.0.0.1:{grpc_port}']";
    let output = run_program(&folder, refuser, &[]);
    assert_void(&folder, &output, "no item was acknowledged");
}

#[test]
fn an_engine_that_dies_in_the_middle_is_named_with_its_last_words() {
    let folder = TempDir::new().unwrap();
    // It dies when the load's four connections are there and have been for a while.
    let mortal = "name='mortal'\ncommand=['sh','-c','{binary} sink --grpc 127.0.0.1:{grpc_port} & \
                  until [ $(grep -c \"$(printf :%04X {grpc_port}) [^ ]* 01 \" /proc/net/tcp) -ge 4 \
                  ]; do sleep 0.1; done; sleep 3; kill -9 $!; echo good bye >&2; exit 3']";
    let output = run_program(&folder, mortal, &["--window-ms", "60000"]);
    assert_void(&folder, &output, "mortal ended by itself");
    assert!(String::from_utf8_lossy(&output.stderr).contains("good bye"));
}

#[test]
fn an_engine_that_never_listens_is_given_up_with_its_last_words() {
    let folder = TempDir::new().unwrap();
    let broken = "name='broken'\ncommand=['sh','-c','echo no such port >&2; exit 1']";
    let output = run_program(&folder, broken, &[]);
    assert_void(&folder, &output, "no such port");
}

#[test]
fn a_port_in_use_is_said_with_the_port() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = bench().args(["sink", "--grpc", &address]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains(&address) && stderr.contains("hint"), "{stderr}");
}

#[test]
fn results_that_cannot_be_written_are_an_error_and_are_not_shown() {
    let folder = TempDir::new().unwrap();
    // A folder in the file's place: the last step of writing fails, as on a full disk.
    std::fs::create_dir_all(folder.path().join("out/tiny.json")).unwrap();
    let output = run(&folder, "", &["--no-floor", "--repeats", "1"]);
    assert_void(&folder, &output, "can't be written");
}

#[test]
fn ctrl_c_keeps_what_was_measured_and_marks_it_as_partial() {
    let folder = TempDir::new().unwrap();
    let scenario = folder.path().join("tiny.toml");
    std::fs::write(&scenario, HEAD).unwrap();
    let mut child = bench()
        .arg("run")
        .arg(&scenario)
        .args(["--repeats", "1000", "--no-floor", "--out"])
        .arg(folder.path().join("out"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("run 1/1000")));
    assert!(first.is_some(), "no run ended");
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), Signal::INT).unwrap();
    lines.for_each(drop);
    let mut table = String::new();
    child.stdout.take().unwrap().read_to_string(&mut table).unwrap();
    assert!(child.wait().unwrap().success());
    let findings = findings(&folder);
    assert!(findings.partial && !findings.rows[0].runs.is_empty());
    assert!(table.contains("PARTIAL"), "{table}");
    assert!(Path::new(&folder.path().join("out/tiny.html")).is_file());
}

#[test]
fn nothing_runs_on_when_the_bench_itself_is_killed() {
    let folder = TempDir::new().unwrap();
    let scenario = folder.path().join("tiny.toml");
    std::fs::write(&scenario, HEAD).unwrap();
    let mut child = bench()
        .arg("run")
        .arg(&scenario)
        .args(["--repeats", "1000", "--out"])
        .arg(folder.path().join("out"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("run 1/1000")));
    assert!(first.is_some(), "no run ended");
    let deadline = Instant::now() + Duration::from_secs(60);
    // Engine, load and sink of the second run.
    let children = loop {
        let children = children_of(child.id());
        if children.len() >= 3 {
            break children;
        }
        assert!(Instant::now() < deadline, "the next run never began: {children:?}");
    };
    child.kill().unwrap();
    child.wait().unwrap();
    for pid in children {
        while Path::new(&format!("/proc/{pid}")).exists() {
            assert!(Instant::now() < deadline, "process {pid} runs on");
            std::thread::yield_now();
        }
    }
}

fn children_of(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Behind the name, which may hold anything: state, then parent.
        let behind = stat.rsplit(") ").next().unwrap_or_default();
        behind.split(' ').nth(1) == Some(&parent.to_string())
    };
    let folders = std::fs::read_dir("/proc").expect("Linux has it").flatten();
    let pids = folders.filter_map(|folder| folder.file_name().to_string_lossy().parse().ok());
    pids.filter(is_child).collect()
}
