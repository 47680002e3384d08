//! The codec beside its library counterparts: check, splice, split, edit, JSON, compression.
//!
//! `cargo bench -p forebay-bench --bench codec` prints one line a contest: the two costs, their
//! ratio, the bar that forebay sets itself, and what both came to.

mod compression;
mod cutting;
mod editing;
mod json;
mod payloads;
mod timing;

use std::process::ExitCode;

use bytes::Bytes;
use forebay_codec::check::{Checked, check};
use forebay_codec::signal::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest as Logs;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest as Metrics;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest as Traces;
use prost::Message;

use timing::{Bar, Contender, Contest, Cpu, Outcome, Session};

fn main() -> ExitCode {
    let mut session = Session::start("The codec");
    let traces = payloads::traces(1, 100);
    let logs = payloads::logs(2, 512);
    let metrics = payloads::histograms(3, 100);
    let one = payloads::traces(4, 1);
    session.run(checking("check 100 spans", "span", Signal::Traces, &traces, Bar::Ratio(12.0)));
    session.run(checking("check 512 logs", "record", Signal::Logs, &logs, Bar::Ratio(10.0)));
    let bar = Bar::Ratio(10.0);
    session.run(checking("check 100 histograms", "point", Signal::Metrics, &metrics, bar));
    session.run(checking("check 1 span", "span", Signal::Traces, &one, Bar::Nanos(160.0)));
    cutting::contests(&mut session);
    editing::run(&mut session, &traces);
    json::contests(&mut session, &traces, &logs, &metrics);
    compression::run(&mut session, &traces.encode_to_vec());
    session.finish()
}

/// An export request in the form that the libraries know, to tell what a result means.
trait Request: Message + Default + serde::Serialize + for<'a> serde::Deserialize<'a> {
    fn items(&self) -> u64;
}

impl Request for Traces {
    fn items(&self) -> u64 {
        let scopes = self.resource_spans.iter().flat_map(|group| &group.scope_spans);
        scopes.map(|scope| scope.spans.len() as u64).sum()
    }
}

impl Request for Logs {
    fn items(&self) -> u64 {
        let scopes = self.resource_logs.iter().flat_map(|group| &group.scope_logs);
        scopes.map(|scope| scope.log_records.len() as u64).sum()
    }
}

impl Request for Metrics {
    /// Of metrics with one point each, as these are.
    fn items(&self) -> u64 {
        let scopes = self.resource_metrics.iter().flat_map(|group| &group.scope_metrics);
        scopes.map(|scope| scope.metrics.len() as u64).sum()
    }
}

fn decoded<R: Request>(bytes: &[u8]) -> R {
    R::decode(bytes).expect("prost reads what prost wrote, and what check has passed")
}

fn outcome<R: Request>(request: &R) -> Outcome {
    Outcome::of(request.items(), &request.encode_to_vec())
}

fn passed(signal: Signal, bytes: &Bytes) -> Checked {
    check(signal, bytes.clone()).expect("prost wrote a valid request")
}

fn checking<R: Request>(
    name: &'static str,
    unit: &'static str,
    signal: Signal,
    request: &R,
    bar: Bar,
) -> Contest<'static> {
    let bytes = Bytes::from(request.encode_to_vec());
    let [ours, ours_told, theirs, theirs_told] = [(); 4].map(|()| bytes.clone());
    Contest {
        name,
        unit,
        bytes: bytes.len() as u64,
        cpu: Cpu::ThisThread,
        ours: Contender {
            name: "check",
            work: Box::new(move || passed(signal, &ours).counts().items),
            outcome: Box::new(move || {
                let checked = passed(signal, &ours_told);
                let told = outcome(&decoded::<R>(checked.bytes()));
                Outcome { count: checked.counts().items, ..told }
            }),
        },
        theirs: Contender {
            name: "prost decode",
            work: Box::new(move || decoded::<R>(&theirs).items()),
            outcome: Box::new(move || outcome(&decoded::<R>(&theirs_told))),
        },
        bar,
    }
}
