//! HTTP/2 turned against its server: floods of frames that cost their sender little. The
//! connection ends, or stays bounded, and the bystander on the same core (see
//! [`forebay_tests::scene`]) does not notice.

use bytes::Bytes;
use forebay_codec::signal::Signal;
use forebay_tests::frames::{self, Frames};
use forebay_tests::scene::Scene;
use forebay_tests::wire::{Http2, method_of};
use http::Method;

const JSON: (&str, &str) = ("content-type", "application/json");
const MIB: u64 = 1 << 20;

fn grpc_of(scene: &Scene) -> std::net::SocketAddr {
    scene.forebay.grpc.expect("a gRPC listener")
}

/// What the process has grown by since it had `before` resident bytes.
fn grown(scene: &Scene, before: u64) -> u64 {
    scene.forebay.resident_bytes().saturating_sub(before)
}

#[test]
fn a2_rapid_resets_end_the_connection_and_no_other() {
    let scene = Scene::start();
    let headers = frames::call(method_of(Signal::Traces));
    for together in [true, false] {
        let mut peer = Frames::connect(grpc_of(&scene));
        let mut flood = Vec::new();
        for number in 0..4000u32 {
            let stream = 2 * number + 1;
            let open = frames::bytes_of(frames::HEADERS, frames::END_HEADERS, stream, &headers);
            let reset = frames::bytes_of(frames::RST_STREAM, 0, stream, &8u32.to_be_bytes());
            flood.extend(open.into_iter().chain(reset));
            if !together && !peer.send_all(&std::mem::take(&mut flood)) {
                break;
            }
        }
        let _ = peer.send_all(&flood);
        let code = peer.goaway_code();
        assert_eq!(code, Some(frames::ENHANCE_YOUR_CALM), "in one piece: {together}");
    }
    scene.end();
}

#[test]
fn a3_errors_that_make_the_server_reset_end_the_connection() {
    let scene = Scene::start();
    let mut peer = Frames::connect(grpc_of(&scene));
    let headers = frames::call(method_of(Signal::Traces));
    for number in 0..1000u32 {
        let stream = 2 * number + 1;
        // A window that overflows is the stream's error (RFC 9113, 6.9.1).
        let open = frames::bytes_of(frames::HEADERS, frames::END_HEADERS, stream, &headers);
        let overflow =
            frames::bytes_of(frames::WINDOW_UPDATE, 0, stream, &0x7fff_ffffu32.to_be_bytes());
        if !peer.send_all(&[open, overflow].concat()) {
            break;
        }
    }
    assert_eq!(peer.goaway_code(), Some(frames::ENHANCE_YOUR_CALM));
    scene.end();
}

#[tokio::test]
async fn a4_a5_header_lists_over_the_limit_are_refused_and_floods_of_them_end_the_connection() {
    let scene = Scene::start();
    let before = scene.forebay.resident_bytes();
    let http = Http2::connect(scene.forebay.http_address()).await;
    let value = "v".repeat(20_000);
    let large = [JSON, ("x-large", value.as_str())];
    let answer = http.request(Method::POST, "/v1/traces", &large, Bytes::new()).await;
    if let Ok(answer) = answer {
        assert_eq!(answer.status, 431);
    }
    let body = Bytes::from_static(b"{}");
    let answer = http.request(Method::POST, "/v1/traces", &[JSON], body).await;
    assert_eq!(answer.expect("the connection lives on").status, 200);
    // A header block that never ends.
    let mut peer = Frames::connect(grpc_of(&scene));
    assert!(peer.send(frames::HEADERS, 0, 1, &frames::call(method_of(Signal::Traces))));
    let more = frames::block(&[("x-more", &"m".repeat(8000))]);
    for _ in 0..1000 {
        if !peer.send(frames::CONTINUATION, 0, 1, &more) {
            break;
        }
    }
    assert_eq!(peer.goaway_code(), Some(frames::ENHANCE_YOUR_CALM));
    // One that names the same table entry again and again (an HPACK bomb).
    let mut peer = Frames::connect(grpc_of(&scene));
    let mut bomb = frames::call(method_of(Signal::Traces));
    bomb.extend([0x40, 1, b'x', 0x7f, 0x81, 0x1e]);
    bomb.extend([b'v'; 4000]);
    bomb.extend([0xbe; 12_000]);
    let _ = peer.send(frames::HEADERS, frames::END_HEADERS | frames::END_STREAM, 1, &bomb);
    let refusal = loop {
        match peer.next_frame() {
            Some(frame) if [frames::SETTINGS, frames::WINDOW_UPDATE].contains(&frame.kind) => {}
            other => break other,
        }
    };
    assert!(
        refusal.as_ref().is_none_or(|frame| {
            matches!(frame.kind, frames::HEADERS | frames::RST_STREAM | frames::GOAWAY)
        }),
        "{refusal:?}"
    );
    assert!(grown(&scene, before) < 32 * MIB, "{} more", grown(&scene, before));
    scene.end();
}

