//! Cutting against the plain reading of the rules: each resource by itself, by the first row that
//! is true of it.

use forebay_codec::signal::Signal;
use forebay_codec::view::{Value, groups};
use http::{HeaderName, HeaderValue};

use super::*;

const KEYS: [&str; 3] = ["team", "env", "x.y"];
const VALUES: [&str; 4] = ["a", "b", "prod", "long value"];

struct Draws(u64);

impl Draws {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % below
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }
}

fn put(number: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    assert!(content.len() < 128, "short messages only");
    out.push(content.len() as u8);
    out.extend_from_slice(content);
}

/// A group of log records whose bodies are `first` and the following numbers.
fn group(attributes: &[(&str, &str)], first: u8, items: u8) -> Vec<u8> {
    let (mut resource, mut scope, mut group) = (Vec::new(), Vec::new(), Vec::new());
    for (key, value) in attributes {
        let (mut text, mut pair) = (Vec::new(), Vec::new());
        put(1, value.as_bytes(), &mut text);
        put(1, key.as_bytes(), &mut pair);
        put(2, &text, &mut pair);
        put(1, &pair, &mut resource);
    }
    for number in first..first + items {
        let mut record = Vec::new();
        let body = [1 << 3 | 2, 1, b'0' + number % 60];
        put(5, &body, &mut record);
        put(2, &record, &mut scope);
    }
    put(1, &resource, &mut group);
    put(2, &scope, &mut group);
    group
}

/// The bodies of all records.
fn bodies(checked: &Checked) -> Vec<u8> {
    let records =
        groups(checked).flat_map(|group| group.scopes()).flat_map(|scope| scope.log_records());
    let body = |value: Value<'_>| match value {
        Value::String(text) => text.as_bytes()[0],
        other => panic!("{other:?}"),
    };
    records.map(|record| body(record.body())).collect()
}

#[test]
fn each_resource_goes_by_the_first_row_that_is_true_of_it_and_nothing_is_lost() {
    for seed in 0..400 {
        let mut draws = Draws(seed);
        let row = |draws: &mut Draws| {
            let condition = match draws.below(5) {
                0 => {
                    let name = HeaderName::from_static("x-tenant");
                    Condition::Header(name, draws.of(&VALUES).to_owned())
                }
                _ => Condition::Attribute(draws.of(&KEYS).into(), draws.of(&VALUES).into()),
            };
            Row { condition, pipelines: vec![0] }
        };
        let rows: Vec<Row> = (0..draws.below(5)).map(|_| row(&mut draws)).collect();
        let mut headers = Fields::new();
        let tenant = draws.of(&VALUES);
        headers.push(HeaderName::from_static("x-tenant"), HeaderValue::from_static(tenant));
        let mut expected = vec![Vec::new(); rows.len() + 1];
        let (mut request, mut next) = (Vec::new(), 0);
        for _ in 0..1 + draws.below(4) {
            let mut attributes = Vec::new();
            for key in KEYS {
                if draws.below(2) == 0 {
                    attributes.push((key, draws.of(&VALUES)));
                }
            }
            let items = draws.below(4) as u8;
            put(1, &group(&attributes, next, items), &mut request);
            let is_true = |row: &Row| match &row.condition {
                Condition::Header(_, value) => value == tenant,
                Condition::Attribute(key, value) => {
                    attributes.contains(&(key.as_str(), value.as_str()))
                }
            };
            let row = rows.iter().position(is_true).unwrap_or(rows.len());
            expected[row].extend((next..next + items).map(|number| b'0' + number % 60));
            next += items;
        }
        if next == 0 {
            continue;
        }
        let routing = Routing { name: "routing".to_owned(), rows, otherwise: vec![1] };
        let checked = check(Signal::Logs, Bytes::from(request)).expect("valid");
        let mut got = vec![Vec::new(); routing.rows.len() + 1];
        for (row, piece) in routing.cut(checked.clone(), &headers) {
            assert!(got[row].is_empty(), "seed {seed}: a row has one piece");
            assert!(piece.counts().items > 0, "seed {seed}");
            got[row] = bodies(&piece);
            if got[row].len() == usize::from(next) {
                assert_eq!(piece.bytes().as_ptr(), checked.bytes().as_ptr(), "seed {seed}");
            }
        }
        assert_eq!(got, expected, "seed {seed}: {:?}", routing.rows);
    }
}
