//! The client core beside our own server core, and what is particular to it: heads that become
//! indices, messages that are not copied, calls that are cancelled, and how a connection ends.

use std::collections::BTreeMap;
use std::io::IoSlice;

use bytes::Bytes;
use forebay_net::fields::Fields;
use forebay_net::http2::Http2;
use forebay_net::http2::client::{
    Answer, Client, Code, End, Event, Failure, Keepalive, Output, Settings, Why,
};
use forebay_net::request::{self, Core};
use http::{HeaderName, HeaderValue};

use crate::caller::{self, SETTINGS, answered, drain, events, head, open, settings};
use crate::desk::{self, Desk, LIMITS};
use crate::frames::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE,
    RST_STREAM, WINDOW_UPDATE, frame, frames,
};

const SEED: u64 = 0x000c_a11e;

fn failure(why: Why) -> Failure {
    Failure { why, began: false }
}

#[test]
fn our_own_server_hears_what_our_client_says_and_the_other_way_round() {
    for seed in SEED..SEED + 100 {
        let mut draw = desk::random(seed);
        let mut below = move |bound: usize| draw() as usize % bound;
        let mut desk = Desk::new();
        let (mut client, mut server) = (Client::new(SETTINGS, 0), Http2::new(&LIMITS, 0));
        let (mut output, mut up, mut down) = (Output::new(), Vec::new(), Vec::new());
        let mut open = BTreeMap::new();
        let mut ended = 0;
        while ended < 30 {
            if below(4) == 0 && open.len() + ended < 30 {
                let nth = below(3);
                let message = vec![below(256) as u8; below(40_000)];
                let stream = client.open(&head(nth), vec![Bytes::from(message.clone())]);
                open.insert(stream.expect("fewer than the server bears"), (nth, message));
            }
            client.poll_output(&mut output, 1 << 20);
            up.extend(caller::take(&mut output, usize::MAX));
            let cut = below(up.len() + 1);
            let taken: Vec<u8> = up.drain(..cut).collect();
            server.handle_input(&taken, &mut desk.turn());
            for request in std::mem::take(&mut desk.requests) {
                let (nth, message) = &open[&request.id.stream];
                assert_eq!(&*request.head.path, caller::uri(*nth).path(), "seed {seed}");
                // The authority is not handed out, nor is it a header.
                assert_eq!(desk::map(&request.head.headers), caller::headers(*nth), "seed {seed}");
                assert!(request.body == message, "seed {seed}");
                let trailer = (HeaderName::from_static("grpc-status"), number(message.len()));
                let body = Bytes::from(message.clone());
                let answer =
                    request::Answer { body, trailers: Fields::from([trailer]), ..desk::ok() };
                server.handle_answer(request.id.stream, answer, &mut desk.turn());
            }
            down.extend_from_slice(&server.take_output());
            let cut = below(down.len() + 1);
            let taken: Vec<u8> = down.drain(..cut).collect();
            client.handle_input(&taken, 0);
            for Event { stream, outcome } in events(&mut client) {
                let (_, message) = open.remove(&stream).expect("a stream that was opened");
                let Answer { body, trailers, .. } = outcome.expect("an answer");
                assert!(body == *message, "seed {seed}");
                let trailers = trailers.expect("each answer has some");
                assert_eq!(trailers["grpc-status"], number(message.len()), "seed {seed}");
                ended += 1;
            }
        }
        assert_eq!((client.in_flight(), client.end()), (0, None), "seed {seed}");
    }
}

fn number(number: usize) -> HeaderValue {
    HeaderValue::from(number)
}

#[test]
fn a_head_that_is_repeated_costs_a_few_bytes_but_for_its_secrets() {
    let mut client = open();
    let head = head(1);
    let lengths: Vec<usize> = (0..4)
        .map(|_| {
            client.open(&head, vec![Bytes::from_static(b"a")]);
            frames(&drain(&mut client))[0].3.len()
        })
        .collect();
    let secret = "authorization".len() + "a secret".len();
    assert!(lengths[0] > 1_500 && lengths[1] < secret + 20, "{lengths:?}");
    assert_eq!(lengths[1..], [lengths[1]; 3], "{lengths:?}");
}

