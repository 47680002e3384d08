//! Requests become batches: spliced while they wait, sealed by items, bytes or age.
//!
//! One [`Batcher`] per pipeline and receiver core. It never drops an item: what goes in comes out
//! in a [`Sealed`], in order. Small requests that share a batch are copied together, others stay
//! where they are.
//!
//! Always
//! - A sealed batch keeps to `items_max` and `bytes_max`, unless a single item is larger.
//! - The shares of the budget that went in come out with the batches, to the byte; a request that
//!   is in several batches gives its bytes back with the last of them, as it frees them.

use std::rc::Rc;

use forebay_codec::check::Checked;
use forebay_codec::signal::Signal;
use forebay_codec::splice::{Chain, Gatherer};
use forebay_codec::split::split;
use forebay_net::request::Nanos;

use crate::acks::TicketId;
use crate::config::plan;

/// What a request holds of the budget, in bytes.
#[derive(Clone, Debug)]
pub enum Share {
    /// It goes into one batch.
    Own(usize),
    /// It goes into several: whoever drops the last reference gives the bytes back.
    Joint(Rc<usize>),
}

/// A batch that takes no more.
#[derive(Debug)]
pub struct Sealed {
    pub chain: Chain,
    pub held: Held,
    /// Who waits for it; a ticket stands here once for each part it has in the batch.
    pub tickets: Vec<TicketId>,
    /// Requests that have a part in it.
    pub requests: usize,
}

/// What a batch holds of the budget.
#[derive(Debug, Default)]
pub struct Held {
    own: usize,
    joint: Vec<Rc<usize>>,
    /// See [`Held::portion_bytes`].
    portion: usize,
}

impl Held {
    /// One of so many pieces of a request.
    fn add(&mut self, share: Share, pieces: usize) {
        let whole = match &share {
            Share::Own(bytes) => *bytes,
            Share::Joint(bytes) => **bytes,
        };
        self.portion += whole.div_ceil(pieces);
        match share {
            Share::Own(bytes) => self.own += bytes,
            Share::Joint(share) => self.joint.push(share),
        }
    }

    /// The batch has grown by so much, taken from the budget.
    pub fn grow(&mut self, bytes: usize) {
        self.own += bytes;
    }

    /// What of the budget is held for this batch, if each piece of a request that was cut counts
    /// for as much as another. Pipelines that share a request hold all of it, each of them.
    pub fn portion_bytes(&self) -> usize {
        self.portion
    }

    /// The bytes that the end of this batch gives back.
    pub fn into_bytes(self) -> usize {
        let last = |share| Rc::try_unwrap(share).unwrap_or(0);
        self.own + self.joint.into_iter().map(last).sum::<usize>()
    }
}

#[derive(Debug)]
pub struct Batcher {
    settings: plan::Batch,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    gatherer: Gatherer,
    held: Held,
    tickets: Vec<TicketId>,
    requests: usize,
    due: Nanos,
}

impl Batcher {
    pub fn new(settings: plan::Batch) -> Batcher {
        Batcher { settings, open: None }
    }

    /// Takes a request; batches that this completes go to `sealed`. Each part that the request
    /// is cut into adds `ticket` to its batch once; returns how many parts there are.
    pub fn push(
        &mut self,
        checked: Checked,
        share: Share,
        ticket: Option<TicketId>,
        now: Nanos,
        sealed: &mut Vec<Sealed>,
    ) -> u32 {
        if !self.settings.is_within_bounds(checked.counts().items, checked.bytes().len() as u64) {
            return self.push_in_pieces(checked, share, ticket, now, sealed);
        }
        let (signal, counts) = (checked.signal(), checked.counts());
        let bytes = checked.bytes().len() as u64;
        let is_unbatched = self.settings.is_unbatched();
        let open = self.room_for(signal, counts.items, bytes, now, sealed);
        open.add(share, 1, ticket);
        match is_unbatched {
            true => open.gatherer.push_uncopied(checked),
            false => open.gatherer.push(checked),
        }
        self.seal_if_full(sealed);
        1
    }

