//! Health: each core is turning and a route is open. `GET /` on the `health_check` endpoint.
//!
//! 200 while all of that holds, 503 with the reason while any of it does not; so a load balancer
//! that asks here sends clients elsewhere before they are refused.

use std::sync::atomic::Ordering;

use super::View;

/// A core that has not turned for this long does not turn: it would do so every second.
const PULSE_NANOS_MAX: u64 = 5_000_000_000;

/// `Ok`, or why not.
pub fn health(view: &View) -> Result<(), String> {
    if view.phase.is_draining() {
        return Err("draining: this node is about to stop".to_owned());
    }
    let now = view.epoch.elapsed().as_nanos() as u64;
    for (shard, core) in view.shards.iter().zip(&view.receiver_cores) {
        let turned_at = shard.turned_at.load(Ordering::Relaxed);
        if turned_at == 0 {
            return Err(format!("the receiver on core {core} has not started"));
        }
        let silent = now.saturating_sub(turned_at);
        if silent > PULSE_NANOS_MAX {
            return Err(format!(
                "the receiver on core {core} has not turned for {} ms",
                silent / 1_000_000
            ));
        }
    }
    let open = view.shards.iter().any(|shard| shard.open.load(Ordering::Relaxed));
    if open { Ok(()) } else { Err("no route is open: every pipeline's queue is full".to_owned()) }
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
