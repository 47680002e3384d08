//! What an editor leaves of any request that passed is a valid request with exactly the counts that
//! it says; a second pass of what changes nothing twice gives the same bytes.
#![no_main]

use forebay_codec::check::check;
use forebay_codec::edit::{Action, Condition, Context, Editor, Op, Owner, Source, Verb};
use forebay_codec::signal::Signal;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [how, input @ ..] = input else { return };
    let Some(checked) = forebay_fuzz::checked(input) else { return };
    let (signal, counts) = (checked.signal(), checked.counts());
    if signal == Signal::Profiles {
        return;
    }
    let mut editor = Editor::new(signal, ops(signal, *how)).expect("made for this signal");
    let Ok(edited) = editor.apply(checked, 1 << 20) else { return };
    let left = edited.checked;
    let again = check(signal, left.bytes().clone()).expect("what is left is a valid request");
    assert_eq!(again.counts(), left.counts());
    // The counts of a metric whose data was set twice are those of its last kind.
    let adds_up = left.counts().items + edited.dropped_items == counts.items;
    assert!(adds_up || signal == Signal::Metrics, "{left:?} of {counts:?}");
    let twice = editor.apply(again, 1 << 21).expect("no larger than before").checked;
    assert!(*how & HASH != 0 || twice.bytes() == left.bytes(), "edited twice");
});

/// A hash of a hash is another one.
const HASH: u8 = 8;

fn ops(signal: Signal, how: u8) -> Vec<Op> {
    let action = |key: &str, verb| Action { key: key.to_owned(), verb };
    let text = || Source::Text("value".to_owned());
    let all = [
        (1, Op::Attribute(Owner::Item, action("k", Verb::Delete))),
        (2, Op::Attribute(Owner::Resource, action("service.name", Verb::Upsert(text())))),
        (4, Op::Attribute(Owner::Item, action("http.route", Verb::Update(text())))),
        (HASH, Op::Attribute(Owner::Item, action("a", Verb::Hash))),
        (16, Op::Attribute(Owner::Scope, action("new", Verb::Insert(text())))),
        (32, Op::Drop(condition(signal))),
    ];
    all.into_iter().filter(|(bit, _)| how & bit != 0).map(|(_, op)| op).collect()
}

fn condition(signal: Signal) -> Condition {
    let context = match signal {
        Signal::Traces => Context::Span,
        Signal::Logs => Context::LogRecord,
        _ => Context::DataPoint,
    };
    Condition::parse("attributes[\"k\"] == \"v\" or resource.attributes[\"a\"] == nil", context)
        .expect("a condition of the common form")
}
