//! From the runs of a row to its figures: each figure's median, least and most.

use std::collections::BTreeMap;

use crate::measure::Measured;
use crate::result::{Row as FoundRow, Run};
use crate::run::Track;
use crate::scenario::{Pace, Row};

/// Puts the floor's figures of the same round into a run.
pub fn put_beside(run: &mut Run, floor: &Run) {
    let per_request = floor.engine_cpu_ns_per_request;
    let items_per_request = run.items / run.requests;
    run.floor_cpu_ns_per_request = Some(per_request);
    run.floor_cpu_ns_per_item = Some(per_request / items_per_request);
    run.ratio_to_floor = Some(run.engine_cpu_ns_per_request / per_request);
}

/// A row's figures. There is at least one run.
pub fn row(row: &Row, track: Track) -> FoundRow {
    let runs: Vec<Run> = track.measured.iter().map(|measured| measured.run.clone()).collect();
    let (median, spread) = median_and_spread(&runs);
    let middle = &track.measured[track.measured.len() / 2];
    FoundRow {
        name: row.name.clone(),
        program: track.program,
        transport: row.transport.clone(),
        signal: row.signal.clone(),
        items_per_request: row.items as u64,
        request_bytes: middle.request_bytes.round() as u64,
        connections: row.connections as u64,
        streams: row.streams as u64,
        compression: row.compression.clone(),
        mode: if row.pace == Pace::Closed { "closed" } else { "open" }.to_owned(),
        rate_per_s: track.rate,
        engine_cores: track.engine_cores as u64,
        median,
        spread,
        queue_depth: middle.queue_depth.clone(),
        notes: notes(&track.measured),
        runs,
    }
}

/// Each figure by itself, through the JSON that a run is written as, so that none is forgotten.
fn median_and_spread(runs: &[Run]) -> (Run, BTreeMap<String, [f64; 2]>) {
    let mut series: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for run in runs {
        let value = serde_json::to_value(run).expect("a run is plain data");
        collect(&value, "", &mut series);
    }
    let mut median = serde_json::to_value(Run::default()).expect("a run is plain data");
    let mut spread = BTreeMap::new();
    for (name, mut values) in series {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let value = match values.len() % 2 {
            1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        put(&mut median, &name, value);
        spread.insert(name, [values[0], values[values.len() - 1]]);
    }
    (serde_json::from_value(median).expect("the same shape came in"), spread)
}

fn collect(value: &serde_json::Value, path: &str, series: &mut BTreeMap<String, Vec<f64>>) {
    if let Some(number) = value.as_f64() {
        series.entry(path.to_owned()).or_default().push(number);
    }
    for (name, inner) in value.as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        collect(inner, &path, series);
    }
}

fn put(value: &mut serde_json::Value, path: &str, number: f64) {
    let mut place = value;
    for name in path.split('.') {
        place = &mut place[name];
    }
    *place = number.into();
}

/// Each note once, with the number of runs that it is about.
fn notes(measured: &[Measured]) -> Vec<String> {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for note in measured.iter().flat_map(|measured| &measured.notes) {
        // Notes differ by their numbers alone; the first of a kind stands for all.
        let kind = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
        match kinds.iter_mut().find(|(known, _)| kind(known) == kind(note)) {
            Some((_, count)) => *count += 1,
            None => kinds.push((note.clone(), 1)),
        }
    }
    let all = measured.len();
    kinds.into_iter().map(|(note, count)| format!("{note} (in {count} of {all} runs)")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Latency;

    #[test]
    fn each_figure_has_its_own_median_and_spread() {
        let run = |cpu: f64, p99: f64, ratio: Option<f64>| Run {
            engine_cpu_ns_per_item: cpu,
            latency_us: Latency { p99, ..Latency::default() },
            ratio_to_floor: ratio,
            ..Run::default()
        };
        let runs = [run(30.0, 1.0, None), run(10.0, 3.0, None), run(20.0, 2.0, Some(4.0))];
        let (median, spread) = median_and_spread(&runs);
        assert_eq!(median.engine_cpu_ns_per_item, 20.0);
        assert_eq!(median.latency_us.p99, 2.0);
        assert_eq!(median.ratio_to_floor, Some(4.0));
        assert_eq!(median.floor_cpu_ns_per_item, None);
        assert_eq!(spread["engine_cpu_ns_per_item"], [10.0, 30.0]);
        assert_eq!(spread["latency_us.p99"], [1.0, 3.0]);
    }
}
