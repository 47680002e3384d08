//! What to do with a request whose only fault is text that is not UTF-8.
//!
//! protobuf demands UTF-8, so a strict backend refuses a whole batch for one bad byte; and programs
//! that cut texts in the middle of a character send such bytes all the time. [`mend`] makes a
//! request valid that `check` refused as [`Reason::InvalidUtf8`], as the [`InvalidUtf8`] policy
//! says, and tells what that took away. Every other fault stays a refusal.
//!
//! Always
//! - What comes back has passed `check`, and holds the items of the request but those that are
//!   counted as refused.
//! - It has no spare capacity, and making it took no more memory than it has itself.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::check::{
    Checked, DEPTH_MAX, Reason, WireError, check, check_or_return, counts_but_for_utf8,
};
use crate::schema::{self, Kind, LEN, Message};
use crate::signal::Signal;
use crate::wire::{self, Fields};

/// A policy for text that is not UTF-8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InvalidUtf8 {
    /// The request is refused, as every other malformed request.
    #[default]
    RefuseRequest,
    /// The items with such text are refused and the others taken. Text above items (of a resource,
    /// a scope, a metric's name) takes all items below it along. Profiles are refused whole, for
    /// their texts lie in a dictionary that all samples share.
    RefuseItem,
    /// Each bad sequence becomes U+FFFD, as `String::from_utf8_lossy` does it.
    Replace,
}

/// A request that has been made valid.
#[derive(Clone, Debug)]
pub struct Mended {
    pub checked: Checked,
    /// Items that were left out.
    pub items_refused: u64,
    /// Items, metrics, scope groups and resource groups that were left out, each with what it held:
    /// there may be some without any item.
    pub parts_refused: u64,
    /// Texts in which something was replaced.
    pub texts_replaced: u64,
}

/// Why a request stays refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmendable {
    Malformed(WireError),
    /// With all that had to be replaced it would have more bytes than it may.
    TooLarge {
        bytes_max: usize,
    },
}

impl fmt::Display for Unmendable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unmendable::Malformed(error) => error.fmt(f),
            Unmendable::TooLarge { bytes_max } => write!(
                f,
                "with U+FFFD (three bytes) for each byte that is not UTF-8 the request is larger \
                 than {bytes_max} bytes"
            ),
        }
    }
}

impl std::error::Error for Unmendable {}

impl From<WireError> for Unmendable {
    fn from(error: WireError) -> Self {
        Unmendable::Malformed(error)
    }
}

/// Checks a request, and makes it valid if the policy allows that and it then has no more than
/// `bytes_max` bytes. What was valid before may have any size.
pub fn check_or_mend(
    signal: Signal,
    bytes: Bytes,
    policy: InvalidUtf8,
    bytes_max: usize,
) -> Result<Mended, Unmendable> {
    match check_or_return(signal, bytes) {
        Ok(checked) => {
            Ok(Mended { checked, items_refused: 0, parts_refused: 0, texts_replaced: 0 })
        }
        Err((error, _)) if error.reason != Reason::InvalidUtf8 => Err(error.into()),
        Err((error, bytes)) => mend(signal, &bytes, policy, bytes_max, error),
    }
}

fn mend(
    signal: Signal,
    bytes: &[u8],
    policy: InvalidUtf8,
    bytes_max: usize,
    error: WireError,
) -> Result<Mended, Unmendable> {
    let can_leave_out = signal != Signal::Profiles;
    match policy {
        InvalidUtf8::RefuseRequest => return Err(error.into()),
        InvalidUtf8::RefuseItem if !can_leave_out => return Err(error.into()),
        _ => {}
    }
    // From here on all but the texts is known to be sound.
    let items = counts_but_for_utf8(signal, bytes)?.items;
    let out = Vec::with_capacity(bytes.len().min(bytes_max));
    let mut mender = Mender { policy, bytes_max, out, parts_refused: 0, texts_replaced: 0 };
    match mender.message(schema::request(signal), bytes, 0..bytes.len(), 0) {
        Mending::TooLarge => return Err(Unmendable::TooLarge { bytes_max }),
        // Nothing of a request is above what can be left out.
        Mending::Done | Mending::LeaveOut => {}
    }
    let Mender { mut out, parts_refused, texts_replaced, .. } = mender;
    out.shrink_to_fit();
    let checked = check(signal, out.into())?;
    let items_refused = items - checked.counts().items;
    Ok(Mended { checked, items_refused, parts_refused, texts_replaced })
}

