//! Messages to the user beside the report. Whoever reads them may have gone: that ends
//! no capture, where `eprintln!` would panic.

use std::fmt;
use std::io::{self, Write as _};

/// Prints a line on stderr, if anybody reads it.
pub fn line(text: impl fmt::Display) {
    let _nobody_reads = writeln!(io::stderr().lock(), "{text}");
}
