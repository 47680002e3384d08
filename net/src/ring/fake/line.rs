//! The wires: what clients and the ring have sent each other and the other has not taken yet.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::Temper;
use super::datagrams::Post;
use super::dice::Dice;
use crate::request::Nanos;

/// Everything outside of the rings.
pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) temper: Temper,
    pub(super) now: Nanos,
    pub(super) alarm: Nanos,
    pub(super) listeners: Vec<Listening>,
    pub(super) lines: Vec<Line>,
    pub(super) posts: Vec<Post>,
    /// Chunks that the rings' callers have.
    pub(super) chunks_out: usize,
    /// What other threads do while a ring waits.
    pub(super) others: Option<Box<dyn FnMut()>>,
}

#[derive(Default)]
pub(super) struct Listening {
    /// Lines that wait to be accepted.
    pub(super) backlog: VecDeque<usize>,
    is_over: bool,
}

/// How the other side's bytes end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    Finished,
    Reset,
}

/// One connection. Up is from the client to the ring.
#[derive(Default)]
pub(super) struct Line {
    up: BytesMut,
    up_end: Option<LineEnd>,
    down: BytesMut,
    down_end: Option<LineEnd>,
    is_left_by_client: bool,
    is_left_by_server: bool,
}

impl World {
    pub(super) fn new(dice: Dice, temper: Temper) -> World {
        World {
            dice,
            temper,
            now: 1,
            alarm: Nanos::MAX,
            listeners: Vec::new(),
            lines: Vec::new(),
            posts: Vec::new(),
            chunks_out: 0,
            others: None,
        }
    }

    pub(super) fn connect(&mut self, listener: usize) -> Option<usize> {
        let listening = &mut self.listeners[listener];
        if listening.is_over {
            return None;
        }
        listening.backlog.push_back(self.lines.len());
        self.lines.push(Line::default());
        Some(self.lines.len() - 1)
    }

    pub(super) fn is_idle(&mut self) -> bool {
        self.dice.of_1000(self.temper.idle)
    }

    /// How much of `bytes`, at least one, goes at once.
    pub(super) fn piece(&mut self, bytes: usize) -> usize {
        match self.dice.of_1000(self.temper.short) {
            // Often a few bytes only, so that every border is met.
            true if self.dice.of_1000(300) => bytes.min(1 + self.dice.below(16) as usize),
            true => 1 + self.dice.below(bytes as u64) as usize,
            false => bytes,
        }
    }

    /// The ring's end of a line closes.
    fn hang_up(&mut self, line: usize, resets: bool) {
        let loses = self.dice.of_1000(500);
        let line = &mut self.lines[line];
        line.is_left_by_server = true;
        if resets || !line.up.is_empty() {
            // A reset may overtake what was sent before it.
            line.down_end = Some(LineEnd::Reset);
            if resets || loses {
                line.down.clear();
            }
        }
        line.finish_down();
        line.up.clear();
    }
}

impl Line {
    pub(super) fn is_left_by_server(&self) -> bool {
        self.is_left_by_server
    }

    /// What a receive finds: so many bytes, none (it would wait), or that they have ended.
    pub(super) fn up_bytes(&self) -> Result<usize, LineEnd> {
        match self.up_end {
            Some(end) if self.up.is_empty() => Err(end),
            _ => Ok(self.up.len()),
        }
    }

    pub(super) fn take_up(&mut self, bytes: usize) -> BytesMut {
        self.up.split_to(bytes)
    }

    /// How many bytes a send may bring at once, or that nobody takes them.
    pub(super) fn down_room(&mut self, socket_bytes: usize) -> Result<usize, LineEnd> {
        if self.is_left_by_client {
            self.up_end = Some(LineEnd::Reset);
        }
        match self.up_end {
            Some(LineEnd::Reset) => Err(LineEnd::Reset),
            _ => Ok(socket_bytes.saturating_sub(self.down.len())),
        }
    }

    pub(super) fn put_down(&mut self, bytes: &[u8]) {
        self.down.extend_from_slice(bytes);
    }

    pub(super) fn finish_down(&mut self) {
        self.down_end.get_or_insert(LineEnd::Finished);
    }
}

/// A socket at the ring's end. Dropped, it closes.
pub struct FakeSocket {
    world: Rc<RefCell<World>>,
    of: Of,
    resets: bool,
}

