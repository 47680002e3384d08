//! Answers in the request's own form: what OTLP says goes back for each way a request can end.
//!
//! Source: `otlp.md` of the specification's checklist: full success is an empty message, a
//! refusal is a `google.rpc.Status` in the request's encoding; overload is UNAVAILABLE with
//! RetryInfo or 503 with Retry-After, and never a bare RESOURCE_EXHAUSTED, which says "never
//! again".

use std::time::Duration;

use bytes::Bytes;
use forebay_codec::signal::Signal;
use forebay_codec::status::{PartialSuccess, Status};
use forebay_net::fields::Fields;
use forebay_net::grpc::{self, code};
use forebay_net::request::{Answer, Head};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};

use super::route::media_type;
use crate::ledger::Transport;

/// How the bodies of a request and its answer are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Proto,
    Json,
    /// What `curl -d` says of whatever it sends. Taken for JSON if it looks like JSON, because a
    /// first try with curl should work.
    Urlencoded,
}

impl Form {
    pub const ALL: [Form; 4] = [Form::Proto, Form::Json, Form::Urlencoded, Form::Proto];

    /// The form of a media type, if OTLP/HTTP knows it.
    pub fn of(media_type: &str) -> Option<Form> {
        match media_type {
            "application/x-protobuf" | "application/protobuf" => Some(Form::Proto),
            "application/json" => Some(Form::Json),
            "application/x-www-form-urlencoded" => Some(Form::Urlencoded),
            _ => None,
        }
    }
}

/// What an answer has to look like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub transport: Transport,
    pub form: Form,
}

impl Shape {
    /// The shape of a request that may not be one: as far as its head tells.
    pub fn guess(head: &Head) -> Shape {
        let media_type = media_type(&head.headers);
        match media_type.starts_with("application/grpc") {
            true => Shape { transport: Transport::Grpc, form: Form::Proto },
            false => Shape {
                transport: Transport::Http,
                form: Form::of(&media_type).unwrap_or(Form::Json),
            },
        }
    }
}

/// A refusal before it is dressed.
#[derive(Clone, Debug)]
pub struct Problem {
    /// What HTTP says; gRPC says `code`.
    pub status: StatusCode,
    pub code: u32,
    pub message: String,
    pub shape: Shape,
    /// When to come back; only what is retryable has it.
    pub retry_delay: Option<Duration>,
    /// Goes into a BadRequest detail: what is wrong with the bytes.
    pub bad_request: Option<String>,
    pub header: Option<(&'static str, &'static str)>,
}

impl Problem {
    /// For a call; `shape` is gRPC's.
    pub fn grpc(code: u32, message: String) -> Problem {
        let shape = Shape { transport: Transport::Grpc, form: Form::Proto };
        Problem::new(shape, status_of(code), code, message)
    }

    pub fn http(status: StatusCode, code: u32, message: String, form: Form) -> Problem {
        Problem::new(Shape { transport: Transport::Http, form }, status, code, message)
    }

    /// For what belongs to neither: HTTP says it all, and a Status in `form`.
    pub fn plain(status: StatusCode, message: &str, form: Form) -> Problem {
        Problem::http(status, code::INVALID_ARGUMENT, message.to_owned(), form)
    }

    /// The bytes are not what they should be: INVALID_ARGUMENT, 400.
    pub fn invalid(shape: Shape, message: String) -> Problem {
        let bad_request = Some(message.clone());
        let status = StatusCode::BAD_REQUEST;
        Problem { bad_request, ..Problem::new(shape, status, code::INVALID_ARGUMENT, message) }
    }

    /// RESOURCE_EXHAUSTED without RetryInfo, 413: never the same again.
    pub fn too_large(shape: Shape, bytes_max: usize) -> Problem {
        let message = format!(
            "the request is larger than {bytes_max} bytes after decompression: send smaller batches"
        );
        Problem::new(shape, StatusCode::PAYLOAD_TOO_LARGE, code::RESOURCE_EXHAUSTED, message)
    }

    /// UNAVAILABLE with RetryInfo, 503 with Retry-After.
    pub fn overloaded(shape: Shape, message: &str, delay: Duration) -> Problem {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Problem {
            retry_delay: Some(delay),
            ..Problem::new(shape, status, code::UNAVAILABLE, message.to_owned())
        }
    }

    pub fn new(shape: Shape, status: StatusCode, code: u32, message: String) -> Problem {
        Problem { status, code, message, shape, retry_delay: None, bad_request: None, header: None }
    }

