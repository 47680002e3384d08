//! A connection of HTTP/3 under test, with a desk behind it and no transport below.

use bytes::Bytes;
use forebay_net::http3::Http3;
use forebay_net::request::{Answer, Nanos};

use crate::desk::{self, Desk, LIMITS};
use crate::streams::{CONTROL, Lines, SETTINGS, frame};

/// A connection under test and all that is around it.
pub(crate) struct Call {
    pub(crate) desk: Desk,
    pub(crate) lines: Lines,
    pub(crate) core: Http3,
    /// The next request's stream.
    next: u64,
}

impl Call {
    /// Past its handshake, and the peer's settings came.
    pub(crate) fn open() -> Call {
        let mut call = Call::fresh();
        call.send(CONTROL, &[&[0][..], &frame(SETTINGS, &[])].concat(), false);
        call
    }

    pub(crate) fn fresh() -> Call {
        let (desk, mut lines) = (Desk::new(), Lines::default());
        let core = Http3::new(&LIMITS, 0, &mut lines);
        assert_eq!(lines.frames(3).first().map(|(kind, _)| *kind), Some(SETTINGS));
        Call { desk, lines, core, next: 0 }
    }

    pub(crate) fn begin(&mut self) -> u64 {
        let stream = self.next;
        self.next += 4;
        self.core.handle_opened(stream, &mut self.desk.turn(), &mut self.lines);
        stream
    }

    pub(crate) fn send(&mut self, stream: u64, bytes: &[u8], ends: bool) {
        self.core.handle_bytes(stream, bytes, ends, &mut self.desk.turn(), &mut self.lines);
    }

    /// The same, where it came in several pieces.
    pub(crate) fn send_pieces(&mut self, stream: u64, pieces: &[Bytes], ends: bool) {
        self.core.handle_pieces(stream, pieces, ends, &mut self.desk.turn(), &mut self.lines);
    }

    /// A request of these bytes, all at once.
    pub(crate) fn ask(&mut self, bytes: &[u8]) -> u64 {
        let stream = self.begin();
        self.send(stream, bytes, true);
        stream
    }

    pub(crate) fn answer_all(&mut self) {
        for request in std::mem::take(&mut self.desk.requests) {
            self.desk.reserved -= request.reserved;
            self.answer(request.id.stream, desk::ok());
        }
    }

    pub(crate) fn answer(&mut self, number: u32, answer: Answer) {
        self.core.handle_answer(number, answer, &mut self.desk.turn(), &mut self.lines);
    }

    pub(crate) fn pass(&mut self, now: Nanos) {
        self.desk.now = now;
        self.core.handle_timeout(&mut self.desk.turn(), &mut self.lines);
    }

    /// Time passes until the connection is closed.
    pub(crate) fn see_out(&mut self) {
        while self.lines.closed.is_none() {
            self.pass(self.deadline().expect("it ends"));
        }
    }

    pub(crate) fn deadline(&self) -> Option<Nanos> {
        self.core.deadline(&LIMITS)
    }

    /// Loses the connection: nothing may stay reserved.
    pub(crate) fn lose(mut self) {
        self.core.handle_lost(&mut self.desk.turn());
        let waiting: usize = self.desk.requests.iter().map(|request| request.reserved).sum();
        assert_eq!(self.desk.reserved, waiting);
        assert!(self.core.is_over() && self.core.in_flight() == 0);
    }
}