#[test]
fn a6_floods_of_control_frames_stay_bounded_and_hurt_nobody() {
    let scene = Scene::with_engine("limits: {write_timeout: 1s}");
    let before = scene.forebay.resident_bytes();
    // PINGs whose answers are never read: the peer stops reading, then ends the connection.
    let mut peer = Frames::connect(grpc_of(&scene));
    let pings = frames::bytes_of(frames::PING, 0, 0, &[7; 8]).repeat(1000);
    let mut sent = 0;
    while peer.send_all(&pings) {
        sent += 1;
        assert!(sent < 100_000, "it goes on reading from who does not read");
    }
    assert!(grown(&scene, before) < 32 * MIB, "{} more", grown(&scene, before));
    // SETTINGS, the same way.
    let mut peer = Frames::connect(grpc_of(&scene));
    let settings = frames::bytes_of(frames::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(1000);
    let mut sent = 0;
    while peer.send_all(&settings) {
        sent += 1;
        assert!(sent < 100_000, "it goes on reading from who does not read");
    }
    assert!(grown(&scene, before) < 32 * MIB, "{} more", grown(&scene, before));
    // DATA frames that carry nothing.
    let mut peer = Frames::connect(grpc_of(&scene));
    let headers = frames::call(method_of(Signal::Traces));
    assert!(peer.send(frames::HEADERS, frames::END_HEADERS, 1, &headers));
    let empty = frames::bytes_of(frames::DATA, 0, 1, &[]).repeat(1000);
    let _ = peer.send_all(&empty);
    assert_eq!(peer.goaway_code(), Some(frames::ENHANCE_YOUR_CALM));
    scene.end();
}

#[test]
fn a13_a_length_that_http_2_frames_contradict_resets_the_stream_alone() {
    let scene = Scene::start();
    let mut peer = Frames::connect(scene.forebay.http_address());
    let head = |length: &str| {
        frames::block(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/v1/traces"),
            (":authority", "test"),
            JSON,
            ("content-length", length),
        ])
    };
    for (stream, length) in [(1, "1"), (3, "100")] {
        assert!(peer.send(frames::HEADERS, frames::END_HEADERS, stream, &head(length)));
        assert!(peer.send(frames::DATA, frames::END_STREAM, stream, b"{ }"));
        let reset = peer.wait_for(frames::RST_STREAM, stream).expect("a reset");
        assert_eq!(reset.payload, 1u32.to_be_bytes(), "PROTOCOL_ERROR for {length}");
    }
    assert!(peer.send(frames::HEADERS, frames::END_HEADERS, 5, &head("3")));
    assert!(peer.send(frames::DATA, frames::END_STREAM, 5, b"{ }"));
    assert_eq!(peer.wait_for(frames::DATA, 5).expect("an answer").payload, b"{}");
    scene.wait_for_ended("abandoned", 2);
    scene.end();
}
