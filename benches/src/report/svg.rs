//! The frame that every plot is drawn in: axes, grid, ticks, marks, legend; as SVG text.
//!
//! Units are those of the view box, [`WIDTH`] wide; the page scales it to the column, and raises
//! the size of its letters on a narrow screen. Colours and strokes are classes of `page.css`.
//!
//! Always
//! - Every text that came from a result is escaped.
//! - A mark has the class `mark` and the attribute `data-tip`: what the pointer, or a reader that
//!   does not see, is told about it.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::families::{Member, row_name};
use super::quantity;
use super::scale::Scale;

pub(super) const WIDTH: f64 = 480.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 14.0;

/// How large a drawing is, and the room for what stands beside its axes.
#[derive(Clone, Copy)]
pub(super) struct Size {
    width: f64,
    height: f64,
    left: f64,
    bottom: f64,
    ticks_max: usize,
}

/// One drawing in a figure.
pub(super) const FULL: Size =
    Size { width: WIDTH, height: 300.0, left: 64.0, bottom: 48.0, ticks_max: 7 };
/// One among many small ones; its axes have no titles.
pub(super) const SMALL: Size =
    Size { width: 260.0, height: 130.0, left: 36.0, bottom: 26.0, ticks_max: 4 };

/// What an axis is called, and how its ticks are said.
pub(super) struct Axis {
    pub(super) title: &'static str,
    pub(super) scale: Scale,
    pub(super) say: fn(f64) -> String,
}

/// A drawing that grows mark by mark.
pub(super) struct Canvas {
    body: String,
    size: Size,
    x: Scale,
    y: Scale,
}

impl Canvas {
    /// Axes with the ticks of their scales.
    pub(super) fn new(size: Size, x: &Axis, y: &Axis) -> Canvas {
        let ticks = thinned(x.scale.ticks(), size.ticks_max);
        let named = ticks.into_iter().map(|tick| (tick, quantity::tick(tick, x.say)));
        Canvas::with_x_ticks(size, x, y, &named.collect::<Vec<_>>())
    }

    /// Axes with ticks on the x axis that have names of their own.
    pub(super) fn with_x_ticks(size: Size, x: &Axis, y: &Axis, named: &[(f64, String)]) -> Canvas {
        let mut canvas = Canvas { body: String::new(), size, x: x.scale, y: y.scale };
        canvas.draw_grid(y);
        canvas.draw_x_axis(x.title, named);
        canvas
    }

    pub(super) fn x(&self, value: f64) -> f64 {
        let Size { width, left, .. } = self.size;
        left + self.x.place(value) * (width - left - RIGHT)
    }

    pub(super) fn y(&self, value: f64) -> f64 {
        let Size { height, bottom, .. } = self.size;
        TOP + (1.0 - self.y.place(value)) * (height - TOP - bottom)
    }

    /// Opens a group that the legend can raise and the pointer names; close it with `end`.
    pub(super) fn begin(&mut self, class: &str, name: &str) {
        let name = escaped(name);
        let _ = write!(self.body, "<g class=\"series {class}\" data-series=\"{name}\">");
    }

    pub(super) fn end(&mut self) {
        self.body.push_str("</g>");
    }

