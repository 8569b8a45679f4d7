//! How fast the error log's grammar is: reads a file in chunks as a follower does, cuts it
//! into records, takes each apart and says what it means. Prints what it found and the
//! time. `cargo xtask bench-log` runs it beside `grep -c` on the same file.

use std::fs::File;
use std::io::Read as _;
use std::time::Instant;

#[path = "../../tracer-user/src/nginx"]
mod nginx {
    pub mod line;
    pub mod message;
}

use nginx::{line, message};

const CHUNK: usize = 64 << 10;

#[derive(Default)]
struct Counts {
    records: u64,
    upstream: u64,
    unread: u64,
}

impl Counts {
    /// One record, as the follower hands it on: a text of its own.
    fn record(&mut self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        self.records += 1;
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => error.as_bytes().iter().map(|&byte| char::from(byte)).collect(),
        };
        match line::read(&text, |line| message::classify(line).is_some()) {
            Some(true) => self.upstream += 1,
            Some(false) => {}
            None => self.unread += 1,
        }
    }
}

fn main() -> std::io::Result<()> {
    let path = std::env::args().nth(1).expect("usage: log_speed FILE");
    let mut file = File::open(path)?;
    let begun = Instant::now();
    let mut counts = Counts::default();
    let mut chunk = vec![0; CHUNK];
    // Bytes after the last LF, and the record that further lines may continue.
    let (mut partial, mut held): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
    let mut total = 0;
    loop {
        let length = file.read(&mut chunk)?;
        if length == 0 {
            break;
        }
        total += length;
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &chunk[..length]) {
            partial.extend_from_slice(&chunk[start..end]);
            if line::starts_record(&partial) {
                let next = std::mem::take(&mut partial);
                counts.record(std::mem::replace(&mut held, next));
            } else {
                held.push(b'\n');
                held.append(&mut partial);
            }
            start = end + 1;
        }
        partial.extend_from_slice(&chunk[start..length]);
    }
    counts.record(held);
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{total} bytes, {} records, {} about an upstream, {} not nginx's, {seconds:.3} s",
        counts.records, counts.upstream, counts.unread
    );
    Ok(())
}
