//! Writes a trace: JSON lines in concatenated zstd frames, one file, append-only.
//!
//! Records collect in memory until [`Writer::flush`]; each flush writes one
//! frame with its checksum. What was flushed stays readable whatever happens
//! afterwards: a frame that could not be written whole is cut off again.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use zstd::bulk::Compressor;

use super::reader::MAX_LINE;
use super::record::{FORMAT, Header, Record, VERSION};
use crate::private_file::{self, Refused};

/// Bytes of JSON at which a frame is written without waiting for a flush.
pub const FRAME_BYTES: usize = 128 << 10;

/// The level at which compressing 20,000 connections a second costs a few per
/// cent of a processor.
const COMPRESSION_LEVEL: i32 = 3;

/// Why a trace could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The file exists and was not to be replaced.
    #[error("trace file {path} exists already: choose another name, or replace it with --force")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file exists and is a directory, device, link or pipe.
    #[error("{path} is not a regular file, so --force does not replace it")]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be created.
    #[error("cannot create trace file {path}")]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A frame could not be written; the records in it are lost.
    #[error(
        "cannot write to trace file {path}: {lost} records are lost, the {kept} bytes written before stay readable"
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// Records in the frame that could not be written.
        lost: u64,
        /// Bytes of whole frames in the file.
        kept: u64,
        /// Why.
        source: io::Error,
    },
    /// A record is longer than readers accept.
    #[error(
        "a record of kind {kind} is {bytes} bytes long, more than a trace can hold in one line"
    )]
    TooLong {
        /// Its kind.
        kind: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// A record could not be turned into JSON.
    #[error("cannot encode a record of kind {kind}")]
    Encode {
        /// Its kind.
        kind: &'static str,
        /// Why.
        source: serde_json::Error,
    },
}

/// What a frame is written to: the file, or a test's failing disk.
trait Storage: Send {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn cut(&mut self, length: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

impl Storage for File {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// A trace being written.
pub struct Writer {
    path: PathBuf,
    storage: Box<dyn Storage>,
    compressor: Compressor<'static>,
    /// JSON lines of the frame that is not written yet.
    pending: Vec<u8>,
    /// Records in `pending`, by kind.
    pending_counts: BTreeMap<&'static str, u64>,
    /// Records in whole frames, by kind.
    written_counts: BTreeMap<&'static str, u64>,
    /// Bytes of whole frames in the file.
    written: u64,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("path", &self.path)
            .field("pending", &self.pending.len())
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Creates the file, readable by its owner only, and writes the header.
    ///
    /// With `force` a regular file of that name is replaced by a new one, so
    /// that neither its mode nor its other names carry over.
    ///
    /// # Errors
    ///
    /// If the file exists (without `force`), cannot be created or written.
    pub fn create(path: &Path, force: bool) -> Result<Self, WriteError> {
        let failed = |source| WriteError::Create {
            path: path.to_owned(),
            source,
        };
        let file = private_file::create(path, force).map_err(|refused| match refused {
            Refused::Exists => WriteError::Exists {
                path: path.to_owned(),
            },
            Refused::NotRegular => WriteError::NotRegular {
                path: path.to_owned(),
            },
            Refused::Failed(source) => failed(source),
        })?;
        Self::start(path, Box::new(file))
    }

    /// Writes the header as a frame of its own: a full disk shows at once, and
    /// a trace cut off later still says what it is.
    fn start(path: &Path, storage: Box<dyn Storage>) -> Result<Self, WriteError> {
        let failed = |source| WriteError::Create {
            path: path.to_owned(),
            source,
        };
        let mut compressor = Compressor::new(COMPRESSION_LEVEL).map_err(failed)?;
        compressor
            .set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))
            .map_err(failed)?;
        let mut writer = Self {
            path: path.to_owned(),
            storage,
            compressor,
            pending: Vec::new(),
            pending_counts: BTreeMap::new(),
            written_counts: BTreeMap::new(),
            written: 0,
        };
        writer.write(&Record::Trace(Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            writer: concat!("whoclosed ", env!("CARGO_PKG_VERSION")).to_owned(),
        }))?;
        writer.flush()?;
        Ok(writer)
    }

    /// Adds a record. It reaches the file with the next [`flush`](Self::flush),
    /// or now if the frame is full.
    ///
    /// # Errors
    ///
    /// If the record cannot be encoded or a full frame cannot be written.
    pub fn write(&mut self, record: &Record) -> Result<(), WriteError> {
        let kind = kind(record);
        let start = self.pending.len();
        if let Err(source) = serde_json::to_writer(&mut self.pending, record) {
            self.pending.truncate(start);
            return Err(WriteError::Encode { kind, source });
        }
        let bytes = self.pending.len() - start;
        if bytes > MAX_LINE {
            self.pending.truncate(start);
            return Err(WriteError::TooLong { kind, bytes });
        }
        self.pending.push(b'\n');
        *self.pending_counts.entry(kind).or_default() += 1;
        if self.pending.len() >= FRAME_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Writes the records added since the last flush as one frame.
    ///
    /// # Errors
    ///
    /// If the frame cannot be written. Its records are lost and no longer
    /// counted; the frames before it stay readable, and the caller may go on:
    /// a smaller frame may still find room.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let outcome = self.compressor.compress(&self.pending).and_then(|frame| {
            self.storage.write_all_at(&frame, self.written)?;
            Ok(frame.len() as u64)
        });
        self.pending.clear();
        let counts = std::mem::take(&mut self.pending_counts);
        match outcome {
            Ok(length) => {
                self.written += length;
                for (kind, count) in counts {
                    *self.written_counts.entry(kind).or_default() += count;
                }
                Ok(())
            }
            Err(source) => {
                // Should this fail too, readers report the rest as a cut-off frame.
                let _ = self.storage.cut(self.written);
                Err(WriteError::Write {
                    path: self.path.clone(),
                    lost: counts.values().sum(),
                    kept: self.written,
                    source,
                })
            }
        }
    }

    /// Records of each kind so far, those that wait for a flush included: what
    /// the [`End`](super::record::End) record carries.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (kind, count) in self.written_counts.iter().chain(&self.pending_counts) {
            *counts.entry((*kind).to_owned()).or_default() += count;
        }
        counts
    }

    /// Bytes in the file.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Flushes and waits until the disk has it all.
    ///
    /// # Errors
    ///
    /// If the last frame cannot be written or the file cannot be synchronised.
    pub fn finish(mut self) -> Result<(), WriteError> {
        self.flush()?;
        self.storage.sync().map_err(|source| WriteError::Write {
            path: self.path.clone(),
            lost: 0,
            kept: self.written,
            source,
        })
    }
}

/// The word in a record's `kind` field.
#[must_use]
pub fn kind(record: &Record) -> &'static str {
    match record {
        Record::Trace(_) => "trace",
        Record::Capture(_) => "capture",
        Record::Anchor(_) => "anchor",
        Record::Connection(_) => "connection",
        Record::Logged(_) => "logged",
        Record::Continuation(_) => "continuation",
        Record::Line(_) => "line",
        Record::Process(_) => "process",
        Record::Instance(_) => "instance",
        Record::PeerClose(_) => "peer_close",
        Record::BackendExit(_) => "backend_exit",
        Record::BackendProcess(_) => "backend_process",
        Record::Accepted(_) => "accepted",
        Record::Listener(_) => "listener",
        Record::Upstream(_) => "upstream",
        Record::Loss(_) => "loss",
        Record::End(_) => "end",
        Record::Unknown => "unknown",
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
