//! Percent encoding, in the two places where the API meets it.

/// Decodes a path. Only octets that RFC 3986 calls unreserved, and the colon of a digest, may be
/// escaped: clients do escape those. An escaped dot, slash, NUL or byte over 0x7F would make the
/// path mean something that a proxy before us did not see, so the answer is `None`.
pub(crate) fn decode_path(text: &str) -> Option<String> {
    let bytes = decode(text)?;
    let plain = String::from_utf8(bytes).ok()?;
    let mut escaped = text.split('%').skip(1).map(|tail| tail.get(..2));
    let harmless = escaped.all(|hex| {
        let octet = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        octet.is_some_and(|octet| octet.is_ascii_alphanumeric() || b"-_~:".contains(&octet))
    });
    harmless.then_some(plain)
}

/// Decodes the value of a query parameter. `+` stays `+`: no parameter of ours can hold a space, and
/// media types do hold plus signs that clients forget to escape.
pub(crate) fn decode_query(text: &str) -> Option<String> {
    String::from_utf8(decode(text)?).ok()
}

/// Encodes a value for a query.
pub(crate) fn encode_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b"-_.~:/".contains(&octet) {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("%{octet:02X}"));
        }
    }
    out
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut pieces = text.split('%');
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(pieces.next()?.as_bytes());
    for piece in pieces {
        let hex = piece.get(..2)?;
        if !hex.bytes().all(|octet| octet.is_ascii_hexdigit()) {
            return None;
        }
        out.push(u8::from_str_radix(hex, 16).ok()?);
        out.extend_from_slice(piece.get(2..)?.as_bytes());
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn paths_decode_only_what_keeps_their_meaning() {
        assert_eq!(decode_path("sha256%3Aab").as_deref(), Some("sha256:ab"));
        assert_eq!(decode_path("%61b").as_deref(), Some("ab"));
        for text in ["%2e", "%2F", "%00", "%", "%4", "%zz", "%+1", "%c3%a9", "%25"] {
            assert_eq!(decode_path(text), None, "{text}");
        }
    }

    #[test]
    fn queries_go_there_and_back() {
        let text = "application/vnd.example+json; a=\"é\"&b";
        assert_eq!(decode_query(&encode_query(text)).as_deref(), Some(text));
        assert_eq!(decode_query("a+b").as_deref(), Some("a+b"));
        assert_eq!(decode_query("%ff"), None);
    }
}
