//! Cores that give each other work until they are told to end: in one thread step by step, and in
//! threads of their own.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use forebay_net::fields::Fields;
use forebay_net::request::{Head, Part, Protocol};
use forebay_net::ring::Key;
use http::{Method, StatusCode};

use super::*;

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % below
    }
}

fn request(stream: u32) -> Request {
    let head = Head {
        listener: 0,
        protocol: Protocol::Http2,
        method: Method::POST,
        path: "".into(),
        headers: Fields::new(),
        content_length: None,
        peer: None,
    };
    let id = RequestId { key: Key { index: 0, generation: 0 }, stream };
    Request { id, head, tag: 0, part: Part::Whole, body: Bytes::new(), reserved: 7 }
}

fn answer() -> Answer {
    let (headers, trailers) = (Fields::new(), Fields::new());
    Answer { status: StatusCode::OK, headers, body: Bytes::new(), trailers }
}

/// A core of which only its dealings with others are real.
struct Core {
    neighbours: Neighbours<u32>,
    dice: Dice,
    next: u32,
    /// By request, whether it was answered.
    answered: Vec<bool>,
    reserved: usize,
    /// Waiting for delivery here.
    tickets: VecDeque<Asker>,
    leaving: bool,
}

impl Core {
    fn all(count: usize, seed: u64) -> Vec<Core> {
        let core = |(index, neighbours): (usize, Neighbours<u32>)| {
            neighbours.open(Arc::new(Wake::new().expect("an eventfd")));
            Core {
                neighbours,
                dice: Dice(seed + index as u64),
                next: 0,
                answered: Vec::new(),
                reserved: 0,
                tickets: VecDeque::new(),
                leaving: false,
            }
        };
        Neighbours::all(count).into_iter().enumerate().map(core).collect()
    }

    fn step(&mut self) {
        if !self.leaving {
            for _ in 0..self.dice.below(40) {
                self.send();
            }
        }
        self.take_given();
        while self.dice.below(3) > 0
            && let Some(asker) = self.tickets.pop_front()
        {
            self.answer(asker);
        }
        while let Some(reply) = self.neighbours.take_reply() {
            match reply {
                Reply::Taken { reserved } => self.reserved -= reserved,
                Reply::Answered { request, reserved, .. } => {
                    self.reserved -= reserved;
                    self.end(request);
                }
                Reply::Returned(request) => {
                    self.reserved -= request.reserved;
                    self.end(request.id);
                }
            }
        }
        self.neighbours.wake_others();
    }

    fn send(&mut self) {
        let request = request(self.next);
        (self.next, self.reserved) = (self.next + 1, self.reserved + request.reserved);
        self.answered.push(false);
        if let Some(request) = self.neighbours.give(request, spread::MOVE_WEIGHT_MIN, 1 << 40, 0) {
            self.reserved -= request.reserved;
            self.end(request.id);
        }
    }

    fn take_given(&mut self) {
        for _ in 0..self.neighbours.given() {
            let Some(Moved { origin, weight, request }) = self.neighbours.take_given() else {
                panic!("nobody else takes what is mine");
            };
            let (id, reserved) = (request.id, request.reserved);
            match self.dice.below(3) {
                _ if self.leaving => self.neighbours.reply(origin, Reply::Returned(request.into())),
                0 => self.neighbours.reply(origin, Reply::Returned(request.into())),
                1 => self.answer(Asker { shard: origin, request: id, reserved }),
                _ => {
                    self.neighbours.reply(origin, Reply::Taken { reserved });
                    let asker = Asker { shard: origin, request: id, reserved: 0 };
                    self.tickets.push_back(asker);
                }
            }
            self.neighbours.did_given(weight);
        }
    }

    fn answer(&mut self, asker: Asker) {
        let Asker { shard, request, reserved } = asker;
        self.neighbours.reply(shard, Reply::Answered { request, reserved, answer: answer() });
    }

    fn end(&mut self, request: RequestId) {
        let answered = &mut self.answered[request.stream as usize];
        assert!(!*answered, "one answer each");
        *answered = true;
    }

    fn leave(&mut self) {
        self.leaving = true;
        self.neighbours.leave_off();
    }

    fn is_done(&self) -> bool {
        self.leaving && self.tickets.is_empty() && self.neighbours.may_end()
    }

    fn check(&self, seed: u64) {
        assert!(self.answered.iter().all(|answered| *answered), "seed {seed}");
        assert_eq!(self.reserved, 0, "seed {seed}");
        assert!(self.neighbours.is_empty(), "seed {seed}");
    }
}

#[test]
fn however_cores_take_turns_each_request_is_answered_once_before_anybody_ends() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let count = 2 + dice.below(3) as usize;
        let mut cores: Vec<Option<Core>> = Core::all(count, seed).into_iter().map(Some).collect();
        let mut steps = 0;
        while cores.iter().any(Option::is_some) {
            steps += 1;
            assert!(steps < 100_000, "seed {seed}: nobody ends");
            let slot = &mut cores[dice.below(count as u64) as usize];
            let Some(core) = slot else {
                continue;
            };
            if !core.leaving && steps > 50 && dice.below(20) == 0 {
                core.leave();
            }
            core.step();
            if core.is_done() {
                core.check(seed);
                *slot = None;
            }
        }
    }
}

