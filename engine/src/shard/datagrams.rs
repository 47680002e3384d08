//! What a core shows of its QUIC: one table, from which counts are copied and metrics are named.

use forebay_net::server::ServerStats;

use crate::ledger::Count;

/// One family of metrics, without the prefix of its name.
pub struct Row {
    pub name: &'static str,
    pub kind: &'static str,
    pub help: &'static str,
    of: fn(&ServerStats) -> u64,
}

const fn counter(name: &'static str, help: &'static str, of: fn(&ServerStats) -> u64) -> Row {
    Row { name, kind: "counter", help, of }
}

const fn gauge(name: &'static str, help: &'static str, of: fn(&ServerStats) -> u64) -> Row {
    Row { name, kind: "gauge", help, of }
}

/// Written out: the length of a table of functions can't be asked for where a type is made.
const ROWS_COUNT: usize = 30;

pub const ROWS: [Row; ROWS_COUNT] = [
    gauge("connections", "Connections, those that ended a moment ago too.", |s| {
        s.datagrams.quic.connections
    }),
    gauge("handshakes_pending", "Handshakes under way.", |s| s.datagrams.quic.handshaking),
    counter("connections_accepted", "Connections since the start.", |s| s.datagrams.quic.accepted),
    counter("connections_closed", "Connections that have ended.", |s| s.datagrams.quic.closed),
    counter("connections_refused", "Clients sent away: too many, or the process drains.", |s| {
        s.datagrams.quic.refused
    }),
    counter("handshakes", "Handshakes that ended well.", |s| s.datagrams.quic.handshakes),
    counter("handshakes_failed", "Handshakes that came to nothing.", |s| {
        s.datagrams.quic.handshakes_failed
    }),
    counter(
        "handshakes_put_off",
        "First packets that had to wait for another turn, or found no room to wait.",
        |s| s.datagrams.quic.put_off,
    ),
    counter("retries", "Clients that had to prove their address first.", |s| {
        s.datagrams.quic.retries
    }),
    counter("unreadable", "First packets that began no connection.", |s| {
        s.datagrams.quic.unreadable
    }),
    counter("stateless_resets", "Stateless resets that were sent.", |s| s.datagrams.quic.resets),
    counter("replies_dropped", "Answers to first packets that found no room.", |s| {
        s.datagrams.quic.replies_dropped
    }),
    counter("migrations", "Changes of a client's address.", |s| s.datagrams.quic.migrated),
    counter("moves_refused", "Datagrams from yet another address that were not taken.", |s| {
        s.datagrams.quic.moves_refused
    }),
    counter("timeouts", "Deadlines that clients missed.", |s| s.datagrams.quic.timeouts),
    counter("lost_packets", "Packets to clients that were lost.", |s| {
        s.datagrams.quic.lost_packets
    }),
    gauge(
        "window_bytes",
        "Of the memory budget: what clients may send ahead beyond their first windows.",
        |s| s.datagrams.quic.window_bytes,
    ),
    gauge("held_bytes", "Of the memory budget: what came behind gaps in its streams.", |s| {
        s.datagrams.quic.held_bytes
    }),
    counter("datagrams_too_long", "Datagrams not taken: longer than clients were told.", |s| {
        s.datagrams.quic.datagrams_too_long
    }),
    counter("received_datagrams", "Datagrams from clients.", |s| {
        s.datagrams.quic.received_datagrams
    }),
    counter("received_bytes", "Bytes from clients.", |s| s.datagrams.quic.received_bytes),
    counter("sent_datagrams", "Datagrams to clients.", |s| s.datagrams.quic.sent_datagrams),
    counter("answered_bytes", "Bytes to clients.", |s| s.datagrams.quic.sent_bytes),
    counter("datagrams_given", "Datagrams handed to the core that has their connection.", |s| {
        s.datagrams.quic.strangers
    }),
    counter("datagrams_taken", "Datagrams that another core had received.", |s| {
        s.datagrams.quic.adopted
    }),
    counter("datagrams_dropped", "Datagrams from another core that found no room.", |s| {
        s.datagrams.crossing.dropped
    }),
    counter("datagrams_truncated", "Datagrams longer than their buffer.", |s| {
        s.ring.datagrams_truncated
    }),
    counter("trains_refused", "Sends that the kernel would not cut into datagrams.", |s| {
        s.ring.trains_refused
    }),
    counter("receive_errors", "Receives that failed.", |s| s.datagrams.receive_errors),
    counter("send_errors", "Sends that failed, probes for longer packets among them.", |s| {
        s.datagrams.send_errors
    }),
];

/// In the order of [`ROWS`].
pub type Counts = [Count; ROWS_COUNT];

pub(super) fn publish(stats: &ServerStats, counts: &Counts) {
    for (row, count) in ROWS.iter().zip(counts) {
        count.set((row.of)(stats));
    }
}
