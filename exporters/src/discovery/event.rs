//! What a watcher tells: sets, and what an operator should know about their source.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::Endpoint;

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Another set than before: use it.
    Changed(Arc<Update>),
    /// For the log: the source fails, or part of its answer is no use.
    Trouble(Trouble),
    /// For the log: the trouble that was told is over.
    Recovered(Recovered),
}

/// All endpoints at once, sorted by address, each once; never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// Grows with each update of one watcher.
    pub generation: u64,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// [`super::source::Source::name`].
    pub source: String,
    /// What failed and why.
    pub what: String,
    pub cost: Cost,
    /// What to do.
    pub advice: &'static str,
    /// How often the source has failed without a good answer in between.
    pub failures: u32,
}

/// What a trouble means for who uses the set.
#[derive(Clone, Debug, PartialEq)]
pub enum Cost {
    /// There has never been a good set.
    NoEndpoints,
    /// The last good set stays in use.
    LastGood { endpoints: usize, age: Duration },
    /// The answer was used but for a part of it.
    PartUnused,
    /// Others do not find this process.
    NotFound,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "discovery by {}: {}; {}", self.source, self.what, self.cost)?;
        if self.failures > 1 {
            write!(f, " ({} failures in a row)", self.failures)?;
        }
        write!(f, "; {}", self.advice)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cost::NoEndpoints => f.write_str("no endpoint is known, nothing can be sent"),
            Cost::LastGood { endpoints, age } => {
                let s = if *endpoints == 1 { "" } else { "s" };
                let age = age.as_secs();
                write!(
                    f,
                    "the last good set of {endpoints} endpoint{s} from {age} seconds ago stays \
                     in use"
                )
            }
            Cost::PartUnused => f.write_str("the rest of the answer is in use"),
            Cost::NotFound => f.write_str("others may not find this process, or find it ill"),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Recovered {
    pub source: String,
    /// How long there was no good answer.
    pub after: Duration,
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.after.as_secs();
        write!(f, "discovery by {}: answers again after {after} seconds", self.source)
    }
}
