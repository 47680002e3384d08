//! JSON in and out beside `serde_json` with the types that prost makes.
//!
//! In: the text that the library wrote, to protobuf with us and to the types with it, since its
//! users decode no further. Out: from protobuf on both sides; ours checks it first.

use forebay_codec::json::{json_to_proto, proto_to_json};
use forebay_codec::signal::Signal;

use crate::timing::{Bar, Contender, Contest, Cpu, Session};
use crate::{Logs, Metrics, Request, Traces, decoded, outcome};

pub(crate) fn contests(session: &mut Session, traces: &Traces, logs: &Logs, metrics: &Metrics) {
    session.run(json_in("JSON in, 100 spans", "span", Signal::Traces, traces));
    session.run(json_in("JSON in, 512 logs", "record", Signal::Logs, logs));
    session.run(json_in("JSON in, 100 histograms", "point", Signal::Metrics, metrics));
    session.run(json_out("JSON out, 100 spans", "span", Signal::Traces, traces));
    session.run(json_out("JSON out, 512 logs", "record", Signal::Logs, logs));
    session.run(json_out("JSON out, 100 histograms", "point", Signal::Metrics, metrics));
}

fn json_in<R: Request>(
    name: &'static str,
    unit: &'static str,
    signal: Signal,
    request: &R,
) -> Contest<'static> {
    let json = serde_json::to_vec(request).expect("the library writes JSON");
    let count = request.items();
    let read = move |json: &[u8]| {
        json_to_proto(signal, json, usize::MAX).expect("the library's JSON is OTLP")
    };
    let parse = |json: &[u8]| -> R { serde_json::from_slice(json).expect("it wrote it itself") };
    let [ours, ours_told, theirs, theirs_told] = [(); 4].map(|()| json.clone());
    Contest {
        name,
        unit,
        bytes: json.len() as u64,
        cpu: Cpu::ThisThread,
        ours: Contender {
            name: "JSON to protobuf",
            work: Box::new(move || {
                std::hint::black_box(read(&ours));
                count
            }),
            outcome: Box::new(move || outcome(&decoded::<R>(&read(&ours_told)))),
        },
        theirs: Contender {
            name: "serde_json to prost types",
            work: Box::new(move || parse(&theirs).items()),
            outcome: Box::new(move || outcome(&parse(&theirs_told))),
        },
        bar: Bar::Ratio(3.0),
    }
}

fn json_out<R: Request>(
    name: &'static str,
    unit: &'static str,
    signal: Signal,
    request: &R,
) -> Contest<'static> {
    let bytes = request.encode_to_vec();
    let count = request.items();
    let write = move |bytes: &[u8]| {
        let mut json = Vec::new();
        proto_to_json(bytes, signal, &mut json).expect("prost wrote a valid request");
        json
    };
    let dump = |bytes: &[u8]| serde_json::to_vec(&decoded::<R>(bytes)).expect("it writes JSON");
    // The two spell some values differently, and mean the same: read back, they are one.
    let told = move |json: &[u8]| {
        let bytes = json_to_proto(signal, json, usize::MAX).expect("both wrote OTLP/JSON");
        outcome(&decoded::<R>(&bytes))
    };
    let [ours, ours_told, theirs, theirs_told] = [(); 4].map(|()| bytes.clone());
    Contest {
        name,
        unit,
        bytes: bytes.len() as u64,
        cpu: Cpu::ThisThread,
        ours: Contender {
            name: "protobuf to JSON",
            work: Box::new(move || count * u64::from(!write(&ours).is_empty())),
            outcome: Box::new(move || told(&write(&ours_told))),
        },
        theirs: Contender {
            name: "prost decode, serde_json",
            work: Box::new(move || count * u64::from(!dump(&theirs).is_empty())),
            outcome: Box::new(move || told(&dump(&theirs_told))),
        },
        bar: Bar::Ratio(1.0),
    }
}
