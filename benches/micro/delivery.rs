//! The policy of delivery: choosing an endpoint and consulting its breaker, recording how a call
//! ended, and a fleet whose members come and go.
//!
//! Ours chooses over the shared set of endpoints, as an exporter core does for each batch. Theirs
//! is the least that anybody could do: take the next address of a list (for choosing), and build
//! the list anew (for changes of the fleet).

mod timing;

use std::cell::Cell;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_exporters::balance::{Balancer, Bound, Pick, Strategy, Tried};
use forebay_exporters::breaker::Outcome as Ended;
use forebay_exporters::cluster::Cluster;
use forebay_exporters::destination::Backends;
use forebay_exporters::discovery::fixed::Static;
use forebay_exporters::discovery::keeper::{Keeper, Limits, Pace};
use forebay_exporters::discovery::source::{Again, Answer};
use forebay_exporters::discovery::{Endpoint as Found, Event};
use forebay_exporters::endpoints::{Call, Endpoints, Member, Options, Reader};

use timing::{Bar, Contender, Contest, Cpu, Outcome, Session};

fn main() -> ExitCode {
    let mut session = Session::start("Choosing endpoints");
    for (name, strategy, count) in [
        ("choose, admit: round robin of 10", Strategy::RoundRobin, 10),
        ("choose, admit: round robin of 1000", Strategy::RoundRobin, 1_000),
        ("choose, admit: weighted of 10", Strategy::WeightedRoundRobin, 10),
        ("choose, admit: weighted of 1000", Strategy::WeightedRoundRobin, 1_000),
        ("choose, admit: least outstanding of 10", Strategy::LeastOutstanding, 10),
        ("choose, admit: least outstanding of 1000", Strategy::LeastOutstanding, 1_000),
        ("choose, admit: hashing over 10", Strategy::ConsistentHashing, 10),
        ("choose, admit: hashing over 1000", Strategy::ConsistentHashing, 1_000),
    ] {
        session.run(choosing(name, strategy, count));
    }
    session.run(ending());
    session.run(changing("100 changes among 1000, 2 readers", false));
    session.run(changing("100 changes among 1000, 2 readers, hashing", true));
    session.run(following());
    session.finish()
}

/// Choices a piece of work: so that the clock's own cost is nothing.
const CHOICES: u64 = 256;

/// One core's view of a fleet in which all is well.
struct Core {
    reader: Reader,
    balancer: Balancer,
    rng: fastrand::Rng,
    now: Instant,
    tried: Tried,
}

impl Core {
    fn new(strategy: Strategy, count: usize) -> Core {
        let now = Instant::now();
        let hashing = strategy == Strategy::ConsistentHashing;
        let endpoints = Endpoints::new(Options { hashing, ..Options::default() }, now);
        endpoints.apply(now, &members(0, count));
        let mut rng = fastrand::Rng::with_seed(1);
        let balancer = Balancer::new(strategy, Bound::of(strategy), rng.fork());
        let mut core =
            Core { reader: endpoints.reader(), balancer, rng, now, tried: Tried::default() };
        // Every endpoint has answered before: its latency is known.
        for endpoint in core.reader.snapshot().clone().endpoints() {
            let call = endpoint.admit(now).expect("a new breaker admits");
            call.end(now + Duration::from_millis(3), Ended::Success, &mut core.rng);
        }
        core.now += Duration::from_millis(3);
        core
    }

    #[inline]
    fn choose(&mut self, key_hash: u64) -> Call {
        let snapshot = self.reader.snapshot();
        match self.balancer.pick(snapshot, self.now, Some(key_hash), &self.tried) {
            Pick::Call(call) => call,
            Pick::Nobody { .. } => unreachable!("all is well"),
        }
    }
}

fn members(from: usize, count: usize) -> Vec<Member> {
    let member = |number: usize| Member {
        address: format!("collector-{number}.observability.svc:4317"),
        weight: 1 + number as u32 % 3,
    };
    (from..from + count).map(member).collect()
}