#[test]
fn a_peer_that_makes_its_table_smaller_reads_every_head_all_the_same() {
    let smaller = [(1, 4_096), (1, 4_095), (1, 100), (1, 0), (1, 65_536)];
    for seed in SEED..SEED + 50 {
        let mut draw = desk::random(seed);
        let mut client = open();
        let (mut desk, mut server) = (Desk::new(), Http2::new(&LIMITS, 0));
        server.handle_input(PREFACE, &mut desk.turn());
        server.handle_input(&settings(&[]), &mut desk.turn());
        let heads = [head(0), head(1), head(2)];
        let mut opened = Vec::new();
        for _ in 0..20 {
            match draw() as usize % 4 {
                0 => {
                    let nth = draw() as usize % smaller.len();
                    client.handle_input(&settings(&smaller[nth..=nth]), 0);
                }
                _ => {
                    let nth = draw() as usize % 3;
                    let stream = client.open(&heads[nth], Vec::new()).expect("room for all");
                    opened.push((stream, nth));
                }
            }
            server.handle_input(&drain(&mut client), &mut desk.turn());
        }
        let got = std::mem::take(&mut desk.requests);
        assert_eq!(got.len(), opened.len(), "seed {seed}: {:?}", desk.troubles);
        for (request, (stream, nth)) in got.iter().zip(opened) {
            assert_eq!(
                (request.id.stream, &request.head.path[..]),
                (stream, caller::uri(nth).path())
            );
            assert_eq!(desk::map(&request.head.headers), caller::headers(nth), "seed {seed}");
        }
    }
}

#[test]
fn what_no_table_may_hold_is_not_indexed_and_a_smaller_table_is_agreed_to() {
    let mut client = open();
    let head = head(0);
    let block = |client: &mut Client| {
        client.open(&head, Vec::new());
        let frames = frames(&drain(client));
        frames.into_iter().find(|frame| frame.0 == HEADERS).expect("a head").3
    };
    let (first, second) = (block(&mut client), block(&mut client));
    // A literal that is never indexed, named by the static table's 23rd entry.
    let secret = b"\x1f\x08\x08a secret";
    for block in [&first, &second] {
        assert!(block.windows(secret.len()).any(|window| window == secret), "{block:x?}");
    }
    client.handle_input(&settings(&[(1, 0)]), 0);
    let (third, fourth) = (block(&mut client), block(&mut client));
    assert_eq!((third[0], &third[1..]), (0x20, &fourth[..]), "said once, then nothing is indexed");
    assert!(fourth.len() > second.len());
}

#[test]
fn a_head_longer_than_a_frame_goes_on_in_others() {
    let mut headers = caller::headers(0);
    headers.insert("x-longer", HeaderValue::from_str(&"h".repeat(40_000)).unwrap());
    let head =
        std::rc::Rc::new(forebay_net::http2::client::RequestHead::post(&caller::uri(0), &headers));
    let mut client = open();
    client.open(&head, vec![Bytes::from_static(b"a")]);
    let sent: Vec<(u8, u8)> =
        frames(&drain(&mut client)).iter().map(|frame| (frame.0, frame.1)).collect();
    let expected =
        [(HEADERS, 0), (CONTINUATION, 0), (CONTINUATION, END_HEADERS), (DATA, END_STREAM)];
    assert_eq!(sent, expected);
}

