//! When the files of each place are looked at, and by whom.
//!
//! Always
//! - A place has at most one thread that reads its files. One that hangs, on a mount that is lost,
//!   holds up nobody but its own place, until [`LOOKS_MAX`] of them do.
//! - Who asks while a place is looked at is heard: it is looked at once more.
//! - Warnings wait for no file.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::signal::unix::Signal;
use tokio::task::{JoinHandle, spawn_blocking};

use super::Doors;

/// How often it is asked whether files are to be looked at.
const STEP: Duration = Duration::from_millis(500);
/// A look at them that takes longer is said.
const PATIENCE: Duration = Duration::from_secs(10);
/// Threads that read files at once. Where so many hang, other places wait for one of them.
const LOOKS_MAX: usize = 64;

/// A place whose files are looked at, whatever speaks TLS there.
pub(super) trait Place: Send + Sync {
    /// For the log.
    fn name(&self) -> String;

    fn is_due(&self, now: Instant) -> bool;

    /// Reads files, and may wait for them.
    fn reload(&self, now: Instant);

    /// Waits for nothing.
    fn warn(&self, now: Instant, wall: SystemTime);
}

/// Looks at the files of TLS when their time has come, and at all of them at each SIGHUP.
pub async fn keep(doors: Arc<Doors>, mut hangup: Signal) {
    let mut looks = Looks::at(doors.places());
    while looks.places.is_empty() {
        hangup.recv().await;
        tracing::info!(
            "SIGHUP: there is nothing to reload, because nobody here speaks TLS. A changed \
             configuration needs a restart"
        );
    }
    loop {
        let asked = tokio::time::timeout(STEP, hangup.recv()).await.is_ok();
        looks.step(Instant::now(), asked).await;
        looks.warn(Instant::now(), SystemTime::now());
    }
}

struct Looks {
    places: Vec<Watched>,
}

struct Watched {
    place: Arc<dyn Place>,
    look: Option<Look>,
    is_asked: bool,
}

/// A thread that reads files.
struct Look {
    thread: JoinHandle<()>,
    since: Instant,
    /// That it hangs has been said.
    is_told: bool,
}

impl Looks {
    fn at(places: Vec<Arc<dyn Place>>) -> Looks {
        let watched = |place| Watched { place, look: None, is_asked: false };
        Looks { places: places.into_iter().map(watched).collect() }
    }

    /// Ends the looks that have ended, and begins those that are due or asked for. Waits for none.
    async fn step(&mut self, now: Instant, asked: bool) {
        for watched in &mut self.places {
            watched.is_asked |= asked;
            watched.settle(now).await;
        }
        let mut looks = self.places.iter().filter(|watched| watched.look.is_some()).count();
        for watched in &mut self.places {
            let is_wanted = watched.is_asked || watched.place.is_due(now);
            if watched.look.is_none() && is_wanted && looks < LOOKS_MAX {
                watched.begin(now);
                looks += 1;
            }
        }
    }

    fn warn(&self, now: Instant, wall: SystemTime) {
        self.places.iter().for_each(|watched| watched.place.warn(now, wall));
    }
}

impl Watched {
    fn begin(&mut self, now: Instant) {
        self.is_asked = false;
        let place = Arc::clone(&self.place);
        let thread = spawn_blocking(move || {
            place.reload(Instant::now());
            place.warn(Instant::now(), SystemTime::now());
        });
        self.look = Some(Look { thread, since: now, is_told: false });
    }

    /// Takes leave of a look that has ended, and says of one that should have.
    async fn settle(&mut self, now: Instant) {
        let Some(look) = &mut self.look else {
            return;
        };
        if look.thread.is_finished() {
            if let Err(error) = (&mut look.thread).await {
                let place = self.place.name();
                tracing::error!(place, %error, "TLS files could not be looked at; they will be");
            } else if look.is_told {
                tracing::info!(place = self.place.name(), "TLS files can be read again");
            }
            self.look = None;
        } else if !look.is_told && now.saturating_duration_since(look.since) >= PATIENCE {
            look.is_told = true;
            tracing::error!(
                place = self.place.name(),
                waited_seconds = PATIENCE.as_secs(),
                "TLS files can't be read: one of them hangs, as on a lost network mount. Until it \
                 comes back this place's certificates are not reloaded, also not by SIGHUP; what \
                 is in use stays, and other places go on. Look after the mount, or name files on \
                 a local disk"
            );
        }
    }
}

#[cfg(test)]
mod tests;
