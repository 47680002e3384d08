//! Who is in each destination's fleet: discovery's word, brought to the clusters.
//!
//! One task per destination whose endpoints can change, on the control runtime. What was written
//! into the configuration is there before the first batch is sent.

use std::sync::Arc;
use std::time::Instant;

use forebay_exporters::cluster::Cluster;
use forebay_exporters::discovery::{Discovery, Event, Watcher};

use super::View;
use crate::config::plan::Plan;

/// One cluster per destination, with those endpoints that need no looking for.
pub fn clusters(plan: &Plan) -> Vec<Arc<Cluster>> {
    let now = Instant::now();
    let cluster = |destination: &forebay_exporters::destination::Destination| {
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
    for (destination, cluster) in view.plan.destinations.iter().zip(&view.clusters) {
        if matches!(destination.backends.discovery, Discovery::Static(_)) {
            continue;
        }
        let watcher = Watcher::new(destination.backends.discovery.clone());
        tokio::spawn(follow(destination.name.clone(), watcher, Arc::clone(cluster)));
    }
}

async fn follow(destination: String, mut watcher: Watcher, cluster: Arc<Cluster>) {
    loop {
        match watcher.next().await {
            Event::Changed(update) => {
                let change = cluster.apply(Instant::now(), &update.endpoints);
                tracing::info!(
                    destination,
                    endpoints = update.endpoints.len(),
                    joined = change.joined,
                    left = change.left,
                    reweighted = change.reweighted,
                    "The destination's endpoints have changed"
                );
            }
            Event::Trouble(trouble) => tracing::warn!(destination, "{trouble}"),
            Event::Recovered(recovered) => tracing::info!(destination, "{recovered}"),
        }
    }
}
