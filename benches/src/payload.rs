//! Requests to send: made from a seed before the load begins, different from each other.
//!
//! Names, routes and resources come from small sets, as in a real service; ids, times, addresses
//! and values differ from item to item. So compression finds what it finds in real telemetry: gzip
//! makes 100 spans five to six times smaller, where one repeated request shrinks a hundredfold.
//!
//! Uncompressed requests get fresh numbers in place each time they are sent. A compressed one
//! can't be touched: its numbers stay, and it is counted how often it was sent.

mod logs;
mod metrics;
mod spans;

use bytes::Bytes;
use fastrand::Rng;
use forebay_codec::compress::{Compressor, Encoding};
use forebay_codec::schema::{I64, LEN, VARINT};
use forebay_codec::signal::Signal;
use forebay_codec::wire::{put_bytes, put_number, put_tag, put_varint};

use crate::items::{ID_BYTES, Id, each_id};

/// So many bytes of requests are made, unless that is too few or too many requests.
const POOL_BYTES: usize = 6 << 20;
const POOL_REQUESTS_MIN: usize = 8;
const POOL_REQUESTS_MAX: usize = 512;
/// A day in late 2026: times in requests are near it, and do not depend on the clock.
const EPOCH_NANOS: u64 = 1_795_000_000_000_000_000;

/// What the requests look like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub signal: Signal,
    pub items: usize,
    /// Attributes of each item.
    pub attributes: usize,
    pub encoding: Encoding,
    pub seed: u64,
}

/// Requests of one load thread.
pub struct Pool {
    pub requests: Vec<Prepared>,
    pub items: u64,
    /// Whether numbers stay, so that items arrive as often as their request was sent.
    pub is_repeating: bool,
    next: usize,
}

/// One request: the message as it goes over the wire, without any framing.
pub struct Prepared {
    pub body: Vec<u8>,
    /// Where its numbers stand; none in a compressed request.
    places: Vec<u32>,
    /// The number of its first item, where numbers stay.
    pub first: u64,
}

impl Pool {
    /// Makes the requests of load thread `source`.
    pub fn make(shape: &Shape, run: u8, source: u8) -> Result<Pool, String> {
        let mut random = Rng::with_seed(shape.seed.wrapping_add(u64::from(source) << 32));
        let mut compressor = Compressor::new();
        let mut requests: Vec<Prepared> = Vec::new();
        let mut bytes = 0;
        while requests.len() < POOL_REQUESTS_MIN
            || (bytes < POOL_BYTES && requests.len() < POOL_REQUESTS_MAX)
        {
            let first = (requests.len() * shape.items) as u64;
            let mut body = request(shape, &mut random);
            bytes += body.len();
            let mut places = places_of(shape, &body)?;
            number(&mut body, &places, Id { run, source, sequence: first });
            if shape.encoding != Encoding::Identity {
                places.clear();
                body = compressor
                    .compress(shape.encoding, None, &[Bytes::from(body)])
                    .map_err(|error| format!("the load can't compress its requests: {error:?}"))?;
            }
            requests.push(Prepared { body, places, first });
        }
        let is_repeating = shape.encoding != Encoding::Identity;
        Ok(Pool { requests, items: shape.items as u64, is_repeating, next: 0 })
    }

    pub fn mean_bytes(&self) -> f64 {
        let bytes: usize = self.requests.iter().map(|request| request.body.len()).sum();
        bytes as f64 / self.requests.len() as f64
    }

    /// The index of the next request to send, numbered from `id` on where that is possible.
    pub fn next(&mut self, id: Id) -> usize {
        let index = self.next;
        self.next = (index + 1) % self.requests.len();
        let request = &mut self.requests[index];
        number(&mut request.body, &request.places, id);
        index
    }
}

fn number(body: &mut [u8], places: &[u32], first: Id) {
    let first = first.to_bits();
    for (nth, place) in places.iter().enumerate() {
        let place = *place as usize;
        body[place..place + ID_BYTES].copy_from_slice(&(first + nth as u64).to_le_bytes());
    }
}

fn places_of(shape: &Shape, body: &[u8]) -> Result<Vec<u32>, String> {
    let mut places = Vec::with_capacity(shape.items);
    each_id(shape.signal, body, |place| places.extend(place.map(|place| place.start as u32)));
    match places.len() == shape.items {
        true => Ok(places),
        false => Err(format!("a request of {} items shows {} numbers", shape.items, places.len())),
    }
}

fn request(shape: &Shape, random: &mut Rng) -> Vec<u8> {
    let mut group = Vec::new();
    put_bytes(&mut group, 1, &resource(random));
    // One SDK's batch: one resource, a few scopes.
    let scopes = shape.items.min(random.usize(1..4));
    let mut left = shape.items;
    for nth in 0..scopes {
        let items = if nth + 1 == scopes { left } else { left / (scopes - nth) };
        left -= items;
        let mut scope = Vec::new();
        put_bytes(&mut scope, 1, &instrumentation(random));
        match shape.signal {
            Signal::Metrics => metrics::put(&mut scope, items, shape.attributes, random),
            Signal::Logs => logs::put(&mut scope, items, shape.attributes, random),
            _ => spans::put(&mut scope, items, shape.attributes, random),
        }
        put_bytes(&mut group, 2, &scope);
    }
    let mut request = Vec::new();
    put_bytes(&mut request, 1, &group);
    request
}

