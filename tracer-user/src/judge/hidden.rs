//! What the logs were told to leave out: requests that nginx cut for a reason that it logs
//! below the level of every log that was followed, and lines dropped by a limit of rate.

use super::Judge;
use super::end::{Ending, ending};
use crate::nginx::line::Level;
use crate::report::words::counted;
use crate::trace::record::Nginx;

/// Angie and freenginx write this once for all the lines that they drop.
pub(super) const LIMITING: &str = "too many log messages, limiting";

/// Closes with a request in flight, and no line, at a level that hides clients that leave.
pub(super) fn below_level(judge: &Judge) -> Option<String> {
    let capture = judge.capture.as_ref()?;
    let level_of = |word: &str| Level::from_word(word.as_bytes());
    let shows = |word: &str| level_of(word).is_none_or(|level| level >= Level::Info);
    // A request's lines go to the logs of its own context and to no other.
    let narrowest = capture
        .nginx
        .iter()
        .filter_map(|nginx| {
            let level = nginx.narrowest_level.as_deref();
            level.or_else(|| widest(nginx))
        })
        .min_by_key(|word| level_of(word))?;
    if shows(narrowest) {
        return None;
    }
    let closed: u64 = judge
        .upstreams
        .values()
        .map(|figures| figures.closes().nginx_in_flight)
        .sum();
    let told = judge
        .entries
        .iter()
        .filter_map(|entry| entry.connection())
        .filter(|connection| ending(connection) == Ending::NginxInFlight)
        .count() as u64;
    let silent = closed.saturating_sub(told);
    (silent > 0).then(|| {
        format!(
            "nginx closed {} with a request in flight and logged nothing: that a client left is \
             logged at info, and nginx's error log is at {narrowest}; `error_log FILE info;` for \
             the time of a capture tells which they were",
            counted(silent, "connection", "connections"),
        )
    })
}

/// Where it is not known which contexts the logs are of: the widest of their levels. A log
/// that the user gave may be at any.
fn widest(nginx: &Nginx) -> Option<&str> {
    let levels = nginx.error_logs.iter();
    let levels = levels.map(|log| log.level.as_deref().unwrap_or("info"));
    levels.max_by_key(|word| Level::from_word(word.as_bytes()))
}

/// Lines that nginx itself dropped.
pub(super) fn limited(judge: &Judge) -> Option<String> {
    (judge.limitings > 0).then(|| {
        format!(
            "nginx limited the rate of its log {} (`{LIMITING}`): lines are missing from it",
            counted(judge.limitings, "time", "times")
        )
    })
}
