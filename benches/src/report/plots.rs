//! The plots of the page, each a figure with a caption, a legend and its drawing.
//!
//! A plot shows what the rows hold and nothing else: a figure that was not taken (a floor that did
//! not run, a queue that nobody watched) leaves no mark, and a plot without marks says so.

use std::fmt::Write as _;

use super::families::{Families, Family, Member, row_name};
use super::quantity::{count, micros, nanos, ratio, spread, tick};
use super::scale::Scale;
use super::svg::{self, Axis, Canvas, FULL, SMALL, WIDTH};
use crate::result::{Latency, Row};

/// Fewer answers than this beyond a percentile, and it is told by chance.
const BEYOND_MIN: f64 = 10.0;

/// Latency against percentile: each nine takes as much room as the one before it.
pub(super) fn latency(families: &Families<'_>) -> String {
    let rows = families.members().map(|member| member.row);
    let values = rows.flat_map(|row| latencies(&row.median.latency_us).map(|(_, value, _)| value));
    let y = Axis { title: "latency", scale: Scale::log(values), say: micros };
    let mut drawings = String::new();
    for (name, members) in families.panels() {
        let members: Vec<_> = members.into_iter().filter(|m| answered(m.row)).collect();
        if members.is_empty() {
            continue;
        }
        drawings.push_str(&title(&name));
        drawings.push_str(&svg::row_legend(&members));
        drawings.push_str(&latency_panel(&y, &members));
    }
    Plot {
        id: "latency",
        title: "Latency by percentile",
        caption: "Time to the answer, median over the runs. Open loop: from the time at which the \
                  request was due, so that a stall counts for all that had to wait. A hollow mark \
                  has fewer than ten answers beyond it.",
        drawings,
    }
    .figure()
}

