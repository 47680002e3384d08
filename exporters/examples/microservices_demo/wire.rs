//! HTTP/1.1 requests over connections that are kept for the next.
//!
//! Never retries and has no timeout: whoever calls decides. Always: a connection is kept only
//! after its answer was read to the end.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Display;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;

use crate::network::Network;

type Connection = SendRequest<Empty<Bytes>>;

pub(crate) struct Wire {
    network: Network,
    /// By address.
    idle: RefCell<HashMap<String, Vec<Connection>>>,
}

impl Wire {
    pub(crate) fn new(network: &Network) -> Wire {
        Wire { network: network.clone(), idle: RefCell::default() }
    }

    pub(crate) async fn get(&self, address: &str, path: &str) -> Result<StatusCode, String> {
        let kept = self.idle.borrow_mut().get_mut(address).and_then(Vec::pop);
        let mut connection = match kept.filter(Connection::is_ready) {
            Some(connection) => connection,
            None => self.connect(address).await?,
        };
        let request = Request::get(path)
            .header(header::HOST, address)
            .body(Empty::new())
            .map_err(|error| failed("no request", error))?;
        let answer = connection.send_request(request).await;
        let answer = answer.map_err(|error| failed("no answer", error))?;
        let status = answer.status();
        answer.into_body().collect().await.map_err(|error| failed("half an answer", error))?;
        self.idle.borrow_mut().entry(address.to_owned()).or_default().push(connection);
        Ok(status)
    }

    async fn connect(&self, address: &str) -> Result<Connection, String> {
        let stream = self.network.connect(address);
        let stream = stream.map_err(|error| failed("no connection", error))?;
        let shaken = handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| failed("no HTTP", error))?;
        tokio::task::spawn_local(connection);
        sender.ready().await.map_err(|error| failed("no HTTP", error))?;
        Ok(sender)
    }
}

fn failed(what: &str, error: impl Display) -> String {
    format!("{what}: {error}")
}
