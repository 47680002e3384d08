//! Editing the bytes and decoding them is decoding them and editing what came out.

use fastrand::Rng;
use forebay_codec::check::check;
use forebay_codec::edit::{
    Action, Condition, Context, Editor, Mode, Op, Owner, Sampler, Sampling, Source, Verb,
};
use forebay_codec::signal::Signal;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::decoded::Decoded;
use crate::mangle;
use crate::verdict::case;

#[test]
fn edit_then_decode_equals_decode_then_edit() {
    let mut seen = Seen::default();
    for seed in 0..12_000 {
        let (signal, bytes) = case(seed);
        seen.compare(seed, signal, bytes);
    }
    let enough = seen.rewritten > 4_000 && seen.untouched > 1_000 && seen.dropped > 5_000;
    assert!(enough, "{seen:?}");
}

#[test]
fn edit_then_decode_equals_decode_then_edit_of_what_damage_has_left_valid() {
    let mut seen = Seen::default();
    for seed in 0..20_000 {
        let (signal, mut bytes) = case(seed);
        mangle::damage(&mut bytes, &mut Rng::with_seed(seed.rotate_left(17)));
        seen.compare(seed, signal, bytes);
    }
    assert!(seen.rewritten > 500 && seen.dropped > 1_000, "{seen:?}");
}

#[test]
fn a_sampler_that_keeps_all_changes_nothing_but_its_note() {
    let mut noted = 0;
    for seed in 0..3_000 {
        let (signal, bytes) = case(seed);
        let sampling = Sampling {
            percentage: 100.0,
            mode: [Mode::HashSeed, Mode::Equalizing, Mode::Proportional]
                .get(seed as usize % 3)
                .copied(),
            fail_closed: false,
            ..Sampling::default()
        };
        let Some(sampler) = Sampler::new(signal, sampling) else { continue };
        let mut before = Decoded::from_proto(signal, &bytes).unwrap();
        let checked = check(signal, bytes.into()).unwrap();
        let edited = Editor::new(signal, vec![Op::Sample(sampler)])
            .unwrap()
            .apply(checked, usize::MAX)
            .unwrap();

        let after = edited.checked;
        let again = check(signal, after.bytes().clone()).unwrap();
        assert_eq!(again.counts(), after.counts(), "seed {seed}");
        let mut after = Decoded::from_proto(signal, after.bytes()).unwrap();
        noted += without_notes(&mut after);
        without_notes(&mut before);
        assert_eq!(after.to_proto(), before.to_proto(), "seed {seed}");
    }
    assert!(noted > 1_000, "only {noted} notes");
}

/// Takes out of each span and record what samplers write; says how many had something.
fn without_notes(decoded: &mut Decoded) -> u64 {
    let mut noted = 0;
    match decoded {
        Decoded::Traces(request) => {
            let scopes = request.resource_spans.iter_mut().flat_map(|group| &mut group.scope_spans);
            for span in scopes.flat_map(|scope| &mut scope.spans) {
                noted += u64::from(span.trace_state.starts_with("ot="));
                span.trace_state.clear();
            }
        }
        Decoded::Logs(request) => {
            let scopes = request.resource_logs.iter_mut().flat_map(|group| &mut group.scope_logs);
            for record in scopes.flat_map(|scope| &mut scope.log_records) {
                let before = record.attributes.len();
                record.attributes.retain(|attribute| !attribute.key.starts_with("sampling."));
                noted += u64::from(record.attributes.len() < before);
            }
        }
        Decoded::Metrics(_) | Decoded::Profiles(_) => {}
    }
    noted
}

/// How many requests came back as they were, or not, and how many items did not.
#[derive(Debug, Default)]
struct Seen {
    rewritten: u64,
    untouched: u64,
    dropped: u64,
}

