//! `connectors`: what stands between pipelines. Read here; `wiring` says where they lead.

use http::HeaderName;

use super::keys::{Table, block, ignored, only, refused, value};
use super::plan::{Condition, ShiftBy};
use super::problem::{Place, Problem, Report};
use super::section::{Component, Section};
use super::tree::{Node, Value};
use super::values;

pub(crate) const KINDS: [&str; 4] = ["failover", "routing", "shift", "mirror"];

const WEIGHT_MAX: u32 = 1_000_000;
const BREAKER: &str = "the destinations' circuit breakers say who is tried, and when";

pub(crate) const FAILOVER: Table = Table {
    path: "connectors.failover[/name]",
    keys: &[
        block(
            "priority_levels",
            "Required: a list of levels, one pipeline each: `[[traces/first], [traces/second]]`. \
             A batch goes to the first level whose destination takes it. One whose circuit \
             breaker is off, or that is on this machine, takes all until its queue is full. For 5 \
             seconds after the start so does one whose discovery has not answered yet: what came \
             then goes on to the next level when they are over.",
        ),
        ignored("retry_interval", BREAKER),
        ignored("retry_gap", BREAKER),
        ignored("max_retries", BREAKER),
        refused("sending_queue", "each destination has a queue of its own: remove it"),
    ],
};

pub(crate) const ROUTING: Table = Table {
    path: "connectors.routing[/name]",
    keys: &[
        block(
            "table",
            "Required: a list of rows. The first whose condition is true has the request, or the \
             resource.",
        ),
        value(
            "default_pipelines",
            "list of names",
            "[]",
            "For what no row has. None: it is dropped, and counted as unrouted.",
        ),
        ignored("error_mode", "no condition can fail"),
        ignored("match_once", "what a row has no later row gets"),
    ],
};

pub(crate) const ROW: Table = Table {
    path: "connectors.routing[/name].table[]",
    keys: &[
        value(
            "context",
            "request or resource",
            "resource",
            "What the condition looks at: the request's headers (or gRPC metadata), or the \
             attributes of each resource.",
        ),
        value(
            "condition",
            "text",
            "",
            "Required. `request[\"x-tenant\"] == \"acme\"` or `attributes[\"k\"] == \"v\"`.",
        ),
        value("pipelines", "list of names", "", "Required. Each gets all that the row has."),
        only("action", "move", "what a row has no later row gets: remove it"),
        refused("statement", "write its condition: `condition: 'attributes[\"k\"] == \"v\"'`"),
    ],
};

pub(crate) const SHIFT: Table = Table {
    path: "connectors.shift[/name]",
    keys: &[
        block(
            "shares",
            "Required: pipelines and their weights: `{traces/old: 90, traces/new: 10}`.",
        ),
        value(
            "by",
            "batch or traceID",
            "batch",
            "`batch`: whole batches in turn. `traceID`, for traces and logs: batches are cut, and \
             all of a trace goes to one pipeline, always the same. Logs without a trace go to one \
             pipeline together.",
        ),
    ],
};

pub(crate) const MIRROR: Table = Table {
    path: "connectors.mirror[/name]",
    keys: &[
        value(
            "pipelines",
            "list of names",
            "",
            "Required. Each gets a copy. A mirror holds up nobody. One whose destination gets \
             copies alone holds up neither health nor the end of the process: a second after the \
             stop began, once all else has been delivered, copies are dropped as `shutdown`.",
        ),
        value("percent", "percent", "100", "Of so many of a hundred batches."),
    ],
};

/// A name, and where it stands.
pub(crate) type Named = (String, Place);

pub(crate) struct Connector {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    Failover(Vec<Named>),
    Routing { rows: Vec<(Condition, Vec<Named>)>, otherwise: Vec<Named> },
    Shift { shares: Vec<(Named, u32)>, by: ShiftBy },
    Mirror { pipelines: Vec<Named>, percent: u32 },
}

impl Connector {
    /// Every pipeline that it names, maybe more than once.
    pub(crate) fn pipelines(&self) -> Vec<&Named> {
        match &self.kind {
            Kind::Failover(levels) => levels.iter().collect(),
            Kind::Routing { rows, otherwise } => {
                rows.iter().flat_map(|(_, pipelines)| pipelines).chain(otherwise).collect()
            }
            Kind::Shift { shares, .. } => shares.iter().map(|(named, _)| named).collect(),
            Kind::Mirror { pipelines, .. } => pipelines.iter().collect(),
        }
    }

