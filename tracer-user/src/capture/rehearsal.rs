//! What a capture does before it begins, done to its end whatever fails on the way, and
//! undone: every program is really loaded and attached, every log opened. It tells what
//! would keep a capture from running, or make it less than whole.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use super::accepting::{self, Asked};
use super::checks::{self, Obstacle};
use super::host::{self, Host};
use super::listeners::Listeners;
use super::programs::{Options, Programs};
use super::refusals::explained;
use super::write_calls::WriteCalls;
use super::{Withheld, abilities, btf, options_of, uprobes};
use crate::trace::record::{ErrorLog, Hook, Role};

/// What the capture would be asked for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Whose side of connections.
    pub role: Role,
    /// Error logs to follow instead of those in force.
    pub error_logs: Vec<PathBuf>,
    /// Names of nginx processes.
    pub names: Vec<String>,
    /// Only the instance that this process belongs to.
    pub nginx: Option<u32>,
    /// Ports of a backend's host.
    pub asked: Asked,
    /// Hooks that are not to be tried.
    pub withheld: Withheld,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Rehearsal {
    /// What a capture would end with, in the order in which it meets it.
    pub obstacles: Vec<Obstacle>,
    /// What it would warn of.
    pub warnings: Vec<String>,
    /// The hooks.
    pub hooks: Vec<Hook>,
    /// The kernel's structs are known.
    pub type_information: bool,
    /// nginx, with the logs that are followed of each instance, and whether its lines are
    /// seen being written.
    pub host: Option<Host>,
    /// Of each instance.
    pub instances: Vec<(Vec<ErrorLog>, bool)>,
    /// Ports at which somebody listens, in the role of a backend.
    pub listening: Option<String>,
}

impl Rehearsal {
    /// Notes why something failed, once for all that one remedy would mend.
    fn check<T>(&mut self, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| {
                let obstacle = obstacle(&error);
                let is_told = self.obstacles.iter().any(|told| {
                    *told == obstacle || (!told.remedy.is_empty() && told.remedy == obstacle.remedy)
                });
                if !is_told {
                    self.obstacles.push(obstacle);
                }
            })
            .ok()
    }
}

/// An error of a capture's, as it prints it, taken apart where its remedy can be told.
fn obstacle(error: &anyhow::Error) -> Obstacle {
    if let Some(obstacle) = error.downcast_ref::<Obstacle>() {
        return obstacle.clone();
    }
    Obstacle {
        what: format!("{error:#}"),
        remedy: String::new(),
    }
}

/// Tries everything.
#[must_use]
pub fn rehearse(request: &Request) -> Rehearsal {
    let mut this = Rehearsal {
        warnings: checks::warnings(request.role),
        ..Rehearsal::default()
    };
    let held = checks::effective();
    let may_load = checks::embedded().map_err(|found| this.obstacles.push(found));
    // One sentence for all that is missing, as a capture says it.
    let missing = checks::held(&checks::privileges(request.role), &held);
    this.obstacles.extend(missing.err());
    let may = |wanted: &[_]| checks::held(wanted, &held).is_ok();
    let may_try = may(&checks::for_programs(request.role));
    let may_load = may_load.is_ok() && may_try;
    let may_look = may(&checks::of_proc(request.role));

    match request.role {
        Role::Nginx if may_look => {
            this.host = this.check(host::find(&request.names, request.nginx));
        }
        Role::Backend if may_look => {
            let listening = accepting::listening(&request.asked, &mut this.warnings);
            this.listening = this.check(listening);
        }
        _ => {}
    }
    let layout = this.check(explained(btf::layout_of(Path::new(btf::KERNEL_BTF))));
    this.type_information = layout.is_some();
    let mut programs = match layout {
        Some(_) if may_load => load(&mut this, request),
        _ => None,
    };
    // Where these programs were not tried, or for another reason refused.
    if may_try && programs.is_none() {
        this.check(explained(abilities::may_read_kernel()));
    }
    if let Some(mut host) = this.host.take() {
        look_at_nginx(&mut this, &mut host, request, programs.as_mut());
        this.host = Some(host);
    }
    if let Some(mut programs) = programs {
        let read = match request.role {
            Role::Nginx => programs.open_connections().map(drop),
            Role::Backend => {
                programs.take_over(Role::Backend);
                programs.open_accepted().map(drop)
            }
        };
        if let Err(error) = read {
            this.warnings.push(format!(
                "connections that are still open at the end are not recorded: {error:#}"
            ));
        }
        this.hooks = std::mem::take(&mut programs.hooks);
    }
    this
}

/// The programs, if a capture would go on with them.
fn load(this: &mut Rehearsal, request: &Request) -> Option<Programs> {
    let options = match request.role {
        Role::Nginx => Options {
            withheld: request.withheld,
            ..options_of(this.host.as_ref(), &request.names, request.nginx)
        },
        Role::Backend => Options {
            role: Role::Backend,
            ..Options::default()
        },
    };
    let mut programs = this.check(explained(Programs::try_all(&options)))?;
    if programs.refused.is_empty() {
        return Some(programs);
    }
    this.hooks = std::mem::take(&mut programs.hooks);
    for refused in &programs.refused {
        this.check(explained::<()>(Err(anyhow!("{refused}"))));
    }
    None
}

fn look_at_nginx(
    this: &mut Rehearsal,
    host: &mut Host,
    request: &Request,
    mut programs: Option<&mut Programs>,
) {
    let none_seen = vec![false; host.watched.len()];
    let seen = match &mut programs {
        Some(programs) => {
            let seen = this.check(uprobes::attach(host, programs, false));
            programs.take_over(Role::Nginx);
            seen.unwrap_or(none_seen)
        }
        None => none_seen,
    };
    let followed = this.check(host.follow(&request.error_logs));
    if let (Some(programs), Some(_)) = (programs, &followed) {
        this.check(WriteCalls::start(host, programs));
    }
    let logs = followed.unwrap_or_else(|| vec![Vec::new(); host.watched.len()]);
    this.instances = logs.into_iter().zip(seen).collect();
    let masters: Vec<u32> = host
        .watched
        .iter()
        .map(|watched| watched.instance.master_pid)
        .collect();
    drop(Listeners::open(&masters, &mut host.warnings));
    this.warnings.append(&mut host.warnings);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_remedy_would_mend_is_told_once_and_all_else_each() {
        let mut this = Rehearsal::default();
        let of = |what: &str, remedy: &str| {
            Err::<(), _>(anyhow::Error::from(Obstacle {
                what: what.to_owned(),
                remedy: remedy.to_owned(),
            }))
        };
        this.check(of("too old: no helper", "capture elsewhere"));
        this.check(of("too old: not permitted", "capture elsewhere"));
        this.check(of("locked down", "start it otherwise"));
        for what in ["one", "other", "other"] {
            this.check::<()>(Err(anyhow!("{what}")));
        }
        let told: Vec<&str> = (this.obstacles.iter())
            .map(|obstacle| obstacle.what.as_str())
            .collect();
        assert_eq!(told, ["too old: no helper", "locked down", "one", "other"]);
    }
}
