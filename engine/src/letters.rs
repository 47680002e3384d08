//! Dead letters: what a destination refused for good, marked with who refused it and why.

use bytes::Bytes;
use forebay_codec::check::check;
use forebay_codec::edit::{Action, Editor, Op, Owner, Source, Verb};
use forebay_codec::signal::Signal;
use forebay_exporters::batch::{DropReason, GivenBack};

/// A letter may be so much larger than what was refused: marks go on each resource, and a request
/// may consist of nothing else.
const MARKS_BYTES_MAX: usize = 1 << 20;
/// Of what the destination said, each resource is marked with so much.
const MESSAGE_BYTES_MAX: usize = 256;

/// Why a destination refused something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub destination: u16,
    pub reason: DropReason,
    pub code: Option<u32>,
    pub message: String,
}

/// The refused requests, with the refusal in attributes of each resource. What can't be marked
/// (profiles; more marks than there is room for) comes back as it is.
pub fn marked(
    signal: Signal,
    refused: &GivenBack,
    destination: &str,
    why: &Refusal,
) -> (Vec<Bytes>, u64) {
    let as_it_is = || (refused.chain.clone(), refused.bytes);
    let Ok(mut editor) = Editor::new(signal, marks(destination, why)) else {
        return as_it_is();
    };
    let Ok(checked) = check(signal, Bytes::from(refused.chain.concat())) else {
        return as_it_is();
    };
    let bytes_max = 2 * checked.bytes().len() + MARKS_BYTES_MAX;
    match editor.apply(checked, bytes_max) {
        Ok(edited) => {
            let bytes = edited.checked.into_bytes();
            let count = bytes.len() as u64;
            (vec![bytes], count)
        }
        Err(_) => as_it_is(),
    }
}

fn marks(destination: &str, why: &Refusal) -> Vec<Op> {
    let text = |text: &str| Source::Text(text.to_owned());
    let code = why.code.map(|code| ("code", Source::Int(i64::from(code))));
    let all = [
        ("destination", text(destination)),
        ("reason", text(why.reason.name())),
        ("message", text(beginning(&why.message))),
    ];
    let mark = |(name, source): (&str, Source)| {
        let key = format!("forebay.dead_letter.{name}");
        Op::Attribute(Owner::Resource, Action { key, verb: Verb::Upsert(source) })
    };
    all.into_iter().chain(code).map(mark).collect()
}

fn beginning(message: &str) -> &str {
    let is_end = |at: &usize| message.is_char_boundary(*at);
    let end = (0..=message.len().min(MESSAGE_BYTES_MAX)).rev().find(is_end);
    &message[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use forebay_codec::signal::Counts;
    use forebay_codec::view::{Value, groups};
    use forebay_exporters::batch::Why;

    use super::*;

    fn refused(request: &[u8]) -> GivenBack {
        let checked = check(Signal::Logs, Bytes::copy_from_slice(request)).expect("valid");
        GivenBack {
            bytes: request.len() as u64,
            counts: checked.counts(),
            chain: vec![checked.into_bytes()],
            why: Why::Failover,
        }
    }

    #[test]
    fn each_resource_says_who_refused_it_and_why_even_one_without_attributes() {
        // ResourceLogs without a resource, with one empty record.
        let request = [10, 4, 18, 2, 18, 0];
        let why = Refusal {
            destination: 0,
            reason: DropReason::Refused,
            code: Some(3),
            message: "no such tenant".to_owned(),
        };
        let letter = marked(Signal::Logs, &refused(&request), "otlp_http/a", &why);
        let checked = check(Signal::Logs, Bytes::from(letter.0.concat())).expect("valid");
        assert_eq!(checked.counts(), Counts { items: 1, profiles: 0 });
        assert_eq!(checked.bytes().len() as u64, letter.1);
        let group = groups(&checked).next().expect("a group");
        let value = |name: &str| match group
            .resource()
            .attributes()
            .value(&format!("forebay.dead_letter.{name}"))
        {
            Some(Value::String(text)) => text.to_owned(),
            Some(Value::Int(number)) => number.to_string(),
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(value("destination"), "otlp_http/a");
        assert_eq!(value("reason"), "refused_by_destination");
        assert_eq!(value("message"), "no such tenant");
        assert_eq!(value("code"), "3");
    }

    #[test]
    fn a_long_message_is_marked_with_its_beginning_and_never_with_half_a_character() {
        for ahead in 0..4 {
            let message = "x".repeat(ahead) + &"\u{1f30a}".repeat(100);
            let marked = beginning(&message);
            assert!(message.starts_with(marked));
            assert!((MESSAGE_BYTES_MAX - 3..=MESSAGE_BYTES_MAX).contains(&marked.len()));
        }
        assert_eq!(beginning("no such tenant"), "no such tenant");
    }
}
