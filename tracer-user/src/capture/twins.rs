//! Further programs at one place, which see what the kernel lets the first miss: it skips a
//! program on a processor where it is running already, interrupted by what now comes to it.
//! Where only tasks interrupt programs, the second is loaded at the start and attached when
//! the first has missed a run: most hosts never need it, and it costs each of nginx's calls.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;

use anyhow::{Context as _, Result, anyhow};
use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf};
use tracer_ebpf::loss;

use super::hooks::{LATER_TWINS, OF_STATES, TWINS};
use super::missed_runs;
use super::programs::why;
use crate::trace::record::{FOURTH_PROGRAM, Hook, SECOND_PROGRAM, THIRD_PROGRAM};

/// What a capture loses without one of those that are attached later.
const WITHOUT: &str = "what interrupts the first program there is missed, and counted as lost";

/// Those that are attached later, and what became of them.
#[derive(Debug, Default)]
pub(super) struct Twins {
    /// Attach them at the start, for tests.
    at_once: bool,
    /// By the first program: the tracepoint or function of both.
    targets: BTreeMap<&'static str, String>,
    /// By the first program: the runs that it, and its twin from the start if it has one, had
    /// missed when the one of here was attached.
    attached: BTreeMap<&'static str, Vec<u64>>,
    /// By the first program: why its twin was not.
    refused: BTreeMap<&'static str, String>,
    /// Refusals that came when the capture ran, in sentences.
    warnings: Vec<String>,
}

impl Twins {
    pub(super) fn new(at_once: bool) -> Self {
        Self {
            at_once,
            ..Self::default()
        }
    }

    /// Loads a program's twin, if it has one; `target` is the tracepoint or function.
    pub(super) fn load(&mut self, ebpf: &mut Ebpf, btf: &Btf, program: &str, target: &str) {
        let Some((first, twin)) = twin_of(program) else {
            return;
        };
        self.targets.insert(first, target.to_owned());
        let loaded = match ebpf.program_mut(twin) {
            Some(Program::BtfTracePoint(twin)) => twin.load(target, btf),
            Some(Program::FExit(twin)) => twin.load(target, btf),
            _ => Err(ProgramError::NotLoaded),
        };
        match loaded {
            Ok(()) if self.at_once => self.attach(ebpf, first, twin),
            Ok(()) => {}
            Err(error) => self.refuse(first, why(&error)),
        }
    }

    /// Those that the kernel has refused, as hooks.
    pub(super) fn refused(&self) -> impl Iterator<Item = Hook> {
        self.refused.iter().map(|(first, reason)| Hook {
            name: self.hook(first),
            attached: false,
            by: None,
            reason: Some(format!("{reason}; without it {WITHOUT}")),
        })
    }

    /// Refusals since the last call that came when they were to be attached.
    pub(super) fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    fn hook(&self, first: &'static str) -> String {
        let target = self.targets.get(first).map_or(first, String::as_str);
        match from_the_start(first).count() {
            1 => format!("{target} {SECOND_PROGRAM}"),
            2 => format!("{target} {THIRD_PROGRAM}"),
            _ => format!("{target} {FOURTH_PROGRAM}"),
        }
    }

    fn refuse(&mut self, first: &'static str, reason: String) {
        log::debug!("{first} has no second program: {reason}");
        self.refused.insert(first, reason);
    }

    /// Forgets a twin whose program is not used after all.
    pub(super) fn unload(&mut self, ebpf: &mut Ebpf, program: &str) -> Result<()> {
        let Some((first, twin)) = twin_of(program) else {
            return Ok(());
        };
        self.refused.remove(first);
        match ebpf.program_mut(twin) {
            Some(Program::BtfTracePoint(twin)) if twin.fd().is_ok() => Ok(twin.unload()?),
            Some(Program::FExit(twin)) if twin.fd().is_ok() => Ok(twin.unload()?),
            _ => Ok(()),
        }
    }

    /// Attaches the twins of programs that have missed runs, by these counts of all, or on
    /// request, by these losses.
    pub(super) fn attach_where_missed(
        &mut self,
        kernel: &mut impl Kernel,
        missed: &BTreeMap<String, u64>,
        losses: &[(String, u64)],
    ) {
        for (first, twin) in LATER_TWINS {
            let missed = missed.get(first).copied().unwrap_or(0);
            if !self.was_tried(first) && (missed > 0 || is_missed_on_request(first, losses)) {
                self.attach_later(kernel, first, twin);
            }
        }
    }

    /// The same of changes of state alone, for looks many times a second: what is missed
    /// of other events can be made good, or matters little.
    pub(super) fn attach_where_states_are_missed(&mut self, kernel: &mut impl Kernel) {
        for (first, twin) in OF_STATES {
            let is_used = self.targets.contains_key(first);
            if is_used && !self.was_tried(first) && kernel.missed(first) > 0 {
                self.attach_later(kernel, first, twin);
            }
        }
    }

    fn was_tried(&self, first: &str) -> bool {
        self.attached.contains_key(first) || self.refused.contains_key(first)
    }

