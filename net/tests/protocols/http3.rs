//! Requests over HTTP/3: that they are what they are over HTTP/2, what becomes of them, and what
//! bounds them.

use bytes::Bytes;
use forebay_net::fields::Fields;
use forebay_net::http3::Code;
use forebay_net::request::{Answer, Core, Protocol, Request, Trouble};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::call::Call;
use crate::desk::{self, BODY_BYTES_MAX, Desk, LIMITS};
use crate::frames;
use crate::streams::{
    CONTROL, DATA, GOAWAY, HEADERS, Lines, OTHER, REQUEST, SETTINGS, frame, section,
};

fn request() -> Vec<u8> {
    frame(HEADERS, REQUEST)
}

/// A request whose body is to come.
fn begun(call: &mut Call) -> u64 {
    let stream = call.begin();
    call.send(stream, &request(), false);
    stream
}

/// Fields in HPACK, as literals that no table keeps.
fn hpack(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.extend([0, name.len() as u8]);
        out.extend_from_slice(name.as_bytes());
        out.push(value.len() as u8);
        out.extend_from_slice(value.as_bytes());
    }
    out
}

/// A request without what tells its protocol.
fn told(requests: &[Request]) -> Vec<String> {
    let tell = |request: &Request| {
        let Request { head, body, part, tag, .. } = request;
        let headers = desk::map(&head.headers);
        let (method, path, length) = (&head.method, &head.path, head.content_length);
        format!("{method} {path} {length:?} {headers:?} {part:?} {tag} {body:?}")
    };
    requests.iter().map(tell).collect()
}

#[test]
fn a_request_is_the_same_over_http3_and_over_http2() {
    const FIELDS: [(&str, &str); 16] = [
        (":method", "POST"),
        (":method", "GET"),
        (":scheme", "https"),
        (":scheme", "https"),
        (":authority", "a"),
        (":authority", "a"),
        (":path", "/v1/logs?x=y"),
        (":path", "/v1/traces"),
        ("content-type", "application/json"),
        ("content-length", "5"),
        ("host", "a"),
        ("x-a", "b"),
        ("x-a", "c"),
        ("TE", "x"),
        ("te", "trailers"),
        ("connection", "close"),
    ];
    let (mut same, mut taken) = (0, 0);
    for seed in 1..3_000 {
        let mut random = desk::random(seed);
        let pseudo =
            |at| (!random().is_multiple_of(40)).then(|| FIELDS[at + random() as usize % 2]);
        let mut fields: Vec<(&str, &str)> = [0, 2, 4, 6].into_iter().filter_map(pseudo).collect();
        // RFC 9114, 4.3.1, asks for what RFC 9113 does not.
        if !fields.iter().any(|(name, _)| *name == ":authority") {
            fields.push((":authority", "a"));
        }
        for _ in 0..random() % 4 {
            fields.push(FIELDS[8 + (random() % 8) as usize]);
        }
        let pieces: [&[u8]; 3] = match random() % 3 {
            0 => [b"body!", b"", b""],
            1 => [b"bo", b"", b"dy!"],
            _ => [b"", b"", b""],
        };
        let mut call = Call::open();
        let mut bytes = frame(HEADERS, &section(&fields));
        pieces.iter().for_each(|piece| bytes.extend(frame(DATA, piece)));
        call.ask(&bytes);

        let mut desk = Desk::new();
        let mut http2 = frames::open(&mut desk);
        let head = frames::frame(frames::HEADERS, frames::END_HEADERS, 1, &hpack(&fields));
        http2.handle_input(&head, &mut desk.turn());
        for (nth, piece) in pieces.iter().enumerate() {
            let flags = if nth == 2 { frames::END_STREAM } else { 0 };
            http2.handle_input(&frames::frame(frames::DATA, flags, 1, piece), &mut desk.turn());
        }
        let was_reset = frames::reset_code(&http2.take_output(), 1).is_some();
        assert_eq!(call.lines.resets.contains_key(&0), was_reset, "seed {seed}: {fields:?}");
        assert_eq!(told(&call.desk.requests), told(&desk.requests), "seed {seed}: {fields:?}");
        assert_eq!(call.desk.troubles, desk.troubles, "seed {seed}");
        assert!(call.desk.requests.iter().all(|r| r.head.protocol == Protocol::Http3));
        same += usize::from(was_reset);
        taken += desk.requests.len();
    }
    assert!(same > 500 && taken > 500, "{same} reset, {taken} taken");
}

