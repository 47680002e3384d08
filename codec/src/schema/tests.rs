//! The tables keep the promises that the walkers rely on, and say what the published crate says.

use std::collections::BTreeMap;

use super::*;

/// Every message that a request of any signal can reach.
fn messages() -> Vec<&'static Message> {
    reachable(Signal::ALL.map(request))
}

/// The messages that these hold, at any depth, and themselves; told apart by their address.
fn reachable(messages: impl Into<Vec<&'static Message>>) -> Vec<&'static Message> {
    let mut seen: BTreeMap<*const Message, &'static Message> = BTreeMap::new();
    let mut next = messages.into();
    while let Some(message) = next.pop() {
        if seen.insert(message, message).is_none() {
            next.extend(message.fields.iter().filter_map(|field| match field.kind {
                Kind::Message(inner) => Some(inner),
                _ => None,
            }));
        }
    }
    seen.into_values().collect()
}

#[test]
fn field_numbers_ascend_and_lead_to_their_fields() {
    for message in messages() {
        assert!(message.fields.len() <= NUMBER_MAX, "{}", message.name);
        assert!(message.fields.is_sorted_by(|a, b| a.number < b.number), "{}", message.name);
        for number in 0..40 {
            let expected = message.fields.iter().find(|field| field.number == number);
            let found = message.field(number);
            assert_eq!(found.map(|f| f.name), expected.map(|f| f.name), "{}", message.name);
        }
    }
}

#[test]
fn names_are_found_in_both_spellings_and_no_other() {
    let camel = |name: &str| {
        let mut words = name.split('_');
        let first = words.next().unwrap_or_default().to_owned();
        words.fold(first, |all, word| all + &word[..1].to_uppercase() + &word[1..])
    };
    for message in messages() {
        for field in message.fields {
            let json_name = camel(field.name);
            assert_eq!(field.json_name(), json_name.as_bytes());
            for key in [json_name.as_str(), field.name] {
                let found = message.field_named(key.as_bytes()).unwrap();
                assert_eq!(found.number, field.number, "{}.{key}", message.name);
            }
        }
        for key in ["", "unknown", "Name", "trace_id_"] {
            assert!(message.field_named(key.as_bytes()).is_none());
        }
    }
}

#[test]
fn a_key_that_differs_in_any_byte_names_nothing() {
    let all: Vec<_> = messages().iter().flat_map(|message| message.fields).collect();
    for message in messages() {
        let names_it = |key: &[u8]| {
            let of = |f: &&Field| f.json_name() == key || f.name.as_bytes() == key;
            message.fields.iter().find(of).map(|f| f.number)
        };
        for name in all.iter().flat_map(|field| [field.json_name(), field.name.as_bytes()]) {
            let mut keys = vec![name.to_vec(), [name, b"\0"].concat(), [name, name].concat()];
            for at in 0..name.len() {
                keys.push(name[..at].to_vec());
                let mut other = name.to_vec();
                other[at] ^= 0x20;
                keys.push(other);
            }
            for key in keys {
                let found = message.field_named(&key).map(|f| f.number);
                assert_eq!(found, names_it(&key), "{}.{key:?}", message.name);
            }
        }
    }
}

#[test]
fn a_label_is_found_in_front_of_anything_and_nowhere_else() {
    let pad = |text: &str| {
        let mut block = [b'x'; LABEL_BYTES_MAX];
        block[..text.len()].copy_from_slice(text.as_bytes());
        block
    };
    for field in messages().iter().flat_map(|message| message.fields) {
        let (label, bytes) = field.json_label();
        let label = str::from_utf8(&label[..bytes]).unwrap().to_owned();
        assert_eq!(label, format!(",\"{}\":", str::from_utf8(field.json_name()).unwrap()));
        assert!(field.is_labelled(&pad(&label)));
        assert!(field.is_labelled(&pad(&label.replace(',', "{"))));
        for at in 1..bytes {
            let mut block = pad(&label);
            block[at] ^= 1;
            assert!(!field.is_labelled(&block), "{label} at {at}");
        }
    }
}

#[test]
fn messages_of_one_signal_have_rows_of_their_own() {
    for signal in Signal::ALL {
        let mut rows = BTreeMap::new();
        for message in reachable([request(signal)]) {
            let other = rows.insert(message.row, message.name);
            assert_eq!(other, None, "{} has that row too; try another start", message.name);
            assert!(usize::from(message.row) < ROWS, "{}", message.name);
        }
    }
}

#[test]
fn members_of_a_oneof_are_singular() {
    for message in messages() {
        let wrong = message.fields.iter().any(|field| field.either && field.repeated);
        assert!(!wrong, "{}", message.name);
    }
}

#[test]
fn items_are_counted_once_each() {
    let mut counted: Vec<_> = messages()
        .into_iter()
        .filter(|message| message.tally != Tally::Nothing)
        .map(|message| message.name)
        .collect();
    counted.sort_unstable();
    let expected = [
        "ExponentialHistogramDataPoint",
        "HistogramDataPoint",
        "LogRecord",
        "NumberDataPoint",
        "Profile",
        "Sample",
        "Span",
        "SummaryDataPoint",
    ];
    assert_eq!(counted, expected);
}
