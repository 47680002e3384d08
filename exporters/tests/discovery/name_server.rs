//! A name server that answers, by UDP and TCP, what a test has told it, and remembers when.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{SOA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Records and their TTL.
    Records(u32, Vec<RData>),
    /// There is no such name; known for so many seconds.
    NoName(u32),
    /// The name is there, such records of it are not.
    NoData(u32),
    Fails,
    /// Nothing comes.
    Silent,
    /// By UDP: too long. By TCP: the records.
    Truncated(u32, Vec<RData>),
}

type Zone = HashMap<(String, RecordType), Reply>;

pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    zone: Mutex<Zone>,
    asked: Mutex<Vec<Asked>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) kind: RecordType,
    pub(crate) by_tcp: bool,
    pub(crate) at: Instant,
}

impl NameServer {
    pub(crate) fn start() -> NameServer {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (by_udp, by_tcp) = (Arc::clone(&shared), Arc::clone(&shared));
        std::thread::spawn(move || serve_udp(&udp, &by_udp));
        std::thread::spawn(move || serve_tcp(&tcp, &by_tcp));
        NameServer { address, shared }
    }

    /// What to answer from now on; names that nobody has set do not exist.
    pub(crate) fn set(&self, name: &str, kind: RecordType, reply: Reply) {
        self.shared.zone.lock().unwrap().insert((name.to_owned(), kind), reply);
    }

    pub(crate) fn set_addresses(&self, name: &str, ttl: u32, addresses: &[&str]) {
        let records = |is_v4: bool| {
            let ips = addresses.iter().map(|ip| ip.parse::<std::net::IpAddr>().unwrap());
            let records: Vec<RData> =
                ips.filter(|ip| ip.is_ipv4() == is_v4).map(RData::from).collect();
            if records.is_empty() { Reply::NoData(ttl) } else { Reply::Records(ttl, records) }
        };
        self.set(name, RecordType::A, records(true));
        self.set(name, RecordType::AAAA, records(false));
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }
}

pub(crate) fn srv(priority: u16, weight: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(target).unwrap()))
}

fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}

fn serve_udp(socket: &UdpSocket, shared: &Shared) {
    let mut buffer = [0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        if let Some(answer) = answer(&buffer[..length], shared, false) {
            let _ = socket.send_to(&answer, peer);
        }
    }
}

fn serve_tcp(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let (stream, shared) = (stream.unwrap(), Arc::clone(shared));
        std::thread::spawn(move || serve_stream(stream, &shared));
    }
}

fn serve_stream(mut stream: TcpStream, shared: &Shared) {
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut query).is_err() {
            return;
        }
        if let Some(answer) = answer(&query, shared, true) {
            let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
            let _ = stream.write_all(&[&length[..], &answer].concat());
        }
    }
}

fn answer(query: &[u8], shared: &Shared, by_tcp: bool) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(query).unwrap();
    let question = message.queries[0].clone();
    let (name, kind) = (question.name().to_ascii(), question.query_type());
    let asked = Asked { name: name.clone(), kind, by_tcp, at: Instant::now() };
    shared.asked.lock().unwrap().push(asked);
    let reply = shared.zone.lock().unwrap().get(&(name, kind)).cloned();
    message.metadata.message_type = MessageType::Response;
    message.metadata.authoritative = true;
    message.edns = None;
    match reply.unwrap_or(Reply::NoName(30)) {
        Reply::Records(ttl, records) => add(&mut message, ttl, records),
        Reply::Truncated(ttl, records) if by_tcp => add(&mut message, ttl, records),
        Reply::Truncated(..) => message.metadata.truncation = true,
        Reply::NoData(ttl) => add_soa(&mut message, ttl),
        Reply::NoName(ttl) => {
            message.metadata.response_code = ResponseCode::NXDomain;
            add_soa(&mut message, ttl);
        }
        Reply::Fails => message.metadata.response_code = ResponseCode::ServFail,
        Reply::Silent => return None,
    }
    Some(message.to_vec().unwrap())
}

fn add(message: &mut Message, ttl: u32, records: Vec<RData>) {
    let name = message.queries[0].name().clone();
    for record in records {
        message.add_answer(Record::from_rdata(name.clone(), ttl, record));
    }
}

/// RFC 2308: how long an absence is known.
fn add_soa(message: &mut Message, ttl: u32) {
    let zone = Name::from_ascii("test.").unwrap();
    let soa = SOA::new(zone.clone(), zone.clone(), 1, 1, 1, 1, ttl);
    message.add_authority(Record::from_rdata(zone, ttl, RData::SOA(soa)));
}
