//! What every request is, where its items were seen, and what its client was told: the oracle of a
//! day.

use std::collections::{HashMap, HashSet};

use forebay::config::plan::Plan;
use forebay_codec::compress::Compressor;
use forebay_codec::mend::InvalidUtf8;
use forebay_codec::signal::Signal;
use forebay_exporters::batch::Outcome;
use forebay_net::ring::fake::Dice;

use crate::payload::{self, ItemId};
use crate::shape::{Shape, Traits};
use crate::talk::{Got, Made, Oracle};

/// The listener that takes gRPC; the other takes HTTP.
pub(crate) const GRPC: usize = 0;

pub(crate) struct Book {
    /// By number, from 1 on.
    requests: Vec<Entry>,
    shape: Shape,
    /// The items of each batch that a destination saw, and the way it was on there.
    batches: HashMap<u64, Vec<ItemId>>,
    ways: HashMap<(u64, u16), usize>,
    /// By way: items that some destination has, or had when they ended.
    seen: HashSet<(usize, ItemId)>,
    babblers: HashSet<usize>,
    compressor: Compressor,
    invalid_utf8: InvalidUtf8,
    /// What is not delivered by now is dropped, and nobody is owed an answer any more.
    pub(crate) is_abandoned: bool,
    pub(crate) oks: u64,
    pub(crate) refusals: u64,
    pub(crate) failures: u64,
    /// Of the failures, those for want of time; of the refusals, those for want of memory.
    pub(crate) late: u64,
    pub(crate) out_of_memory: u64,
}

struct Entry {
    client: usize,
    listener: usize,
    items: u64,
    /// So many of its first items are refused: they hold what is not UTF-8.
    left_out: u64,
    flaw: Option<Flaw>,
    is_ok: Option<bool>,
    /// A destination saw some of it.
    is_taken: bool,
    /// Items from here on are of the red team.
    red_from: u64,
    /// Of its items, and of those of the red team.
    ways: [Vec<usize>; 2],
    is_awaited: bool,
    /// By way: items that ended.
    ended_items: HashMap<usize, u64>,
    /// Ways on which some of it was rejected, or refused and kept; or was lost.
    is_told_of: HashSet<usize>,
    failed_on: HashSet<usize>,
}

impl Entry {
    /// The ways that an item has to go.
    fn ways(&self, nth: u64) -> &[usize] {
        &self.ways[usize::from(nth >= self.red_from)]
    }
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    Garbage,
    Text,
    Path,
    ContentType,
}

impl Book {
    pub(crate) fn new(plan: &Plan) -> Book {
        Book {
            requests: Vec::new(),
            shape: Shape::new(plan),
            batches: HashMap::new(),
            ways: HashMap::new(),
            seen: HashSet::new(),
            babblers: HashSet::new(),
            compressor: Compressor::new(),
            invalid_utf8: plan.engine.invalid_utf8,
            is_abandoned: false,
            oks: 0,
            refusals: 0,
            failures: 0,
            late: 0,
            out_of_memory: 0,
        }
    }

    /// A batch arrived at a destination.
    pub(crate) fn see(&mut self, destination: u16, batch: u64, bytes: &[u8], items: Vec<ItemId>) {
        let way = self.shape.way_of(destination, bytes);
        self.ways.insert((batch, destination), way);
        for item in items.iter().filter(is_legible) {
            assert!(self.seen.insert((way, *item)), "{item:?} comes twice");
            let entry = &mut self.requests[item.request as usize - 1];
            entry.is_taken = true;
            let is_refused = entry.is_ok == Some(false);
            assert!(!is_refused || entry.is_awaited, "{item:?} was refused, and taken");
            let is_theirs = (entry.left_out..entry.items).contains(&item.nth);
            assert!(is_theirs && entry.flaw.is_none(), "{item:?} is not to be here");
            let is_mirror = self.shape.ways[way].is_mirror;
            assert!(is_mirror || entry.ways(item.nth).contains(&way), "{item:?} went astray");
        }
        let known = self.batches.entry(batch).or_insert_with(|| items.clone());
        assert_eq!(*known, items, "a batch is the same everywhere");
    }

    /// Items of a batch go on from here: to another destination, or as dead letters.
    pub(crate) fn give_back(&mut self, destination: u16, batch: u64, items: &[ItemId], kept: bool) {
        let way = self.ways[&(batch, destination)];
        for item in items.iter().filter(is_legible) {
            assert!(self.seen.remove(&(way, *item)), "{item:?} was not here");
            let entry = &mut self.requests[item.request as usize - 1];
            if kept {
                entry.is_told_of.insert(way);
            }
        }
    }

