//! What all connections of one upstream say together: how they ended, how long the
//! backend lets them idle, how many requests it allows on one, how fast it answers.

use std::collections::BTreeMap;

use super::case::Constants;
use super::end::{self, Ending};
use super::limits::Limits;
use super::mid_life;
use super::silences::Silences;
use super::spoken::{Counted, Spoken};
use super::without_calls::is_unmeasured;
use crate::report::model::{Closes, InferredLimit, InferredSize, InferredTimeout, Percentiles};
use crate::trace::record::{Connection, Histogram, Upstream};

/// Silences this much apart, and a quarter more, have no one timeout.
const DIFFER_NS: u64 = 100_000_000;
/// Closes that must agree before a constant of the backend is believed.
const AGREEING: u64 = 3;

/// One upstream's figures.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub(super) name: Option<String>,
    /// By the configuration, and by lines.
    pub(super) spoken: Spoken,
    /// nginx's calls were not seen, so exchanges are not counted.
    pub(super) calls_unseen: bool,
    /// Connections on which some were missed.
    pub(super) calls_missed: u64,
    /// Connections that carried something, and no TLS handshake was seen on them.
    without_handshake: u64,
    endings: BTreeMap<Ending, u64>,
    silences: Silences,
    /// The least and the longest silence before a request that was answered by an RST
    /// instead of an acknowledgement.
    reset_after: Option<(u64, u64)>,
    limits: Limits,
    connects: u64,
    connect_failures: u64,
    exchanges: u64,
    connect_us: BTreeMap<u64, u64>,
    first_byte_us: BTreeMap<u64, u64>,
    /// Bytes of requests that had an answer, early ones included.
    request_bytes: BTreeMap<u64, u64>,
    /// Of these, requests answered before they were whole, and after, as far as they are
    /// known exactly.
    early: BTreeMap<u64, u64>,
    whole: BTreeMap<u64, u64>,
    /// The largest request that was answered, of those that are known exactly.
    largest_answered: u64,
    /// The largest of those that had an answer, and may have had it before they were whole:
    /// the counters have each by what had been sent of it when the answer began.
    uncertain_up_to: u64,
    /// Requests that the backend gave up while they were sent, or without reading them.
    given_up: Vec<GivenUp>,
    /// Connections whose first request was met by their end, at once; of these, before
    /// any work on it, and with an alert of TLS; and all others that carried a request.
    refused_at_once: u64,
    without_work: u64,
    alerts: u64,
    others: u64,
    pub(super) incidents: u64,
    idle_timeout: Option<InferredTimeout>,
    size_threshold: Option<InferredSize>,
    answered_bytes: u64,
    surely_answered_bytes: u64,
    /// Size of the sample that it was inferred from.
    looked_at: u64,
}

/// A request that the backend gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GivenUp {
    /// Bytes sent of it.
    pub(super) bytes: u64,
    /// That was the whole request.
    pub(super) whole: bool,
}

/// Requests given up that are kept; the sizes of more say nothing new.
const MOST_GIVEN_UP: usize = 4096;

fn add(sum: &mut BTreeMap<u64, u64>, part: &Histogram) {
    for (bound, count) in part {
        *sum.entry(*bound).or_default() += count;
    }
}

impl Figures {
    pub(super) fn connection(&mut self, connection: &Connection) {
        self.calls_unseen |= connection.calls_unseen;
        self.calls_missed += u64::from(connection.missed_calls > 0);
        let ending = end::ending(connection);
        *self.endings.entry(ending).or_default() += 1;
        self.silences.connection(connection, ending);
        self.limits.connection(connection);
        if connection.exchanges == 0 {
            return;
        }
        // One older than the capture had its handshake before.
        let unseen = connection.handshake_ns.is_none() && !connection.first_seen_mid_life;
        self.without_handshake += u64::from(unseen);
        let refused = end::refused_at_once(connection);
        self.refused_at_once += u64::from(refused);
        self.without_work += u64::from(end::refused_without_work(connection));
        self.alerts += u64::from(end::is_tls_alert(connection));
        self.others += u64::from(!refused);
        if let Some(silence) = end::reset_instead_of_acknowledged(connection) {
            let (least, most) = self.reset_after.unwrap_or((silence, silence));
            self.reset_after = Some((least.min(silence), most.max(silence)));
        }
        let unknown = mid_life::request_began_before(connection) || is_unmeasured(connection);
        let is_whole = !unknown && end::answered_whole_request(connection);
        if !is_whole && (connection.first_byte_ns.is_some() || connection.response_bytes > 0) {
            self.uncertain_up_to = self.uncertain_up_to.max(connection.request_bytes);
        }
        if unknown {
            return;
        }
        if is_whole {
            let bucket = bucket_of(connection.request_bytes);
            *self.whole.entry(bucket).or_default() += 1;
            self.largest_answered = self.largest_answered.max(connection.request_bytes);
        } else if connection.first_byte_ns.is_some() {
            let bucket = bucket_of(connection.request_bytes);
            *self.early.entry(bucket).or_default() += 1;
        }
    }

