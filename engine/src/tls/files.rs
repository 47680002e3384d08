//! What the files of TLS hold. Bounded, and only regular files: nothing here is waited for.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use forebay_net::tls::settings::Identity;

use crate::config::plan::{Pem, PemPair};

/// No certificate is larger, and no list of revoked ones that anybody should send.
const FILE_BYTES_MAX: u64 = 16 << 20;

pub(super) fn identity(name: String, pair: &PemPair) -> Result<Identity, String> {
    let (chain_pem, key_pem) = (pem(&pair.chain, "cert_file")?, pem(&pair.key, "key_file")?);
    Ok(Identity { name, chain_pem, key_pem })
}

pub(super) fn pem(pem: &Pem, key: &str) -> Result<Vec<u8>, String> {
    match pem {
        Pem::File(path) => file(path, key),
        Pem::Text(text) => Ok(text.clone().into_bytes()),
    }
}

pub(super) fn file(path: &Path, key: &str) -> Result<Vec<u8>, String> {
    let fault = |why: String| format!("{key} {}: {why}", path.display());
    let is_file = std::fs::metadata(path).map_err(|error| fault(error.to_string()))?.is_file();
    if !is_file {
        // A pipe would be waited for, and a device may have no end.
        return Err(fault("not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read {
        Ok(length) if length as u64 > FILE_BYTES_MAX => {
            Err(fault(format!("more than {} MiB", FILE_BYTES_MAX >> 20)))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(fault(error.to_string())),
    }
}

/// The CAs that this machine trusts, as DER and in a fixed order.
pub(super) fn system_cas() -> Result<Vec<Vec<u8>>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut cas: Vec<Vec<u8>> = found.certs.iter().map(|ca| ca.as_ref().to_vec()).collect();
    if cas.is_empty() {
        let why = found.errors.first().map_or(String::new(), |error| format!(" ({error})"));
        return Err(format!(
            "the system has no CA certificates{why}: set ca_file to the CA of the destination's \
             certificate, install the system's (usually the package ca-certificates), or name a \
             file of them in the environment variable SSL_CERT_FILE"
        ));
    }
    cas.sort_unstable();
    cas.dedup();
    Ok(cas)
}