    fn push_in_pieces(
        &mut self,
        checked: Checked,
        share: Share,
        ticket: Option<TicketId>,
        now: Nanos,
        sealed: &mut Vec<Sealed>,
    ) -> u32 {
        let pieces = split(checked, self.settings.items_max, self.settings.bytes_max);
        let share = match share {
            Share::Own(bytes) if pieces.len() > 1 => Share::Joint(Rc::new(bytes)),
            share => share,
        };
        let parts = pieces.len() as u32;
        for piece in pieces {
            let (items, bytes) = (piece.counts.items, piece.bytes);
            let open = self.room_for(piece.signal, items, bytes, now, sealed);
            open.add(share.clone(), parts as usize, ticket);
            open.gatherer.append(piece);
            self.seal_if_full(sealed);
        }
        parts
    }

    /// Seals what has waited long enough.
    pub fn seal_due(&mut self, now: Nanos, sealed: &mut Vec<Sealed>) {
        if self.open.as_ref().is_some_and(|open| open.due <= now) {
            self.seal(sealed);
        }
    }

    /// Seals whatever is open.
    pub fn seal(&mut self, sealed: &mut Vec<Sealed>) {
        sealed.extend(self.open.take().map(Open::seal));
    }

    /// When [`Batcher::seal_due`] has something to do.
    pub fn deadline(&self) -> Option<Nanos> {
        self.open.as_ref().map(|open| open.due)
    }

    /// The open batch, if this fits into it; else that is sealed, and a new one is opened.
    fn room_for(
        &mut self,
        signal: Signal,
        items: u64,
        bytes: u64,
        now: Nanos,
        sealed: &mut Vec<Sealed>,
    ) -> &mut Open {
        let settings = self.settings;
        let has_room = |open: &Open| {
            let chain = open.gatherer.chain();
            chain.takes(signal)
                && settings.is_within_bounds(chain.counts.items + items, chain.bytes + bytes)
        };
        if self.open.as_ref().is_some_and(|open| !has_room(open)) {
            self.seal(sealed);
        }
        self.open.get_or_insert_with(|| Open {
            gatherer: Gatherer::new(signal),
            held: Held::default(),
            tickets: Vec::new(),
            requests: 0,
            due: now + settings.flush_timeout.as_nanos() as Nanos,
        })
    }

    fn seal_if_full(&mut self, sealed: &mut Vec<Sealed>) {
        let is_full = |open: &Open| self.settings.is_full(open.gatherer.chain());
        if self.open.as_ref().is_some_and(is_full) {
            self.seal(sealed);
        }
    }
}

impl Open {
    fn add(&mut self, share: Share, pieces: usize, ticket: Option<TicketId>) {
        self.held.add(share, pieces);
        self.requests += 1;
        self.tickets.extend(ticket);
    }

    fn seal(self) -> Sealed {
        let Open { gatherer, held, tickets, requests, .. } = self;
        Sealed { chain: gatherer.finish(), held, tickets, requests }
    }
}

impl plan::Batch {
    /// Each request goes on by itself.
    fn is_unbatched(&self) -> bool {
        self.items_min == 0 && self.bytes_min == 0
    }

    fn is_within_bounds(&self, items: u64, bytes: u64) -> bool {
        (self.items_max == 0 || items <= self.items_max)
            && (self.bytes_max == 0 || bytes <= self.bytes_max)
    }

