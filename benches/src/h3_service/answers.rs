//! What a request asks for and what it is answered, as OTLP/HTTP has it; no stream in sight.

use bytes::Bytes;
use forebay_codec::compress::Encoding;
use forebay_codec::signal::Signal;
use forebay_codec::status::Status;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};

use crate::client::{Transport, path};

/// Bodies may be so large, compressed or not: the Collector's limit.
pub(super) const BODY_BYTES_MAX: usize = 20 << 20;
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
/// google.rpc.Code
const INVALID_ARGUMENT: u32 = 3;
const UNIMPLEMENTED: u32 = 12;

/// A head that can be served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) signal: Signal,
    pub(super) encoding: Encoding,
    pub(super) length: Option<usize>,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: HeaderValue,
    pub(super) message: Bytes,
}

impl Asked {
    pub(super) fn of(head: &Request<()>) -> Result<Asked, Answer> {
        let target = head.uri().path();
        let known = Signal::ALL.into_iter();
        let signal = known.into_iter().find(|signal| path(Transport::Http3, *signal) == target);
        let Some(signal) = signal else {
            return Err(Answer::refuse(StatusCode::NOT_FOUND, UNIMPLEMENTED, "no such path"));
        };
        if head.method() != Method::POST {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            return Err(Answer::refuse(status, UNIMPLEMENTED, "requests are POSTed"));
        }
        if head.headers().get(CONTENT_TYPE) != Some(&PROTOBUF) {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Answer::refuse(status, INVALID_ARGUMENT, "only protobuf is taken"));
        }
        let encoding = head.headers().get(CONTENT_ENCODING);
        let encoding = encoding.map_or(Some(Encoding::Identity), |value| {
            value.to_str().ok().and_then(Encoding::from_http)
        });
        let Some(encoding) = encoding else {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Answer::refuse(status, INVALID_ARGUMENT, "an unknown compression"));
        };
        let length = head.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        match length.is_some_and(|length: usize| length > BODY_BYTES_MAX) {
            true => Err(Answer::too_large()),
            false => Ok(Asked { signal, encoding, length }),
        }
    }
}

impl Answer {
    /// An empty response is a full success.
    pub(super) fn success() -> Answer {
        Answer { status: StatusCode::OK, content_type: PROTOBUF, message: Bytes::new() }
    }

    pub(super) fn too_large() -> Answer {
        let why = format!("the request is larger than {BODY_BYTES_MAX} bytes");
        Answer::refuse(StatusCode::PAYLOAD_TOO_LARGE, INVALID_ARGUMENT, &why)
    }

    /// Not to be sent again: it can't get better.
    pub(super) fn invalid(why: &str) -> Answer {
        Answer::refuse(StatusCode::BAD_REQUEST, INVALID_ARGUMENT, why)
    }

    fn refuse(status: StatusCode, code: u32, why: &str) -> Answer {
        let message =
            Status { code, message: why.to_owned(), retry_delay: None, bad_request: None };
        Answer { status, content_type: PROTOBUF, message: Bytes::from(message.to_proto()) }
    }
}