/// A request whose body comes in some frames, with all that may be wrong with one.
fn long_request(random: &mut impl FnMut() -> u64) -> Vec<u8> {
    let frames: Vec<usize> = (0..random() % 4).map(|_| (random() % 30_000) as usize).collect();
    let right = frames.iter().sum::<usize>();
    let length = match random() % 6 {
        0 => Some(right + 1),
        1 => Some(right.saturating_sub(1)),
        2 => None,
        _ => Some(right),
    };
    let mut bytes = request();
    if let Some(length) = length {
        let said = section(&[("content-length", &length.to_string())]);
        bytes = frame(HEADERS, &[REQUEST, &said[2..]].concat());
    }
    for length in frames {
        let filler = random() as u8;
        let body: Vec<u8> = (0..length).map(|at| filler.wrapping_add((at / 7) as u8)).collect();
        bytes.extend(frame(DATA, &body));
    }
    if random().is_multiple_of(8) {
        bytes.extend(frame(HEADERS, &section(&[("x-a", "b")])));
    }
    if random().is_multiple_of(8) {
        bytes.truncate(bytes.len() - (random() as usize % bytes.len()).min(2_000));
    }
    bytes
}

#[test]
fn a_request_is_the_same_in_one_piece_and_in_pieces_that_came_together() {
    let (mut taken, mut refused) = (0, 0);
    for seed in 1..400 {
        let mut random = desk::random(seed * 7_919);
        let bytes = Bytes::from(long_request(&mut random));
        let mut whole = Call::open();
        whole.ask(&bytes);

        let mut call = Call::open();
        let stream = call.begin();
        let (mut pieces, mut rest) = (Vec::new(), bytes.clone());
        // Sometimes the end comes by itself.
        let ends_late = random().is_multiple_of(4);
        while !rest.is_empty() {
            pieces.push(rest.split_to(1 + random() as usize % rest.len().min(1_500)));
            let is_last = rest.is_empty();
            if is_last || random().is_multiple_of(8) {
                call.send_pieces(stream, &std::mem::take(&mut pieces), is_last && !ends_late);
            }
        }
        if ends_late {
            call.send_pieces(stream, &[], true);
        }
        let outcome = |call: &Call| {
            let Lines { resets, closed, .. } = &call.lines;
            (told(&call.desk.requests), resets.clone(), *closed, call.desk.troubles.clone())
        };
        assert_eq!(outcome(&call), outcome(&whole), "seed {seed}");
        taken += call.desk.requests.len();
        refused += 1 - call.desk.requests.len();
        call.lose();
    }
    assert!(taken > 100 && refused > 100, "{taken} taken, {refused} refused");
}

#[test]
fn answers_go_to_their_own_streams_whatever_their_order() {
    let mut call = Call::open();
    let streams: Vec<u64> = (0..4).map(|_| call.ask(&request())).collect();
    call.pass(LIMITS.header_timeout);
    assert_eq!((call.core.in_flight(), call.deadline()), (4, None), "only the engine is awaited");
    for request in std::mem::take(&mut call.desk.requests).into_iter().rev() {
        let body = Bytes::from(format!("{}", request.id.stream));
        let name = HeaderName::from_static("x-number");
        let field = (name, HeaderValue::from(request.id.stream));
        let (headers, trailers) = (Fields::from([field.clone()]), Fields::from([field]));
        call.answer(request.id.stream, Answer { status: StatusCode::OK, headers, body, trailers });
        call.answer(request.id.stream, desk::ok());
    }
    for stream in streams {
        let digit = b'0' + (stream / 4) as u8;
        let frames = call.lines.frames(stream);
        let kinds: Vec<u64> = frames.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [HEADERS, DATA, HEADERS]);
        assert_eq!(frames[1].1, [digit]);
        assert!(frames.iter().step_by(2).all(|(_, section)| section.ends_with(&[1, digit])));
        assert!(call.lines.finished.contains(&stream));
    }
    assert_eq!(call.core.in_flight(), 0);
    call.lose();
}

