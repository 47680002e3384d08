//! What a peer asks of the sink and what it is answered, whatever the protocol.

use forebay_codec::compress::Encoding;
use forebay_codec::signal::Signal;

use crate::client::{Transport, path};

/// What a request's head says; an unknown signal or encoding is kept as `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub signal: Option<Signal>,
    pub is_grpc: bool,
    pub encoding: Option<Encoding>,
}

impl Head {
    pub fn of(
        target: &str,
        content_type: &str,
        grpc_encoding: Option<&str>,
        content_encoding: Option<&str>,
    ) -> Head {
        let is_grpc = content_type.starts_with("application/grpc");
        let transport = if is_grpc { Transport::Grpc } else { Transport::Http1 };
        let signal = Signal::ALL.into_iter().find(|signal| path(transport, *signal) == target);
        let encoding = match (is_grpc, grpc_encoding, content_encoding) {
            (true, Some(name), _) => Encoding::from_grpc(name),
            (false, _, Some(name)) => Encoding::from_http(name),
            _ => Some(Encoding::Identity),
        };
        Head { signal, is_grpc, encoding }
    }
}

/// A whole request.
#[derive(Debug)]
pub struct Asked {
    /// 0 with HTTP/1.1.
    pub stream: u32,
    pub head: Head,
    /// With gRPC's prefix, where it is gRPC.
    pub body: Vec<u8>,
}

/// What it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Ok,
    /// A gRPC status, or 503.
    Refuse {
        code: u32,
        retry: Option<Retry>,
    },
}

/// After how long to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    pub ms: u32,
}

impl Retry {
    /// Whole seconds, as `Retry-After` has them, rounded up.
    pub fn to_seconds(self) -> String {
        self.ms.div_ceil(1000).to_string()
    }

    /// `grpc-status-details-bin`: a Status with UNAVAILABLE and a RetryInfo, in base64.
    pub fn to_status_details(self) -> String {
        let delay = std::time::Duration::from_millis(u64::from(self.ms));
        let status = forebay_codec::status::Status {
            code: 14,
            message: "as the scenario says".to_owned(),
            retry_delay: Some(delay),
            bad_request: None,
        };
        base64(&status.to_proto())
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let wide = group.iter().fold(0u32, |wide, byte| wide << 8 | u32::from(*byte))
            << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            text.push(char::from(ALPHABET[(wide >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}
