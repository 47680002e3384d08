//! The corners of editing that random requests do not reach, and what must be refused.

use super::*;
use crate::check::check;
use crate::wire;

fn message(number: u32, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_bytes(&mut out, number, &parts.concat());
    out
}

/// An attribute in field `number`, with a text.
fn text(number: u32, key: &str, value: &str) -> Vec<u8> {
    let any = message(1, &[value.as_bytes()]);
    message(number, &[&message(1, &[key.as_bytes()]), &message(2, &[&any])])
}

fn whole(number: u32, key: &str, value: u64) -> Vec<u8> {
    let any = [&[3 << 3][..], &varint(value)].concat();
    message(number, &[&message(1, &[key.as_bytes()]), &message(2, &[&any])])
}

fn varint(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    wire::put_varint(&mut out, value);
    out
}

/// A request with one resource that has these attributes, one scope, and these items.
fn request(resource: &[u8], items: &[Vec<u8>]) -> Vec<u8> {
    let scope = message(1, &[&message(1, &[b"lib"]), &message(2, &[b"1.2"])]);
    let scopes = message(2, &[&scope, &items.concat()]);
    message(1, &[&message(1, &[resource]), &scopes])
}

fn span(fields: &[&[u8]]) -> Vec<u8> {
    message(2, fields)
}

fn apply(signal: Signal, request: &[u8], ops: Vec<Op>) -> Edited {
    let mut editor = Editor::new(signal, ops).unwrap();
    let edited = editor.apply(check(signal, request.to_vec().into()).unwrap(), usize::MAX).unwrap();
    let again = check(signal, edited.checked.bytes().clone()).unwrap();
    assert_eq!(again.counts(), edited.checked.counts());
    edited
}

fn on_items(key: &str, verb: Verb) -> Op {
    Op::Attribute(Owner::Item, Action { key: key.to_owned(), verb })
}

#[test]
fn a_request_in_which_nothing_changes_comes_back_as_the_bytes_that_it_was() {
    let bytes = Bytes::from(request(&text(1, "a", "b"), &[span(&[&text(9, "k", "v")])]));
    let drop = Condition::parse("attributes[\"k\"] == \"w\"", Context::Span).unwrap();
    let ops = vec![
        on_items("absent", Verb::Delete),
        on_items("k", Verb::Insert(Source::Int(1))),
        Op::Drop(drop),
    ];
    let mut editor = Editor::new(Signal::Traces, ops).unwrap();
    let edited = editor.apply(check(Signal::Traces, bytes.clone()).unwrap(), usize::MAX).unwrap();
    assert_eq!(edited.checked.bytes().as_ptr(), bytes.as_ptr());
    assert_eq!(edited.dropped_items, 0);
}

#[test]
fn of_a_key_that_stands_several_times_nothing_is_left_behind() {
    let twice = [text(9, "k", "one"), text(9, "other", "x"), text(9, "k", "two")].concat();
    let of = |verb| {
        let edited =
            apply(Signal::Traces, &request(&[], &[span(&[&twice])]), vec![on_items("k", verb)]);
        edited.checked.into_bytes()
    };
    let expected = |attributes: &[Vec<u8>]| request(&[], &[span(&[&attributes.concat()])]);
    assert_eq!(of(Verb::Delete), expected(&[text(9, "other", "x")]));
    let redacted = of(Verb::Update(Source::Text("***".to_owned())));
    assert_eq!(redacted, expected(&[text(9, "k", "***"), text(9, "other", "x")]));
    // The published digest of "one".
    let digest = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
    assert_eq!(of(Verb::Hash), expected(&[text(9, "k", digest), text(9, "other", "x")]));
}

