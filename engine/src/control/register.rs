//! This process in a registry, so that others find it: entered when it is ready, kept alive with
//! the health that `health_check` shows, taken out before anything is refused at the end.

use std::sync::Arc;
use std::time::Duration;

use forebay_exporters::discovery::registrar::{Health, News, Registrar, Registration, State};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{View, health};

/// How often the health is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// For taking the entry out: of the time for draining, no more than this.
const PATIENCE: Duration = Duration::from_secs(1);

/// An entry that is kept alive. Dropped, it dies with its TTL.
pub struct Registered {
    leave: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// `None`: the configuration names no registry.
pub fn start(view: &Arc<View>) -> Option<Registered> {
    let registration = view.tls.registration(view.plan.engine.registration.clone()?);
    let (leave, told) = oneshot::channel();
    let task = tokio::spawn(keep(registration, view.clone(), told));
    Some(Registered { leave, task })
}

impl Registered {
    /// Ends soon, whatever the registry does.
    pub async fn leave(self) {
        drop(self.leave);
        // Its only other end is a panic, and that has said its own text.
        let _ = self.task.await;
    }
}

async fn keep(registration: Registration, view: Arc<View>, mut leave: oneshot::Receiver<()>) {
    let mut registrar = Registrar::new(registration, shown(&view));
    loop {
        tokio::select! {
            _ = &mut leave => break,
            news = registrar.next() => tell(&news),
            () = tokio::time::sleep(LOOK) => registrar.set_health(shown(&view)),
        }
    }
    match registrar.leave(PATIENCE).await {
        Ok(()) => tracing::info!("Taken out of the registry."),
        Err(failure) => {
            let (error, hint) = (failure.what.as_str(), failure.advice);
            let cost = "others may try this process until then";
            tracing::warn!(error, cost, hint, "The registry's entry could not be taken out.");
        }
    }
}

fn shown(view: &View) -> Health {
    match health::health(view) {
        Ok(()) => Health { state: State::Passing, note: "takes telemetry".to_owned() },
        Err(note) => Health { state: State::Critical, note },
    }
}

fn tell(news: &News) {
    match news {
        News::Registered { registry } => {
            tracing::info!(registry, "Entered into the registry.");
        }
        News::Trouble(trouble) => {
            let (registry, error) = (trouble.source.as_str(), trouble.what.as_str());
            let (cost, hint) = (trouble.cost.to_string(), trouble.advice);
            tracing::warn!(registry, error, cost, hint, "The registry can't be told.");
        }
        News::Recovered(recovered) => {
            let (registry, after_seconds) = (recovered.source.as_str(), recovered.after.as_secs());
            tracing::info!(registry, after_seconds, "The registry takes signs of life again.");
        }
    }
}