    /// A line through places in drawing units; `class` says how it is drawn.
    pub(super) fn line(&mut self, class: &str, places: &[(f64, f64)]) {
        self.body.push_str("<path class=\"");
        self.body.push_str(class);
        self.body.push_str("\" d=\"");
        for (at, (x, y)) in places.iter().enumerate() {
            let _ = write!(self.body, "{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' });
        }
        self.body.push_str("\"/>");
    }

    /// A mark at a place, in one of four shapes; `hollow` marks are not filled.
    pub(super) fn mark(&mut self, shape: usize, hollow: bool, (x, y): (f64, f64), tip: &str) {
        let class = if hollow { "mark hollow" } else { "mark" };
        let tip = escaped(tip);
        let path = shape_path(shape, x, y);
        let _ = write!(self.body, "<path class=\"{class}\" d=\"{path}\" data-tip=\"{tip}\"/>");
    }

    /// A faint dot: one run among several.
    pub(super) fn dot(&mut self, (x, y): (f64, f64)) {
        let _ = write!(self.body, "<circle class=\"run\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.2\"/>");
    }

    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        let text = escaped(text);
        let _ =
            write!(self.body, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
    }

    /// The whole drawing. `name` is what a reader that does not see is told.
    pub(super) fn finish(self, name: &str) -> String {
        drawing((self.size.width, self.size.height), name, &self.body)
    }

    fn draw_grid(&mut self, y: &Axis) {
        let Size { width, left, ticks_max, .. } = self.size;
        for tick in thinned(y.scale.ticks(), ticks_max) {
            let place = self.y(tick);
            self.line("grid", &[(left, place), (width - RIGHT, place)]);
            let said = quantity::tick(tick, y.say);
            self.text("tick end", (left - 8.0, place + 4.0), &said);
        }
    }

    fn draw_x_axis(&mut self, title: &str, named: &[(f64, String)]) {
        let Size { width, height, left, bottom, .. } = self.size;
        let base = height - bottom;
        self.line("axis", &[(left, base), (width - RIGHT, base)]);
        for (value, name) in named {
            let place = self.x(*value);
            self.line("axis", &[(place, base), (place, base + 4.0)]);
            self.text("tick middle", (place, base + 19.0), name);
        }
        if !title.is_empty() {
            let middle = left + (width - left - RIGHT) / 2.0;
            self.text("title middle", (middle, height - 8.0), title);
        }
    }
}

/// An SVG around what was drawn elsewhere.
pub(super) fn drawing((width, height): (f64, f64), name: &str, body: &str) -> String {
    let name = escaped(name);
    format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{name}\">{body}</svg>\n"
    )
}

/// The legend of a plot with one line per row.
pub(super) fn row_legend(members: &[&Member<'_>]) -> String {
    let entries = members.iter().map(|member| {
        let key = key(&member.class, member.mark, "line");
        (row_name(member.row), key)
    });
    legend(entries)
}

/// A legend of names and the small drawings that [`key`] makes.
pub(super) fn legend<'a>(entries: impl Iterator<Item = (Cow<'a, str>, String)>) -> String {
    let mut list = String::from("<ul class=\"legend\">");
    for (name, key) in entries {
        let name = escaped(&name);
        let _ = write!(
            list,
            "<li><button type=\"button\" data-for=\"{name}\" aria-pressed=\"false\">\
             {key}{name}</button></li>"
        );
    }
    list.push_str("</ul>\n");
    list
}

/// A piece of line with its mark, for a legend.
pub(super) fn key(class: &str, shape: usize, line: &str) -> String {
    let path = shape_path(shape, 12.0, 6.0);
    format!(
        "<svg class=\"key {class}\" viewBox=\"0 0 24 12\" aria-hidden=\"true\">\
         <path class=\"{line}\" d=\"M1 6L23 6\"/><path class=\"mark\" d=\"{path}\"/></svg>"
    )
}

/// What HTML takes for itself, as entities.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(letter),
        }
    }
    safe
}

/// Circle, square, triangle, diamond, each about as large as the others.
fn shape_path(shape: usize, x: f64, y: f64) -> String {
    match shape {
        0 => {
            let left = x - 4.0;
            format!("M{left:.1} {y:.1}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z")
        }
        1 => format!("M{:.1} {:.1}h7v7h-7Z", x - 3.5, y - 3.5),
        2 => format!("M{x:.1} {:.1}l4.6 8h-9.2Z", y - 5.0),
        _ => format!("M{x:.1} {:.1}l5 5l-5 5l-5 -5Z", y - 5.0),
    }
}

/// Every n-th, so that at most `most` are left.
fn thinned(ticks: Vec<f64>, most: usize) -> Vec<f64> {
    let every = ticks.len().div_ceil(most).max(1);
    ticks.into_iter().step_by(every).collect()
}
