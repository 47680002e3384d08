//! The configuration: from YAML in the Collector's shape to a validated [`plan::Plan`].
//!
//! Sources are read, merged and expanded to one tree (`tree`, `merge`, `expand`), sections are
//! read against the declarations of their keys (`section`, `keys`), and pipelines are wired
//! (`wiring`, `assemble`). One reading finds all mistakes, each with its place and what to do.
//!
//! Always
//! - What is not understood is refused or warned of, never passed over.
//! - No message and no printed configuration shows a header's value or another secret.

mod assemble;
mod connectors;
mod draft;
mod engine;
mod expand;
mod exporters;
mod keys;
mod merge;
pub mod plan;
mod print;
pub mod problem;
mod processors;
mod receivers;
mod registration;
mod secret;
mod section;
mod service;
mod tree;
mod values;
mod wiring;

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use plan::Plan;
use problem::{Place, Problem, Report};
use tree::Node;

/// The largest source that is read.
const SOURCE_BYTES_MAX: u64 = 8 << 20;

/// Where a part of the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    /// YAML in an environment variable of this name.
    Environment(String),
    /// YAML itself, under a name for messages. Keys may be folded: `exporters::debug: {}`.
    Text {
        name: String,
        text: String,
    },
}

impl Source {
    /// Reads a `--config` argument: a path, or one of the Collector's URIs `file:path`,
    /// `env:NAME`, `yaml:text`.
    ///
    /// # Errors
    /// A sentence naming a scheme that is not supported.
    pub fn parse(argument: &str) -> Result<Source, String> {
        match argument.split_once(':') {
            Some(("file", path)) => Ok(Source::File(path.into())),
            Some(("env", name)) => Ok(Source::Environment(name.into())),
            Some(("yaml", text)) => {
                Ok(Source::Text { name: "yaml:".into(), text: text.trim().into() })
            }
            Some((scheme @ ("http" | "https"), _)) => Err(format!(
                "configurations over {scheme} are not supported: fetch it first, and give the file"
            )),
            _ => Ok(Source::File(argument.into())),
        }
    }
}

/// A configuration that can run.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub plan: Plan,
    /// What was taken but does not do what it says.
    pub warnings: Vec<Problem>,
    /// The merged and expanded YAML, with secrets masked.
    pub printable: String,
}

/// The configuration of a start without any `--config`: OTLP in on localhost, `debug` out.
pub fn embedded() -> Source {
    Source::Text {
        name: "default.yaml (embedded)".into(),
        text: include_str!("config/default.yaml").into(),
    }
}

/// Reads, merges and checks. `sets` are `--set` arguments, `a.b=c`, laid over the sources. Reads
/// files and the environment, and looks up the names of hosts to listen on.
///
/// # Errors
/// Everything that is wrong, in the order of the text.
pub fn load(sources: &[Source], sets: &[String]) -> Result<Loaded, Vec<Problem>> {
    load_in(&|name| std::env::var(name).ok(), sources, sets)
}

/// What a configuration may name, by class and in the order of a file.
pub fn component_kinds() -> [(&'static str, &'static [&'static str]); 5] {
    [
        ("receivers", &receivers::KINDS),
        ("processors", &processors::KINDS),
        ("exporters", &exporters::KINDS),
        ("connectors", &connectors::KINDS),
        ("extensions", &service::EXTENSION_KINDS),
    ]
}

fn load_in(
    environment: expand::Environment<'_>,
    sources: &[Source],
    sets: &[String],
) -> Result<Loaded, Vec<Problem>> {
    let report = Report::default();
    let texts = sources.iter().map(|source| read(source, environment, &report));
    let settings = sets.iter().map(|set| merge::set(set, &report));
    let mut trees: Vec<Node> = texts.chain(settings).flatten().collect();
    // Without one of its parts, a configuration would only yield mistakes that are none.
    if trees.len() < sources.len() + sets.len() {
        return Err(report.finish().0);
    }
    trees.reverse();
    let mut root = trees.pop().unwrap_or_else(nothing);
    // An empty file on top of others adds nothing; it does not take everything away.
    for tree in trees.into_iter().rev().filter(|tree| !tree.is_null()) {
        merge::merge(&mut root, tree);
    }
    expand::expand(&mut root, environment, &report);
    let plan = assemble::assemble(&root, &report);
    match report.finish() {
        (errors, warnings) if errors.is_empty() => {
            Ok(Loaded { plan, warnings, printable: print::print(&root) })
        }
        (errors, _) => Err(errors),
    }
}

fn nothing() -> Node {
    let place = Place::whole(&Arc::from("(no configuration)"));
    Node { place, value: tree::Value::Null }
}

/// One source as a tree. `None`: the report says why.
fn read(source: &Source, environment: expand::Environment<'_>, report: &Report) -> Option<Node> {
    let (name, text) = match source {
        Source::File(path) => (path.display().to_string(), read_file(path)),
        Source::Environment(name) => (
            format!("env:{name}"),
            environment(name).ok_or_else(|| format!("the environment variable {name} is not set")),
        ),
        Source::Text { name, text } => (name.clone(), Ok(text.clone())),
    };
    let name: Arc<str> = Arc::from(name);
    let text = text.and_then(|text| match text.len() as u64 > SOURCE_BYTES_MAX {
        true => Err(format!("more than {} MiB", SOURCE_BYTES_MAX >> 20)),
        false => Ok(text),
    });
    match text {
        Ok(text) => {
            let tree = tree::read(&text, &name, report)?;
            Some(if matches!(source, Source::Text { .. }) { merge::unfold(tree) } else { tree })
        }
        Err(fault) => {
            report.add(
                Problem::error(&Place::whole(&name), format!("can't be read: {fault}"))
                    .hint("check the argument of --config"),
            );
            None
        }
    }
}

/// At most one byte more than is allowed, so that devices and pipes without end are no harm.
fn read_file(path: &PathBuf) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|fault| fault.to_string())?;
    match file.take(SOURCE_BYTES_MAX + 1).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(fault) => Err(fault.to_string()),
    }
}

#[cfg(test)]
mod tests;
