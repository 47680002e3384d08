//! HTTP/2 by hand, frame by frame (RFC 9113): what no client library can be made to send.
//!
//! Reads and writes frames and nothing else: no flow control, no answers of its own to SETTINGS
//! or PING. Header blocks are written as literals (RFC 7541, 6.2.2), and never read.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::forebay::PATIENCE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;

/// The error code of a GOAWAY that ends a flood.
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame as it came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A connection after the client's preface and empty SETTINGS.
pub struct Frames {
    stream: TcpStream,
}

impl Frames {
    pub fn connect(address: SocketAddr) -> Frames {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_nodelay(true).expect("an option can be set");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("it reads");
        let mut frames = Frames { stream };
        assert!(frames.send(SETTINGS, 0, 0, &[]), "it reads");
        frames
    }

    /// Whether the peer still took it.
    #[must_use]
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.send_all(&bytes_of(kind, flags, stream, payload))
    }

    /// Sends frames that were written by [`bytes_of`]; whether the peer still took them.
    #[must_use]
    pub fn send_all(&mut self, frames: &[u8]) -> bool {
        match self.stream.write_all(frames) {
            Ok(()) => true,
            Err(error) if is_timeout(&error) => panic!("the peer neither reads nor ends"),
            Err(_) => false,
        }
    }

    /// Says that no more comes.
    pub fn finish(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    }

    /// The next frame; `None` if the connection ends first.
    pub fn next_frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.read(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.read(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of this kind on this stream, past all others.
    pub fn wait_for(&mut self, kind: u8, stream: u32) -> Option<Frame> {
        loop {
            let frame = self.next_frame()?;
            if frame.kind == kind && frame.stream == stream {
                return Some(frame);
            }
        }
    }

    /// Reads to the end; the error code of the last GOAWAY before it.
    pub fn goaway_code(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next_frame() {
            if frame.kind == GOAWAY {
                code = frame.payload[4..8].try_into().ok().map(u32::from_be_bytes);
            }
        }
        code
    }

    fn read(&mut self, bytes: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(bytes) {
            Ok(()) => Some(()),
            Err(error) if is_timeout(&error) => panic!("no frame came in time"),
            Err(_) => None,
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A frame as it is sent.
pub fn bytes_of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            put_length(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// The header block of a gRPC call.
pub fn call(path: &str) -> Vec<u8> {
    block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ])
}

/// An integer with a prefix of seven bits (RFC 7541, 5.1).
fn put_length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return block.push(length as u8);
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}
