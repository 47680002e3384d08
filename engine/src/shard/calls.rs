//! The calls beside OTLP: what happens on them goes to the services, what those say to the server.

use forebay_net::request::{Nanos, Request, RequestId};
use forebay_net::ring::Ring;

use super::Shard;
use crate::services::Saying;
use crate::services::health::Serving;

impl<R: Ring> Shard<R> {
    pub(super) fn serve(&mut self, request: &Request, now: Nanos) {
        self.ingest.budget.give_back(request.reserved);
        let serving = self.serving(now);
        for saying in self.ingest.services.take(request, serving) {
            self.say(request.id, saying, now);
        }
    }

    /// Whoever watches hears of changes.
    pub(super) fn tell_watches(&mut self, now: Nanos) {
        if !self.ingest.services.has_watches() {
            return;
        }
        let serving = self.serving(now);
        for (id, saying) in self.ingest.services.changes(serving) {
            self.say(id, saying, now);
        }
    }

    fn serving(&self, now: Nanos) -> Serving {
        Serving::of(&self.peers, self.ingest.draining, now)
    }

    fn say(&mut self, id: RequestId, saying: Saying, now: Nanos) {
        match saying {
            Saying::End(answer) => {
                self.server.answer(id, answer, now, &mut self.ingest, &mut self.requests);
            }
            Saying::Message(message) => {
                self.server.say(id, message, now, &mut self.ingest, &mut self.requests);
            }
        }
    }
}
