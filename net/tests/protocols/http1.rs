//! HTTP/1.1 without a socket: the same bytes give the same requests however they are cut, and
//! what could be read in two ways is refused.

use forebay_net::http1::Http1;
use forebay_net::request::{Answer, Core, Standing};

use crate::desk::{self, Desk, LIMITS};

const SEED: u64 = 0x0007_1e9e;

/// Feeds `input` in pieces that `cut` sizes, answering each request as soon as it is there.
fn converse(input: &[u8], mut cut: impl FnMut() -> usize) -> (Vec<(String, Vec<u8>)>, String) {
    let mut desk = Desk::new();
    let mut core = Http1::new(0);
    let (mut rest, mut requests, mut output) = (input, Vec::new(), Vec::new());
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(cut().clamp(1, rest.len()));
        rest = behind;
        core.handle_input(piece, &mut desk.turn());
        while let Some(request) = desk.requests.pop() {
            requests.push((request.head.path.to_string(), request.body.to_vec()));
            desk.reserved -= request.reserved;
            core.handle_answer(request.id.stream, desk::ok(), &mut desk.turn());
        }
        output.extend_from_slice(&core.take_output());
    }
    core.handle_lost(&mut desk.turn());
    assert_eq!(desk.reserved, 0, "what was reserved is released");
    (requests, String::from_utf8(output).expect("answers are text"))
}

#[test]
fn the_same_bytes_give_the_same_requests_however_they_are_cut() {
    let long = "x".repeat(40_000);
    let input = format!(
        "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello\
         \r\nPOST /b?q=1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n2;x=y\r\nde\r\n0\r\ntrailer: t\r\n\r\n\
         GET http://h/c HTTP/1.1\r\nHost: h\r\n\r\n\
         POST /d HTTP/1.1\r\nhost:h\r\nContent-Length: {}\r\n\r\n{long}\
         POST /e HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n!",
        long.len()
    );
    let expected = [
        ("/a".to_owned(), b"hello".to_vec()),
        ("/b".to_owned(), b"abcde".to_vec()),
        ("/c".to_owned(), Vec::new()),
        ("/d".to_owned(), long.into_bytes()),
        ("/e".to_owned(), b"!".to_vec()),
    ];
    let (whole, _) = converse(input.as_bytes(), || usize::MAX);
    assert_eq!(whole, expected);
    let (bytewise, _) = converse(&input.as_bytes()[..500], || 1);
    assert_eq!(bytewise, expected[..3]);
    let mut draw = desk::random(SEED);
    for round in 0..300 {
        let (requests, output) = converse(input.as_bytes(), || draw() as usize % 700 + 1);
        assert!(requests == expected, "seed {SEED}, round {round}");
        assert_eq!(output.matches("HTTP/1.1 200 OK").count(), 5);
    }
}

#[test]
fn a_message_whose_length_could_be_read_in_two_ways_ends_its_connection() {
    let bad = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length:\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: a\r\n b\r\n",
        "Host: other\r\n",
        "X\0: a\r\n",
    ];
    for headers in bad {
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
        let input = format!("POST /a HTTP/1.1\r\nHost: h\r\n{headers}\r\nhello{smuggled}");
        let (requests, output) = converse(input.as_bytes(), || usize::MAX);
        assert!(requests.is_empty(), "{headers:?} gave {requests:?}");
        assert!(output.starts_with("HTTP/1.1 400 "), "{headers:?}: {output}");
        assert!(output.contains("connection: close"), "{headers:?}: {output}");
        assert_eq!(output.matches("HTTP/1.1").count(), 1, "{headers:?}: {output}");
    }
}

#[test]
fn random_bytes_never_panic_and_never_leave_a_reservation() {
    let alphabet: &[&[u8]] = &[
        b"POST /a HTTP/1.1\r\n",
        b"Host: h\r\n",
        b"Content-Length: 7\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"\r\n",
        b"\n",
        b"7\r\nabcdefg\r\n",
        b"0\r\n\r\n",
        b"abcdefg",
        b"\0\xff",
        b"HTTP/2.0",
    ];
    let mut draw = desk::random(SEED);
    for _ in 0..20_000 {
        let pieces = 1 + draw() as usize % 12;
        let input: Vec<u8> =
            (0..pieces).flat_map(|_| alphabet[draw() as usize % alphabet.len()].to_vec()).collect();
        converse(&input, || draw() as usize % 20 + 1);
    }
}

