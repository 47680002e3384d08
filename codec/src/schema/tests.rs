//! The tables keep the promises that the walkers rely on, and say what the published crate says.

use std::collections::BTreeMap;

use super::*;

/// Every message that a request of any signal can reach, by its address.
fn messages() -> Vec<&'static Message> {
    let mut seen: BTreeMap<*const Message, &'static Message> = BTreeMap::new();
    let mut next: Vec<_> = Signal::ALL.into_iter().map(request).collect();
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