    fn is_full(&self, chain: &Chain) -> bool {
        let by_items = self.items_min > 0 && chain.counts.items >= self.items_min;
        let by_bytes = self.bytes_min > 0 && chain.bytes >= self.bytes_min;
        self.is_unbatched() || by_items || by_bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use forebay_codec::check::check;
    use forebay_codec::signal::Signal;

    use super::*;

    fn settings(items_min: u64, items_max: u64, bytes_max: u64) -> plan::Batch {
        let flush_timeout = Duration::from_nanos(100);
        plan::Batch { items_min, items_max, bytes_min: 0, bytes_max, flush_timeout }
    }

    /// One resource and scope with `spans` spans of `name_bytes` bytes of name.
    fn request(spans: usize, name_bytes: usize) -> Checked {
        fn field(number: u8, content: &[u8], out: &mut Vec<u8>) {
            out.push(number << 3 | 2);
            let mut length = content.len();
            while length >= 128 {
                out.push(length as u8 | 128);
                length >>= 7;
            }
            out.push(length as u8);
            out.extend_from_slice(content);
        }
        let (mut span, mut scope, mut resource, mut request) = (vec![], vec![], vec![], vec![]);
        field(5, &vec![b'n'; name_bytes], &mut span);
        for _ in 0..spans {
            field(2, &span, &mut scope);
        }
        field(2, &scope, &mut resource);
        field(1, &resource, &mut request);
        check(Signal::Traces, Bytes::from(request)).unwrap()
    }

    #[test]
    fn without_a_minimum_each_request_is_a_batch_of_its_own() {
        let (mut batcher, mut sealed) = (Batcher::new(settings(0, 0, 0)), Vec::new());
        for spans in 1..4 {
            batcher.push(request(spans, 8), Share::Own(10), None, 0, &mut sealed);
        }
        let items: Vec<u64> = sealed.iter().map(|batch| batch.chain.counts.items).collect();
        assert_eq!(items, [1, 2, 3]);
    }

    #[test]
    fn a_batch_is_sealed_by_items_or_by_age_and_by_nothing_else() {
        let (mut batcher, mut sealed) = (Batcher::new(settings(10, 0, 0)), Vec::new());
        batcher.push(request(4, 8), Share::Own(1), None, 50, &mut sealed);
        batcher.push(request(4, 8), Share::Own(1), None, 60, &mut sealed);
        batcher.seal_due(149, &mut sealed);
        assert!(sealed.is_empty());
        assert_eq!(batcher.deadline(), Some(150), "from the first request on");
        batcher.seal_due(150, &mut sealed);
        assert_eq!((sealed[0].chain.counts.items, sealed[0].requests), (8, 2));
        batcher.push(request(11, 8), Share::Own(1), None, 200, &mut sealed);
        assert_eq!(sealed[1].chain.counts.items, 11);
        assert_eq!(batcher.deadline(), None);
    }

    #[test]
    fn no_batch_is_larger_than_its_bounds_and_nothing_is_lost_or_reserved_twice() {
        let seed = 0x5eed;
        let mut state: u64 = seed;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        let (items_max, bytes_max) = (20, 600);
        let (mut batcher, mut sealed) = (Batcher::new(settings(15, items_max, bytes_max)), vec![]);
        let (mut items, mut reserved) = (0, 0);
        for now in 0..500 {
            let spans = 1 + draw(60);
            let request = request(spans as usize, draw(40) as usize);
            items += spans;
            reserved += request.bytes().len();
            let share = request.bytes().len();
            batcher.push(request, Share::Own(share), None, now, &mut sealed);
            batcher.seal_due(now, &mut sealed);
        }
        batcher.seal(&mut sealed);
        assert_eq!(sealed.iter().map(|b| b.chain.counts.items).sum::<u64>(), items, "seed {seed}");
        for batch in &sealed {
            assert!(batch.chain.counts.items <= items_max && batch.chain.bytes <= bytes_max);
            let joined = Bytes::from(batch.chain.parts.concat());
            let checked = check(Signal::Traces, joined).expect("a batch is a valid request");
            assert_eq!(checked.counts(), batch.chain.counts);
        }
        let (batches, portions) =
            (sealed.len(), sealed.iter().map(|batch| batch.held.portion_bytes()).sum::<usize>());
        let is_fair = (reserved..reserved + batches * 15).contains(&portions);
        assert!(is_fair, "seed {seed}: {portions} for {reserved}, by pieces rounded up");
        let given_back: usize = sealed.into_iter().map(|batch| batch.held.into_bytes()).sum();
        assert_eq!(given_back, reserved, "seed {seed}");
    }

    #[test]
    fn a_request_in_several_batches_is_given_back_with_the_last_of_them() {
        let (mut batcher, mut sealed) = (Batcher::new(settings(1, 10, 0)), Vec::new());
        batcher.push(request(35, 8), Share::Own(700), None, 0, &mut sealed);
        let given_back: Vec<usize> = sealed.into_iter().map(|b| b.held.into_bytes()).collect();
        assert_eq!(given_back, [0, 0, 0, 700]);
    }
}