    /// These items of a batch, and no others, ended here.
    pub(crate) fn settle(
        &mut self,
        destination: u16,
        batch: u64,
        items: &[ItemId],
        outcome: &Outcome,
    ) {
        let way = self.ways[&(batch, destination)];
        for item in items.iter().filter(is_legible) {
            let entry = &mut self.requests[item.request as usize - 1];
            *entry.ended_items.entry(way).or_default() += 1;
            match outcome {
                Outcome::Delivered { rejected_items: 0 } => {}
                Outcome::Delivered { .. } => _ = entry.is_told_of.insert(way),
                _ => _ = entry.failed_on.insert(way),
            }
        }
    }

    /// How many items of those whose client heard OK nobody has, or had when they ended: each once
    /// for each way that it had to go.
    pub(crate) fn missing_items(&self) -> u64 {
        let mut missing = 0;
        for (place, entry) in self.requests.iter().enumerate() {
            if entry.is_ok != Some(true) {
                continue;
            }
            for nth in entry.left_out..entry.items {
                let item = ItemId { request: place as u64 + 1, nth };
                missing += entry
                    .ways(nth)
                    .iter()
                    .filter(|way| !self.seen.contains(&(**way, item)))
                    .count();
            }
        }
        missing as u64
    }

    fn draw_flaw(dice: &mut Dice) -> Option<Flaw> {
        match dice.below(30) {
            0 => Some(Flaw::Garbage),
            1 => Some(Flaw::Path),
            2 => Some(Flaw::ContentType),
            _ => None,
        }
    }
}

fn is_legible(item: &&ItemId) -> bool {
    item.request > 0
}

impl Oracle for Book {
    fn make(&mut self, client: usize, listener: usize, dice: &mut Dice) -> Made {
        let id = self.requests.len() as u64 + 1;
        let signal = if dice.of_1000(600) { Signal::Traces } else { Signal::Logs };
        let items = if dice.of_1000(100) { 1 + dice.below(80) } else { 1 + dice.below(6) };
        let padding = match dice.below(40) {
            // Long enough to be received straight into its own buffer.
            0 => (16_000 + dice.below(30_000) as usize) / items as usize,
            1..3 => dice.below(3_000) as usize / items as usize,
            _ => dice.below(40) as usize,
        };
        let mut flaw = Book::draw_flaw(dice);
        let is_grpc = listener == GRPC;
        let is_json = !is_grpc && dice.of_1000(400);
        let is_spoilt = !is_json && flaw.is_none() && dice.of_1000(50);
        if is_spoilt && self.invalid_utf8 == InvalidUtf8::RefuseRequest {
            flaw = Some(Flaw::Text);
        }
        let is_left_out = is_spoilt && self.invalid_utf8 == InvalidUtf8::RefuseItem;
        let red_from = match is_json || dice.of_1000(500) {
            true => items,
            false => dice.below(items + 1),
        };
        let mut body = match is_json {
            true => payload::json(signal, id, items, padding),
            false => payload::proto(signal, id, items, padding, is_spoilt, red_from),
        };
        if flaw == Some(Flaw::Garbage) {
            body.truncate(body.len() / 2);
        }
        let zipped = dice.of_1000(100);
        if zipped {
            body = payload::gzip(&mut self.compressor, body);
        }
        let path = match (is_grpc, signal) {
            _ if flaw == Some(Flaw::Path) => "/v1/nothing",
            (true, Signal::Traces) => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            (true, _) => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            (false, Signal::Traces) => "/v1/traces",
            (false, _) => "/v1/logs",
        };
        let content_type = match (is_grpc, is_json) {
            _ if flaw == Some(Flaw::ContentType) => "image/png",
            (true, _) => "application/grpc",
            (false, true) => "application/json",
            (false, false) => "application/x-protobuf",
        };
        let mut headers = vec![("content-type", content_type)];
        match is_grpc {
            true if zipped => headers.push(("grpc-encoding", "gzip")),
            false if zipped => headers.push(("content-encoding", "gzip")),
            _ => {}
        }
        if is_grpc && dice.of_1000(100) {
            headers.push(("grpc-timeout", "3m"));
        }
        let tenant = dice.of_1000(300).then(|| ["acme", "other"][dice.below(2) as usize]);
        headers.extend(tenant.map(|tenant| ("x-tenant", tenant)));
        let body = if is_grpc { payload::framed(&body, zipped) } else { body };
        let ways =
            [false, true].map(|is_red| self.shape.ways_for(&Traits { signal, tenant, is_red }));
        let has_some = [red_from > 0, red_from < items];
        let met = ways.iter().zip(has_some).filter(|(_, has_some)| *has_some);
        let is_awaited = met.flat_map(|(ways, _)| ways).any(|way| self.shape.ways[*way].is_awaited);
        self.requests.push(Entry {
            client,
            listener,
            items,
            left_out: u64::from(is_left_out),
            flaw,
            is_ok: None,
            is_taken: false,
            red_from,
            is_awaited,
            ways,
            ended_items: HashMap::new(),
            is_told_of: HashSet::new(),
            failed_on: HashSet::new(),
        });
        Made { id, path: path.to_owned(), headers, body }
    }

