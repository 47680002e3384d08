//! Between the services: pipes in memory in place of a network, so that nothing but the story's
//! own clock says how long anything takes.
//!
//! Never loses, delays or reorders a byte: what goes wrong is the replicas' part. Always: what was
//! written can be read at once, whatever else the machine has to do.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tokio::io::DuplexStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What one side of a connection may write before the other has read.
const PIPE_BYTES: usize = 16 << 10;

/// Who listens, by address.
#[derive(Clone, Default)]
pub(crate) struct Network(Rc<RefCell<HashMap<String, UnboundedSender<DuplexStream>>>>);

impl Network {
    /// Connections to `address` come out of what is returned.
    pub(crate) fn listen(&self, address: &str) -> UnboundedReceiver<DuplexStream> {
        let (fresh, connections) = unbounded_channel();
        self.0.borrow_mut().insert(address.to_owned(), fresh);
        connections
    }

    pub(crate) fn connect(&self, address: &str) -> Result<DuplexStream, String> {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let listeners = self.0.borrow();
        let taken = listeners.get(address).is_some_and(|listener| listener.send(theirs).is_ok());
        if taken { Ok(ours) } else { Err("nobody listens".to_owned()) }
    }
}
