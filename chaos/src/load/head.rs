//! The head of an HTTP/1.1 answer (RFC 9112), as far as a load has to understand it.

/// A longer head is no head. As much as Tercet itself takes.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// How the end of a body is known (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks, up to the last one.
    Chunked,
    /// Everything until the other side closes.
    UntilClose,
}

/// What a head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) status: u16,
    /// Its own length, with the empty line at its end.
    pub(super) bytes: usize,
    pub(super) framing: Framing,
    /// The other side takes no further request on this connection.
    pub(super) closes: bool,
    /// The value of `Location`.
    pub(super) location: Option<&'a [u8]>,
}

/// What is no HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// The first line is no status line.
    StatusLine,
    /// A line of the head is no field, or the value of one that matters makes no sense.
    Field,
    /// The head has no end within [`HEAD_BYTES_MAX`].
    LongHead,
    /// The size or the end of a chunk makes no sense.
    Chunk,
    /// Bytes follow the answer, though nothing more was asked.
    Surplus,
    /// The connection ended before the answer did.
    Cut,
}

/// The head at the start of `bytes`; `None` if its end is not among them.
///
/// # Errors
/// If this cannot become a head, however many bytes follow.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Head<'_>>, Malformed> {
    let mut lines = Lines { bytes, at: 0 };
    let Some(first) = lines.take_line() else { return unfinished(bytes) };
    let (status, mut closes) = status_line(first)?;
    let mut fields = Fields::default();
    loop {
        let Some(line) = lines.take_line() else { return unfinished(bytes) };
        if line.is_empty() {
            break;
        }
        fields.take(line)?;
    }
    closes = fields.closes.unwrap_or(closes);
    let framing = fields.framing(status);
    Ok(Some(Head {
        status,
        bytes: lines.at,
        framing,
        closes: closes || framing == Framing::UntilClose,
        location: fields.location,
    }))
}

impl Head<'_> {
    /// Whether the real answer is still to come (RFC 9110, section 15.2).
    pub(super) fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}

fn unfinished(bytes: &[u8]) -> Result<Option<Head<'_>>, Malformed> {
    if bytes.len() > HEAD_BYTES_MAX { Err(Malformed::LongHead) } else { Ok(None) }
}

struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    /// The next line without its end, if the end is there.
    fn take_line(&mut self) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.at..)?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        self.at += end + 1;
        let line = rest.get(..end)?;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

/// The status, and whether a connection of this version is closed unless a field says otherwise.
fn status_line(line: &[u8]) -> Result<(u16, bool), Malformed> {
    let rest = line.strip_prefix(b"HTTP/1.").ok_or(Malformed::StatusLine)?;
    let [minor @ (b'0' | b'1'), b' ', hundreds, tens, ones, after @ ..] = rest else {
        return Err(Malformed::StatusLine);
    };
    if !matches!(after.first(), None | Some(b' ')) {
        return Err(Malformed::StatusLine);
    }
    let mut status = 0;
    for digit in [hundreds, tens, ones] {
        if !digit.is_ascii_digit() {
            return Err(Malformed::StatusLine);
        }
        status = status * 10 + u16::from(digit - b'0');
    }
    Ok((status, *minor == b'0'))
}

/// The fields that matter.
#[derive(Default)]
struct Fields<'a> {
    length: Option<u64>,
    /// Whether `chunked` is the last transfer coding, if there is any.
    chunked: Option<bool>,
    closes: Option<bool>,
    location: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn take(&mut self, line: &'a [u8]) -> Result<(), Malformed> {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Malformed::Field)?;
        let name = line.get(..colon).unwrap_or_default();
        let value = line.get(colon + 1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = decimal(value).ok_or(Malformed::Field)?;
            if self.length.is_some_and(|other| other != length) {
                return Err(Malformed::Field);
            }
            self.length = Some(length);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
            self.chunked = Some(last.trim_ascii().eq_ignore_ascii_case(b"chunked"));
        } else if name.eq_ignore_ascii_case(b"connection") {
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if option.eq_ignore_ascii_case(b"close") {
                    self.closes = Some(true);
                } else if option.eq_ignore_ascii_case(b"keep-alive") {
                    self.closes = self.closes.or(Some(false));
                }
            }
        } else if name.eq_ignore_ascii_case(b"location") {
            self.location = Some(value);
        }
        Ok(())
    }

    fn framing(&self, status: u16) -> Framing {
        match (status, self.chunked, self.length) {
            (100..200 | 204 | 304, _, _) => Framing::Length(0),
            (_, Some(true), _) => Framing::Chunked,
            (_, Some(false), _) | (_, None, None) => Framing::UntilClose,
            (_, None, Some(length)) => Framing::Length(length),
        }
    }
}

