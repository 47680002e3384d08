//! What to do with a request whose only fault is text that is not UTF-8.
//!
//! protobuf demands UTF-8, so a strict backend refuses a whole batch for one bad byte; and programs
//! that cut texts in the middle of a character send such bytes all the time. [`mend`] makes a
//! request valid that `check` refused as [`Reason::InvalidUtf8`], as the [`InvalidUtf8`] policy
//! says, and tells what that took away. Every other fault stays a refusal.
//!
//! Always: what comes back has passed `check`, and holds the items of the request but those that
//! are counted as refused.

use std::ops::Range;

use bytes::Bytes;

use crate::check::{Checked, DEPTH_MAX, Reason, WireError, check, counts_but_for_utf8};
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
    /// Texts in which something was replaced.
    pub texts_replaced: u64,
}

/// Checks a request, and makes it valid if the policy allows that. The result may be up to three
/// times as large as the request.
pub fn check_or_mend(
    signal: Signal,
    bytes: Bytes,
    policy: InvalidUtf8,
) -> Result<Mended, WireError> {
    match check(signal, bytes.clone()) {
        Ok(checked) => Ok(Mended { checked, items_refused: 0, texts_replaced: 0 }),
        Err(error) if error.reason == Reason::InvalidUtf8 => mend(signal, &bytes, policy, error),
        Err(error) => Err(error),
    }
}

fn mend(
    signal: Signal,
    bytes: &[u8],
    policy: InvalidUtf8,
    error: WireError,
) -> Result<Mended, WireError> {
    let can_leave_out = signal != Signal::Profiles;
    match policy {
        InvalidUtf8::RefuseRequest => return Err(error),
        InvalidUtf8::RefuseItem if !can_leave_out => return Err(error),
        _ => {}
    }
    // From here on all but the texts is known to be sound.
    let items = counts_but_for_utf8(signal, bytes)?.items;
    let mut mender = Mender { policy, texts_replaced: 0 };
    let mut out = Vec::with_capacity(bytes.len());
    mender.message(schema::request(signal), bytes, 0..bytes.len(), &mut out, 0);
    let checked = check(signal, out.into())?;
    let items_refused = items - checked.counts().items;
    Ok(Mended { checked, items_refused, texts_replaced: mender.texts_replaced })
}

struct Mender {
    policy: InvalidUtf8,
    texts_replaced: u64,
}

impl Mender {
    /// Writes the message without what is bad in it. False: bad is something that only the message
    /// around it can leave out.
    fn message(
        &mut self,
        message: &'static Message,
        bytes: &[u8],
        at: Range<usize>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> bool {
        for field in Fields::new(bytes, at) {
            let kind = message.field(field.number).map(|field| field.kind);
            let value = &bytes[field.value.clone()];
            match kind {
                Some(Kind::String) if std::str::from_utf8(value).is_err() => {
                    if self.policy != InvalidUtf8::Replace {
                        return false;
                    }
                    self.texts_replaced += 1;
                    let replaced = String::from_utf8_lossy(value);
                    wire::put_bytes(out, field.number, replaced.as_bytes());
                }
                Some(Kind::Message(inner)) if field.wire_type == LEN && depth < DEPTH_MAX => {
                    let mut content = Vec::with_capacity(value.len());
                    if self.message(inner, bytes, field.value, &mut content, depth + 1) {
                        wire::put_bytes(out, field.number, &content);
                    } else if !can_be_left_out(inner) {
                        return false;
                    }
                }
                _ => out.extend_from_slice(&bytes[field.whole]),
            }
        }
        true
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
