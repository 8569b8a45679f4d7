//! Whether the tool found a line's connection: by what the backend recorded, and by what
//! the wire carried; and whether it tells how long that was idle.

use super::{Found, Recorded, Score, Told, named};
use crate::act::Expected;
use crate::verdicts::Incident;

impl Score {
    /// What a backend recorded of a request, the wire has to have carried.
    pub(super) fn compare_records(&mut self, recorded: &Recorded) {
        for carried in &recorded.wire {
            let of_it = recorded.acts.iter().filter(|(_, act)| {
                act.target.as_ref() == Some(&carried.target)
                    && act.upstream == carried.upstream.to_string()
            });
            for (scenario, act) in of_it {
                if let Some(end) = act.nginx_end.filter(|end| !carried.ends.contains(end)) {
                    self.failures.push(format!(
                        "{scenario} recorded {} on {end}, the wire on {:?}",
                        carried.target, carried.ends
                    ));
                }
            }
        }
    }

    /// Whether the tool found the right connection; none where there is no telling.
    pub(super) fn right_connection(
        &mut self,
        incident: &Incident,
        behind: &Found<'_>,
    ) -> Option<bool> {
        let Found {
            told,
            scenario,
            act,
            blind,
        } = *behind;
        self.witnessed += usize::from(told.is_some());
        let found = incident.connection.as_ref();
        let by_the_backend = act.nginx_end.map(|end| {
            let right = |found: &&_| is(found, end, &act.upstream);
            match found.filter(right) {
                Some(_) => Ok(()),
                None => Err(format!("the backend has {end}")),
            }
        });
        let tellings: Vec<&Told> = told.into_iter().chain(&by_the_backend).collect();
        let problems: Vec<&str> = tellings
            .iter()
            .filter_map(|told| told.as_ref().err().map(String::as_str))
            .collect();
        if !problems.is_empty() {
            let problem = format!(
                "wrong connection {} of {scenario} ({}, {}): {:?}, but {}",
                named(incident),
                incident.matched,
                incident.confidence,
                found.map(|found| found.local),
                problems.join(", ")
            );
            // Without the uprobe one may be missed, as long as nothing is certain of it.
            if blind && !(found.is_some() && incident.confidence == "certain") {
                self.mistakes.push(problem);
            } else {
                self.failures.push(problem);
            }
        }
        (!tellings.is_empty()).then_some(problems.is_empty())
    }

    /// The silence before the act, if it is on record.
    pub(super) fn compare_idle(
        &mut self,
        incident: &Incident,
        behind: &Found<'_>,
        expected: &Expected,
    ) {
        let Some((idle, found)) = expected.idle.zip(incident.connection.as_ref()) else {
            return;
        };
        self.idle_times += 1;
        if let Some(problem) = idle.problem(found) {
            let (incident, scenario) = (named(incident), behind.scenario);
            self.failures
                .push(format!("{incident} of {scenario}: {problem}"));
        }
    }
}

fn is(found: &crate::verdicts::Connection, end: std::net::SocketAddr, upstream: &str) -> bool {
    found.local == end && found.remote.to_string() == upstream
}