    pub(crate) fn is_routing(&self) -> bool {
        matches!(self.kind, Kind::Routing { .. })
    }
}

pub(crate) fn read(components: &[Component<'_>], report: &Report) -> Vec<Connector> {
    let mut connectors = Vec::new();
    for component in components {
        let open = |table| {
            Section::open(component.node, component.place, component.path.as_str(), table, report)
        };
        let kind = match component.kind {
            "failover" => failover(&open(&FAILOVER)),
            "routing" => routing(&open(&ROUTING)),
            "shift" => shift(&open(&SHIFT)),
            "mirror" => mirror(&open(&MIRROR)),
            _ => {
                report.add(component.unknown("connector", &KINDS));
                continue;
            }
        };
        let (name, place) = (component.id.to_owned(), component.place.clone());
        connectors.push(Connector { name, place, kind });
    }
    connectors
}

fn failover(section: &Section<'_>) -> Kind {
    let mut levels = Vec::new();
    for (index, level) in list(section, "priority_levels").iter().enumerate() {
        match names(level).as_deref() {
            Some([named]) => levels.push(named.clone()),
            Some(_) => {
                let what = format!("must name one pipeline in each level; see level {}", index + 1);
                section.fault("priority_levels", &what);
            }
            None => section.fault("priority_levels", "must be a list of lists of pipelines"),
        }
    }
    Kind::Failover(levels)
}

fn routing(section: &Section<'_>) -> Kind {
    let row = |(index, node): (usize, &Node)| {
        let path = format!("{}[{index}]", section.key_path("table"));
        let row = Section::open(node, &node.place, path, &ROW, section.report);
        let pipelines = named(&row, "pipelines");
        // What is faulty is reported; its pipelines must not be reported, too.
        let never = || Condition::Attribute(String::new(), String::new());
        (condition(&row).unwrap_or_else(never), pipelines)
    };
    let rows = list(section, "table").iter().enumerate().map(row).collect();
    let otherwise = section.texts("default_pipelines");
    let otherwise = otherwise.into_iter().map(|(name, place)| (name.to_owned(), place.clone()));
    let otherwise = each_once(section, "default_pipelines", otherwise.collect());
    Kind::Routing { rows, otherwise }
}

fn condition(row: &Section<'_>) -> Option<Condition> {
    const CONTEXTS: &[(&str, bool)] = &[("request", true), ("resource", false)];
    let is_request = row.value("context", values::choice(CONTEXTS));
    if row.given("condition").is_none() && row.given("statement").is_none() {
        row.fault("condition", "is missing: what has to be true?");
    }
    row.read("condition", |text| match is_request {
        true => {
            let (name, value) = equation(text, &["request"])
                .ok_or("must be of the form request[\"header\"] == \"value\"")?;
            let name = HeaderName::try_from(name.to_ascii_lowercase());
            Ok(Condition::Header(name.map_err(|_| "names no header that can be sent")?, value))
        }
        false => {
            let (name, value) = equation(text, &["attributes", "resource.attributes"])
                .ok_or("must be of the form attributes[\"key\"] == \"value\"")?;
            match value.is_empty() {
                // A resource without the attribute must not count as one with an empty one.
                true => Err("must ask for a value that is not empty".to_owned()),
                false => Ok(Condition::Attribute(name, value)),
            }
        }
    })
}

/// The two texts of `owner["name"] == "value"`.
fn equation(text: &str, owners: &[&str]) -> Option<(String, String)> {
    let (left, right) = text.split_once("==")?;
    let (owner, rest) = left.trim().split_once('[')?;
    let name = rest.trim_end().strip_suffix(']')?;
    owners.contains(&owner.trim_end()).then_some(())?;
    Some((quoted(name)?, quoted(right)?))
}

/// A text in double quotes; backslashes may stand before quotes and backslashes only.
fn quoted(text: &str) -> Option<String> {
    let inner = text.trim().strip_prefix('"')?.strip_suffix('"')?;
    let (mut out, mut letters) = (String::new(), inner.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '"' => return None,
            '\\' => out.push(letters.next().filter(|letter| matches!(letter, '"' | '\\'))?),
            letter => out.push(letter),
        }
    }
    Some(out)
}

