//! `cors` of a receiver's protocol: the pages that may send telemetry from a browser. The keys of
//! the Collector's `confighttp`.

use std::sync::Arc;

use forebay_net::cors::{Cors, Pattern};
use http::HeaderName;

use crate::config::keys::{Key, Table, value};
use crate::config::problem::Problem;
use crate::config::section::Section;
use crate::config::values;

const KEYS: &[Key] = &[
    value(
        "allowed_origins",
        "list of origins",
        "[]",
        "Whose pages may send here and read the answers: `https://shop.example`, \
        `https://*.shop.example` with at most one `*` each, or `*` for all. None: no page.",
    ),
    value(
        "allowed_headers",
        "list of names",
        "[]",
        "What a page may send beside Accept, Content-Type and X-Requested-With, which all may. \
        `*`: any header. (Collector: the list takes the place of those three)",
    ),
    value(
        "exposed_headers",
        "list of names",
        "[]",
        "Headers of an answer that a page may read beyond what all may: `Retry-After`, say.",
    ),
    value(
        "max_age",
        "seconds",
        "",
        "For how long a browser may remember what a page may do. None: browsers remember it for \
        5 seconds.",
    ),
];

pub(crate) const HTTP_CORS: Table =
    Table { path: "receivers.otlp[/name].protocols.http.cors", keys: KEYS };

pub(crate) const HTTP3_CORS: Table =
    Table { path: "receivers.otlp[/name].protocols.http3.cors", keys: KEYS };

/// A century: nobody means more.
const SECONDS_MAX: u64 = 100 * 366 * 86_400;

/// `None`: no page of another origin may read an answer.
pub(super) fn read(protocol: &Section<'_>, table: &'static Table) -> Option<Arc<Cors>> {
    protocol.given("cors")?;
    let section = protocol.block("cors", table);
    let origins = listed(&section, "allowed_origins", Pattern::read);
    let (allowed, exposed) = (headers(&section, "allowed_headers"), exposed(&section));
    let max_age = section.read("max_age", |text| match values::count(text)? {
        seconds if seconds > SECONDS_MAX => Err("must be at most a hundred years".to_owned()),
        seconds => Ok(seconds),
    });
    if section.texts("allowed_origins").is_empty() {
        let what = format!("{} allows no origin, and so has no effect", section.path);
        let problem = Problem::warning(&section.place, what);
        section.report.add(problem.hint("list the origins of your pages: allowed_origins"));
        return None;
    }
    let cors = Cors::new(origins).expose_headers(&exposed);
    let cors = match allowed {
        Some(names) => cors.allow_headers(&names),
        None => cors.allow_all_headers(),
    };
    Some(Arc::new(match max_age {
        Some(seconds) => cors.remember_for(seconds),
        None => cors,
    }))
}

/// `None`: all.
fn headers(section: &Section<'_>, name: &str) -> Option<Vec<HeaderName>> {
    match section.texts(name).iter().any(|(text, _)| *text == "*") {
        true => None,
        false => Some(listed(section, name, header)),
    }
}

fn exposed(section: &Section<'_>) -> Vec<HeaderName> {
    listed(section, "exposed_headers", |text| match text {
        // To a browser that sends credentials it is a header of this name.
        "*" => Err("must name each header: * exposes none to a page that sends \
                    credentials"
            .to_owned()),
        text => header(text),
    })
}

fn header(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes());
    name.map_err(|_| format!("must hold names of headers; this is \"{text}\""))
}

/// What can be read of a list; the rest is reported where it stands.
fn listed<T>(
    section: &Section<'_>,
    name: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Vec<T> {
    let mut items = Vec::new();
    for (text, place) in section.texts(name) {
        match read(text) {
            Ok(item) => items.push(item),
            Err(fault) => {
                let what = format!("{} {fault}", section.key_path(name));
                section.report.add(Problem::error(place, what));
            }
        }
    }
    items
}
