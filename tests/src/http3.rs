//! A client that speaks HTTP/3, made of the crates `h3` and `quinn`.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use h3::client::SendRequest;
use h3::error::{ConnectionError, StreamError};
use h3_quinn::OpenStreams;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::forebay::PATIENCE;
use crate::papers::{Authority, Paper};
use crate::wire::Answer;

/// One connection.
pub struct Http3 {
    endpoint: Endpoint,
    sender: SendRequest<OpenStreams, Bytes>,
    end: JoinHandle<ConnectionError>,
}

impl Http3 {
    /// Trusts `authority`, and shows `paper` if there is one.
    ///
    /// # Errors
    /// The handshake's, or a refusal that comes right after it: a client of TLS 1.3 is done before
    /// the server has seen its certificate.
    pub async fn connect(
        address: SocketAddr,
        authority: &Authority,
        paper: Option<&Paper>,
    ) -> Result<Http3, Box<dyn std::error::Error>> {
        let mut tls = rustls::ClientConfig::clone(&authority.client(paper));
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let tls = QuicClientConfig::try_from(tls).expect("TLS 1.3 is among its versions");
        let mut endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        endpoint.set_default_client_config(ClientConfig::new(Arc::new(tls)));
        let connecting = endpoint.connect(address, "localhost").expect("a proper address");
        let connection = timeout(PATIENCE, connecting).await.expect("an answer to the hello")?;
        let connection = h3_quinn::Connection::new(connection);
        let (mut driver, sender) = h3::client::new(connection).await?;
        let end = tokio::spawn(async move {
            std::future::poll_fn(|context| driver.poll_close(context)).await
        });
        Ok(Http3 { endpoint, sender, end })
    }

    /// Goes on from another address.
    pub fn move_away(&self) -> SocketAddr {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        self.endpoint.rebind(socket).expect("it can be replaced");
        self.endpoint.local_addr().expect("an address")
    }

    /// # Panics
    /// Where there is no answer.
    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let answer = self.request("POST", path, headers, body);
        timeout(PATIENCE, answer).await.expect("in time").expect("an answer")
    }

    /// # Errors
    /// The stream's, or its connection's.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, StreamError> {
        let uri = format!("https://localhost{path}");
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a proper request");
        let mut stream = self.sender.clone().send_request(request).await?;
        // A server that has answered need not read on: then the answer says all.
        if stream.send_data(Bytes::copy_from_slice(body)).await.is_ok() {
            let _ = stream.finish().await;
        }
        let head = stream.recv_response().await?;
        let mut body = Vec::new();
        while let Some(mut piece) = stream.recv_data().await? {
            body.extend_from_slice(&piece.copy_to_bytes(piece.remaining()));
        }
        let text = |value: &http::HeaderValue| value.to_str().expect("ASCII").to_owned();
        let headers = head.headers().iter().map(|(name, value)| (name.to_string(), text(value)));
        Ok(Answer { status: head.status().as_u16(), headers: headers.collect(), body })
    }

    /// Begins a request, and sends a part of its body. What is given back keeps it open.
    ///
    /// # Panics
    /// Where the connection is gone.
    pub async fn begin(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        part: &[u8],
    ) -> impl Send + use<> {
        let mut request = http::Request::post(format!("https://localhost{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a proper request");
        let mut stream = self.sender.clone().send_request(request).await.expect("it is open");
        stream.send_data(Bytes::copy_from_slice(part)).await.expect("it is open");
        stream
    }

    /// How the server ended the connection.
    pub async fn end(self) -> ConnectionError {
        drop(self.sender);
        timeout(PATIENCE, self.end).await.expect("it ends").expect("the driver goes on till then")
    }
}