    pub fn answer(self) -> Answer {
        let status = Status {
            code: self.code,
            message: self.message,
            retry_delay: self.retry_delay,
            bad_request: self.bad_request,
        };
        let mut answer = match self.shape.transport {
            Transport::Grpc => {
                let details = (status.retry_delay.is_some() || status.bad_request.is_some())
                    .then(|| status.to_proto());
                grpc::failed(status.code, &status.message, details.as_deref())
            }
            Transport::Http => {
                let body = match self.shape.form {
                    Form::Proto => status.to_proto(),
                    Form::Json | Form::Urlencoded => status.to_json(),
                };
                http_answer(self.status, self.shape.form, body)
            }
        };
        if let Some(delay) = status.retry_delay {
            match self.shape.transport {
                Transport::Http => {
                    answer.headers.push(RETRY_AFTER, HeaderValue::from(whole_seconds(delay)));
                }
                // What gRPC's own retry policies listen to, beside RetryInfo.
                Transport::Grpc => answer.headers.push(
                    HeaderName::from_static("grpc-retry-pushback-ms"),
                    HeaderValue::from(delay.as_millis() as u64),
                ),
            }
        }
        if let Some((name, value)) = self.header {
            answer.headers.push(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        answer
    }
}

/// The answer to a request that was taken, wholly or in part.
pub fn success(shape: Shape, signal: Signal, partial: &PartialSuccess) -> Answer {
    match (shape.transport, shape.form) {
        (Transport::Grpc, _) => grpc::ok(&partial.to_response_proto()),
        (Transport::Http, Form::Proto) => {
            http_answer(StatusCode::OK, Form::Proto, partial.to_response_proto())
        }
        (Transport::Http, form) => {
            http_answer(StatusCode::OK, form, partial.to_response_json(signal))
        }
    }
}

fn http_answer(status: StatusCode, form: Form, body: Vec<u8>) -> Answer {
    let content_type = match form {
        Form::Proto => "application/x-protobuf",
        Form::Json | Form::Urlencoded => "application/json",
    };
    Answer {
        status,
        headers: Fields::from([(CONTENT_TYPE, HeaderValue::from_static(content_type))]),
        body: Bytes::from(body),
        trailers: Fields::new(),
    }
}

/// Retry-After counts whole seconds: never sooner than meant.
fn whole_seconds(delay: Duration) -> u64 {
    delay.as_secs() + u64::from(delay.subsec_nanos() > 0)
}

/// gRPC's code for an OTLP/HTTP client, as the Collector maps it.
pub fn status_of(code: u32) -> StatusCode {
    match code {
        code::CANCELLED
        | code::DEADLINE_EXCEEDED
        | code::ABORTED
        | code::OUT_OF_RANGE
        | code::UNAVAILABLE
        | code::DATA_LOSS => StatusCode::SERVICE_UNAVAILABLE,
        code::RESOURCE_EXHAUSTED => StatusCode::TOO_MANY_REQUESTS,
        code::INVALID_ARGUMENT => StatusCode::BAD_REQUEST,
        code::UNAUTHENTICATED => StatusCode::UNAUTHORIZED,
        code::PERMISSION_DENIED => StatusCode::FORBIDDEN,
        code::UNIMPLEMENTED => StatusCode::NOT_FOUND,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTO: Shape = Shape { transport: Transport::Http, form: Form::Proto };
    const JSON: Shape = Shape { transport: Transport::Http, form: Form::Json };
    const GRPC: Shape = Shape { transport: Transport::Grpc, form: Form::Proto };

    fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
        let found = answer.headers.iter().find(|(n, _)| n.as_str() == name);
        found.map(|(_, value)| value.to_str().unwrap())
    }

    #[test]
    fn s3_full_success_is_an_empty_message_and_an_empty_object() {
        let none = PartialSuccess::default();
        assert!(success(PROTO, Signal::Logs, &none).body.is_empty());
        assert_eq!(success(JSON, Signal::Logs, &none).body, "{}");
        assert_eq!(success(GRPC, Signal::Logs, &none).body.as_ref(), [0; 5]);
    }

    #[test]
    fn s4_s5_a_partial_success_says_how_many_and_why() {
        let partial = PartialSuccess { rejected: 3, message: "too old".to_owned() };
        let body = success(JSON, Signal::Traces, &partial).body;
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["partialSuccess"]["rejectedSpans"], "3");
        assert_eq!(json["partialSuccess"]["errorMessage"], "too old");
    }

    #[test]
    fn h2_h6_a_refusal_is_a_status_in_the_encoding_of_its_request() {
        let problem = |shape| Problem::invalid(shape, "at byte 7: broken".to_owned()).answer();
        let proto = problem(PROTO);
        assert_eq!(header(&proto, "content-type"), Some("application/x-protobuf"));
        let status = Status::from_proto(&proto.body).unwrap();
        assert_eq!((status.code, status.message.as_str()), (3, "at byte 7: broken"));
        let json = problem(JSON);
        assert_eq!(header(&json, "content-type"), Some("application/json"));
        assert_eq!(Status::from_json(&json.body).unwrap().code, 3);
        assert_eq!(json.status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn g5_h7_overload_says_when_to_come_back_in_the_words_of_each_transport() {
        let delay = Duration::from_millis(1500);
        let grpc = Problem::overloaded(GRPC, "full", delay).answer();
        assert_eq!(header(&grpc, "grpc-status"), Some("14"));
        assert!(header(&grpc, "grpc-status-details-bin").is_some());
        assert_eq!(header(&grpc, "grpc-retry-pushback-ms"), Some("1500"));
        let http = Problem::overloaded(PROTO, "full", delay).answer();
        assert_eq!(http.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(header(&http, "retry-after"), Some("2"));
    }

    #[test]
    fn g3_h4_too_large_is_final_in_both_transports() {
        let grpc = Problem::too_large(GRPC, 10).answer();
        assert_eq!(header(&grpc, "grpc-status"), Some("8"));
        assert_eq!(header(&grpc, "grpc-status-details-bin"), None, "no RetryInfo");
        assert_eq!(Problem::too_large(PROTO, 10).answer().status, StatusCode::PAYLOAD_TOO_LARGE);
    }
}
