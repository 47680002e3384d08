//! A service as those see it that call it: who is there, who is well, and one call to any of them.
//!
//! This is the file to copy. An [`Upstream`] is what the callers of one process share: the set of
//! endpoints with a breaker each, and the retry budget. A [`Caller`] is what one thread has for
//! itself: a dispatcher, which picks an endpoint for each try and says what follows.
//!
//! Always: a call ends; with an answer, or when the policy gives up. No lock is held and no cell
//! is borrowed while anything is waited for. All times are of one clock, the runtime's.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use forebay_exporters::balance::{Balancer, Strategy};
use forebay_exporters::breaker;
use forebay_exporters::budget::RetryBudget;
use forebay_exporters::discovery::{Discovery, Event, Watcher, file::File};
use forebay_exporters::dispatch::{After, Delivery, Dispatcher, Step};
use forebay_exporters::endpoints::{Endpoints, Member, Options};
use forebay_exporters::verdict::{FailureKind, Verdict, again};
use http::StatusCode;
use tokio::time::error::Elapsed;

use crate::account::Account;
use crate::network::Network;
use crate::policy::{Hop, Policy};
use crate::wire::Wire;

/// See the file's head.
pub(crate) struct Upstream {
    hop: Hop,
    policy: Policy,
    endpoints: Arc<Endpoints>,
    budget: Arc<RetryBudget>,
    seed: Cell<u64>,
    account: Rc<Account>,
    network: Network,
}

/// See the file's head.
pub(crate) struct Caller {
    upstream: Rc<Upstream>,
    /// For one thread: its calls take turns, and none of them keeps it while it waits.
    dispatcher: RefCell<Dispatcher>,
    wire: Wire,
}

/// No replica has answered well, and the policy gave up.
#[derive(Debug)]
pub(crate) struct GivenUp;

impl Upstream {
    /// Follows the list in `file`, and returns once there is somebody in it.
    pub(crate) async fn find(
        hop: Hop,
        file: PathBuf,
        policy: &Policy,
        seed: u64,
        account: &Rc<Account>,
        network: &Network,
    ) -> Rc<Upstream> {
        let epoch = now();
        let breaker = breaker::Settings { slow_call_duration: hop.slow, ..policy.breaker };
        let options = Options { breaker, ..Options::default() };
        let upstream = Rc::new(Upstream {
            hop,
            policy: policy.clone(),
            endpoints: Endpoints::new(options, epoch),
            budget: Arc::new(RetryBudget::new(policy.budget, epoch)),
            seed: Cell::new(seed),
            account: Rc::clone(account),
            network: network.clone(),
        });
        let mut watcher = Watcher::new(Discovery::File(File::at(file)));
        while upstream.endpoints.snapshot().endpoints().is_empty() {
            upstream.heard(watcher.next().await);
        }
        let follower = Rc::clone(&upstream);
        tokio::task::spawn_local(async move {
            loop {
                follower.heard(watcher.next().await);
            }
        });
        upstream
    }

    /// For one thread. Each has random numbers of its own.
    pub(crate) fn caller(self: &Rc<Upstream>) -> Caller {
        self.seed.set(self.seed.get() + 1);
        let mut rng = fastrand::Rng::with_seed(self.seed.get());
        let balancer = Balancer::new(Strategy::RoundRobin, self.policy.bound, rng.fork());
        let (reader, budget) = (self.endpoints.reader(), Arc::clone(&self.budget));
        let dispatcher = Dispatcher::new(reader, balancer, budget, self.policy.retry.clone(), rng);
        let (upstream, dispatcher) = (Rc::clone(self), RefCell::new(dispatcher));
        Caller { upstream, dispatcher, wire: Wire::new(&self.network) }
    }

    /// Where the breaker of one replica stands, for a page of one's own.
    pub(crate) fn state_of(&self, replica: &str) -> String {
        let all = self.endpoints.status(now());
        let mut members = all.iter().filter(|status| !status.is_draining);
        let found = members.find(|status| self.account.name_of(&status.address) == replica);
        found.map_or("gone", |status| status.state.name()).to_owned()
    }

    /// Retries that the budget would pay for now.
    pub(crate) fn tokens(&self) -> u64 {
        self.budget.tokens(now())
    }

    fn heard(&self, event: Event) {
        match event {
            Event::Changed(update) => {
                let found = update.endpoints.iter();
                let members: Vec<Member> = found
                    .map(|found| Member {
                        address: found.address().to_owned(),
                        weight: found.weight,
                    })
                    .collect();
                let change = self.endpoints.apply(now(), &members);
                let (count, joined, left) = (members.len(), change.joined, change.left);
                self.tell(&format!("{count} endpoints: {joined} joined, {left} left"));
            }
            Event::Trouble(trouble) => self.tell(&trouble.to_string()),
            Event::Recovered(recovered) => self.tell(&recovered.to_string()),
        }
    }

    /// The breaker's own words, and whose they are.
    fn changed(&self, address: &str, transition: Option<breaker::Transition>) {
        if let Some(transition) = transition {
            let name = self.account.name_of(address);
            self.tell(&format!("{name} ({address}): {transition}"));
            self.account.changed(&name, transition);
        }
    }

    fn tell(&self, what: &str) {
        self.account.tell(&format!("{}: {what}", self.hop.name));
    }
}

impl Caller {
    /// One call to whoever is well, tried again as the policy allows.
    pub(crate) async fn call(&self, path: &str) -> Result<(), GivenUp> {
        let upstream = &*self.upstream;
        let mut delivery = Delivery::default();
        loop {
            let step = self.dispatcher.borrow_mut().next(&mut delivery, now());
            let call = match step {
                Step::Call(call) => call,
                // Every breaker refuses, or the budget does not pay for another try just now.
                Step::Wait { wait, .. } => {
                    tokio::time::sleep(wait).await;
                    continue;
                }
                Step::GiveUp => return Err(GivenUp),
            };
            let address = call.endpoint().address().to_owned();
            // Admitting the call may have been what made its breaker half-open.
            upstream.changed(&address, call.transition());
            upstream.account.tried(upstream.hop.name, &address, delivery.calls() > 1);

            // A call that is dropped here, because whoever wanted it has gone, was not made: its
            // endpoint is not blamed, and a probe is free for the next.
            let answer = tokio::time::timeout(upstream.hop.timeout, self.wire.get(&address, path));
            let verdict = verdict_of(answer.await);

            let now = now();
            let (after, transition) =
                self.dispatcher.borrow_mut().ended(&mut delivery, call, now, &verdict);
            upstream.changed(&address, transition);
            match after {
                After::Delivered => return Ok(()),
                After::Elsewhere => {}
                After::Wait(wait) => tokio::time::sleep(wait).await,
                After::GiveUp | After::Shrink | After::Drop => return Err(GivenUp),
            }
        }
    }
}

/// tokio's clock: the machine's, unless whoever plays has stopped it, as this demo does.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What an answer says about the endpoint and about the call.
fn verdict_of(answer: Result<Result<StatusCode, String>, Elapsed>) -> Verdict {
    match answer {
        Ok(Ok(status)) if status.is_success() => {
            Verdict::Delivered { rejected: 0, warning: String::new() }
        }
        Ok(Ok(status)) => again(FailureKind::Unavailable, format!("answered {status}")),
        Ok(Err(why)) => again(FailureKind::Connect, why),
        Err(_) => again(FailureKind::Timeout, "no answer in time"),
    }
}
