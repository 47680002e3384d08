//! The TLS towards one destination, or one registry.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forebay_net::tls::outward::{self, Initiator, Settings, Trust};
use forebay_net::tls::settings::{Identity, Shown};

use super::files::{identity, pem, system_cas};
use super::store::Store;
use super::watch::{Sign, Site, Watch};
use crate::config::plan::{Pem, PemPair, TlsOut};

pub struct Outlet {
    place: Place,
    pub initiator: Arc<Initiator>,
    tls: TlsOut,
    store: Mutex<Store>,
}

/// Who speaks, and with whom.
pub(super) struct Place {
    exporter: Option<String>,
    registry: Option<&'static str>,
}

impl Place {
    pub(super) fn destination(exporter: &str) -> Place {
        Place { exporter: Some(exporter.to_owned()), registry: None }
    }

    pub(super) fn source(exporter: &str) -> Place {
        Place { exporter: Some(exporter.to_owned()), registry: Some("discovery") }
    }

    pub(super) fn registration() -> Place {
        Place { exporter: None, registry: Some("registration") }
    }

    pub(super) fn whose(&self) -> String {
        self.exporter.as_ref().map_or_else(
            || "engine.registration".to_owned(),
            |exporter| format!("exporter {exporter}"),
        )
    }

    pub(super) fn peer(&self) -> &'static str {
        match self.registry {
            None => "its destination",
            Some("discovery") => "its discovery",
            Some(_) => "its registry",
        }
    }
}

impl Outlet {
    pub(super) fn open(place: Place, tls: &TlsOut) -> Result<Watch<Outlet>, String> {
        let settings = read(tls)?;
        let terms = outward::terms(&settings)?;
        let outlet = Outlet {
            place,
            initiator: Arc::new(Initiator::new(terms.security)),
            tls: tls.clone(),
            store: Mutex::default(),
        };
        Ok(Watch::new(outlet, settings, terms.shown))
    }

    /// The exporter's name; of an entry in a registry there is none.
    pub fn exporter(&self) -> &str {
        self.place.exporter.as_deref().unwrap_or_default()
    }

    /// Whether the destination proves who it is.
    pub fn is_verified(&self) -> bool {
        self.tls.verifies
    }

    /// Nothing that holds it can panic halfway through a change.
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Site for Outlet {
    type Settings = Settings;

    fn read(&self, before: &Settings, now: Instant) -> Result<Settings, String> {
        let mut settings = read(&self.tls)?;
        if let (Trust::Cas { system: used, .. }, Trust::Cas { system, .. }) =
            (&before.trust, &mut settings.trust)
        {
            *system = self.store().judged(used, std::mem::take(system), now);
        }
        Ok(settings)
    }

    fn adopt(&self, settings: &Settings) -> Result<Vec<Shown>, String> {
        let terms = outward::terms(settings)?;
        self.initiator.replace(terms.security);
        Ok(terms.shown)
    }

    fn reload_interval(&self) -> Duration {
        self.tls.reload_interval
    }

    fn is_in_doubt(&self) -> bool {
        self.store().is_doubted()
    }

    fn sign(&self) -> Sign<'_> {
        Sign {
            receiver: None,
            protocols: None,
            exporter: self.place.exporter.as_deref(),
            registry: self.place.registry,
            judges: if self.place.registry.is_some() { "the registry" } else { "the destination" },
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