struct Mender {
    policy: InvalidUtf8,
    bytes_max: usize,
    out: Vec<u8>,
    parts_refused: u64,
    texts_replaced: u64,
}

enum Mending {
    Done,
    /// Bad is something that only the message around it can leave out.
    LeaveOut,
    TooLarge,
}

impl Mender {
    /// Writes the message without what is bad in it.
    fn message(
        &mut self,
        message: &'static Message,
        bytes: &[u8],
        at: Range<usize>,
        depth: usize,
    ) -> Mending {
        for field in Fields::new(bytes, at) {
            let kind = message.field(field.number).map(|field| field.kind);
            let value = &bytes[field.value.clone()];
            let mending = match kind {
                Some(Kind::String) if std::str::from_utf8(value).is_err() => {
                    self.text(field.number, value)
                }
                Some(Kind::Message(inner)) if field.wire_type == LEN && depth < DEPTH_MAX => {
                    self.inner(inner, field.number, bytes, field.value, depth + 1)
                }
                _ => {
                    self.out.extend_from_slice(&bytes[field.whole]);
                    Mending::Done
                }
            };
            match mending {
                Mending::Done if self.out.len() <= self.bytes_max => {}
                Mending::Done => return Mending::TooLarge,
                other => return other,
            }
        }
        Mending::Done
    }

    fn text(&mut self, number: u32, value: &[u8]) -> Mending {
        if self.policy != InvalidUtf8::Replace {
            return Mending::LeaveOut;
        }
        self.texts_replaced += 1;
        let replacement = |invalid: &[u8]| if invalid.is_empty() { "" } else { "\u{fffd}" };
        let chunks = || value.utf8_chunks();
        let bytes: usize =
            chunks().map(|chunk| chunk.valid().len() + replacement(chunk.invalid()).len()).sum();
        if self.out.len().saturating_add(bytes) > self.bytes_max {
            return Mending::TooLarge;
        }
        wire::put_tag(&mut self.out, number, LEN);
        wire::put_varint(&mut self.out, bytes as u64);
        for chunk in chunks() {
            self.out.extend_from_slice(chunk.valid().as_bytes());
            self.out.extend_from_slice(replacement(chunk.invalid()).as_bytes());
        }
        Mending::Done
    }

    fn inner(
        &mut self,
        inner: &'static Message,
        number: u32,
        bytes: &[u8],
        value: Range<usize>,
        depth: usize,
    ) -> Mending {
        let start = self.out.len();
        wire::put_tag(&mut self.out, number, LEN);
        let length_at = self.out.len();
        wire::put_varint(&mut self.out, value.len() as u64);
        let content_at = self.out.len();
        match self.message(inner, bytes, value, depth) {
            Mending::Done => self.put_length(length_at, content_at),
            Mending::LeaveOut if can_be_left_out(inner) => {
                self.out.truncate(start);
                self.parts_refused += 1;
            }
            other => return other,
        }
        Mending::Done
    }

    /// The length as it is now. That it takes more or fewer bytes than before is rare, and then the
    /// content moves.
    fn put_length(&mut self, length_at: usize, content_at: usize) {
        let mut length = Vec::with_capacity(wire::VARINT_BYTES_MAX);
        wire::put_varint(&mut length, (self.out.len() - content_at) as u64);
        self.out.splice(length_at..content_at, length);
    }
}

/// Whether the message is a repeated part of a request that makes sense without it: an item, or
/// what items are grouped by.
fn can_be_left_out(message: &Message) -> bool {
    message.tally == schema::Tally::Item
        || message.name == "Metric"
        || message.name.starts_with("Resource") && message.name != "Resource"
        || message.name.starts_with("Scope")
}

#[cfg(test)]
mod tests;
