//! The beginning of a record: time, level, process and thread.

use jiff::civil::DateTime;
use memchr::memchr;

use super::Level;

/// `2026/11/22 18:22:06 [error] 13732#13732: `
pub(super) struct Head {
    pub(super) stamp: DateTime,
    pub(super) level: Level,
    pub(super) pid: u32,
    pub(super) tid: u32,
    /// Bytes up to the message or `*N`.
    pub(super) len: usize,
}

impl Head {
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let stamp = parse_stamp(line.get(..19)?)?;
        let rest = line.get(19..)?.strip_prefix(b" [")?;
        let (word, rest) = split_at_byte(rest, b']', 6)?;
        let level = Level::from_word(word)?;
        let (pid, rest) = split_at_byte(rest.strip_prefix(b" ")?, b'#', 10)?;
        let (tid, rest) = split_at_byte(rest, b':', 10)?;
        let rest = rest.strip_prefix(b" ")?;
        Some(Self {
            stamp,
            level,
            pid: u32::try_from(number(pid)?).ok()?,
            tid: u32::try_from(number(tid)?).ok()?,
            len: line.len() - rest.len(),
        })
    }
}

/// The pid that a record of the log shows, without reading more of it.
#[must_use]
pub fn pid_of_line(line: &[u8]) -> Option<u32> {
    let rest = line.get(19..)?.strip_prefix(b" [")?;
    let (_, rest) = split_at_byte(rest, b']', 6)?;
    let (pid, _) = split_at_byte(rest.strip_prefix(b" ")?, b'#', 10)?;
    u32::try_from(number(pid)?).ok()
}

/// `2026/11/22 18:22:06`
fn parse_stamp(stamp: &[u8]) -> Option<DateTime> {
    let separators = [(4, b'/'), (7, b'/'), (10, b' '), (13, b':'), (16, b':')];
    if separators.iter().any(|&(at, byte)| stamp[at] != byte) {
        return None;
    }
    let two = |at: usize| i8::try_from(number(&stamp[at..at + 2])?).ok();
    DateTime::new(
        i16::try_from(number(&stamp[..4])?).ok()?,
        two(5)?,
        two(8)?,
        two(11)?,
        two(14)?,
        two(17)?,
        0,
    )
    .ok()
}

/// Splits at the first `byte`, which must stand within the first `limit` bytes and one.
fn split_at_byte(text: &[u8], byte: u8, limit: usize) -> Option<(&[u8], &[u8])> {
    let end = memchr(byte, &text[..text.len().min(limit + 1)])?;
    Some((&text[..end], &text[end + 1..]))
}

/// A decimal number of ASCII digits only.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}
