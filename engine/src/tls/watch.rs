//! Files of TLS that may change while they are in use: one way for receivers and destinations.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use forebay_net::tls::settings::{Shown, ShownKind};

use super::looks::Place;
use super::store::PAUSE;

/// A certificate with less time left is warned of, once a day.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);
const WARN_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// A place where TLS is spoken.
pub trait Site {
    /// All that the files hold.
    type Settings: PartialEq;

    /// What the files hold now, as far as it is to be believed; `before` is in use.
    fn read(&self, before: &Self::Settings, now: Instant) -> Result<Self::Settings, String>;

    /// Tries what was read, and if it is good gives it to new connections. Returns the certificates
    /// that are shown there.
    fn adopt(&self, settings: &Self::Settings) -> Result<Vec<Shown>, String>;

    /// Zero: only when asked.
    fn reload_interval(&self) -> Duration;

    /// Whether what was read last is not believed yet, and to be read again in [`PAUSE`] whatever
    /// the interval is.
    fn is_in_doubt(&self) -> bool;

    fn sign(&self) -> Sign<'_>;
}

/// Who a place is, for the log; what does not apply is not written.
pub struct Sign<'a> {
    pub receiver: Option<&'a str>,
    pub protocols: Option<&'a str>,
    pub exporter: Option<&'a str>,
    /// What a registry is asked or told: `discovery`, `registration`.
    pub registry: Option<&'static str>,
    /// Who refuses to go on once a certificate has expired.
    pub judges: &'static str,
    /// The peer is not verified.
    pub is_unverified: bool,
}

/// A place with what is in use there.
pub struct Watch<S: Site> {
    pub site: S,
    reloads: AtomicU64,
    failed_reloads: AtomicU64,
    kept: Mutex<Kept<S::Settings>>,
}

/// What is new, if anything, and the certificates that are shown by it.
type Renewed<T> = Option<(T, Vec<Shown>)>;

struct Kept<T> {
    settings: Arc<T>,
    shown: Vec<Shown>,
    /// What was said last of files that could not be used.
    complaint: Option<String>,
    read_at: Instant,
    warned_at: Option<Instant>,
}

impl<S: Site> Watch<S> {
    /// `settings` are in use from the beginning.
    pub(super) fn new(site: S, settings: S::Settings, shown: Vec<Shown>) -> Watch<S> {
        Watch {
            site,
            reloads: AtomicU64::new(0),
            failed_reloads: AtomicU64::new(0),
            kept: Mutex::new(Kept {
                settings: Arc::new(settings),
                shown,
                complaint: None,
                read_at: Instant::now(),
                warned_at: None,
            }),
        }
    }

    /// The certificates of ours that are shown there, and the lists by which others are refused.
    pub fn shown(&self) -> Vec<Shown> {
        self.kept().shown.clone()
    }

    /// How often its files brought something new, and how often something that can't be used.
    pub fn reloads(&self) -> (u64, u64) {
        (self.reloads.load(Ordering::Relaxed), self.failed_reloads.load(Ordering::Relaxed))
    }

    /// What is in use, and is compared with its files now.
    fn settings_at(&self, now: Instant) -> Arc<S::Settings> {
        let mut kept = self.kept();
        kept.read_at = now;
        kept.settings.clone()
    }

    /// What the files have that `before` has not, if anything; it is in use then.
    fn renewed(&self, before: &S::Settings, now: Instant) -> Result<Renewed<S::Settings>, String> {
        let settings = self.site.read(before, now)?;
        if settings == *before {
            return Ok(None);
        }
        let shown = self.site.adopt(&settings)?;
        Ok(Some((settings, shown)))
    }

