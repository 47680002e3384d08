//! What it means that `check` and prost agree, and the three rules by which they may not.

use bytes::Bytes;
use forebay_codec::check::{DEPTH_MAX, Reason, WireError, check};
use forebay_codec::signal::Signal;

use crate::decoded::Decoded;

/// What both said of the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Both took them, with the same counts.
    Passed,
    /// Both refused them.
    Refused,
    /// prost took what `check` refused, and that is wanted.
    Stricter(Rule),
}

/// Why `check` refuses what prost takes. There is nothing that prost refuses and `check` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// An id has its own length or none: a backend on pdata refuses a whole batch for another.
    IdLength,
    /// OTLP never had groups, and not every reader skips them.
    Groups,
    /// Messages nest at most [`DEPTH_MAX`] deep; prost goes to 100, others stop earlier.
    Depth,
}

/// Asks both. `Err` says how they differ where they must not.
pub(crate) fn agreement(signal: Signal, bytes: &[u8]) -> Result<Verdict, String> {
    let ours = check(signal, Bytes::copy_from_slice(bytes));
    match (ours, Decoded::from_proto(signal, bytes)) {
        (Ok(ours), Ok(theirs)) if ours.counts() == theirs.counts() => Ok(Verdict::Passed),
        (Ok(ours), Ok(theirs)) => {
            Err(format!("{signal}: prost counts {:?}, check {:?}", theirs.counts(), ours.counts()))
        }
        (Err(_), Err(_)) => Ok(Verdict::Refused),
        (Err(error), Ok(_)) => rule(&error)
            .map(Verdict::Stricter)
            .ok_or_else(|| format!("{signal}: refused what prost takes: {error}")),
        (Ok(_), Err(why)) => Err(format!("{signal}: passed what prost refuses: {why}")),
    }
}

fn rule(error: &WireError) -> Option<Rule> {
    match error.reason {
        Reason::WrongIdLength { .. } => Some(Rule::IdLength),
        Reason::GroupWireType => Some(Rule::Groups),
        // The path holds a name for each message that was entered.
        Reason::TooDeep if error.path.split('.').count() > DEPTH_MAX => Some(Rule::Depth),
        _ => None,
    }
}
