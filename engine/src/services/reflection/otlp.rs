//! OTLP's files, made from the tables that check its requests: what reflection tells is what is
//! taken.
//!
//! The tables know fields, and not the names of files, packages, enums and oneofs: those are here,
//! and the few messages and enums that no request holds.

use std::collections::BTreeMap;

use forebay_codec::schema::{self, Field, Kind, Message};
use forebay_codec::signal::Signal;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

use super::describe::{
    Holds, add_member, enumeration, field, file, message, method, repeated, service,
};

const COMMON: &str = "common.v1";
const RESOURCE: &str = "resource.v1";
/// Their messages are in files of their own; all others are in their signal's.
const IN_COMMON: [&str; 6] =
    ["AnyValue", "ArrayValue", "KeyValueList", "KeyValue", "InstrumentationScope", "EntityRef"];

/// A signal's names.
struct Names {
    /// Of the package, behind `opentelemetry.proto.`.
    package: &'static str,
    /// Of the file with the signal's messages.
    file: &'static str,
    /// In the names of the service and of its messages.
    service: &'static str,
    data: &'static str,
    rejected: &'static str,
}

fn names(signal: Signal) -> Names {
    let of =
        |package, file, service, data, rejected| Names { package, file, service, data, rejected };
    match signal {
        Signal::Traces => of("trace.v1", "trace", "Trace", "TracesData", "rejected_spans"),
        Signal::Metrics => {
            of("metrics.v1", "metrics", "Metrics", "MetricsData", "rejected_data_points")
        }
        Signal::Logs => of("logs.v1", "logs", "Logs", "LogsData", "rejected_log_records"),
        Signal::Profiles => {
            let package = "profiles.v1development";
            of(package, "profiles", "Profiles", "ProfilesData", "rejected_profiles")
        }
    }
}

/// The first value of each enum, and the enum, in a message or in its file.
const ENUMS: [(&str, &str); 4] = [
    ("SPAN_KIND_UNSPECIFIED", "Span.SpanKind"),
    ("STATUS_CODE_UNSET", "Status.StatusCode"),
    ("AGGREGATION_TEMPORALITY_UNSPECIFIED", "AggregationTemporality"),
    ("SEVERITY_NUMBER_UNSPECIFIED", "SeverityNumber"),
];

