//! The control plane: logs, metrics, health. Reads what the shards and lanes show; touches no item.

pub mod delivery;
pub mod discover;
pub mod health;
pub mod logs;
pub mod metrics;
pub mod register;
pub mod serve;

use std::sync::Arc;
use std::time::Instant;

use forebay_exporters::cluster::Cluster;
use forebay_exporters::lane::Lane;

use self::discover::Discovered;
use crate::config::plan::Plan;
use crate::ledger::Ledger;
use crate::shard::{Phase, ShardStats};
use crate::tls::Doors;

/// What the control plane may look at.
pub struct View {
    pub plan: Arc<Plan>,
    pub ledger: Arc<Ledger>,
    pub shards: Vec<Arc<ShardStats>>,
    /// The core that each shard is pinned to.
    pub receiver_cores: Vec<usize>,
    /// By destination, then by exporter core.
    pub lanes: Vec<Vec<Arc<Lane>>>,
    /// The core that each exporter is pinned to.
    pub exporter_cores: Vec<usize>,
    /// By destination.
    pub clusters: Vec<Arc<Cluster>>,
    /// By destination.
    pub discovered: Vec<Arc<Discovered>>,
    pub phase: Arc<Phase>,
    pub tls: Arc<Doors>,
    pub epoch: Instant,
}

#[cfg(test)]
mod tests;
