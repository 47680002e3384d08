//! The TLS of the receivers, as the control plane keeps it: files in, terms for new connections
//! out.
//!
//! Always
//! - What is read anew is tried before anybody gets it: a broken file leaves all as it was, and is
//!   said once for each way in which it is broken.
//! - A connection that exists is left alone.
//! - Who is trusted by CAs or revocation lists resumes nothing, so what they say holds for the next
//!   connection.
//! - No lock is held while files are read: whoever shows the metrics does not wait for them.
//! - No message shows a key.
//!
//! Never here: the receivers' threads. They only load what [`Acceptor`] has.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use forebay_net::quic;
use forebay_net::request::Nanos;
use forebay_net::tls::Acceptor;
use forebay_net::tls::settings::{
    self, Identity, Settings, Shown, ShownKind, Terms, TicketKeys, Version, tickets,
};

use crate::config::plan::{Listener, Pem, PemPair, Plan, Tls};

/// No certificate is larger, and no list of revoked ones that anybody should send.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// A certificate with less time left is warned of, once a day.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);
const WARN_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// The terms for TCP or QUIC, from the files as they are now.
///
/// # Errors
/// What is wrong, to go on after the name of the block.
pub fn load(tls: &Tls, is_quic: bool) -> Result<Terms, String> {
    terms(&read(tls)?, tickets()?, is_quic)
}

/// One listener's TLS.
pub struct Door {
    pub receiver: String,
    /// What is spoken behind it: `grpc`, `http`, or both; or `http3`.
    pub protocols: &'static str,
    pub acceptor: Arc<Acceptor>,
    tls: Tls,
    is_quic: bool,
    tickets: TicketKeys,
    reloads: AtomicU64,
    failed_reloads: AtomicU64,
    kept: Mutex<Kept>,
}

struct Kept {
    settings: Arc<Settings>,
    shown: Vec<Shown>,
    /// What was said last of files that could not be used.
    complaint: Option<String>,
    read_at: Instant,
    warned_at: Option<Instant>,
}

/// All listeners' TLS, by listener.
#[derive(Default)]
pub struct Doors(Vec<Option<Arc<Door>>>);

impl Doors {
    /// # Errors
    /// A whole message: files may have changed since the configuration was read.
    pub fn open(plan: &Plan) -> Result<Doors, String> {
        let timeout = plan.engine.limits.handshake_timeout.as_nanos() as Nanos;
        let open = |listener: &Listener| {
            let Some(tls) = &listener.tls else {
                return Ok(None);
            };
            let door = Door::open(listener, tls, timeout).map_err(|why| {
                format!(
                    "receiver {}: the TLS of {} can't be used: {why}\n  cost: forebay does not \
                     start\n  hint: `forebay validate` says where it is set",
                    listener.receiver_name, listener.endpoint
                )
            })?;
            Ok(Some(Arc::new(door)))
        };
        Ok(Doors(plan.listeners.iter().map(open).collect::<Result<_, String>>()?))
    }

    /// By listener: what a receiver core needs of each.
    pub fn acceptors(&self) -> Vec<Option<Arc<Acceptor>>> {
        self.0.iter().map(|door| door.as_ref().map(|door| door.acceptor.clone())).collect()
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Door>> {
        self.0.iter().flatten()
    }

    pub fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// Looks at the files of each door whose time has come, or of all that have files.
    pub fn reload(&self, now: Instant, all: bool) {
        for door in self.all().filter(|door| all || door.is_due(now)) {
            door.reload(now);
        }
    }

    /// Warns of what will not be valid for long, and of lists that are late.
    pub fn warn(&self, now: Instant, wall: SystemTime) {
        self.all().for_each(|door| door.warn(now, wall));
    }
}

impl Door {
    fn open(listener: &Listener, tls: &Tls, timeout: Nanos) -> Result<Door, String> {
        let (settings, tickets) = (read(tls)?, tickets()?);
        let terms = terms(&settings, tickets.clone(), listener.is_quic)?;
        Ok(Door {
            receiver: listener.receiver_name.clone(),
            protocols: match (&listener.grpc, &listener.http) {
                _ if listener.is_quic => "http3",
                (Some(_), Some(_)) => "grpc, http",
                (Some(_), None) => "grpc",
                _ => "http",
            },
            acceptor: Arc::new(Acceptor::new(terms.config, timeout)),
            tls: tls.clone(),
            is_quic: listener.is_quic,
            tickets,
            reloads: AtomicU64::new(0),
            failed_reloads: AtomicU64::new(0),
            kept: Mutex::new(Kept {
                settings: Arc::new(settings),
                shown: terms.shown,
                complaint: None,
                read_at: Instant::now(),
                warned_at: None,
            }),
        })
    }

    /// The certificates that it shows, and the lists by which it refuses others.
    pub fn shown(&self) -> Vec<Shown> {
        self.kept().shown.clone()
    }

    /// How often its files brought something new, and how often something that can't be used.
    pub fn reloads(&self) -> (u64, u64) {
        (self.reloads.load(Ordering::Relaxed), self.failed_reloads.load(Ordering::Relaxed))
    }