impl Seen {
    /// Does something at random to a request, if it is a valid one that can be edited.
    fn compare(&mut self, seed: u64, signal: Signal, bytes: Vec<u8>) {
        let Ok(checked) = check(signal, bytes.clone().into()) else { return };
        if signal == Signal::Profiles {
            return;
        }
        let mut decoded = Decoded::from_proto(signal, &bytes).expect("check took it");
        let wish = Wish::at_random(&decoded, &mut Rng::with_seed(!seed));
        let note = format!("seed {seed}, {signal}, {wish:?}");
        let before = checked.counts().items;

        let mut editor = Editor::new(signal, wish.ops()).expect("the wish fits");
        let edited = editor.apply(checked, usize::MAX).expect("there is no limit");

        let after = edited.checked;
        let again = check(signal, after.bytes().clone());
        let again = again.unwrap_or_else(|error| panic!("{note}: {error}"));
        assert_eq!(again.counts(), after.counts(), "{note}");
        assert_eq!(before, after.counts().items + edited.dropped_items, "{note}");
        wish.do_to(&mut decoded);
        let ours = Decoded::from_proto(signal, after.bytes()).expect("check took it");
        assert_eq!(ours.to_proto(), decoded.to_proto(), "{note}");
        match *after.bytes() == bytes {
            true => self.untouched += 1,
            false => self.rewritten += 1,
        }
        self.dropped += edited.dropped_items;
    }
}

/// What to do to a request, in a form that both sides understand.
#[derive(Debug)]
struct Wish {
    actions: Vec<(Owner, Action)>,
    drops: Vec<(Context, Test)>,
}

/// A condition as text, and what it means of a decoded item.
#[derive(Clone, Debug)]
enum Test {
    IsNil(Owner, String),
    IsMatch(Owner, String, &'static str),
    NameAtLeast(&'static str, &'static str),
    Number(&'static str, i64),
    Not(Box<Test>),
    All(Vec<Test>),
    Any(Vec<Test>),
}

/// An item as tests see it.
struct Facts<'a> {
    resource: &'a [KeyValue],
    scope: &'a InstrumentationScope,
    attributes: &'a [KeyValue],
    /// Of the span or the metric; a record's severity text.
    name: &'a str,
    number: i64,
}

impl Wish {
    fn at_random(decoded: &Decoded, random: &mut Rng) -> Wish {
        let mut keys = vec!["new".to_owned(), String::new()];
        each_owner(decoded, |attributes| keys.extend(attributes.iter().map(|kv| kv.key.clone())));
        let mut key = |random: &mut Rng| keys[random.usize(0..keys.len())].clone();
        let owners = [Owner::Item, Owner::Item, Owner::Resource, Owner::Scope];
        let mut actions = Vec::new();
        for _ in 0..random.usize(0..4) {
            let owner = owners[random.usize(0..4)];
            let mut source = || match random.u8(0..6) {
                0 => Source::Int(random.i64(..)),
                1 => Source::Bool(random.bool()),
                2 => Source::Float(random.f64()),
                3 => Source::Text("x".repeat(random.usize(0..300))),
                _ => Source::Attribute(key(random)),
            };
            let verb = match source() {
                source if random.bool() => Verb::Upsert(source),
                source => match random.u8(0..4) {
                    0 => Verb::Insert(source),
                    1 => Verb::Update(source),
                    2 => Verb::Hash,
                    _ => Verb::Delete,
                },
            };
            actions.push((owner, Action { key: key(random), verb }));
        }
        let mut drops = Vec::new();
        let contexts: &[Context] = match decoded {
            Decoded::Traces(_) => &[Context::Span],
            Decoded::Logs(_) => &[Context::LogRecord],
            _ => &[Context::Metric, Context::DataPoint],
        };
        for context in contexts {
            if random.bool() {
                continue;
            }
            drops.push((*context, Test::at_random(*context, random, &mut key, 0)));
        }
        Wish { actions, drops }
    }

    fn ops(&self) -> Vec<Op> {
        let drop = |(context, test): &(Context, Test)| {
            let text = test.text();
            Op::Drop(Condition::parse(&text, *context).unwrap_or_else(|e| panic!("{text}: {e}")))
        };
        let attribute = |(owner, action): &(Owner, Action)| Op::Attribute(*owner, action.clone());
        self.actions.iter().map(attribute).chain(self.drops.iter().map(drop)).collect()
    }

