//! A trace's bytes as text: takes zstd frames apart, or passes plain text on.
//!
//! A frame's text is handed on once its checksum has proved right. After a
//! damaged frame the search goes on for the next one, within the bytes of the
//! damaged one too, since it is often its length that is wrong.

use std::fmt;
use std::io::{self, Read};

use memchr::memmem;
use zstd::stream::raw::{Decoder, Operation};

/// Begins every zstd frame (RFC 8878, 3.1.1), little-endian 0xFD2FB528.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Bytes that one read asks for.
const READ: usize = 128 << 10;
/// Compressed bytes of one frame that are kept for the search after damage;
/// the writer's frames are far smaller.
const HELD_MAX: usize = 8 << 20;
/// Text of one frame that is held back until the checksum. Only a file that was
/// compressed anew as one frame goes beyond.
const TEXT_MAX: usize = super::MAX_LINE + (2 << 20);
/// Damaged frames after which the file is given up.
const DAMAGED_MAX: u64 = 1000;

/// What [`Frames::step`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Added text.
    Text,
    /// Skipped a damaged part: an unfinished line has lost its other half.
    Broken,
    /// Nothing more.
    End,
}

pub(super) struct Frames<R> {
    source: R,
    /// `None` if the source is plain text.
    decoder: Option<Decoder<'static>>,
    /// Compressed bytes.
    held: Vec<u8>,
    /// The current frame's first byte in `held`, or what is left of it.
    start: usize,
    /// `start` is the frame's first byte indeed.
    start_held: bool,
    /// The next byte in `held` for the decoder.
    position: usize,
    /// Offset of `held[0]` in the source.
    offset: u64,
    /// Offset of the current frame in the source.
    frame_offset: u64,
    source_ended: bool,
    /// Decoded text of the current frame.
    text: Vec<u8>,
    /// Text of the current frame was handed on unproved.
    released: bool,
    output: Box<[u8]>,
    damaged: u64,
    first_damage: u64,
    end: Option<String>,
    done: bool,
}

impl<R> fmt::Debug for Frames<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames")
            .field("compressed", &self.decoder.is_some())
            .field("offset", &self.offset)
            .field("damaged", &self.damaged)
            .finish_non_exhaustive()
    }
}

impl<R: Read> Frames<R> {
    pub(super) fn new(source: R) -> io::Result<Self> {
        let mut frames = Self {
            source,
            decoder: None,
            held: Vec::new(),
            start: 0,
            start_held: true,
            position: 0,
            offset: 0,
            frame_offset: 0,
            source_ended: false,
            text: Vec::new(),
            released: false,
            output: vec![0; READ].into_boxed_slice(),
            damaged: 0,
            first_damage: 0,
            end: None,
            done: false,
        };
        while frames.held.len() < MAGIC.len() && frames.fill()? {}
        if starts_frame(&frames.held) {
            frames.decoder = Some(Decoder::new()?);
        }
        Ok(frames)
    }

