//! A door with a small budget that refuses now and then, and whoever works behind it: it keeps
//! requests for a while and answers them in any order.

use bytes::Bytes;
use forebay_net::fields::Fields;
use forebay_net::request::{
    Admitted, Answer, Door, Head, Nanos, Protocol, Refusal, Request, RequestId, Trouble,
};
use forebay_net::ring::fake::Dice;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::book::{Book, id_in, pattern};

pub(crate) const BODY_BYTES_MAX: usize = 60_000;
const ID: HeaderName = HeaderName::from_static("x-id");

pub(crate) struct Desk {
    pub(crate) dice: Dice,
    budget_bytes: usize,
    pub(crate) reserved: usize,
    /// Of 1,000 requests, those that are not let in.
    refuses: u32,
    pub(crate) refused: u64,
    held: Vec<Held>,
    patience: Nanos,
}

struct Held {
    until: Nanos,
    id: RequestId,
    number: u64,
    reserved: usize,
}

impl Desk {
    pub(crate) fn new(mut dice: Dice) -> Desk {
        Desk {
            budget_bytes: 2_000 + dice.below(300_000) as usize,
            reserved: 0,
            refuses: if dice.of_1000(500) { dice.below(300) as u32 } else { 0 },
            refused: 0,
            held: Vec::new(),
            patience: 1 + dice.below(2_000_000),
            dice,
        }
    }

    /// One that lets in whoever has room.
    #[allow(dead_code, reason = "one of the simulations asks for it")]
    pub(crate) fn with_room(budget_bytes: usize) -> Desk {
        Desk { budget_bytes, refuses: 0, ..Desk::new(Dice::new(1)) }
    }

    pub(crate) fn take(&mut self, request: Request, now: Nanos, book: &mut Book) {
        let number = book.hand_out(&request);
        let until = now + self.dice.below(self.patience);
        let Request { id, reserved, .. } = request;
        self.held.push(Held { until, id, number, reserved });
    }

    /// An answer that is due, any of them.
    pub(crate) fn next_answer(&mut self, now: Nanos) -> Option<(RequestId, Answer)> {
        let due = |held: &Held| held.until <= now;
        let places: Vec<usize> = (0..self.held.len()).filter(|at| due(&self.held[*at])).collect();
        let place = *places.get(self.dice.below(places.len().max(1) as u64) as usize)?;
        let Held { id, number, reserved, .. } = self.held.swap_remove(place);
        self.release(reserved);
        let bytes = match self.dice.below(20) {
            0 => self.dice.below(60_000),
            1..8 => 0,
            _ => self.dice.below(100),
        };
        let mut answer = answer(StatusCode::OK, Some(number));
        answer.body = Bytes::from(pattern(number, bytes as usize));
        if self.dice.of_1000(300) {
            answer.trailers.push(ID, HeaderValue::from(number));
        }
        Some((id, answer))
    }

    pub(crate) fn next_at(&self) -> Option<Nanos> {
        self.held.iter().map(|held| held.until).min()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

impl Door for Desk {
    fn admit(&mut self, head: &mut Head) -> Result<Admitted, Answer> {
        let reserved = self.dice.below(100) as usize;
        if self.dice.of_1000(self.refuses) || !self.reserve(reserved) {
            self.refused += 1;
            return Err(answer(StatusCode::SERVICE_UNAVAILABLE, id_in(&head.path)));
        }
        Ok(Admitted { body_bytes_max: BODY_BYTES_MAX, tag: 0, reserved, streamed: false })
    }

    fn reserve(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.budget_bytes - self.reserved;
        self.reserved += if fits { bytes } else { 0 };
        fits
    }

    fn release(&mut self, bytes: usize) {
        assert!(bytes <= self.reserved, "more is released than was reserved");
        self.reserved -= bytes;
    }

    fn refuse(&mut self, head: &Head, refusal: Refusal) -> Answer {
        self.refused += 1;
        let status = match refusal {
            Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Overloaded | Refusal::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::BodyTimeout | Refusal::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Refusal::Malformed { status, .. } => status,
        };
        answer(status, id_in(&head.path))
    }

    fn malformed(&mut self, status: StatusCode, _: &'static str) -> Answer {
        answer(status, None)
    }

    fn abandoned(&mut self, _: Protocol) {}

    fn trouble(&mut self, _: Protocol, trouble: Trouble) {
        assert_ne!(trouble, Trouble::Gaps, "what the network lost is no attack");
    }
}

fn answer(status: StatusCode, id: Option<u64>) -> Answer {
    let headers = id.map(|id| (ID, HeaderValue::from(id))).into_iter().collect();
    Answer { status, headers, body: Bytes::new(), trailers: Fields::new() }
}
