//! What was sent, by the attribute `interop.id`, and what was not acknowledged, in words.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Cheap to clone; all clones write to the same ledger.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    content: Arc<Mutex<Content>>,
}

#[derive(Debug, Default)]
struct Content {
    ids: BTreeMap<&'static str, Vec<String>>,
    failures: Vec<String>,
}

impl Ledger {
    /// A new id, which from now on must arrive.
    pub fn take(&self, signal: &'static str) -> String {
        let mut content = self.content.lock().expect("no thread panics while it holds this");
        let ids = content.ids.entry(signal).or_default();
        let id = format!("rust-{signal}-{}", ids.len());
        ids.push(id.clone());
        id
    }

    pub fn failed(&self, what: String) {
        let mut content = self.content.lock().expect("no thread panics while it holds this");
        content.failures.push(what);
    }

    pub fn write(&self, path: &str) {
        let content = self.content.lock().expect("no thread panics while it holds this");
        let json = serde_json::json!({
            "sender": "rust-sdk",
            "ids": content.ids,
            "failures": content.failures,
        });
        std::fs::write(path, json.to_string()).expect("the ledger's folder is there");
    }
}
