//! The TLS of receivers, destinations and registries, as the control plane keeps it: files in,
//! terms for new connections out.
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
mod looks;
mod outlet;
mod store;
mod watch;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use forebay_exporters::discovery::Discovery;
use forebay_exporters::discovery::registrar::Registration;
use forebay_net::request::Nanos;
use forebay_net::tls::Acceptor;
use forebay_net::tls::outward::{self, Initiator};
use forebay_net::tls::settings::{Terms, tickets};

pub use self::door::Door;
use self::looks::Place;
pub use self::looks::keep;
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

/// Where TLS is spoken: at listeners, towards destinations, and towards registries.
#[derive(Default)]
pub struct Doors {
    /// By listener.
    doors: Vec<Option<Arc<Watch<Door>>>>,
    /// By destination.
    outlets: Vec<Option<Arc<Watch<Outlet>>>>,
    /// By destination: to the server that knows its endpoints.
    sources: Vec<Option<Arc<Watch<Outlet>>>>,
    /// To where this process makes itself known.
    registration: Option<Arc<Watch<Outlet>>>,
}

impl Doors {
    /// # Errors
    /// A whole message: files may have changed since the configuration was read.
    pub fn open(plan: &Plan) -> Result<Doors, String> {
        let timeout = plan.engine.limits.handshake_timeout.as_nanos() as Nanos;
        let door = |listener: &Listener| {
            let opened = listener.tls.as_ref().map(|tls| Door::open(listener, tls, timeout));
            let whose = || format!("receiver {}", listener.receiver_name);
            let opened = opened.map(|opened| opened.map(Arc::new));
            opened.transpose().map_err(|why| unusable(&whose(), &listener.endpoint, &why))
        };
        let named = |place: fn(&str) -> outlet::Place| {
            let places = plan.destinations.iter().map(move |to| place(&to.name));
            move |tls: &[Option<TlsOut>]| {
                let outlets = places.zip(tls).map(|(place, tls)| outlet(place, tls.as_ref()));
                outlets.collect::<Result<_, _>>()
            }
        };
        Ok(Doors {
            doors: plan.listeners.iter().map(door).collect::<Result<_, _>>()?,
            outlets: named(outlet::Place::destination)(&plan.tls_out)?,
            sources: named(outlet::Place::source)(&plan.source_tls)?,
            registration: {
                let tls = plan.engine.registration_tls.as_ref();
                outlet(outlet::Place::registration(), tls)?
            },
        })
    }

    /// By listener: what a receiver core needs of each.
    pub fn acceptors(&self) -> Vec<Option<Arc<Acceptor>>> {
        let acceptor = |door: &Arc<Watch<Door>>| door.site.acceptor.clone();
        self.doors.iter().map(|door| door.as_ref().map(acceptor)).collect()
    }

    /// By destination: what an exporter core needs of each.
    pub fn initiators(&self) -> Vec<Option<Arc<Initiator>>> {
        self.outlets.iter().map(initiator).collect()
    }

    /// The destination's discovery, reached as its configuration says.
    pub fn discovery(&self, destination: usize, discovery: Discovery) -> Discovery {
        match self.sources.get(destination).and_then(initiator) {
            Some(initiator) => discovery.secured(&initiator),
            None => discovery,
        }
    }

    /// The registration, told as its configuration says.
    pub fn registration(&self, registration: Registration) -> Registration {
        match initiator(&self.registration) {
            Some(initiator) => registration.secured(&initiator),
            None => registration,
        }
    }

    pub fn all(&self) -> impl Iterator<Item = &Watch<Door>> {
        self.doors.iter().flatten().map(Arc::as_ref)
    }

    /// Towards destinations.
    pub fn outlets(&self) -> impl Iterator<Item = &Watch<Outlet>> {
        self.outlets.iter().flatten().map(Arc::as_ref)
    }

    /// Warns of what will not be valid for long, of lists that are late, and of what is not
    /// verified.
    pub fn warn(&self, now: Instant, wall: SystemTime) {
        self.places().iter().for_each(|place| place.warn(now, wall));
    }

    fn places(&self) -> Vec<Arc<dyn Place>> {
        let outlets = self.outlets.iter().chain(&self.sources).flatten().chain(&self.registration);
        let outlets = outlets.map(|outlet| Arc::clone(outlet) as Arc<dyn Place>);
        let doors = self.doors.iter().flatten().map(|door| Arc::clone(door) as Arc<dyn Place>);
        doors.chain(outlets).collect()
    }
}

fn outlet(
    place: outlet::Place,
    tls: Option<&TlsOut>,
) -> Result<Option<Arc<Watch<Outlet>>>, String> {
    let Some(tls) = tls else {
        return Ok(None);
    };
    let (whose, peer) = (place.whose(), place.peer());
    let opened = Outlet::open(place, tls).map_err(|why| unusable(&whose, peer, &why))?;
    Ok(Some(Arc::new(opened)))
}

fn initiator(outlet: &Option<Arc<Watch<Outlet>>>) -> Option<Arc<Initiator>> {
    outlet.as_ref().map(|outlet| outlet.site.initiator.clone())
}

fn unusable(whose: &str, place: &str, why: &str) -> String {
    format!(
        "{whose}: the TLS of {place} can't be used: {why}\n  cost: forebay does not start\n  hint: \
         `forebay validate` says where it is set"
    )
}