/// Choosing, asking the breaker, counting the call; and dropping it, which a call's end does too.
fn choosing(name: &'static str, strategy: Strategy, count: usize) -> Contest<'static> {
    let mut core = Core::new(strategy, count);
    let mut judged = Core::new(strategy, count);
    let mut key = 0_u64;
    let addresses: Vec<Arc<str>> =
        members(0, count).into_iter().map(|member| member.address.into()).collect();
    let known = members(0, count);
    let turn = Cell::new(0);
    Contest {
        name,
        unit: "choice",
        bytes: 0,
        cpu: Cpu::ThisThread,
        ours: Contender {
            name: "pick, admit, give back",
            work: Box::new(move || {
                for _ in 0..CHOICES {
                    key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    black_box(core.choose(key));
                }
                CHOICES
            }),
            // Every choice is a member, whose breaker counts nothing more when all is given back.
            outcome: Box::new(move || {
                let is_known = |call: &Call| {
                    known.iter().any(|member| member.address == call.endpoint().address())
                };
                let chosen = (0..CHOICES).map(|key| judged.choose(key << 55));
                let members = chosen.filter(is_known).count();
                let left = judged.reader.snapshot().fleet().outstanding();
                Outcome::of(members as u64, &left.to_le_bytes())
            }),
        },
        theirs: Contender {
            name: "next of a list",
            work: Box::new(move || {
                for _ in 0..CHOICES {
                    turn.set((turn.get() + 1) % addresses.len());
                    black_box(Arc::clone(&addresses[turn.get()]));
                }
                CHOICES
            }),
            outcome: Box::new(|| Outcome::of(CHOICES, &0_u32.to_le_bytes())),
        },
        // The work is 256 choices.
        bar: Bar::Nanos(50.0 * CHOICES as f64),
    }
}

/// The whole round: a call that succeeds, entered into window, load and breaker.
fn ending() -> Contest<'static> {
    let mut ours = Core::new(Strategy::LeastOutstanding, 10);
    let mut theirs = Core::new(Strategy::LeastOutstanding, 10);
    let (mut our_judge, mut their_judge) =
        (Core::new(Strategy::LeastOutstanding, 10), Core::new(Strategy::LeastOutstanding, 10));
    let left = |core: &mut Core| core.reader.snapshot().fleet().outstanding().to_le_bytes();
    Contest {
        name: "choose and record a success, of 10",
        unit: "call",
        bytes: 0,
        cpu: Cpu::ThisThread,
        ours: Contender {
            name: "pick, end",
            work: Box::new(move || {
                for key in 0..CHOICES {
                    let call = ours.choose(key);
                    ours.now += Duration::from_micros(20);
                    call.end(ours.now, Ended::Success, &mut ours.rng);
                }
                CHOICES
            }),
            outcome: Box::new(move || {
                for key in 0..CHOICES {
                    let call = our_judge.choose(key);
                    call.end(our_judge.now, Ended::Success, &mut our_judge.rng);
                }
                Outcome::of(CHOICES, &left(&mut our_judge))
            }),
        },
        theirs: Contender {
            name: "pick, give back",
            work: Box::new(move || {
                for key in 0..CHOICES {
                    black_box(theirs.choose(key));
                }
                CHOICES
            }),
            outcome: Box::new(move || {
                (0..CHOICES).for_each(|key| drop(their_judge.choose(key)));
                Outcome::of(CHOICES, &left(&mut their_judge))
            }),
        },
        bar: Bar::None,
    }
}

