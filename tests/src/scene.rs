//! What most tests of the doors are played on: forebay, a sink behind it, and a bystander, a
//! well-behaved client on the same receiver core that must not notice what the test does.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forebay_codec::signal::Signal;

use crate::forebay::{End, Process, config};
use crate::items;
use crate::sink::Sink;
use crate::wire::{Http1, Http2};

/// A bystander's answer may take this long on a busy machine; being held up by another client's
/// timeout, or by its bytes, takes longer.
const BYSTANDER_PATIENCE: Duration = Duration::from_secs(5);
/// The bystander's items are numbered from 0: those of a test begin here.
pub const FIRST: i64 = 1_000_000;

pub struct Scene {
    pub forebay: Process,
    pub sink: Sink,
    bystander: Option<(Sender<()>, JoinHandle<Sent>)>,
}

/// How many items the bystander had taken.
struct Sent {
    logs: i64,
    traces: i64,
}

impl Scene {
    /// With the program's own limits.
    pub fn start() -> Scene {
        Scene::with_engine("")
    }

    /// `engine`: keys of the `engine` block, as the inside of a flow map.
    pub fn with_engine(engine: &str) -> Scene {
        Scene::with(engine, |config| config)
    }

    /// As [`Scene::with_engine`], and the whole configuration may be changed.
    pub fn with(engine: &str, change: impl FnOnce(String) -> String) -> Scene {
        let sink = Sink::start();
        let forebay = Process::start(&change(scene_config(&sink, engine)));
        let bystander = Some(stand_by(&forebay));
        Scene { forebay, sink, bystander }
    }

    /// Without the bystander: for limits that every client feels.
    pub fn alone(engine: &str) -> Scene {
        let sink = Sink::start();
        let forebay = Process::start(&scene_config(&sink, engine));
        Scene { forebay, sink, bystander: None }
    }

    /// Requests that ended this way so far, whether or not their signal was known.
    pub fn ended(&self, outcome: &str) -> u64 {
        ended(&self.forebay.metrics(), outcome)
    }

    /// Waits until this many requests ended this way.
    pub fn wait_for_ended(&self, outcome: &str, count: u64) {
        let deadline = Instant::now() + crate::forebay::PATIENCE;
        while self.ended(outcome) < count {
            let page = self.forebay.metrics();
            assert!(Instant::now() < deadline, "not {count} requests were {outcome}: {page}");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.ended(outcome), count, "{outcome}");
    }

    /// The bystander's items must all have arrived, and the ledger balances.
    pub fn end(self) -> End {
        self.end_and_keep_sink().0
    }

    /// As [`Scene::end`]; the sink may be asked for more.
    pub fn end_and_keep_sink(mut self) -> (End, Sink) {
        if let Some((stop, thread)) = self.bystander.take() {
            drop(stop);
            let sent = thread.join().expect("the bystander was untouched");
            assert!(sent.logs > 0 && sent.traces > 0, "it came to send anything");
            self.sink.wait_for(Signal::Logs, sent.logs);
            self.sink.wait_for(Signal::Traces, sent.traces);
        }
        (self.forebay.stop(), self.sink)
    }
}

/// Requests that ended this way according to a metrics page.
pub fn ended(page: &str, outcome: &str) -> u64 {
    let label = format!("outcome=\"{outcome}\"");
    let families = ["forebay_receiver_requests", "forebay_unrouted_requests"];
    page.lines()
        .filter(|line| families.iter().any(|family| line.starts_with(&format!("{family}{{"))))
        .filter(|line| line.contains(&label))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Everything on one receiver core, so that whoever is disturbed can be.
fn scene_config(sink: &Sink, engine: &str) -> String {
    let separator = if engine.is_empty() { "" } else { ", " };
    let cores = "cores: {receivers: \"0\"}";
    let rest = format!(
        "exporters:\n  otlp_grpc: {}\nengine: {{{cores}{separator}{engine}}}\n",
        sink.grpc_exporter()
    );
    config("[otlp_grpc]", &rest)
}

fn stand_by(forebay: &Process) -> (Sender<()>, JoinHandle<Sent>) {
    let (stop, stopped) = channel();
    let (http, grpc) = (forebay.http_address(), forebay.grpc.expect("a gRPC listener"));
    let (ready, readied) = channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let calls = runtime.block_on(Http2::connect(grpc));
        let mut posts = Http1::connect(http);
        let mut sent = Sent { logs: 0, traces: 0 };
        loop {
            let begun = Instant::now();
            let headers = [("content-type", "application/x-protobuf")];
            let body = items::proto(Signal::Logs, sent.logs, 5);
            let answer = posts.post("/v1/logs", &headers, &body);
            assert_eq!(answer.status, 200, "the bystander: {}", answer.text());
            sent.logs += 5;
            let message = items::proto(Signal::Traces, sent.traces, 5);
            let call = calls.export(Signal::Traces, &message);
            let answer = runtime.block_on(call).expect("the bystander's connection holds");
            assert_eq!(answer.grpc_status(), Some(0), "the bystander: {answer:?}");
            sent.traces += 5;
            let took = begun.elapsed();
            assert!(took < BYSTANDER_PATIENCE, "the bystander waited {took:?}");
            let _ = ready.send(());
            // Its pace: enough to feel a disturbance, not enough to be one.
            match stopped.recv_timeout(Duration::from_millis(10)) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => return sent,
            }
        }
    });
    readied.recv().expect("the bystander was served once");
    (stop, thread)
}
