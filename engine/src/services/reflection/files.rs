//! All files that reflection tells of, and who is found in which.

use std::collections::{HashMap, HashSet};

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorProto};

use super::{otlp, own};

pub(super) struct Files {
    files: Vec<File>,
    /// By full name: messages and what is in them, enums, services, methods.
    symbols: HashMap<String, usize>,
    messages: HashSet<String>,
}

struct File {
    name: String,
    /// All that it imports, and what those import.
    imports: Vec<usize>,
    bytes: Vec<u8>,
}

impl Files {
    pub(super) fn new() -> Files {
        let descriptors: Vec<_> = otlp::files().into_iter().chain(own::files()).collect();
        let mut files =
            Files { files: Vec::new(), symbols: HashMap::new(), messages: HashSet::new() };
        for (index, descriptor) in descriptors.iter().enumerate() {
            files.add_symbols(index, descriptor);
            files.files.push(File {
                name: descriptor.name().to_owned(),
                imports: imports(&descriptors, index),
                bytes: descriptor.encode_to_vec(),
            });
        }
        files
    }

    pub(super) fn named(&self, name: &str) -> Option<usize> {
        self.files.iter().position(|file| file.name == name)
    }

    pub(super) fn with_symbol(&self, symbol: &str) -> Option<usize> {
        self.symbols.get(symbol.strip_prefix('.').unwrap_or(symbol)).copied()
    }

    pub(super) fn has_message(&self, name: &str) -> bool {
        self.messages.contains(name.strip_prefix('.').unwrap_or(name))
    }

    /// A file and all that it needs, encoded.
    pub(super) fn with_imports(&self, file: usize) -> Vec<Vec<u8>> {
        let imports = self.files[file].imports.iter();
        [&file].into_iter().chain(imports).map(|index| self.files[*index].bytes.clone()).collect()
    }

    fn add_symbols(&mut self, file: usize, descriptor: &FileDescriptorProto) {
        let package = descriptor.package();
        for message in &descriptor.message_type {
            self.add_message(file, package, message);
        }
        for enumeration in &descriptor.enum_type {
            self.add(file, package, enumeration.name());
            // A value's name stands beside its enum, not inside.
            enumeration.value.iter().for_each(|value| self.add(file, package, value.name()));
        }
        for service in &descriptor.service {
            self.add(file, package, service.name());
            let scope = format!("{package}.{}", service.name());
            service.method.iter().for_each(|method| self.add(file, &scope, method.name()));
        }
    }

    fn add_message(&mut self, file: usize, scope: &str, message: &DescriptorProto) {
        self.add(file, scope, message.name());
        let scope = format!("{scope}.{}", message.name());
        message.field.iter().for_each(|field| self.add(file, &scope, field.name()));
        message.oneof_decl.iter().for_each(|oneof| self.add(file, &scope, oneof.name()));
        for enumeration in &message.enum_type {
            self.add(file, &scope, enumeration.name());
            enumeration.value.iter().for_each(|value| self.add(file, &scope, value.name()));
        }
        message.nested_type.iter().for_each(|nested| self.add_message(file, &scope, nested));
        self.messages.insert(scope);
    }

    fn add(&mut self, file: usize, scope: &str, name: &str) {
        self.symbols.insert(format!("{scope}.{name}"), file);
    }
}

/// All that a file imports, directly or not, each once.
fn imports(files: &[FileDescriptorProto], of: usize) -> Vec<usize> {
    let mut found = Vec::new();
    let mut open = vec![of];
    while let Some(file) = open.pop() {
        for name in &files[file].dependency {
            let import = files.iter().position(|file| file.name() == name);
            let import = import.expect("every file that is imported is here");
            if !found.contains(&import) {
                found.push(import);
                open.push(import);
            }
        }
    }
    found
}
