//! The client against servers that others wrote, where there is one without a socket, and against
//! odd answers.

use super::*;

fn heading(transport: Transport, encoding: Encoding) -> Heading {
    let authority = "127.0.0.1:4317".to_owned();
    Heading { transport, signal: Signal::Traces, encoding, authority, streams: 4 }
}

fn answers_of(client: &mut Client, bytes: &[u8]) -> Result<Vec<Outcome>, String> {
    let (mut out, mut answers) = (Vec::new(), Vec::new());
    client.handle(bytes, &mut out, &mut answers)?;
    Ok(answers.into_iter().map(|answer| answer.outcome).collect())
}

#[test]
fn an_http1_answer_is_read_wherever_it_is_cut_and_whatever_it_says() {
    let answers = [
        ("200 OK\r\ncontent-length: 0", "", Outcome::Ok),
        ("200 OK\r\nContent-Length: 2", "\n\0", Outcome::Ok),
        ("200 OK\r\ncontent-length: 4", "\n\x02\x08\x01", Outcome::Partial),
        ("503 Busy\r\nretry-after: 1\r\ncontent-length: 3", "no!", Outcome::Refused),
        ("429 Slow Down\r\ncontent-length: 0", "", Outcome::Refused),
        ("400 Bad\r\ncontent-length: 0", "", Outcome::Http(400)),
    ];
    for (head, body, expected) in answers {
        let answer = format!("HTTP/1.1 {head}\r\n\r\n{body}").into_bytes();
        for cut in 0..answer.len() {
            let mut out = Vec::new();
            let mut client = Client::new(&heading(Transport::Http1, Encoding::Gzip), &mut out);
            client.begin(9, b"body", &mut out);
            assert!(!client.has_room());
            let mut outcomes = answers_of(&mut client, &answer[..cut]).unwrap();
            outcomes.extend(answers_of(&mut client, &answer[cut..]).unwrap());
            assert_eq!(outcomes, [expected], "{head} cut at {cut}");
            assert!(client.has_room());
        }
    }
}

#[test]
fn a_grpc_call_is_a_success_only_with_status_0_and_nothing_rejected() {
    assert_eq!(outcome(200, Some(0), b""), Outcome::Ok);
    assert_eq!(outcome(200, Some(0), b"\n\0"), Outcome::Ok);
    assert_eq!(outcome(200, Some(0), b"\n\x02\x08\x05"), Outcome::Partial);
    assert_eq!(outcome(200, Some(14), b""), Outcome::Refused);
    assert_eq!(outcome(200, Some(8), b""), Outcome::Grpc(8));
    assert_eq!(outcome(404, None, b""), Outcome::Http(404));
}

/// The sink's HTTP/2 against the load's, without a socket, with windows of every size: bodies
/// arrive whole, every request is answered, and nothing depends on where the bytes are cut.
#[test]
fn bodies_arrive_whole_through_any_window_and_any_cut() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..60 {
        let is_grpc = random.bool();
        let transport = if is_grpc { Transport::Grpc } else { Transport::Http2 };
        let (mut up, mut down) = (Vec::new(), Vec::new());
        let mut client = Client::new(&heading(transport, Encoding::Gzip), &mut up);
        let mut server = h2::server::Server::new(&mut down);
        let bodies: Vec<Vec<u8>> = (0..random.usize(1..9))
            .map(|_| (0..random.usize(..300_000)).map(|n| n as u8).collect())
            .collect();
        let mut left: Vec<(u32, &Vec<u8>)> = (0..).zip(&bodies).collect();
        let (mut asked, mut answers) = (Vec::new(), Vec::new());
        while answers.len() < bodies.len() {
            while client.has_room()
                && let Some((ticket, body)) = left.pop()
            {
                client.begin(ticket, body, &mut up);
            }
            assert!(!up.is_empty() || !down.is_empty(), "round {round} is stuck");
            let bytes: Vec<u8> = up.drain(..random.usize(..=up.len())).collect();
            server.handle(&bytes, &mut down, &mut asked).unwrap();
            for request in asked.drain(..) {
                let prefix = if is_grpc { 5 } else { 0 };
                assert!(bodies.iter().any(|body| *body == request.body[prefix..]));
                assert_eq!(request.head.signal, Some(Signal::Traces));
                assert_eq!(request.head.encoding, Some(Encoding::Gzip));
                let reply = crate::sink::exchange::Reply::Ok;
                server.answer(request.stream, request.head.is_grpc, reply, &mut down);
            }
            let bytes: Vec<u8> = down.drain(..random.usize(..=down.len())).collect();
            client.handle(&bytes, &mut up, &mut answers).unwrap();
        }
        assert!(answers.iter().all(|answer| answer.outcome == Outcome::Ok));
        assert_eq!(client.abandon(), Vec::<u32>::new());
    }
}
