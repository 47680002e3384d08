//! Who is in each destination's fleet: discovery's word, brought to the clusters.
//!
//! One task per destination whose endpoints can change, on the control runtime. What was written
//! into the configuration is there before the first batch is sent. Always: a fleet that comes and
//! goes fills no log, at most one line in [`CALM`] for each destination says what changed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use forebay_exporters::cluster::Cluster;
use forebay_exporters::destination::Destination;
use forebay_exporters::discovery::event::Cost;
use forebay_exporters::discovery::keeper::{Limits, Status};
use forebay_exporters::discovery::{Discovery, Event, Recovered, Trouble, Update, Watcher};
use forebay_exporters::endpoints::Change;

use super::View;
use crate::config::plan::{Output, Plan};

/// Between two lines about changes of one destination.
const CALM: Duration = Duration::from_secs(5);
/// How often what discovery knows is looked at, though nothing happened.
const LOOK: Duration = Duration::from_secs(1);
/// Of the first set, so many are named in the log.
const NAMED: usize = 5;

/// What discovery knows of one destination, for those who look from outside.
#[derive(Default)]
pub struct Discovered {
    last: Mutex<Option<(Instant, Status)>>,
}

impl Discovered {
    /// As of `now`; `None` where nothing has to be discovered.
    pub fn status(&self, now: Instant) -> Option<Status> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, status) = last.as_ref()?;
        let age = status.age.map(|age| age + now.saturating_duration_since(*at));
        Some(Status { age, ..status.clone() })
    }

    pub(super) fn note(&self, now: Instant, status: Status) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, status));
    }
}

/// One cluster per destination, with those endpoints that need no looking for.
pub fn clusters(plan: &Plan) -> Vec<Arc<Cluster>> {
    let now = Instant::now();
    let cluster = |destination: &Destination| {
        let cluster = Cluster::new(&destination.backends, now);
        if let Discovery::Static(list) = &destination.backends.discovery {
            cluster.apply(now, &list.endpoints);
        }
        cluster
    };
    plan.destinations.iter().map(cluster).collect()
}

/// Starts a task for each source that can change; they end with the process.
pub fn follow_all(view: &View) {
    let destinations = view.plan.destinations.iter().enumerate();
    for (((index, destination), cluster), known) in
        destinations.zip(&view.clusters).zip(&view.discovered)
    {
        if matches!(destination.backends.discovery, Discovery::Static(_)) {
            continue;
        }
        let backends = &destination.backends;
        let discovery = view.tls.discovery(index, backends.discovery.clone());
        let watcher = Watcher::with(discovery, backends.pace, Limits::default());
        known.note(Instant::now(), watcher.status());
        let name = destination.name.clone();
        tokio::spawn(follow(name, watcher, Arc::clone(cluster), Arc::clone(known)));
    }
}

/// The first destination that items can't do without, and for which nobody was ever found, and
/// why. A mirror is none, nor is a level of a failover while another one has endpoints.
pub fn missing(view: &View) -> Option<String> {
    let is_empty = |destination: &u16| {
        view.clusters[usize::from(*destination)].endpoints().snapshot().endpoints().is_empty()
    };
    let outputs = view.plan.pipelines.iter().flat_map(|pipeline| &pipeline.outputs);
    let of_outputs = outputs.filter_map(|output| match output {
        Output::Mirror { .. } => None,
        Output::Failover(levels) => levels.first().filter(|_| levels.iter().all(is_empty)).copied(),
        Output::One(_) | Output::Shift { .. } => output.destinations().into_iter().find(is_empty),
    });
    let letters = view.plan.dead_letters.iter().zip(view.plan.needed());
    let letters = letters.filter_map(|(letters, is_needed)| letters.filter(|_| is_needed));
    let missing = usize::from(of_outputs.chain(letters.filter(is_empty)).min()?);
    let destination = &view.plan.destinations[missing];
    let why = match view.discovered[missing].status(Instant::now()) {
        Some(Status { source, failing: Some(failing), .. }) => format!("{source}: {failing}"),
        Some(Status { source, .. }) => format!("{source} has not answered yet"),
        None => "its list is empty".to_owned(),
    };
    Some(format!("no endpoint of {} is known yet: discovery by {why}", destination.name))
}

async fn follow(
    destination: String,
    mut watcher: Watcher,
    cluster: Arc<Cluster>,
    known: Arc<Discovered>,
) {
    let mut changes = Changes::default();
    loop {
        // Giving up the wait loses nothing: the next one goes on where this one was.
        let event = tokio::time::timeout(LOOK, watcher.next()).await;
        let (now, status) = (Instant::now(), watcher.status());
        match event {
            Ok(Event::Changed(update)) => {
                changes.add(&cluster.apply(now, &update.endpoints), &update);
            }
            Ok(Event::Trouble(trouble)) => tell_trouble(&destination, &trouble),
            Ok(Event::Recovered(recovered)) => tell_recovered(&destination, &recovered),
            Err(_) => {}
        }
        if let Some(told) = changes.take_due(now) {
            tell_changes(&destination, &status.source, &told);
        }
        known.note(now, status);
    }
}

