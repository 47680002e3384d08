//! Health: each core is turning, each destination has endpoints, a route is open. `GET /` on the
//! `health_check` endpoint.
//!
//! 200 while all of that holds, 503 with the reason while any of it does not; so a load balancer
//! that asks here sends clients elsewhere before they are refused.

use std::sync::atomic::Ordering;

use forebay_net::request::Nanos;

use super::{View, discover};
use crate::shard::ShardStats;

/// A core that has not turned for this long does not turn: it would do so every second.
const PULSE_NANOS_MAX: u64 = 5_000_000_000;

/// `Ok`, or why not.
pub fn health(view: &View) -> Result<(), String> {
    if view.phase.is_draining() {
        return Err("draining: this node is about to stop".to_owned());
    }
    if let Some(reason) = stopped_core(view) {
        return Err(reason);
    }
    if let Some(reason) = discover::missing(view) {
        return Err(reason);
    }
    let open = view.shards.iter().any(|shard| shard.open.load(Ordering::Relaxed));
    if open { Ok(()) } else { Err("no route is open: every pipeline's queue is full".to_owned()) }
}

/// Whether a receiver core shows its pulse.
pub fn is_turning(shard: &ShardStats, now: Nanos) -> bool {
    let turned_at = shard.turned_at.load(Ordering::Relaxed);
    turned_at != 0 && now.saturating_sub(turned_at) <= PULSE_NANOS_MAX
}

fn stopped_core(view: &View) -> Option<String> {
    let now = view.epoch.elapsed().as_nanos() as u64;
    for (shard, core) in view.shards.iter().zip(&view.receiver_cores) {
        if is_turning(shard, now) {
            continue;
        }
        return Some(match shard.turned_at.load(Ordering::Relaxed) {
            0 => format!("the receiver on core {core} has not started"),
            turned_at => {
                let silent_ms = now.saturating_sub(turned_at) / 1_000_000;
                format!("the receiver on core {core} has not turned for {silent_ms} ms")
            }
        });
    }
    None
}

/// As the Collector's extension answers: a line of JSON.
pub fn body(health: &Result<(), String>, uptime_seconds: u64) -> String {
    let status = match health {
        Ok(()) => "Server available",
        Err(reason) => reason,
    };
    let uptime = format!("{uptime_seconds}s");
    serde_json::json!({"status": status, "uptime": uptime}).to_string()
}