/// An enum's values.
type Values = [(&'static str, i32)];

/// Enums that name the bits of `flags`, which are plain numbers on the wire.
const FLAGS: [(Signal, &str, &Values); 3] = [
    (
        Signal::Traces,
        "SpanFlags",
        &[
            ("SPAN_FLAGS_DO_NOT_USE", 0),
            ("SPAN_FLAGS_TRACE_FLAGS_MASK", 0xff),
            ("SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK", 0x100),
            ("SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK", 0x200),
        ],
    ),
    (
        Signal::Metrics,
        "DataPointFlags",
        &[("DATA_POINT_FLAGS_DO_NOT_USE", 0), ("DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK", 1)],
    ),
    (
        Signal::Logs,
        "LogRecordFlags",
        &[("LOG_RECORD_FLAGS_DO_NOT_USE", 0), ("LOG_RECORD_FLAGS_TRACE_FLAGS_MASK", 0xff)],
    ),
];

/// Numbers that may be absent, which is not the same as 0.
fn has_presence(message: &Message, field: &Field) -> bool {
    matches!(message.name, "HistogramDataPoint" | "ExponentialHistogramDataPoint")
        && matches!(field.name, "sum" | "min" | "max")
}

/// All files: common and resource, and two of each signal.
pub(super) fn files() -> Vec<FileDescriptorProto> {
    let mut drafts = Drafts::default();
    for signal in Signal::ALL {
        let names = names(signal);
        let request = schema::request(signal);
        drafts.describe(request, signal);
        // The same, for files.
        let mut data = described(request, signal);
        data.name = Some(names.data.to_owned());
        drafts.file(names.package).insert(names.data.to_owned(), data);
    }
    let mut files: Vec<_> =
        drafts.0.into_iter().map(|(package, messages)| finished(package, messages)).collect();
    for (signal, name, values) in FLAGS {
        let package = full(names(signal).package);
        let file = files.iter_mut().find(|file| file.package() == package);
        file.expect("each signal has a file").enum_type.push(enumeration(name, values));
    }
    files.extend(Signal::ALL.map(collector_file));
    files
}

/// Messages by package, then by name; nested ones with their parent's name and a dot in front.
#[derive(Default)]
struct Drafts(BTreeMap<&'static str, BTreeMap<String, DescriptorProto>>);

impl Drafts {
    fn file(&mut self, package: &'static str) -> &mut BTreeMap<String, DescriptorProto> {
        self.0.entry(package).or_default()
    }

    /// Describes all that a message holds, and the message too unless it is a request, whose file
    /// is the service's.
    fn describe(&mut self, message: &'static Message, signal: Signal) {
        if message.name != schema::request(signal).name {
            let file = self.file(package_of(message, signal));
            if file.contains_key(message.name) {
                return;
            }
            file.insert(message.name.to_owned(), described(message, signal));
        }
        for field in message.fields {
            if let Kind::Message(inner) = field.kind {
                self.describe(inner, signal);
            }
        }
    }
}

/// The package of a message that is no request.
fn package_of(message: &Message, signal: Signal) -> &'static str {
    match message.name {
        "Resource" => RESOURCE,
        name if IN_COMMON.contains(&name) => COMMON,
        _ => names(signal).package,
    }
}

fn full(package: &str) -> String {
    format!("opentelemetry.proto.{package}")
}

fn path(package: &str, file: &str) -> String {
    format!("opentelemetry/proto/{}/{file}.proto", package.replace('.', "/"))
}

fn described(of: &Message, signal: Signal) -> DescriptorProto {
    let last_name = of.name.rsplit('.').next().unwrap_or(of.name);
    let fields = of.fields.iter().map(|field| described_field(field, signal)).collect();
    let mut message = message(last_name, fields);
    let oneof = if of.name == "Metric" { "data" } else { "value" };
    for member in of.fields.iter().filter(|field| field.either) {
        add_member(&mut message, oneof, member.number as i32);
    }
    // How a descriptor says `optional`: as the only member of a oneof behind all others.
    for optional in of.fields.iter().filter(|field| has_presence(of, field)) {
        add_member(&mut message, &format!("_{}", optional.name), optional.number as i32);
        let is_it = |field: &&mut FieldDescriptorProto| field.name() == optional.name;
        message.field.iter_mut().filter(is_it).for_each(|f| f.proto3_optional = Some(true));
    }
    message.field = with_oneof_together(message.field);
    message
}

/// In the order of a .proto file, where the members of a oneof stand in one block.
fn with_oneof_together(fields: Vec<FieldDescriptorProto>) -> Vec<FieldDescriptorProto> {
    let is_member =
        |field: &FieldDescriptorProto| field.oneof_index.is_some() && !field.proto3_optional();
    let Some(first) = fields.iter().position(is_member) else {
        return fields;
    };
    let (mut together, behind): (Vec<_>, Vec<_>) =
        fields.into_iter().enumerate().partition(|(at, field)| *at <= first || is_member(field));
    together.extend(behind);
    together.into_iter().map(|(_, field)| field).collect()
}

fn described_field(of: &Field, signal: Signal) -> FieldDescriptorProto {
    let type_name = match of.kind {
        Kind::Message(inner) => {
            format!(".{}.{}", full(package_of(inner, signal)), inner.name)
        }
        Kind::Enum(values) => format!(".{}.{}", full(names(signal).package), enum_name(values)),
        _ => String::new(),
    };
    let holds = match of.kind {
        Kind::Message(_) => Holds::Message(&type_name),
        Kind::Enum(_) => Holds::Enum(&type_name),
        Kind::String => Holds::Scalar(Type::String),
        Kind::Bytes | Kind::Id(_) | Kind::ProfileId => Holds::Scalar(Type::Bytes),
        Kind::Bool => Holds::Scalar(Type::Bool),
        Kind::Int32 | Kind::Strindex => Holds::Scalar(Type::Int32),
        Kind::Int64 => Holds::Scalar(Type::Int64),
        Kind::Uint32 => Holds::Scalar(Type::Uint32),
        Kind::Uint64 => Holds::Scalar(Type::Uint64),
        Kind::Sint32 => Holds::Scalar(Type::Sint32),
        Kind::Fixed32 => Holds::Scalar(Type::Fixed32),
        Kind::Fixed64 => Holds::Scalar(Type::Fixed64),
        Kind::Sfixed64 => Holds::Scalar(Type::Sfixed64),
        Kind::Double => Holds::Scalar(Type::Double),
    };
    let one = field(of.number as i32, of.name, holds);
    if of.repeated { repeated(one) } else { one }
}

fn enum_name(values: &Values) -> &'static str {
    let first = values.first().map_or("", |(name, _)| name);
    let found = ENUMS.iter().find(|(known, _)| *known == first);
    found.expect("each enum of the tables has a name here").1
}

/// Puts nested messages, enums and imports where they belong.
fn finished(
    package: &'static str,
    messages: BTreeMap<String, DescriptorProto>,
) -> FileDescriptorProto {
    let name = package.split('.').next().unwrap_or(package);
    let mut done = file(&path(package, name), &full(package));
    done.dependency = dependencies(&messages, package);
    // A parent's name sorts before those of its children.
    for (name, message) in messages {
        match name.split_once('.') {
            None => done.message_type.push(message),
            Some((parent, _)) => inside(&mut done, parent).nested_type.push(message),
        }
    }
    for values in enums(package) {
        let name = enum_name(values);
        match name.split_once('.') {
            None => done.enum_type.push(enumeration(name, values)),
            Some((parent, name)) => {
                inside(&mut done, parent).enum_type.push(enumeration(name, values));
            }
        }
    }
    done
}

fn inside<'a>(file: &'a mut FileDescriptorProto, parent: &str) -> &'a mut DescriptorProto {
    let found = file.message_type.iter_mut().find(|message| message.name() == parent);
    found.expect("a parent has its own row in the tables")
}

