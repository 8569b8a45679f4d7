//! From a trace to findings: a pure function. No clock, no file system, no kernel, no
//! configuration of the host that runs it; the same trace gives the same report, byte
//! for byte. The live output of a capture is the same function on a growing trace.
//!
//! Records are taken one by one ([`Judge::push`]) and kept only as long as a line may
//! need them: what stays are the incidents and each upstream's figures.

mod agreement;
mod alignment;
mod attempts;
mod backends;
mod bursts;
pub mod by_functions;
mod case;
mod causes;
pub(crate) mod clock;
mod closes;
mod doubtful;
mod doubts;
mod duplicates;
mod end;
mod ended_by;
mod entry;
mod findings;
mod finishing;
mod fitting;
mod foreign;
mod generations;
mod hidden;
mod history;
mod incident;
mod legible;
mod limits;
mod line;
mod logs;
mod losses;
mod mid_life;
mod moments;
mod no_live;
mod peers;
mod queues;
mod recent;
mod remote;
mod samples;
mod settings;
mod shutdown;
mod silences;
mod socket;
mod spoken;
mod staleness;
mod summary;
mod taking;
mod timers;
mod unseen;
mod upstreams;
pub(crate) mod without_calls;
mod work;
mod workers;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

pub use self::entry::Details;

use self::clock::Clock;
use self::entry::Entry;
use self::generations::Generations;
use self::history::History;
use self::legible::Legible;
use self::logs::Logs;
use self::losses::Lost;
use self::moments::Moments;
use self::peers::Peers;
use self::queues::Queues;
use self::recent::Recent;
use self::remote::Remote;
use self::shutdown::Shutdowns;
use self::upstreams::Figures;
use self::workers::{Settled, Worker};
use crate::report::model::Report;
use crate::trace::record::{Capture, Continuation, End, Record};

/// A report and, for each incident in its order, what it was made from.
#[derive(Debug)]
pub struct Judged {
    /// The report.
    pub report: Report,
    /// Details by incident.
    pub details: Vec<Details>,
}

/// Judges a whole trace. `notes` are what the reader has to say of the file.
pub fn judge(records: impl IntoIterator<Item = Record>) -> Judge {
    let mut judge = Judge::default();
    for record in records {
        judge.push(&record);
    }
    judge
}

/// The state of judging.
#[derive(Debug, Default)]
pub struct Judge {
    capture: Option<Capture>,
    clock: Clock,
    zones: HashMap<u32, jiff::tz::TimeZone>,
    /// Master of each worker, both on the host.
    masters: HashMap<u32, u32>,
    /// What each worker runs with.
    generations: Generations,
    /// Instances that loaded another configuration during the capture, and that appeared,
    /// and when.
    reloaded: BTreeSet<u32>,
    appeared: BTreeMap<u32, u64>,
    /// Those of whose lines one was seen being written.
    proven: BTreeSet<u32>,
    /// Host pid of a worker by its master and the pid in its lines.
    pids: HashMap<(u32, u32), u32>,
    /// Each master's logs.
    logs: HashMap<u32, Logs>,
    workers: HashMap<u32, Worker>,
    /// Workers that have gone, and when.
    gone: VecDeque<(u64, u32)>,
    /// Continuations whose incident has not come.
    continuations: Recent<Continuation>,
    entries: Vec<Entry>,
    /// The last entry of each connection.
    entry_of: HashMap<u64, usize>,
    /// Entries before this one have been given out by [`Judge::fresh`].
    told: usize,
    upstreams: BTreeMap<Remote, Figures>,
    /// Network namespace of a worker.
    networks: HashMap<u32, u32>,
    other_lines: u64,
    legible: Legible,
    /// Times that nginx said that it drops lines.
    limitings: u64,
    duplicates: u64,
    /// Lines that were not seen being written, among too many closes to tell which was theirs.
    crowded: u64,
    sightings_dropped: u64,
    /// Some were too many to wait for their lines.
    sightings_forgotten: bool,
    /// Lines in nginx's logs that nginx did not write.
    foreign: u64,
    /// What was lost in all, by kind.
    lost: BTreeMap<String, u64>,
    /// How much was noticed lost when.
    losses: Lost,
    /// Lines whose connections show what they report only if calls of nginx's were missed:
    /// whether some were is known a little later.
    doubtful: VecDeque<(u32, Settled)>,
    /// Lines of each worker that were not seen being written.
    unseen: HashMap<u32, Moments>,
    end: Option<End>,
    last_ns: u64,
    order: u64,
    shutdowns: Shutdowns,
    /// Connections that ended, or were open at the end, with a request unanswered: when
    /// it began.
    unanswered: Recent<u64>,
    /// The backends' own side, where it is on this host, or another capture on its host
    /// tells of it.
    peers: Peers,
    /// Connections whose backends' side nobody watched, though that of others was.
    unwatched: HashSet<u64>,
    /// Connections whose backend's side may be missing for losses of the capture on its
    /// host, and that host.
    sides_lost: HashMap<u64, String>,
    queues: Queues,
    histories: BTreeMap<Remote, History>,
    /// Backends of connections whose other end's record may still come.
    remotes: Recent<Remote>,
}

impl Judge {
    /// A judge of a trace that is joined with others: the backends' sides of these
    /// connections were not watched, whatever is known of others'; those that were lost are
    /// given with their hosts.
    #[must_use]
    pub fn joined(unwatched: HashSet<u64>, sides_lost: HashMap<u64, String>) -> Self {
        Self {
            unwatched,
            sides_lost,
            ..Self::default()
        }
    }
}
