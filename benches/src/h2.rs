//! HTTP/2 frames, as load and sink need them: cut out of a byte stream, and written.
//!
//! Both ends live in `h2/client.rs` and `h2/server.rs`; what they share is here. Sans-I/O: bytes
//! in, frames out. Speaks prior knowledge only: no TLS, no upgrade.
//!
//! Source: RFC 9113.

pub mod client;
pub mod server;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const FRAME_HEAD_BYTES: usize = 9;
/// What every peer takes without being asked.
pub const FRAME_BYTES_MAX: usize = 16 << 10;
/// What a window is before anybody says otherwise.
pub const WINDOW_BYTES: i64 = 65_535;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

pub const HEADER_TABLE_SIZE: u16 = 1;
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// What a peer sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A piece of a DATA frame, as it came; `is_last` ends the stream.
    Data {
        stream: u32,
        bytes: &'a [u8],
        is_last: bool,
    },
    /// A whole header block.
    Headers {
        stream: u32,
        block: &'a [u8],
        is_last: bool,
    },
    Settings {
        pairs: &'a [u8],
    },
    SettingsAck,
    Ping {
        opaque: &'a [u8],
    },
    WindowUpdate {
        stream: u32,
        bytes: u32,
    },
    Reset {
        stream: u32,
        code: u32,
    },
    GoAway {
        code: u32,
    },
}

#[derive(Clone, Copy, Default)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Cuts a byte stream into frames. DATA passes through in pieces, everything else is collected.
#[derive(Default)]
pub struct Reader {
    head: Option<Head>,
    /// Bytes of a head, or of a frame that is collected.
    partial: Vec<u8>,
    /// Bytes of a DATA frame that are still to come.
    data_left: usize,
    /// A header block that continues.
    block: Vec<u8>,
    block_head: Head,
}

impl Reader {
    /// Hands every frame in `bytes` to `take`. An error ends the connection.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(Frame<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        while !bytes.is_empty() || self.is_complete() {
            match self.head {
                None => bytes = self.read_head(bytes)?,
                Some(head) if head.kind == DATA => bytes = self.data(head, bytes, &mut take)?,
                Some(head) => bytes = self.collect(head, bytes, &mut take)?,
            }
        }
        Ok(())
    }

    /// A frame without payload needs no more bytes.
    fn is_complete(&self) -> bool {
        self.head.is_some_and(|head| head.length == 0)
    }

    fn read_head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], String> {
        let missing = FRAME_HEAD_BYTES - self.partial.len();
        let (now, rest) = bytes.split_at(missing.min(bytes.len()));
        self.partial.extend_from_slice(now);
        if let &[a, b, c, kind, flags, s0, s1, s2, s3] = self.partial.as_slice() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > FRAME_BYTES_MAX {
                return Err(format!("a frame of {length} bytes: it is not HTTP/2, or too large"));
            }
            let stream = u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff;
            if kind == DATA && flags & PADDED != 0 {
                return Err("padded DATA, which is not read here".to_owned());
            }
            self.head = Some(Head { length, kind, flags, stream });
            self.data_left = length;
            self.partial.clear();
        }
        Ok(rest)
    }

    fn data<'a>(
        &mut self,
        head: Head,
        bytes: &'a [u8],
        take: &mut impl FnMut(Frame<'_>) -> Result<(), String>,
    ) -> Result<&'a [u8], String> {
        let (now, rest) = bytes.split_at(self.data_left.min(bytes.len()));
        self.data_left -= now.len();
        let is_last = self.data_left == 0 && head.flags & END_STREAM != 0;
        if self.data_left == 0 {
            self.head = None;
        }
        take(Frame::Data { stream: head.stream, bytes: now, is_last })?;
        Ok(rest)
    }

    fn collect<'a>(
        &mut self,
        head: Head,
        bytes: &'a [u8],
        take: &mut impl FnMut(Frame<'_>) -> Result<(), String>,
    ) -> Result<&'a [u8], String> {
        let missing = head.length - self.partial.len();
        let (now, rest) = bytes.split_at(missing.min(bytes.len()));
        if now.len() < missing {
            self.partial.extend_from_slice(now);
            return Ok(rest);
        }
        self.head = None;
        if self.partial.is_empty() {
            self.whole(head, now, take)?;
        } else {
            self.partial.extend_from_slice(now);
            let payload = std::mem::take(&mut self.partial);
            self.whole(head, &payload, take)?;
            self.partial = payload;
            self.partial.clear();
        }
        Ok(rest)
    }

    fn whole(
        &mut self,
        head: Head,
        payload: &[u8],
        take: &mut impl FnMut(Frame<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let number = |at: usize| {
            let bytes = payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u32::from_be_bytes).ok_or("a frame that is too short")
        };
        let stream = head.stream;
        match head.kind {
            HEADERS if head.flags & END_HEADERS != 0 => {
                let block = without_padding(head.flags, payload)?;
                take(Frame::Headers { stream, block, is_last: head.flags & END_STREAM != 0 })
            }
            HEADERS => {
                self.block_head = head;
                self.block.clear();
                self.block.extend_from_slice(without_padding(head.flags, payload)?);
                Ok(())
            }
            CONTINUATION => {
                self.block.extend_from_slice(payload);
                if head.flags & END_HEADERS == 0 {
                    return Ok(());
                }
                let is_last = self.block_head.flags & END_STREAM != 0;
                take(Frame::Headers { stream, block: &self.block, is_last })
            }
            SETTINGS if head.flags & ACK != 0 => take(Frame::SettingsAck),
            SETTINGS => take(Frame::Settings { pairs: payload }),
            PING if head.flags & ACK == 0 => take(Frame::Ping { opaque: payload }),
            WINDOW_UPDATE => take(Frame::WindowUpdate { stream, bytes: number(0)? & 0x7fff_ffff }),
            RST_STREAM => take(Frame::Reset { stream, code: number(0)? }),
            GOAWAY => take(Frame::GoAway { code: number(4)? }),
            // PING answers, PRIORITY, and kinds that extensions brought: nothing to do.
            _ => Ok(()),
        }
    }
}

