//! As much of HTTP/1.1 as the lab's two ends need: heads, lengths and chunks.

use anyhow::{Context, Result, bail};

/// A head longer than this is refused.
pub(crate) const HEAD_LIMIT: usize = 64 * 1024;

/// A request's or response's first line and headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// First line, without its line end.
    pub first_line: String,
    /// Names and values as sent.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// Takes apart a head that ends with the empty line.
    ///
    /// # Errors
    /// If it is not UTF-8, has no first line or a header without a colon.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).context("head is not UTF-8")?;
        let mut lines = text.split("\r\n");
        let first_line = lines
            .next()
            .filter(|line| !line.is_empty())
            .context("empty head")?;
        let mut headers = Vec::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line
                .split_once(':')
                .with_context(|| format!("header without colon: {line:?}"))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        Ok(Self {
            first_line: first_line.to_owned(),
            headers,
        })
    }

    /// Value of the first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Value of `Content-Length`.
    ///
    /// # Errors
    /// If there is one that is not a number.
    pub fn content_length(&self) -> Result<Option<usize>> {
        self.header("content-length")
            .map(|value| {
                value
                    .parse()
                    .with_context(|| format!("Content-Length {value:?}"))
            })
            .transpose()
    }

    /// Whether the sender said that it closes after this message.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.first_line.contains("HTTP/1.0")
            || self
                .header("connection")
                .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// Whether the body comes in chunks.
    #[must_use]
    pub fn chunked(&self) -> bool {
        self.header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }
}

/// Length of the head at the start of `bytes`, its empty line included, once it is whole.
///
/// # Errors
/// If there is still no end after [`HEAD_LIMIT`] bytes.
pub fn head_length(bytes: &[u8]) -> Result<Option<usize>> {
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4);
    if end.is_none() && bytes.len() > HEAD_LIMIT {
        bail!("no end of the head in {} bytes", bytes.len());
    }
    Ok(end)
}

/// What is known of a chunked body so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    /// Bytes of payload.
    pub payload: usize,
    /// The last chunk and the end of the trailer have come.
    pub complete: bool,
}

/// Counts the payload of a chunked body from its beginning.
///
/// # Errors
/// If a chunk's size is not hexadecimal.
pub fn chunks(mut bytes: &[u8]) -> Result<Chunks> {
    let mut payload = 0;
    // Ends: every turn consumes at least the line end of one chunk's size.
    while let Some(line_end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..line_end]).context("chunk size is not text")?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size =
            usize::from_str_radix(size, 16).with_context(|| format!("chunk size {size:?}"))?;
        let rest = &bytes[line_end + 2..];
        if size == 0 {
            // An empty trailer, or one with fields.
            let ends = rest.windows(4).any(|window| window == b"\r\n\r\n");
            return Ok(Chunks {
                payload,
                complete: rest.starts_with(b"\r\n") || ends,
            });
        }
        payload += size.min(rest.len());
        match rest.get(size + 2..) {
            Some(next) => bytes = next,
            None => break,
        }
    }
    Ok(Chunks {
        payload,
        complete: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_taken_apart_at_its_empty_line() {
        let bytes = b"GET /a HTTP/1.1\r\nHost: h\r\nX-Lab: close\r\nContent-Length: 3\r\n\r\nabc";
        let length = head_length(bytes).unwrap().unwrap();
        assert_eq!(&bytes[length..], b"abc");
        let head = Head::parse(&bytes[..length]).unwrap();
        assert_eq!(head.first_line, "GET /a HTTP/1.1");
        assert_eq!(head.header("x-lab"), Some("close"));
        assert_eq!(head.content_length().unwrap(), Some(3));
        assert!(!head.closes());
    }

    #[test]
    fn an_unfinished_head_has_no_length_and_an_endless_one_is_an_error() {
        assert_eq!(head_length(b"GET / HTTP/1.1\r\nHost").unwrap(), None);
        assert!(head_length(&vec![b'a'; HEAD_LIMIT + 1]).is_err());
    }

    #[test]
    fn a_cut_chunked_body_is_not_complete() {
        let whole = b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n";
        assert_eq!(
            chunks(whole).unwrap(),
            Chunks {
                payload: 7,
                complete: true
            }
        );
        for cut in 0..whole.len() {
            assert!(
                !chunks(&whole[..cut]).unwrap().complete,
                "complete at {cut} bytes"
            );
        }
        assert_eq!(chunks(b"3\r\nabc\r\n4\r\nde").unwrap().payload, 5);
        assert!(chunks(b"zz\r\n").is_err());
    }
}
