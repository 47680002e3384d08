//! A client's day: when it comes, how it behaves, and what it may expect.

use bytes::Bytes;
use forebay_net::request::Nanos;
use forebay_net::ring::fake::{Client, Dice, LineEnd, Network};

use crate::http1::Http1;
use crate::http2::Http2;
use crate::talk::{Oracle, Talk};

const MILLI: Nanos = 1_000_000;
const PAUSE_MIN: Nanos = MILLI / 10;
const PAUSE_MAX: Nanos = 50 * MILLI;
/// What may take its time and no longer.
const MOMENT: Nanos = 1_000 * MILLI;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Reads what it is told, and leaves when it has all answers.
    Polite,
    /// Says that no more comes as soon as all is said, and goes on reading.
    Terse,
    /// Keeps its connection when it has all answers, until it is told to go.
    Stays,
    Resets,
    Leaves,
    /// Half-closes in the middle of what it says.
    BreaksOff,
    /// Goes on reading and says no more.
    Stalls,
    /// Neither reads nor says any more, and stays.
    Freezes,
    Babbles,
}

/// A customer's line to the server, read and written in plaintext.
pub(crate) trait Line {
    fn read(&self, bytes_max: usize) -> Bytes;
    /// Sends what there is room for, and says how much that was.
    fn write(&self, bytes: &[u8]) -> usize;
    /// What nothing on the line would have said, if there is anything on it.
    fn write_raw(&self, bytes: &[u8]) {
        self.write(bytes);
    }
    fn end(&self) -> Option<LineEnd>;
    fn finish(&self);
    fn reset(&self);
    /// Whether all that was written is on its way.
    fn is_flushed(&self) -> bool {
        true
    }
    /// Whether anything went or came that is not to be seen yet, since this was asked last.
    fn has_moved(&self) -> bool {
        false
    }
}

impl Line for Client {
    fn read(&self, bytes_max: usize) -> Bytes {
        self.read(bytes_max)
    }

    fn write(&self, bytes: &[u8]) -> usize {
        self.write(bytes)
    }

    fn end(&self) -> Option<LineEnd> {
        self.end()
    }

    fn finish(&self) {
        self.finish();
    }

    fn reset(&self) {
        self.reset();
    }
}

/// What all customers have to know of whom they visit.
#[derive(Clone, Copy)]
pub(crate) struct House<'a> {
    /// Connections may come to nothing.
    pub(crate) is_excused: bool,
    /// When it began to send everybody home.
    pub(crate) closes_at: Nanos,
    /// What a line to this listener becomes before anything is said on it; none: it stays.
    pub(crate) seal: Option<&'a dyn Fn(Client, usize) -> Box<dyn Line>>,
}

/// A client, how it behaves, and how far it came.
pub(crate) struct Customer {
    number: usize,
    listener: usize,
    line: Option<Box<dyn Line>>,
    talk: Box<dyn Talk>,
    manner: Manner,
    comes_at: Nanos,
    pub(crate) next_at: Nanos,
    requests_left: u64,
    output: Vec<u8>,
    /// Steps until the misdeed, for who is up to one.
    fuse: u64,
    /// How long it waits before it looks again; longer while nothing happens.
    pause: Nanos,
    has_finished: bool,
    /// Since when it has heard all that it wants to hear.
    content_since: Option<Nanos>,
    /// It does nothing any more, and its end of the connection is still there.
    pub(crate) is_frozen: bool,
    pub(crate) is_over: bool,
}

impl Customer {
    /// One who comes within `rush` and speaks HTTP/1.1, or HTTP/2.
    pub(crate) fn drawn(
        number: usize,
        listener: usize,
        is_http1: bool,
        rush: Nanos,
        dice: &mut Dice,
    ) -> Customer {
        let manner = match dice.below(20) {
            0 => Manner::Resets,
            1 => Manner::Leaves,
            2 => Manner::BreaksOff,
            3 => Manner::Stalls,
            4 => Manner::Freezes,
            5 => Manner::Babbles,
            // In HTTP/2 an answer may need a word of the client's to be sent.
            6 | 7 if is_http1 => Manner::Terse,
            8 | 9 => Manner::Stays,
            _ => Manner::Polite,
        };
        let talk: Box<dyn Talk> = match manner {
            _ if is_http1 => Box::new(Http1::new(dice)),
            _ => {
                let is_fickle = dice.of_1000(200);
                Box::new(Http2::new(dice, is_fickle))
            }
        };
        let comes_at = dice.below(rush);
        Customer {
            number,
            listener,
            line: None,
            talk,
            manner,
            comes_at,
            next_at: comes_at,
            requests_left: 1 + dice.below(12),
            output: Vec::new(),
            fuse: 1 + dice.below(40),
            pause: PAUSE_MIN,
            has_finished: false,
            content_since: None,
            is_frozen: false,
            is_over: false,
        }
    }

