//! The gRPC health service, asked by another project's client: as Kubernetes probes it, and as
//! clients watch it that choose among servers.

use std::time::Duration;

use forebay_codec::signal::Signal;
use forebay_tests::forebay::{PATIENCE, Process, config};
use forebay_tests::items;
use forebay_tests::scene::Scene;
use forebay_tests::sink::{Gate, Sink};
use forebay_tests::wire::{Http1, path_of};
use rustix::process::Signal as ProcessSignal;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const TRACES: &str = "opentelemetry.proto.collector.trace.v1.TraceService";
const PROFILES: &str = "opentelemetry.proto.collector.profiles.v1development.ProfilesService";

async fn connect(forebay: &Process) -> HealthClient<Channel> {
    let endpoint = Endpoint::from_shared(forebay.grpc_url()).expect("an address");
    HealthClient::new(endpoint.connect().await.expect("it listens"))
}

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

async fn check(client: &mut HealthClient<Channel>, service: &str) -> Result<ServingStatus, Status> {
    client.check(about(service)).await.map(|answer| answer.into_inner().status())
}

async fn watch(
    client: &mut HealthClient<Channel>,
    service: &str,
) -> Streaming<HealthCheckResponse> {
    client.watch(about(service)).await.expect("Watch is served").into_inner()
}

/// What a watch says next.
async fn next(watch: &mut Streaming<HealthCheckResponse>) -> Result<ServingStatus, Status> {
    let next = tokio::time::timeout(PATIENCE, watch.message()).await.expect("it says something");
    next.map(|message| message.expect("a watch does not end well").status())
}

#[tokio::test]
async fn a_check_tells_of_the_server_and_of_each_service_that_a_pipeline_takes() {
    let scene = Scene::start();
    let mut client = connect(&scene.forebay).await;
    for service in ["", TRACES, &TRACES.replace("trace", "logs").replace("Trace", "Logs")] {
        let status = check(&mut client, service).await;
        assert_eq!(status.expect("known"), ServingStatus::Serving, "{service:?}");
    }
    for service in [PROFILES, "TraceService", "grpc.health.v1.Health"] {
        let refused = check(&mut client, service).await.expect_err("not known");
        assert_eq!(refused.code(), Code::NotFound, "{service:?}: {refused}");
    }
    let end = scene.end();
    let doors = end.ledger["receivers"].as_array().expect("receivers");
    assert!(doors.iter().all(|door| door["requests"].get("unserved").is_none()), "{doors:?}");
}

#[tokio::test]
async fn a_watch_hears_that_the_process_stops_and_does_not_hold_it_up() {
    let forebay = Scene::alone("").forebay;
    let mut client = connect(&forebay).await;
    let mut server = watch(&mut client, "").await;
    let mut traces = watch(&mut client, TRACES).await;
    let mut unknown = watch(&mut client, "nobody").await;
    assert_eq!(next(&mut server).await.expect("open"), ServingStatus::Serving);
    assert_eq!(next(&mut traces).await.expect("open"), ServingStatus::Serving);
    assert_eq!(next(&mut unknown).await.expect("open"), ServingStatus::ServiceUnknown);
    let wait_for_three = async {
        while forebay.metric("forebay_open_calls", &[]) != 3.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait_for_three).await.expect("all are counted");
    assert_eq!(forebay.metric("forebay_health_requests", &[]), 3.0);

    forebay.signal(ProcessSignal::TERM);
    for watch in [&mut server, &mut traces] {
        assert_eq!(next(watch).await.expect("the last word"), ServingStatus::NotServing);
    }
    for mut watch in [server, traces, unknown] {
        assert_eq!(next(&mut watch).await.expect_err("the end").code(), Code::Unavailable);
    }
    let end = forebay.wait();
    assert!(end.took < Duration::from_secs(5), "{:?}", end.took);
    assert_eq!(end.ledger["received_items"], 0);
}

#[tokio::test]
async fn a_watch_outlives_every_timeout_and_a_slow_one_stays_alone() {
    let limits = "limits: {body_timeout: 100ms, idle_timeout: 200ms, write_timeout: 200ms}";
    let forebay = Scene::alone(limits).forebay;
    let mut client = connect(&forebay).await;
    let mut server = watch(&mut client, "").await;
    assert_eq!(next(&mut server).await.expect("open"), ServingStatus::Serving);
    let quiet = tokio::time::timeout(Duration::from_secs(2), server.message()).await;
    assert!(quiet.is_err(), "nothing changed, so nothing is said: {quiet:?}");
    assert_eq!(check(&mut client, "").await.expect("same connection"), ServingStatus::Serving);
    forebay.signal(ProcessSignal::TERM);
    assert_eq!(next(&mut server).await.expect("the last word"), ServingStatus::NotServing);
    forebay.wait();
}

#[tokio::test]
async fn a_full_queue_is_not_serving_until_there_is_room() {
    let gate = Gate::default();
    let sink = Sink::scripted(gate.script());
    let queue = "{sending_queue: {queue_size: 1, num_consumers: 1}, ";
    let exporter = sink.grpc_exporter().replacen('{', queue, 1);
    let cores = "{receivers: \"0\", exporters: \"0\"}";
    let rest = format!("exporters:\n  otlp_grpc: {exporter}\nengine: {{cores: {cores}}}\n");
    let forebay = Process::start(&config("[otlp_grpc]", &rest));
    let mut client = connect(&forebay).await;
    let mut server = watch(&mut client, "").await;
    let mut traces = watch(&mut client, TRACES).await;
    assert_eq!(next(&mut server).await.expect("open"), ServingStatus::Serving);
    assert_eq!(next(&mut traces).await.expect("open"), ServingStatus::Serving);

    let mut connection = Http1::connect(forebay.http_address());
    let headers = [("content-type", "application/x-protobuf")];
    let mut taken = 0;
    loop {
        let body = items::proto(Signal::Traces, taken, 10);
        if connection.post(path_of(Signal::Traces), &headers, &body).status != 200 {
            break;
        }
        taken += 10;
        assert!(taken < 1000, "a narrow queue takes a thousand items");
    }
    assert_eq!(next(&mut traces).await.expect("open"), ServingStatus::NotServing);
    assert_eq!(next(&mut server).await.expect("open"), ServingStatus::NotServing);
    assert_eq!(check(&mut client, "").await.expect("known"), ServingStatus::NotServing);
    assert_eq!(forebay.health().0, 503, "the HTTP health check says the same");

    gate.open();
    assert_eq!(next(&mut server).await.expect("open"), ServingStatus::Serving);
    assert_eq!(next(&mut traces).await.expect("open"), ServingStatus::Serving);
    sink.wait_for(Signal::Traces, taken);
    drop((server, traces));
    forebay.stop();
}
