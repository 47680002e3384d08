//! What a server counts, for whoever shows it.

use super::DatagramStats;
use crate::ring::RingStats;
use crate::tls::TlsStats;

/// Counters since the start, and gauges.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerStats {
    pub connections: u64,
    pub accepted: u64,
    pub closed: u64,
    /// Accepted and closed at once: `connections_max` was reached.
    pub over_limit: u64,
    pub accept_errors: u64,
    /// Connections ended by a deadline.
    pub timeouts: u64,
    /// Connections that were told to leave because of their age, or that of their keys.
    pub aged: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub ring: RingStats,
    pub tls: TlsStats,
    pub datagrams: DatagramStats,
    pub preflights: PreflightStats,
}

/// Browsers that asked what a page may do before they let it (CORS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PreflightStats {
    pub allowed: u64,
    /// The page's origin is in no list.
    pub refused: u64,
}
