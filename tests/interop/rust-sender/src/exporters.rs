//! The SDK's OTLP exporters, told what the command line says.

use std::time::Duration;

use opentelemetry_otlp::{
    Compression, LogExporter, MetricExporter, Protocol, SpanExporter, WithExportConfig,
    WithHttpConfig, WithTonicConfig,
};

use crate::Options;

/// One exporter of kind `$kind` for the signal `$signal` towards `$base_url`.
macro_rules! exporter {
    ($kind:ty, $signal:literal, $options:expr, $base_url:expr) => {{
        let options: &Options = $options;
        let timeout = Duration::from_secs(options.timeout_s);
        if options.protocol == "grpc" {
            let builder =
                <$kind>::builder().with_tonic().with_endpoint($base_url).with_timeout(timeout);
            match compression(options) {
                Some(algorithm) => builder.with_compression(algorithm).build(),
                None => builder.build(),
            }
        } else {
            let builder = <$kind>::builder()
                .with_http()
                .with_protocol(http_protocol(options))
                .with_endpoint(format!("{}/v1/{}", $base_url, $signal))
                .with_timeout(timeout);
            match compression(options) {
                Some(algorithm) => builder.with_compression(algorithm).build(),
                None => builder.build(),
            }
        }
        .expect("the SDK takes these settings")
    }};
}

pub fn spans(options: &Options, base_url: &str) -> SpanExporter {
    exporter!(SpanExporter, "traces", options, base_url)
}

pub fn metrics(options: &Options, base_url: &str) -> MetricExporter {
    exporter!(MetricExporter, "metrics", options, base_url)
}

pub fn logs(options: &Options, base_url: &str) -> LogExporter {
    exporter!(LogExporter, "logs", options, base_url)
}

fn http_protocol(options: &Options) -> Protocol {
    match options.protocol.as_str() {
        "http-proto" => Protocol::HttpBinary,
        "http-json" => Protocol::HttpJson,
        other => panic!("--protocol is grpc, http-proto or http-json, not {other}"),
    }
}

fn compression(options: &Options) -> Option<Compression> {
    match options.compression.as_str() {
        "none" => None,
        "gzip" => Some(Compression::Gzip),
        "zstd" => Some(Compression::Zstd),
        other => panic!("--compression is none, gzip or zstd, not {other}"),
    }
}
