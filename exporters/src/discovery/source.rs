//! The one interface between a source of endpoints and everything else.
//!
//! Always: a source is pulled, never pushes; between two looks it holds nothing but what it needs
//! for the next one.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::endpoint::Endpoint;

/// What a look is while it waits.
pub type Look<'a> = Pin<Box<dyn Future<Output = Said> + Send + 'a>>;
pub type Said = Result<Answer, Failure>;

/// One place that knows the members of a fleet.
pub trait Source: Send {
    /// For logs: `dns collectors.observability:4317`. Holds no secret.
    fn name(&self) -> String;

    /// Asks. A source that can watch waits until something differs from its last answer, or until
    /// it is time to check that the watch still lives; others answer at once.
    ///
    /// Bounds its own waits for the network.
    fn look(&mut self) -> Look<'_>;
}

/// All members that a source knows of, in any order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub endpoints: Vec<Endpoint>,
    pub again: Again,
    /// What of the answer could not be used, though the rest can.
    pub notes: Vec<String>,
}

/// When another look makes sense, from the source's own point of view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Again {
    /// The next look waits for a change by itself.
    #[default]
    AtOnce,
    /// The answer is good for this long.
    After(Duration),
    Never,
}

/// Why a source has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed and why, without secrets.
    pub what: String,
    /// What an operator can do about it.
    pub advice: &'static str,
}

impl Failure {
    pub fn new(what: impl Into<String>, advice: &'static str) -> Failure {
        Failure { what: what.into(), advice }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.advice)
    }
}
