//! What a shard shows of itself: copied out a few times a second, read by the control plane.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use forebay_net::request::Nanos;
use forebay_net::ring::Ring;
use forebay_net::tls::Failure;

use super::{Shard, datagrams};
use crate::ledger::Count;

const PUBLISH_INTERVAL: Nanos = 200_000_000;

/// Gauges and counters of one receiver core.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardStats {
    /// When it last turned, in nanoseconds since the process's epoch: its pulse.
    pub turned_at: AtomicU64,
    /// Whether any pipeline takes requests.
    pub open: AtomicBool,
    /// The signals that some route takes requests of: a bit each.
    pub open_signals: AtomicU8,
    pub turns: Count,
    pub connections: Count,
    pub connections_accepted: Count,
    pub connections_over_limit: Count,
    pub accept_errors: Count,
    pub timeouts: Count,
    pub received_bytes: Count,
    pub sent_bytes: Count,
    pub ring_enters: Count,
    pub ring_completions: Count,
    pub ring_overflows: Count,
    pub ring_no_buffers: Count,
    pub budget_taken_bytes: Count,
    pub budget_bytes: Count,
    pub batches_pending: Count,
    pub batches_sealed: Count,
    pub tickets: Count,
    pub health_requests: Count,
    pub reflection_requests: Count,
    pub open_calls: Count,
    /// In thousandths: see `spread`.
    pub load: Count,
    pub connections_aged: Count,
    pub connections_given: Count,
    pub connections_taken: Count,
    pub requests_given: Count,
    pub requests_taken: Count,
    pub requests_returned: Count,
    pub handshakes_pending: Count,
    pub handshakes_completed: Count,
    pub handshakes_resumed: Count,
    pub tls_broken: Count,
    /// In the order of `Failure::ALL`.
    pub handshakes_failed: [Count; Failure::ALL.len()],
    pub tls_misdirected: Count,
    pub preflights_allowed: Count,
    pub preflights_refused: Count,
    /// Of QUIC, in the order of `Failure::ALL`.
    pub quic_failed: [Count; Failure::ALL.len()],
    pub datagrams: datagrams::Counts,
}

impl<R: Ring> Shard<R> {
    pub(super) fn publish_sometimes(&mut self, now: Nanos) {
        self.stats.turns.add(1);
        let last = self.stats.turned_at.load(Ordering::Relaxed);
        if now.saturating_sub(last) >= PUBLISH_INTERVAL || last == 0 {
            self.publish(now);
        }
    }

    pub(super) fn publish(&mut self, now: Nanos) {
        let server = self.server.stats();
        let stats = &self.stats;
        stats.connections.set(server.connections);
        stats.connections_accepted.set(server.accepted);
        stats.connections_over_limit.set(server.over_limit);
        stats.accept_errors.set(server.accept_errors);
        stats.timeouts.set(server.timeouts);
        stats.received_bytes.set(server.received_bytes);
        stats.sent_bytes.set(server.sent_bytes);
        stats.ring_enters.set(server.ring.enters);
        stats.ring_completions.set(server.ring.completions);
        stats.ring_overflows.set(server.ring.cq_overflows);
        stats.ring_no_buffers.set(server.ring.no_buffers);
        stats.budget_taken_bytes.set(self.ingest.budget.taken_bytes() as u64);
        stats.budget_bytes.set(self.ingest.budget.bytes_max() as u64);
        stats.batches_pending.set(self.pending.len() as u64);
        stats.batches_sealed.set(self.batches_sealed);
        stats.tickets.set(self.tickets.count() as u64);
        let services = self.ingest.services.stats();
        stats.health_requests.set(services.health_requests);
        stats.reflection_requests.set(services.reflection_requests);
        stats.open_calls.set(services.open_calls);
        stats.open_signals.store(self.ingest.open_signals(), Ordering::Relaxed);
        stats.connections_aged.set(server.aged);
        stats.handshakes_pending.set(server.tls.pending);
        stats.handshakes_completed.set(server.tls.completed);
        stats.handshakes_resumed.set(server.tls.resumed);
        stats.tls_broken.set(server.tls.broken);
        for (count, failed) in stats.handshakes_failed.iter().zip(server.tls.failed) {
            count.set(failed);
        }
        stats.tls_misdirected.set(server.tls.misdirected);
        stats.preflights_allowed.set(server.preflights.allowed);
        stats.preflights_refused.set(server.preflights.refused);
        for (count, failed) in stats.quic_failed.iter().zip(server.datagrams.quic.failures) {
            count.set(failed);
        }
        datagrams::publish(&server, &stats.datagrams);
        self.sharing.publish(stats);
        let open = !self.ingest.draining
            && self.ingest.standings.iter().any(|standing| standing.is_open());
        stats.open.store(open, Ordering::Relaxed);
        stats.turned_at.store(now.max(1), Ordering::Relaxed);
    }
}
