//! A list that was written into the configuration and never changes.

use super::endpoint::{BadAddress, Endpoint};
use super::source::{Again, Answer, Look, Source};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Static {
    pub endpoints: Vec<Endpoint>,
}

impl Static {
    /// From `host:port` each; `port_default` is for those that name none.
    pub fn of<'a>(
        addresses: impl IntoIterator<Item = &'a str>,
        port_default: Option<u16>,
    ) -> Result<Static, BadAddress> {
        let parsed = addresses.into_iter().map(|address| Endpoint::parse(address, port_default));
        Ok(Static { endpoints: parsed.collect::<Result<_, _>>()? })
    }
}

pub(super) struct StaticSource {
    list: Static,
}

impl StaticSource {
    pub(super) fn new(list: Static) -> StaticSource {
        StaticSource { list }
    }
}

impl Source for StaticSource {
    fn name(&self) -> String {
        format!("static list of {}", self.list.endpoints.len())
    }

    fn look(&mut self) -> Look<'_> {
        let endpoints = self.list.endpoints.clone();
        let answer = Answer { endpoints, again: Again::Never, notes: Vec::new() };
        Box::pin(std::future::ready(Ok(answer)))
    }
}
