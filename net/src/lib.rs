//! Sockets and protocols: the ring, TCP, HTTP/1.1, HTTP/2 and gRPC framing. Knows no OTLP.
//!
//! A receiver core owns one [`server::Server`]: it turns completions of the ring into
//! [`request::Request`]s, whatever the protocol, and [`request::Answer`]s into bytes. Protocol
//! cores (`http1`, `http2`) are sans-I/O: bytes and `now` in, requests and bytes out.
//!
//! Always
//! - Only `ring` speaks to the kernel for the receivers; only `glommio_io` names glommio.
//! - Time comes in as `now`; nothing here reads a clock.
//! - Every buffer is bounded, by a limit or by the budget that the [`request::Door`] keeps.

mod body;
pub mod cors;
pub mod datagrams;
pub mod dial;
pub mod fields;
pub mod glommio_io;
pub mod grpc;
pub mod http1;
pub mod http2;
pub mod http3;
pub mod pace;
pub mod quic;
pub mod request;
pub mod ring;
pub mod server;
pub mod tls;
pub mod wake;
