//! Bodies that come a byte now and then: over each protocol they are given up by the same rule, in
//! that protocol's own way, and what comes no more slowly than it may is never given up.

use forebay_net::http1::Http1;
use forebay_net::pace::BYTES_PER_SECOND_MIN;
use forebay_net::request::{Core, Limits, Nanos, Refusal, Standing};

use crate::call::Call;
use crate::desk::{Desk, LIMITS};
use crate::frames::{self, END_HEADERS, reset_code};
use crate::streams;

const SECOND: Nanos = 1_000_000_000;
pub(crate) const SLOW: Limits = Limits {
    header_timeout: 10 * SECOND,
    body_timeout: 30 * SECOND,
    idle_timeout: 900 * SECOND,
    write_timeout: 30 * SECOND,
    ..LIMITS
};
/// Whatever comes, no body here is whole.
const BODY_BYTES: usize = 900_000;

/// A body under way, with the desk that its request has passed.
trait Way {
    fn desk(&mut self) -> &mut Desk;
    fn send(&mut self, bytes: &[u8]);
    fn deadline(&self) -> Option<Nanos>;
    fn time_out(&mut self);
    /// Nothing more is awaited of it.
    fn is_let_go(&mut self) -> bool;
}

/// Over one of the two that have a socket of their own.
struct Plain<C> {
    desk: Desk,
    core: C,
    wrap: fn(&[u8]) -> Vec<u8>,
    output: Vec<u8>,
    is_let_go: fn(&C, &[u8]) -> bool,
}

impl<C: Core> Way for Plain<C> {
    fn desk(&mut self) -> &mut Desk {
        &mut self.desk
    }

    fn send(&mut self, bytes: &[u8]) {
        self.core.handle_input(&(self.wrap)(bytes), &mut self.desk.turn());
        self.output.extend_from_slice(&self.core.take_output());
    }

    fn deadline(&self) -> Option<Nanos> {
        self.core.deadline(&SLOW)
    }

    fn time_out(&mut self) {
        self.core.handle_timeout(&mut self.desk.turn());
        self.output.extend_from_slice(&self.core.take_output());
    }

    fn is_let_go(&mut self) -> bool {
        (self.is_let_go)(&self.core, &self.output)
    }
}

struct Over3(Call, u64);

impl Way for Over3 {
    fn desk(&mut self) -> &mut Desk {
        &mut self.0.desk
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.send(self.1, &streams::frame(streams::DATA, bytes), false);
    }

    fn deadline(&self) -> Option<Nanos> {
        self.0.core.deadline(&SLOW)
    }

    fn time_out(&mut self) {
        self.0.pass(self.0.desk.now);
    }

    fn is_let_go(&mut self) -> bool {
        self.0.lines.stops.contains_key(&self.1)
    }
}

fn desk(refuses: bool) -> Desk {
    let mut desk = Desk::new();
    (desk.limits, desk.refuse) = (SLOW, refuses);
    desk
}

fn http1(refuses: bool, head: &str, wrap: fn(&[u8]) -> Vec<u8>) -> Box<dyn Way> {
    let (mut desk, mut core) = (desk(refuses), Http1::new(0));
    let head = format!("POST /a HTTP/1.1\r\nHost: h\r\n{head}\r\n\r\n");
    core.handle_input(head.as_bytes(), &mut desk.turn());
    let output = core.take_output().to_vec();
    let is_let_go = |core: &Http1, _: &[u8]| core.standing() != Standing::Open;
    Box::new(Plain { desk, core, wrap, output, is_let_go })
}

fn http2(mut desk: Desk) -> Box<dyn Way> {
    let mut core = frames::open(&mut desk);
    let head = frames::frame(frames::HEADERS, END_HEADERS, 1, frames::REQUEST);
    core.handle_input(&head, &mut desk.turn());
    let wrap = |bytes: &[u8]| frames::frame(frames::DATA, 0, 1, bytes);
    let output = core.take_output().to_vec();
    let is_let_go = |_: &_, output: &[u8]| reset_code(output, 1) == Some(0);
    Box::new(Plain { desk, core, wrap, output, is_let_go })
}

