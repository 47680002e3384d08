//! A forebay process: started from a configuration, watched, stopped, its ledger read.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longer than anything that should happen takes, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The receivers that most tests want: one of each port, chosen by the kernel.
pub const RECEIVERS: &str = "
receivers:
  otlp:
    protocols:
      grpc: {endpoint: 127.0.0.1:0}
      http: {endpoint: 127.0.0.1:0}
extensions:
  health_check: {endpoint: 127.0.0.1:0}
";

/// The `service` block without its pipelines. Logs are JSON: that is how a test reads them.
pub const SERVICE: &str = "
service:
  extensions: [health_check]
  telemetry:
    logs: {encoding: json}
    metrics: {address: 127.0.0.1:0}
";

/// A whole configuration: [`RECEIVERS`], one pipeline per stable signal to `exporters` (a flow
/// list of ids), and whatever `rest` adds at the top level.
pub fn config(exporters: &str, rest: &str) -> String {
    let mut pipelines = String::from("  pipelines:\n");
    for signal in ["traces", "metrics", "logs"] {
        pipelines += &format!("    {signal}: {{receivers: [otlp], exporters: {exporters}}}\n");
    }
    format!("{RECEIVERS}{SERVICE}{pipelines}{rest}")
}

/// A running process. Killed when dropped, if it was not stopped.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    reading: Arc<Mutex<()>>,
    seen: Vec<Value>,
    pub grpc: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub http3: Option<SocketAddr>,
    pub metrics: Option<SocketAddr>,
    pub health: Option<SocketAddr>,
    _files: tempfile::TempDir,
}

/// What the process said at its end.
#[derive(Debug)]
pub struct End {
    pub ledger: Value,
    /// Every log line, as JSON; lines that are not JSON as strings.
    pub logs: Vec<Value>,
    pub took: Duration,
}

impl Process {
    /// Starts a configuration and waits until it is ready.
    pub fn start(config: &str) -> Process {
        Process::start_with(config, &[])
    }

