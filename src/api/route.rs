//! Which resource of the distribution API a path names.
//!
//! Repository names hold slashes, so a path is read from its end: the last `blobs`, `manifests`,
//! `referrers` or `tags/list` segment that has something after it is the route's word.

use std::fmt;
use std::str::FromStr;

use tercet_storage::{Digest, Reference, RepositoryName, UploadId};

use super::challenge::TOKEN_PATH;
use super::error::{ApiError, OciCode};
use super::percent;

/// A parsed path. Everything in it is valid: nothing below parses again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/v2/` (end-1).
    Base,
    /// `/token`: Docker's token endpoint.
    Token,
    /// `/v2/_catalog`.
    Catalog,
    /// `/v2/<name>/blobs/<digest>` (end-2, end-10).
    Blob(RepositoryName, Digest),
    /// `/v2/<name>/blobs/uploads/` (end-4, end-11).
    Uploads(RepositoryName),
    /// `/v2/<name>/blobs/uploads/<id>` (end-5, end-6, end-13, end-14).
    Upload(RepositoryName, UploadId),
    /// `/v2/<name>/manifests/<reference>` (end-3, end-7, end-9).
    Manifest(RepositoryName, Reference),
    /// `/v2/<name>/tags/list` (end-8).
    Tags(RepositoryName),
    /// `/v2/<name>/referrers/<digest>` (end-12).
    Referrers(RepositoryName, Digest),
}

impl Route {
    /// Reads the raw, still encoded path of a request.
    ///
    /// # Errors
    ///
    /// `404` for a path that is no route, `400` with the code of the part that is not valid.
    pub(crate) fn parse(path: &str) -> Result<Self, ApiError> {
        if path == TOKEN_PATH {
            return Ok(Self::Token);
        }
        let rest = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Self::Base),
            Some(rest) => rest.strip_prefix('/').ok_or_else(|| unknown(path))?,
            None => return Err(unknown(path)),
        };
        if rest == "_catalog" {
            return Ok(Self::Catalog);
        }
        let segments: Vec<&str> = rest.split('/').collect();
        let Some((name, word, tail)) = split(&segments) else {
            // No word of ours: still say it when the name could never be one.
            return Err(unknown(path));
        };
        let name = repository(&name.join("/"))?;
        match (word, tail) {
            (Word::Tags, _) => Ok(Self::Tags(name)),
            (Word::Blobs, ["uploads"] | ["uploads", ""]) => Ok(Self::Uploads(name)),
            (Word::Blobs, ["uploads", id]) => Ok(Self::Upload(name, upload_id(id)?)),
            (Word::Blobs, tail) => Ok(Self::Blob(name, digest(&tail.join("/"))?)),
            (Word::Manifests, tail) => Ok(Self::Manifest(name, reference(&tail.join("/"))?)),
            (Word::Referrers, tail) => Ok(Self::Referrers(name, digest(&tail.join("/"))?)),
        }
    }

    /// The methods that the resource answers, for `Allow`.
    pub(crate) fn methods(&self) -> &'static str {
        match self {
            Self::Base | Self::Catalog | Self::Tags(_) | Self::Referrers(..) => "GET, HEAD",
            Self::Token => "GET, HEAD, POST",
            Self::Blob(..) => "GET, HEAD, DELETE",
            Self::Uploads(_) => "POST",
            Self::Upload(..) => "GET, HEAD, PATCH, PUT, DELETE",
            Self::Manifest(..) => "GET, HEAD, PUT, DELETE",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Blobs,
    Manifests,
    Referrers,
    Tags,
}

/// Splits at the last word that has something after it.
fn split<'a>(segments: &'a [&'a str]) -> Option<(&'a [&'a str], Word, &'a [&'a str])> {
    for index in (1..segments.len()).rev() {
        let (name, rest) = segments.split_at(index);
        let Some((word, tail)) = rest.split_first() else { continue };
        let word = match *word {
            "blobs" => Word::Blobs,
            "manifests" => Word::Manifests,
            "referrers" => Word::Referrers,
            "tags" if matches!(tail, ["list"] | ["list", ""]) => Word::Tags,
            _ => continue,
        };
        if !tail.is_empty() {
            return Some((name, word, tail));
        }
    }
    None
}

fn unknown(path: &str) -> ApiError {
    ApiError::not_found(format!("no such endpoint: {}", Shown(path)))
}

/// Parses a repository name out of a path or a query.
pub(crate) fn repository(text: &str) -> Result<RepositoryName, ApiError> {
    decoded(text, OciCode::NameInvalid)
}

/// Parses a digest out of a path or a query.
pub(crate) fn digest(text: &str) -> Result<Digest, ApiError> {
    decoded(text, OciCode::DigestInvalid)
}

/// A reference with a colon can only be a digest: a tag has none.
fn reference(text: &str) -> Result<Reference, ApiError> {
    let digest_like = text.contains(':') || text.to_ascii_lowercase().contains("%3a");
    let code = match digest_like {
        true => OciCode::DigestInvalid,
        false if is_tag_like(text) => OciCode::TagInvalid,
        false => OciCode::NameInvalid,
    };
    decoded(text, code)
}

/// Whether text has nothing in it that no tag has; it may begin wrongly or be too long.
fn is_tag_like(text: &str) -> bool {
    let octet = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'_' | b'-');
    !text.is_empty() && text.bytes().all(octet)
}

/// A session that cannot exist is a session that does not exist.
fn upload_id(text: &str) -> Result<UploadId, ApiError> {
    text.parse().map_err(|_| ApiError::upload_unknown(&Shown(text)))
}

fn decoded<T>(text: &str, code: OciCode) -> Result<T, ApiError>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    let plain = percent::decode_path(text).ok_or_else(|| {
        ApiError::invalid(
            code,
            format!("{}: escapes that change the meaning of a path are refused", Shown(text)),
        )
    })?;
    plain.parse().map_err(|error| ApiError::invalid(code, format!("{}: {error}", Shown(text))))
}

