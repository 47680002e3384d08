//! Descriptors put together with few words: files, messages, fields, services.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, MethodDescriptorProto, OneofDescriptorProto, ServiceDescriptorProto,
};

/// What a field holds.
pub(super) enum Holds<'a> {
    Scalar(Type),
    /// By its full name, with a dot in front.
    Message(&'a str),
    /// By its full name, with a dot in front.
    Enum(&'a str),
}

pub(super) fn file(name: &str, package: &str) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.to_owned()),
        package: Some(package.to_owned()),
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    }
}

pub(super) fn message(name: &str, fields: Vec<FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto { name: Some(name.to_owned()), field: fields, ..DescriptorProto::default() }
}

pub(super) fn field(number: i32, name: &str, holds: Holds<'_>) -> FieldDescriptorProto {
    let (kind, type_name) = match holds {
        Holds::Scalar(scalar) => (scalar, None),
        Holds::Message(name) => (Type::Message, Some(name.to_owned())),
        Holds::Enum(name) => (Type::Enum, Some(name.to_owned())),
    };
    let mut field = FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        type_name,
        json_name: Some(json_name(name)),
        ..FieldDescriptorProto::default()
    };
    field.set_type(kind);
    field.set_label(Label::Optional);
    field
}

pub(super) fn repeated(mut field: FieldDescriptorProto) -> FieldDescriptorProto {
    field.set_label(Label::Repeated);
    field
}

/// Makes a field a member of the oneof of this name.
pub(super) fn add_member(message: &mut DescriptorProto, oneof: &str, number: i32) {
    let is_it = |known: &OneofDescriptorProto| known.name() == oneof;
    let index = message.oneof_decl.iter().position(is_it).unwrap_or_else(|| {
        let name = Some(oneof.to_owned());
        message.oneof_decl.push(OneofDescriptorProto { name, ..Default::default() });
        message.oneof_decl.len() - 1
    });
    for field in message.field.iter_mut().filter(|field| field.number() == number) {
        field.oneof_index = Some(index as i32);
    }
}

pub(super) fn enumeration(name: &str, values: &[(&str, i32)]) -> EnumDescriptorProto {
    let value = |(name, number): &(&str, i32)| EnumValueDescriptorProto {
        name: Some((*name).to_owned()),
        number: Some(*number),
        ..EnumValueDescriptorProto::default()
    };
    EnumDescriptorProto {
        name: Some(name.to_owned()),
        value: values.iter().map(value).collect(),
        ..EnumDescriptorProto::default()
    }
}

pub(super) fn service(name: &str, methods: Vec<MethodDescriptorProto>) -> ServiceDescriptorProto {
    ServiceDescriptorProto { name: Some(name.to_owned()), method: methods, options: None }
}

/// A unary method; both types by their full names, with a dot in front.
pub(super) fn method(name: &str, input: &str, output: &str) -> MethodDescriptorProto {
    MethodDescriptorProto {
        name: Some(name.to_owned()),
        input_type: Some(input.to_owned()),
        output_type: Some(output.to_owned()),
        ..MethodDescriptorProto::default()
    }
}

/// As protobuf's JSON mapping makes it: an underscore raises the letter behind it.
pub(super) fn json_name(name: &str) -> String {
    let mut raises = false;
    let mut json = String::with_capacity(name.len());
    for letter in name.chars() {
        match (letter, std::mem::replace(&mut raises, letter == '_')) {
            ('_', _) => {}
            (letter, true) => json.push(letter.to_ascii_uppercase()),
            (letter, false) => json.push(letter),
        }
    }
    json
}
