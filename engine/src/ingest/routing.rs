//! Which pipelines a request is for, where a routing says so.
//!
//! Always: each item goes by the first row that is true of its request or resource; what no row
//! has is the default's. A request that is one row's is not touched.

use bytes::Bytes;
use forebay_codec::check::{Checked, WireError, check};
use forebay_codec::split::by::{Key, Request, split_by};
use forebay_net::fields::Fields;
use smallvec::{SmallVec, smallvec};

use crate::config::plan::{Condition, Routing, Row};

/// What each row has of a request; the number of rows stands for the default. As a rule one has
/// all of it.
pub type Cut = SmallVec<[(usize, Checked); 1]>;

impl Routing {
    /// The row that has the whole request, if its headers alone say so.
    pub fn row_by_headers(&self, headers: &Fields) -> Option<usize> {
        for (index, row) in self.rows.iter().enumerate() {
            match &row.condition {
                Condition::Header(..) if is_true(&row.condition, headers) => return Some(index),
                Condition::Header(..) => {}
                Condition::Attribute(..) => return None,
            }
        }
        Some(self.rows.len())
    }

    /// The pipelines of a row.
    pub fn pipelines(&self, row: usize) -> &[usize] {
        self.rows.get(row).map_or(&self.otherwise, |row| &row.pipelines)
    }

    /// All pipelines that it may lead to.
    pub fn targets(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().flat_map(|row| &row.pipelines).chain(&self.otherwise).copied()
    }

    /// Cuts a request by its resources: once for each attribute that conditions in a row ask for.
    pub fn cut(&self, checked: Checked, headers: &Fields) -> Cut {
        let (mut cut, mut rest, mut row) = (Cut::new(), checked, 0);
        while let Some(Row { condition, .. }) = self.rows.get(row) {
            let Condition::Attribute(key, _) = condition else {
                if is_true(condition, headers) {
                    cut.push((row, rest));
                    return cut;
                }
                row += 1;
                continue;
            };
            let values = values(&self.rows[row..], key);
            match by_value(&rest, key, &values) {
                Ok(pieces) => {
                    let mut left = None;
                    // One piece is the request as it came.
                    let is_whole = pieces.len() == 1;
                    for (index, piece) in pieces {
                        let piece = if is_whole { rest.clone() } else { piece };
                        match index == values.len() {
                            true => left = Some(piece),
                            false => cut.push((row + index, piece)),
                        }
                    }
                    match left {
                        Some(left) => rest = left,
                        None => return cut,
                    }
                }
                Err(error) => {
                    tracing::error!(
                        ?error,
                        routing = self.name,
                        "A request that was checked before does not check in parts: it goes to \
                         default_pipelines whole",
                    );
                    return smallvec![(self.rows.len(), rest)];
                }
            }
            row += values.len();
        }
        cut.push((self.rows.len(), rest));
        cut
    }
}

fn is_true(condition: &Condition, headers: &Fields) -> bool {
    match condition {
        Condition::Header(name, wanted) => {
            headers.get_all(name).any(|value| value.as_bytes() == wanted.as_bytes())
        }
        Condition::Attribute(..) => false,
    }
}

/// What the first rows, as long as they ask for `key`, want it to be.
fn values<'a>(rows: &'a [Row], key: &str) -> Vec<&'a str> {
    let wanted = |row: &'a Row| match &row.condition {
        Condition::Attribute(other, value) if other == key => Some(value.as_str()),
        _ => None,
    };
    rows.iter().map_while(wanted).collect()
}

/// A request's items by the place of their resource's value in `values`; what has none of them
/// comes last.
fn by_value(
    checked: &Checked,
    key: &str,
    values: &[&str],
) -> Result<SmallVec<[(usize, Checked); 1]>, WireError> {
    let place = |value: &[u8]| {
        let place = values.iter().position(|wanted| wanted.as_bytes() == value);
        place.unwrap_or(values.len()) as u64
    };
    let whole = [checked.bytes().clone()];
    let request = Request { parts: &whole, counts: checked.counts(), tenant: b"" };
    let signal = checked.signal();
    let shards = split_by(signal, &[request], Key::Resource(key), values.len() + 1, place);
    if let [only] = &shards[..] {
        return Ok(smallvec![(only.index, checked.clone())]);
    }
    let with_items = shards.into_iter().filter(|shard| shard.chain.counts.items > 0);
    let checked = |parts: Vec<Bytes>| check(signal, Bytes::from(parts.concat()));
    with_items.map(|shard| Ok((shard.index, checked(shard.chain.parts)?))).collect()
}

#[cfg(test)]
mod tests;