/// A number of digits only.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NGINX: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nContent-Length: 615\r\n\
        Connection: keep-alive\r\nETag: \"63-267\"\r\nAccept-Ranges: bytes\r\n\r\n<!DOCTYPE";

    fn head(bytes: &[u8]) -> Head<'_> {
        parse(bytes).unwrap().unwrap()
    }

    #[test]
    fn a_head_ends_where_its_body_begins() {
        let found = head(NGINX);
        assert_eq!((found.status, found.framing), (200, Framing::Length(615)));
        assert!(!found.closes);
        assert_eq!(&NGINX[found.bytes..], b"<!DOCTYPE");
    }

    #[test]
    fn no_part_of_a_head_is_taken_for_all_of_it() {
        let end = head(NGINX).bytes;
        for length in 0..end {
            assert_eq!(parse(&NGINX[..length]), Ok(None), "of {length} bytes");
        }
    }

    #[test]
    fn fields_are_found_whatever_their_case() {
        let found = head(b"HTTP/1.1 202 Accepted\r\nLOCATION:  /v2/a \r\ncontent-LENGTH:0\r\n\r\n");
        assert_eq!(found.location, Some(&b"/v2/a"[..]));
        assert_eq!(found.framing, Framing::Length(0));
    }

    #[test]
    fn the_end_of_a_body_is_known_as_the_rfc_says() {
        let framing = |text: &str| head(format!("HTTP/1.1 {text}\r\n\r\n").as_bytes()).framing;
        assert_eq!(framing("204 No Content"), Framing::Length(0));
        assert_eq!(framing("304 Not Modified\r\nContent-Length: 9"), Framing::Length(0));
        assert_eq!(framing("200 OK\r\nTransfer-Encoding: gzip, Chunked"), Framing::Chunked);
        // Chunks count, and not a length beside them.
        let both = "200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked";
        assert_eq!(framing(both), Framing::Chunked);
        assert_eq!(framing("200 OK\r\nTransfer-Encoding: gzip"), Framing::UntilClose);
        assert_eq!(framing("200 OK"), Framing::UntilClose);
    }

    #[test]
    fn a_connection_lives_on_unless_somebody_says_otherwise() {
        let closes = |text: &str| head(text.as_bytes()).closes;
        assert!(!closes("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"));
        assert!(closes("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: foo, Close\r\n\r\n"));
        assert!(closes("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n"));
        assert!(!closes("HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n"));
        assert!(closes("HTTP/1.1 200 OK\r\n\r\n"));
    }

    #[test]
    fn nonsense_is_refused() {
        for (wrong, why) in [
            ("HTTP/2 200 OK\r\n\r\n", Malformed::StatusLine),
            ("HTTP/1.1 2x0 OK\r\n\r\n", Malformed::StatusLine),
            ("HTTP/1.1 2000\r\n\r\n", Malformed::StatusLine),
            ("220 ready\r\n", Malformed::StatusLine),
            ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", Malformed::Field),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Malformed::Field),
            ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", Malformed::Field),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", Malformed::Field),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Malformed::Field),
        ] {
            assert_eq!(parse(wrong.as_bytes()), Err(why), "{wrong:?}");
        }
        assert_eq!(parse(&b"x".repeat(HEAD_BYTES_MAX + 1)), Err(Malformed::LongHead));
    }
}
