//! Peers that cost work and bring no requests: each kind ends its connection, calmly and soon, and
//! is told to the door; whoever merely does much of it is left alone.

use forebay_net::http2::Http2;
use forebay_net::request::{Core, Standing, Trouble};

use crate::desk::{self, Desk, LIMITS};
use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, REQUEST,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, frames, goaway_code, open, reset_code,
};

const ENHANCE_YOUR_CALM: u32 = 11;
const SECOND: u64 = 1_000_000_000;

/// A name, and what makes us reset a stream.
type Provocation = (&'static str, fn(u32) -> Vec<u8>);

/// Sends what `flood` makes until the connection ends. Returns how often.
fn endure(name: &str, trouble: Trouble, mut flood: impl FnMut(u32) -> Vec<u8>) -> u32 {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    let mut output = Vec::new();
    for nth in 0..100_000 {
        core.handle_input(&flood(nth), &mut desk.turn());
        output.extend_from_slice(&core.take_output());
        if core.standing() != Standing::Open {
            assert_eq!(goaway_code(&output), Some(ENHANCE_YOUR_CALM), "{name}");
            assert_eq!(desk.troubles.last(), Some(&trouble), "{name}");
            let held: usize = desk.requests.iter().map(|request| request.reserved).sum();
            assert_eq!(desk.reserved, held, "{name}");
            return nth;
        }
    }
    panic!("{name} goes on for ever");
}

fn number(value: u32) -> [u8; 4] {
    value.to_be_bytes()
}

#[test]
fn every_flood_ends_its_connection_and_is_told_to_the_door() {
    let begun = |nth: u32| frame(HEADERS, END_HEADERS, 2 * nth + 1, REQUEST);
    let within = |first: Vec<u8>, each: Vec<u8>| {
        move |nth| if nth == 0 { first.clone() } else { each.clone() }
    };
    let control: [(&str, Vec<u8>); 8] = [
        ("pings", frame(PING, 0, 0, &[0; 8])),
        ("pongs", frame(PING, ACK, 0, &[0; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("acknowledged settings", frame(SETTINGS, ACK, 0, &[])),
        ("priorities", frame(PRIORITY, 0, 3, &[0; 5])),
        ("window updates", frame(WINDOW_UPDATE, 0, 0, &number(1))),
        ("farewells", frame(GOAWAY, 0, 0, &[0; 8])),
        ("unknown frames", frame(99, 0, 0, &[0; 8])),
    ];
    for (name, flood) in control {
        let borne = endure(name, Trouble::Control, |_| flood.clone());
        assert!((500..5_000).contains(&borne), "{name}: {borne}");
    }
    let crumbs = [
        ("empty DATA", frame(DATA, 0, 1, &[])),
        ("tiny DATA", frame(DATA, 0, 1, b"a")),
        ("padded DATA", frame(DATA, 8, 1, &[5, 0, 0, 0, 0, 0])),
    ];
    for (name, flood) in crumbs {
        let borne = endure(name, Trouble::Crumbs, within(begun(0), flood));
        assert!((500..20_000).contains(&borne), "{name}: {borne}");
    }
    // A stream that the peer reset again and again (CVE-2023-44487).
    let reset = |nth: u32| frame(RST_STREAM, 0, 2 * nth + 1, &number(8));
    endure("resets", Trouble::Resets, |nth| [begun(nth), reset(nth)].concat());
    // Streams that we are made to reset (CVE-2025-8671).
    let made: [Provocation; 4] = [
        ("window updates of nothing", |stream| frame(WINDOW_UPDATE, 0, stream, &[0; 4])),
        ("windows too large", |stream| frame(WINDOW_UPDATE, 0, stream, &number(i32::MAX as u32))),
        ("priorities too short", |stream| frame(PRIORITY, 0, stream, &[0; 4])),
        ("trailers that go on", |stream| frame(HEADERS, END_HEADERS, stream, &[])),
    ];
    for (name, provoke) in made {
        let borne =
            endure(name, Trouble::Errors, |nth| [begun(nth), provoke(2 * nth + 1)].concat());
        assert!(borne <= 100, "{name}: {borne}");
    }
    endure("malformed requests", Trouble::Errors, |nth| {
        frame(HEADERS, END_HEADERS | END_STREAM, 2 * nth + 1, b"\x86")
    });
    // CVE-2024-27316: a block without an end, in empty pieces and in long ones.
    let first = frame(HEADERS, 0, 1, REQUEST);
    for piece in [&[][..], &[0; 16 << 10]] {
        let flood = within(first.clone(), frame(CONTINUATION, 0, 1, piece));
        let borne = endure("continuations", Trouble::HeaderBlock, flood);
        assert!(borne <= 100, "{borne}");
    }
}

#[test]
fn requests_that_are_reset_while_they_are_worked_on_still_count_as_streams() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    for nth in 0..200 {
        let stream = 2 * nth + 1;
        let request = frame(HEADERS, END_HEADERS | END_STREAM, stream, REQUEST);
        core.handle_input(&request, &mut desk.turn());
        core.handle_input(&frame(RST_STREAM, 0, stream, &number(8)), &mut desk.turn());
    }
    assert_eq!(desk.requests.len(), LIMITS.connection_requests_max);
    assert_eq!(core.in_flight(), LIMITS.connection_requests_max);
    for request in std::mem::take(&mut desk.requests) {
        core.handle_answer(request.id.stream, desk::ok(), &mut desk.turn());
    }
    assert_eq!(core.in_flight(), 0);
    core.handle_input(&frame(HEADERS, 5, 401, REQUEST), &mut desk.turn());
    assert_eq!(desk.requests.len(), 1, "there is room again");
}

#[test]
fn a_client_that_pings_resets_and_sends_crumbs_between_its_requests_is_left_alone() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    for nth in 0..20_000u32 {
        let (reset, stream) = (4 * nth + 1, 4 * nth + 3);
        let mut input = frame(PING, 0, 0, &[0; 8]);
        input.extend(frame(WINDOW_UPDATE, 0, 0, &number(5)));
        input.extend(frame(HEADERS, END_HEADERS, reset, REQUEST));
        input.extend(frame(RST_STREAM, 0, reset, &number(8)));
        // As some clients write gRPC: the prefix by itself, then the message.
        input.extend(frame(HEADERS, END_HEADERS, stream, REQUEST));
        input.extend(frame(DATA, 0, stream, b"\0\0\0\0\x01"));
        input.extend(frame(DATA, END_STREAM, stream, b"a"));
        core.handle_input(&input, &mut desk.turn());
        let request = desk.requests.pop().expect("each round brings a request");
        desk.reserved -= request.reserved;
        core.handle_answer(request.id.stream, desk::ok(), &mut desk.turn());
        core.take_output();
        assert_eq!(core.standing(), Standing::Open, "round {nth}");
    }
    assert!(desk.troubles.is_empty());
}

#[test]
fn bodies_that_were_on_their_way_to_refused_streams_are_no_flood() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    let streams = 4 * LIMITS.connection_requests_max as u32;
    for nth in 0..streams {
        let begun = frame(HEADERS, END_HEADERS, 2 * nth + 1, REQUEST);
        core.handle_input(&begun, &mut desk.turn());
    }
    for nth in 0..streams * 64 {
        let body = frame(DATA, 0, 2 * (nth % streams) + 1, &[0; 8 << 10]);
        core.handle_input(&body, &mut desk.turn());
    }
    assert_eq!(core.standing(), Standing::Open);
    core.handle_lost(&mut desk.turn());
    assert_eq!(desk.reserved, 0);
}

#[test]
fn an_idle_client_may_ping_for_ever() {
    let mut desk = Desk::new();
    let mut core = open(&mut desk);
    for nth in 0..100_000 {
        desk.now = nth * SECOND / 50;
        core.handle_input(&frame(PING, 0, 0, &[0; 8]), &mut desk.turn());
        assert_eq!(core.take_output().len(), 17, "each is answered");
    }
    assert_eq!(core.standing(), Standing::Open);
}

#[test]
fn a_table_and_a_list_that_are_small_on_the_wire_are_no_more_than_their_limits_here() {
    let mut desk = Desk::new();
    let mut core: Http2 = open(&mut desk);
    // One entry as large as the table, named thousands of times.
    let mut block = REQUEST.to_vec();
    block.extend(b"\x40\x01a\x7f\x9d\x1e");
    block.extend([b'v'; 4_000 - 4]);
    assert!(block.len() < 5_000);
    block.extend([0xbe; 10_000]);
    core.handle_input(&frame(HEADERS, 5, 1, &block), &mut desk.turn());
    let output = core.take_output();
    assert!(desk.requests.is_empty());
    let status = crate::frames::frames(&output).into_iter().find(|f| f.0 == HEADERS && f.2 == 1);
    let (.., payload) = status.expect("an answer");
    assert!(payload.ends_with(b"431"), "{payload:?}");
    core.handle_input(&frame(HEADERS, 5, 3, REQUEST), &mut desk.turn());
    assert_eq!(desk.requests.len(), 1, "and the tables agree");
}

#[test]
fn refusals_that_nobody_reads_are_as_few_as_a_peer_may_have_streams() {
    let mut desk = Desk::new();
    desk.refuse = true;
    let mut core = open(&mut desk);
    core.take_output();
    let call = |nth: u32| frame(HEADERS, END_HEADERS | END_STREAM, 2 * nth + 1, REQUEST);
    let allowed = LIMITS.connection_requests_max as u32;
    core.handle_input(&(0..allowed + 9).flat_map(call).collect::<Vec<_>>(), &mut desk.turn());
    let answered = |output: &[u8]| frames(output).iter().filter(|f| f.0 == HEADERS).count();
    let output = core.take_output();
    assert_eq!(answered(&output), allowed as usize);
    assert_eq!(reset_code(&output, 2 * allowed + 1), Some(7), "REFUSED_STREAM: come again");
    // Once they have left, as many again are welcome.
    core.handle_input(&call(allowed + 9), &mut desk.turn());
    assert_eq!(answered(&core.take_output()), 1);
    let many = (allowed + 10..20_000).flat_map(call).collect::<Vec<_>>();
    core.handle_input(&many, &mut desk.turn());
    let output = core.take_output();
    assert_eq!(goaway_code(&output), Some(ENHANCE_YOUR_CALM));
    assert!(output.len() < many.len() / 2, "{} bytes for {}", output.len(), many.len());
}

#[test]
fn settings_by_the_thousand_in_one_frame_are_a_flood_as_well() {
    let setting = [0, 4, 0, 0, 0, 1];
    let borne = endure("long settings", Trouble::Control, |_| {
        frame(SETTINGS, 0, 0, &setting.repeat(2_000))
    });
    assert!(borne < 10, "{borne}");
}
