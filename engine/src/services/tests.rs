//! Calls as the shard hands them over, and what is said on them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use forebay_net::fields::Fields;
use forebay_net::request::{Head, Protocol};
use forebay_net::ring::Key;

use super::*;
use crate::shard::ShardStats;

const ALL: [bool; 4] = [true, true, true, false];
const NOW: u64 = 10_000_000_000;

fn services() -> Services {
    Services {
        signals: vec![ALL],
        has_reflection: true,
        reflection: Reflection::default(),
        calls: HashMap::new(),
        watches: 0,
        told: Serving::default(),
        stats: ServiceStats::default(),
    }
}

fn request(method: Method, stream: u32, part: Part, body: Bytes) -> Request {
    let head = Head {
        listener: 0,
        protocol: Protocol::Http2,
        method: http::Method::POST,
        path: "".into(),
        headers: Fields::new(),
        content_length: None,
        peer: None,
    };
    let id = RequestId { key: Key { index: 0, generation: 0 }, stream };
    Request { id, part, head, tag: method.pack(0), body, reserved: 0 }
}

/// A core that turned just now, with these signals open.
fn core(open_signals: u8) -> Arc<ShardStats> {
    let stats = ShardStats::default();
    stats.turned_at.store(NOW, Ordering::Relaxed);
    stats.open.store(open_signals != 0, Ordering::Relaxed);
    stats.open_signals.store(open_signals, Ordering::Relaxed);
    Arc::new(stats)
}

fn all_serve() -> Serving {
    Serving::of(&[core(0b111)], false, NOW)
}

/// A request of Check or Watch.
fn about(service: &str) -> Bytes {
    let mut message = vec![0x0a, service.len() as u8];
    message.extend(service.bytes());
    grpc::frame(&message)
}

/// What is said: a status of health, or gRPC's code at the end.
fn told(sayings: &[Saying]) -> Vec<i64> {
    let told = sayings.iter().map(|saying| match saying {
        Saying::Message(message) => i64::from(*message.body.last().expect("a status")),
        Saying::End(answer) => {
            let status = answer.headers.iter().find(|(name, _)| name == "grpc-status");
            let code = status.expect("a status").1.to_str().expect("a number");
            -code.parse::<i64>().expect("a number")
        }
    });
    told.collect()
}

fn watch(services: &mut Services, stream: u32, service: &str) -> Vec<i64> {
    let request = request(Method::HealthWatch, stream, Part::Message, about(service));
    told(&services.take(&request, all_serve()))
}

#[test]
fn a_call_survives_the_tag_that_carries_it() {
    for method in Method::ALL {
        for listener in [0, 7, u16::MAX] {
            assert_eq!(Method::unpack(method.pack(listener)), Some((method, listener)));
        }
    }
}

#[test]
fn the_server_serves_while_every_core_turns_and_any_has_a_route_open() {
    let traces = Subject::Signal(Signal::Traces);
    let logs = Subject::Signal(Signal::Logs);
    let serves = |cores: &[Arc<ShardStats>], is_draining, now, subject| {
        Serving::of(cores, is_draining, now).status(subject) == Status::Serving
    };
    let cores = [core(0b001), core(0)];
    assert!(serves(&cores, false, NOW, Subject::Server));
    assert!(serves(&cores, false, NOW, traces));
    assert!(!serves(&cores, false, NOW, logs), "nobody takes logs just now");
    assert!(!serves(&cores, true, NOW, Subject::Server), "it drains");
    assert!(!serves(&cores, false, NOW + 6_000_000_000, Subject::Server), "nobody turns");
    assert!(!serves(&[core(0), core(0)], false, NOW, Subject::Server), "all are full");
    let asleep = Arc::new(ShardStats::default());
    assert!(!serves(&[core(0b111), asleep], false, NOW, Subject::Server), "one never turned");
}

