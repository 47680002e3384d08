//! What every request is, who sent it, and what became of it: the oracle of a day.

use std::collections::{HashMap, HashSet};

use forebay_net::request::Request;
use forebay_net::ring::Key;
use forebay_net::ring::fake::Dice;

use crate::talk::{Got, Made, Oracle};

const PATH: &str = "/r/";

/// All requests of a day, by their numbers.
#[derive(Default)]
pub(crate) struct Book {
    entries: HashMap<u64, Entry>,
    /// Whose requests came over a connection.
    senders: HashMap<Key, usize>,
    /// Clients that spoilt what they were saying: nobody knows how that will be read.
    babblers: HashSet<usize>,
}

#[derive(Debug)]
struct Entry {
    client: usize,
    body_bytes: usize,
    handed_out: bool,
    answered: bool,
}

impl Book {
    /// The server handed a request out. Returns its number.
    pub(crate) fn hand_out(&mut self, request: &Request) -> u64 {
        let sender = self.senders.get(&request.id.key);
        if sender.is_some_and(|sender| self.babblers.contains(sender)) {
            return 0;
        }
        let id = id_in(&request.head.path).expect("a path that a client sent");
        let entry = self.entries.get_mut(&id).expect("a request that a client made");
        assert!(!entry.handed_out, "request {id} is handed out again");
        entry.handed_out = true;
        let sender = *self.senders.entry(request.id.key).or_insert(entry.client);
        assert_eq!(sender, entry.client, "one connection, two clients");
        let is_whole = request.body == pattern(id, entry.body_bytes);
        assert!(is_whole || self.babblers.contains(&sender), "the body of request {id}");
        id
    }

    pub(crate) fn count(&self, is: impl Fn(bool, bool) -> bool) -> u64 {
        self.entries.values().filter(|entry| is(entry.handed_out, entry.answered)).count() as u64
    }
}

impl Oracle for Book {
    fn make(&mut self, client: usize, _: usize, dice: &mut Dice) -> Made {
        let id = self.entries.len() as u64 + 1;
        let body_bytes = match dice.below(30) {
            0 => 16_000 + dice.below(50_000) as usize,
            1..5 => 0,
            5..10 => dice.below(4_000) as usize,
            _ => dice.below(200) as usize,
        };
        let entry = Entry { client, body_bytes, handed_out: false, answered: false };
        self.entries.insert(id, entry);
        let path = format!("{PATH}{id}");
        Made { id, path, headers: Vec::new(), body: pattern(id, body_bytes) }
    }

    fn answer(&mut self, id: u64, got: &Got) {
        if let Some(said) = got.field("x-id") {
            assert_eq!(said, id.to_string(), "the answer to another request");
        }
        let entry = self.entries.get_mut(&id).expect("a request that a client made");
        assert!(!entry.answered, "request {id} is answered again");
        entry.answered = true;
        assert_eq!(got.status == 200, entry.handed_out, "{id}: {got:?}");
        if got.status == 200 {
            assert!(got.field("x-id").is_some(), "{id}: {got:?}");
            assert_eq!(got.body, pattern(id, got.body.len()), "the answer to {id}");
        }
    }

    fn spoil(&mut self, client: usize) {
        self.babblers.insert(client);
    }

    /// What was handed out is answered.
    fn is_owed(&self, id: u64) -> bool {
        self.entries[&id].handed_out
    }
}

pub(crate) fn id_in(path: &str) -> Option<u64> {
    path.strip_prefix(PATH)?.parse().ok()
}

/// Bytes that are `id`'s alone, and of which each has its place.
pub(crate) fn pattern(id: u64, bytes: usize) -> Vec<u8> {
    let byte = |place: usize| (id as usize * 31 + place * 7 + place / 251) as u8;
    (0..bytes).map(byte).collect()
}