    fn drops(&self, context: Context, facts: &Facts<'_>) -> bool {
        self.drops.iter().any(|(of, test)| *of == context && test.holds(facts))
    }

    fn edit(&self, owner: Owner, attributes: &mut Vec<KeyValue>) {
        for (_, action) in self.actions.iter().filter(|(of, _)| *of == owner) {
            act(action, attributes);
        }
    }

    fn edit_owner<T: Default>(
        &self,
        owner: Owner,
        message: &mut Option<T>,
        attributes: impl Fn(&mut T) -> &mut Vec<KeyValue>,
    ) {
        let was_there = message.is_some();
        let mut edited = message.take().unwrap_or_default();
        self.edit(owner, attributes(&mut edited));
        if was_there || !attributes(&mut edited).is_empty() {
            *message = Some(edited);
        }
    }

    fn do_to(&self, decoded: &mut Decoded) {
        macro_rules! signal {
            ($groups:expr, $scopes:ident, $items:ident, $keeps:expr) => {
                $groups.retain_mut(|group| {
                    let whole = group.resource.clone().unwrap_or_default();
                    let (mut lost, mut kept) = (false, 0);
                    group.$scopes.retain_mut(|scopes| {
                        let scope = scopes.scope.clone().unwrap_or_default();
                        let before = scopes.$items.len();
                        scopes.$items.retain_mut(|item| $keeps(&whole, &scope, item));
                        let stays = !scopes.$items.is_empty() || before == 0;
                        lost |= !stays;
                        kept += scopes.$items.len();
                        self.edit_owner(Owner::Scope, &mut scopes.scope, |s| &mut s.attributes);
                        stays
                    });
                    self.edit_owner(Owner::Resource, &mut group.resource, |r| &mut r.attributes);
                    !lost || kept > 0
                });
            };
        }
        match decoded {
            Decoded::Traces(request) => {
                let keeps =
                    |resource: &_, scope: &_, span: &mut _| self.keeps_span(resource, scope, span);
                signal!(request.resource_spans, scope_spans, spans, keeps);
            }
            Decoded::Logs(request) => {
                let keeps =
                    |resource: &_, scope: &_, log: &mut _| self.keeps_record(resource, scope, log);
                signal!(request.resource_logs, scope_logs, log_records, keeps);
            }
            Decoded::Metrics(request) => {
                let keeps =
                    |resource: &_, scope: &_, of: &mut _| self.keeps_metric(resource, scope, of);
                signal!(request.resource_metrics, scope_metrics, metrics, keeps);
            }
            Decoded::Profiles(_) => {}
        }
    }

    fn keeps_span(
        &self,
        resource: &Resource,
        scope: &InstrumentationScope,
        span: &mut Span,
    ) -> bool {
        let facts = Facts {
            resource: &resource.attributes,
            scope,
            attributes: &span.attributes,
            name: &span.name,
            number: span.kind.into(),
        };
        let keeps = !self.drops(Context::Span, &facts);
        self.edit(Owner::Item, &mut span.attributes);
        keeps
    }

    fn keeps_record(
        &self,
        resource: &Resource,
        scope: &InstrumentationScope,
        record: &mut LogRecord,
    ) -> bool {
        let facts = Facts {
            resource: &resource.attributes,
            scope,
            attributes: &record.attributes,
            name: &record.severity_text,
            number: record.severity_number.into(),
        };
        let keeps = !self.drops(Context::LogRecord, &facts);
        self.edit(Owner::Item, &mut record.attributes);
        keeps
    }