    fn is_due(&self, now: Instant) -> bool {
        let interval = self.tls.reload_interval;
        !interval.is_zero() && now.saturating_duration_since(self.kept().read_at) >= interval
    }

    fn reload(&self, now: Instant) {
        let settings = self.settings_at(now);
        let renewed = self.renewed(&settings);
        let mut kept = self.kept();
        match renewed {
            Ok(Some((settings, terms))) => {
                self.acceptor.replace(terms.config);
                (kept.settings, kept.shown) = (Arc::new(settings), terms.shown);
                kept.warned_at = None;
                kept.complaint = None;
                self.reloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!(
                    receiver = self.receiver,
                    protocols = self.protocols,
                    "Reloaded TLS certificates: new connections get them"
                );
            }
            Ok(None) => kept.complaint = None,
            Err(why) if kept.complaint.as_ref() == Some(&why) => {}
            Err(why) => {
                self.failed_reloads.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    receiver = self.receiver,
                    protocols = self.protocols,
                    why,
                    "New TLS files can't be used: the old ones stay in use, and go on until they \
                     expire. Repair the files; they are looked at again by themselves \
                     (reload_interval), or at SIGHUP"
                );
                kept.complaint = Some(why);
            }
        }
    }

    /// What is in use, and is compared with its files now.
    fn settings_at(&self, now: Instant) -> Arc<Settings> {
        let mut kept = self.kept();
        kept.read_at = now;
        kept.settings.clone()
    }

    /// What the files have that `before` has not, if anything.
    fn renewed(&self, before: &Settings) -> Result<Option<(Settings, Terms)>, String> {
        let settings = read(&self.tls)?;
        if settings == *before {
            return Ok(None);
        }
        let terms = terms(&settings, self.tickets.clone(), self.is_quic)?;
        Ok(Some((settings, terms)))
    }

    fn warn(&self, now: Instant, wall: SystemTime) {
        let mut kept = self.kept();
        if kept.warned_at.is_some_and(|at| now.saturating_duration_since(at) < WARN_AGAIN) {
            return;
        }
        let wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
        for shown in &kept.shown {
            let left = shown.not_after - wall;
            if shown.kind == ShownKind::RevocationList {
                // Lists are often made for a day: only one that is late is a sign.
                if left < 0 {
                    self.warn_of_late(shown, -left / 3600);
                }
            } else if left < SOON.as_secs() as i64 {
                tracing::warn!(
                    receiver = self.receiver,
                    certificate = shown.name,
                    subject = shown.subject,
                    hours_left = left / 3600,
                    "A TLS certificate expires soon, or has: clients will refuse to connect. \
                     Replace its file: it is reloaded without a restart"
                );
            }
        }
        kept.warned_at = Some(now);
    }

    fn warn_of_late(&self, list: &Shown, hours_late: i64) {
        tracing::warn!(
            receiver = self.receiver,
            list = list.name,
            issuer = list.subject,
            hours_late,
            "A list of revoked certificates is out of date: whoever was revoked since is let in. \
             It goes on to hold, for without it nobody could come. Look after what renews its \
             file: it is reloaded without a restart"
        );
    }

    /// Nothing that holds it can panic halfway through a change.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn terms(settings: &Settings, tickets: TicketKeys, is_quic: bool) -> Result<Terms, String> {
    let mut terms = settings::terms(settings, tickets)?;
    if is_quic {
        if settings.version_max < Version::Tls13 {
            return Err("HTTP/3 needs TLS 1.3, and max_version is 1.2".to_owned());
        }
        terms.config = terms.for_door(settings::Door::Quic);
        quic::Tls::new(terms.config.clone()).map_err(|error| error.to_string())?;
    }
    Ok(terms)
}

fn read(tls: &Tls) -> Result<Settings, String> {
    let optional = |path: &Option<std::path::PathBuf>, key: &str| match path {
        Some(path) => file(path, key).map(Some),
        None => Ok(None),
    };
    Ok(Settings {
        identities: tls.certificates.iter().enumerate().map(identity).collect::<Result<_, _>>()?,
        client_ca_pem: optional(&tls.client_ca_file, "client_ca_file")?,
        client_crl_pem: optional(&tls.client_crl_file, "client_crl_file")?,
        version_min: tls.version_min,
        version_max: tls.version_max,
        cipher_suites: tls.cipher_suites.clone(),
        curves: tls.curves.clone(),
    })
}

fn identity((index, pair): (usize, &PemPair)) -> Result<Identity, String> {
    Ok(Identity {
        name: match &pair.chain {
            Pem::File(path) => path.display().to_string(),
            Pem::Text(_) if index == 0 => "cert_pem".to_owned(),
            Pem::Text(_) => format!("certificates[{}].cert_pem", index - 1),
        },
        chain_pem: pem(&pair.chain, "cert_file")?,
        key_pem: pem(&pair.key, "key_file")?,
    })
}

fn pem(pem: &Pem, key: &str) -> Result<Vec<u8>, String> {
    match pem {
        Pem::File(path) => file(path, key),
        Pem::Text(text) => Ok(text.clone().into_bytes()),
    }
}

fn file(path: &Path, key: &str) -> Result<Vec<u8>, String> {
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
