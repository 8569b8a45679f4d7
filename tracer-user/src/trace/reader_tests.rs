//! Tests of the trace reader.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::trace::record::{Anchor, Loss};

fn loss(number: u64) -> Record {
    let what = format!("ring buffer {}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Record::Loss(Loss {
        ns: number,
        since_ns: None,
        what,
        count: number,
    })
}

fn header() -> Record {
    Record::Trace(Header {
        format: FORMAT.into(),
        version: VERSION,
        writer: "test".into(),
    })
}

fn lines(records: &[Record]) -> String {
    records.iter().fold(String::new(), |mut text, record| {
        writeln!(text, "{}", serde_json::to_string(record).unwrap()).unwrap();
        text
    })
}

fn frame(text: &str) -> Vec<u8> {
    let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
    compressor
        .set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))
        .unwrap();
    compressor.compress(text.as_bytes()).unwrap()
}

/// A header's frame and three more of ten records each, and where they end.
fn four_frames() -> (Vec<u8>, Vec<usize>) {
    let mut bytes = frame(&lines(&[header()]));
    let mut ends = vec![bytes.len()];
    for number in 0..3 {
        let records: Vec<_> = (number * 10..number * 10 + 10).map(loss).collect();
        bytes.extend(frame(&lines(&records)));
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// Reads as far as it goes; the header is left out.
fn read(bytes: &[u8]) -> (Vec<Record>, Trace<&[u8]>) {
    let mut trace = Trace::new(bytes, "test").unwrap();
    let records = trace.by_ref().skip(1).map(Result::unwrap).collect();
    (records, trace)
}

fn refusal(bytes: &[u8]) -> String {
    Trace::new(bytes, "the file").unwrap_err().to_string()
}

#[test]
fn a_trace_cut_off_at_any_byte_yields_every_whole_frame() {
    let (bytes, ends) = four_frames();
    for length in ends[0]..=bytes.len() {
        let (records, trace) = read(&bytes[..length]);
        let whole = ends.iter().filter(|&&end| end <= length).count() - 1;
        let wanted: Vec<_> = (0..whole as u64 * 10).map(loss).collect();
        assert_eq!(records[..wanted.len()], wanted, "cut at {length}");
        let at_end = ends.contains(&length);
        assert_eq!(
            trace.cut_off().is_none(),
            at_end,
            "cut at {length}: {:?}",
            trace.cut_off()
        );
        assert_eq!(trace.undecodable(), 0);
    }
    for length in 0..ends[0] {
        // All but the checksum is enough to know the header.
        if let Ok(trace) = Trace::new(&bytes[..length], "test") {
            assert!(length >= ends[0] - 4);
            assert_eq!(trace.count(), 1);
        }
    }
}

#[test]
fn plain_lines_are_read_and_a_cut_off_line_is_said() {
    let text = lines(&[header(), loss(1), loss(2)]);
    let (records, trace) = read(text.as_bytes());
    assert_eq!((records, trace.cut_off()), (vec![loss(1), loss(2)], None));
    let (records, trace) = read(text.trim_end().as_bytes());
    assert_eq!((records.len(), trace.cut_off()), (2, None));
    let (records, trace) = read(&text.as_bytes()[..text.len() - 5]);
    assert_eq!(records, [loss(1)]);
    assert_eq!(trace.cut_off().unwrap(), "the last line is cut off");
    assert_eq!(trace.undecodable(), 0);
}

#[test]
fn a_damaged_frame_is_skipped_and_the_next_ones_are_read() {
    let (bytes, ends) = four_frames();
    for at in ends[0]..ends[1] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0xff;
        let (records, trace) = read(&bytes);
        let expected: Vec<_> = (10..30).map(loss).collect();
        assert!(
            records.ends_with(&expected),
            "damaged at {at}: {:?}",
            trace.cut_off()
        );
        // Some bits of a frame header change nothing.
        if records.len() == 20 {
            assert!(
                trace.cut_off().unwrap().contains("damaged frame"),
                "at {at}"
            );
        } else {
            assert_eq!(records.len(), 30, "at {at}");
        }
    }
}

#[test]
fn a_file_that_ends_in_zeros_is_read_up_to_them() {
    let (mut bytes, _) = four_frames();
    let length = bytes.len();
    bytes.resize(length + 300_000, 0);
    let (records, trace) = read(&bytes);
    assert_eq!(records.len(), 30);
    assert_eq!(
        trace.cut_off().unwrap(),
        format!("from byte {length} on the file is damaged")
    );
}

#[test]
fn a_trace_compressed_anew_as_one_frame_is_streamed() {
    let long = |number| {
        let Record::Loss(mut loss) = loss(number) else {
            unreachable!()
        };
        loss.what = loss.what.repeat(40);
        Record::Loss(loss)
    };
    let records: Vec<_> = std::iter::once(header())
        .chain((0..20_000).map(long))
        .collect();
    let text = lines(&records);
    assert!(text.len() > MAX_LINE + (4 << 20), "{} bytes", text.len());
    let bytes = frame(&text);
    let (read_back, trace) = read(&bytes);
    assert_eq!(read_back, records[1..]);
    assert_eq!(trace.cut_off(), None);
    let (read_back, trace) = read(&bytes[..bytes.len() - 1000]);
    assert!(read_back.len() > 10_000);
    assert_eq!(read_back, records[1..=read_back.len()]);
    assert!(trace.cut_off().is_some());
}

#[test]
fn what_this_version_does_not_know_is_skipped_and_counted() {
    let mut text = lines(&[header(), loss(1)]);
    text += "{\"kind\":\"weather\",\"rain\":true}\n\nnonsense\n{\"kind\":\"loss\"}\n";
    text += "{\"kind\":\"anchor\",\"monotonic_ns\":1,\"realtime_ns\":2,\"moon\":\"full\"}\n";
    let bytes = frame(&text);
    let (records, trace) = read(&bytes);
    let anchor = Record::Anchor(Anchor {
        monotonic_ns: 1,
        realtime_ns: 2,
    });
    assert_eq!(records, [loss(1), Record::Unknown, anchor]);
    assert_eq!((trace.unknown(), trace.undecodable()), (1, 2));
}

#[test]
fn what_is_no_trace_is_refused_in_words() {
    assert_eq!(refusal(b""), "the file is empty: no capture wrote to it");
    assert!(refusal(b"hello\nworld\n").contains("not a whoclosed trace"));
    assert!(refusal(b"hello").contains("not a whoclosed trace"));
    assert!(refusal(b"\x1f\x8b\x08\0\0").contains("not a whoclosed trace"));
    assert!(refusal(&frame("hello\n")).contains("not a whoclosed trace"));
    assert!(refusal(&frame("")).contains("not a whoclosed trace"));
    assert!(refusal(lines(&[loss(1)]).as_bytes()).contains("not a whoclosed trace"));
    let (bytes, _) = four_frames();
    assert!(refusal(&bytes[..10]).contains("cut off"));
    let error = Trace::open(Path::new("/nowhere/to/be/found"))
        .unwrap_err()
        .to_string();
    assert_eq!(error, "cannot open trace /nowhere/to/be/found");
}

#[test]
fn a_newer_version_is_named_with_what_this_program_reads() {
    let text = r#"{"kind":"trace","format":"whoclosed.trace","version":7,"author":["x"]}"#;
    let error = refusal(text.as_bytes());
    assert!(
        error.contains("version 7") && error.contains("up to 1"),
        "{error}"
    );
    let later = lines(&[header(), loss(1)])
        + r#"{"kind":"trace","format":"whoclosed.trace","version":2,"writer":"x"}"#;
    let last = Trace::new(later.as_bytes(), "test")
        .unwrap()
        .last()
        .unwrap();
    assert!(matches!(last, Err(ReadError::Newer { found: 2, .. })));
}

#[test]
fn an_endless_line_is_an_error_and_takes_no_more_memory_than_the_limit() {
    let text = lines(&[header()]) + "{\"kind\":\"" + &"x".repeat(MAX_LINE + 10);
    for bytes in [text.clone().into_bytes(), frame(&text)] {
        let mut trace = Trace::new(&bytes[..], "test").unwrap();
        assert!(trace.next().unwrap().is_ok());
        assert!(matches!(
            trace.next(),
            Some(Err(ReadError::LineTooLong { .. }))
        ));
        assert!(trace.next().is_none());
    }
}

/// Delivers a byte a call.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((first, rest)) = self.0.split_first() else {
            return Ok(0);
        };
        buffer[0] = *first;
        self.0 = rest;
        Ok(1)
    }
}

#[test]
fn short_reads_make_no_difference() {
    let (bytes, _) = four_frames();
    let trace = Trace::new(Trickle(&bytes), "test").unwrap();
    assert_eq!(
        trace.skip(1).map(Result::unwrap).collect::<Vec<_>>(),
        read(&bytes).0
    );
}

fn drain(bytes: &[u8]) {
    if let Ok(mut trace) = Trace::new(bytes, "test") {
        let _ = trace.by_ref().count();
        let _ = trace.cut_off();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_traces_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let (mut bytes, _) = four_frames();
        for (index, value) in &changes {
            let at = index.index(bytes.len());
            bytes[at] = *value;
        }
        drain(&bytes);
    }

    #[test]
    fn mutated_text_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = lines(&[header(), loss(1), loss(2)]).into_bytes();
        for (index, value) in &changes {
            let at = index.index(bytes.len());
            bytes[at] = *value;
        }
        drain(&bytes);
    }

    #[test]
    fn arbitrary_bytes_after_a_header_never_panic(tail in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut bytes = frame(&lines(&[header()]));
        bytes.extend(tail);
        drain(&bytes);
    }
}
