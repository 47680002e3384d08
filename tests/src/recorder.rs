//! A destination that keeps what it was sent, byte for byte: for what a [`crate::sink::Sink`],
//! which decodes, can't tell.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::forebay::PATIENCE;

/// An HTTP/1.1 server that answers every request with an empty 200.
pub struct Recorder {
    pub address: SocketAddr,
    requests: Receiver<(String, Vec<u8>)>,
}

impl Recorder {
    pub fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                std::thread::spawn(move || record(stream, &sender));
            }
        });
        Recorder { address, requests }
    }

    /// The exporter block for this recorder: protobuf, as it is.
    pub fn exporter(&self) -> String {
        format!("{{endpoint: \"http://{}\", compression: none}}", self.address)
    }

    /// The path and the body of the next request.
    pub fn next(&self) -> (String, Vec<u8>) {
        self.requests.recv_timeout(PATIENCE).expect("a request arrives")
    }
}

/// Serves one connection until it ends.
fn record(stream: TcpStream, sender: &Sender<(String, Vec<u8>)>) -> Option<()> {
    let mut answers = stream.try_clone().ok()?;
    let mut requests = BufReader::new(stream);
    loop {
        let (mut path, mut length, mut line) = (String::new(), 0, String::new());
        loop {
            line.clear();
            if requests.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let text = line.trim_end().to_ascii_lowercase();
            if path.is_empty() {
                path = line.split(' ').nth(1)?.to_owned();
            } else if let Some(value) = text.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            } else if text.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        requests.read_exact(&mut body).ok()?;
        sender.send((path, body)).ok()?;
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\
                      content-length: 0\r\n\r\n";
        answers.write_all(answer.as_bytes()).ok()?;
    }
}
