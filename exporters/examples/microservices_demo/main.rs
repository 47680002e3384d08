//! Three small services that call each other through this crate while one replica misbehaves.
//!
//! ```text
//! load -> checkout (3 replicas) -> payments (3 replicas) -> ledger (3 replicas)
//! ```
//!
//! `payments-2` is slow, then answers 503, then hangs, then is gone from discovery, then returns.
//! The same is lived through three times at once: with breakers, bound and retry budget; with
//! retries alone; with one try. What happens in the first is told as it happens, and a table at
//! the end says what it would have cost in the others.
//!
//! Begin to read at [`upstream`]: it is all that a program needs to call a fleet. [`policy`] has
//! the settings. The rest is the stage: `schedule`, `replica`, `network`, `wire`, `account`,
//! `table`.
//!
//! `cargo run --example microservices_demo -p forebay-exporters`. The services, their HTTP and the
//! watched lists are real; the clock is the story's own, which goes on to the next thing that is
//! due as soon as all else is done, and the connections are pipes in memory. So 20 seconds are told
//! in a few, however busy the machine is, and `SEED=` repeats a story to the letter. Exits with 1
//! if a promise does not hold.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{JoinSet, LocalSet};

use account::{Account, Story};
use network::Network;
use policy::{Hop, Policy};
use replica::Replica;
use schedule::{Behaviour, CULPRIT};
use upstream::{Upstream, now};

mod account;
mod network;
mod policy;
mod replica;
mod schedule;
mod table;
mod upstream;
mod wire;

/// From one call of the load to the next: a hundred a second.
const PERIOD: Duration = Duration::from_millis(10);
/// For what is under way when the schedule is over.
const PATIENCE: Duration = Duration::from_secs(6);

fn main() -> ExitCode {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..100_000));
    println!("SEED={seed}\n{}", table::PROLOGUE);
    let policies = [policy::whole(), policy::retries_alone(), policy::one_try()];
    let worlds = policies.map(|policy| std::thread::spawn(move || world(policy, seed)));
    let stories: Result<Vec<Story>, String> = worlds
        .into_iter()
        .map(|world| world.join().map_err(|_| "a world has panicked".to_owned())?)
        .collect();
    let stories = match stories {
        Ok(stories) => stories,
        Err(why) => {
            eprintln!("the demo could not be played: {why}");
            return ExitCode::FAILURE;
        }
    };
    println!("\n{}", table::comparison(&stories));
    let (promises, all_hold) = table::promises(&stories);
    println!("{promises}");
    if all_hold { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// All three services and their load on one thread, from the first call to the last.
fn world(policy: Policy, seed: u64) -> Result<Story, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let life = LocalSet::new().block_on(&runtime, live(policy, seed));
    life.map_err(|error| error.to_string())
}

async fn live(policy: Policy, seed: u64) -> Result<Story, Box<dyn Error>> {
    let folder = Folder::new(policy.name)?;
    let account = Rc::new(Account::new(&policy));
    let network = Network::default();

    // From the inside out, because each service looks for the one that it calls.
    let ledger = Replica::start("ledger", 9_300, &network, None);
    folder.list("ledger", &ledger)?;
    let hop = Hop { name: "payments -> ledger", ..policy::INNER };
    let to_ledger =
        Upstream::find(hop, folder.of("ledger"), &policy, seed, &account, &network).await;

    let payments = Replica::start("payments", 9_200, &network, Some(&to_ledger));
    folder.list("payments", &payments)?;
    let hop = Hop { name: "checkout -> payments", ..policy::MIDDLE };
    let to_payments =
        Upstream::find(hop, folder.of("payments"), &policy, seed, &account, &network).await;

    let checkout = Replica::start("checkout", 9_100, &network, Some(&to_payments));
    folder.list("checkout", &checkout)?;
    let hop = Hop { name: "load -> checkout", ..policy::OUTER };
    let to_checkout =
        Upstream::find(hop, folder.of("checkout"), &policy, seed, &account, &network).await;

    for replica in ledger.iter().chain(&payments).chain(&checkout) {
        account.names(&replica.address, &replica.name);
    }
    let lines = tokio::task::spawn_local(lines(Rc::clone(&account), Rc::clone(&to_payments)));
    let direction = direct(&payments, &folder, &account);
    let (directed, ()) = tokio::join!(direction, load(&to_checkout, &account));
    lines.abort();
    directed?;
    Ok(account.take_story())
}

/// Lets the culprit behave as the schedule says.
async fn direct(
    payments: &[Replica],
    folder: &Folder,
    account: &Account,
) -> Result<(), Box<dyn Error>> {
    for (phase, _, ends) in schedule::spans() {
        account.tell(&format!("--- {CULPRIT} {}", phase.title));
        let behaviour = phase.behaviour;
        for replica in payments.iter().filter(|replica| replica.name == CULPRIT) {
            replica.behaviour.set(behaviour);
        }
        let is_named = |name: &str| behaviour != Behaviour::Gone || name != CULPRIT;
        folder.list("payments", payments.iter().filter(|replica| is_named(&replica.name)))?;
        tokio::time::sleep_until((account.epoch() + ends).into()).await;
    }
    Ok(())
}

/// Calls `checkout` at an even pace until the schedule is over, and waits for the last answers.
async fn load(checkout: &Rc<Upstream>, account: &Rc<Account>) {
    let client = Rc::new(checkout.caller());
    let mut ticks = tokio::time::interval(PERIOD);
    let mut calls = JoinSet::new();
    let ends = account.epoch() + schedule::length();
    while now() < ends {
        ticks.tick().await;
        let (client, account) = (Rc::clone(&client), Rc::clone(account));
        account.begun();
        calls.spawn_local(async move {
            let began = now();
            let is_ok = client.call("/buy").await.is_ok();
            account.ended(began, is_ok);
        });
    }
    let all = async { while calls.join_next().await.is_some() {} };
    // Who has not ended by then is missed in the account, and a promise is broken.
    let _ = tokio::time::timeout(PATIENCE, all).await;
}

/// A line a second on what the load saw and what `payments` was asked for.
async fn lines(account: Rc<Account>, payments: Rc<Upstream>) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.tick().await;
    loop {
        seconds.tick().await;
        account.line(&payments.state_of(CULPRIT), payments.tokens());
    }
}

/// Where the three lists of addresses are; removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(world: &str) -> std::io::Result<Folder> {
        let name = format!("microservices-demo-{}-{world}", std::process::id());
        let folder = std::env::temp_dir().join(name.replace(' ', "-"));
        std::fs::create_dir_all(&folder)?;
        Ok(Folder(folder))
    }

    fn of(&self, service: &str) -> PathBuf {
        self.0.join(service)
    }

    /// Written beside and renamed into place, so that no reader sees half of it.
    fn list<'r>(
        &self,
        service: &str,
        replicas: impl IntoIterator<Item = &'r Replica>,
    ) -> std::io::Result<()> {
        let line = |replica: &Replica| format!("{}  # {}\n", replica.address, replica.name);
        let text: String = replicas.into_iter().map(line).collect();
        let beside = self.0.join(format!("{service}.new"));
        std::fs::write(&beside, text)?;
        std::fs::rename(beside, self.of(service))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in a folder for temporary files does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
