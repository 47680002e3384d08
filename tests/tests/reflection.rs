//! gRPC server reflection, asked by another project's client, held against the published .proto
//! files, which another project's compiler has read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use forebay_tests::scene::Scene;
use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ExtensionRequest, ServerReflectionRequest};
use tonic_reflection::pb::v1alpha;

const SERVICES: [&str; 3] = [
    "opentelemetry/proto/collector/trace/v1/trace_service.proto",
    "opentelemetry/proto/collector/metrics/v1/metrics_service.proto",
    "opentelemetry/proto/collector/logs/v1/logs_service.proto",
];
const PROFILES: &str =
    "opentelemetry/proto/collector/profiles/v1development/profiles_service.proto";

async fn connect(scene: &Scene) -> Channel {
    let endpoint = Endpoint::from_shared(scene.forebay.grpc_url()).expect("an address");
    endpoint.connect().await.expect("it listens")
}

async fn ask(scene: &Scene, questions: Vec<MessageRequest>) -> Vec<MessageResponse> {
    let mut client = ServerReflectionClient::new(connect(scene).await);
    let request = |question| ServerReflectionRequest {
        host: "any".to_owned(),
        message_request: Some(question),
    };
    let requests: Vec<_> = questions.into_iter().map(request).collect();
    let stream = tokio_stream::iter(requests.clone());
    let mut answers = client.server_reflection_info(stream).await.expect("served").into_inner();
    let mut replies = Vec::new();
    while let Some(answer) = answers.message().await.expect("each is answered") {
        assert_eq!(answer.valid_host, "any");
        assert_eq!(answer.original_request.as_ref(), requests.get(replies.len()));
        replies.push(answer.message_response.expect("a reply"));
    }
    assert_eq!(replies.len(), requests.len(), "as many answers as questions");
    replies
}

fn files(reply: &MessageResponse) -> Vec<FileDescriptorProto> {
    let MessageResponse::FileDescriptorResponse(response) = reply else {
        panic!("no files: {reply:?}");
    };
    let decode = |bytes: &Vec<u8>| FileDescriptorProto::decode(&bytes[..]).expect("a file");
    response.file_descriptor_proto.iter().map(decode).collect()
}

fn error_code(reply: &MessageResponse) -> i32 {
    match reply {
        MessageResponse::ErrorResponse(error) => error.error_code,
        other => panic!("no error: {other:?}"),
    }
}

/// Where the package with the published files lies.
fn published() -> PathBuf {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--offline", "--filter-platform", &platform])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .expect("cargo runs");
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let found = packages.iter().find(|package| package["name"] == "opentelemetry-proto");
    let manifest = found.expect("a dependency")["manifest_path"].as_str().expect("a path");
    PathBuf::from(manifest).parent().expect("a folder").join("src/proto/opentelemetry-proto")
}

/// A file without what is no part of what goes over the wire: options and comments, numbers that
/// are reserved, and the order in which its parts are written down.
fn bare(mut file: FileDescriptorProto) -> FileDescriptorProto {
    (file.options, file.source_code_info) = (None, None);
    file.dependency.sort();
    file.message_type.iter_mut().for_each(bare_message);
    file.message_type.sort_by(|a, b| a.name().cmp(b.name()));
    file.enum_type.sort_by(|a, b| a.name().cmp(b.name()));
    for value in file.enum_type.iter_mut().flat_map(|enumeration| &mut enumeration.value) {
        value.options = None;
    }
    for method in file.service.iter_mut().flat_map(|service| &mut service.method) {
        method.client_streaming = Some(method.client_streaming());
        method.server_streaming = Some(method.server_streaming());
        method.options = None;
    }
    file
}

fn bare_message(message: &mut DescriptorProto) {
    message.reserved_range.clear();
    message.reserved_name.clear();
    message.field.sort_by_key(|field| field.number());
    for field in &mut message.field {
        field.options = None;
    }
    message.nested_type.iter_mut().for_each(bare_message);
    message.nested_type.sort_by(|a, b| a.name().cmp(b.name()));
    message.enum_type.iter_mut().for_each(|e| (e.reserved_range, e.options) = (vec![], None));
}