#[test]
fn what_a_step_has_changed_the_next_one_sees() {
    let steps = vec![
        on_items("new", Verb::Upsert(Source::Attribute("old".to_owned()))),
        on_items("old", Verb::Delete),
        on_items("old", Verb::Update(Source::Int(1))),
        on_items("copy", Verb::Insert(Source::Attribute("new".to_owned()))),
        on_items("new", Verb::Update(Source::Text("changed".to_owned()))),
    ];
    let before = request(&[], &[span(&[&text(9, "old", "value"), &[0x30, 2]])]);
    let after = [text(9, "new", "changed"), text(9, "copy", "value")].concat();
    let edited = apply(Signal::Traces, &before, steps);
    assert_eq!(edited.checked.bytes(), &request(&[], &[span(&[&after, &[0x30, 2]])]));
}

#[test]
fn a_group_that_lost_what_it_held_goes_and_one_that_came_empty_stays() {
    let empty = request(&text(1, "a", "b"), &[]);
    let lost = request(&text(1, "c", "d"), &[span(&[&message(5, &[b"x"])])]);
    let condition = Condition::parse("name == \"x\"", Context::Span).unwrap();
    let edited = apply(Signal::Traces, &[empty.clone(), lost].concat(), vec![Op::Drop(condition)]);
    assert_eq!(edited.checked.bytes(), &empty);
    assert_eq!((edited.dropped_items, edited.checked.counts().items), (1, 0));
}

#[test]
fn of_a_metric_with_two_kinds_of_data_the_points_of_the_last_one_count() {
    let point = |key: &str| message(1, &[&text(7, key, "v")]);
    let gauge = message(5, &[&point("a"), &point("b")]);
    let sum = message(7, &[&point("a"), &point("b"), &point("b")]);
    let bytes = request(&[], &[message(2, &[&gauge, &sum])]);
    let drop = |key: &str| {
        let text = format!("attributes[\"{key}\"] != nil");
        vec![Op::Drop(Condition::parse(&text, Context::DataPoint).unwrap())]
    };
    assert_eq!(apply(Signal::Metrics, &bytes, drop("a")).dropped_items, 1);
    assert_eq!(apply(Signal::Metrics, &bytes, drop("b")).dropped_items, 2);
    let both = [drop("a"), drop("b")].concat();
    let edited = apply(Signal::Metrics, &bytes, both);
    assert_eq!((edited.dropped_items, edited.checked.bytes().len()), (3, 0));
}

#[test]
fn what_an_editor_cannot_do_is_refused_when_it_is_made() {
    assert_eq!(Editor::new(Signal::Profiles, vec![]).err(), Some(Unfit::Profiles));
    let of_logs = Op::Drop(Condition::parse("body == nil", Context::LogRecord).unwrap());
    assert_eq!(Editor::new(Signal::Traces, vec![of_logs]).err(), Some(Unfit::OtherSignal));
    let sample = || Op::Sample(Sampler::new(Signal::Logs, Sampling::default()).unwrap());
    assert_eq!(Editor::new(Signal::Traces, vec![sample()]).err(), Some(Unfit::OtherSignal));
    let two = vec![sample(), sample()];
    assert_eq!(Editor::new(Signal::Logs, two).err(), Some(Unfit::TwoSamplers));
    assert!(Sampler::new(Signal::Metrics, Sampling::default()).is_none());
}

