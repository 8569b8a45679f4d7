//! Where nginx's configuration and what was seen disagree, although no single error says
//! so: each finding needs evidence of this capture; what is merely unusual is none.
//!
//! Remedies of causes are in [`super::causes`]; what is advised there is not said twice.

use std::net::SocketAddr;

use super::Judge;
use super::causes::stale_keepalive_remedy;
use super::generations::in_force;
use super::settings;
use super::upstreams::Figures;
use crate::report::model::{Advice, Incident, Means};
use crate::report::words::counted;
use crate::trace::record::{Configuration, Nginx};

/// Requests without reuse, one of which at least would have met an idle connection.
const ENOUGH: u64 = 20;

/// Adds what the figures of the upstreams say to the advice of the causes.
pub(super) fn advise(judge: &Judge, incidents: &[Incident], advice: &mut Vec<Advice>) {
    let mut found = Vec::new();
    for (address, figures) in &judge.upstreams {
        let instances = judge.capture.iter().flat_map(|capture| &capture.nginx);
        let here = |nginx: &&Nginx| nginx.netns.is_none_or(|netns| netns == address.netns);
        for nginx in instances.filter(here) {
            let loaded = judge.generations.all_of(nginx.master_pid);
            let loaded = loaded.map(|nginx| {
                Some(About {
                    address: address.address,
                    figures,
                    nginx,
                    configuration: in_force(nginx)?,
                })
            });
            let Some(loaded) = loaded.collect::<Option<Vec<About<'_>>>>() else {
                continue;
            };
            // The figures are of the whole capture: what a reload has changed is no finding.
            let of_all = |each: Vec<Option<Advice>>| {
                let all: Option<Vec<Advice>> = each.into_iter().collect();
                all?.pop()
            };
            found.extend(of_all(loaded.iter().map(About::never_reused).collect()));
            found.extend(of_all(
                loaded
                    .iter()
                    .map(About::keeps_longer_than_the_backend)
                    .collect(),
            ));
        }
    }
    found.extend(not_passed_on(judge, incidents));
    for finding in found {
        let known = advice
            .iter()
            .any(|known| (&known.upstream, &known.text) == (&finding.upstream, &finding.text));
        if !known {
            advice.push(finding);
        }
    }
}

/// One upstream address in one configuration.
struct About<'a> {
    address: SocketAddr,
    figures: &'a Figures,
    nginx: &'a Nginx,
    configuration: &'a Configuration,
}

impl About<'_> {
    /// `keepalive` is set, and (nearly) each request had a connection of its own.
    #[expect(clippy::cast_precision_loss, reason = "a share of counts")]
    fn never_reused(&self) -> Option<Advice> {
        let version = self.nginx.version.as_deref();
        let (block, places) = settings::places_of(self.configuration, self.address);
        let block = block?;
        let keeps = settings::keepalive_in_force(block, version).filter(|keeps| *keeps > 0)?;
        let requests = self.figures.requests()?;
        let reused = self.figures.reused_ratio()?;
        let closes = self.figures.closes();
        let after = closes.nginx_after_response + closes.backend_after_response;
        let obstacle = places
            .iter()
            .find_map(|place| settings::closes_each(place, version));
        // A backend that closes without having said so may meet some further requests.
        let (most_reused, least_closed) = match obstacle {
            Some(_) => (0.25, 0.5),
            None => (0.0, 0.9),
        };
        if requests < ENOUGH
            || reused > most_reused
            || (after as f64) < requests as f64 * least_closed
        {
            return None;
        }
        let reused = match (reused * requests as f64).round() {
            0.0 => "none".to_owned(),
            reused => format!("only {reused}"),
        };
        let seen = format!(
            "`upstream {}` has `keepalive {keeps}`{}, but {reused} of {} went over a connection used \
             before: nginx closed {} right after a response, the backend {}",
            block.name,
            if block.keepalive.is_some() {
                ""
            } else {
                " (the default)"
            },
            counted(requests, "request", "requests"),
            counted(closes.nginx_after_response, "connection", "connections"),
            closes.backend_after_response,
        );
        let (text, because) = if let Some(obstacle) = obstacle {
            (
                obstacle.remedy.to_owned(),
                format!("{seen}; {}", obstacle.because),
            )
        } else if closes.backend_after_response > closes.nginx_after_response {
            (
                "let the backend keep its connections open (keep-alive, HTTP/1.1 with a length or \
                 chunks), or remove `keepalive`, which has no effect here"
                    .to_owned(),
                seen,
            )
        } else {
            return None;
        };
        Some(self.advice(text, because))
    }

    /// The backend closes idle connections first: each such close may meet a request.
    fn keeps_longer_than_the_backend(&self) -> Option<Advice> {
        let timeout = self.figures.settled().idle_timeout?;
        let version = self.nginx.version.as_deref();
        let (block, _) = settings::places_of(self.configuration, self.address);
        settings::keepalive_in_force(block?, version).filter(|keeps| *keeps > 0)?;
        let settings = settings::of_upstream(self.configuration, version, self.address);
        let remedy = stale_keepalive_remedy(&settings, &self.address.to_string(), timeout)?;
        Some(self.advice(remedy.text, remedy.because))
    }

    fn advice(&self, text: String, because: String) -> Advice {
        Advice {
            upstream: self.address.to_string(),
            text,
            because,
            incidents: 0,
        }
    }
}

/// Requests that failed for their client although the upstream has other servers,
/// because `next_upstream` leaves out what happened.
fn not_passed_on(judge: &Judge, incidents: &[Incident]) -> Vec<Advice> {
    let mut found: Vec<Advice> = Vec::new();
    for (incident, entry) in incidents.iter().zip(&judge.entries) {
        if (incident.retried, incident.served) != (Some(false), Some(false))
            || incident
                .advice
                .as_ref()
                .is_some_and(|advice| advice.contains("next_upstream"))
        {
            continue;
        }
        let settings = judge.settings_of(entry);
        let needed = match incident.means {
            Means::Timeout => "timeout",
            Means::Fin | Means::Rst | Means::Refused | Means::Unreachable => "error",
            Means::Close | Means::None => continue,
        };
        let (Some(set), true) = (&settings.next_upstream, settings.servers > 1) else {
            continue;
        };
        if set.split_whitespace().any(|word| word == needed) {
            continue;
        }
        let directive = format!("{}_next_upstream", entry.line.module);
        let upstream = settings.block.as_deref().unwrap_or(&incident.upstream);
        let text = format!(
            "add `{needed}` to `{directive}` (costs: work done twice where a request was already \
             being worked on)"
        );
        let because = format!(
            "`{directive}` is `{set}`, so that nginx gave these requests up although `upstream \
             {upstream}` has {} servers",
            settings.servers
        );
        match found
            .iter_mut()
            .find(|known| known.upstream == upstream && known.text == text)
        {
            Some(known) => known.incidents += 1,
            None => found.push(Advice {
                upstream: upstream.to_owned(),
                text,
                because,
                incidents: 1,
            }),
        }
    }
    found
}