/// The enums in the messages of a signal's package.
fn enums(package: &str) -> Vec<&'static Values> {
    let Some(signal) = Signal::ALL.into_iter().find(|s| names(*s).package == package) else {
        return Vec::new();
    };
    let mut found: Vec<&'static Values> = Vec::new();
    let mut seen = Vec::new();
    let mut open = vec![schema::request(signal)];
    while let Some(message) = open.pop() {
        for field in message.fields {
            match field.kind {
                Kind::Enum(values) if !found.contains(&values) => found.push(values),
                Kind::Message(inner) if !seen.contains(&inner.name) => {
                    seen.push(inner.name);
                    open.push(inner);
                }
                _ => {}
            }
        }
    }
    found
}

/// The files of other packages that these messages name.
fn dependencies(messages: &BTreeMap<String, DescriptorProto>, package: &str) -> Vec<String> {
    let names = |other: &str| {
        let prefix = format!(".{}.", full(other));
        let fields = messages.values().flat_map(|message| &message.field);
        fields.into_iter().any(|field| field.type_name().starts_with(&prefix))
    };
    let others = [(COMMON, "common"), (RESOURCE, "resource")];
    let needed = others.into_iter().filter(|(other, _)| *other != package && names(other));
    needed.map(|(other, name)| path(other, name)).collect()
}

/// The file with a signal's service: its request and its response.
fn collector_file(signal: Signal) -> FileDescriptorProto {
    let Names { package, file: signal_file, service: prefix, rejected, .. } = names(signal);
    let own_package = format!("opentelemetry.proto.collector.{package}");
    let own_path = package.replace('.', "/");
    let name = format!("opentelemetry/proto/collector/{own_path}/{signal_file}_service.proto");
    let mut done = file(&name, &own_package);
    done.dependency = vec![path(package, signal_file)];
    let partial = format!("Export{prefix}PartialSuccess");
    let partial_type = format!(".{own_package}.{partial}");
    let response = format!("Export{prefix}ServiceResponse");
    done.message_type = vec![
        described(schema::request(signal), signal),
        message(&response, vec![field(1, "partial_success", Holds::Message(&partial_type))]),
        message(
            &partial,
            vec![
                field(1, rejected, Holds::Scalar(Type::Int64)),
                field(2, "error_message", Holds::Scalar(Type::String)),
            ],
        ),
    ];
    let input = format!(".{own_package}.{}", schema::request(signal).name);
    let export = method("Export", &input, &format!(".{own_package}.{response}"));
    done.service = vec![service(&format!("{prefix}Service"), vec![export])];
    done
}
