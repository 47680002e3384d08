//! Editing the bytes beside decoding them, editing the objects, and encoding those again.
//!
//! Each contest stands twice: with the check that every request needs anyway, as prost's decode
//! has one in it, and without, to tell what the edit itself costs.

use bytes::Bytes;
use forebay_codec::check::Checked;
use forebay_codec::edit::{Action, Condition, Context, Editor, Op, Owner, Source, Verb};
use forebay_codec::signal::Signal;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest as Traces;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use super::timing::{Bar, Contender, Contest, Cpu, Session};
use super::{decoded, outcome, passed};

const KEY: &str = "customer.id";

pub(crate) fn run(session: &mut Session, traces: &Traces) {
    let bytes = Bytes::from(traces.encode_to_vec());
    let on_items =
        |key: &str, verb| Op::Attribute(Owner::Item, Action { key: key.to_owned(), verb });
    let delete = || vec![on_items(KEY, Verb::Delete)];
    let rename = || {
        let source = Source::Attribute(KEY.to_owned());
        vec![on_items("enduser.id", Verb::Upsert(source)), on_items(KEY, Verb::Delete)]
    };
    let condition = "attributes[\"http.response.status_code\"] == 503";
    let filter =
        || vec![Op::Drop(Condition::parse(condition, Context::Span).expect("it is supported"))];
    let bar = Bar::Ratio(5.0);
    for (names, ops, edit, bar) in [
        (["check and delete 1 of 8 attributes", "delete 1 of 8 attributes"], delete(), DELETE, bar),
        (["check and rename 1 of 8 attributes", "rename 1 of 8 attributes"], rename(), RENAME, bar),
        (["check and filter by an attribute", "filter by an attribute"], filter(), FILTER, bar),
    ] {
        let [with_check, alone] = names;
        session.run(contest(with_check, &bytes, &ops, edit, true, bar));
        session.run(contest(alone, &bytes, &ops, edit, false, bar));
    }
}

/// What prost's side does to the spans of a scope.
type Edit = fn(&mut Vec<Span>);

const DELETE: Edit = |spans| {
    spans.iter_mut().for_each(|span| span.attributes.retain(|attribute| attribute.key != KEY));
};

const RENAME: Edit = |spans| {
    for span in spans {
        if let Some(place) = span.attributes.iter().position(|attribute| attribute.key == KEY) {
            let mut attribute = span.attributes.remove(place);
            "enduser.id".clone_into(&mut attribute.key);
            span.attributes.push(attribute);
        }
    }
};

const FILTER: Edit = |spans| {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    spans.retain(|span| {
        let mut attributes = span.attributes.iter();
        let code = attributes.find(|attribute| attribute.key == "http.response.status_code");
        let value = code.and_then(|code| code.value.as_ref()?.value.as_ref());
        !matches!(value, Some(Value::IntValue(503)))
    });
};

fn contest(
    name: &'static str,
    bytes: &Bytes,
    ops: &[Op],
    edit: Edit,
    with_check: bool,
    bar: Bar,
) -> Contest<'static> {
    let editor = || Editor::new(Signal::Traces, ops.to_vec()).expect("the ops are of traces");
    let (mut ours, mut ours_told) = (editor(), editor());
    let (came, came_told) = (passed(Signal::Traces, bytes), passed(Signal::Traces, bytes));
    let [unchecked, theirs, theirs_told] = [(); 3].map(|()| bytes.clone());
    let edited = move |bytes: &Bytes| {
        let mut request = decoded::<Traces>(bytes);
        for group in &mut request.resource_spans {
            group.scope_spans.iter_mut().for_each(|scope| edit(&mut scope.spans));
        }
        let bytes = request.encode_to_vec();
        (super::Request::items(&request), bytes)
    };
    Contest {
        name,
        unit: "span",
        bytes: bytes.len() as u64,
        cpu: Cpu::ThisThread,
        ours: Contender {
            name: if with_check { "check, edit" } else { "edit" },
            work: Box::new(move || {
                let checked: Checked = match with_check {
                    true => passed(Signal::Traces, &unchecked),
                    false => came.clone(),
                };
                edited_by(&mut ours, checked).counts().items
            }),
            outcome: Box::new(move || {
                outcome(&decoded::<Traces>(edited_by(&mut ours_told, came_told.clone()).bytes()))
            }),
        },
        theirs: Contender {
            name: "prost decode, edit, encode",
            work: Box::new(move || edited(&theirs).0),
            outcome: Box::new(move || outcome(&decoded::<Traces>(&edited(&theirs_told).1))),
        },
        bar,
    }
}

fn edited_by(editor: &mut Editor, checked: Checked) -> Checked {
    editor.apply(checked, usize::MAX).expect("there is no limit").checked
}
