//! Bytes on their way out of one connection: written while others are under way, memory used again.

use bytes::Bytes;
use forebay_net::ring::uring::Uring;
use forebay_net::ring::{Key, Options, Ring, Rung};

/// Memory above this is given back after use.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// The ring of load, sink and floor. Buffers are large: whoever measures must not pay more per
/// byte than what it measures.
pub fn ring() -> Result<Uring, String> {
    let options = Options {
        entries: 1024,
        buffers: 256,
        buffer_bytes: 64 << 10,
        datagram_buffers: 0,
        highest: Rung::Deferred,
    };
    Uring::new(&options)
}

#[derive(Default)]
pub struct Outbox {
    /// What is to be sent next.
    pub filling: Vec<u8>,
    in_flight: Option<Bytes>,
}

impl Outbox {
    /// Sends what there is, unless a send is under way.
    pub fn flush(&mut self, ring: &mut Uring, key: Key) {
        if self.in_flight.is_none() && !self.filling.is_empty() {
            let bytes = Bytes::from(std::mem::take(&mut self.filling));
            self.in_flight = Some(bytes.clone());
            ring.send(key, bytes);
        }
    }

    /// The ring has sent all of it: its memory is ours again.
    pub fn sent(&mut self) {
        let Some(mut bytes) = self.in_flight.take() else { return };
        bytes.truncate(0);
        let memory = Vec::from(bytes);
        if self.filling.capacity() < memory.capacity()
            && self.filling.is_empty()
            && memory.capacity() <= KEPT_BYTES_MAX
        {
            self.filling = memory;
        }
    }

    pub fn is_sending(&self) -> bool {
        self.in_flight.is_some()
    }
}
