//! A running emulator: waited for, with deadlines in its own work, and how far its guest was
//! after how much of that.

use std::fs;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Processor time of the emulator's in which a guest may say nothing before it counts as
/// hung: several times what the longest silence takes, and more than what the lab waits
/// for a fact on a guest's busy processor. Of the clock on the wall a busy host gives a
/// guest as little as it likes.
const SILENCE: Duration = Duration::from_secs(180);
/// Processor time for all of a guest's run.
const ALL: Duration = Duration::from_secs(900);
/// Time on the wall in which a guest may say nothing, for one that hangs without work.
const STILLNESS: Duration = Duration::from_secs(900);

/// How a guest ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// The emulator ended by itself.
    Itself(ExitStatus),
    /// It was ended at a deadline; which one, in words.
    Deadline(&'static str),
}

/// The emulator; dropping it ends it.
pub(super) struct Guest(pub(super) Child);

impl Guest {
    /// Waits for its end. How long its output was after how much work, for `output`.
    pub(super) fn wait(&mut self, console: &Path, output: &Path) -> Result<(End, Progress)> {
        let mut progress = Progress::default();
        let mut said = ((0, 0), Duration::ZERO, Instant::now());
        loop {
            let worked = self.worked();
            let now = (size(console), size(output));
            if now != said.0 {
                said = (now, worked, Instant::now());
                progress.0.push((now.1, worked));
            }
            if let Some(status) = self.0.try_wait().context("cannot wait for the emulator")? {
                progress.0.push((size(output), said.1.max(worked)));
                return Ok((End::Itself(status), progress));
            }
            let deadline = if worked.saturating_sub(said.1) > SILENCE {
                Some("it worked for three minutes and said nothing")
            } else if said.2.elapsed() > STILLNESS {
                Some("it said nothing for a quarter of an hour")
            } else if worked > ALL {
                Some("it worked for a quarter of an hour without an end")
            } else {
                None
            };
            if let Some(deadline) = deadline {
                return Ok((End::Deadline(deadline), progress));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Processor time that it has used.
    fn worked(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()));
        stat.ok()
            .and_then(|stat| parse_worked(&stat))
            .unwrap_or_default()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How long a guest's output was after how much work of the emulator's.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Vec<(u64, Duration)>);

impl Progress {
    /// The work until the output had this byte; none if it never had.
    pub(super) fn until(&self, byte: usize) -> Option<Duration> {
        let had = |(length, _): &&(u64, Duration)| *length > byte as u64;
        self.0.iter().find(had).map(|(_, worked)| *worked)
    }

    /// All the work.
    pub(super) fn all(&self) -> Duration {
        let last = self.0.last();
        last.map_or(Duration::ZERO, |(_, worked)| *worked)
    }
}

/// User's and system's time in `/proc/PID/stat` (proc(5)): fields 14 and 15, in hundredths
/// of a second on every Linux; the name in field 2 may hold anything.
fn parse_worked(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut hundredths = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (hundredths()? + hundredths()?)))
}

fn size(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |file| file.len())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_processor_time_of_a_process_is_read_whatever_its_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 39 19 3 0 77 1 1\n";
        assert_eq!(parse_worked(stat), Some(Duration::from_secs(3)));
        assert_eq!(parse_worked("7 (x"), None);
        let own = Guest(Command::new("true").spawn().unwrap());
        assert!(own.worked() < Duration::from_secs(1));
    }

    #[test]
    fn the_work_until_a_byte_was_there_is_that_of_the_first_look_that_found_it() {
        let seconds = Duration::from_secs;
        let progress = Progress(vec![(0, seconds(1)), (10, seconds(3)), (20, seconds(4))]);
        assert_eq!(progress.until(0), Some(seconds(3)));
        assert_eq!(progress.until(9), Some(seconds(3)));
        assert_eq!(progress.until(10), Some(seconds(4)));
        assert_eq!(progress.until(20), None);
        assert_eq!(progress.all(), seconds(4));
    }
}
