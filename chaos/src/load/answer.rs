//! An HTTP/1.1 answer as its bytes come: the head is understood, the body is counted and shown, and nothing is kept.

use super::{
    chunks::Chunks,
    head::{Framing, HEAD_BYTES_MAX, Malformed, parse},
};

/// Whether an answer is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// More bytes of it are to come.
    Partly,
    /// That was all of it.
    Wholly,
}

/// Reads one answer after the other. In the usual case, a head that comes in one piece, nothing is copied.
#[derive(Debug)]
pub(super) struct AnswerReader {
    state: State,
    /// The start of a head that came in pieces.
    carry: Vec<u8>,
    status: u16,
    body_bytes: u64,
    closes: bool,
    location: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Length { left: u64 },
    Chunked(Chunks),
    UntilClose,
    Done,
}

impl AnswerReader {
    pub(super) fn new() -> Self {
        Self {
            state: State::Head,
            carry: Vec::new(),
            status: 0,
            body_bytes: 0,
            closes: false,
            location: String::new(),
        }
    }

    /// Before the next answer.
    pub(super) fn begin(&mut self) {
        self.state = State::Head;
        self.carry.clear();
        self.status = 0;
        self.body_bytes = 0;
        self.closes = false;
        self.location.clear();
    }

    /// The status code; 0 before the end of the head.
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// Bytes of the body so far, without its coding.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// The other side takes no further request on this connection.
    pub(super) fn closes(&self) -> bool {
        self.closes
    }

    /// Nothing of the answer has come yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.state == State::Head && self.carry.is_empty()
    }

    /// The value of `Location`; empty without one.
    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// Takes the next bytes, and shows those of the body to `body`.
    ///
    /// # Errors
    /// If this is no HTTP/1.1, or more than the answer.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        body: &mut impl FnMut(&[u8]),
    ) -> Result<Answered, Malformed> {
        if self.state != State::Head {
            return self.take_body(bytes, body);
        }
        if self.carry.is_empty() {
            return match self.take_head(bytes)? {
                Some(length) => self.take_body(bytes.get(length..).unwrap_or_default(), body),
                None => {
                    self.carry.extend_from_slice(bytes);
                    Ok(Answered::Partly)
                }
            };
        }
        let mut carry = std::mem::take(&mut self.carry);
        carry.extend_from_slice(bytes);
        let Some(length) = self.take_head(&carry)? else {
            self.carry = carry;
            return Ok(Answered::Partly);
        };
        self.take_body(carry.get(length..).unwrap_or_default(), body)
    }

    /// The other side has closed the connection.
    ///
    /// # Errors
    /// If that is not how this answer ends.
    pub(super) fn end(&mut self) -> Result<Answered, Malformed> {
        if self.state != State::UntilClose {
            return Err(Malformed::Cut);
        }
        self.state = State::Done;
        Ok(Answered::Wholly)
    }

    /// Looks for a head, and returns its length if it is there. Interim answers before it are part of it.
    fn take_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let Some(head) = parse(rest)? else {
                // Of interim answers without end, too.
                return if at > HEAD_BYTES_MAX { Err(Malformed::LongHead) } else { Ok(None) };
            };
            at += head.bytes;
            if head.is_interim() {
                continue;
            }
            self.status = head.status;
            self.closes = head.closes;
            if let Some(location) = head.location {
                let location = std::str::from_utf8(location).map_err(|_| Malformed::Field)?;
                self.location.push_str(location);
            }
            self.state = match head.framing {
                Framing::Length(left) => State::Length { left },
                Framing::Chunked => State::Chunked(Chunks::START),
                Framing::UntilClose => State::UntilClose,
            };
            return Ok(Some(at));
        }
    }

    fn take_body(
        &mut self,
        bytes: &[u8],
        body: &mut impl FnMut(&[u8]),
    ) -> Result<Answered, Malformed> {
        match &mut self.state {
            State::Length { left } => {
                let length = bytes.len() as u64;
                *left = left.checked_sub(length).ok_or(Malformed::Surplus)?;
                self.body_bytes += length;
                body(bytes);
                if *left > 0 {
                    return Ok(Answered::Partly);
                }
            }
            State::Chunked(chunks) => {
                let count = &mut self.body_bytes;
                let rest = chunks.take(bytes, |data| {
                    *count += data.len() as u64;
                    body(data);
                })?;
                if *chunks != Chunks::Done {
                    return Ok(Answered::Partly);
                }
                if !rest.is_empty() {
                    return Err(Malformed::Surplus);
                }
            }
            State::UntilClose => {
                self.body_bytes += bytes.len() as u64;
                body(bytes);
                return Ok(Answered::Partly);
            }
            State::Head | State::Done => return Err(Malformed::Surplus),
        }
        self.state = State::Done;
        Ok(Answered::Wholly)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Feeds an answer in pieces of this size. Returns the body, and what the last piece led to.
    fn read(reader: &mut AnswerReader, answer: &[u8], size: usize) -> (Vec<u8>, Answered) {
        let (mut body, mut answered) = (Vec::new(), Answered::Partly);
        for piece in answer.chunks(size) {
            assert_eq!(answered, Answered::Partly, "it went on after its end");
            answered = reader.take(piece, &mut |bytes| body.extend_from_slice(bytes)).unwrap();
        }
        (body, answered)
    }

    #[test]
    fn an_answer_is_the_same_however_it_is_cut_and_the_next_one_begins_anew() {
        let sized = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        let chunked = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nLocation: /next\r\n\
            Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
        let mut reader = AnswerReader::new();
        for size in 1..=chunked.len() {
            reader.begin();
            let (body, answered) = read(&mut reader, sized, size);
            assert_eq!((body.as_slice(), answered), (&b"hello"[..], Answered::Wholly), "{size}");
            assert_eq!((reader.status(), reader.closes(), reader.location()), (200, true, ""));
            reader.begin();
            let (body, answered) = read(&mut reader, chunked, size);
            assert_eq!((body.as_slice(), answered), (&b"hello"[..], Answered::Wholly), "{size}");
            assert_eq!(
                (reader.status(), reader.closes(), reader.location()),
                (202, false, "/next")
            );
            assert_eq!(reader.body_bytes(), 5);
        }
    }

    #[test]
    fn an_answer_without_a_length_ends_with_its_connection() {
        let mut reader = AnswerReader::new();
        let (body, answered) = read(&mut reader, b"HTTP/1.1 200 OK\r\n\r\nall of it", 7);
        assert_eq!((body.as_slice(), answered), (&b"all of it"[..], Answered::Partly));
        assert_eq!(reader.end(), Ok(Answered::Wholly));
    }

    #[test]
    fn an_answer_without_a_body_is_whole_with_its_head() {
        let mut reader = AnswerReader::new();
        let (body, answered) =
            read(&mut reader, b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n", 99);
        assert_eq!((body.len(), answered), (0, Answered::Wholly));
    }

    #[test]
    fn too_little_and_too_much_are_told() {
        let mut reader = AnswerReader::new();
        assert!(reader.is_untouched());
        reader.take(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", &mut |_| ()).unwrap();
        assert!(!reader.is_untouched());
        assert_eq!(reader.end(), Err(Malformed::Cut));
        assert_eq!(reader.take(b"lo!", &mut |_| ()), Err(Malformed::Surplus));
        reader.begin();
        assert_eq!(reader.end(), Err(Malformed::Cut));
    }
}