    fn answer(&mut self, id: u64, got: &Got) {
        let entry = &mut self.requests[id as usize - 1];
        let is_grpc = entry.listener == GRPC && entry.flaw != Some(Flaw::ContentType);
        let code = got.field("grpc-status");
        let is_ok = got.status == 200 && (!is_grpc || code == Some("0"));
        assert!(entry.is_ok.is_none(), "{id} is answered again: {got:?}");
        entry.is_ok = Some(is_ok);
        self.oks += u64::from(is_ok);
        self.refusals += u64::from(!is_ok && !entry.is_taken);
        self.failures += u64::from(!is_ok && entry.is_taken);
        let is_unserved = if is_grpc { code == Some("12") } else { got.status == 404 };
        let is_bad = if is_grpc { code == Some("3") } else { got.status == 400 };
        // A destination may answer the same.
        let is_their_own = !entry.is_taken;
        match entry.flaw {
            Some(Flaw::Path) => assert!(is_unserved, "{id}: {got:?}"),
            Some(Flaw::ContentType) => assert_eq!(got.status, 415, "{id}: {got:?}"),
            Some(Flaw::Garbage | Flaw::Text) => assert!(!is_ok, "{id}: {got:?}"),
            None => assert!(!(is_unserved || is_bad) || !is_their_own, "{id}: {got:?}"),
        }
        let text = format!("{:?} {}", got.field("grpc-message"), got.body.escape_ascii());
        self.late += u64::from(text.contains("not delivered within"));
        self.out_of_memory += u64::from(text.contains("memory budget"));
        if let Some((_, named)) = text.split_once("batch-") {
            let mut numbers = named.split(|letter: char| !letter.is_ascii_digit());
            let mut number = || numbers.next().and_then(|number| number.parse().ok());
            let (batch, at) = (number().expect("a batch's number"), number().expect("where"));
            let has_part = self.batches[&batch].iter().any(|item| item.request == id);
            // Of a batch that travels in parts everybody hears what became of each part; and what
            // is left of a group whose items were refused travels, too.
            let may_be_apart = !self.shape.is_plain(at as u16) || entry.left_out > 0;
            assert!(has_part || may_be_apart, "{id} is told of a batch without it: {text}");
        }
        if !is_ok {
            assert!(!entry.is_taken || entry.is_awaited, "{id} was taken: {got:?}");
            return;
        }
        let empty = if is_grpc { &[0; 5][..] } else { b"{}" };
        let is_told = !got.body.is_empty() && got.body != empty;
        assert!(entry.left_out == 0 || is_told, "{id} was not told what is left out: {got:?}");
        let mut due: HashMap<usize, u64> = HashMap::new();
        for nth in entry.left_out..entry.items {
            for way in entry.ways(nth) {
                *due.entry(*way).or_default() += 1;
            }
        }
        due.retain(|way, _| self.shape.ways[*way].is_awaited);
        for (way, items) in due {
            let ended = entry.ended_items.get(&way).copied().unwrap_or(0);
            assert_eq!(ended, items, "{id} on way {way}: {got:?}");
            assert!(!entry.failed_on.contains(&way), "{id} failed on way {way}");
            let is_owed_a_word = entry.is_told_of.contains(&way);
            assert!(!is_owed_a_word || is_told, "{id} lost items and was not told: {got:?}");
        }
    }

    fn spoil(&mut self, client: usize) {
        self.babblers.insert(client);
    }

    fn is_owed(&self, id: u64) -> bool {
        let entry = &self.requests[id as usize - 1];
        entry.is_taken && !self.is_abandoned && !self.babblers.contains(&entry.client)
    }
}
