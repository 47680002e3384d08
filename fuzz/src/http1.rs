//! HTTP/1.1, any bytes in any pieces: the same requests however they are cut, and hyper sees the
//! same ones in the same bytes, so that no two of us disagree about where a request ends.
//!
//! hyper is laxer than we are. So it must take all that we take, in order, with the same bodies;
//! not the other way round.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use forebay_net::http1::Http1;
use forebay_net::request::{Core, Request, Standing};
use http::StatusCode;
use http_body_util::{BodyExt, Empty};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use crate::pipe::Pipe;
use crate::porch::{Cut, Porch, Told, answer, lose, sizes};

/// An answer is never longer than this.
const ANSWER_BYTES_MAX: usize = 160;
/// Below this a request can't be.
const REQUEST_BYTES_MIN: usize = 16;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What came of an input.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub requests: Vec<Told>,
    /// The status of each answer.
    statuses: Vec<Bytes>,
    standing: Standing,
}

/// Cuts an input in three ways, and holds the outcomes to each other and to hyper's.
///
/// # Panics
/// If they differ, or something stays reserved, or the output has no bound.
pub fn check(input: &[u8]) {
    let Some((terms, input)) = input.split_first() else { return };
    let Some((cut, bytes)) = sizes(input, 7) else { return };
    let terms = Terms { is_open: terms & 1 == 1, lends: terms & 2 == 2, ends: terms & 4 == 4 };
    let whole = converse(bytes, Cut::Whole, terms);
    for cut in [Cut::Sizes(cut), Cut::Bytewise] {
        assert_eq!(converse(bytes, cut, terms), whole, "{cut:?}");
    }
    let theirs = heard_by_hyper(bytes);
    // What the door refuses is not handed out, and hyper knows no door.
    let mut behind = theirs.requests.iter();
    for ours in &whole.requests {
        let found = match terms.is_open {
            true => behind.next().filter(|theirs| is_same(ours, theirs)),
            false => behind.find(|theirs| is_same(ours, theirs)),
        };
        let is_excused = behind.len() == 0 && theirs.is_excused;
        assert!(found.is_some() || is_excused, "hyper has no {ours:?} but {theirs:?}");
        if found.is_none() {
            return;
        }
    }
}

#[derive(Clone, Copy)]
struct Terms {
    /// The door lets everything in.
    is_open: bool,
    /// A long body's buffer is lent whenever the core wants that.
    lends: bool,
    /// The peer ends its side behind the input.
    ends: bool,
}

/// Feeds `bytes` to a connection, answering each request as soon as it is there.
fn converse(bytes: &[u8], cut: Cut<'_>, terms: Terms) -> Outcome {
    let mut porch = if terms.is_open { Porch::open() } else { Porch::strict(1_000, 1) };
    let mut core = Http1::new(0);
    let (mut requests, mut output) = (Vec::new(), BytesMut::new());
    cut.each(bytes, |piece| {
        if !core.wants_input() || core.standing() != Standing::Open {
            return;
        }
        match terms.lends.then(|| core.lend_body()).flatten() {
            Some((mut buffer, bytes_max)) => {
                let (direct, behind) = piece.split_at(piece.len().min(bytes_max));
                buffer.extend_from_slice(direct);
                core.return_body(buffer, &mut porch.turn());
                core.handle_input(behind, &mut porch.turn());
            }
            None => core.handle_input(piece, &mut porch.turn()),
        }
        answer_all(&mut core, &mut porch, &mut requests, &mut output);
    });
    if terms.ends {
        core.handle_eof(&mut porch.turn());
        assert_ne!(core.standing(), Standing::Open, "the peer sends no more, and has its answers");
        output.extend_from_slice(&core.take_output());
    }
    let bytes_max = (bytes.len() / REQUEST_BYTES_MIN + 1) * (ANSWER_BYTES_MAX + CONTINUE.len());
    assert!(output.len() <= bytes_max, "{} bytes of answers", output.len());
    let standing = core.standing();
    lose(&mut core, &mut porch);
    Outcome { statuses: statuses(&output), requests, standing }
}

fn answer_all(
    core: &mut Http1,
    porch: &mut Porch,
    requests: &mut Vec<Told>,
    output: &mut BytesMut,
) {
    loop {
        output.extend_from_slice(&core.take_output());
        core.handle_sent(&mut porch.turn());
        let Some(request) = porch.requests.pop() else { break };
        assert!(porch.requests.is_empty(), "one request at a time");
        assert_eq!(core.in_flight(), 1);
        porch.settle(&request);
        let stream = request.id.stream;
        requests.push(told(request));
        core.handle_answer(stream, answer(StatusCode::OK), &mut porch.turn());
    }
}

/// Numbers are the connection's own: they say only the order.
fn told(request: Request) -> Told {
    Told { stream: 0, ..Told::from(request) }
}