/// Readers of descriptors ask for it.
fn assert_oneofs_together(message: &DescriptorProto) {
    let mut blocks: Vec<_> = message.field.iter().map(|field| field.oneof_index).collect();
    blocks.dedup();
    blocks.retain(Option::is_some);
    let count = blocks.len();
    blocks.sort();
    blocks.dedup();
    assert_eq!(blocks.len(), count, "the members of a oneof of {} are apart", message.name());
}

fn assert_same(told: Vec<FileDescriptorProto>, known: Vec<FileDescriptorProto>) {
    let by_name = |files: Vec<FileDescriptorProto>| -> BTreeMap<String, FileDescriptorProto> {
        files.into_iter().map(|file| (file.name().to_owned(), bare(file))).collect()
    };
    let (told, known) = (by_name(told), by_name(known));
    assert_eq!(told.keys().collect::<Vec<_>>(), known.keys().collect::<Vec<_>>());
    for (name, known) in &known {
        for (told, known) in told[name].message_type.iter().zip(&known.message_type) {
            assert_eq!(told, known, "{name}");
        }
        assert_eq!(&told[name], known, "{name}");
    }
}

#[tokio::test]
async fn what_is_told_of_otlp_is_what_its_published_files_say() {
    let scene = Scene::alone("");
    let services = SERVICES.into_iter().chain([PROFILES]);
    let named = |name: &str| MessageRequest::FileByFilename(name.to_owned());
    let replies = ask(&scene, services.clone().map(named).collect()).await;
    let told: Vec<_> = replies.iter().flat_map(files).collect();
    told.iter().flat_map(|file| &file.message_type).for_each(assert_oneofs_together);
    let known = protox::compile(services, [published()]).expect("published files compile");
    assert_same(told, known.file);
    scene.end();
}

#[tokio::test]
async fn what_is_told_of_health_and_reflection_is_what_their_files_say() {
    let scene = Scene::alone("");
    let symbols = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo",
    ];
    let of = |symbol: &str| MessageRequest::FileContainingSymbol(symbol.to_owned());
    let replies = ask(&scene, symbols.map(of).into()).await;
    let mut told: Vec<_> = replies.iter().flat_map(files).collect();
    let mut known: Vec<_> = [
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ]
    .into_iter()
    .flat_map(|bytes| FileDescriptorSet::decode(bytes).expect("files").file)
    .collect();
    // Each project keeps them in a folder of its own liking: their packages name them.
    let rename = |file: &mut FileDescriptorProto| file.name = Some(file.package().to_owned());
    told.iter_mut().chain(&mut known).for_each(rename);
    // List came to the health service later than to that project.
    let health = told.iter_mut().find(|file| file.package() == "grpc.health.v1").expect("health");
    health.message_type.retain(|message| !message.name().starts_with("HealthList"));
    health.service[0].method.retain(|method| method.name() != "List");
    assert_same(told, known);
    scene.end();
}