#[test]
fn conditions_hold_of_a_span_as_ottl_says() {
    let id: Vec<u8> = (1..=16).collect();
    let fields = [
        message(1, &[&id]),
        message(5, &[b"GET /health"]),
        vec![0x30, 2],
        text(9, "http.route", "/health"),
        whole(9, "code", 503),
        message(9, &[&message(1, &[b"nothing"])]),
        message(15, &[&[0x18, 2]]),
    ];
    let span = span(&[&fields.concat()]);
    let bytes = request(&text(1, "service.name", "checkout"), &[span]);
    let holds = |text: &str| {
        let condition =
            Condition::parse(text, Context::Span).unwrap_or_else(|e| panic!("{text}: {e}"));
        apply(Signal::Traces, &bytes, vec![Op::Drop(condition)]).dropped_items == 1
    };
    for text in [
        "name == \"GET /health\"",
        "span.name == \"GET /health\" and true",
        "kind == SPAN_KIND_SERVER and status.code == STATUS_CODE_ERROR",
        "attributes[\"http.route\"] == \"/health\"",
        "span.attributes[ \"http.route\" ]!=\"/ready\"",
        "attributes[\"code\"] >= 500 and attributes[\"code\"] < 503.5",
        "attributes[\"code\"] != \"503\"",
        "not (attributes[\"code\"] == \"503\")",
        "attributes[\"absent\"] == nil and attributes[\"nothing\"] == nil",
        "attributes[\"absent\"] != 1",
        "resource.attributes[\"service.name\"] > \"checkins\"",
        "instrumentation_scope.name == \"lib\" and scope.version != \"1\"",
        "IsMatch(name, \"^GET \\\\S+$\") and IsMatch(attributes[\"code\"], \"^5..$\")",
        "trace_id == TraceID(0x0102030405060708090a0b0c0d0e0f10)",
        "trace_id.string == \"0102030405060708090a0b0c0d0e0f10\"",
        "parent_span_id == SpanID(0x0000000000000000) and parent_span_id.string == \"\"",
        "false or true and (false or not false)",
        "kind == 2 or IsMatch(name, \"a\") and false",
    ] {
        assert!(holds(text), "{text}");
    }
    for text in [
        "attributes[\"code\"] == \"503\"",
        "attributes[\"code\"] < \"9\"",
        "attributes[\"absent\"] < 1 or attributes[\"absent\"] == \"\"",
        "IsMatch(attributes[\"absent\"], \".*\")",
        "not not false",
        "kind == SPAN_KIND_CLIENT or status.message != \"\"",
    ] {
        assert!(!holds(text), "{text}");
    }
}

#[test]
fn conditions_hold_of_log_records_and_data_points() {
    let body = message(5, &[&message(1, &[b"order accepted"])]);
    let record = message(2, &[&[0x10, 9], &message(3, &[b"INFO"]), &body]);
    let logs = request(&[], &[record]);
    let points = message(7, &[&message(1, &[&text(7, "k", "v")])]);
    let metrics = request(&[], &[message(2, &[&message(1, &[b"requests"]), &points])]);
    for (signal, bytes, context, text) in [
        (Signal::Logs, &logs, Context::LogRecord, "severity_number < SEVERITY_NUMBER_WARN"),
        (Signal::Logs, &logs, Context::LogRecord, "log.severity_number == SEVERITY_NUMBER_INFO"),
        (Signal::Logs, &logs, Context::LogRecord, "severity_text == \"INFO\""),
        (Signal::Logs, &logs, Context::LogRecord, "IsMatch(body, \"acc.pted\")"),
        (Signal::Metrics, &metrics, Context::Metric, "name == \"requests\""),
        (Signal::Metrics, &metrics, Context::Metric, "metric.type == METRIC_DATA_TYPE_SUM"),
        (Signal::Metrics, &metrics, Context::DataPoint, "metric.name == \"requests\""),
        (Signal::Metrics, &metrics, Context::DataPoint, "datapoint.attributes[\"k\"] == \"v\""),
    ] {
        let condition = Condition::parse(text, context).unwrap();
        let edited = apply(signal, bytes, vec![Op::Drop(condition)]);
        assert_eq!((edited.dropped_items, edited.checked.bytes().len()), (1, 0), "{text}");
    }
}

