//! Places whose files hang and come back, beside places whose files do not.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};

use super::*;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Counts its looks, and is in each of them until it is let go.
struct Slow {
    let_go: Mutex<Receiver<()>>,
    begun: AtomicUsize,
    ended: AtomicUsize,
}

impl Slow {
    fn new() -> (Arc<Slow>, Sender<()>) {
        let (sender, let_go) = mpsc::channel();
        let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        (Arc::new(Slow { let_go: Mutex::new(let_go), begun, ended }), sender)
    }

    fn looks(&self) -> (usize, usize) {
        (self.begun.load(Ordering::SeqCst), self.ended.load(Ordering::SeqCst))
    }
}

impl Place for Slow {
    fn name(&self) -> String {
        "slow".to_owned()
    }

    fn is_due(&self, _now: Instant) -> bool {
        false
    }

    fn reload(&self, _now: Instant) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let let_go = self.let_go.lock().expect("one look at a time");
        // A sender that is gone lets go of all.
        let _ = let_go.recv_timeout(LONG);
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    fn warn(&self, _now: Instant, _wall: SystemTime) {}
}

/// Steps until `wanted`, and never for longer than [`LONG`].
async fn step_until(looks: &mut Looks, wanted: impl Fn(&Looks) -> bool) {
    let stepping = async {
        while !wanted(looks) {
            looks.step(Instant::now(), false).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LONG, stepping).await.expect("it comes to that");
}

fn places(slow: &[&Arc<Slow>]) -> Looks {
    Looks::at(slow.iter().map(|slow| Arc::clone(slow) as Arc<dyn Place>).collect())
}

#[tokio::test]
async fn a_place_that_hangs_holds_up_no_other_and_is_looked_at_again_when_it_comes_back() {
    let ((lost, come_back), (sound, go)) = (Slow::new(), Slow::new());
    let mut looks = places(&[&lost, &sound]);
    for round in 1..=3 {
        // As SIGHUP asks.
        looks.step(Instant::now(), true).await;
        go.send(()).expect("it is looked at");
        step_until(&mut looks, |looks| sound.looks().1 == round && looks.places[1].look.is_none())
            .await;
    }
    step_until(&mut looks, |_| lost.looks() == (1, 0)).await;
    // What was asked for while it hung is done once, however often it was.
    come_back.send(()).expect("it hangs");
    step_until(&mut looks, |_| lost.looks() == (2, 1)).await;
    come_back.send(()).expect("it is looked at");
    step_until(&mut looks, |looks| lost.looks().1 == 2 && looks.places[0].look.is_none()).await;
    looks.step(Instant::now(), false).await;
    assert!(looks.places.iter().all(|place| place.look.is_none() && !place.is_asked));
}

#[tokio::test]
async fn that_a_place_hangs_is_said_once_its_time_is_over() {
    let (lost, come_back) = Slow::new();
    let mut looks = places(&[&lost]);
    let begun = Instant::now();
    let is_told = |looks: &Looks| looks.places[0].look.as_ref().map(|look| look.is_told);
    looks.step(begun, true).await;
    looks.step(begun + PATIENCE - Duration::from_millis(1), false).await;
    assert_eq!(is_told(&looks), Some(false));
    looks.step(begun + PATIENCE, false).await;
    assert_eq!(is_told(&looks), Some(true));
    drop(come_back);
    step_until(&mut looks, |looks| is_told(looks).is_none()).await;
}

#[tokio::test]
async fn threads_that_hang_are_bounded_and_who_had_none_gets_its_turn() {
    let many: Vec<_> = (0..LOOKS_MAX + 9).map(|_| Slow::new()).collect();
    let mut looks = places(&many.iter().map(|(slow, _)| slow).collect::<Vec<_>>());
    for _ in 0..3 {
        looks.step(Instant::now(), false).await;
    }
    assert!(looks.places.iter().all(|place| place.look.is_none()), "nobody asked");
    looks.step(Instant::now(), true).await;
    looks.step(Instant::now(), false).await;
    let under_way = looks.places.iter().filter(|place| place.look.is_some()).count();
    assert_eq!(under_way, LOOKS_MAX);
    let (slow, senders): (Vec<_>, Vec<_>) = many.into_iter().unzip();
    drop(senders);
    step_until(&mut looks, |_| slow.iter().all(|slow| slow.looks() == (1, 1))).await;
}
