//! Checks over virtual days: who is checked when, and what that does to breakers.

use super::*;
use crate::breaker::{self, State};
use crate::endpoints::{Endpoints, Member, Options};

const INTERVAL: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(250);

fn settings(probe: Probe) -> HealthCheck {
    HealthCheck { probe, interval: INTERVAL, timeout: Duration::from_secs(5) }
}

fn member(number: usize) -> Member {
    Member { address: format!("10.0.0.{number}:4317"), weight: 1 }
}

/// A fleet, its checkup, and virtual time.
struct Ward {
    endpoints: Arc<Endpoints>,
    checkup: Checkup,
    rng: fastrand::Rng,
    now: Instant,
    transitions: Vec<Transition>,
}

impl Ward {
    fn new(seed: u64, members: usize, probe: Probe) -> Ward {
        let now = Instant::now();
        let endpoints = Endpoints::new(Options::default(), now);
        endpoints.apply(now, &(0..members).map(member).collect::<Vec<_>>());
        let mut rng = fastrand::Rng::with_seed(seed);
        let checkup = Checkup::new(settings(probe), rng.fork());
        Ward { endpoints, checkup, rng, now, transitions: Vec::new() }
    }

    /// One look, whose checks end at once as `found` says; who was checked.
    fn look(&mut self, found: impl Fn(&Endpoint, &Probe) -> Finding) -> Vec<Arc<Endpoint>> {
        let due = self.checkup.due(self.now, &self.endpoints.snapshot());
        let mut checked = Vec::new();
        for Due { call, probe } in due {
            let endpoint = Arc::clone(call.endpoint());
            let finding = found(&endpoint, &probe);
            self.transitions.extend(call.transition());
            self.transitions.extend(self.checkup.ended(self.now, call, finding));
            checked.push(endpoint);
        }
        checked
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn an_endpoint_without_calls_is_checked_once_an_interval_and_one_with_calls_is_not() {
    for seed in 0..50 {
        let mut ward = Ward::new(seed, 20, Probe::Connect);
        let busy = Arc::clone(&ward.endpoints.snapshot().endpoints()[3]);
        let mut checks = HashMap::<u64, u32>::new();
        ward.look(|_, _| Finding::Connected);
        for _ in 0..400 {
            ward.pass(TICK);
            let call = busy.admit(ward.now).unwrap();
            call.end(ward.now, Outcome::Success, &mut ward.rng);
            for endpoint in ward.look(|_, _| Finding::Connected) {
                *checks.entry(endpoint.id()).or_default() += 1;
            }
        }
        // 100 seconds.
        assert_eq!(checks.remove(&busy.id()), None, "seed {seed}");
        assert_eq!(checks.len(), 19, "seed {seed}");
        assert!(checks.values().all(|count| (8..=12).contains(count)), "seed {seed}: {checks:?}");
        let status = ward.endpoints.status(ward.now);
        let healthy = |check: &Arc<Check>| check.trouble.is_none();
        assert_eq!(
            status.iter().filter_map(|one| one.check.as_ref()).filter(|one| healthy(one)).count(),
            19
        );
    }
}

#[test]
fn one_that_died_silently_is_found_soon_and_its_way_back_costs_no_call() {
    for seed in 0..50 {
        let mut ward = Ward::new(seed, 3, Probe::Grpc(String::new()));
        let dead = Arc::clone(&ward.endpoints.snapshot().endpoints()[1]);
        let state = |ward: &Ward| dead.breaker.state(ward.now);
        let finding = |is_dead: bool| {
            let id = dead.id();
            move |endpoint: &Endpoint, _: &Probe| match is_dead && endpoint.id() == id {
                true => Finding::trouble(FailureKind::Timeout, "no answer"),
                false => Finding::Serving,
            }
        };
        let began = ward.now;
        while state(&ward) == State::Closed {
            ward.pass(TICK);
            ward.look(finding(true));
            assert!(ward.now - began < INTERVAL * 2, "seed {seed}: it was not found");
        }
        let status = ward.endpoints.status(ward.now);
        assert!(status.iter().any(|one| {
            one.check.as_ref().is_some_and(|check| check.trouble.as_deref() == Some("no answer"))
        }));
        // Dead for long: probes go out, one at a time, and all are checks.
        for _ in 0..1000 {
            ward.pass(TICK);
            ward.look(finding(true));
            assert_ne!(state(&ward), State::Closed, "seed {seed}");
        }
        // A probe after at most the longest pause, two more soon after it.
        let began = ward.now;
        while state(&ward) != State::Closed {
            ward.pass(TICK);
            ward.look(finding(false));
            assert!(ward.now - began < Duration::from_secs(90), "seed {seed}: it stays shut off");
        }
        assert!(matches!(ward.transitions.last(), Some(Transition::Closed { .. })));
    }
}

#[test]
fn a_connection_that_can_be_made_neither_closes_a_breaker_nor_hides_failed_calls() {
    for seed in 0..50 {
        let mut ward = Ward::new(seed, 1, Probe::Connect);
        let endpoint = Arc::clone(&ward.endpoints.snapshot().endpoints()[0]);
        // A call in a minute, and each fails; checks in between.
        let threshold = breaker::Settings::default().failure_threshold;
        for _ in 0..threshold {
            assert_eq!(endpoint.breaker.state(ward.now), State::Closed, "seed {seed}");
            let call = endpoint.admit(ward.now).unwrap();
            call.end(ward.now, Outcome::Failure, &mut ward.rng);
            for _ in 0..240 {
                ward.pass(TICK);
                ward.look(|_, _| Finding::Connected);
                let opened = matches!(ward.transitions.first(), Some(Transition::Closed { .. }));
                assert!(!opened, "seed {seed}");
            }
        }
        assert_ne!(endpoint.breaker.state(ward.now), State::Closed, "seed {seed}");
        // The probe is left to a call.
        let call = endpoint.admit(ward.now).expect("a probe is free");
        assert!(call.is_probe(), "seed {seed}");
    }
}

#[test]
fn a_server_without_health_service_is_connected_to_from_then_on() {
    let mut ward = Ward::new(1, 1, Probe::Grpc("otlp".to_owned()));
    let probes = std::cell::RefCell::new(Vec::new());
    for _ in 0..200 {
        ward.pass(TICK);
        ward.look(|_, probe| {
            probes.borrow_mut().push(probe.clone());
            match probe {
                Probe::Grpc(_) => Finding::NoHealthService,
                _ => Finding::Connected,
            }
        });
    }
    let probes = probes.into_inner();
    assert_eq!(probes[0], Probe::Grpc("otlp".to_owned()));
    assert!(probes.len() > 3 && probes[1..].iter().all(|probe| *probe == Probe::Connect));
}

#[test]
fn churn_leaves_nobody_behind_and_checks_under_way_are_bounded() {
    for seed in 0..20 {
        let mut ward = Ward::new(seed, 200, Probe::Connect);
        let mut under_way = Vec::new();
        for round in 0..200 {
            let members = (0..200).filter(|_| ward.rng.bool()).map(member);
            ward.endpoints.apply(ward.now, &members.collect::<Vec<_>>());
            ward.pass(TICK * 4);
            under_way.extend(ward.checkup.due(ward.now, &ward.endpoints.snapshot()));
            assert!(under_way.len() <= CHECKS_MAX, "seed {seed}, round {round}");
            assert_eq!(ward.checkup.under_way, under_way.len());
            assert_eq!(ward.checkup.patients.len(), ward.endpoints.snapshot().endpoints().len());
            while under_way.len() > ward.rng.usize(0..CHECKS_MAX) {
                let due: Due = under_way.swap_remove(ward.rng.usize(0..under_way.len()));
                ward.checkup.ended(
                    ward.now,
                    due.call,
                    Finding::trouble(FailureKind::Timeout, "no answer"),
                );
            }
        }
    }
}

/// Hundreds whose servers hang: more are due than can be checked.
#[test]
fn with_more_due_than_can_be_checked_each_has_its_turn() {
    for seed in 0..5 {
        let mut ward = Ward::new(seed, 300, Probe::Connect);
        let mut checks = HashMap::<u64, u32>::new();
        for _ in 0..150 {
            let due = ward.checkup.due(ward.now, &ward.endpoints.snapshot());
            ward.pass(Duration::from_secs(4));
            for Due { call, .. } in due {
                *checks.entry(call.endpoint().id()).or_default() += 1;
                ward.checkup.ended(ward.now, call, Finding::Connected);
            }
        }
        // 64 at a time for 300 of them.
        let (least, most) = (checks.values().min(), checks.values().max());
        assert_eq!(checks.len(), 300, "seed {seed}");
        assert!(least >= Some(&28) && most <= Some(&36), "seed {seed}: {least:?} to {most:?}");
    }
}