#[test]
fn a_condition_that_is_not_supported_is_refused_with_its_column() {
    let deep = "(".repeat(40);
    for (text, column, part) in [
        ("", 1, "the end"),
        ("name", 5, "expected a comparison"),
        ("name = \"x\"", 6, "expected a comparison"),
        ("name == \"x\" && kind == 1", 13, "\"and\""),
        ("name == \"x", 9, "no closing quote"),
        ("nam == \"x\"", 1, "known are"),
        ("name == \"é\" and duration > 5", 17, "\"duration\" is not supported"),
        ("attributes[\"a\"][\"b\"] == 1", 1, "not supported"),
        ("attributes[0] == 1", 12, "double quotes"),
        ("Concat([name], \"\") == \"x\"", 1, "function Concat"),
        ("IsMatch(name, \"(\")", 15, "no regular expression"),
        ("IsMatch(name, \"\\d\")", 16, "unknown escape"),
        ("IsMatch(name, name)", 15, "in quotes"),
        ("kind == SEVERITY_NUMBER_WARN", 9, "not supported"),
        ("kind == 1x", 9, "no number"),
        ("trace_id == TraceID(0x01)", 21, "32 digits"),
        ("IsMatch(name, \"(a{1000}){1000}\")", 15, "1 MiB"),
        (&deep, 34, "parentheses"),
    ] {
        let error = Condition::parse(text, Context::Span).unwrap_err();
        assert_eq!(error.column, column, "{text}: {error}");
        assert!(error.message.contains(part), "{text}: {error}");
    }
}

/// Spans with ids at random, and which of them a sampler keeps.
fn kept(sampling: &Sampling, more: &[u8]) -> Vec<bool> {
    let sampler = Sampler::new(Signal::Traces, sampling.clone()).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let one = |_| {
        let id: Vec<u8> = (0..16).map(|_| random.u8(..)).collect();
        let bytes = [&message(1, &[&id])[..], more].concat();
        sampler.keeps(&bytes, 0..bytes.len()).is_some()
    };
    (0..4_000).map(one).collect()
}

#[test]
fn samplers_keep_their_share_and_a_smaller_share_is_part_of_a_larger_one() {
    for mode in [Mode::HashSeed, Mode::Equalizing, Mode::Proportional] {
        let share = |percentage| Sampling { percentage, mode: Some(mode), ..Sampling::default() };
        let (few, many) = (kept(&share(10.0), &[]), kept(&share(60.0), &[]));
        let count = |kept: &[bool]| kept.iter().filter(|kept| **kept).count();
        assert!((320..480).contains(&count(&few)), "{mode:?}: {}", count(&few));
        assert!((2_280..2_520).contains(&count(&many)), "{mode:?}: {}", count(&many));
        assert!(few.iter().zip(&many).all(|(few, many)| *many || !*few), "{mode:?}");
        assert_eq!(count(&kept(&share(0.0), &[])), 0, "{mode:?}");
        assert_eq!(count(&kept(&share(150.0), &[])), 4_000, "{mode:?}");
        let priority = |value| text(9, "sampling.priority", value);
        assert_eq!(count(&kept(&share(10.0), &priority("1"))), 4_000, "{mode:?}");
        assert_eq!(count(&kept(&share(60.0), &priority("0"))), 0, "{mode:?}");
    }
}

#[test]
fn samplers_heed_what_earlier_samplers_wrote_into_the_trace_state() {
    let keeps = |mode, percentage, state: &str| {
        let sampling = Sampling { percentage, mode: Some(mode), ..Sampling::default() };
        let sampler = Sampler::new(Signal::Traces, sampling).unwrap();
        let id = [&[0; 8][..], &[0, 0x90, 0, 0, 0, 0, 0, 0]].concat();
        let bytes = [message(1, &[&id]), message(3, &[state.as_bytes()])].concat();
        sampler.keeps(&bytes, 0..bytes.len()).is_some()
    };
    // The id's randomness is 0x90..., which lets 43.75 percent and more pass.
    assert!(keeps(Mode::Equalizing, 50.0, ""));
    assert!(!keeps(Mode::Equalizing, 40.0, "vendor=1"));
    assert!(keeps(Mode::Equalizing, 40.0, "vendor=1,ot=rv:f0000000000000"));
    assert!(keeps(Mode::Equalizing, 50.0, "ot=th:8"));
    assert!(!keeps(Mode::Proportional, 50.0, "ot=th:8"), "half of one half");
    assert!(keeps(Mode::Proportional, 90.0, "ot=th:8"));
    assert!(!keeps(Mode::Proportional, 100.0, "ot=th:a"), "it should not have come so far");
    assert!(!keeps(Mode::Proportional, 100.0, "ot=th:xyz"), "a threshold that nobody can read");
    assert!(!keeps(Mode::HashSeed, 100.0, "ot=th:8"), "hashing beside thresholds");
}