    fn keeps_metric(
        &self,
        resource: &Resource,
        scope: &InstrumentationScope,
        metric: &mut Metric,
    ) -> bool {
        let number = match metric.data {
            None => 0,
            Some(Data::Gauge(_)) => 1,
            Some(Data::Sum(_)) => 2,
            Some(Data::Histogram(_)) => 3,
            Some(Data::ExponentialHistogram(_)) => 4,
            Some(Data::Summary(_)) => 5,
        };
        let name = metric.name.clone();
        macro_rules! facts {
            ($attributes:expr) => {
                Facts {
                    resource: &resource.attributes,
                    scope,
                    attributes: $attributes,
                    name: &name,
                    number,
                }
            };
        }
        if self.drops(Context::Metric, &facts!(&[])) {
            return false;
        }
        macro_rules! points {
            ($data:expr) => {{
                let before = $data.data_points.len();
                $data.data_points.retain_mut(|point| {
                    let keeps = !self.drops(Context::DataPoint, &facts!(&point.attributes));
                    self.edit(Owner::Item, &mut point.attributes);
                    keeps
                });
                before == 0 || !$data.data_points.is_empty()
            }};
        }
        match &mut metric.data {
            None => true,
            Some(Data::Gauge(data)) => points!(data),
            Some(Data::Sum(data)) => points!(data),
            Some(Data::Histogram(data)) => points!(data),
            Some(Data::ExponentialHistogram(data)) => points!(data),
            Some(Data::Summary(data)) => points!(data),
        }
    }
}

fn act(action: &Action, attributes: &mut Vec<KeyValue>) {
    let key = &action.key;
    let from = |source: &Source, attributes: &[KeyValue]| match source {
        Source::Text(text) => Some(any(Value::StringValue(text.clone()))),
        Source::Int(value) => Some(any(Value::IntValue(*value))),
        Source::Float(value) => Some(any(Value::DoubleValue(*value))),
        Source::Bool(value) => Some(any(Value::BoolValue(*value))),
        Source::Attribute(key) => {
            attributes.iter().find(|kv| kv.key == *key).map(|kv| kv.value.clone())
        }
    };
    let first = attributes.iter().position(|kv| kv.key == *key);
    let value = match (&action.verb, first) {
        (Verb::Insert(_), Some(_)) | (Verb::Update(_) | Verb::Hash, None) => return,
        (Verb::Delete, _) => return attributes.retain(|kv| kv.key != *key),
        (Verb::Hash, Some(first)) => Some(any(Value::StringValue(hash(&attributes[first])))),
        (Verb::Insert(source) | Verb::Update(source) | Verb::Upsert(source), _) => {
            from(source, attributes)
        }
    };
    let Some(value) = value else { return };
    match first {
        None => attributes.push(KeyValue { key: key.clone(), value, ..Default::default() }),
        Some(first) => {
            attributes[first].value = value;
            let mut place = 0;
            attributes.retain(|kv| {
                place += 1;
                kv.key != *key || place == first + 1
            });
        }
    }
}

fn any(value: Value) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

fn hash(kv: &KeyValue) -> String {
    use sha2::{Digest, Sha256};
    let digest = match kv.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Value::StringValue(text)) => Sha256::digest(text),
        Some(Value::BoolValue(value)) => Sha256::digest([*value as u8]),
        Some(Value::IntValue(value)) => Sha256::digest(value.to_le_bytes()),
        Some(Value::DoubleValue(value)) => Sha256::digest(value.to_le_bytes()),
        _ => return String::new(),
    };
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Test {
    fn at_random(
        context: Context,
        random: &mut Rng,
        key: &mut impl FnMut(&mut Rng) -> String,
        depth: u32,
    ) -> Test {
        let owners = match context {
            Context::Metric => [Owner::Resource, Owner::Scope, Owner::Resource],
            _ => [Owner::Resource, Owner::Scope, Owner::Item],
        };
        let owner = owners[random.usize(0..3)];
        let (name, number) = match context {
            Context::Span => ("name", "kind"),
            Context::LogRecord => ("severity_text", "severity_number"),
            Context::Metric => ("name", "type"),
            Context::DataPoint => ("metric.name", "metric.type"),
        };
        let mut more = |random: &mut Rng| Test::at_random(context, random, key, depth + 1);
        match random.u8(0..if depth < 3 { 7 } else { 4 }) {
            0 => Test::IsNil(owner, key(random)),
            1 => Test::IsMatch(owner, key(random), "^[a-m0-4]|☂"),
            2 => Test::NameAtLeast(name, "M"),
            3 => Test::Number(number, random.i64(0..6)),
            4 => Test::Not(Box::new(more(random))),
            5 => Test::All(vec![more(random), more(random)]),
            _ => Test::Any(vec![more(random), more(random), more(random)]),
        }
    }

    fn text(&self) -> String {
        let path = |owner: &Owner, key: &str| {
            let owner = match owner {
                Owner::Resource => "resource.attributes",
                Owner::Scope => "instrumentation_scope.attributes",
                Owner::Item => "attributes",
            };
            let key = key.replace('\\', "\\\\").replace('"', "\\\"");
            format!("{owner}[\"{key}\"]")
        };
        let joined = |tests: &[Test], word: &str| {
            let tests: Vec<String> =
                tests.iter().map(|test| format!("({})", test.text())).collect();
            tests.join(word)
        };
        match self {
            Test::IsNil(owner, key) => format!("{} == nil", path(owner, key)),
            Test::IsMatch(owner, key, pattern) => {
                format!("IsMatch({}, \"{pattern}\")", path(owner, key))
            }
            Test::NameAtLeast(name, least) => format!("{name} >= \"{least}\""),
            Test::Number(name, number) => format!("{name} < {number}"),
            Test::Not(test) => format!("not ({})", test.text()),
            Test::All(tests) => joined(tests, " and "),
            Test::Any(tests) => joined(tests, " or "),
        }
    }

    fn holds(&self, facts: &Facts<'_>) -> bool {
        let value = |owner: &Owner, key: &str| {
            let attributes = match owner {
                Owner::Resource => facts.resource,
                Owner::Scope => &facts.scope.attributes,
                Owner::Item => facts.attributes,
            };
            let value = attributes.iter().find(|kv| kv.key == key)?.value.as_ref()?.value.as_ref();
            // An index into a table that these signals do not have.
            value.filter(|value| !matches!(value, Value::StringValueStrindex(_)))
        };
        match self {
            Test::IsNil(owner, key) => value(owner, key).is_none(),
            Test::IsMatch(owner, key, _) => {
                let text = match value(owner, key) {
                    Some(Value::StringValue(text)) => text.clone(),
                    Some(Value::IntValue(value)) => value.to_string(),
                    Some(Value::DoubleValue(value)) => value.to_string(),
                    Some(Value::BoolValue(value)) => value.to_string(),
                    _ => return false,
                };
                let first = |c: char| matches!(c, 'a'..='m' | '0'..='4');
                text.starts_with(first) || text.contains('☂')
            }
            Test::NameAtLeast(_, least) => facts.name >= *least,
            Test::Number(_, number) => facts.number < *number,
            Test::Not(test) => !test.holds(facts),
            Test::All(tests) => tests.iter().all(|test| test.holds(facts)),
            Test::Any(tests) => tests.iter().any(|test| test.holds(facts)),
        }
    }
}