#[test]
fn a_watch_hears_of_changes_alone_and_only_of_those_of_its_own_subject() {
    let mut services = services();
    assert!(!services.has_watches());
    assert_eq!(watch(&mut services, 1, ""), [1]);
    assert_eq!(watch(&mut services, 3, OTLP_SERVICES[0]), [1]);
    assert_eq!(watch(&mut services, 5, OTLP_SERVICES[3]), [3], "no pipeline takes profiles");
    assert!(services.changes(all_serve()).is_empty());
    let no_traces = Serving::of(&[core(0b110)], false, NOW);
    let mut heard = |serving| -> Vec<(u32, Vec<i64>)> {
        let changes = services.changes(serving);
        let mut heard: Vec<_> =
            changes.into_iter().map(|(id, saying)| (id.stream, told(&[saying]))).collect();
        heard.sort();
        heard
    };
    assert_eq!(heard(no_traces), [(3, vec![2])]);
    assert_eq!(heard(no_traces), []);
    assert_eq!(heard(Serving::default()), [(1, vec![2])], "it had heard already");
    assert_eq!(heard(all_serve()), [(1, vec![1]), (3, vec![1])]);
}

#[test]
fn each_way_to_end_a_call_forgets_it() {
    let mut services = services();
    let mut after = |stream, part, body| {
        let said = watch(&mut services, stream, "");
        assert_eq!(said, [1]);
        let request = request(Method::HealthWatch, stream, part, body);
        let said = told(&services.take(&request, all_serve()));
        (said, services.calls.len(), services.watches)
    };
    assert_eq!(after(1, Part::Message, about("")), (vec![-13], 0, 0), "INTERNAL: a second one");
    assert_eq!(after(3, Part::Leaving, Bytes::new()), (vec![2, -14], 0, 0), "UNAVAILABLE");
    assert_eq!(after(5, Part::Lost, Bytes::new()), (vec![], 0, 0));
    assert_eq!(after(7, Part::End, Bytes::new()), (vec![], 1, 1), "the watch itself goes on");
    let end = request(Method::HealthWatch, 9, Part::End, Bytes::new());
    assert_eq!(told(&services.take(&end, all_serve())), [-13], "a watch without a question");
    let end = request(Method::Reflection, 11, Part::End, Bytes::new());
    assert_eq!(told(&services.take(&end, all_serve())), [0]);
}

#[test]
fn a_message_that_cannot_be_read_is_refused_whatever_the_method() {
    let compressed = Bytes::from_static(&[1, 0, 0, 0, 0]);
    let broken = grpc::frame(&[0x0a, 0x05]);
    for method in Method::ALL {
        let mut services = services();
        let part = if method.is_streamed() { Part::Message } else { Part::Whole };
        let mut refused = |body: &Bytes| {
            let request = request(method, 1, part, body.clone());
            let said = told(&services.take(&request, all_serve()));
            (said, services.calls.len())
        };
        assert_eq!(refused(&compressed), (vec![-12], 0), "{method:?}");
        if method != Method::HealthList {
            assert_eq!(refused(&broken), (vec![-13], 0), "{method:?}");
        }
    }
}

#[test]
fn open_calls_are_bounded_and_those_that_are_open_go_on() {
    let mut services = services();
    for nth in 0..CALLS_MAX as u32 {
        assert_eq!(watch(&mut services, 2 * nth + 1, ""), [1]);
    }
    assert_eq!(watch(&mut services, 9_999, ""), [-8], "RESOURCE_EXHAUSTED");
    let question = grpc::frame(&[0x3a, 0]);
    let reflection = request(Method::Reflection, 9_999, Part::Message, question);
    assert_eq!(told(&services.take(&reflection, all_serve())), [-8]);
    assert_eq!(services.changes(Serving::default()).len(), CALLS_MAX);
    let lost = request(Method::HealthWatch, 1, Part::Lost, Bytes::new());
    services.take(&lost, all_serve());
    assert_eq!(watch(&mut services, 9_999, ""), [1]);
    assert_eq!(services.stats().open_calls, CALLS_MAX as u64);
}