#[test]
fn without_randomness_fail_closed_decides() {
    for fail_closed in [true, false] {
        let sampling = Sampling { percentage: 50.0, fail_closed, ..Sampling::default() };
        let sampler = Sampler::new(Signal::Traces, sampling).unwrap();
        assert_eq!(sampler.keeps(&[], 0..0).is_some(), !fail_closed);
    }
}

#[test]
fn log_records_are_sampled_by_attribute_and_may_ask_for_more() {
    let sampling = Sampling {
        percentage: 20.0,
        attribute_source: AttributeSource::Record,
        from_attribute: "pod".to_owned(),
        sampling_priority: "priority".to_owned(),
        ..Sampling::default()
    };
    let sampler = Sampler::new(Signal::Logs, sampling).unwrap();
    let keeps = |record: Vec<u8>| sampler.keeps(&record, 0..record.len()).is_some();
    let pods = || (0..1_000).map(|pod| text(6, "pod", &format!("pod-{pod}")));
    let kept = pods().filter(|record| keeps(record.clone())).count();
    assert!((150..250).contains(&kept), "{kept}");
    assert!(pods().all(|pod| keeps([pod, whole(6, "priority", 100)].concat())));
    assert!(!keeps(text(6, "other", "x")), "nothing to hash");
}

#[test]
fn a_sampler_tells_the_next_one_in_the_trace_state() {
    // The randomness is 0x9b8233f7e3a151, as in the Collector's own example.
    let id = [&[7; 9][..], &[0x9b, 0x82, 0x33, 0xf7, 0xe3, 0xa1, 0x51]].concat();
    let ids = [message(1, &[&id]), message(2, &[&[1; 8]])].concat();
    let around = |state: &str| {
        let state = if state.is_empty() { vec![] } else { message(3, &[state.as_bytes()]) };
        request(&[], &[span(&[&ids, &state, &message(5, &[b"name"]), &text(9, "k", "v")])])
    };
    for (mode, percentage, before, after) in [
        (Mode::Equalizing, 50.0, "", "ot=th:8"),
        (Mode::Equalizing, 50.0, "ot=th:0;rv:9b8233f7e3a151", "ot=th:8;rv:9b8233f7e3a151"),
        (Mode::Equalizing, 50.0, "a=1, ot=xy:z;th:1;;,b=2", "ot=th:8;xy:z,a=1,b=2"),
        (Mode::Equalizing, 50.0, "ot=th:9", "ot=th:9"),
        (Mode::Proportional, 100.0, "", "ot=th:0"),
        (Mode::Proportional, 80.0, "ot=th:8", "ot=th:999a"),
        (Mode::Proportional, 50.0, "rojo=00f067aa0ba902b7", "ot=th:8,rojo=00f067aa0ba902b7"),
    ] {
        let sampling = Sampling { percentage, mode: Some(mode), ..Sampling::default() };
        let sampler = Sampler::new(Signal::Traces, sampling).unwrap();
        // An edit of the attributes beside it, before and behind it in the item.
        let ops = vec![Op::Sample(sampler), on_items("k", Verb::Insert(Source::Int(1)))];
        let edited = apply(Signal::Traces, &around(before), ops);
        assert_eq!(edited.checked.bytes(), &around(after), "{mode:?} {percentage} {before}");
    }
}

#[test]
fn a_trace_state_behind_the_attributes_is_found_and_edited_with_them() {
    let id = [0xff; 16];
    let around = |attribute: &str, state: &str| {
        let state = message(3, &[state.as_bytes()]);
        let attributes = [text(9, "a", "b"), text(9, attribute, "c")].concat();
        request(&[], &[span(&[&attributes, &state, &message(1, &[&id])])])
    };
    let sampling = Sampling { percentage: 50.0, ..Sampling::default() };
    let ops = vec![
        Op::Sample(Sampler::new(Signal::Traces, sampling).unwrap()),
        on_items("new", Verb::Insert(Source::Attribute("old".to_owned()))),
        on_items("old", Verb::Delete),
    ];
    let edited = apply(Signal::Traces, &around("old", "x=1"), ops);
    assert_eq!(edited.checked.bytes(), &around("new", "ot=th:8,x=1"));
}

