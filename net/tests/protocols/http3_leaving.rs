//! How a connection of HTTP/3 comes to its end: whom it waits for, and whom it does not.

use std::sync::Arc;

use bytes::Bytes;
use forebay_net::http3::Code;
use forebay_net::request::Answer;
use forebay_net::tls::peer::PeerIdentity;

use crate::call::Call;
use crate::desk::{self, LIMITS};
use crate::streams::{DATA, HEADERS, REQUEST, frame, section};

fn request() -> Vec<u8> {
    frame(HEADERS, REQUEST)
}

fn begun(call: &mut Call) -> u64 {
    let stream = call.begin();
    call.send(stream, &request(), false);
    stream
}

#[test]
fn who_has_said_nothing_for_long_is_told_and_may_ask_until_it_must_have_heard() {
    for drains in [false, true] {
        let mut call = Call::open();
        let long_since = LIMITS.idle_timeout - 10;
        assert!(long_since > LIMITS.header_timeout);
        call.desk.now = long_since;
        match drains {
            true => call.core.drain(&mut call.desk.turn(), &mut call.lines),
            false => call.core.retire(&mut call.desk.turn(), &mut call.lines),
        }
        assert_eq!(call.lines.goaways(), [(1 << 62) - 4]);
        let farewell = call.deadline().expect("it ends");
        assert!(farewell > long_since, "{farewell}");
        call.pass(farewell - 1);
        assert_eq!(call.lines.closed, None, "it may not have heard yet");
        let late = call.ask(&request());
        call.pass(farewell);
        assert_eq!(call.lines.goaways()[1..], [4]);
        assert_eq!(call.lines.closed, None, "a request is under way");
        call.answer_all();
        assert_eq!((call.lines.status(late), call.lines.closed), (Some(200), None));
        call.see_out();
        assert_eq!(call.lines.closed, Some(Code::NO_ERROR));
    }
}

#[test]
fn who_drains_waits_for_no_body_that_is_refused_and_no_head_that_is_not_whole() {
    let mut call = Call::open();
    call.desk.refuse = true;
    let refused = begun(&mut call);
    call.desk.refuse = false;
    let body = begun(&mut call);
    call.core.drain(&mut call.desk.turn(), &mut call.lines);
    for stream in [refused, body] {
        assert_eq!(call.lines.status(stream), Some(503));
        assert_eq!(call.lines.stops.get(&stream), Some(&Code::NO_ERROR));
    }
    call.desk.now = LIMITS.header_timeout / 2;
    let head = call.begin();
    call.send(head, &request()[..5], false);
    call.desk.refuse = true;
    let late = begun(&mut call);
    assert_eq!(call.lines.status(late), Some(503));
    assert_eq!(call.lines.stops.get(&late), Some(&Code::NO_ERROR));
    assert_eq!(call.lines.closed, None);
    call.pass(call.deadline().expect("the last GOAWAY is due"));
    assert_eq!(call.lines.resets.get(&head), Some(&Code::REQUEST_REJECTED));
    assert_eq!((call.lines.goaways().len(), call.lines.closed), (2, None));
    call.see_out();
    assert_eq!((call.lines.closed, call.desk.reserved), (Some(Code::NO_ERROR), 0));
}

#[test]
fn a_refused_body_gives_back_the_trailers_that_were_half_here() {
    let mut call = Call::open();
    let trailers = frame(HEADERS, &section(&[("x-a", &"a".repeat(3_900))]));
    for _ in 0..20 {
        let stream = begun(&mut call);
        call.send(stream, &frame(DATA, b"ab"), false);
        call.send(stream, &trailers[..3_000], false);
        call.pass(call.desk.now + LIMITS.body_timeout);
        assert_eq!(call.lines.status(stream), Some(408));
        call.send(stream, b"rest", true);
    }
    let stream = call.begin();
    let bytes = request();
    call.send(stream, &bytes[..5], false);
    call.send(stream, &bytes[5..], true);
    assert_eq!((call.lines.closed, call.desk.requests.len()), (None, 1));
    call.lose();
}

#[test]
fn an_answer_that_waited_for_room_gets_its_time_to_arrive() {
    let mut call = Call::open();
    let stream = call.ask(&request());
    call.core.retire(&mut call.desk.turn(), &mut call.lines);
    call.pass(call.deadline().expect("the last GOAWAY is due"));
    call.lines.room = 50;
    call.lines.settled = false;
    call.answer(0, Answer { body: Bytes::from(vec![7; 5_000]), ..desk::ok() });
    let now = call.desk.now + LIMITS.header_timeout + 10;
    assert!(now < LIMITS.write_timeout);
    call.pass(now);
    call.lines.room = 10_000;
    call.core.handle_writable(stream, &mut call.desk.turn(), &mut call.lines);
    assert!(call.lines.finished.contains(&stream));
    call.pass(now);
    assert_eq!(call.lines.closed, None, "it has only just left");
    assert!(call.deadline().is_some_and(|at| at > now));
}

#[test]
fn a_request_says_who_its_client_proved_to_be() {
    let mut call = Call::open();
    let peer = Arc::new(PeerIdentity { subject: "CN=a".into(), ..PeerIdentity::default() });
    call.desk.peer = Some(peer.clone());
    call.ask(&request());
    let stream = begun(&mut call);
    call.send(stream, &frame(DATA, b"body"), true);
    let peers: Vec<_> = call.desk.requests.iter().map(|request| &request.head.peer).collect();
    assert_eq!(peers, [&Some(peer.clone()), &Some(peer)]);
}
