//! A listening socket as the fake ring serves it: connections wait, are accepted one by one, and
//! now and then accepting ends or fails.

use std::collections::VecDeque;
use std::io;

use super::line::{FakeSocket, World};
use crate::ring::Done;

pub(super) struct Acceptor {
    listener: u16,
    socket: FakeSocket,
    is_armed: bool,
    /// Told to stop; what is armed ends soon.
    is_stopped: bool,
    /// Completions that are not shown yet.
    pub(super) done: VecDeque<Done<FakeSocket>>,
    /// Completions that end an operation and are not shown yet.
    ended: bool,
}

impl Acceptor {
    pub(super) fn new(listener: u16, socket: FakeSocket) -> Acceptor {
        let done = VecDeque::new();
        Acceptor { listener, socket, is_armed: false, is_stopped: false, done, ended: false }
    }

    pub(super) fn arm(&mut self) {
        // Armed means: until the end is shown.
        if self.ended && self.done.is_empty() {
            (self.is_armed, self.ended) = (false, false);
        }
        if !self.is_armed {
            assert!(!self.is_stopped, "nothing is accepted after the stop");
            self.is_armed = true;
        }
    }

    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
        self.socket.stop_listening();
    }

    /// The kernel's part. Says whether anybody waits to be accepted, or to hear of the end.
    pub(super) fn work(&mut self, multishot: bool, world: &mut World) -> bool {
        loop {
            let is_over = !self.is_armed || self.ended;
            let waiting = !world.listeners[self.socket.id()].backlog.is_empty();
            if is_over || !(waiting || self.is_stopped) {
                return false;
            }
            if world.is_idle() {
                return true;
            }
            if self.is_stopped {
                // Whether it was cancelled or found no listening socket any more.
                let error = world.dice.of_1000(500).then_some(libc::EINVAL);
                self.end(error);
            } else if world.dice.of_1000(world.temper.accept_fails) {
                self.end(Some(libc::EMFILE));
            } else if let Some(line) = world.listeners[self.socket.id()].backlog.pop_front() {
                let (listener, socket) = (self.listener, self.socket.accepted(line));
                self.done.push_back(Done::Accepted { listener, socket });
                if !multishot || world.dice.of_1000(world.temper.ends) {
                    self.end(None);
                }
            }
        }
    }

    fn end(&mut self, errno: Option<i32>) {
        let error = errno.map(io::Error::from_raw_os_error);
        self.done.push_back(Done::AcceptEnded { listener: self.listener, error });
        self.ended = true;
    }
}
