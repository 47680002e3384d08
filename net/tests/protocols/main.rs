//! The protocol cores without a socket.

mod desk;
mod http1;
mod http2;
