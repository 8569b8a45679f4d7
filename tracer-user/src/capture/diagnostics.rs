//! The kernel programs' own diagnostics (aya-log) on stderr, for `--log`.

use anyhow::{Context as _, Result};
use aya_log::EbpfLogger;
use log::{LevelFilter, Log, Metadata, Record};

use super::programs::Programs;

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        crate::stderr::line(format_args!(
            "{}: {}",
            record.level().as_str().to_lowercase(),
            record.args()
        ));
    }

    fn flush(&self) {}
}

/// Reads the programs' log.
pub(super) struct Diagnostics(EbpfLogger<&'static dyn Log>);

impl Diagnostics {
    /// Starts reading.
    ///
    /// # Errors
    /// If the programs have no log map.
    pub(super) fn start(programs: &mut Programs) -> Result<Self> {
        // Setting it twice, in a process that captures twice, changes nothing.
        if log::set_logger(&Stderr).is_ok() {
            log::set_max_level(LevelFilter::Trace);
        }
        Ok(Self(
            programs
                .diagnostics()
                .context("cannot read the kernel programs' log")?,
        ))
    }

    /// Prints what has come.
    pub(super) fn print(&mut self) {
        self.0.flush();
    }
}