    /// The backend gave this request up.
    pub(super) fn gave_up(&mut self, request: GivenUp) {
        if self.given_up.len() < MOST_GIVEN_UP {
            self.given_up.push(request);
        }
    }

    /// Looks at what the backend gave up from the beginning.
    pub(super) fn forget_given_up(&mut self) {
        self.given_up.clear();
    }

    /// A line says that this connection failed.
    pub(super) fn failed(&mut self, connection: &Connection) {
        self.limits.failed(connection);
    }

    /// Looks at the sample again if enough of it is new: what is a twentieth of it
    /// cannot move its mode by much.
    pub(super) fn look_again(&mut self) {
        let closes = self.silences.seen();
        if (closes < 100 && closes > self.looked_at)
            || closes > self.looked_at + self.looked_at / 20
        {
            self.settle();
        }
    }

    /// Looks at the whole sample.
    pub(super) fn settle(&mut self) {
        self.looked_at = self.silences.seen();
        self.idle_timeout = self.silences.timeout(self.request_limit().is_some());
        self.answered_bytes = self.largest_answered(0);
        self.surely_answered_bytes = self.largest_answered(self.uncertain_up_to);
        self.size_threshold = self.infer_size_threshold();
    }

    /// The constants as they were last settled.
    pub(super) fn settled(&self) -> Constants {
        Constants {
            idle_timeout: self.idle_timeout,
            request_limit: self.request_limit(),
            size_threshold: self.size_threshold,
            never_answered: self.never_answered(),
            answered_bytes: self.answered_bytes,
            surely_answered_bytes: self.surely_answered_bytes,
        }
    }

    pub(super) fn counters(&mut self, counters: &Upstream) {
        self.connects += counters.connects;
        self.connect_failures += counters.connect_failures;
        self.exchanges += counters.exchanges;
        add(&mut self.connect_us, &counters.connect_us);
        add(&mut self.first_byte_us, &counters.first_byte_us);
        add(&mut self.request_bytes, &counters.request_bytes);
    }

    /// A response was cut short: what looked like a close after a response was one in
    /// flight.
    pub(super) fn was_in_flight(&mut self, ending: Ending) {
        if let Some(count) = self.endings.get_mut(&ending)
            && *count > 0
        {
            *count -= 1;
            *self.endings.entry(Ending::BackendInFlight).or_default() += 1;
        }
    }

    pub(super) fn connects(&self) -> u64 {
        self.connects
    }

    /// A line about the upstream says what is spoken to it.
    pub(super) fn heard(&mut self, spoken: Spoken) {
        self.spoken.tls |= spoken.tls;
        self.spoken.http2 |= spoken.http2;
    }

    /// What its exchanges are.
    pub(super) fn counted(&self) -> Counted {
        if self.spoken.http2 {
            Counted::Http2
        } else if self.spoken.tls && self.without_handshake > 0 {
            Counted::TlsFlights
        } else {
            Counted::Requests
        }
    }

    fn counts_requests(&self) -> bool {
        self.counted() == Counted::Requests && !self.calls_unseen
    }

    /// None if they cannot be told from what else was sent.
    pub(super) fn requests(&self) -> Option<u64> {
        self.counts_requests().then_some(self.exchanges)
    }

    /// Share of requests that went over a connection used before.
    #[expect(clippy::cast_precision_loss, reason = "a share of counts")]
    pub(super) fn reused_ratio(&self) -> Option<f64> {
        let fresh = self
            .connects
            .saturating_sub(self.connect_failures)
            .min(self.exchanges);
        (self.exchanges > 0 && self.counts_requests()).then(|| {
            let share = (self.exchanges - fresh) as f64 / self.exchanges as f64;
            (share * 1000.0).round() / 1000.0
        })
    }

    pub(super) fn closes(&self) -> Closes {
        let count = |ending| self.endings.get(&ending).copied().unwrap_or(0);
        Closes {
            backend_idle: count(Ending::BackendIdle),
            backend_in_flight: count(Ending::BackendInFlight),
            backend_after_response: count(Ending::BackendAfterResponse),
            nginx_idle: count(Ending::NginxIdle),
            nginx_after_response: count(Ending::NginxAfterResponse),
            nginx_in_flight: count(Ending::NginxInFlight),
            refused: count(Ending::Refused),
            not_connected: count(Ending::NotConnected),
        }
    }

