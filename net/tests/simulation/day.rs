//! One day of a server: who comes, how they behave, and what has to hold in the end.

use std::sync::Arc;

use forebay_net::request::{Limits, Nanos};
use forebay_net::ring::fake::{Dice, FakeRing, Network, Temper};
use forebay_net::ring::{Options, Rung};
use forebay_net::server::Server;
use forebay_net::tls::{Acceptor, Failure};

use crate::book::Book;
use crate::customer::{Customer, House, Line};
use crate::door::Desk;
use crate::line::Sealed;
use crate::terms::{Both, fresh};

const MILLI: Nanos = 1_000_000;
const SECOND: Nanos = 1_000 * MILLI;
const HEADER_TIMEOUT: Nanos = SECOND;
const BODY_TIMEOUT: Nanos = 3 * SECOND;
const HANDSHAKE_TIMEOUT: Nanos = 3 * SECOND;
const WRITE_TIMEOUT: Nanos = 3 * SECOND;
const IDLE_TIMEOUT: Nanos = 5 * SECOND;
/// Longer than all of a connection's deadlines one after another.
const EVERY_DEADLINE: Nanos = 20 * SECOND;
const LISTENERS: usize = 2;
const WAITS_MAX: u64 = 2_000_000;

/// What days brought, in sum.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    days: u64,
    requests: u64,
    answered: u64,
    refused: u64,
    timeouts: u64,
    no_buffers: u64,
    over_limit: u64,
    accept_errors: u64,
    drained: u64,
    handshakes: u64,
    handshakes_failed: u64,
    waits: u64,
}

/// Lives through a day. Panics if anything is not as it has to be.
pub(crate) fn live(seed: u64) -> Sums {
    let mut day = Day::new(seed);
    while !day.is_over() {
        day.turn();
    }
    day.finish()
}

struct Day {
    dice: Dice,
    network: Network,
    server: Server<FakeRing>,
    desk: Desk,
    book: Book,
    customers: Vec<Customer>,
    drains_at: Nanos,
    has_drained: bool,
    are_sealed: [bool; LISTENERS],
    terms: Both,
    accepted_at_drain: u64,
    /// When the last customer was done.
    quiet_since: Option<Nanos>,
    waits: u64,
}

impl Day {
    fn new(seed: u64) -> Day {
        let mut dice = Dice::new(seed);
        let temper = if dice.of_1000(100) { Temper::calm() } else { Temper::drawn(&mut dice) };
        let network = Network::new(dice.number(), temper);
        let options = Options {
            entries: 64,
            buffers: 1 << (1 + dice.below(5)),
            buffer_bytes: 1 << (6 + dice.below(7)),
            datagram_buffers: 0,
            highest: Rung::LADDER[dice.below(3) as usize],
        };
        let sockets = (0..LISTENERS).map(|_| network.listener()).collect();
        let limits = Limits {
            header_bytes_max: 4096,
            connections_max: if dice.of_1000(100) { 3 } else { 1_000 },
            connection_requests_max: 16,
            connection_window_bytes: 4 << 20,
            header_timeout: HEADER_TIMEOUT,
            body_timeout: BODY_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
        };
        let are_sealed = std::array::from_fn(|_| dice.of_1000(150));
        let terms = fresh();
        let acceptor = || Arc::new(Acceptor::new(terms.server.clone(), HANDSHAKE_TIMEOUT));
        let acceptors = are_sealed.map(|is_sealed: bool| is_sealed.then(acceptor));
        let handshakes_max = if dice.of_1000(100) { 1 } else { 1_000 };
        let server = Server::new(network.ring(&options), limits, sockets)
            .with_tls(acceptors.to_vec(), handshakes_max);
        assert_eq!(server.rung(), options.highest);
        let rush = 1 + dice.below(20 * MILLI);
        let customers = (0..2 + dice.below(16) as usize)
            .map(|number| {
                let listener = dice.below(LISTENERS as u64) as usize;
                Customer::drawn(number, listener, dice.of_1000(400), rush, &mut dice)
            })
            .collect();
        Day {
            desk: Desk::new(dice.fork()),
            network,
            server,
            book: Book::default(),
            customers,
            drains_at: if dice.of_1000(300) { dice.below(2 * rush) } else { Nanos::MAX },
            has_drained: false,
            are_sealed,
            terms,
            accepted_at_drain: 0,
            quiet_since: None,
            waits: 0,
            dice,
        }
    }