    /// As [`Process::start`], with room for so many file descriptors.
    pub fn start_with_files(config: &str, files_max: u32) -> Process {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {files_max} && exec \"$0\" \"$@\"")]).arg(program());
        Process::launch(shell, config)
    }

    /// As [`Process::start`], with environment variables.
    pub fn start_with(config: &str, environment: &[(&str, &str)]) -> Process {
        let mut command = Command::new(program());
        command.envs(environment.iter().copied());
        Process::launch(command, config)
    }

    fn launch(mut command: Command, config: &str) -> Process {
        let files = tempfile::tempdir().expect("a directory for the configuration");
        let path = files.path().join("forebay.yaml");
        std::fs::write(&path, config).expect("the configuration can be written");
        let mut child = command
            .arg("--config")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("forebay starts");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (sender, lines) = channel();
        let reading = Arc::new(Mutex::new(()));
        let may_read = reading.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                drop(may_read.lock());
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut process = Process {
            child,
            lines,
            reading,
            seen: Vec::new(),
            grpc: None,
            http: None,
            http3: None,
            metrics: None,
            health: None,
            _files: files,
        };
        process.read_addresses();
        process
    }

    fn read_addresses(&mut self) {
        let ready = self.wait_for_log("Everything is ready. Begin running and processing data.");
        let address = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
        self.metrics = address(&ready["metrics"]);
        self.health = address(&ready["health"]);
        let find = |message: &str| {
            let line = self.seen.iter().find(|line| line["msg"] == message)?;
            address(&line["endpoint"])
        };
        let (grpc, http) = (find("Starting GRPC server"), find("Starting HTTP server"));
        let http3 = find("Starting HTTP/3 server");
        (self.grpc, self.http, self.http3) = (grpc, http, http3);
    }

    /// Nobody reads standard error while this is held.
    pub fn pause_reading(&self) -> MutexGuard<'_, ()> {
        self.reading.lock().expect("the reader only looks")
    }

    /// The first log line with this message, once it has been written.
    pub fn wait_for_log(&mut self, message: &str) -> Value {
        self.wait_for(message, |line| line["msg"] == message)
    }

    /// The first log line that `is_it` accepts; `what` is for the panic when it never comes.
    pub fn wait_for(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(line) = self.seen.iter().find(|line| is_it(line)) {
            return line.clone();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no log line {what:?} came; there were: {:#?}", self.seen);
            };
            let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
            self.seen.push(line.clone());
            if is_it(&line) {
                return line;
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process id");
        kill_process(pid, signal).expect("the process takes signals");
    }

    pub fn grpc_url(&self) -> String {
        format!("http://{}", self.grpc.expect("a gRPC listener"))
    }

    pub fn http_address(&self) -> SocketAddr {
        self.http.expect("an HTTP listener")
    }

    /// The metrics page.
    pub fn metrics(&self) -> String {
        get(self.metrics.expect("a metrics address"), "/metrics").1
    }

    /// One sample of the metrics page: the line that starts with `name` and holds all `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let page = self.metrics();
        let line = page
            .lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .find(|line| labels.iter().all(|label| line.contains(label)));
        let Some(line) = line else { panic!("no metric {name} with {labels:?} in\n{page}") };
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
    }

    /// The ledger as it stands.
    pub fn ledger(&self) -> Value {
        let (_, body) = get(self.metrics.expect("a metrics address"), "/ledger");
        serde_json::from_str::<Value>(&body).expect("JSON")["ledger"].take()
    }

    /// Polls until `is_it` holds of the ledger.
    pub fn wait_for_ledger(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ledger = self.ledger();
            if is_it(&ledger) {
                return ledger;
            }
            assert!(Instant::now() < deadline, "the ledger never had {what}: {ledger:#}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The health endpoint's status and body.
    pub fn health(&self) -> (u16, String) {
        get(self.health.expect("a health address"), "/")
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// Memory of its own: without pages of its binary, which the kernel maps as it likes.
    pub fn anonymous_bytes(&self) -> u64 {
        self.status_bytes("RssAnon:")
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("the process lives");
        let line = status.lines().find(|line| line.starts_with(name)).expect("a line");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("KiB");
        kib * 1024
    }

    /// SIGTERM, then [`Process::wait`].
    pub fn stop(self) -> End {
        // Before the signal: what we call its time may be longer than it was, and never shorter.
        let begun = Instant::now();
        self.signal(Signal::TERM);
        self.wait_since(begun)
    }

    /// Waits for an orderly end: exit code 0, and a ledger that balances with nothing in flight.
    pub fn wait(self) -> End {
        self.wait_since(Instant::now())
    }

    fn wait_since(mut self, started: Instant) -> End {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the process can be waited for") {
                break status;
            }
            assert!(started.elapsed() < PATIENCE, "forebay did not end: {:#?}", self.seen);
            std::thread::sleep(Duration::from_millis(5));
        };
        let took = started.elapsed();
        let mut stdout = String::new();
        let pipe = self.child.stdout.as_mut().expect("stdout is piped");
        pipe.read_to_string(&mut stdout).expect("stdout is text");
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.seen.push(serde_json::from_str(&line).unwrap_or(Value::String(line)));
        }
        let logs = std::mem::take(&mut self.seen);
        assert!(status.success(), "{status}: {logs:#?}\n{stdout}");
        let last = stdout.lines().last().expect("the ledger is the last line");
        let ledger = serde_json::from_str::<Value>(last).expect("JSON")["ledger"].take();
        assert_eq!(ledger["balanced"], true, "{ledger:#}");
        assert_eq!(ledger["in_flight_items"], 0, "{ledger:#}");
        End { ledger, logs, took }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let status = self.child.try_wait();
            let logs: Vec<String> = self.lines.try_iter().collect();
            eprintln!("forebay, when its test failed: {status:?} {:#?} {logs:#?}", self.seen);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program under test.
pub fn program() -> PathBuf {
    let tests = std::env::current_exe().expect("a test has a path");
    let folder = tests.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps");
    folder.join("forebay-under-test")
}

/// A plain GET, by hand.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers text");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}
