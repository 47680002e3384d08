//! The TLS towards one destination.

use std::sync::Arc;
use std::time::Duration;

use forebay_net::tls::outward::{self, Initiator, Settings, Trust};
use forebay_net::tls::settings::{Identity, Shown};

use super::files::{identity, pem, system_cas};
use super::watch::{Sign, Site, Watch};
use crate::config::plan::{Pem, PemPair, TlsOut};

pub struct Outlet {
    pub exporter: String,
    pub initiator: Arc<Initiator>,
    tls: TlsOut,
}

impl Outlet {
    pub(super) fn open(exporter: &str, tls: &TlsOut) -> Result<Watch<Outlet>, String> {
        let settings = read(tls)?;
        let terms = outward::terms(&settings)?;
        let outlet = Outlet {
            exporter: exporter.to_owned(),
            initiator: Arc::new(Initiator::new(terms.security)),
            tls: tls.clone(),
        };
        Ok(Watch::new(outlet, settings, terms.shown))
    }

    /// Whether the destination proves who it is.
    pub fn is_verified(&self) -> bool {
        self.tls.verifies
    }
}

impl Site for Outlet {
    type Settings = Settings;

    fn read(&self) -> Result<Settings, String> {
        read(&self.tls)
    }

    fn adopt(&self, settings: &Settings) -> Result<Vec<Shown>, String> {
        let terms = outward::terms(settings)?;
        self.initiator.replace(terms.security);
        Ok(terms.shown)
    }

    fn reload_interval(&self) -> Duration {
        self.tls.reload_interval
    }

    fn sign(&self) -> Sign<'_> {
        Sign {
            receiver: None,
            protocols: None,
            exporter: Some(&self.exporter),
            judges: "the destination",
            is_unverified: !self.is_verified(),
        }
    }
}

pub(super) fn read(tls: &TlsOut) -> Result<Settings, String> {
    Ok(Settings {
        trust: trust(tls)?,
        identity: tls.own.as_ref().map(own).transpose()?,
        server_name: tls.server_name.clone(),
        version_min: tls.version_min,
        version_max: tls.version_max,
        protocol: tls.protocol,
    })
}

fn own(pair: &PemPair) -> Result<Identity, String> {
    let name = match &pair.chain {
        Pem::File(path) => path.display().to_string(),
        Pem::Text(_) => "cert_pem".to_owned(),
    };
    identity(name, pair)
}

fn trust(tls: &TlsOut) -> Result<Trust, String> {
    if !tls.verifies {
        return Ok(Trust::Unverified);
    }
    let given = |ca: &Pem| {
        let name = match ca {
            Pem::File(path) => format!("ca_file {}", path.display()),
            Pem::Text(_) => "ca_pem".to_owned(),
        };
        pem(ca, "ca_file").map(|bytes| (name, bytes))
    };
    let system = if tls.trusts_system { system_cas()? } else { Vec::new() };
    Ok(Trust::Cas { given: tls.ca.as_ref().map(given).transpose()?, system })
}
