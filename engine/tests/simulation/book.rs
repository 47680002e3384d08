//! What every request is, where its items were seen, and what its client was told: the oracle of a
//! day.

use std::collections::{HashMap, HashSet};

use forebay::config::plan::{Ack, Plan};
use forebay_codec::compress::Compressor;
use forebay_codec::mend::InvalidUtf8;
use forebay_codec::signal::Signal;
use forebay_exporters::batch::Outcome;
use forebay_net::ring::fake::Dice;

use crate::payload::{self, ItemId};
use crate::talk::{Got, Made, Oracle};

/// The listener that takes gRPC; the other takes HTTP.
pub(crate) const GRPC: usize = 0;

pub(crate) struct Book {
    /// By number, from 1 on.
    requests: Vec<Entry>,
    /// By signal: the destinations that an OK waits for.
    waits_for: [Vec<u16>; 4],
    /// The items of each batch that a destination saw.
    batches: HashMap<u64, Vec<ItemId>>,
    seen: HashSet<(u16, ItemId)>,
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
    signal: Signal,
    items: u64,
    /// So many of its first items are refused: they hold what is not UTF-8.
    left_out: u64,
    flaw: Option<Flaw>,
    is_ok: Option<bool>,
    /// A destination saw some of it.
    is_taken: bool,
    /// By destination.
    delivered_items: HashMap<u16, u64>,
    is_cut_by: HashSet<u16>,
    failed_at: HashSet<u16>,
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
        let waits_for = Signal::ALL.map(|signal| {
            let waits = plan.pipelines.iter().filter(|pipeline| pipeline.signal == signal);
            let waits = waits.filter(|pipeline| pipeline.ack == Ack::Delivered);
            waits.flat_map(|pipeline| pipeline.destinations.iter().copied()).collect()
        });
        Book {
            requests: Vec::new(),
            waits_for,
            batches: HashMap::new(),
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
    pub(crate) fn see(&mut self, destination: u16, batch: u64, items: Vec<ItemId>) {
        for item in &items {
            assert!(self.seen.insert((destination, *item)), "{item:?} comes twice");
            let entry = &mut self.requests[item.request as usize - 1];
            entry.is_taken = true;
            let is_refused = entry.is_ok == Some(false);
            let waits = &self.waits_for[entry.signal.index()];
            assert!(!is_refused || !waits.is_empty(), "{item:?} was refused, and taken");
            let is_theirs = (entry.left_out..entry.items).contains(&item.nth);
            assert!(is_theirs && entry.flaw.is_none(), "{item:?} is not to be here");
        }
        let known = self.batches.entry(batch).or_insert_with(|| items.clone());
        assert_eq!(*known, items, "a batch is the same everywhere");
    }

    pub(crate) fn settle(&mut self, destination: u16, batch: u64, outcome: &Outcome) {
        let items = self.batches[&batch].clone();
        for item in &items {
            let entry = &mut self.requests[item.request as usize - 1];
            *entry.delivered_items.entry(destination).or_default() += 1;
            match outcome {
                Outcome::Delivered { rejected_items: 0 } => {}
                Outcome::Delivered { .. } => _ = entry.is_cut_by.insert(destination),
                _ => _ = entry.failed_at.insert(destination),
            }
        }
    }

    /// How many items of those whose client heard OK no destination in `all` saw, and all that
    /// any saw, each once for each destination.
    pub(crate) fn missing_items(&self, destinations: impl Fn(Signal) -> Vec<u16>) -> u64 {
        let mut missing = 0;
        for (place, entry) in self.requests.iter().enumerate() {
            if entry.is_ok != Some(true) {
                continue;
            }
            for destination in destinations(entry.signal) {
                let item = |nth| ItemId { request: place as u64 + 1, nth };
                let is_missing = |nth: &u64| !self.seen.contains(&(destination, item(*nth)));
                missing += (entry.left_out..entry.items).filter(is_missing).count() as u64;
            }
        }
        missing
    }

    pub(crate) fn seen_at(&self, destination: u16) -> u64 {
        self.seen.iter().filter(|(seen_at, _)| *seen_at == destination).count() as u64
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
        let mut body = match is_json {
            true => payload::json(signal, id, items, padding),
            false => payload::proto(signal, id, items, padding, is_spoilt),
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
        let body = if is_grpc { payload::framed(&body, zipped) } else { body };
        self.requests.push(Entry {
            client,
            listener,
            signal,
            items,
            left_out: u64::from(is_left_out),
            flaw,
            is_ok: None,
            is_taken: false,
            delivered_items: HashMap::new(),
            is_cut_by: HashSet::new(),
            failed_at: HashSet::new(),
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
            let batch = named.split('-').next().and_then(|number| number.parse().ok());
            let items = &self.batches[&batch.expect("a batch's number")];
            let has_part = items.iter().any(|item| item.request == id);
            assert!(has_part, "{id} is told of a batch that it is not in: {text}");
        }
        let waits_for = &self.waits_for[entry.signal.index()];
        if !is_ok {
            assert!(!entry.is_taken || !waits_for.is_empty(), "{id} was taken: {got:?}");
            return;
        }
        let empty = if is_grpc { &[0; 5][..] } else { b"{}" };
        let is_told = !got.body.is_empty() && got.body != empty;
        assert!(entry.left_out == 0 || is_told, "{id} was not told what is left out: {got:?}");
        for destination in waits_for {
            let delivered = entry.delivered_items.get(destination).copied().unwrap_or(0);
            assert_eq!(delivered, entry.items - entry.left_out, "{id} at {destination}: {got:?}");
            assert!(!entry.failed_at.contains(destination), "{id} failed at {destination}");
            let is_cut = entry.is_cut_by.contains(destination);
            assert!(!is_cut || is_told, "{id} lost items and was not told: {got:?}");
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
