//! A watcher and a registrar over scripted sources, by a clock that stands until all wait.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::registrar::{Announced, Doing, Health, News, Registrar, Registry, State};
use super::source::{Again, Answer, Failure, Look};
use super::*;

/// Says what it is told to, a second after it was asked.
struct Slow {
    script: Vec<Said>,
    asked: usize,
}

impl Source for Slow {
    fn name(&self) -> String {
        "slow".to_owned()
    }

    fn look(&mut self) -> Look<'_> {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let said = self.script[self.asked % self.script.len()].clone();
            self.asked += 1;
            said
        })
    }
}

fn answer(port: u16) -> Said {
    let endpoints = vec![Endpoint::at("a", port).expect("an address")];
    Ok(Answer { endpoints, again: Again::AtOnce, notes: Vec::new() })
}

fn watcher(script: Vec<Said>) -> Watcher {
    Watcher::of(Box::new(Slow { script, asked: 0 }), Pace::default(), Limits::default())
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_given_up_again_and_again_comes_to_its_end() {
    let begun = now();
    let mut watcher = watcher(vec![answer(1), answer(2)]);
    let mut given_up = 0;
    for generation in 1..=10 {
        let event = loop {
            match tokio::time::timeout(Duration::from_millis(10), watcher.next()).await {
                Ok(event) => break event,
                Err(_) => given_up += 1,
            }
        };
        assert!(matches!(&event, Event::Changed(set) if set.generation == generation), "{event:?}");
    }
    assert!(given_up > 1000, "only {given_up} were given up");
    // A look takes a second, and so does the pause behind each but the last.
    let took = now() - begun;
    assert!(took < Duration::from_millis(19_500), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watcher_tells_changes_and_trouble_in_their_order() {
    let failure = Err(Failure::new("refused", "start it"));
    let mut watcher = watcher(vec![answer(1), failure, answer(2)]);
    assert!(matches!(watcher.next().await, Event::Changed(set) if set.generation == 1));
    assert!(matches!(watcher.next().await, Event::Trouble(_)));
    assert!(watcher.status().failing.is_some());
    assert!(matches!(watcher.next().await, Event::Changed(set) if set.generation == 2));
    assert!(matches!(watcher.next().await, Event::Recovered(_)));
    assert!(watcher.status().failing.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_static_list_is_told_once() {
    let list = fixed::Static::of(["b:1", "A", "b:1"], Some(4317)).expect("addresses");
    let mut watcher = Watcher::new(Discovery::Static(list));
    let Event::Changed(set) = watcher.next().await else {
        panic!("{:?}", watcher.status());
    };
    let seen: Vec<&str> = set.endpoints.iter().map(Endpoint::address).collect();
    assert_eq!(seen, ["a:4317", "b:1"]);
    let said = tokio::time::timeout(Duration::from_secs(86_400), watcher.next()).await;
    assert!(said.is_err(), "{said:?}");
}

#[test]
fn what_waits_may_wait_on_any_thread() {
    fn is_send<T: Send>(_: T) {}
    is_send(watcher(vec![answer(1)]).next());
    is_send(registrar(Arc::default()).next());
    is_send(registrar(Arc::default()).leave(Duration::ZERO));
}

/// Remembers what it is told, a second after it was told.
struct Book(Arc<Mutex<Vec<Option<State>>>>);

impl Registry for Book {
    fn name(&self) -> String {
        "book".to_owned()
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn announce<'a>(&'a mut self, health: &'a Health) -> Doing<'a, Announced> {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut told = self.0.lock().expect("no test has panicked");
            told.push(Some(health.state));
            Ok(if told.len() == 1 { Announced::Anew } else { Announced::Known })
        })
    }

    fn withdraw(&mut self) -> Doing<'_, ()> {
        self.0.lock().expect("no test has panicked").push(None);
        Box::pin(std::future::ready(Ok(())))
    }
}

fn health(state: State) -> Health {
    Health { state, note: String::new() }
}

fn registrar(told: Arc<Mutex<Vec<Option<State>>>>) -> Registrar {
    Registrar::of(Box::new(Book(told)), health(State::Passing))
}

#[tokio::test(start_paused = true)]
async fn health_that_changes_while_it_is_announced_is_announced_right_after() {
    let told = Arc::default();
    let mut registrar = registrar(Arc::clone(&told));
    // Under way, and given up: the announcement goes on all the same.
    let half = Duration::from_millis(500);
    assert!(tokio::time::timeout(half, registrar.next()).await.is_err());
    registrar.set_health(health(State::Critical));
    assert!(matches!(registrar.next().await, News::Registered { .. }));
    assert!(tokio::time::timeout(3 * half, registrar.next()).await.is_err());
    let seen = told.lock().expect("no test has panicked").clone();
    assert_eq!(seen, [Some(State::Passing), Some(State::Critical)]);
    registrar.leave(Duration::from_secs(10)).await.expect("the book takes all");
    assert_eq!(told.lock().expect("no test has panicked").last(), Some(&None));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_in_the_middle_of_an_announcement_is_taken_out_after_it() {
    let told = Arc::default();
    let mut registrar = registrar(Arc::clone(&told));
    assert!(tokio::time::timeout(Duration::from_millis(500), registrar.next()).await.is_err());
    registrar.leave(Duration::from_secs(10)).await.expect("the book takes all");
    let seen = told.lock().expect("no test has panicked").clone();
    assert_eq!(seen, [Some(State::Passing), None]);
}
