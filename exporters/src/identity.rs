//! How an exporter introduces itself.

/// The User-Agent on export where the configuration names none, in the Collector's form:
/// `forebay/0.1.0 (linux/amd64)`.
pub(crate) fn user_agent() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let version = env!("CARGO_PKG_VERSION");
    format!("forebay/{version} ({}/{architecture})", std::env::consts::OS)
}