/// What has changed since it was told last.
#[derive(Default)]
struct Changes {
    pending: Option<Told>,
    told_at: Option<Instant>,
}

/// One line's worth of changes.
#[derive(Debug, Default, PartialEq)]
struct Told {
    is_first: bool,
    sets: u64,
    joined: usize,
    left: usize,
    reweighted: usize,
    /// In the last set.
    endpoints: usize,
    /// Some of them.
    named: String,
}

impl Changes {
    fn add(&mut self, change: &Change, update: &Update) {
        if change.joined + change.left + change.reweighted == 0 {
            return;
        }
        let is_first = self.told_at.is_none() && self.pending.is_none();
        let told = self.pending.get_or_insert_with(|| Told { is_first, ..Told::default() });
        told.sets += 1;
        told.joined += change.joined;
        told.left += change.left;
        told.reweighted += change.reweighted;
        told.endpoints = update.endpoints.len();
        let some: Vec<&str> =
            update.endpoints.iter().take(NAMED).map(|endpoint| endpoint.address()).collect();
        told.named = some.join(", ");
    }

    /// What is to be told now.
    fn take_due(&mut self, now: Instant) -> Option<Told> {
        let is_calm = |at: Instant| now.saturating_duration_since(at) < CALM;
        if self.told_at.is_some_and(is_calm) {
            return None;
        }
        let told = self.pending.take()?;
        self.told_at = Some(now);
        Some(told)
    }
}

fn tell_changes(destination: &str, source: &str, told: &Told) {
    let Told { endpoints, joined, left, reweighted, .. } = *told;
    if told.is_first {
        let some = told.named.as_str();
        tracing::info!(
            destination,
            source,
            endpoints,
            some,
            "Discovery has found the destination's endpoints."
        );
    } else {
        let sets = told.sets;
        tracing::info!(
            destination,
            source,
            endpoints,
            joined,
            left,
            reweighted,
            sets,
            "The destination's endpoints have changed. What waits goes to those that are left."
        );
    }
}

fn tell_trouble(destination: &str, trouble: &Trouble) {
    let (source, error) = (trouble.source.as_str(), trouble.what.as_str());
    let (cost, hint, failures) = (trouble.cost.to_string(), trouble.advice, trouble.failures);
    let what = match trouble.cost {
        Cost::PartUnused => "Part of what discovery says can't be used.",
        _ => "Discovery fails.",
    };
    tracing::warn!(destination, source, error, cost, hint, failures, "{what}");
}

fn tell_recovered(destination: &str, recovered: &Recovered) {
    let (source, after_seconds) = (recovered.source.as_str(), recovered.after.as_secs());
    tracing::info!(destination, source, after_seconds, "Discovery works again.");
}

#[cfg(test)]
mod tests {
    use forebay_exporters::discovery::fixed::Static;

    use super::*;

    fn update(generation: u64, addresses: &[&str]) -> Update {
        let list = Static::of(addresses.iter().copied(), None).expect("addresses");
        Update { generation, endpoints: list.endpoints }
    }

    #[test]
    fn changes_are_told_at_once_and_then_once_in_a_while_and_none_is_forgotten() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut changes = Changes::default();
        assert_eq!(changes.take_due(at(0)), None);
        let joined = |joined| Change { joined, ..Change::default() };
        changes.add(&joined(2), &update(1, &["a:1", "b:1"]));
        let first = changes.take_due(at(0)).expect("the first set is told at once");
        assert!(first.is_first && first.named == "a:1, b:1", "{first:?}");

        let (mut lines, mut seen) = (0, 0);
        let churn = Change { joined: 1, left: 1, reweighted: 1, ..Change::default() };
        for round in 1..=1_000 {
            changes.add(&churn, &update(round + 1, &["a:1", "b:1"]));
            if let Some(told) = changes.take_due(at(round * 10)) {
                assert!(!told.is_first && told.joined == told.left && told.endpoints == 2);
                lines += 1;
                seen += told.sets;
            }
        }
        assert_eq!(lines, 2, "ten seconds of churn are two lines");
        seen += changes.take_due(at(100_000)).map_or(0, |told| told.sets);
        assert_eq!(seen, 1_000, "each change is in one line");
    }

    #[test]
    fn a_set_that_changes_nobody_is_no_line() {
        let mut changes = Changes::default();
        changes.add(&Change::default(), &update(1, &["a:1"]));
        assert_eq!(changes.take_due(Instant::now()), None);
    }

    #[test]
    fn what_is_known_grows_older_between_two_looks() {
        let (known, begin) = (Discovered::default(), Instant::now());
        assert!(known.status(begin).is_none());
        let list = Discovery::Static(Static::of(["a:1"], None).expect("an address"));
        let status = Status { age: Some(Duration::from_secs(2)), ..Watcher::new(list).status() };
        known.note(begin, status);
        let later = known.status(begin + Duration::from_secs(3)).expect("it was noted");
        assert_eq!(later.age, Some(Duration::from_secs(5)));
    }
}