fn without_padding(flags: u8, payload: &[u8]) -> Result<&[u8], String> {
    let (mut start, mut padding) = (0, 0);
    if flags & PADDED != 0 {
        padding = usize::from(*payload.first().ok_or("an empty padded frame")?);
        start = 1;
    }
    if flags & PRIORITY != 0 {
        start += 5;
    }
    let end = payload.len().checked_sub(padding).filter(|end| *end >= start);
    Ok(&payload[start..end.ok_or("a frame with more padding than bytes")?])
}

/// The settings of a SETTINGS payload, in its order.
pub fn settings(pairs: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    pairs.chunks_exact(6).map(|pair| {
        let value = u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]);
        (u16::from_be_bytes([pair[0], pair[1]]), value)
    })
}

pub fn put_head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    out.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    out.push(kind);
    out.push(flags);
    out.extend_from_slice(&stream.to_be_bytes());
}

pub fn put_settings(out: &mut Vec<u8>, pairs: &[(u16, u32)]) {
    put_head(out, pairs.len() * 6, SETTINGS, 0, 0);
    for (name, value) in pairs {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub fn put_settings_ack(out: &mut Vec<u8>) {
    put_head(out, 0, SETTINGS, ACK, 0);
}

pub fn put_pong(out: &mut Vec<u8>, opaque: &[u8]) {
    put_head(out, opaque.len(), PING, ACK, 0);
    out.extend_from_slice(opaque);
}

pub fn put_window_update(out: &mut Vec<u8>, stream: u32, bytes: u32) {
    put_head(out, 4, WINDOW_UPDATE, 0, stream);
    out.extend_from_slice(&bytes.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of every kind, cut at every place, come out the same.
    #[test]
    fn frames_come_out_the_same_wherever_the_stream_is_cut() {
        let mut stream = Vec::new();
        put_settings(&mut stream, &[(INITIAL_WINDOW_SIZE, 7), (MAX_CONCURRENT_STREAMS, 9)]);
        put_settings_ack(&mut stream);
        put_head(&mut stream, 3, HEADERS, END_HEADERS, 1);
        stream.extend_from_slice(b"abc");
        put_head(&mut stream, 2, HEADERS, END_STREAM, 3);
        stream.extend_from_slice(b"de");
        put_head(&mut stream, 1, CONTINUATION, END_HEADERS, 3);
        stream.extend_from_slice(b"f");
        put_head(&mut stream, 5, DATA, 0, 1);
        stream.extend_from_slice(b"hello");
        put_head(&mut stream, 0, DATA, END_STREAM, 1);
        put_head(&mut stream, 4, HEADERS, END_HEADERS | PADDED, 5);
        stream.extend_from_slice(b"\x02g\0\0");
        put_window_update(&mut stream, 0, 1 << 20);
        put_head(&mut stream, 8, PING, 0, 0);
        stream.extend_from_slice(b"12345678");
        let whole = log(&[&stream]);
        assert_eq!(whole.len(), 8, "{whole:#?}");
        for cut in 1..stream.len() {
            let (one, two) = stream.split_at(cut);
            assert_eq!(log(&[one, two]), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(log(&bytes), whole);
    }

    /// Frames as text, with the pieces of a DATA frame joined.
    fn log(chunks: &[&[u8]]) -> Vec<String> {
        let mut reader = Reader::default();
        let mut log: Vec<String> = Vec::new();
        let mut data = Vec::new();
        for chunk in chunks {
            let take = |frame: Frame<'_>| {
                match frame {
                    Frame::Data { stream, bytes, is_last } => {
                        data.extend_from_slice(bytes);
                        if is_last {
                            let text = String::from_utf8_lossy(&data).into_owned();
                            log.push(format!("data {stream} {text}"));
                        }
                    }
                    other => log.push(format!("{other:?}")),
                }
                Ok(())
            };
            reader.feed(chunk, take).unwrap();
        }
        assert_eq!(data, b"hello");
        log
    }
}
