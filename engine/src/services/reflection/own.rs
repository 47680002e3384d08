//! The files of the health and reflection services themselves.

use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorProto, MessageOptions};

use super::describe::{
    Holds, add_member, enumeration, field, file, message, method, repeated, service,
};

pub(super) fn files() -> Vec<FileDescriptorProto> {
    vec![health(), reflection("v1"), reflection("v1alpha")]
}

const STATUSES: [(&str, i32); 4] =
    [("UNKNOWN", 0), ("SERVING", 1), ("NOT_SERVING", 2), ("SERVICE_UNKNOWN", 3)];

fn health() -> FileDescriptorProto {
    let mut done = file("grpc/health/v1/health.proto", "grpc.health.v1");
    let full = |name: &str| format!(".grpc.health.v1.{name}");
    let status = full("HealthCheckResponse.ServingStatus");
    let mut response =
        message("HealthCheckResponse", vec![field(1, "status", Holds::Enum(&status))]);
    response.enum_type = vec![enumeration("ServingStatus", &STATUSES)];
    let service_name = field(1, "service", Holds::Scalar(Type::String));
    done.message_type = vec![
        message("HealthCheckRequest", vec![service_name]),
        response,
        message("HealthListRequest", Vec::new()),
        list_response(&full("HealthCheckResponse")),
    ];
    let (request, response) = (full("HealthCheckRequest"), full("HealthCheckResponse"));
    let mut watch = method("Watch", &request, &response);
    watch.server_streaming = Some(true);
    let list = method("List", &full("HealthListRequest"), &full("HealthListResponse"));
    done.service = vec![service("Health", vec![method("Check", &request, &response), list, watch])];
    done
}

/// A map is a repeated field of entries.
fn list_response(status: &str) -> DescriptorProto {
    let entry = ".grpc.health.v1.HealthListResponse.StatusesEntry";
    let statuses = repeated(field(1, "statuses", Holds::Message(entry)));
    let mut list = message("HealthListResponse", vec![statuses]);
    let mut nested = message(
        "StatusesEntry",
        vec![
            field(1, "key", Holds::Scalar(Type::String)),
            field(2, "value", Holds::Message(status)),
        ],
    );
    nested.options = Some(MessageOptions { map_entry: Some(true), ..Default::default() });
    list.nested_type = vec![nested];
    list
}

fn reflection(version: &str) -> FileDescriptorProto {
    let name = format!("grpc/reflection/{version}/reflection.proto");
    let mut done = file(&name, &format!("grpc.reflection.{version}"));
    let full = |name: &str| format!(".grpc.reflection.{version}.{name}");
    let text = || Holds::Scalar(Type::String);
    let number = || Holds::Scalar(Type::Int32);
    let mut request = message(
        "ServerReflectionRequest",
        vec![
            field(1, "host", text()),
            field(3, "file_by_filename", text()),
            field(4, "file_containing_symbol", text()),
            field(5, "file_containing_extension", Holds::Message(&full("ExtensionRequest"))),
            field(6, "all_extension_numbers_of_type", text()),
            field(7, "list_services", text()),
        ],
    );
    (3..=7).for_each(|member| add_member(&mut request, "message_request", member));
    let of = |number, name, kind: &str| field(number, name, Holds::Message(&full(kind)));
    let mut response = message(
        "ServerReflectionResponse",
        vec![
            field(1, "valid_host", text()),
            of(2, "original_request", "ServerReflectionRequest"),
            of(4, "file_descriptor_response", "FileDescriptorResponse"),
            of(5, "all_extension_numbers_response", "ExtensionNumberResponse"),
            of(6, "list_services_response", "ListServiceResponse"),
            of(7, "error_response", "ErrorResponse"),
        ],
    );
    (4..=7).for_each(|member| add_member(&mut response, "message_response", member));
    let bytes = Holds::Scalar(Type::Bytes);
    done.message_type = vec![
        request,
        message(
            "ExtensionRequest",
            vec![field(1, "containing_type", text()), field(2, "extension_number", number())],
        ),
        response,
        message("FileDescriptorResponse", vec![repeated(field(1, "file_descriptor_proto", bytes))]),
        message(
            "ExtensionNumberResponse",
            vec![
                field(1, "base_type_name", text()),
                repeated(field(2, "extension_number", number())),
            ],
        ),
        message("ListServiceResponse", vec![repeated(of(1, "service", "ServiceResponse"))]),
        message("ServiceResponse", vec![field(1, "name", text())]),
        message(
            "ErrorResponse",
            vec![field(1, "error_code", number()), field(2, "error_message", text())],
        ),
    ];
    let (input, output) = (full("ServerReflectionRequest"), full("ServerReflectionResponse"));
    let mut info = method("ServerReflectionInfo", &input, &output);
    (info.client_streaming, info.server_streaming) = (Some(true), Some(true));
    done.service = vec![service("ServerReflection", vec![info])];
    done
}
