//! A list in a file, read again whenever it may have changed.
//!
//! The folder that the path names is watched, and the one that the file really lies in: editors
//! rename a new file into place, and a Kubernetes ConfigMap swaps a link beside the file. Any event
//! there leads to a read; what does not change the set goes no further. Where nothing can be
//! watched, and beside the watch, the file is read at intervals.
//!
//! Never blocks the runtime: files are touched on its threads for blocking work. Always: at most
//! [`FILE_BYTES_MAX`] of a file are read, and only of a regular file.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::watch::{Eye, Watch};
use super::keeper::Pace;
use super::source::{Again, Answer, Failure, Look, Source};

mod format;
mod watch;

pub use self::format::Format;

pub const FILE_BYTES_MAX: u64 = 4 << 20;
pub const PACE: Pace = Pace {
    interval_min: Duration::from_millis(100),
    interval_max: Duration::from_secs(30),
    backoff_max: Duration::from_secs(2),
};
/// Between the first event and the read: a change is often several events.
const SETTLE: Duration = Duration::from_millis(20);
/// Between reads while there is no folder to watch.
const UNWATCHED_POLL: Duration = Duration::from_secs(1);
const ADVICE: &str = "put a readable list there; write it beside and rename it into place";

#[derive(Clone, Debug)]
pub struct File {
    pub path: PathBuf,
    pub format: Format,
    /// For addresses without a port.
    pub port_default: Option<u16>,
}

impl File {
    pub fn at(path: impl Into<PathBuf>) -> File {
        File { path: path.into(), format: Format::Auto, port_default: None }
    }
}

pub(super) struct FileSource {
    file: Arc<File>,
    poll_interval: Duration,
    /// `None` where the kernel gives no watch.
    watch: Option<Watch>,
    is_begun: bool,
    /// Whether the file may differ from what was read last.
    is_stale: bool,
}

impl FileSource {
    pub(super) fn new(file: File, pace: Pace) -> FileSource {
        let (file, poll_interval) = (Arc::new(file), pace.interval_max);
        FileSource { file, poll_interval, watch: None, is_begun: false, is_stale: true }
    }

    async fn look_again(&mut self) -> Result<Answer, Failure> {
        if !self.is_begun {
            self.watch = Watch::new();
            self.is_begun = true;
        }
        if !self.is_stale {
            self.wait().await;
            // Until it is read.
            self.is_stale = true;
        }
        // What happens from here on is news to the next look.
        let eye = self.watch.as_mut().map(Watch::forget);
        let file = Arc::clone(&self.file);
        let reading = tokio::task::spawn_blocking(move || read_watched(&file, eye.as_deref()));
        let failed = |error| Failure::new(format!("the reader ended: {error}"), ADVICE);
        let (is_watched, answer) = reading.await.map_err(failed)?;
        if let Some(watch) = &mut self.watch {
            watch.is_armed = is_watched;
        }
        self.is_stale = false;
        answer
    }

    /// Until an event has come and settled, or it is time to look without one.
    async fn wait(&mut self) {
        let armed = self.watch.as_mut().filter(|watch| watch.is_armed);
        match armed {
            Some(watch) => {
                let event = tokio::time::timeout(self.poll_interval, watch.event()).await;
                if event.is_ok() {
                    self.is_stale = true;
                    tokio::time::sleep(SETTLE).await;
                }
            }
            None => tokio::time::sleep(self.poll_interval.min(UNWATCHED_POLL)).await,
        }
    }
}

impl Source for FileSource {
    fn name(&self) -> String {
        format!("file {}", self.file.path.display())
    }

    fn look(&mut self) -> Look<'_> {
        Box::pin(self.look_again())
    }
}

/// Watches first and reads then: what changes in between is an event. Returns whether it watches.
fn read_watched(file: &File, eye: Option<&Eye>) -> (bool, Result<Answer, Failure>) {
    let is_watched = eye.is_some_and(|eye| eye.aim(&file.path));
    let failed = |why: String| Failure::new(format!("{}: {why}", file.path.display()), ADVICE);
    let answer = read(&file.path).and_then(|text| format::parse(&text, file)).map_err(failed);
    let answer = answer.map(|(endpoints, notes)| Answer { endpoints, again: Again::AtOnce, notes });
    (is_watched, answer)
}

fn read(path: &Path) -> Result<String, String> {
    // Before it is opened: to open a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is no regular file".to_owned());
    }
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20));
    }
    String::from_utf8(bytes).map_err(|_| "it is no UTF-8 text".to_owned())
}