#[test]
fn a_sampler_tells_the_next_one_in_a_records_attributes() {
    let id = message(9, &[&[0xff; 16]]);
    let around = |attributes: &[u8]| request(&[], &[message(2, &[attributes, &id])]);
    let sampled = |mode, before: &[u8]| {
        let sampling = Sampling { percentage: 25.0, mode: Some(mode), ..Sampling::default() };
        let sampler = Sampler::new(Signal::Logs, sampling).unwrap();
        apply(Signal::Logs, &around(before), vec![Op::Sample(sampler)]).checked.into_bytes()
    };
    let threshold = |value| text(6, "sampling.threshold", value);
    let other = text(6, "k", "v");
    let after = around(&[other.clone(), threshold("c")].concat());
    assert_eq!(sampled(Mode::Proportional, &other), after);
    assert_eq!(sampled(Mode::Equalizing, &threshold("8")), around(&threshold("c")));
    assert_eq!(sampled(Mode::Equalizing, &threshold("d")), around(&threshold("d")));
}

#[test]
fn what_would_grow_beyond_its_limit_is_given_up() {
    let bytes = request(&[], &vec![span(&[]); 1_000]);
    let ops = vec![on_items("k", Verb::Insert(Source::Text("0123456789".to_owned())))];
    let mut editor = Editor::new(Signal::Traces, ops).unwrap();
    let mut within =
        |bytes_max| editor.apply(check(Signal::Traces, bytes.clone().into()).unwrap(), bytes_max);
    let exactly = within(usize::MAX).unwrap().checked.bytes().len();
    assert!(within(exactly).is_ok());
    assert_eq!(within(exactly - 1).err(), Some(TooLarge));
    assert_eq!(within(10).err(), Some(TooLarge));
    // More of one key than anybody remembers; then the editor is as good as new.
    let copies = text(9, "k", "").repeat(70_000);
    let bytes = request(&[], &[span(&[&copies])]);
    let mut editor = Editor::new(Signal::Traces, vec![on_items("k", Verb::Delete)]).unwrap();
    let mut delete = |bytes: &[u8]| {
        editor.apply(check(Signal::Traces, bytes.to_vec().into()).unwrap(), usize::MAX)
    };
    assert_eq!(delete(&bytes).err(), Some(TooLarge));
    let few = request(&[], &[span(&[&text(9, "k", "v")])]);
    assert_eq!(delete(&few).unwrap().checked.bytes(), &request(&[], &[span(&[])]));
}

#[test]
fn a_large_resource_over_many_items_is_searched_once() {
    // Searched for each item, this would take hours.
    let resource: Vec<u8> = (0..50_000).flat_map(|n| text(1, &format!("k{n}"), "v")).collect();
    let bytes = request(&resource, &vec![span(&[]); 200_000]);
    let condition = "resource.attributes[\"last\"] != nil or instrumentation_scope.name == \"\"";
    let condition = Condition::parse(condition, Context::Span).unwrap();
    assert_eq!(apply(Signal::Traces, &bytes, vec![Op::Drop(condition)]).dropped_items, 0);
}

#[test]
fn edits_of_a_resource_in_many_parts_take_time_in_proportion() {
    // Each part searched for each edit, this would take hours.
    let parts = message(1, &[&text(1, "k", "v")]).repeat(60_000);
    let bytes = message(1, &[&parts]);
    let action = Action { key: "k".to_owned(), verb: Verb::Delete };
    let edited = apply(Signal::Traces, &bytes, vec![Op::Attribute(Owner::Resource, action)]);
    assert_eq!(edited.checked.bytes(), &message(1, &[&message(1, &[]).repeat(60_000)]));
}
