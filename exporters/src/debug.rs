//! `debug`: what came in, shown to a person, sampled.
//!
//! Never keeps a batch for another try: one that is not shown, or that cannot be written, counts
//! as delivered all the same, since nobody keeps data on a terminal. Writes on a thread of its own,
//! so that a terminal or pipe that takes nothing holds up this destination alone. One account is
//! one write, so that accounts of several cores do not mix.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_codec::signal::Signal;

use crate::destination::{Debug as Settings, Verbosity};
use crate::encode::json_of;
use crate::scribe::{self, Page, Scribe};
use crate::transport::{Request, delivered};
use crate::verdict::Verdict;

mod metrics;
mod text;
mod view;

use text::Style;

const SAMPLING_WINDOW: Duration = Duration::from_secs(1);

/// Prints accounts of batches.
pub struct Printer {
    settings: Settings,
    out: Box<dyn Write + Send>,
    style: Style,
    window_began: Option<Instant>,
    /// Batches since then, shown or not.
    in_window: u32,
    /// Batches left out since the last one shown.
    left_out: u64,
}

/// A printer on standard error, in colour if that is a terminal.
pub fn on_stderr(settings: Settings) -> Printer {
    let mut printer = Printer::new(settings, Box::new(io::stderr()));
    printer.style = Style { colours: io::stderr().is_terminal() };
    printer
}

/// A printer and its thread.
pub(crate) struct Terminal(Scribe<Printer>);

impl Terminal {
    pub(crate) fn new(printer: Printer) -> Terminal {
        Terminal(Scribe::new("debug", Arc::new(Mutex::new(printer))))
    }

    pub(crate) async fn print(&self, request: &Request<'_>) -> Verdict {
        // See the file's header: a terminal that fails is no reason to keep data.
        let _ = self.0.write(request).await;
        delivered()
    }
}

impl scribe::Write for Printer {
    fn write(&mut self, page: &Page) -> Result<u64, Verdict> {
        // A closed terminal is as good as one that nobody looks at.
        let _ = self.show(page.signal, page.items, &page.chain, Instant::now());
        Ok(0)
    }
}

impl Printer {
    /// A printer without colours.
    pub fn new(settings: Settings, out: Box<dyn Write + Send>) -> Printer {
        Printer {
            settings,
            out,
            style: Style { colours: false },
            window_began: None,
            in_window: 0,
            left_out: 0,
        }
    }

    /// Shows one request, given as a chain of bytes, if its turn in the sampling has come.
    ///
    /// # Errors
    /// The output could not be written.
    pub fn show(
        &mut self,
        signal: Signal,
        items: u64,
        chain: &[Bytes],
        now: Instant,
    ) -> io::Result<()> {
        if !self.is_sampled(now) {
            self.left_out += 1;
            return Ok(());
        }
        let mut account = String::new();
        if self.left_out > 0 {
            let left_out = std::mem::take(&mut self.left_out);
            let note = format!("({left_out} batches not shown: `sampling_thereafter`)\n");
            account.push_str(&self.style.dim(&note));
        }
        self.account(signal, items, chain, &mut account);
        self.out.write_all(account.as_bytes())?;
        self.out.flush()
    }

    fn account(&self, signal: Signal, items: u64, chain: &[Bytes], account: &mut String) {
        let mut json = Vec::new();
        let request = json_of(signal, chain, &mut json)
            .and_then(|()| serde_json::from_slice(&json).map_err(|error| error.to_string()));
        let request: serde_json::Value = match request {
            Ok(request) => request,
            Err(why) => {
                let heading = self.style.bold(signal.name());
                account
                    .push_str(&format!("{heading}: {items} items that cannot be shown: {why}\n"));
                return;
            }
        };
        match self.settings.verbosity {
            Verbosity::Basic => view::basic(signal, items, &request, self.style, account),
            Verbosity::Normal => view::normal(signal, items, &request, self.style, account),
            Verbosity::Detailed => view::detailed(signal, items, &request, self.style, account),
        }
    }

    /// The first batches of each second, then every n-th.
    fn is_sampled(&mut self, now: Instant) -> bool {
        let is_over = |began| now.saturating_duration_since(began) >= SAMPLING_WINDOW;
        if self.window_began.is_none_or(is_over) {
            self.window_began = Some(now);
            self.in_window = 0;
        }
        self.in_window = self.in_window.saturating_add(1);
        let after = self.in_window.saturating_sub(self.settings.sampling_initial);
        let every = self.settings.sampling_thereafter;
        after == 0 || (every > 0 && after.is_multiple_of(every))
    }
}

#[cfg(test)]
mod tests;