#[test]
fn messages_are_sent_where_they_lie() {
    let mut client = open();
    let message = Bytes::from(vec![7; 40_000]);
    client.open(&head(0), vec![message.clone()]);
    let mut output = Output::new();
    client.poll_output(&mut output, usize::MAX);
    let mut slices = [IoSlice::new(&[]); 16];
    let count = output.slices(&mut slices);
    let lie_in_it = |slice: &&IoSlice<'_>| message.as_ptr_range().contains(&slice.as_ptr());
    let shared: usize = slices[..count].iter().filter(lie_in_it).map(|slice| slice.len()).sum();
    assert_eq!((shared, count), (40_000, 6), "three frames, each a head and its part");
}

#[test]
fn all_calls_since_the_last_send_leave_together_and_keep_within_every_window() {
    let mut client = open();
    client.handle_input(&settings(&[(4, 10)]), 0);
    for _ in 0..5 {
        client.open(&head(0), vec![Bytes::from(vec![7; 25])]);
    }
    let data = |client: &mut Client| -> Vec<(u32, usize)> {
        let sent = frames(&drain(client));
        sent.iter().filter(|frame| frame.0 == DATA).map(|frame| (frame.2, frame.3.len())).collect()
    };
    assert_eq!(data(&mut client), [(1, 10), (3, 10), (5, 10), (7, 10), (9, 10)]);
    // A window that shrank below nothing must first grow back.
    client.handle_input(&settings(&[(4, 5)]), 0);
    client.handle_input(&frame(WINDOW_UPDATE, 0, 3, &5_u32.to_be_bytes()), 0);
    assert_eq!(data(&mut client), []);
    client.handle_input(&frame(WINDOW_UPDATE, 0, 3, &3_u32.to_be_bytes()), 0);
    assert_eq!(data(&mut client), [(3, 3)]);
    client.handle_input(&settings(&[(4, 100)]), 0);
    assert_eq!(data(&mut client), [(1, 15), (3, 12), (5, 15), (7, 15), (9, 15)]);
    assert_eq!(data(&mut client), []);
}

#[test]
fn no_more_streams_are_open_than_the_peer_bears() {
    let mut client = Client::new(SETTINGS, 0);
    let opened = (0..200).filter(|_| client.open(&head(0), Vec::new()).is_some()).count();
    assert_eq!(opened, 100, "before the settings came");
    client.handle_input(&settings(&[(3, 2)]), 0);
    assert!(!client.can_open() && client.is_usable());
    for nth in 0..99 {
        client.cancel(2 * nth + 1);
        assert_eq!(client.can_open(), nth == 98);
    }
    assert!(client.open(&head(0), Vec::new()).is_some());
    assert!(!client.can_open());
}

#[test]
fn a_cancelled_call_is_reset_once_and_never_heard_of_again() {
    let mut client = open();
    client.open(&head(0), vec![Bytes::from_static(b"a")]);
    drain(&mut client);
    client.cancel(1);
    client.cancel(1);
    let sent = drain(&mut client);
    assert_eq!((frames::reset_code(&sent, 1), frames(&sent).len()), (Some(8), 1));
    client.handle_input(&answered(1), 0);
    assert!(events(&mut client).is_empty() && client.end().is_none());
}

#[test]
fn an_answer_before_the_end_of_its_request_counts_and_ends_the_sending() {
    let mut client = open();
    client.handle_input(&settings(&[(4, 10)]), 0);
    client.open(&head(0), vec![Bytes::from(vec![7; 100])]);
    drain(&mut client);
    client.handle_input(&answered(1), 0);
    let mut events = events(&mut client);
    assert_eq!(events.remove(0).outcome.expect("an answer").body, b"ok");
    let sent = drain(&mut client);
    assert_eq!((frames::reset_code(&sent, 1), frames(&sent).len()), (Some(0), 1), "NO_ERROR");
}

