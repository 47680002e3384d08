//! The TLS of receivers and destinations, as the control plane keeps it: files in, terms for new
//! connections out.
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
//! Never here: the receivers' and the exporters' threads. They only load what [`Acceptor`] and
//! [`Initiator`] have.

mod door;
mod files;
mod outlet;
mod watch;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use forebay_net::request::Nanos;
use forebay_net::tls::Acceptor;
use forebay_net::tls::outward::{self, Initiator};
use forebay_net::tls::settings::{Terms, tickets};

pub use self::door::Door;
pub use self::outlet::Outlet;
use self::watch::Watch;
use crate::config::plan::{Listener, Plan, Tls, TlsOut};

/// The terms for TCP or QUIC, from the files as they are now.
///
/// # Errors
/// What is wrong, to go on after the name of the block.
pub fn load(tls: &Tls, is_quic: bool) -> Result<Terms, String> {
    door::terms(&door::read(tls)?, tickets()?, is_quic)
}

/// The terms towards a destination, from the files as they are now.
///
/// # Errors
/// What is wrong, to go on after the name of the block.
pub fn load_out(tls: &TlsOut) -> Result<outward::Terms, String> {
    outward::terms(&outlet::read(tls)?)
}

/// Where TLS is spoken: at listeners, and towards destinations.
#[derive(Default)]
pub struct Doors {
    /// By listener.
    doors: Vec<Option<Watch<Door>>>,
    /// By destination.
    outlets: Vec<Option<Watch<Outlet>>>,
}

impl Doors {
    /// # Errors
    /// A whole message: files may have changed since the configuration was read.
    pub fn open(plan: &Plan) -> Result<Doors, String> {
        let timeout = plan.engine.limits.handshake_timeout.as_nanos() as Nanos;
        let door = |listener: &Listener| {
            let opened = listener.tls.as_ref().map(|tls| Door::open(listener, tls, timeout));
            let whose = || format!("receiver {}", listener.receiver_name);
            opened.transpose().map_err(|why| unusable(&whose(), &listener.endpoint, &why))
        };
        let outlet = |(index, tls): (usize, &Option<TlsOut>)| {
            let name = plan.destinations[index].name.as_str();
            let opened = tls.as_ref().map(|tls| Outlet::open(name, tls));
            let whose = || format!("exporter {name}");
            opened.transpose().map_err(|why| unusable(&whose(), "its destination", &why))
        };
        Ok(Doors {
            doors: plan.listeners.iter().map(door).collect::<Result<_, _>>()?,
            outlets: plan.tls_out.iter().enumerate().map(outlet).collect::<Result<_, _>>()?,
        })
    }

    /// By listener: what a receiver core needs of each.
    pub fn acceptors(&self) -> Vec<Option<Arc<Acceptor>>> {
        let acceptor = |door: &Watch<Door>| door.site.acceptor.clone();
        self.doors.iter().map(|door| door.as_ref().map(acceptor)).collect()
    }

    /// By destination: what an exporter core needs of each.
    pub fn initiators(&self) -> Vec<Option<Arc<Initiator>>> {
        let initiator = |outlet: &Watch<Outlet>| outlet.site.initiator.clone();
        self.outlets.iter().map(|outlet| outlet.as_ref().map(initiator)).collect()
    }

    pub fn all(&self) -> impl Iterator<Item = &Watch<Door>> {
        self.doors.iter().flatten()
    }

    pub fn outlets(&self) -> impl Iterator<Item = &Watch<Outlet>> {
        self.outlets.iter().flatten()
    }

    pub fn is_empty(&self) -> bool {
        self.all().next().is_none() && self.outlets().next().is_none()
    }

    /// Looks at the files of each place whose time has come, or of all that have files.
    pub fn reload(&self, now: Instant, all: bool) {
        for door in self.all().filter(|door| all || door.is_due(now)) {
            door.reload(now);
        }
        for outlet in self.outlets().filter(|outlet| all || outlet.is_due(now)) {
            outlet.reload(now);
        }
    }

    /// Warns of what will not be valid for long, of lists that are late, and of what is not
    /// verified.
    pub fn warn(&self, now: Instant, wall: SystemTime) {
        self.all().for_each(|door| door.warn(now, wall));
        self.outlets().for_each(|outlet| outlet.warn(now, wall));
    }
}

fn unusable(whose: &str, place: &str, why: &str) -> String {
    format!(
        "{whose}: the TLS of {place} can't be used: {why}\n  cost: forebay does not start\n  hint: \
         `forebay validate` says where it is set"
    )
}
