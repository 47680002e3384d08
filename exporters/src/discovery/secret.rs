//! Tokens and passwords, which can be sent and not be shown.

use std::fmt;

/// A text that `{:?}` does not reveal.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// To put it on the wire, and for nothing else.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// `text` without this secret, should a server have repeated it to us.
    pub(super) fn scrub(&self, text: &str) -> String {
        match self.0.is_empty() {
            true => text.to_owned(),
            false => text.replace(&self.0, "[redacted]"),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
