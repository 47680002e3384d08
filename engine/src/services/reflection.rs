//! `grpc.reflection`: which services there are and what their messages look like, for tools that
//! have no .proto file at hand.
//!
//! Source: the server reflection protocol; v1 and v1alpha are the same but for their names. A
//! file comes with all that it imports: streams are kept without any memory.

mod describe;
mod files;
mod otlp;
mod own;
mod wire;

use forebay_net::grpc::code;
use prost::Message;

use self::files::Files;
use self::wire::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse, Reply,
    Request, ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
};
use super::OTLP_SERVICES;

const OWN_SERVICES: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// What one core answers from.
#[derive(Default)]
pub struct Reflection {
    /// Made for the first that asks.
    files: Option<Files>,
}

impl Reflection {
    /// The answer to a message, on a listener that takes these signals; or why it is none.
    pub fn answer(&mut self, message: &[u8], signals: &[bool; 4]) -> Result<Vec<u8>, String> {
        let request = ServerReflectionRequest::decode(message);
        let request = request.map_err(|error| error.to_string())?;
        let files = self.files.get_or_insert_with(Files::new);
        let reply = match &request.request {
            Some(Request::FileByFilename(name)) => files_of(files, files.named(name), name),
            Some(Request::FileContainingSymbol(symbol)) => {
                files_of(files, files.with_symbol(symbol), symbol)
            }
            // OTLP is proto3: nothing can be extended, so no type has extensions.
            Some(Request::FileContainingExtension(extension)) => {
                let of = &extension.containing_type;
                not_found(&format!("{of} has no extension {}", extension.extension_number))
            }
            Some(Request::AllExtensionNumbersOfType(name)) => match files.has_message(name) {
                true => Reply::AllExtensionNumbers(ExtensionNumberResponse {
                    base_type_name: name.clone(),
                    extension_number: Vec::new(),
                }),
                false => not_found(name),
            },
            Some(Request::ListServices(_)) => list(signals),
            None => Reply::Error(ErrorResponse {
                error_code: code::INVALID_ARGUMENT as i32,
                error_message: "the request asks for nothing".to_owned(),
            }),
        };
        let valid_host = request.host.clone();
        let response = ServerReflectionResponse {
            valid_host,
            original_request: Some(request),
            reply: Some(reply),
        };
        Ok(response.encode_to_vec())
    }
}

fn files_of(files: &Files, found: Option<usize>, name: &str) -> Reply {
    match found {
        Some(file) => Reply::FileDescriptor(FileDescriptorResponse {
            file_descriptor_proto: files.with_imports(file),
        }),
        None => not_found(name),
    }
}

fn not_found(what: &str) -> Reply {
    Reply::Error(ErrorResponse {
        error_code: code::NOT_FOUND as i32,
        error_message: format!("not found: {what}"),
    })
}

fn list(signals: &[bool; 4]) -> Reply {
    let otlp = OTLP_SERVICES.iter().zip(signals).filter(|(_, is_taken)| **is_taken);
    let names = otlp.map(|(name, _)| *name).chain(OWN_SERVICES);
    let service = names.map(|name| ServiceResponse { name: name.to_owned() }).collect();
    Reply::ListServices(ListServiceResponse { service })
}