#[test]
fn cores_in_threads_of_their_own_answer_each_request_once_and_all_end() {
    let moved = AtomicUsize::new(0);
    for seed in 0..20 {
        let run = |mut core: Core| {
            for _ in 0..200 + core.dice.below(200) {
                core.step();
            }
            core.leave();
            while !core.is_done() {
                core.step();
                std::thread::yield_now();
            }
            core.check(seed);
            moved.fetch_add(core.answered.len(), Ordering::Relaxed);
        };
        std::thread::scope(|scope| {
            let cores = Core::all(3, seed).into_iter();
            let threads: Vec<_> = cores.map(|core| scope.spawn(move || run(core))).collect();
            for thread in threads {
                thread.join().unwrap_or_else(|_| panic!("seed {seed}"));
            }
        });
    }
    assert!(moved.into_inner() > 100_000);
}

#[test]
fn nobody_waits_for_a_core_that_died() {
    let mut cores = Core::all(2, 1);
    let dead = cores.pop().expect("two cores");
    let mut alive = cores.pop().expect("two cores");
    assert!(alive.neighbours.give(request(0), spread::MOVE_WEIGHT_MIN, 1 << 40, 0).is_none());
    alive.leave();
    assert!(!alive.neighbours.may_end(), "the other may still send");
    drop(dead);
    assert!(alive.neighbours.may_end());
}

#[test]
fn a_full_mailbox_leaves_connections_and_requests_where_they_are() {
    let mut cores = Core::all(2, 1);
    let (first, second) = cores.split_at_mut(1);
    let (busy, idle) = (&mut first[0].neighbours, &second[0].neighbours);
    busy.show_load(spread::FULL, spread::FULL);
    let kept = (0..1000).filter_map(|socket| busy.place(0, socket)).count();
    assert_eq!(kept + std::iter::from_fn(|| idle.take_socket()).count(), 1000);
    assert!(kept > 0);
    let given = |busy: &mut Neighbours<u32>, count: u32| {
        let give = |n: &u32| busy.give(request(*n), 1 << 20, 1 << 50, 0).is_none();
        (0..count).filter(give).count()
    };
    assert_eq!(given(busy, 1000), REQUESTS_MAX);
    assert_eq!(idle.given(), REQUESTS_MAX);
    let mut all = 0;
    while all < OWED_MAX - REQUESTS_MAX {
        while let Some(moved) = idle.take_given() {
            idle.did_given(moved.weight);
        }
        all += given(busy, 50);
    }
    assert_eq!(given(busy, 50), 0, "nobody is owed more than there is room for answers");
}

#[test]
fn a_core_that_has_not_come_or_leaves_is_given_nothing() {
    let mut ends = Neighbours::<u32>::all(2);
    let other = ends.pop().expect("two ends");
    let mut busy = ends.pop().expect("two ends");
    let tries = |busy: &mut Neighbours<u32>| {
        busy.show_load(spread::FULL, spread::FULL);
        let socket = busy.place(0, 5).is_none();
        (socket, busy.give(request(1), 1 << 20, 1 << 40, 0).is_none())
    };
    assert_eq!(tries(&mut busy), (false, false), "it has not come");
    for end in [&busy, &other] {
        end.open(Arc::new(Wake::new().expect("an eventfd")));
    }
    assert_eq!(tries(&mut busy), (true, true));
    other.leave_off();
    assert_eq!(tries(&mut busy), (false, false), "it leaves");
}

#[test]
fn a_hot_core_whose_requests_come_one_by_one_gives_them_to_an_idle_neighbour_and_none_to_a_hot() {
    let weight = 1 << 20;
    let gives =
        |core: &mut Core, n| core.neighbours.give(request(n), weight, weight, weight).is_none();
    for (load, expected) in [(0, 1000), (spread::FULL, 0)] {
        let mut cores = Core::all(2, 1);
        cores[1].neighbours.show_load(load, load);
        cores[0].neighbours.show_load(spread::FULL, spread::FULL);
        let mut given = 0;
        for n in 0..1000 {
            given += usize::from(gives(&mut cores[0], n));
            assert!(!gives(&mut cores[0], n), "a neighbour that is at work gets no second one");
            if let Some(moved) = cores[1].neighbours.take_given() {
                cores[1].answer(Asker { shard: 0, request: moved.request.id, reserved: 0 });
                cores[1].neighbours.did_given(moved.weight);
            }
            cores[0].neighbours.take_reply();
        }
        assert_eq!(given, expected, "to a neighbour of load {load}");
    }
}

#[test]
fn a_core_that_is_full_is_given_no_connection_however_idle_it_is() {
    for connections_max in [2, 1_000] {
        let mut all = Neighbours::<u32>::all(2);
        for core in &mut all {
            core.limit_connections(connections_max);
            core.open(Arc::new(Wake::new().expect("an eventfd")));
        }
        all[0].show_load(900, 900);
        let given = (0..6).filter(|socket| all[0].place(0, *socket).is_none()).count();
        let is_full = given == 2;
        assert_eq!(is_full, connections_max == 2, "{given} given, of {connections_max} at most");
    }
}