fn latency_panel(y: &Axis, members: &[&Member<'_>]) -> String {
    // The maximum has no percentile; it stands where the next nine would.
    let x = Axis { title: "percentile", scale: Scale::fixed_log(1.7, 130_000.0), say: count };
    let ticks = latencies(&Latency::default()).map(|(at, _, name)| (at, name.to_owned()));
    let mut canvas = Canvas::with_x_ticks(FULL, &x, y, &ticks);
    for member in members {
        let row = member.row;
        let points: Vec<_> = latencies(&row.median.latency_us)
            .into_iter()
            .filter(|(_, value, _)| *value > 0.0)
            .collect();
        let places: Vec<_> =
            points.iter().map(|(at, value, _)| (canvas.x(*at), canvas.y(*value))).collect();
        canvas.begin(&member.class, &row_name(row));
        let percentiles = points.iter().filter(|(_, _, name)| *name != "max").count();
        canvas.line("line", &places[..percentiles]);
        canvas.line("line dashed", &places[percentiles.saturating_sub(1)..]);
        for ((at, value, name), place) in points.iter().zip(&places) {
            let hollow = *name == "max" || row.median.requests / at < BEYOND_MIN;
            let tip = format!("{}\n{name}: {}", row_name(row), micros(*value));
            canvas.mark(member.mark, hollow, *place, &tip);
        }
        canvas.end();
    }
    canvas.finish("Latency of each row by percentile; the figures are in the table below")
}

/// Where a percentile stands, its value, and its name.
fn latencies(latency: &Latency) -> [(f64, f64, &'static str); 6] {
    [
        (2.0, latency.p50, "50 %"),
        (10.0, latency.p90, "90 %"),
        (100.0, latency.p99, "99 %"),
        (1_000.0, latency.p999, "99.9 %"),
        (10_000.0, latency.p9999, "99.99 %"),
        (80_000.0, latency.max, "max"),
    ]
}

fn answered(row: &Row) -> bool {
    row.median.latency_us.p50 > 0.0
}

/// What was carried, and how long it took: a stem from the median up to p99.
pub(super) fn throughput(families: &Families<'_>) -> String {
    let rows = || families.members().map(|member| member.row).filter(|row| answered(row));
    let runs = || rows().flat_map(|row| row.runs.iter().chain([&row.median]));
    let ends = |latency: &Latency| [latency.p50, latency.p99];
    let x = Axis {
        title: "items per second",
        scale: Scale::log(runs().map(|run| run.items_per_s)),
        say: count,
    };
    let y = Axis {
        title: "latency",
        scale: Scale::log(runs().flat_map(|run| ends(&run.latency_us))),
        say: micros,
    };
    let mut canvas = Canvas::new(FULL, &x, &y);
    for member in families.members().filter(|member| answered(member.row)) {
        let row = member.row;
        canvas.begin(&member.class, &row_name(row));
        for run in &row.runs {
            canvas.dot((canvas.x(run.items_per_s), canvas.y(run.latency_us.p99)));
        }
        let place = canvas.x(row.median.items_per_s);
        let (p50, p99) = (row.median.latency_us.p50, row.median.latency_us.p99);
        canvas.line("stem", &[(place, canvas.y(p50)), (place, canvas.y(p99))]);
        let tip = |name: &str, value: f64| {
            let (items, requests) = (row.median.items_per_s, row.median.requests_per_s);
            let (items, requests) = (count(items), count(requests));
            format!(
                "{}\n{items} items/s, {requests} req/s\n{name}: {}",
                row_name(row),
                micros(value)
            )
        };
        canvas.mark(member.mark, true, (place, canvas.y(p50)), &tip("median", p50));
        canvas.mark(member.mark, false, (place, canvas.y(p99)), &tip("p99", p99));
        canvas.end();
    }
    let members: Vec<_> = families.members().filter(|member| answered(member.row)).collect();
    let drawings = match members.is_empty() {
        true => String::new(),
        false => svg::row_legend(&members) + &canvas.finish("Latency against items per second"),
    };
    Plot {
        id: "throughput",
        title: "Throughput against latency",
        caption: "A stem from the median latency (hollow) to p99 (filled), at the throughput that \
                  was reached. Faint dots are the p99 of single runs. Right and low is good.",
        drawings,
    }
    .figure()
}

/// CPU per item by request size, with the floor of the same run below it.
pub(super) fn cost(families: &Families<'_>) -> String {
    let costs = |row: &Row| {
        let floor = row.median.floor_cpu_ns_per_item.unwrap_or(0.0);
        let [lo, hi] = cost_spread(row);
        [row.median.engine_cpu_ns_per_item, floor, lo, hi]
    };
    let rows = || families.members().map(|member| member.row);
    let sizes = rows().map(|row| row.items_per_request as f64);
    let x = Axis { title: "items per request", scale: Scale::log(sizes), say: count };
    let y = Axis { title: "CPU per item", scale: Scale::log(rows().flat_map(costs)), say: nanos };
    let mut canvas = Canvas::with_x_ticks(FULL, &x, &y, &size_ticks(&x.scale, rows()));
    for family in &families.all {
        draw_floor(&mut canvas, family);
        canvas.begin(&family.class(), &family.name);
        let mut members: Vec<_> = family.members.iter().collect();
        members.sort_by_key(|member| member.row.items_per_request);
        let at = |canvas: &Canvas, row: &Row| {
            let size = row.items_per_request as f64;
            (canvas.x(size), canvas.y(row.median.engine_cpu_ns_per_item))
        };
        let places: Vec<_> = members.iter().map(|member| at(&canvas, member.row)).collect();
        let ascends =
            members.is_sorted_by(|a, b| a.row.items_per_request < b.row.items_per_request);
        if ascends {
            canvas.line("line", &places);
        }
        for (member, place) in members.iter().zip(&places) {
            let [lo, hi] = cost_spread(member.row);
            canvas.line("whisker", &[(place.0, canvas.y(lo)), (place.0, canvas.y(hi))]);
            canvas.mark(0, false, *place, &cost_tip(member.row));
        }
        canvas.end();
    }
    let measured = rows().any(|row| row.median.engine_cpu_ns_per_item > 0.0);
    let drawings = if measured {
        let floor = ("floor".into(), svg::key("h-floor", 0, "line dashed"));
        let entries = families.all.iter();
        let mut entries: Vec<_> =
            entries.map(|f| (f.name.as_str().into(), svg::key(&f.class(), 0, "line"))).collect();
        if rows().any(|row| row.median.floor_cpu_ns_per_item.is_some()) {
            entries.push(floor);
        }
        svg::legend(entries.into_iter())
            + &canvas.finish("CPU time per item by request size, with the floor")
    } else {
        String::new()
    };
    Plot {
        id: "cost",
        title: "CPU per item by request size",
        caption: "CPU time of the whole process divided by the items that it took in. Whiskers \
                  reach from the best run to the worst. Dashed: the floor, the same bytes \
                  received, answered and sent on without a look inside.",
        drawings,
    }
    .figure()
}

fn draw_floor(canvas: &mut Canvas, family: &Family<'_>) {
    let mut floors: Vec<_> = family
        .members
        .iter()
        .filter_map(|m| Some((m.row, m.row.median.floor_cpu_ns_per_item?)))
        .collect();
    if floors.is_empty() {
        return;
    }
    floors.sort_by_key(|(row, _)| row.items_per_request);
    let place =
        |(row, floor): &(&Row, f64)| (canvas.x(row.items_per_request as f64), canvas.y(*floor));
    let places: Vec<_> = floors.iter().map(place).collect();
    canvas.begin(&format!("{} floor", family.class()), "floor");
    canvas.line("line dashed", &places);
    for ((row, floor), place) in floors.iter().zip(places) {
        canvas.mark(
            0,
            true,
            place,
            &format!("{}\nfloor: {} per item", row_name(row), nanos(*floor)),
        );
    }
    canvas.end();
}

fn cost_spread(row: &Row) -> [f64; 2] {
    let median = row.median.engine_cpu_ns_per_item;
    row.spread.get("engine_cpu_ns_per_item").copied().unwrap_or([median, median])
}

fn cost_tip(row: &Row) -> String {
    let median = row.median.engine_cpu_ns_per_item;
    let [lo, hi] = cost_spread(row);
    let mut tip = format!("{}\n{} per item", row_name(row), nanos(median));
    let _ = write!(tip, " ({}, {} runs)", spread(median, lo, hi), row.runs.len());
    if let Some(to_floor) = row.median.ratio_to_floor {
        let _ = write!(tip, "\n{} the floor", ratio(to_floor));
    }
    tip
}

/// The sizes that were driven, those that would stand on one another left out.
fn size_ticks<'a>(scale: &Scale, rows: impl Iterator<Item = &'a Row>) -> Vec<(f64, String)> {
    let mut sizes: Vec<u64> = rows.map(|row| row.items_per_request).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut ticks: Vec<(f64, String)> = Vec::new();
    for size in sizes {
        let size = size as f64;
        let room = ticks.last().is_none_or(|(at, _)| scale.place(size) - scale.place(*at) > 0.085);
        if room {
            ticks.push((size, tick(size, count)));
        }
    }
    ticks
}

/// How many times the floor each row costs.
pub(super) fn floor_ratio(families: &Families<'_>) -> String {
    const ROW_HEIGHT: f64 = 40.0;
    const TOP: f64 = 30.0;
    let rated: Vec<_> = families
        .members()
        .filter_map(|member| Some((member, member.row.median.ratio_to_floor?)))
        .collect();
    let highest = |(member, ratio): &(&Member<'_>, f64)| ratio.max(ratio_spread(member.row)[1]);
    let scale = Scale::from_zero(rated.iter().map(highest).chain([1.0]));
    let x = |value: f64| 4.0 + scale.place(value) * (WIDTH - 74.0);
    let height = TOP + rated.len() as f64 * ROW_HEIGHT;
    let one = x(1.0);
    let label_at = one.max(44.0);
    let mut body = format!(
        "<path class=\"axis\" d=\"M4 {TOP}V{height}\"/>\
         <text class=\"tick middle\" x=\"{label_at:.1}\" y=\"20\">1× = floor</text>"
    );
    for (at, (member, times)) in rated.iter().enumerate() {
        let top = TOP + at as f64 * ROW_HEIGHT;
        let (name, class) = (svg::escaped(&row_name(member.row)), &member.class);
        let end = x(*times).max(8.0);
        let [lo, hi] = ratio_spread(member.row).map(x);
        let tip = svg::escaped(&cost_tip(member.row));
        let (label, bar, middle) = (top + 14.0, top + 20.0, top + 27.0);
        let said = ratio(*times);
        let (beside, baseline) = (end.max(hi) + 8.0, middle + 4.5);
        let _ = write!(
            body,
            "<g class=\"series {class}\" data-series=\"{name}\">\
             <text class=\"name\" x=\"9\" y=\"{label}\">{name}</text>\
             <path class=\"mark bar\" data-tip=\"{tip}\" \
             d=\"M4 {bar}H{:.1}q4 0 4 4v6q0 4 -4 4H4Z\"/>\
             <path class=\"floor-line\" d=\"M{one:.1} {}v18\"/>\
             <path class=\"whisker\" d=\"M{lo:.1} {middle}H{hi:.1}\"/>\
             <text class=\"value\" x=\"{beside:.1}\" y=\"{baseline}\">{said}</text></g>",
            end - 4.0,
            bar - 2.0,
        );
    }
    let drawings = match rated.is_empty() {
        true => String::new(),
        false => svg::drawing((WIDTH, height), "CPU per item as a multiple of the floor", &body),
    };
    Plot {
        id: "floor-ratio",
        title: "Against the floor",
        caption: "CPU per item divided by the floor's from the same run, on the same core: what \
                  understanding the bytes costs over moving them. Whiskers: best run to worst.",
        drawings,
    }
    .figure()
}

fn ratio_spread(row: &Row) -> [f64; 2] {
    let median = row.median.ratio_to_floor.unwrap_or(0.0);
    row.spread.get("ratio_to_floor").copied().unwrap_or([median, median])
}

/// Batches that wait for an exporter, over the measured window.
pub(super) fn queue(families: &Families<'_>) -> String {
    let watched = || families.members().filter(|member| !member.row.queue_depth.is_empty());
    let points = || watched().flat_map(|member| member.row.queue_depth.iter());
    let seconds = Scale::from_zero(points().map(|[at, _]| *at));
    // Batches are whole: an axis that is shorter than this would have ticks between them.
    let batches = Scale::from_zero(points().map(|[_, depth]| *depth).chain([4.0]));
    let x = Axis { title: "", scale: seconds, say: |at| format!("{} s", count(at)) };
    let y = Axis { title: "", scale: batches, say: count };
    let mut drawings = String::new();
    for member in watched() {
        let panel = queue_panel(&x, &y, member);
        let _ = writeln!(
            drawings,
            "<div class=\"small\">{}{panel}</div>",
            title(&row_name(member.row))
        );
    }
    if !drawings.is_empty() {
        drawings = format!("<div class=\"smalls\">\n{drawings}</div>\n");
    }
    Plot {
        id: "queue",
        title: "Queue depth over time",
        caption: "Batches handed over and not yet settled, over the seconds of the measured \
                  window, from the run in the middle. Flat and low: the engine keeps up. Rising: \
                  it, or what is behind it, does not. The mark is the deepest point.",
        drawings,
    }
    .figure()
}

fn queue_panel(x: &Axis, y: &Axis, member: &Member<'_>) -> String {
    let row = member.row;
    let mut canvas = Canvas::new(SMALL, x, y);
    let mut steps: Vec<(f64, f64)> = Vec::new();
    for [at, depth] in &row.queue_depth {
        let place = (canvas.x(*at), canvas.y(*depth));
        if let Some((_, before)) = steps.last() {
            steps.push((place.0, *before));
        }
        steps.push(place);
    }
    canvas.begin(&member.class, &row_name(row));
    canvas.line("line thin", &steps);
    let deepest = row.queue_depth.iter().max_by(|a, b| a[1].total_cmp(&b[1]));
    if let Some([at, depth]) = deepest {
        let tip = format!("{}\ndeepest: {} batches after {at:.1} s", row_name(row), count(*depth));
        canvas.mark(member.mark, false, (canvas.x(*at), canvas.y(*depth)), &tip);
    }
    canvas.end();
    canvas.finish(&format!("Batches that wait, over time: {}", row_name(row)))
}

fn title(name: &str) -> String {
    match name {
        "" => String::new(),
        name => format!("<h3>{}</h3>\n", svg::escaped(name)),
    }
}

struct Plot {
    id: &'static str,
    title: &'static str,
    caption: &'static str,
    drawings: String,
}

impl Plot {
    fn figure(self) -> String {
        let Plot { id, title, caption, drawings } = self;
        let drawings = match drawings.is_empty() {
            true => "<p class=\"nothing\">Nothing of this was measured in this run.</p>\n",
            false => &drawings,
        };
        format!(
            "<figure class=\"plot\" id=\"{id}\">\n<figcaption><h2>{title}</h2><p>{caption}</p>\
             </figcaption>\n{drawings}</figure>\n"
        )
    }
}
