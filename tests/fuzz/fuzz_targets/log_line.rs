//! Any bytes as one record of the error log. The parser's files alone are compiled: the
//! agent around them takes minutes.

#![no_main]

mod checks;

#[path = "../../../tracer-user/src/nginx"]
mod nginx {
    pub mod line;
    pub mod message;
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::line(bytes));