    fn turn(&mut self) {
        self.waits += 1;
        assert!(self.waits < WAITS_MAX, "the day does not end");
        let next = self.customers.iter().filter(|customer| !customer.is_over);
        let next = next.map(|customer| customer.next_at).chain(self.desk.next_at()).min();
        let drains_at = if self.has_drained { Nanos::MAX } else { self.drains_at };
        self.network.wake_by(next.unwrap_or(Nanos::MAX).min(drains_at));
        let timeout = std::time::Duration::from_secs(1);
        self.server.wait(self.network.now(), timeout).expect("a fake ring never fails");
        let now = self.network.now();

        let (desk, mut requests) = (&mut self.desk, Vec::new());
        if now >= self.drains_at && !self.has_drained {
            self.has_drained = true;
            self.accepted_at_drain = self.server.stats().accepted;
            self.server.drain(now, desk, &mut requests);
        }
        self.server.poll(now, desk, &mut requests);
        loop {
            for request in requests.drain(..) {
                self.desk.take(request, now, &mut self.book);
            }
            let Some((id, answer)) = self.desk.next_answer(now) else { break };
            self.server.answer(id, answer, now, &mut self.desk, &mut requests);
        }
        self.server.flush(now, &mut self.desk, &mut requests);
        for request in requests.drain(..) {
            self.desk.take(request, now, &mut self.book);
        }

        let stats = self.server.stats();
        let are_too_many = stats.tls.failed[Failure::TooMany as usize] > 0;
        let seal = |client, listener: usize| -> Box<dyn Line> {
            match self.are_sealed[listener] {
                true => Box::new(Sealed::new(client, &self.terms.client)),
                false => Box::new(client),
            }
        };
        let house = House {
            is_excused: self.has_drained || stats.over_limit > 0 || are_too_many,
            closes_at: self.drains_at,
            seal: Some(&seal),
        };
        for customer in &mut self.customers {
            if !customer.is_over && customer.next_at <= now {
                customer.step(now, &self.network, &mut self.book, &mut self.dice, house);
            }
        }
    }

    fn is_over(&mut self) -> bool {
        if !self.customers.iter().all(|customer| customer.is_over) {
            return false;
        }
        let now = self.network.now();
        let since = *self.quiet_since.get_or_insert(now);
        let is_over = self.server.connections() == 0 && self.desk.is_empty();
        let is_kept = self.customers.iter().any(|customer| customer.is_frozen);
        let patience = if is_kept { EVERY_DEADLINE } else { SECOND };
        assert!(is_over || now < since + patience, "a connection outlives its client");
        is_over
    }

    fn finish(mut self) -> Sums {
        let stats = self.server.stats();
        assert_eq!(self.desk.reserved, 0, "what was reserved is released");
        assert!(!self.server.is_busy() && !self.server.is_lingering());
        assert_eq!(stats.accepted, stats.closed);
        assert_eq!(stats.tls.pending, 0, "no handshake is forgotten");
        let are_late = self.has_drained && stats.accepted > self.accepted_at_drain;
        assert!(!are_late, "who comes after the drain is not let in");
        drop(self.server);
        self.network.assert_at_rest();
        Sums {
            days: 1,
            requests: self.book.count(|handed_out, _| handed_out),
            answered: self.book.count(|_, answered| answered),
            refused: self.desk.refused,
            timeouts: stats.timeouts,
            no_buffers: stats.ring.no_buffers,
            over_limit: stats.over_limit,
            accept_errors: stats.accept_errors,
            drained: u64::from(self.has_drained),
            handshakes: stats.tls.completed,
            handshakes_failed: stats.tls.failed.iter().sum(),
            waits: self.waits,
        }
    }
}

impl Sums {
    pub(crate) fn add(&mut self, other: &Sums) {
        self.days += other.days;
        self.requests += other.requests;
        self.answered += other.answered;
        self.refused += other.refused;
        self.timeouts += other.timeouts;
        self.no_buffers += other.no_buffers;
        self.over_limit += other.over_limit;
        self.accept_errors += other.accept_errors;
        self.drained += other.drained;
        self.handshakes += other.handshakes;
        self.handshakes_failed += other.handshakes_failed;
        self.waits += other.waits;
    }

    /// Whether enough happened: days on which nothing does prove nothing.
    pub(crate) fn are_telling(&self) -> bool {
        let happened = [
            self.requests / self.days.max(1),
            self.answered / self.days.max(1),
            self.refused,
            self.timeouts,
            self.no_buffers,
            self.over_limit,
            self.accept_errors,
            self.drained,
            self.handshakes,
            self.handshakes_failed,
        ];
        happened.iter().all(|times| *times > 0)
    }
}