fn resource(random: &mut Rng) -> Vec<u8> {
    let service = pick(random, &["checkout", "cart", "catalogue", "payment", "shipping", "search"]);
    let node = random.u8(0..40);
    let mut resource = Vec::new();
    put_text(&mut resource, 1, "service.name", service);
    put_text(&mut resource, 1, "service.version", pick(random, &["4.1.0", "4.1.1", "4.2.0"]));
    put_text(&mut resource, 1, "service.instance.id", &uuid(random));
    put_text(&mut resource, 1, "host.name", &format!("node-{node:02}.eu-west.example.net"));
    put_text(&mut resource, 1, "telemetry.sdk.name", "opentelemetry");
    put_text(&mut resource, 1, "telemetry.sdk.language", pick(random, &["go", "java", "python"]));
    resource
}

fn instrumentation(random: &mut Rng) -> Vec<u8> {
    let mut scope = Vec::new();
    put_bytes(
        &mut scope,
        1,
        pick(random, &["http.server", "http.client", "db", "queue"]).as_bytes(),
    );
    put_bytes(&mut scope, 2, b"0.58.0");
    scope
}

/// The first `count` of the attributes that HTTP instrumentations write; more are numbered.
fn put_attributes(out: &mut Vec<u8>, field: u32, count: usize, random: &mut Rng) {
    for nth in 0..count {
        match nth {
            0 => put_text(out, field, "http.request.method", pick(random, &["GET", "GET", "POST"])),
            1 => put_int(out, field, "http.response.status_code", status(random)),
            2 => put_text(out, field, "url.path", &path(random)),
            3 => put_text(out, field, "http.route", pick(random, &ROUTES)),
            4 => {
                let (c, d) = (random.u8(..), random.u8(1..255));
                put_text(out, field, "client.address", &format!("10.{}.{c}.{d}", random.u8(0..4)));
            }
            5 => put_text(out, field, "enduser.id", &format!("{:08x}", random.u32(..))),
            6 => put_int(out, field, "network.peer.port", u64::from(random.u16(32768..))),
            7 => put_text(out, field, "user_agent.original", pick(random, &AGENTS)),
            _ => put_int(out, field, &format!("app.value_{nth}"), random.u64(..1 << 20)),
        }
    }
}

const ROUTES: [&str; 5] =
    ["/api/orders/{id}", "/api/cart", "/api/items/{id}", "/api/search", "/health"];
const AGENTS: [&str; 3] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_7) AppleWebKit/605.1 Safari/605.1",
    "shop-android/8.4.1 (Android 15; Pixel 9) okhttp/4.12.0",
];

fn status(random: &mut Rng) -> u64 {
    match random.u8(..) {
        0..2 => 500,
        2..8 => 404,
        8..20 => 201,
        _ => 200,
    }
}

fn path(random: &mut Rng) -> String {
    let kind = pick(random, &["orders", "items", "cart"]);
    format!("/api/{kind}/{}", random.u32(..10_000_000))
}

fn uuid(random: &mut Rng) -> String {
    let (a, b) = (random.u32(..), random.u64(..1 << 48));
    format!(
        "{a:08x}-{:04x}-4{:03x}-a{:03x}-{b:012x}",
        random.u16(..),
        random.u16(..4096),
        random.u16(..4096)
    )
}

fn pick<'a>(random: &mut Rng, from: &[&'a str]) -> &'a str {
    from[random.usize(..from.len())]
}

fn put_text(out: &mut Vec<u8>, field: u32, key: &str, text: &str) {
    let mut value = Vec::with_capacity(text.len() + 2);
    put_bytes(&mut value, 1, text.as_bytes());
    put_key_value(out, field, key, &value);
}

fn put_int(out: &mut Vec<u8>, field: u32, key: &str, number: u64) {
    let mut value = Vec::with_capacity(11);
    put_tag(&mut value, 3, VARINT);
    put_varint(&mut value, number);
    put_key_value(out, field, key, &value);
}

fn put_key_value(out: &mut Vec<u8>, field: u32, key: &str, value: &[u8]) {
    let mut pair = Vec::with_capacity(key.len() + value.len() + 4);
    put_bytes(&mut pair, 1, key.as_bytes());
    put_bytes(&mut pair, 2, value);
    put_bytes(out, field, &pair);
}

fn put_fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    put_tag(out, field, I64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Room for the number that is written in later.
fn put_id_bytes(out: &mut Vec<u8>, field: u32) {
    put_tag(out, field, LEN);
    put_varint(out, ID_BYTES as u64);
    out.extend_from_slice(&[0; ID_BYTES]);
}

fn put_enum(out: &mut Vec<u8>, field: u32, value: u64) {
    put_number(out, field, value);
}

#[cfg(test)]
mod tests;