/// The status of each answer but `100 Continue`: whether that is sent hangs on whether the body is
/// there already. Which of two reasons to refuse a request is found first does, too.
fn statuses(output: &[u8]) -> Vec<Bytes> {
    let lines = output.split(|byte| *byte == b'\n').filter_map(|line| {
        let line = line.strip_prefix(b"body").unwrap_or(line);
        line.strip_prefix(b"HTTP/1.1 ").and_then(|line| line.get(..3))
    });
    let kind = |status: &[u8]| match status {
        b"400" | b"431" | b"505" => Bytes::from_static(b"unreadable"),
        status => Bytes::copy_from_slice(status),
    };
    lines.filter(|status| status != b"100").map(kind).collect()
}

#[derive(Debug)]
struct Theirs {
    requests: Vec<Told>,
    /// hyper refused what it may.
    is_excused: bool,
}

/// What hyper's server makes of the same bytes.
fn heard_by_hyper(bytes: &[u8]) -> Theirs {
    let pipe = Pipe::default();
    pipe.feed(bytes);
    let heard = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
        let heard = heard.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let (method, headers) = (parts.method, parts.headers);
            let path = parts.uri.path().to_owned();
            heard.borrow_mut().push(Told { stream: 0, method, path, headers, body });
            let mut response = http::Response::new(Empty::<Bytes>::new());
            // To a CONNECT this says that nothing is to be tunnelled.
            *response.status_mut() = StatusCode::NOT_FOUND;
            Ok::<_, hyper::Error>(response)
        }
    });
    // As many fields as an input may have: those of trailers we bound by their bytes alone.
    let mut connection = pin!(
        Builder::new()
            .max_headers(4_096)
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(pipe), service)
    );
    let mut is_excused = false;
    let mut context = Context::from_waker(Waker::noop());
    // Nobody wakes it: it is asked until it says nothing new. Each time it takes one chunk, and
    // none is shorter than six bytes.
    let (mut quiet, mut before) = (0, 0);
    while quiet < 4 + bytes.len() / 6 {
        if let Poll::Ready(ended) = connection.as_mut().poll(&mut context) {
            // Its addresses are stricter than ours in what a path may be.
            is_excused = ended.is_err_and(|error| error.to_string().contains("URI"));
            break;
        }
        let now = heard.borrow().len();
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
    }
    let requests = heard.borrow().clone();
    Theirs { requests, is_excused }
}

fn is_same(ours: &Told, theirs: &Told) -> bool {
    let path = if theirs.path.is_empty() { "/" } else { &theirs.path };
    let Told { method, headers, body, .. } = theirs;
    (&ours.method, ours.path.as_str(), &ours.headers, &ours.body) == (method, path, headers, body)
}

/// Conversations to begin with, each behind its terms and its cut.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let line = format!("1;{}\r\n", "x".repeat(254));
    let chunk_line = format!(
        "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{line}a\r\n0\r\n\r\n"
    );
    let loose = |body: &str| {
        format!("POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
    };
    let [data_end, line_end, size, trailer] = [
        "3\r\nabc\rX0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3 x\r\nabc\r\n0\r\n\r\n",
        "0\r\nGET / HTTP/1.1\r\n\r\n",
    ]
    .map(loose);
    let many_chunks = loose(&format!("{}0\r\n\r\n", "1\r\na\r\n".repeat(40)));
    let many_trailers = loose(&format!("0\r\n{}\r\n", "t:\r\n".repeat(101)));
    let texts = [
        ("many_chunks", 1, many_chunks.as_str()),
        ("many_trailers", 1, many_trailers.as_str()),
        ("loose_data_end", 1, data_end.as_str()),
        ("loose_line_end", 1, line_end.as_str()),
        ("loose_size", 1, size.as_str()),
        ("loose_trailer", 1, trailer.as_str()),
        ("length", 1, "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"),
        (
            "chunked",
            1,
            "POST /a?q HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n\
             2\r\nde\r\n0\r\nt: u\r\n\r\nGET http://h/b HTTP/1.1\r\nhost:h\r\n\r\n",
        ),
        ("long_line", 1, chunk_line.as_str()),
        (
            "pipelined",
            5,
            "\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\nHEAD /b HTTP/1.0\r\nConnection: keep-alive\r\n\
             \r\nOPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /c HTTP/1.1\r\n",
        ),
        (
            "continue",
            0,
            "PUT /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        ),
        (
            "refused",
            4,
            "POST /no HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcPOST /small HTTP/1.1\r\n\
             Host: h\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n0123456789abcdefg\r\n0\r\n\r\n",
        ),
        ("direct", 3, "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 20000\r\n\r\nabc"),
        (
            "smuggled",
            1,
            "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\
             \r\n0\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n",
        ),
    ];
    texts.map(|(name, terms, text)| (name, [&[terms, 2, 20, 3], text.as_bytes()].concat())).into()
}