#[test]
fn the_door_is_asked_before_a_byte_of_the_body_is_kept() {
    let mut call = Call::open();
    call.desk.refuse = true;
    let stream = begun(&mut call);
    assert_eq!(call.lines.status(stream), Some(503), "at once");
    assert!(call.lines.finished.contains(&stream));
    call.send(stream, &frame(DATA, &[0; 100_000]), false);
    assert_eq!((call.desk.reservations, call.lines.stops.len()), (0, 0));
    call.send(stream, b"whatever this is, it is not read", true);
    assert_eq!(call.desk.reservations, 0);
    assert_eq!(call.lines.closed, None);
}

#[test]
fn who_sends_on_after_a_refusal_is_told_to_stop() {
    let mut call = Call::open();
    call.desk.refuse = true;
    let stream = begun(&mut call);
    for _ in 0..20 {
        call.send(stream, &[0; 100_000], false);
    }
    assert_eq!(call.lines.stops.get(&stream), Some(&Code::NO_ERROR));
    call.lose();
}

#[test]
fn a_body_that_is_too_long_is_refused_before_or_while_it_comes() {
    let mut call = Call::open();
    let length = (BODY_BYTES_MAX + 1).to_string();
    let said = section(&[("content-length", &length)]);
    let stream = call.begin();
    call.send(stream, &frame(HEADERS, &[REQUEST, &said[2..]].concat()), false);
    assert_eq!(call.lines.status(stream), Some(413));
    let stream = begun(&mut call);
    for _ in 0..=BODY_BYTES_MAX / 50_000 {
        call.send(stream, &frame(DATA, &[0; 50_000]), false);
    }
    assert_eq!(call.lines.status(stream), Some(413));
    assert_eq!(call.desk.reserved, 0);
    call.lose();
}

#[test]
fn a_head_that_is_too_long_is_answered_and_not_kept() {
    let long = "a".repeat(LIMITS.header_bytes_max - 200);
    let many: Vec<(&str, &str)> = (0..40).map(|_| ("x-a", "b")).collect();
    let by_length = frame(HEADERS, &[0; 5_000][..]);
    let by_count = section(&[&[("x-b", &long[..])], &many[..]].concat());
    let by_count = frame(HEADERS, &[REQUEST, &by_count[2..]].concat());
    for bytes in [by_length, by_count] {
        for ends in [false, true] {
            let mut call = Call::open();
            let stream = call.begin();
            call.send(stream, &bytes, ends);
            assert_eq!(call.lines.status(stream), Some(431), "{ends}");
            assert_eq!((call.lines.closed, call.desk.requests.len()), (None, 0));
            call.lose();
        }
    }
}

#[test]
fn heads_in_pieces_are_bounded_for_all_streams_together() {
    let mut call = Call::open();
    let bytes = frame(HEADERS, &section(&[("x-a", &"a".repeat(3_900))]));
    let mut begun = 0;
    while call.lines.closed.is_none() {
        let stream = call.begin();
        call.send(stream, &bytes[..3_900], false);
        begun += 1;
    }
    assert_eq!((call.lines.closed, begun), (Some(Code::EXCESSIVE_LOAD), 5));
    assert_eq!(*call.desk.troubles, [Trouble::HeaderBlock]);
}

#[test]
fn what_stalls_is_ended_in_its_own_way() {
    let mut call = Call::open();
    let head = call.begin();
    call.send(head, &request()[..5], false);
    let body = begun(&mut call);
    call.send(body, &frame(DATA, b"ab")[..3], false);
    call.desk.refuse = true;
    let refused = begun(&mut call);
    call.desk.refuse = false;
    assert_eq!(call.deadline(), Some(LIMITS.header_timeout));
    call.pass(LIMITS.header_timeout);
    assert_eq!(call.lines.resets.get(&head), Some(&Code::REQUEST_CANCELLED));
    assert_eq!(*call.desk.troubles, [Trouble::Stalled]);
    assert_eq!(call.deadline(), Some(LIMITS.body_timeout));
    call.pass(LIMITS.body_timeout);
    assert_eq!(call.lines.status(body), Some(408));
    assert_eq!(call.lines.stops.get(&refused), Some(&Code::NO_ERROR));
    assert_eq!(call.desk.reserved, 0);
    // The rest of the body that stalled is awaited once more.
    call.pass(2 * LIMITS.body_timeout);
    assert_eq!(call.lines.stops.get(&body), Some(&Code::NO_ERROR));
    assert_eq!(call.lines.closed, None);
    call.lose();
}

