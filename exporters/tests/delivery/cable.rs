//! What lies between an exporter and its peer, and can be cut without either being told.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Forwards connections to a peer, each until it is cut.
pub(crate) struct Cable {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    connections: AtomicUsize,
    /// Connections with a lower number are cut.
    cut_below: AtomicUsize,
}

impl Cable {
    pub(crate) fn to(peer: SocketAddr) -> Cable {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let (near, far) = (near.unwrap(), TcpStream::connect(peer).unwrap());
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                let ends = (near.try_clone().unwrap(), far.try_clone().unwrap());
                for (from, to) in [ends, (far, near)] {
                    let state = Arc::clone(&shared);
                    std::thread::spawn(move || forward(from, to, number, &state));
                }
            }
        });
        Cable { address, state }
    }

    /// From here on nothing passes over the connections there are, and none of them is closed.
    pub(crate) fn cut_connections(&self) {
        self.state.cut_below.store(self.connections(), Ordering::SeqCst);
    }

    /// Connections made so far.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, number: usize, state: &State) {
    let mut bytes = [0; 16 << 10];
    let is_cut = || number < state.cut_below.load(Ordering::SeqCst);
    // What is sent over a cut connection is lost on the way, its end too.
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if !is_cut() && to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    if !is_cut() {
        let _ = to.shutdown(Shutdown::Both);
    }
}
