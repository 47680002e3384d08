//! Who takes what: decisions about fresh connections and complete requests, between receiver
//! cores. Numbers in, places out; how things get there is `neighbours`.
//!
//! Load is the share of time in which a core's thread ran or waited for its CPU, over at least
//! [`MEASURE_NANOS`], as the kernel counts it: it holds what the kernel does for the thread inside
//! of a system call, and a core that shares its CPU does not look idle.
//!
//! Fresh connections go by load where loads clearly differ, else by number. What was placed since
//! a core was last measured counts as the average connection's load, so that a burst does not all
//! go to one core. Where all are alike every core keeps what the kernel gave it.
//!
//! Complete requests move when their core is hot and a neighbour is done with them sooner: a core
//! compares what lies before it in this turn with what lies before the neighbour, its own and what
//! it was given already. To have received the requests is the core's own work, and it will come
//! again with the next ones, so it counts beside a neighbour whose thread clearly ran less (one
//! that waits for its CPU shows that by the work that stays before it); beside others only half of
//! what can move does. Work is counted in bytes that are only checked, about a sixth
//! of a nanosecond each: to receive one costs [`RECEIVE_WEIGHT`] halves of that, one that is
//! compressed [`PACKED_WEIGHT`] times, one of JSON [`JSON_WEIGHT`] times as much.
//!
//! What stays: requests lighter than [`MOVE_WEIGHT_MIN`], and those whose bytes are not worth
//! [`WAY_WEIGHT`] each, which are protobuf without compression. Their bytes lie warm in the cache
//! of the core that received them; the neighbour has to fetch them, and its core receives the next
//! into memory that has gone cold. Measured with 37 KB each, that cost both sides together 15
//! microseconds, twice the check that it saved. To wake a neighbour costs [`WAKE_WEIGHT`], which
//! only several requests together are worth.

use forebay_net::request::Nanos;

/// Load is measured over no less than this.
pub const MEASURE_NANOS: Nanos = 20_000_000;
/// Loads are in thousandths.
pub const FULL: u32 = 1000;
/// A difference in load that is no accident.
const LOAD_STEP: u32 = 200;
/// Connections more than another core's that are worth a hand-over, beside an eighth of its own.
const CONNECTIONS_STEP: u32 = 4;
/// A connection that nobody knows yet is at least so much load.
const FRESH_LOAD_MIN: u32 = 5;
/// From this load on a core gives requests away.
const HOT: u32 = 800;
/// Lighter requests are not worth the way.
pub const MOVE_WEIGHT_MIN: u64 = 8 << 10;
/// How much dearer a byte is that is compressed than one that is only checked: gzip and zstd make
/// five to eight bytes of it.
pub const PACKED_WEIGHT: u64 = 24;
pub const JSON_WEIGHT: u64 = 6;
/// What it costs to read a byte on another core than the one that received it.
pub const WAY_WEIGHT: u64 = 4;
/// To wake a core that sleeps: a system call here, an interrupt and a turn there.
pub const WAKE_WEIGHT: u64 = 48 << 10;
/// Of a byte that is received, in halves; and of a request, whatever its length.
pub const RECEIVE_WEIGHT: u64 = 3;
pub const RECEIVE_WEIGHT_MIN: u64 = 8 << 10;

/// A receiver core, seen by another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// It takes what it is given.
    pub is_open: bool,
    pub load: u32,
    pub connections: u32,
    /// Of these, placed since its load was measured.
    pub fresh: u32,
}

/// Where a connection shall live that `me` accepted.
pub fn place(me: usize, cores: &[Standing]) -> usize {
    let load: u64 = cores.iter().map(|core| u64::from(core.load)).sum();
    let connections: u64 = cores.iter().map(|core| u64::from(core.connections)).sum();
    let each = (load / connections.max(1)) as u32;
    let expected = |core: &Standing| core.load + core.fresh * each.max(FRESH_LOAD_MIN);
    let others = || {
        let open = |(index, core): &(usize, &Standing)| *index != me && core.is_open;
        cores.iter().enumerate().filter(open)
    };
    let mine = &cores[me];
    let idlest = others().min_by_key(|(_, core)| (expected(core), core.connections));
    if let Some((index, core)) = idlest
        && is_idler(expected(core), expected(mine))
    {
        return index;
    }
    let is_no_busier = |core: &Standing| expected(core) <= expected(mine) + LOAD_STEP / 2;
    let emptiest =
        others().filter(|(_, core)| is_no_busier(core)).min_by_key(|(_, core)| core.connections);
    match emptiest {
        Some((index, core))
            if core.connections + CONNECTIONS_STEP.max(core.connections / 8)
                <= mine.connections =>
        {
            index
        }
        _ => me,
    }
}

/// Whether a core gives requests away at all.
pub fn is_hot(load: u32) -> bool {
    load >= HOT
}

/// Whether a core's load is clearly less than `mine`.
pub fn is_idler(load: u32, mine: u32) -> bool {
    load + LOAD_STEP < mine
}

/// Whether a request of `weight` and so many `bytes` may move at all.
pub fn is_worth_the_way(weight: u64, bytes: u64) -> bool {
    weight >= MOVE_WEIGHT_MIN && weight > WAY_WEIGHT * bytes
}

/// Who does a request of `weight`, if it is worth the way: the neighbour with the least `work`
/// before it (`None`: it takes nothing), if it is done before all is done that lies `here`.
pub fn move_to(
    weight: u64,
    here: u64,
    neighbours: impl Iterator<Item = Option<u64>>,
) -> Option<usize> {
    let work = neighbours.enumerate().filter_map(|(index, work)| Some((work?, index)));
    let (work, index) = work.min()?;
    (work + weight + MOVE_WEIGHT_MIN <= here).then_some(index)
}

/// Takes the load of one thread: from the time that it wanted its CPU, as the kernel counts it.
#[derive(Debug, Default)]
pub struct Meter {
    since: Option<(Nanos, Nanos)>,
    load: u32,
}

impl Meter {
    /// Whether it is time to look.
    pub fn is_due(&self, now: Nanos) -> bool {
        self.since.is_none_or(|(then, _)| now.saturating_sub(then) >= MEASURE_NANOS)
    }

    /// `wanted`: for how long the thread has wanted its CPU since it began. The load over about
    /// the last five looks, or more if they are far apart.
    pub fn look(&mut self, now: Nanos, wanted: Nanos) -> u32 {
        if let Some((then, before)) = self.since
            && now > then
        {
            let elapsed = now - then;
            let busy = wanted.saturating_sub(before).min(elapsed);
            let latest = (busy * u64::from(FULL) / elapsed) as u32;
            // After a long sleep what was before it says nothing.
            let weight = (elapsed / MEASURE_NANOS).clamp(1, 4) as u32;
            self.load = (self.load * (4 - weight) + latest * weight) / 4;
        }
        self.since = Some((now, wanted));
        self.load
    }
}

#[cfg(test)]
mod tests;