#[test]
fn a_header_longer_than_its_limit_is_431_and_the_end() {
    let mut desk = Desk::new();
    let mut core = Http1::new(0);
    core.handle_input(b"POST /a HTTP/1.1\r\n", &mut desk.turn());
    for _ in 0..LIMITS.header_bytes_max / 10 {
        core.handle_input(b"a: bbbbb\r\n", &mut desk.turn());
    }
    core.handle_input(b"a: b\r\na: b\r\n", &mut desk.turn());
    let output = String::from_utf8(core.take_output().to_vec()).unwrap();
    assert!(output.starts_with("HTTP/1.1 431 "), "{output}");
    assert_eq!(core.standing(), Standing::FinishThenLinger);
}

#[test]
fn a_refused_body_is_read_and_thrown_away_so_that_the_connection_lives_on() {
    let mut desk = Desk::new();
    desk.refuse = true;
    let mut core = Http1::new(0);
    let post = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
    core.handle_input(post, &mut desk.turn());
    assert!(core.take_output().starts_with(b"HTTP/1.1 503 "));
    desk.refuse = false;
    core.handle_input(post, &mut desk.turn());
    assert_eq!(desk.requests.len(), 1, "the next request is taken");
    assert_eq!(core.standing(), Standing::Open);
}

#[test]
fn expect_100_continue_is_answered_before_the_body_and_not_after_a_refusal() {
    let head = b"POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let mut desk = Desk::new();
    let mut core = Http1::new(0);
    core.handle_input(head, &mut desk.turn());
    assert_eq!(core.take_output(), "HTTP/1.1 100 Continue\r\n\r\n");
    core.handle_input(b"hello", &mut desk.turn());
    assert_eq!(desk.requests[0].body, "hello");
    desk.refuse = true;
    let mut core = Http1::new(0);
    core.handle_input(head, &mut desk.turn());
    let output = core.take_output();
    assert!(output.starts_with(b"HTTP/1.1 503 "), "no body is asked for");
    assert_eq!(core.standing(), Standing::FinishThenLinger);
}

#[test]
fn each_wait_has_its_deadline() {
    let mut desk = Desk::new();
    let mut core = Http1::new(0);
    assert_eq!(core.deadline(&LIMITS), Some(LIMITS.idle_timeout));
    desk.now = 10;
    core.handle_input(b"POST /a HT", &mut desk.turn());
    assert_eq!(core.deadline(&LIMITS), Some(10 + LIMITS.header_timeout));
    desk.now = 20;
    core.handle_input(b"TP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe", &mut desk.turn());
    assert_eq!(core.deadline(&LIMITS), Some(20 + LIMITS.body_timeout));
    desk.now = 30;
    core.handle_input(b"llo", &mut desk.turn());
    assert_eq!(core.deadline(&LIMITS), None, "now it is for the engine to answer");
    desk.now = 40;
    core.handle_answer(1, desk::ok(), &mut desk.turn());
    assert_eq!(core.deadline(&LIMITS), Some(40 + LIMITS.idle_timeout));
}

#[test]
fn an_answer_says_how_long_its_body_is() {
    for bytes in [0, 1, 9, 10, 4096, 123_456] {
        let mut desk = Desk::new();
        let mut core = Http1::new(0);
        core.handle_input(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", &mut desk.turn());
        let answer = Answer { body: vec![b'x'; bytes].into(), ..desk::ok() };
        core.handle_answer(1, answer, &mut desk.turn());
        let output = core.take_output();
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut response = httparse::Response::new(&mut headers);
        let head = response.parse(&output).expect("a head").unwrap();
        let length = response.headers.iter().find(|header| header.name == "content-length");
        let length = length.map(|header| String::from_utf8_lossy(header.value).into_owned());
        assert_eq!(length, Some(bytes.to_string()));
        assert_eq!((response.code, output.len() - head), (Some(200), bytes));
    }
}