    /// Nothing that holds it can panic halfway through a change.
    fn kept(&self) -> MutexGuard<'_, Kept<S::Settings>> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<S> Place for Watch<S>
where
    S: Site<Settings: Send + Sync> + Send + Sync,
{
    fn name(&self) -> String {
        let Sign { receiver, protocols, exporter, registry, .. } = self.site.sign();
        let parts = [
            receiver.map(|receiver| format!("receiver {receiver}")),
            protocols.map(|protocols| format!("({protocols})")),
            exporter.map(|exporter| format!("exporter {exporter}")),
            registry.map(str::to_owned),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    fn is_due(&self, now: Instant) -> bool {
        let interval = self.site.reload_interval();
        let age = now.saturating_duration_since(self.kept().read_at);
        age >= interval && !interval.is_zero() || age >= PAUSE && self.site.is_in_doubt()
    }

    fn reload(&self, now: Instant) {
        let settings = self.settings_at(now);
        let renewed = self.renewed(&settings, now);
        let sign = self.site.sign();
        let mut kept = self.kept();
        match renewed {
            Ok(Some((settings, shown))) => {
                (kept.settings, kept.shown) = (Arc::new(settings), shown);
                kept.warned_at = None;
                kept.complaint = None;
                self.reloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!(
                    receiver = sign.receiver,
                    protocols = sign.protocols,
                    exporter = sign.exporter,
                    registry = sign.registry,
                    "Reloaded TLS certificates: new connections get them"
                );
            }
            Ok(None) => kept.complaint = None,
            Err(why) if kept.complaint.as_ref() == Some(&why) => {}
            Err(why) => {
                self.failed_reloads.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    receiver = sign.receiver,
                    protocols = sign.protocols,
                    exporter = sign.exporter,
                    registry = sign.registry,
                    why,
                    "New TLS files can't be used: the old ones stay in use, and go on until they \
                     expire. Repair the files; they are looked at again by themselves \
                     (reload_interval), or at SIGHUP"
                );
                kept.complaint = Some(why);
            }
        }
    }

    fn warn(&self, now: Instant, wall: SystemTime) {
        let mut kept = self.kept();
        if kept.warned_at.is_some_and(|at| now.saturating_duration_since(at) < WARN_AGAIN) {
            return;
        }
        kept.warned_at = Some(now);
        let sign = self.site.sign();
        if sign.is_unverified {
            warn_of_unverified(&sign);
        }
        let wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
        for shown in &kept.shown {
            let left = shown.not_after - wall;
            if shown.kind == ShownKind::RevocationList {
                // Lists are often made for a day: only one that is late is a sign.
                if left < 0 {
                    warn_of_late(&sign, shown, -left / 3600);
                }
            } else if left < SOON.as_secs() as i64 {
                tracing::warn!(
                    receiver = sign.receiver,
                    exporter = sign.exporter,
                    registry = sign.registry,
                    certificate = shown.name,
                    subject = shown.subject,
                    hours_left = left / 3600,
                    "A TLS certificate expires soon, or has: {} will refuse to connect. \
                     Replace its file: it is reloaded without a restart",
                    sign.judges
                );
            }
        }
    }
}

fn warn_of_unverified(sign: &Sign<'_>) {
    let cost = match sign.registry {
        None => {
            "whoever answers in the destination's place gets this exporter's telemetry and the \
             credentials in its headers, and may throw them away"
        }
        Some(_) => {
            "whoever answers in the registry's place gets its token or password, and says where \
             telemetry goes"
        }
    };
    tracing::warn!(
        exporter = sign.exporter,
        registry = sign.registry,
        cost,
        hint = "set tls.ca_file to the CA of the peer's certificate, and remove \
                insecure_skip_verify",
        "TLS without verification: insecure_skip_verify is true, so any certificate is taken for \
         {}'s",
        sign.judges
    );
}

fn warn_of_late(sign: &Sign<'_>, list: &Shown, hours_late: i64) {
    tracing::warn!(
        receiver = sign.receiver,
        list = list.name,
        issuer = list.subject,
        hours_late,
        "A list of revoked certificates is out of date: whoever was revoked since is let in. \
         It goes on to hold, for without it nobody could come. Look after what renews its \
         file: it is reloaded without a restart"
    );
}