#[tokio::test]
async fn services_are_listed_as_the_pipelines_take_them_under_both_names_of_the_protocol() {
    let scene = Scene::alone("");
    let replies = ask(&scene, vec![MessageRequest::ListServices(String::new())]).await;
    let MessageResponse::ListServicesResponse(list) = &replies[0] else {
        panic!("no list: {replies:?}");
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    let expected = [
        "opentelemetry.proto.collector.trace.v1.TraceService",
        "opentelemetry.proto.collector.metrics.v1.MetricsService",
        "opentelemetry.proto.collector.logs.v1.LogsService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    assert_eq!(names, expected);
    let client = v1alpha::server_reflection_client::ServerReflectionClient::new;
    let mut client = client(connect(&scene).await);
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let stream = tokio_stream::iter([request]);
    let mut answers = client.server_reflection_info(stream).await.expect("served").into_inner();
    let answer = answers.message().await.expect("answered").expect("an answer");
    let reply = answer.message_response.expect("a reply");
    let v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list) = reply
    else {
        panic!("no list: {reply:?}");
    };
    assert_eq!(list.service.len(), expected.len());
    scene.end();
}

#[tokio::test]
async fn every_symbol_is_found_in_its_file_and_what_is_not_there_is_not_found() {
    let scene = Scene::alone("");
    let of = |symbol: &str| MessageRequest::FileContainingSymbol(symbol.to_owned());
    let known = [
        ("opentelemetry.proto.trace.v1.Span.Link", "trace.proto"),
        ("opentelemetry.proto.trace.v1.Span.SpanKind", "trace.proto"),
        ("opentelemetry.proto.metrics.v1.Metric.data", "metrics.proto"),
        ("opentelemetry.proto.logs.v1.SEVERITY_NUMBER_WARN", "logs.proto"),
        (".opentelemetry.proto.common.v1.AnyValue", "common.proto"),
        ("opentelemetry.proto.resource.v1.Resource.attributes", "resource.proto"),
    ];
    let replies = ask(&scene, known.iter().map(|(symbol, _)| of(symbol)).collect()).await;
    for ((symbol, file), reply) in known.iter().zip(&replies) {
        let found = files(reply).swap_remove(0);
        assert!(found.name().ends_with(&format!("/{file}")), "{symbol}: {}", found.name());
    }
    let extension = ExtensionRequest {
        containing_type: "opentelemetry.proto.trace.v1.Span".to_owned(),
        extension_number: 1000,
    };
    let all_of = |name: &str| MessageRequest::AllExtensionNumbersOfType(name.to_owned());
    let absent = vec![
        of("opentelemetry.proto.trace.v1"),
        of("opentelemetry.proto.trace.v1.Spam"),
        of(""),
        MessageRequest::FileByFilename("trace.proto".to_owned()),
        MessageRequest::FileContainingExtension(extension),
        all_of("opentelemetry.proto.trace.v1.SpanFlags"),
    ];
    for reply in ask(&scene, absent).await {
        assert_eq!(error_code(&reply), Code::NotFound as i32);
    }
    let replies = ask(&scene, vec![all_of("opentelemetry.proto.trace.v1.Span")]).await;
    let MessageResponse::AllExtensionNumbersResponse(none) = &replies[0] else {
        panic!("no numbers: {replies:?}");
    };
    assert!(none.extension_number.is_empty(), "{none:?}");
    let mut asked = 0.0;
    while asked < 13.0 {
        asked = scene.forebay.metric("forebay_reflection_requests", &[]);
    }
    assert_eq!(asked, 13.0);
    scene.end();
}

#[tokio::test]
async fn reflection_can_be_switched_off() {
    let scene = Scene::alone("reflection: false");
    let mut client = ServerReflectionClient::new(connect(&scene).await);
    let stream = tokio_stream::iter([ServerReflectionRequest::default()]);
    let refused = client.server_reflection_info(stream).await.expect_err("it is off");
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("engine.reflection"), "{refused}");
    scene.end();
}

#[tokio::test]
async fn a_stream_that_stays_open_is_served_for_long_and_does_not_hold_up_a_stop() {
    let scene = Scene::alone("limits: {body_timeout: 100ms, idle_timeout: 200ms}");
    let mut client = ServerReflectionClient::new(connect(&scene).await);
    let (questions, stream) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
    let list = || ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    questions.send(list()).await.expect("a stream");
    let mut answers = client.server_reflection_info(stream).await.expect("served").into_inner();
    answers.message().await.expect("answered").expect("an answer");
    let pause = std::time::Duration::from_secs(1);
    let quiet = tokio::time::timeout(pause, answers.message()).await;
    assert!(quiet.is_err(), "nothing is said unasked: {quiet:?}");
    questions.send(list()).await.expect("the stream is still there");
    answers.message().await.expect("answered").expect("an answer");
    scene.forebay.signal(rustix::process::Signal::TERM);
    let ended = answers.message().await.expect_err("it ends");
    assert_eq!(ended.code(), Code::Unavailable);
    let end = scene.forebay.wait();
    assert!(end.took < std::time::Duration::from_secs(5), "{:?}", end.took);
}
