//! A server with TLS on a plain socket: rustls, and whatever a test says over it.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use rustls::{ServerConnection, StreamOwned};

use crate::forebay::PATIENCE;
use crate::papers::{Authority, Files};

/// One connection, as the peer has it.
pub type Line = StreamOwned<ServerConnection, TcpStream>;

/// It ends with the process.
pub struct Peer {
    pub address: SocketAddr,
    /// `ca.pem` is whom to trust.
    pub files: Files,
}

impl Peer {
    /// `serve` has each connection on a thread of its own, and makes the handshake with its first
    /// read. The certificate is for `localhost`.
    pub fn start(protocol: &str, serve: impl Fn(Line) + Send + Sync + 'static) -> Peer {
        let authority = Authority::new("ours");
        let paper = authority.issue(|_| {});
        let files = Files::new(&paper);
        files.write("ca.pem", &authority.pem());
        let terms = paper.server(protocol);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (terms, serve) = (Arc::clone(&terms), Arc::clone(&serve));
                std::thread::spawn(move || {
                    let _ = socket.set_read_timeout(Some(PATIENCE));
                    let session = ServerConnection::new(terms).expect("a session");
                    serve(StreamOwned::new(session, socket));
                });
            }
        });
        Peer { address, files }
    }
}

/// A request up to its end, its head in lower case; `None`: there is none any more.
pub fn read_request(line: &mut Line) -> Option<String> {
    let mut came = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&came).to_ascii_lowercase();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.split_once("content-length: ").map_or("0", |(_, length)| length);
            let length = length.split("\r\n").next().and_then(|text| text.parse::<usize>().ok());
            let end = came.windows(4).position(|at| at == b"\r\n\r\n").expect("it is there") + 4;
            if came.len() >= end + length.expect("a number") {
                return Some(head.to_owned());
            }
        }
        let mut bytes = [0; 4096];
        match line.read(&mut bytes) {
            Ok(0) | Err(_) => return None,
            Ok(count) => came.extend_from_slice(&bytes[..count]),
        }
    }
}
