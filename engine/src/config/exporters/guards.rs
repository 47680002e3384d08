//! What keeps a destination's endpoints from harm, and batches from bad endpoints:
//! `circuit_breaker`, `retry_budget`, `health_check`, `pool`.

use std::time::Duration;

use forebay_exporters::breaker::{self, FleetSettings};
use forebay_exporters::budget;
use forebay_exporters::destination::{HealthCheck, Pool, Probe};

use crate::config::keys::{Table, value};
use crate::config::section::Section;
use crate::config::values;

pub(crate) const CIRCUIT_BREAKER: Table = Table {
    path: "exporters.<otlp_grpc|otlp_http>[/name].circuit_breaker",
    keys: &[
        value("enabled", "true or false", "true", "false: every endpoint is always tried."),
        value(
            "failure_threshold",
            "requests",
            "5",
            "In a row without a proper answer; then it opens. UNAVAILABLE is one, and counts for \
             the rate. 0: by rates only.",
        ),
        value(
            "failure_rate",
            "share, 0 to 1",
            "0.5",
            "Of the window's requests; then it opens. 0: not by this.",
        ),
        value("slow_call_rate", "share, 0 to 1", "0.5", "The same for slow requests."),
        value("slow_call_duration", "duration", "2s", "A request that takes as long is slow."),
        value("window", "duration", "10s", "Requests that are older no longer count ..."),
        value("window_calls", "requests", "100", "... and of younger ones the last so many do."),
        value("minimum_calls", "requests", "20", "With fewer in the window rates say nothing."),
        value(
            "recovery_timeout",
            "duration",
            "1s",
            "Open for so long and up to a quarter more, then one request at a time tries the \
             endpoint. Each opening that follows soon lasts twice as long.",
        ),
        value("recovery_timeout_max", "duration", "30s", "Never longer, that quarter aside."),
        value("success_threshold", "requests", "3", "Tries in a row that have to work."),
        value(
            "max_ejection_percent",
            "percent",
            "10",
            "Of all endpoints, shut off for a rate at one time; of two or more one always may be, \
             an only one never. Those at which nothing works are not counted.",
        ),
        value(
            "panic_percent",
            "percent",
            "50",
            "With fewer endpoints left, those that were shut off for a rate are used again. 0: \
             never.",
        ),
    ],
};

pub(crate) const RETRY_BUDGET: Table = Table {
    path: "exporters.<otlp_grpc|otlp_http>[/name].retry_budget",
    keys: &[
        value("enabled", "true or false", "true", "false: retries cost nothing."),
        value("ratio", "retries", "0.2", "For each request that succeeds."),
        value(
            "min_per_second",
            "retries",
            "10",
            "In each second, whatever succeeds. Less than 1 counts as 1: an outage may spend all \
             that was saved up, and what waits must not wait for a success that only it can bring. \
             With `ratio: 0`, too, this one a second is all there is.",
        ),
        value("tokens_max", "retries", "100", "Saved up at most, and there at the start."),
    ],
};

pub(crate) const HEALTH_CHECK: Table = Table {
    path: "exporters.<otlp_grpc|otlp_http>[/name].health_check",
    keys: &[
        value(
            "probe",
            "off, connect or grpc",
            "connect",
            "How an endpoint without requests is looked at: not at all, by a connection, or \
             (`otlp_grpc` alone) by the gRPC health protocol.",
        ),
        value("service", "name", "", "With `probe: grpc`. None: the server as a whole."),
        value("interval", "duration", "10s", "For each endpoint, with jitter."),
        value("timeout", "duration", "5s", "No answer within it is a failure."),
    ],
};

pub(crate) const POOL: Table = Table {
    path: "exporters.<otlp_grpc|otlp_http>[/name].pool",
    keys: &[
        value(
            "warm",
            "true or false",
            "true",
            "Connections are made before they are needed, with up to 16 endpoints.",
        ),
        value(
            "age_max",
            "duration",
            "30m",
            "Give or take a tenth; then a new connection takes its place, and it ends with its \
             last request. 0: never.",
        ),
        value(
            "idle_timeout",
            "duration",
            "",
            "Without any request. 0: never. None: 5m, or for `otlp_http` its `idle_conn_timeout`.",
        ),
    ],
};

/// `attempt`: how long one request may take.
pub(crate) fn breaker(
    section: &Section<'_>,
    attempt: Duration,
) -> (breaker::Settings, FleetSettings) {
    let count = |name, min, max| {
        u32::try_from(section.count(name, min..=max)).expect("the ranges are below 2^32")
    };
    let settings = breaker::Settings {
        failure_threshold: count("failure_threshold", 0, 1_000_000),
        failure_rate: rate(section, "failure_rate"),
        slow_call_rate: rate(section, "slow_call_rate"),
        slow_call_duration: section.duration_above_zero("slow_call_duration"),
        window: section.duration_above_zero("window"),
        window_calls: count("window_calls", 1, 40_000),
        minimum_calls: count("minimum_calls", 1, 40_000),
        recovery_timeout: section.duration_above_zero("recovery_timeout"),
        recovery_timeout_max: section.duration_above_zero("recovery_timeout_max"),
        success_threshold: count("success_threshold", 1, 31),
        probe_timeout: probe_timeout(attempt),
        ..breaker::Settings::default()
    };
    if settings.recovery_timeout_max < settings.recovery_timeout {
        section.fault("recovery_timeout_max", "must be at least recovery_timeout");
    }
    if settings.minimum_calls > settings.window_calls {
        section.fault("minimum_calls", "must be at most window_calls, or no rate ever counts");
    }
    let fleet = FleetSettings {
        max_ejection_percent: count("max_ejection_percent", 0, 100),
        panic_percent: count("panic_percent", 0, 100),
        pauses_alone: false,
    };
    match section.flag("enabled") {
        true => (settings, fleet),
        false => (never(settings), fleet),
    }
}

