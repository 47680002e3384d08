//! Looks after one destination's connections and endpoints between calls, on one exporter core.
//!
//! Every [`LOOK_INTERVAL`]: clients of endpoints that left are forgotten, first connections are
//! kept warm, and on one core of the process the checks that are due are begun. Never sends a
//! batch. Always: nothing is connected for the sake of warmth to an endpoint whose breaker is not
//! closed, nor to any of a large fleet.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_net::dial::{Target, dial};
use forebay_net::glommio_io::{sleep, spawn};
use forebay_net::tls::outward::Initiator;
use futures_lite::future::or;

use super::clients::{Clients, Tended};
use crate::breaker::Transition;
use crate::checkup::{Checkup, Due, Finding};
use crate::cluster::Cluster;
use crate::core::Seat;
use crate::destination::Probe;
use crate::endpoints::Snapshot;
use crate::journal::Journal;
use crate::verdict::FailureKind;

const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Of a larger fleet no connection is kept warm.
const WARM_ENDPOINTS_MAX: usize = 16;

/// Ends soon after the clients are gone.
pub(super) fn tend<C: Tended + 'static>(
    clients: Weak<Clients<C>>,
    seat: &Seat,
    journal: &Rc<Journal>,
) -> impl Future<Output = ()> + 'static {
    let (cluster, initiator) = (&seat.cluster, &seat.initiator);
    let mut reader = cluster.endpoints().reader();
    let settings = &cluster.backends().health_check;
    let is_checker = settings.probe != Probe::Off && cluster.claim_checks();
    let checker = is_checker.then(|| {
        let checkup = RefCell::new(Checkup::new(settings.clone(), fastrand::Rng::new()));
        let (cluster, journal) = (Arc::clone(cluster), Rc::clone(journal));
        let initiator = initiator.clone();
        Rc::new(Checker { checkup, timeout: settings.timeout, cluster, journal, initiator })
    });
    let keeps_warm = cluster.backends().pool.warm;
    async move {
        while let Some(clients) = clients.upgrade() {
            let snapshot = reader.snapshot();
            clients.follow(snapshot);
            if keeps_warm {
                keep_warm(&clients, snapshot);
            }
            if let Some(checker) = &checker {
                checker.look(&clients, snapshot);
            }
            drop(clients);
            sleep(LOOK_INTERVAL).await;
        }
    }
}

fn keep_warm<C: Tended>(clients: &Clients<C>, snapshot: &Snapshot) {
    if snapshot.endpoints().len() > WARM_ENDPOINTS_MAX {
        clients.all().iter().for_each(|client| client.keep_warm(false));
        return;
    }
    for endpoint in snapshot.endpoints() {
        clients.of(endpoint).keep_warm(endpoint.breaker.is_closed());
    }
}

/// Makes the checks.
struct Checker {
    checkup: RefCell<Checkup>,
    timeout: Duration,
    cluster: Arc<Cluster>,
    journal: Rc<Journal>,
    initiator: Option<Arc<Initiator>>,
}

impl Checker {
    fn look<C: Tended + 'static>(self: &Rc<Self>, clients: &Rc<Clients<C>>, snapshot: &Snapshot) {
        let due = self.checkup.borrow_mut().due(Instant::now(), snapshot);
        for due in due {
            let client = matches!(due.probe, Probe::Grpc(_)).then(|| {
                let endpoint = due.call.endpoint();
                clients.of(endpoint)
            });
            spawn(Rc::clone(self).check(client, due));
        }
    }

    async fn check<C: Tended>(self: Rc<Self>, client: Option<Rc<C>>, due: Due) {
        let Due { call, probe } = due;
        let address: Arc<str> = call.endpoint().address().into();
        self.tell(&address, call.transition());
        let timeout = self.timeout;
        let asking = async {
            match (&probe, client) {
                (Probe::Grpc(service), Some(client)) => client.ask_health(service).await,
                _ => self.connect(&address).await,
            }
        };
        let finding = or(asking, async {
            sleep(timeout).await;
            Finding::trouble(FailureKind::Timeout, format!("no answer within {timeout:?}"))
        });
        let finding = finding.await;
        if let Finding::Trouble(trouble) = &finding
            && trouble.kind == FailureKind::Tls
        {
            self.journal.distrusts(Instant::now(), &address, &trouble.why);
        }
        let transition = self.checkup.borrow_mut().ended(Instant::now(), call, finding);
        self.tell(&address, transition);
    }

    fn tell(&self, address: &str, transition: Option<Transition>) {
        if let Some(transition) = transition {
            let fleet = self.cluster.endpoints().fleet();
            let taking = (fleet.closed(), fleet.members());
            self.journal.transition(Instant::now(), address, &transition, taking);
        }
    }

    async fn connect(&self, address: &str) -> Finding {
        let Some(target) = Target::parse(address) else {
            return Finding::trouble(FailureKind::Internal, "the address names no host and port");
        };
        let security = self.initiator.as_ref().map(|initiator| initiator.security());
        match dial(&target, 0, self.timeout, security.as_deref()).await {
            Ok(_) => Finding::Connected,
            Err(error) => {
                let kind = FailureKind::of_line(&error, FailureKind::Connect);
                Finding::trouble(kind, format!("no connection: {error}"))
            }
        }
    }
}