    fn attach_later(&mut self, kernel: &mut impl Kernel, first: &'static str, twin: &str) {
        self.attach(kernel, first, twin);
        if let Some(reason) = self.refused.get(first) {
            self.warnings.push(format!(
                "{} is not attached: {reason}; without it {WITHOUT}",
                self.hook(first)
            ));
        }
    }

    fn attach(&mut self, kernel: &mut impl Kernel, first: &'static str, twin: &str) {
        match kernel.attach(twin) {
            Ok(()) => {
                // Only from here on does the twin see what the others miss: read any
                // earlier, what all missed meanwhile would be taken as seen.
                let missed = from_the_start(first).map(|program| kernel.missed(program));
                let missed: Vec<u64> = missed.collect();
                log::debug!("{first} has missed {missed:?} runs: {twin} is attached too");
                self.attached.insert(first, missed);
            }
            Err(error) => self.refuse(first, format!("{error:#}")),
        }
    }

    /// Of the runs that each program missed, those that cost something: what all programs at
    /// one place missed is at most as much as the one that missed fewest did.
    pub(super) fn that_count(&self, mut missed: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let firsts = TWINS.into_iter().chain(LATER_TWINS).map(|(first, _)| first);
        for first in firsts.collect::<BTreeSet<_>>() {
            if !missed.contains_key(first) {
                continue;
            }
            let later = twin_of(first).and_then(|(_, twin)| missed.remove(twin));
            let before = self.attached.get(first).filter(|_| later.is_some());
            // Of those that are loaded: what each had missed when the later one came, and
            // what it has missed since.
            let parts = from_the_start(first)
                .enumerate()
                .filter_map(|(at, program)| {
                    let now = missed.get(program).copied()?;
                    let before = before.and_then(|before| before.get(at)).copied();
                    let before = before.unwrap_or(now);
                    Some((now.min(before), now.saturating_sub(before)))
                });
            let (until, since): (Vec<u64>, Vec<u64>) = parts.unzip();
            let since = since.into_iter().chain(later).min().unwrap_or(0);
            let count = until.into_iter().min().unwrap_or(0) + since;
            for program in from_the_start(first) {
                missed.remove(program);
            }
            missed.insert(first.to_owned(), count);
        }
        missed
    }
}

