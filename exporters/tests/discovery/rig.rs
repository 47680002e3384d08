//! What all of these tests need: a watcher that is waited for, and a count of what it leaves open.

use std::time::Duration;

use forebay_exporters::discovery::keeper::{Limits, Pace};
use forebay_exporters::discovery::{Discovery, Event, Recovered, Trouble, Watcher};
use rustix::time::{ClockId, clock_gettime};

/// Longer than anything here takes, on a machine with other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// So quick that a test need not wait.
pub(crate) const QUICK: Pace = Pace {
    interval_min: Duration::from_millis(20),
    interval_max: Duration::from_secs(5),
    backoff_max: Duration::from_millis(100),
};

pub(crate) fn quick(discovery: Discovery) -> Watcher {
    Watcher::with(discovery, QUICK, Limits::default())
}

pub(crate) async fn next(watcher: &mut Watcher) -> Event {
    let next = tokio::time::timeout(PATIENCE, watcher.next()).await;
    next.unwrap_or_else(|_| panic!("nothing to tell: {:?}", watcher.status()))
}

/// Waits until the set is this one, past everything else.
pub(crate) async fn until(watcher: &mut Watcher, addresses: &[&str]) {
    loop {
        if let Event::Changed(update) = next(watcher).await {
            let seen: Vec<&str> = update.endpoints.iter().map(|e| e.address()).collect();
            if seen == addresses {
                return;
            }
        }
    }
}

/// Waits for trouble; the set must not change meanwhile.
pub(crate) async fn trouble(watcher: &mut Watcher) -> Trouble {
    match next(watcher).await {
        Event::Trouble(trouble) => trouble,
        other => panic!("{other:?}"),
    }
}

/// Waits until the trouble is over; the set must not change meanwhile.
pub(crate) async fn recovered(watcher: &mut Watcher) -> Recovered {
    loop {
        match next(watcher).await {
            Event::Recovered(recovered) => return recovered,
            // It may fail for another reason first.
            Event::Trouble(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// That nothing is told for a while in which the source was asked several times.
pub(crate) async fn quiet(watcher: &mut Watcher, looks: u64) {
    let before = watcher.status().answers_total;
    let asked = async {
        // `next` is dropped again and again, as in a `select!`.
        while watcher.status().answers_total < before + looks {
            let said = tokio::time::timeout(Duration::from_millis(200), watcher.next()).await;
            assert!(said.is_err(), "{said:?}");
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("the source is asked");
}

pub(crate) fn addresses(watcher: &Watcher) -> Vec<String> {
    let update = watcher.status().update.expect("a set");
    update.endpoints.iter().map(|endpoint| endpoint.address().to_owned()).collect()
}

/// File descriptors of this process that stand for `what`: `socket`, `inotify`.
pub(crate) fn descriptors(what: &str) -> usize {
    let folder = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = folder.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| link.to_string_lossy().contains(what)).count()
}

/// In seconds.
pub(crate) fn cpu_of_this_thread() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
