//! Loss counters: what could not be sent or kept is counted where it happened.

/// A record that found no room in the ring buffer: a connection.
pub const CONNECTION_RECORDS: u32 = 0;
/// A record that found no room in the ring buffer: a log line's sighting.
pub const LOGGED_RECORDS: u32 = 1;
/// A record that found no room in the ring buffer: a continuation.
pub const CONTINUATION_RECORDS: u32 = 2;
/// A connection for which the kernel had no socket storage.
pub const SOCKET_STORAGE: u32 = 3;
/// A connection whose upstream found no slot in the counters (it counts in slot 0).
pub const UPSTREAM_SLOTS: u32 = 4;
/// A continuation pushed out by another thread with the same slot before it was complete.
pub const CONTINUATIONS_OVERWRITTEN: u32 = 5;
/// A record that found no room in the ring buffer: a backend's side that ended.
pub const PEER_CLOSE_RECORDS: u32 = 6;
/// A backend's side for which the kernel had no socket storage.
pub const PEER_STORAGE: u32 = 7;
/// A record that found no room in the ring buffer: a backend's process that ended.
pub const BACKEND_EXIT_RECORDS: u32 = 8;
/// A record that found no room in the ring buffer, or its text could not be read: a line
/// that nginx wrote.
pub const WRITTEN_RECORDS: u32 = 9;
/// A record that found no room in the ring buffer: an accepted connection.
pub const ACCEPTED_RECORDS: u32 = 10;
/// A send that was missed on request ([`crate::settings::MISSED_CALLS`]).
pub const SENDS_ON_REQUEST: u32 = 11;
/// A receive that was.
pub const RECEIVES_ON_REQUEST: u32 = 12;
/// Counters in the map `LOSS`.
pub const COUNT: u32 = 13;

/// Names of the counters, as the trace and the report give them.
pub const NAMES: [&str; COUNT as usize] = [
    "connection_records",
    "logged_records",
    "continuation_records",
    "socket_storage",
    "upstream_slots",
    "continuations_overwritten",
    "peer_close_records",
    "peer_storage",
    "backend_exit_records",
    "written_records",
    "accepted_records",
    "missed_runs:sends_on_request",
    "missed_runs:receives_on_request",
];