fn shift(section: &Section<'_>) -> Kind {
    const BY: &[(&str, ShiftBy)] = &[("batch", ShiftBy::Batch), ("traceID", ShiftBy::TraceId)];
    let mut shares = Vec::new();
    match section.given("shares").map(|node| &node.value) {
        Some(Value::Map(entries)) => {
            for entry in entries {
                let weight = match &entry.node.value {
                    Value::Scalar { text, .. } => values::count(text).ok(),
                    _ => None,
                };
                let weight = weight.and_then(|weight| u32::try_from(weight).ok());
                let is_fit = |weight: &u32| (1..=WEIGHT_MAX).contains(weight);
                let weight = weight.filter(is_fit).unwrap_or_else(|| {
                    section.fault("shares", "must hold weights from 1 to 1000000");
                    1
                });
                shares.push(((entry.key.clone(), entry.place.clone()), weight));
            }
        }
        Some(_) => section.fault("shares", "must be a map of pipelines to weights"),
        None => section.fault("shares", "is missing: which pipelines, and how much to each?"),
    }
    Kind::Shift { shares, by: section.value("by", values::choice(BY)) }
}

fn mirror(section: &Section<'_>) -> Kind {
    let percent = u32::try_from(section.count("percent", 1..=100)).expect("the range is small");
    Kind::Mirror { pipelines: named(section, "pipelines"), percent }
}

fn named(section: &Section<'_>, key: &str) -> Vec<Named> {
    let names = section.texts(key);
    if names.is_empty() {
        section.fault(key, "is missing or empty: name at least one pipeline");
    }
    let names = names.into_iter().map(|(name, place)| (name.to_owned(), place.clone())).collect();
    each_once(section, key, names)
}

/// A pipeline that stood there twice would get every item twice.
fn each_once(section: &Section<'_>, key: &str, names: Vec<Named>) -> Vec<Named> {
    let mut once: Vec<Named> = Vec::new();
    for (name, place) in names {
        if once.iter().any(|(known, _)| *known == name) {
            let what = format!("{} names \"{name}\" twice", section.key_path(key));
            section.report.add(Problem::error(&place, what).hint("remove one"));
        } else {
            once.push((name, place));
        }
    }
    once
}

/// The items of a list that has to be there.
fn list<'a>(section: &Section<'a>, key: &str) -> &'a [Node] {
    match section.given(key).map(|node| &node.value) {
        Some(Value::List(items)) if !items.is_empty() => items,
        Some(Value::List(_)) | None => {
            section.fault(key, "is missing or empty");
            &[]
        }
        Some(_) => {
            section.fault(key, "must be a list");
            &[]
        }
    }
}

/// The names in a list, or the one that stands for a list of one.
fn names(node: &Node) -> Option<Vec<Named>> {
    let one = |node: &Node| match &node.value {
        Value::Scalar { text, .. } => Some((text.clone(), node.place.clone())),
        _ => None,
    };
    match &node.value {
        Value::List(items) => items.iter().map(one).collect(),
        _ => one(node).map(|named| vec![named]),
    }
}

/// A connector that can't be wired as it is.
pub(crate) fn problem(connector: &Connector, place: &Place, what: &str) -> Problem {
    Problem::error(place, format!("connectors.{} {what}", connector.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_equations_of_two_quoted_texts_and_nothing_else() {
        let read = |text| equation(text, &["attributes", "resource.attributes"]);
        let both = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
        assert_eq!(read(r#"attributes["k"] == "v""#), both("k", "v"));
        let spaced = r#" resource.attributes [ "a.b" ]=="x == \"y\"" "#;
        assert_eq!(read(spaced), both("a.b", "x == \"y\""));
        assert_eq!(read(r#"attributes["a"]=="b\\""#), both("a", "b\\"));
        for bad in [
            "",
            "attributes",
            r#"attributes["k"] != "v""#,
            r#"attributes["k"] == v"#,
            r#"attributes[k] == "v""#,
            r#"attributes["k"] == "v" or true"#,
            r#"request["k"] == "v""#,
            r#"attributes["k"] == "a"b""#,
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