#[test]
fn an_answer_waits_for_room_and_not_for_ever() {
    let mut call = Call::open();
    let (one, other) = (call.ask(&request()), call.ask(&request()));
    call.lines.room = 50;
    let long = Answer { body: Bytes::from(vec![7; 5_000]), ..desk::ok() };
    call.answer(0, long.clone());
    call.answer(1, long);
    assert!(!call.lines.finished.contains(&one));
    call.lines.room = 10_000;
    call.core.handle_writable(one, &mut call.desk.turn(), &mut call.lines);
    assert_eq!(call.lines.frames(one)[1].1.len(), 5_000);
    assert!(call.lines.finished.contains(&one) && !call.lines.finished.contains(&other));
    call.pass(LIMITS.header_timeout);
    assert_eq!(call.deadline(), Some(LIMITS.write_timeout));
    call.pass(LIMITS.write_timeout);
    assert_eq!(call.lines.resets.get(&other), Some(&Code::REQUEST_CANCELLED));
    assert_eq!(*call.desk.troubles, [Trouble::Window]);
    call.lose();
}

#[test]
fn a_request_that_is_given_up_costs_nothing_and_its_answer_goes_nowhere() {
    let mut call = Call::open();
    let unfinished = begun(&mut call);
    call.send(unfinished, &frame(DATA, &[0; 9_000]), false);
    assert!(call.desk.reserved >= 9_000);
    call.core.handle_reset(unfinished, &mut call.desk.turn(), &mut call.lines);
    assert_eq!((call.desk.reserved, call.desk.abandoned), (0, 1));
    assert_eq!(call.lines.resets.get(&unfinished), Some(&Code::REQUEST_CANCELLED));
    let whole = call.ask(&request());
    call.core.handle_stopped(whole, &mut call.desk.turn(), &mut call.lines);
    assert_eq!(call.core.in_flight(), 1, "the engine works on it");
    call.answer_all();
    assert_eq!((call.core.in_flight(), call.lines.status(whole)), (0, None));
    call.lose();
}

#[test]
fn floods_end_the_connection() {
    let floods: [fn(&mut Call); 5] = [
        |call| {
            let stream = call.ask(&request());
            call.core.handle_stopped(stream, &mut call.desk.turn(), &mut call.lines);
            call.answer_all();
        },
        |call| {
            call.ask(&frame(HEADERS, &section(&[("connection", "close")])));
        },
        |call| call.send(CONTROL, &frame(0x21, b"?"), false),
        |call| {
            let stream = OTHER + 4 * call.desk.now;
            call.desk.now += 1;
            call.send(stream, &[0x21], false);
        },
        |call| {
            let stream = begun(call);
            call.send(stream, &frame(DATA, &[]).repeat(100), true);
            call.desk.requests.clear();
        },
    ];
    let expected =
        [Trouble::Resets, Trouble::Errors, Trouble::Control, Trouble::Control, Trouble::Crumbs];
    for (flood, trouble) in floods.into_iter().zip(expected) {
        let mut call = Call::open();
        let mut times = 0;
        while call.lines.closed.is_none() {
            flood(&mut call);
            times += 1;
            assert!(times < 2_000, "{trouble:?} has no end");
        }
        assert_eq!(call.lines.closed, Some(Code::EXCESSIVE_LOAD));
        assert_eq!(call.desk.troubles.last(), Some(&trouble));
        assert!(times > 5, "{trouble:?} after {times}");
    }
}