/// The attributes of resources, scopes and items.
fn each_owner(decoded: &Decoded, mut see: impl FnMut(&[KeyValue])) {
    macro_rules! owners {
        ($groups:expr, $scopes:ident, $item:ident in $items:ident, $each:expr) => {
            for group in &$groups {
                see(group.resource.as_ref().map_or(&[], |resource| &resource.attributes));
                for scopes in &group.$scopes {
                    see(scopes.scope.as_ref().map_or(&[], |scope| &scope.attributes));
                    scopes.$items.iter().for_each(|$item| $each);
                }
            }
        };
    }
    match decoded {
        Decoded::Traces(request) => {
            owners!(request.resource_spans, scope_spans, span in spans, see(&span.attributes));
        }
        Decoded::Logs(request) => {
            owners!(request.resource_logs, scope_logs, log in log_records, see(&log.attributes));
        }
        Decoded::Metrics(request) => {
            owners!(request.resource_metrics, scope_metrics, metric in metrics, {
                if let Some(Data::Histogram(data)) = &metric.data {
                    data.data_points.iter().for_each(|point| see(&point.attributes));
                }
                if let Some(Data::Sum(data)) = &metric.data {
                    data.data_points.iter().for_each(|point| see(&point.attributes));
                }
            });
        }
        Decoded::Profiles(_) => {}
    }
}
