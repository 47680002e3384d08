//! inotify on the folders through which a file can change.
//!
//! Always: at most two folders are watched, and those that the path no longer leads through are
//! let go; a queue that overflowed is an event like any other.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::inotify;
use tokio::net::unix::pipe::Receiver;

/// The side that waits for events.
pub(super) struct Watch {
    /// Not a pipe, but read like one; what the events say is not needed.
    events: Receiver,
    eye: Arc<Eye>,
    /// Whether a folder was found to watch when the file was read last.
    pub(super) is_armed: bool,
}

/// The side that knows what to watch; it may block.
pub(super) struct Eye {
    fd: OwnedFd,
    watched: Mutex<Vec<i32>>,
}

impl Watch {
    /// `None`: the kernel has no instance left for this user.
    pub(super) fn new() -> Option<Watch> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let fd = inotify::init(flags).ok()?;
        let events = Receiver::from_file_unchecked(File::from(fd.try_clone().ok()?)).ok()?;
        let eye = Arc::new(Eye { fd, watched: Mutex::default() });
        Some(Watch { events, eye, is_armed: false })
    }

    /// Until there is an event; it stays in the queue.
    pub(super) async fn event(&mut self) {
        // The only error is that the runtime ends.
        let _ = self.events.readable().await;
    }

    /// Empties the queue.
    pub(super) fn forget(&mut self) -> Arc<Eye> {
        let mut buffer = [0; 4096];
        // An empty queue is an error, too: `WouldBlock`.
        while self.events.try_read(&mut buffer).is_ok_and(|count| count > 0) {}
        Arc::clone(&self.eye)
    }
}

impl Eye {
    /// Watches the folders of `path`, as far as they exist; says whether there is any.
    pub(super) fn aim(&self, path: &Path) -> bool {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now_watched = Vec::new();
        for folder in folders(path) {
            // The same folder by two names has one number.
            if let Ok(number) = inotify::add_watch(&self.fd, &folder, what()) {
                now_watched.push(number);
            }
        }
        for gone in watched.iter().filter(|number| !now_watched.contains(number)) {
            // Fails if the folder itself is gone, and its watch with it.
            let _ = inotify::remove_watch(&self.fd, *gone);
        }
        *watched = now_watched;
        !watched.is_empty()
    }
}

/// The folder that the path names, and the one that the file really lies in.
fn folders(path: &Path) -> Vec<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut folders = vec![parent(path)];
    folders.extend(std::fs::canonicalize(path).ok().map(|real| parent(&real)));
    folders
}

/// Not every write: a file that is being written is read once it is closed.
fn what() -> inotify::WatchFlags {
    use inotify::WatchFlags as Flags;
    Flags::CLOSE_WRITE
        | Flags::CREATE
        | Flags::MOVED_TO
        | Flags::MOVED_FROM
        | Flags::DELETE
        | Flags::ATTRIB
        | Flags::DELETE_SELF
        | Flags::MOVE_SELF
}