pub(crate) fn retry_budget(section: &Section<'_>) -> budget::Settings {
    let tokens = |name, max| {
        section.value(name, move |text| match values::number(text)? {
            number if (0.0..=max).contains(&number) => Ok(number),
            number => Err(format!("must lie from 0 to {max}; this is {number}")),
        })
    };
    let tokens_max = section.count("tokens_max", 1..=16_000);
    let settings = budget::Settings {
        ratio: tokens("ratio", 10.0),
        min_per_second: tokens("min_per_second", 100_000.0),
        tokens_max: u32::try_from(tokens_max).expect("the range is small"),
    };
    match section.flag("enabled") {
        true => settings,
        // More than any lane can ask for.
        false => budget::Settings { ratio: 10.0, min_per_second: 100_000.0, tokens_max: 16_000 },
    }
}

pub(crate) fn health_check(section: &Section<'_>, speaks_grpc: bool) -> HealthCheck {
    const PROBES: &[(&str, Probe)] =
        &[("off", Probe::Off), ("connect", Probe::Connect), ("grpc", Probe::Grpc(String::new()))];
    let word = |text: &str| {
        let found = PROBES.iter().find(|(word, _)| *word == text);
        found
            .map(|(_, probe)| probe.clone())
            .ok_or_else(|| format!("must be one of off, connect, grpc; this is \"{text}\""))
    };
    let service = section.read("service", values::text);
    let probe = match (section.value("probe", word), service) {
        (Probe::Grpc(_), service) => Probe::Grpc(service.unwrap_or_default()),
        (probe, None) => probe,
        (probe, Some(_)) => {
            section.fault("service", "is for probe: grpc alone: set that, or remove it");
            probe
        }
    };
    if matches!(probe, Probe::Grpc(_)) && !speaks_grpc {
        section.fault("probe", "can't be grpc for an endpoint that speaks HTTP: use connect");
    }
    HealthCheck {
        probe,
        interval: section.duration_above_zero("interval"),
        timeout: section.duration_above_zero("timeout"),
    }
}

/// `idle_timeout`: what counts if the block says nothing.
pub(crate) fn pool(section: &Section<'_>, idle_timeout: Option<Duration>) -> Pool {
    let unless_zero = |duration: Duration| Some(duration).filter(|duration| !duration.is_zero());
    Pool {
        warm: section.flag("warm"),
        age_max: unless_zero(section.duration("age_max")),
        idle_timeout: match section.read("idle_timeout", values::duration) {
            Some(written) => unless_zero(written),
            None => idle_timeout,
        },
    }
}

/// A breaker that never opens.
fn never(settings: breaker::Settings) -> breaker::Settings {
    let (failure_threshold, failure_rate, slow_call_rate) = (0, 2.0, 2.0);
    breaker::Settings { failure_threshold, failure_rate, slow_call_rate, ..settings }
}

/// From 0 to 1, where 0 is written for what never happens.
fn rate(section: &Section<'_>, name: &str) -> f64 {
    section.value(name, |text| match values::number(text)? {
        0.0 => Ok(2.0),
        rate if (0.0..=1.0).contains(&rate) => Ok(rate),
        rate => Err(format!("must lie from 0 to 1; this is {rate}")),
    })
}

/// When a probe's holder counts as lost: an attempt may look up a name, connect (twice, if the
/// first try fails), wait for a stream and for the answer, each within `attempt`, and all of that
/// once more over a new connection.
fn probe_timeout(attempt: Duration) -> Duration {
    const PAUSES: Duration = Duration::from_secs(5);
    let longest = attempt.saturating_mul(2 * 6) + PAUSES;
    longest.max(breaker::Settings::default().probe_timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_is_what_the_exporters_take_for_usual() {
        let nothing = crate::config::nothing();
        let report = crate::config::problem::Report::default();
        let open = |table| Section::open(&nothing, &nothing.place, "test", table, &report);
        let attempt = Duration::from_secs(1);
        let (settings, fleet) = breaker(&open(&CIRCUIT_BREAKER), attempt);
        assert_eq!(format!("{settings:?}"), format!("{:?}", breaker::Settings::default()));
        assert_eq!(format!("{fleet:?}"), format!("{:?}", FleetSettings::default()));
        let budget = retry_budget(&open(&RETRY_BUDGET));
        assert_eq!(format!("{budget:?}"), format!("{:?}", budget::Settings::default()));
        assert_eq!(health_check(&open(&HEALTH_CHECK), true), HealthCheck::default());
        let usual = Pool::default();
        assert_eq!(pool(&open(&POOL), usual.idle_timeout), usual);
        assert!(report.finish().0.is_empty());
    }

    #[test]
    fn a_probe_has_more_time_than_the_longest_attempt() {
        for seconds in [1, 5, 30, 3600] {
            let attempt = Duration::from_secs(seconds);
            let probe = probe_timeout(attempt);
            assert!(probe > attempt * 12 && probe >= Duration::from_secs(45), "{probe:?}");
        }
    }
}