/// The programs at the first one's place that are attached from the start.
fn from_the_start(first: &'static str) -> impl Iterator<Item = &'static str> {
    let twins = TWINS.into_iter().filter(move |(of, _)| *of == first);
    iter::once(first).chain(twins.map(|(_, twin)| twin))
}

/// Were runs of this program missed on request?
fn is_missed_on_request(program: &str, losses: &[(String, u64)]) -> bool {
    let counter = match program {
        "whoclosed_send" => loss::SENDS_ON_REQUEST,
        "whoclosed_recv" => loss::RECEIVES_ON_REQUEST,
        _ => return false,
    };
    let name = loss::NAMES[counter as usize];
    losses
        .iter()
        .any(|(lost, count)| lost == name && *count > 0)
}

fn twin_of(program: &str) -> Option<(&'static str, &'static str)> {
    LATER_TWINS.into_iter().find(|(first, _)| *first == program)
}

/// What is asked of the kernel.
pub(super) trait Kernel {
    /// Attaches a program that is loaded.
    fn attach(&mut self, program: &str) -> Result<()>;

    /// The runs that a program has missed by now.
    fn missed(&self, program: &str) -> u64;
}

impl Kernel for Ebpf {
    fn attach(&mut self, program: &str) -> Result<()> {
        let attached = match self.program_mut(program) {
            Some(Program::BtfTracePoint(twin)) => twin.attach().map(drop),
            Some(Program::FExit(twin)) => twin.attach().map(drop),
            _ => return Err(anyhow!("no such program")),
        };
        attached
            .map_err(|error| anyhow!(why(&error)))
            .context("refused")
    }

    fn missed(&self, program: &str) -> u64 {
        // One that cannot be asked is taken to have missed all that it ever will: what it
        // misses is counted whole.
        missed_runs::of(self, program).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::super::hooks::{STATE, STATE_THIRD, STATE_TWIN};
    use super::*;

    fn counted(twins: &Twins, missed: &[(&str, u64)]) -> BTreeMap<String, u64> {
        twins.that_count(
            missed
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
        )
    }

    #[test]
    fn a_change_of_state_is_lost_where_both_programs_missed_it() {
        let none = Twins::default();
        assert_eq!(counted(&none, &[(STATE, 7), (STATE_TWIN, 0)])[STATE], 0);
        assert_eq!(counted(&none, &[(STATE, 2), (STATE_TWIN, 5)])[STATE], 2);
        let others = counted(
            &none,
            &[(STATE, 7), (STATE_TWIN, 3), ("whoclosed_again", 4)],
        );
        assert_eq!(others[STATE], 3);
        assert_eq!(others["whoclosed_again"], 4);
        assert_eq!(others.len(), 2);
    }

    #[test]
    fn without_the_second_program_what_the_first_missed_is_lost() {
        assert_eq!(counted(&Twins::default(), &[(STATE, 7)])[STATE], 7);
    }

    #[test]
    fn a_change_of_state_is_lost_where_all_programs_missed_it() {
        let mut twins = Twins::default();
        let fourth = |count| {
            [
                (STATE, 40),
                (STATE_TWIN, 30),
                (STATE_THIRD, 35),
                (OF_STATES[0].1, count),
            ]
        };
        assert_eq!(counted(&twins, &fourth(0)).len(), 1);
        assert_eq!(counted(&twins, &fourth(0))[STATE], 30);
        // Until it was attached all of the others had to miss one.
        twins.attached.insert(STATE, vec![20, 3, 7]);
        assert_eq!(counted(&twins, &fourth(0))[STATE], 3);
        assert_eq!(counted(&twins, &fourth(9))[STATE], 12);
        assert_eq!(counted(&twins, &fourth(50))[STATE], 23);
    }

    #[test]
    fn a_program_that_the_kernel_refused_misses_nothing_for_the_others() {
        let missed = [(STATE, 40), (STATE_THIRD, 5)];
        assert_eq!(counted(&Twins::default(), &missed)[STATE], 5);
    }

    /// Goes on missing runs while a program is attached.
    #[derive(Default)]
    struct Busy {
        missed: u64,
        refuses: bool,
    }

    impl Kernel for Busy {
        fn attach(&mut self, _: &str) -> Result<()> {
            self.missed += 3;
            if self.refuses {
                return Err(anyhow!("no more memory"));
            }
            Ok(())
        }

        fn missed(&self, program: &str) -> u64 {
            assert!(["whoclosed_send", STATE, STATE_TWIN, STATE_THIRD].contains(&program));
            self.missed
        }
    }

    #[test]
    fn what_was_missed_while_the_twin_was_attached_is_lost() {
        let mut twins = Twins::default();
        let mut kernel = Busy {
            missed: 4,
            refuses: false,
        };
        let read = BTreeMap::from([("whoclosed_send".to_owned(), 2)]);
        twins.attach_where_missed(&mut kernel, &read, &[]);
        let missed = [("whoclosed_send", 9), ("whoclosed_sendt", 0)];
        assert_eq!(counted(&twins, &missed)["whoclosed_send"], 7);
        // Counted by the old reading first, never less than before.
        let missed = [("whoclosed_send", 2), ("whoclosed_sendt", 0)];
        assert_eq!(counted(&twins, &missed)["whoclosed_send"], 2);
    }

    #[test]
    fn a_fourth_program_comes_as_soon_as_a_change_of_state_is_missed() {
        let mut twins = Twins::default();
        let mut kernel = Busy::default();
        twins.attach_where_states_are_missed(&mut kernel);
        twins.targets.insert(STATE, "s".to_owned());
        twins.attach_where_states_are_missed(&mut kernel);
        assert!(twins.attached.is_empty());
        kernel.missed = 1;
        for _ in 0..2 {
            twins.attach_where_states_are_missed(&mut kernel);
        }
        assert_eq!(twins.attached[STATE], [4, 4, 4]);
        assert_eq!(twins.attached.len(), 1);
    }

    #[test]
    fn a_twin_that_the_kernel_refuses_is_told_once() {
        let mut twins = Twins::default();
        twins.targets.insert("whoclosed_recv", "r".to_owned());
        twins.refuse("whoclosed_recv", "too large".to_owned());
        let hooks: Vec<Hook> = twins.refused().collect();
        assert_eq!(hooks.len(), 1);
        assert_eq!(hooks[0].name, "r (second program)");
        assert!(!hooks[0].attached && hooks[0].is_spare());
        let reason = hooks[0].reason.as_deref().unwrap();
        assert!(reason.starts_with("too large; without it "), "{reason}");
        assert_eq!(twins.hook(STATE), "whoclosed_state (fourth program)");

        twins.targets.insert("whoclosed_send", "s".to_owned());
        let mut kernel = Busy {
            missed: 4,
            refuses: true,
        };
        let read = ["whoclosed_send", "whoclosed_recv"].map(|name| (name.to_owned(), 2));
        for _ in 0..2 {
            twins.attach_where_missed(&mut kernel, &BTreeMap::from(read.clone()), &[]);
        }
        let warnings = twins.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].starts_with("s (second program) is not attached: no more memory"),
            "{warnings:?}"
        );
        assert!(twins.warnings().is_empty());
    }

    #[test]
    fn what_was_missed_before_the_twin_came_is_lost() {
        let mut twins = Twins::default();
        let missed = [("whoclosed_send", 9), ("whoclosed_sendt", 0)];
        assert_eq!(counted(&twins, &missed)["whoclosed_send"], 9);
        twins.attached.insert("whoclosed_send", vec![4]);
        assert_eq!(counted(&twins, &missed)["whoclosed_send"], 4);
        let missed = [("whoclosed_send", 30), ("whoclosed_sendt", 2)];
        assert_eq!(counted(&twins, &missed)["whoclosed_send"], 6);
    }
}