/// Longest piece of a request that an error message repeats, in characters.
const SHOWN_CHARS_MAX: usize = 120;

/// Text from a client, cut and with control characters escaped, for messages.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_default) {
            fmt::Write::write_char(f, character)?;
        }
        if self.0.chars().nth(SHOWN_CHARS_MAX).is_some() {
            f.write_str("...")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn code(path: &str) -> (u16, &'static str) {
        let error = Route::parse(path).unwrap_err();
        (error.status.as_u16(), error.code.as_str())
    }

    #[test]
    fn plain_paths() {
        let name: RepositoryName = "a/b".parse().unwrap();
        let digest: Digest = format!("sha256:{HEX}").parse().unwrap();
        assert_eq!(Route::parse("/v2/").unwrap(), Route::Base);
        assert_eq!(Route::parse("/v2").unwrap(), Route::Base);
        assert_eq!(Route::parse("/token").unwrap(), Route::Token);
        assert_eq!(Route::parse("/v2/_catalog").unwrap(), Route::Catalog);
        assert_eq!(Route::parse("/v2/a/b/tags/list").unwrap(), Route::Tags(name.clone()));
        assert_eq!(Route::parse("/v2/a/b/blobs/uploads/").unwrap(), Route::Uploads(name.clone()));
        assert_eq!(Route::parse("/v2/a/b/blobs/uploads").unwrap(), Route::Uploads(name.clone()));
        for colon in [":", "%3A", "%3a"] {
            let path = format!("/v2/a/b/blobs/sha256{colon}{HEX}");
            assert_eq!(Route::parse(&path).unwrap(), Route::Blob(name.clone(), digest.clone()));
        }
        assert_eq!(
            Route::parse(&format!("/v2/a/b/referrers/sha256:{HEX}")).unwrap(),
            Route::Referrers(name.clone(), digest)
        );
        let tag: Reference = "latest".parse().unwrap();
        assert_eq!(Route::parse("/v2/a/b/manifests/latest").unwrap(), Route::Manifest(name, tag));
    }

    #[test]
    fn words_of_the_api_may_be_parts_of_names_and_tags() {
        let Route::Manifest(name, _) = Route::parse("/v2/x/manifests/blobs").unwrap() else {
            panic!("not a manifest")
        };
        assert_eq!(name.as_str(), "x");
        let Route::Tags(name) = Route::parse("/v2/blobs/uploads/manifests/tags/list").unwrap()
        else {
            panic!("not tags")
        };
        assert_eq!(name.as_str(), "blobs/uploads/manifests");
        let Route::Manifest(name, _) = Route::parse("/v2/x/tags/manifests/list").unwrap() else {
            panic!("not a manifest")
        };
        assert_eq!(name.as_str(), "x/tags");
    }

    #[test]
    fn bad_names_and_digests_have_their_codes() {
        for path in [
            "/v2/../manifests/latest",
            "/v2/a/../b/manifests/latest",
            "/v2/a%2f..%2fb/manifests/latest",
            "/v2/%2e%2e/manifests/latest",
            "/v2/a%00b/tags/list",
            "/v2/UPPER/tags/list",
            "/v2//tags/list",
            "/v2/a/manifests/../../etc/passwd",
            "/v2/a/manifests/%2e%2e",
            "/v2/a/manifests/.hidden",
            "/v2/a/manifests/-a",
            "/v2/a/manifests/",
            "/v2/%c3%a9/tags/list",
        ] {
            assert_eq!(code(path), (400, "NAME_INVALID"), "{path}");
        }
        assert_eq!(code(&format!("/v2/{}/tags/list", "a".repeat(300))), (400, "NAME_INVALID"));
        let long = format!("/v2/a/manifests/{}", "t".repeat(129));
        for (path, expected) in [
            (long.as_str(), OciCode::TagInvalid),
            ("/v2/a/manifests/..", OciCode::TagInvalid),
            ("/v2/a/manifests/%2e%2e", OciCode::NameInvalid),
            ("/v2/A/manifests/..", OciCode::NameInvalid),
        ] {
            assert_eq!(Route::parse(path).unwrap_err().code, expected, "{path}");
        }
        for digest in [
            "sha256:..",
            "sha256:",
            "",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            "../../../etc/passwd",
            "sha256%2f..",
            &format!("sha256:{}", &HEX[1..]),
            &format!("sha256:{HEX}0"),
            &format!("sha256:{}", HEX.to_uppercase()),
            &format!("sha512:{HEX}"),
        ] {
            assert_eq!(code(&format!("/v2/a/blobs/{digest}")), (400, "DIGEST_INVALID"), "{digest}");
        }
        assert_eq!(code("/v2/a/manifests/sha256:abc"), (400, "DIGEST_INVALID"));
        assert_eq!(code("/v2/a/referrers/sha256:abc"), (400, "DIGEST_INVALID"));
    }

    #[test]
    fn what_is_no_route_is_404() {
        for path in ["/", "/v1/", "/v2x", "/v2/a/b", "/v2/a/tags/lists", "/v2/blobs/x"] {
            assert_eq!(code(path).0, 404, "{path}");
        }
        assert_eq!(code("/v2/a/blobs/uploads/nothing"), (404, "BLOB_UPLOAD_UNKNOWN"));
        assert_eq!(code("/v2/a/blobs/uploads/%2e%2e"), (404, "BLOB_UPLOAD_UNKNOWN"));
    }
}