#[test]
fn a_peer_that_goes_ends_what_it_has_and_has_not_seen_the_rest() {
    let mut client = open();
    for _ in 0..3 {
        client.open(&head(0), Vec::new());
    }
    let last_and_code = [3_u32.to_be_bytes(), 0_u32.to_be_bytes()].concat();
    client.handle_input(&frame(GOAWAY, 0, 0, &last_and_code), 0);
    assert!(!client.is_usable() && client.open(&head(0), Vec::new()).is_none());
    let ended = events(&mut client);
    let [Event { stream: 5, outcome: Err(lost) }] = &ended[..] else { panic!("{ended:?}") };
    assert_eq!(*lost, failure(Why::Unprocessed(Code::NO_ERROR)));
    client.handle_input(&[answered(3), answered(1)].concat(), 0);
    let ended: Vec<u32> = events(&mut client).iter().map(|event| event.stream).collect();
    assert_eq!((ended, client.end()), (vec![3, 1], Some(End::GoneAway(Code::NO_ERROR))));
}

#[test]
fn whoever_leaves_waits_for_what_is_under_way() {
    let mut client = open();
    client.open(&head(0), Vec::new());
    client.leave();
    assert!(client.end().is_none() && !client.can_open());
    client.handle_input(&answered(1), 0);
    assert_eq!(client.end(), Some(End::Left));
    assert_eq!(frames::goaway_code(&drain(&mut client)), Some(0));
}

#[test]
fn a_connection_that_ends_takes_its_calls_with_it() {
    let mut client = open();
    client.open(&head(0), Vec::new());
    client.open(&head(0), Vec::new());
    let begun = frame(HEADERS, END_HEADERS, 3, b"\x88");
    client.handle_input(&begun, 0);
    client.handle_eof();
    let began: Vec<_> = events(&mut client).into_iter().map(|event| event.outcome).collect();
    let expected = [false, true].map(|began| Failure { why: Why::Ended, began });
    assert!(began.iter().map(|outcome| outcome.as_ref().unwrap_err()).eq(&expected), "{began:?}");
    assert_eq!(client.end(), Some(End::Closed));
}

#[test]
fn a_peer_is_asked_whether_it_is_there_and_must_answer() {
    for when_idle in [false, true] {
        let keepalive = Keepalive { every: 100, timeout: 20, when_idle };
        let mut client = Client::new(Settings { keepalive: Some(keepalive), ..SETTINGS }, 0);
        client.handle_input(&settings(&[]), 0);
        drain(&mut client);
        assert_eq!(client.deadline(), Some(100));
        client.handle_timeout(100);
        assert_eq!(frames(&drain(&mut client)).len(), usize::from(when_idle));
        client.open(&head(0), Vec::new());
        drain(&mut client);
        if !when_idle {
            assert_eq!(client.deadline(), Some(200));
            client.handle_timeout(200);
            assert_eq!(frames(&drain(&mut client))[0].0, PING);
        }
        let asked = client.deadline().expect("the answer is due") - 20;
        client.handle_input(&frame(PING, ACK, 0, b"forebay?"), asked + 10);
        assert_eq!(client.deadline(), Some(asked + 110));
        client.handle_timeout(asked + 109);
        assert!(drain(&mut client).is_empty(), "it is not time yet");
        client.handle_timeout(asked + 110);
        client.handle_input(&frame(PING, ACK, 0, b"another?"), asked + 111);
        client.handle_timeout(asked + 130);
        assert_eq!(client.end(), None, "what came was no answer, but it came");
        client.handle_timeout(asked + 131);
        assert_eq!(client.end(), Some(End::Silent));
        let ended = events(&mut client);
        assert_eq!(ended[0].outcome.as_ref().unwrap_err(), &failure(Why::Ended));
    }
}

#[test]
fn resets_say_their_code() {
    let mut client = open();
    client.open(&head(0), Vec::new());
    client.handle_input(&frame(RST_STREAM, 0, 1, &7_u32.to_be_bytes()), 0);
    let ended = events(&mut client);
    assert_eq!(ended[0].outcome.as_ref().unwrap_err(), &failure(Why::Reset(Code::REFUSED_STREAM)));
}