/// A hundred changes: each a whole new set in which one of a thousand has been replaced, applied,
/// and followed by two cores that make a choice each. At a hundred changes a second, five percent
/// of a core are 50 ms for the work once.
fn changing(name: &'static str, hashing: bool) -> Contest<'static> {
    const CHANGES: usize = 100;
    let now = Instant::now();
    let sets: Vec<Vec<Member>> = (0..=CHANGES).map(|from| members(from, 1_000)).collect();
    let (same, last) = (sets.clone(), sets[CHANGES].clone());
    let judged = Endpoints::new(Options { hashing, ..Options::default() }, now);
    let judged_sets = sets.clone();
    let endpoints = Endpoints::new(Options { hashing, ..Options::default() }, now);
    let strategy = match hashing {
        true => Strategy::ConsistentHashing,
        false => Strategy::WeightedRoundRobin,
    };
    let mut rng = fastrand::Rng::with_seed(1);
    let mut cores: Vec<(Reader, Balancer)> = (0..2)
        .map(|_| {
            let balancer = Balancer::new(strategy, Bound::of(strategy), rng.fork());
            (endpoints.reader(), balancer)
        })
        .collect();
    // There and back again, so that each piece of work begins where it ended.
    let mut forwards = false;
    Contest {
        name,
        unit: "change",
        bytes: 0,
        cpu: Cpu::ThisThread,
        ours: Contender {
            name: "apply, read twice",
            work: Box::new(move || {
                forwards = !forwards;
                for step in 1..=CHANGES {
                    let index = if forwards { step } else { CHANGES - step };
                    black_box(endpoints.apply(now, &sets[index]));
                    for (reader, balancer) in &mut cores {
                        let picked =
                            balancer.pick(reader.snapshot(), now, Some(7), &Tried::default());
                        black_box(picked);
                    }
                }
                CHANGES as u64
            }),
            outcome: Box::new(move || {
                let applied = judged_sets[1..].iter().map(|set| judged.apply(now, set));
                let changes = applied.filter(|change| change.joined > 0).count();
                let snapshot = judged.snapshot();
                let addresses = snapshot.endpoints().iter().map(|endpoint| endpoint.address());
                Outcome::of(changes as u64, &sorted(addresses.collect()))
            }),
        },
        theirs: Contender {
            name: "copy the list",
            work: Box::new(move || {
                for set in &same[1..] {
                    black_box(set.clone());
                }
                CHANGES as u64
            }),
            outcome: Box::new(move || {
                let addresses = last.iter().map(|member| member.address.as_str());
                Outcome::of(CHANGES as u64, &sorted(addresses.collect()))
            }),
        },
        bar: Bar::Nanos(50e6),
    }
}

/// The same hundred changes on the way of the control thread: a source's answer, the keeper's
/// verdict on it, the cluster.
fn following() -> Contest<'static> {
    const CHANGES: usize = 100;
    let now = Instant::now();
    let answer = |from: usize| -> Vec<Found> {
        let addresses: Vec<String> = members(from, 1_000).into_iter().map(|m| m.address).collect();
        let list = Static::of(addresses.iter().map(String::as_str), None);
        list.expect("addresses of a name and a port").endpoints
    };
    let sets: Vec<Vec<Found>> = (0..=CHANGES).map(answer).collect();
    let (same, judged_sets, last) = (sets.clone(), sets.clone(), sets[CHANGES].clone());
    let made = || {
        let keeper = Keeper::new("bench".to_owned(), Pace::default(), Limits::default(), now);
        (keeper, Cluster::new(&Backends::of(Static::default()), now))
    };
    let follow = move |keeper: &mut Keeper, cluster: &Cluster, set: &[Found]| {
        let (again, notes) = (Again::AtOnce, Vec::new());
        keeper.take(Ok(Answer { endpoints: set.to_vec(), again, notes }), now, 0.5);
        match keeper.take_event() {
            Some(Event::Changed(update)) => cluster.apply(now, &update.endpoints).joined,
            _ => 0,
        }
    };
    let (mut ours, mut judged) = (made(), made());
    let mut forwards = false;
    Contest {
        name: "100 changes among 1000, from answer to cluster",
        unit: "change",
        bytes: 0,
        cpu: Cpu::ThisThread,
        ours: Contender {
            name: "keep, apply",
            work: Box::new(move || {
                forwards = !forwards;
                for step in 1..=CHANGES {
                    let index = if forwards { step } else { CHANGES - step };
                    black_box(follow(&mut ours.0, &ours.1, &sets[index]));
                }
                CHANGES as u64
            }),
            outcome: Box::new(move || {
                let (keeper, cluster) = &mut judged;
                let applied = judged_sets[1..].iter().map(|set| follow(keeper, cluster, set));
                let changes = applied.filter(|joined| *joined > 0).count();
                let snapshot = judged.1.endpoints().snapshot();
                let addresses = snapshot.endpoints().iter().map(|endpoint| endpoint.address());
                Outcome::of(changes as u64, &sorted(addresses.collect()))
            }),
        },
        theirs: Contender {
            name: "copy the answer",
            work: Box::new(move || {
                for set in &same[1..] {
                    black_box(set.clone());
                }
                CHANGES as u64
            }),
            outcome: Box::new(move || {
                let addresses = last.iter().map(Found::address);
                Outcome::of(CHANGES as u64, &sorted(addresses.collect()))
            }),
        },
        bar: Bar::Nanos(50e6),
    }
}

fn sorted(mut addresses: Vec<&str>) -> Vec<u8> {
    addresses.sort_unstable();
    addresses.concat().into_bytes()
}