    /// The backend's limit on requests per connection.
    pub(super) fn request_limit(&self) -> Option<InferredLimit> {
        self.counts_requests()
            .then(|| self.limits.limit(self.silences.most()))?
    }

    /// The most requests answered on one connection, as far as they were counted.
    pub(super) const fn most_answered(&self) -> u32 {
        self.silences.most()
    }

    /// Has the backend let others idle for longer than this?
    pub(super) fn lets_idle_longer(&self, ns: u64) -> bool {
        self.silences.longer_than(ns) > 0
    }

    /// Did requests meet an RST instead of an acknowledgement after silences that differ?
    pub(super) fn resets_at_any_age(&self) -> bool {
        self.reset_after
            .is_some_and(|(least, most)| most > least + least / 4 + DIFFER_NS)
    }

    /// At least the longest time that a response took to begin: the upper bound of the
    /// last bucket.
    pub(super) fn longest_first_byte_ns(&self) -> u64 {
        let bound = self
            .first_byte_us
            .last_key_value()
            .map_or(0, |(bound, _)| *bound);
        let width = if bound == 0 { 0 } else { bucket_width(bound) };
        bound.saturating_add(width).saturating_mul(1000)
    }

    /// The largest request that was answered after the backend had taken all of it. Of
    /// those that only the counters know, above `uncertain_up_to`, it is the upper end of their
    /// bucket.
    fn largest_answered(&self, uncertain_up_to: u64) -> u64 {
        let counted = self.request_bytes.iter().rev().find(|(bound, count)| {
            let known = |known: &BTreeMap<u64, u64>| known.get(bound).copied().unwrap_or(0);
            **bound > uncertain_up_to && **count > known(&self.early) + known(&self.whole)
        });
        let counted = counted.map_or(0, |(bound, _)| bound + bucket_width(*bound) - 1);
        counted.max(self.largest_answered)
    }

    /// The backend's limit on a request's size: all that it gave up was larger than all
    /// that it answered. Of a request given up while it was sent the whole size is not
    /// known: one of which less was sent than of others answered says nothing.
    fn infer_size_threshold(&self) -> Option<InferredSize> {
        // Over HTTP/2 a large request is sent in turns with the backend's windows.
        if self.spoken.http2 {
            return None;
        }
        let answered_bytes = self.answered_bytes;
        let contradicts = |request: &GivenUp| request.whole && request.bytes <= answered_bytes;
        if answered_bytes == 0 || self.given_up.iter().any(contradicts) {
            return None;
        }
        let larger = || {
            let bytes = self.given_up.iter().map(|request| request.bytes);
            bytes.filter(|bytes| *bytes > answered_bytes)
        };
        Some(InferredSize {
            bytes: larger().min()?,
            answered_bytes,
            samples: larger().count() as u64,
        })
    }

    /// How many requests there were, if each was the first of its connection and met by
    /// its end at once, a quarter of them before any work can have been done on them (a busy
    /// host is late), and none was ever answered.
    fn never_answered(&self) -> Option<u64> {
        let answered: u64 = self.first_byte_us.values().sum();
        (self.refused_at_once >= AGREEING
            && self.without_work * 4 >= self.refused_at_once
            && self.others == 0
            && answered <= self.alerts)
            .then_some(self.refused_at_once)
    }

    pub(super) fn connect_ms(&self) -> Option<Percentiles> {
        percentiles(&self.connect_us)
    }

    /// None if other bytes than answers' are among them.
    pub(super) fn first_byte_ms(&self) -> Option<Percentiles> {
        percentiles(&self.first_byte_us).filter(|_| self.counts_requests())
    }
}

/// Values in a bucket that begins at this bound: four buckets make an octave.
fn bucket_width(bound: u64) -> u64 {
    match bound.checked_ilog2() {
        Some(exponent) if exponent >= 2 => 1 << (exponent - 2),
        _ => 1,
    }
}

/// The bound at which the bucket of a value begins.
fn bucket_of(value: u64) -> u64 {
    value - value % bucket_width(value)
}

/// Percentiles of a histogram of microseconds, as the middle of the bucket they fall in.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "ranks and microseconds, far below 2^52"
)]
fn percentiles(histogram: &BTreeMap<u64, u64>) -> Option<Percentiles> {
    let total: u64 = histogram.values().sum();
    if total == 0 {
        return None;
    }
    let at = |share: f64| {
        let rank = ((total as f64 * share).ceil() as u64).max(1);
        let mut before = 0;
        for (bound, count) in histogram {
            before += count;
            if before >= rank {
                // Of one value, or of all from the bound to the next.
                let middle = *bound as f64 + (bucket_width(*bound) / 2) as f64;
                return middle / 1000.0;
            }
        }
        0.0
    };
    Some(Percentiles {
        p50: at(0.50),
        p95: at(0.95),
        p99: at(0.99),
    })
}