fn http3(refuses: bool) -> Box<dyn Way> {
    let mut call = Call::open();
    call.desk.limits = SLOW;
    call.desk.refuse = refuses;
    let stream = call.begin();
    call.send(stream, &streams::frame(streams::HEADERS, streams::REQUEST), false);
    Box::new(Over3(call, stream))
}

/// A body under way over each protocol, refused already or not.
fn ways(refuses: bool) -> Vec<(&'static str, Box<dyn Way>)> {
    // What is longer is not even thrown away.
    let length = format!("Content-Length: {BODY_BYTES}");
    let chunk = |bytes: &[u8]| {
        let size = format!("{:x}\r\n", bytes.len());
        [size.as_bytes(), bytes, b"\r\n"].concat()
    };
    vec![
        ("HTTP/1.1", http1(refuses, &length, <[u8]>::to_vec)),
        ("HTTP/1.1, chunked", http1(refuses, "Transfer-Encoding: chunked", chunk)),
        ("HTTP/2", http2(desk(refuses))),
        ("HTTP/3", http3(refuses)),
    ]
}

/// So many bytes come every `pause`; returns when `is_over`, if that is within an hour.
fn trickle(
    way: &mut dyn Way,
    bytes: usize,
    pause: Nanos,
    is_over: fn(&mut dyn Way) -> bool,
) -> Option<Nanos> {
    let piece = vec![7; bytes];
    loop {
        let next = way.desk().now + pause;
        while let Some(due) = way.deadline().filter(|due| *due <= next) {
            way.desk().now = due;
            way.time_out();
            if is_over(way) {
                return Some(due);
            }
        }
        if next > 3_600 * SECOND {
            return None;
        }
        way.desk().now = next;
        way.send(&piece);
    }
}

#[test]
fn a_byte_now_and_then_keeps_no_request_over_any_protocol() {
    for pause in [SECOND, 20 * SECOND] {
        for (name, mut way) in ways(false) {
            let refused_at = trickle(&mut *way, 1, pause, |way| !way.desk().refusals.is_empty());
            let refused_at = refused_at.unwrap_or_else(|| panic!("{name} holds it for ever"));
            let late = refused_at - SLOW.body_timeout;
            assert!(late <= SECOND, "{name}: {late} later than one that stalled");
            assert_eq!(way.desk().refusals, [Refusal::BodyTooSlow], "{name}");
            assert_eq!(way.desk().reserved, 0, "{name}");
            if !way.is_let_go() {
                let let_go_at = trickle(&mut *way, 1, pause, |way| way.is_let_go());
                let let_go_at = let_go_at.unwrap_or_else(|| panic!("{name} reads on for ever"));
                assert!(let_go_at - refused_at <= SLOW.body_timeout + SECOND, "{name}");
            }
        }
    }
}

#[test]
fn a_byte_now_and_then_of_a_body_that_was_refused_keeps_its_stream_no_longer() {
    for (name, mut way) in ways(true) {
        let let_go_at = trickle(&mut *way, 1, 20 * SECOND, |way| way.is_let_go());
        let let_go_at = let_go_at.unwrap_or_else(|| panic!("{name} reads on for ever"));
        assert!(let_go_at <= SLOW.body_timeout + SECOND, "{name}: {let_go_at}");
    }
}

#[test]
fn a_slow_body_that_is_not_too_slow_has_all_the_time_it_needs() {
    let bytes = 2 * BYTES_PER_SECOND_MIN as usize;
    for (name, mut way) in ways(false) {
        let over = trickle(&mut *way, bytes, 2 * SECOND, |way| !way.desk().refusals.is_empty());
        assert_eq!(over, None, "{name}: {:?}", way.desk().refusals);
        assert!(!way.is_let_go(), "{name}");
    }
}