    /// The source holds nothing at all.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.source_ended && self.offset == 0
    }

    /// Damaged frames that were skipped.
    pub(super) fn skipped(&self) -> u64 {
        self.damaged
    }

    /// What was skipped or is missing.
    pub(super) fn damage(&self) -> Option<String> {
        let skipped = (self.damaged > 0).then(|| {
            format!(
                "{} damaged frame{} skipped, the first at byte {}",
                self.damaged,
                if self.damaged == 1 { " was" } else { "s were" },
                self.first_damage
            )
        });
        match (skipped, &self.end) {
            (Some(skipped), Some(end)) => Some(format!("{skipped}; {end}")),
            (skipped, end) => skipped.or_else(|| end.clone()),
        }
    }

    /// Adds the next piece of text to `text`.
    pub(super) fn step(&mut self, text: &mut Vec<u8>) -> io::Result<Step> {
        if self.done {
            return Ok(Step::End);
        }
        if self.decoder.is_none() {
            return self.step_plain(text);
        }
        loop {
            let between_frames = self.start_held && self.start == self.held.len();
            if between_frames && !self.fill()? {
                self.done = true;
                return Ok(Step::End);
            }
            match self.decode() {
                Ok(Decoded::FrameEnd) => {
                    text.append(&mut self.text);
                    self.begin_frame(self.position)?;
                    return Ok(Step::Text);
                }
                Ok(Decoded::Some) if self.text.len() > TEXT_MAX => {
                    text.append(&mut self.text);
                    self.released = true;
                    return Ok(Step::Text);
                }
                Ok(Decoded::Some) => {}
                Ok(Decoded::Nothing) => {
                    if !self.fill()? {
                        return self.recover(text, true);
                    }
                }
                Err(_) => return self.recover(text, false),
            }
        }
    }

    fn step_plain(&mut self, text: &mut Vec<u8>) -> io::Result<Step> {
        if self.held.is_empty() && !self.fill()? {
            self.done = true;
            return Ok(Step::End);
        }
        self.offset += self.held.len() as u64;
        text.append(&mut self.held);
        Ok(Step::Text)
    }

    fn decode(&mut self) -> io::Result<Decoded> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(Decoded::Nothing);
        };
        let status = decoder.run_on_buffers(&self.held[self.position..], &mut self.output)?;
        self.position += status.bytes_read;
        self.text
            .extend_from_slice(&self.output[..status.bytes_written]);
        Ok(if status.remaining == 0 {
            Decoded::FrameEnd
        } else if status.bytes_read > 0 || status.bytes_written > 0 {
            Decoded::Some
        } else {
            Decoded::Nothing
        })
    }

    /// Reads more into `held`; false at the source's end.
    fn fill(&mut self) -> io::Result<bool> {
        if self.source_ended {
            return Ok(false);
        }
        if self.held.len() - self.start > HELD_MAX {
            self.start_held = false;
        }
        if !self.start_held {
            self.start = self.position;
        }
        self.held.drain(..self.start);
        self.offset += self.start as u64;
        self.position -= self.start;
        self.start = 0;
        let before = self.held.len();
        self.held.resize(before + READ, 0);
        let read = loop {
            match self.source.read(&mut self.held[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.held.truncate(before + *read.as_ref().unwrap_or(&0));
        self.source_ended = read? == 0;
        Ok(!self.source_ended)
    }

    /// The next frame begins `at` bytes into `held`.
    fn begin_frame(&mut self, at: usize) -> io::Result<()> {
        self.start = at;
        self.position = at;
        self.start_held = true;
        self.frame_offset = self.offset + at as u64;
        self.released = false;
        self.text.clear();
        match &mut self.decoder {
            Some(decoder) => decoder.reinit(),
            None => Ok(()),
        }
    }

    /// The current frame cannot be decoded: goes to the next, if there is one.
    fn recover(&mut self, text: &mut Vec<u8>, cut: bool) -> io::Result<Step> {
        let at = self.frame_offset;
        // Its own magic is no beginning of the next frame.
        let mut from = self.start + usize::from(self.start_held);
        let next = if self.damaged >= DAMAGED_MAX {
            None
        } else {
            loop {
                let rest = self.held.get(from..).unwrap_or_default();
                if let Some(found) = memmem::find(rest, &MAGIC) {
                    break Some(from + found);
                }
                // The last bytes may be the beginning of a magic.
                let keep = self.held.len().saturating_sub(MAGIC.len() - 1).max(from);
                self.start = keep.min(self.held.len());
                self.position = self.start;
                if !self.fill()? {
                    break None;
                }
                from = self.start;
            }
        };
        if let Some(next) = next {
            if self.damaged == 0 {
                self.first_damage = at;
            }
            self.damaged += 1;
            self.begin_frame(next)?;
            return Ok(Step::Broken);
        }
        self.done = true;
        if cut {
            // What a cut frame holds is as good as the file up to there.
            self.end = Some(format!("the last frame, from byte {at} on, is cut off"));
            text.append(&mut self.text);
            return Ok(Step::Text);
        }
        self.end = Some(format!("from byte {at} on the file is damaged"));
        Ok(Step::Broken)
    }
}

/// What one call of the decoder brought.
enum Decoded {
    FrameEnd,
    Some,
    Nothing,
}

/// A zstd frame or a skippable one (RFC 8878, 3.1.2), which some compressors
/// put first.
fn starts_frame(bytes: &[u8]) -> bool {
    match bytes.get(..MAGIC.len()) {
        Some(start) => {
            start == MAGIC || (start[0] & 0xf0 == 0x50 && start[1..] == [0x2a, 0x4d, 0x18])
        }
        None => !bytes.is_empty() && MAGIC.starts_with(bytes),
    }
}