#[test]
fn more_streams_than_there_may_be_are_rejected() {
    let mut call = Call::open();
    let streams: Vec<u64> =
        (0..=LIMITS.connection_requests_max).map(|_| begun(&mut call)).collect();
    let last = streams.last().expect("some");
    assert_eq!(call.lines.resets.get(last), Some(&Code::REQUEST_REJECTED));
    assert_eq!((call.lines.resets.len(), call.lines.closed), (1, None));
    assert_eq!(*call.desk.troubles, [Trouble::Streams]);
}

#[test]
fn who_leaves_says_so_twice_and_closes_when_all_has_arrived() {
    let mut call = Call::open();
    let whole = call.ask(&request());
    let unfinished = begun(&mut call);
    call.core.retire(&mut call.desk.turn(), &mut call.lines);
    assert_eq!(call.lines.goaways(), [(1 << 62) - 4]);
    let late = call.ask(&request());
    call.pass(call.deadline().expect("the last GOAWAY is due"));
    assert_eq!(call.lines.goaways()[1..], [12]);
    let too_late = begun(&mut call);
    assert_eq!(call.lines.resets.get(&too_late), Some(&Code::REQUEST_REJECTED));
    call.send(unfinished, &frame(DATA, b"rest"), true);
    assert_eq!(call.desk.requests.len(), 3);
    call.lines.settled = false;
    call.answer_all();
    assert!([whole, unfinished, late].iter().all(|id| call.lines.status(*id) == Some(200)));
    assert_eq!(call.lines.closed, None, "not before the answers have arrived");
    call.lines.settled = true;
    call.core.handle_arrived(&mut call.desk.turn(), &mut call.lines);
    assert_eq!(call.lines.closed, None, "the last GOAWAY may still be on its way");
    call.pass(call.deadline().expect("the peer has heard"));
    assert_eq!(call.lines.closed, Some(Code::NO_ERROR));
}

#[test]
fn who_drains_refuses_bodies_that_are_not_whole() {
    let mut call = Call::open();
    let whole = call.ask(&request());
    let unfinished = begun(&mut call);
    call.core.drain(&mut call.desk.turn(), &mut call.lines);
    assert_eq!(call.lines.status(unfinished), Some(503));
    call.send(unfinished, &frame(DATA, b"rest"), true);
    call.answer_all();
    assert_eq!(call.lines.status(whole), Some(200));
    assert_eq!(call.lines.closed, None, "the peer gets its time to hear of it");
    call.pass(call.deadline().expect("the last GOAWAY is due"));
    assert_eq!((call.lines.goaways().len(), call.lines.closed), (2, None));
    call.pass(call.deadline().expect("the peer has heard"));
    assert_eq!(call.lines.closed, Some(Code::NO_ERROR));
}

#[test]
fn an_idle_connection_is_told_to_go_and_then_closed() {
    let mut call = Call::open();
    assert_eq!(call.deadline(), Some(LIMITS.idle_timeout));
    call.pass(LIMITS.idle_timeout);
    assert_eq!(call.lines.goaways().len(), 1);
    let until = call.deadline().expect("it gets its time");
    assert_eq!(until, LIMITS.idle_timeout + LIMITS.header_timeout);
    call.pass(until);
    assert_eq!((call.lines.goaways().len(), call.lines.closed), (2, None));
    call.pass(call.deadline().expect("the peer has heard"));
    assert_eq!(call.lines.closed, Some(Code::NO_ERROR));
    let mut call = Call::open();
    call.send(CONTROL, &frame(GOAWAY, &[0]), false);
    assert_eq!(call.deadline(), Some(LIMITS.header_timeout), "the peer said that it goes");
    call.pass(LIMITS.header_timeout);
    assert_eq!(call.lines.closed, Some(Code::NO_ERROR));
}

#[test]
fn our_settings_announce_no_table_and_our_limits() {
    let call = Call::fresh();
    let [(SETTINGS, settings)] = &call.lines.frames(3)[..] else {
        panic!("the settings and nothing else");
    };
    assert_eq!(settings[..], [1, 0, 6, 0x50, 0x00, 7, 0]);
    assert_eq!(call.lines.written[&3][0], 0, "the control stream");
    assert_eq!(LIMITS.header_bytes_max, 0x1000);
}
