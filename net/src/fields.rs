//! Header fields, in their order: few, looked at once or twice, and so a list and not a map.
//!
//! The first [`INLINE`] need no memory of their own. Lookup is from front to back; who puts fields
//! in bounds their number.

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

/// As many as an export request or its answer has that anybody reads.
const INLINE: usize = 2;

/// Names and values of a request's or an answer's header. A name may come more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(SmallVec<[(HeaderName, HeaderValue); INLINE]>);

impl Fields {
    pub fn new() -> Fields {
        Fields::default()
    }

    /// The value of the first field of this name.
    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub fn get_all<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a HeaderValue> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value)
    }

    /// Adds a field behind the others.
    pub fn push(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.push((name, value));
    }

    /// Keeps the first field of each of these names, and no other, nor the memory of others.
    pub fn keep(&mut self, names: &[HeaderName]) {
        let mut kept = 0u64;
        self.0.retain(|(name, _)| {
            let place = names.iter().position(|known| known == name);
            let is_first = place.is_some_and(|place| kept & (1 << place) == 0);
            kept |= place.map_or(0, |place| 1 << place);
            is_first
        });
        self.0.shrink_to_fit();
    }

    pub fn iter(&self) -> std::slice::Iter<'_, (HeaderName, HeaderValue)> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<const COUNT: usize> From<[(HeaderName, HeaderValue); COUNT]> for Fields {
    fn from(fields: [(HeaderName, HeaderValue); COUNT]) -> Fields {
        fields.into_iter().collect()
    }
}

impl FromIterator<(HeaderName, HeaderValue)> for Fields {
    fn from_iter<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(fields: I) -> Fields {
        Fields(fields.into_iter().collect())
    }
}

impl IntoIterator for Fields {
    type Item = (HeaderName, HeaderValue);
    type IntoIter = smallvec::IntoIter<[(HeaderName, HeaderValue); INLINE]>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Fields {
    type Item = &'a (HeaderName, HeaderValue);
    type IntoIter = std::slice::Iter<'a, (HeaderName, HeaderValue)>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, CONTENT_TYPE, HOST};

    use super::*;

    #[test]
    fn the_first_field_of_a_name_is_found_and_kept() {
        let value = HeaderValue::from_static;
        let mut fields = Fields::from([
            (HOST, value("a")),
            (CONTENT_TYPE, value("b")),
            (CONTENT_TYPE, value("c")),
            (ACCEPT, value("d")),
        ]);
        assert_eq!(fields.get(&CONTENT_TYPE), Some(&value("b")));
        assert_eq!(fields.get_all(&CONTENT_TYPE).count(), 2);
        fields.keep(&[ACCEPT, CONTENT_TYPE]);
        let left = [(CONTENT_TYPE, value("b")), (ACCEPT, value("d"))];
        assert_eq!(fields, Fields::from(left));
    }
}
