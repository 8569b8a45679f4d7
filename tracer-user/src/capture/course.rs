//! The course of a capture, of either role: ticks until the time is over or a signal
//! comes, a moment more for what is on its way, and the trace's end. What is done at a
//! tick is the session's.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::clock;
use super::programs::Programs;
use crate::trace::record::{End, EndReason, Record};
use crate::trace::writer::Writer;

/// How often the ring buffer and the logs are looked at: the ring holds far more than
/// comes in this time, and a verdict is shown this soon.
const TICK: Duration = Duration::from_millis(50);
/// Both clocks, counters, losses, workers and the trace's frame: every so many ticks.
pub(super) const TICKS_A_SECOND: u32 = 20;
/// After the bell a line and its socket may still end.
const DRAIN: Duration = Duration::from_millis(1000);

/// The signals that end a capture early. Once this is dropped they end the process, as ever:
/// whoever has no patience for the report has its trace.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// None where hangups were ignored when we started, as under nohup: they stay so.
    hangup: Option<Signal>,
    hung_up: bool,
}

impl Signals {
    /// From here on none of them ends this process; what comes before [`run`]
    /// waits for it.
    pub(super) fn install() -> Result<Self> {
        let install = |kind| signal(kind).context("cannot handle signals");
        let hangup = match ignored(libc::SIGHUP) {
            true => None,
            false => Some(install(SignalKind::hangup())?),
        };
        Ok(Self {
            interrupt: install(SignalKind::interrupt())?,
            terminate: install(SignalKind::terminate())?,
            hangup,
            hung_up: false,
        })
    }

    pub(super) async fn next(&mut self) {
        // A terminal that goes can be told by several: the kernel, a shell, sudo. Only the
        // first tells anything.
        let hangup = self.hangup.as_mut().filter(|_| !self.hung_up);
        let hung_up = async {
            match hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hung_up => self.hung_up = true,
        }
    }
}

impl Drop for Signals {
    /// tokio's handlers stay for good.
    fn drop(&mut self) {
        let mut to_give_back = vec![libc::SIGINT, libc::SIGTERM];
        // The report may go to a file: no later hangup of the same terminal ends it.
        if self.hangup.is_some() && !self.hung_up {
            to_give_back.push(libc::SIGHUP);
        }
        for signal in to_give_back {
            // SAFETY: these are signals that may have this action, and no code of ours is
            // run by it. It cannot fail.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
}

/// Whoever started this process had it ignore the signal.
fn ignored(signal: libc::c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action this only writes the present one to `action`.
    let known = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } == 0;
    // SAFETY: it was written if the call succeeded.
    known && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// A capture under way.
pub(super) trait Capturing {
    /// Takes what has come, and what is due.
    fn tick(&mut self) -> Result<()>;

    /// Comes back when something is to be looked at before the next tick.
    async fn event(&mut self) {
        std::future::pending().await
    }

    /// Looks at it.
    fn happened(&mut self) -> Result<()> {
        Ok(())
    }

    /// Takes all that is left, and what is still open.
    fn rest(&mut self) -> Result<()>;

    /// Writes a record.
    fn record(&mut self, record: &Record) -> Result<()>;

    /// The trace.
    fn writer(&mut self) -> &mut Writer;
}

/// Runs a capture to its end.
pub(super) async fn run(
    capture: &mut impl Capturing,
    duration: Duration,
    signals: &mut Signals,
) -> Result<()> {
    let reason = match watch(capture, duration, signals).await {
        Ok(reason) => reason,
        Err(error) => return Err(abandon(capture.writer(), error)),
    };
    let ns = clock::monotonic_ns();
    drain(capture, signals).await?;
    capture.rest()?;
    capture.record(&Record::Anchor(clock::anchor()))?;
    let records = capture.writer().counts();
    capture.record(&Record::End(End {
        ns,
        reason,
        records,
    }))?;
    capture.writer().flush().context("cannot finish the trace")
}

/// Until the time is over or a signal comes.
async fn watch(
    capture: &mut impl Capturing,
    duration: Duration,
    signals: &mut Signals,
) -> Result<EndReason> {
    let bell = sleep_until(Instant::now() + duration);
    tokio::pin!(bell);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => capture.tick()?,
            () = capture.event() => capture.happened()?,
            () = &mut bell => return Ok(EndReason::Duration),
            () = signals.next() => return Ok(EndReason::Signal),
        }
    }
}

/// What ended with the bell may still be on its way.
async fn drain(capture: &mut impl Capturing, signals: &mut Signals) -> Result<()> {
    let over = Instant::now() + DRAIN;
    let mut ticks = interval(TICK);
    while Instant::now() < over {
        tokio::select! {
            _ = ticks.tick() => capture.tick()?,
            // A second Ctrl-C: no more waiting.
            () = signals.next() => break,
        }
    }
    Ok(())
}

/// What the programs lost since the last look, and what they sent that is no record.
pub(super) fn new_losses(
    programs: &mut Programs,
    undecodable: &mut u64,
) -> Result<Vec<(String, u64)>> {
    let mut losses = programs.new_losses()?;
    if *undecodable > 0 {
        let count = std::mem::take(undecodable);
        losses.push(("undecodable_records".to_owned(), count));
    }
    Ok(losses)
}

/// The trace cannot be written any more: says what is left of it.
fn abandon(writer: &mut Writer, error: anyhow::Error) -> anyhow::Error {
    let records = writer.counts();
    let end = End {
        ns: clock::monotonic_ns(),
        reason: EndReason::Failure,
        records,
    };
    let closed = writer
        .write(&Record::End(end))
        .and_then(|()| writer.flush())
        .is_ok();
    let path = writer.path().display().to_string();
    let state = if closed {
        "is closed in order"
    } else {
        "lacks its end record"
    };
    error.context(format!(
        "the capture had to stop; the trace {path} {state} and can be read with \
         `whoclosed report`"
    ))
}
