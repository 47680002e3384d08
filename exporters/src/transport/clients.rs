//! A client for each endpoint, made when it is first called.
//!
//! Always: a client is held by this map and by the calls under way; forgotten here, it ends with
//! the last of them. At the latest at the next look there are no more clients than endpoints.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::checkup::Finding;
use crate::endpoints::{Endpoint, Snapshot};

/// A client that is looked after between calls.
pub(crate) trait Tended {
    /// Make a connection now, and again whenever it ends; or only when a call needs one.
    fn keep_warm(&self, is_warm: bool);

    /// Asks the endpoint how it is by the gRPC health protocol. Bounded in time by the caller.
    fn ask_health(&self, service: &str) -> impl Future<Output = Finding>;
}

/// A client for an address.
type Make<C> = dyn Fn(&str) -> Rc<C>;

pub(crate) struct Clients<C> {
    make: Box<Make<C>>,
    /// By [`Endpoint::id`], and by signal where each has a host of its own.
    made: RefCell<HashMap<(u64, usize), Rc<C>>>,
    /// Whether one was made since the last look.
    has_grown: Cell<bool>,
    /// As of the last look.
    generation: Cell<u64>,
}

impl<C> Clients<C> {
    pub(crate) fn new(make: impl Fn(&str) -> Rc<C> + 'static) -> Rc<Clients<C>> {
        Rc::new(Clients {
            make: Box::new(make),
            made: RefCell::default(),
            has_grown: Cell::new(false),
            generation: Cell::new(0),
        })
    }

    pub(crate) fn of(&self, endpoint: &Endpoint) -> Rc<C> {
        self.of_host(endpoint, 0, endpoint.address())
    }

    /// The client for a host that is not the endpoint's own, at `index`.
    pub(crate) fn of_host(&self, endpoint: &Endpoint, index: usize, address: &str) -> Rc<C> {
        let mut made = self.made.borrow_mut();
        let client = made.entry((endpoint.id(), index)).or_insert_with(|| {
            self.has_grown.set(true);
            (self.make)(address)
        });
        Rc::clone(client)
    }

    pub(crate) fn all(&self) -> Vec<Rc<C>> {
        self.made.borrow().values().map(Rc::clone).collect()
    }

    /// Forgets the clients of endpoints that are not in the set.
    pub(crate) fn follow(&self, snapshot: &Snapshot) {
        let has_changed = self.generation.replace(snapshot.generation()) != snapshot.generation();
        // A call that was admitted before its endpoint left may have made a client after that.
        let has_grown = self.has_grown.take();
        if !has_changed && !has_grown {
            return;
        }
        let ids: HashSet<u64> = snapshot.endpoints().iter().map(|endpoint| endpoint.id()).collect();
        self.made.borrow_mut().retain(|(id, _), _| ids.contains(id));
    }
}