    /// Reads, writes, or does what it is up to.
    pub(crate) fn step(
        &mut self,
        now: Nanos,
        network: &Network,
        oracle: &mut dyn Oracle,
        dice: &mut Dice,
        house: House<'_>,
    ) {
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.next_at = now + 1 + dice.below(self.pause);
        let line = match self.line.take() {
            Some(line) => line,
            None => match network.connect(self.listener) {
                Some(line) => match house.seal {
                    Some(seal) => seal(line, self.listener),
                    None => Box::new(line),
                },
                None => {
                    assert!(house.is_excused, "nobody listens");
                    self.is_over = true;
                    return;
                }
            },
        };
        let heard = line.read(1 + dice.below(20_000) as usize);
        if !heard.is_empty() && !self.is_rude() {
            self.pause = PAUSE_MIN;
            self.talk.hear(&heard, oracle);
        }
        if let Some(end) = line.end() {
            return self.end(end, oracle, house.is_excused);
        }
        self.act(&*line, oracle, dice);
        self.expect_the_end(now, house);
        // Who freezes leaves its end of the line as it is.
        if !self.is_over || self.is_frozen {
            self.line = Some(line);
        }
    }

    /// Whether it did what it was up to; nobody owes it anything any more.
    fn is_rude(&self) -> bool {
        !self.means_well() && self.fuse == 0
    }

    fn means_well(&self) -> bool {
        matches!(self.manner, Manner::Polite | Manner::Terse | Manner::Stays)
    }

    /// Who has all answers, and said that no more comes or is sent home, is not kept waiting.
    fn expect_the_end(&mut self, now: Nanos, house: House<'_>) {
        let is_done = self.has_finished || (now >= house.closes_at && self.talk.is_all_said());
        let waits = self.talk.has_given_up_some() || !self.talk.unanswered().is_empty();
        if self.is_over || self.is_rude() || !is_done || waits {
            self.content_since = None;
            return;
        }
        let since = *self.content_since.get_or_insert(now);
        assert!(now < since + MOMENT, "{self:?} is kept waiting for the end since {since}");
    }

    fn act(&mut self, line: &dyn Line, oracle: &mut dyn Oracle, dice: &mut Dice) {
        if self.is_rude() {
            return;
        }
        self.fuse -= u64::from(!self.means_well());
        if self.fuse == 0 {
            return self.misbehave(line, oracle, dice);
        }
        if self.requests_left > 0 && self.talk.wants_request() && dice.of_1000(700) {
            self.requests_left -= 1;
            self.talk.say(oracle.make(self.number, self.listener, dice), dice);
        }
        if self.output.is_empty() {
            self.output = self.talk.next_output(dice);
        }
        let most = 1 + dice.below(20_000) as usize;
        let written = line.write(&self.output[..self.output.len().min(most)]);
        self.output.drain(..written);
        if written > 0 || line.has_moved() {
            self.pause = PAUSE_MIN;
        }
        let all_is_asked = self.requests_left == 0 || self.talk.was_told_to_go();
        let all_is_said = all_is_asked && self.output.is_empty() && line.is_flushed();
        if !all_is_said || matches!(self.manner, Manner::Freezes | Manner::Stays) {
            return;
        }
        if self.manner == Manner::Terse && self.talk.is_all_said() {
            self.has_finished = true;
            line.finish();
        }
        if self.talk.unanswered().is_empty() {
            match dice.of_1000(500) || self.has_finished {
                true => {
                    self.has_finished = true;
                    line.finish();
                }
                false => self.is_over = true,
            }
        }
    }

    fn misbehave(&mut self, line: &dyn Line, oracle: &mut dyn Oracle, dice: &mut Dice) {
        match self.manner {
            Manner::Polite | Manner::Terse | Manner::Stays => {}
            Manner::Resets => {
                line.reset();
                self.is_over = true;
            }
            Manner::Leaves => self.is_over = true,
            Manner::Freezes => (self.is_over, self.is_frozen) = (true, true),
            Manner::BreaksOff => {
                line.write(&self.output[..self.output.len() / 2]);
                line.finish();
            }
            Manner::Stalls => {
                line.write(&self.output[..self.output.len() / 2]);
            }
            Manner::Babbles => {
                let babble: Vec<u8> = (0..200).map(|_| dice.number() as u8).collect();
                match dice.of_1000(500) {
                    true => line.write_raw(&babble),
                    false => {
                        line.write(&babble);
                    }
                }
                oracle.spoil(self.number);
            }
        }
    }

    /// The server ended the connection, or answered our end with its own.
    fn end(&mut self, end: LineEnd, oracle: &dyn Oracle, is_excused: bool) {
        self.is_over = true;
        if self.is_rude() {
            return;
        }
        for id in self.talk.unanswered() {
            assert!(!oracle.is_owed(id), "{self:?} never got the answer to {id}: {end:?}");
        }
        let owes = self.requests_left > 0 || !self.talk.unanswered().is_empty();
        let is_excused = is_excused || self.talk.was_told_to_go();
        assert!(is_excused || !owes, "{self:?} came to nothing: {end:?}");
    }
}

impl std::fmt::Debug for Customer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (number, manner, since) = (self.number, self.manner, self.comes_at);
        let unanswered = self.talk.unanswered();
        write!(f, "customer {number}, {manner:?}, since {since}, without {unanswered:?}")
    }
}