#[derive(Clone, Copy, Debug)]
enum Of {
    Listener(usize),
    Line(usize),
    Post(usize),
}

impl FakeSocket {
    pub(super) fn listening(world: Rc<RefCell<World>>) -> FakeSocket {
        let listener = world.borrow().listeners.len();
        world.borrow_mut().listeners.push(Listening::default());
        FakeSocket { world, of: Of::Listener(listener), resets: false }
    }

    pub(super) fn bound(world: Rc<RefCell<World>>) -> FakeSocket {
        let post = world.borrow().posts.len();
        world.borrow_mut().posts.push(Post::default());
        FakeSocket { world, of: Of::Post(post), resets: false }
    }

    pub(super) fn accepted(&self, line: usize) -> FakeSocket {
        FakeSocket { world: self.world.clone(), of: Of::Line(line), resets: false }
    }

    /// The place of its listener, of its line or of its post.
    pub(super) fn id(&self) -> usize {
        match self.of {
            Of::Listener(id) | Of::Line(id) | Of::Post(id) => id,
        }
    }

    /// Closing throws away what is not received, and says so.
    pub(super) fn reset_on_close(&mut self) {
        self.resets = true;
    }

    /// Who waits to be accepted gets a reset.
    pub(super) fn stop_listening(&self) {
        let Of::Listener(listener) = self.of else { return };
        let world = &mut *self.world.borrow_mut();
        let listening = &mut world.listeners[listener];
        listening.is_over = true;
        let backlog = std::mem::take(&mut listening.backlog);
        backlog.into_iter().for_each(|line| world.hang_up(line, true));
    }
}

impl fmt::Debug for FakeSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.of.fmt(f)
    }
}

impl Drop for FakeSocket {
    fn drop(&mut self) {
        match self.of {
            Of::Listener(_) => self.stop_listening(),
            Of::Line(line) => self.world.borrow_mut().hang_up(line, self.resets),
            Of::Post(post) => self.world.borrow_mut().posts[post].leave(),
        }
    }
}

/// A client's end of a connection. Dropped, it closes.
pub struct Client {
    world: Rc<RefCell<World>>,
    line: usize,
}

impl Client {
    pub(super) fn new(world: Rc<RefCell<World>>, line: usize) -> Client {
        Client { world, line }
    }

    /// Sends what there is room for, and says how much that was: nothing also after an end.
    pub fn write(&self, bytes: &[u8]) -> usize {
        let world = &mut *self.world.borrow_mut();
        let line = &mut world.lines[self.line];
        if bytes.is_empty() || line.up_end.is_some() {
            return 0;
        }
        if line.is_left_by_server {
            // Nobody is there to take it, and to hear so may overtake what was sent before.
            if line.down_end != Some(LineEnd::Reset) && world.dice.of_1000(500) {
                line.down.clear();
            }
            line.down_end = Some(LineEnd::Reset);
            return 0;
        }
        let room = world.temper.socket_bytes.saturating_sub(line.up.len());
        let bytes = &bytes[..bytes.len().min(room)];
        line.up.extend_from_slice(bytes);
        bytes.len()
    }

    /// What came, at most `bytes_max` of it.
    pub fn read(&self, bytes_max: usize) -> Bytes {
        let line = &mut self.world.borrow_mut().lines[self.line];
        let bytes = line.down.len().min(bytes_max);
        line.down.split_to(bytes).freeze()
    }

    /// How what comes has ended, once all of it is read.
    pub fn end(&self) -> Option<LineEnd> {
        let line = &self.world.borrow().lines[self.line];
        line.down_end.filter(|_| line.down.is_empty())
    }

    /// Says that no more will come, and goes on reading.
    pub fn finish(&self) {
        self.world.borrow_mut().lines[self.line].up_end.get_or_insert(LineEnd::Finished);
    }

    /// Ends the connection both ways at once; what the other side has not received may be lost.
    pub fn reset(&self) {
        let world = &mut *self.world.borrow_mut();
        let line = &mut world.lines[self.line];
        line.up_end = Some(LineEnd::Reset);
        if world.dice.of_1000(500) {
            line.up.clear();
        }
        line.down.clear();
        line.down_end = Some(LineEnd::Reset);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let line = &mut self.world.borrow_mut().lines[self.line];
        line.is_left_by_client = true;
        let end = if line.down.is_empty() { LineEnd::Finished } else { LineEnd::Reset };
        line.up_end.get_or_insert(end);
    }
}
