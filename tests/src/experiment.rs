//! Runs scenarios: one nginx, one capture, the parts that fail, good traffic beside
//! them, and the score.

mod traffic;
mod witness;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::clock::now_ns;
use crate::crowd::Crowd;
use crate::draw::Draw;
use crate::fixture::{Fixture, Machine};
use crate::nginx::{Configuration, Nginx};
use crate::scenario::{Part, Scenario, Stage};
use crate::score::{Carried, LogLine, Recorded, Score, read_access_log, read_error_log};
use crate::tool::{self, Capture};
use crate::verdicts::Report;
use witness::{Seen, Witness};

/// How to run.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The nginx.
    pub nginx: PathBuf,
    /// Where all parameters are drawn from.
    pub seed: u64,
    /// Which of several runs with this seed, from 0: each draws anew.
    pub round: u32,
    /// Good requests beside, 500 a second and more.
    pub traffic: bool,
    /// The capture attaches nothing to nginx's binary.
    pub no_uprobe: bool,
    /// The capture does without the tracepoints of sends and receives.
    pub no_io_tracepoints: bool,
    /// And without the ends of the kernel's functions.
    pub no_fentry: bool,
    /// Busy senders beside, which have nothing to do with nginx.
    pub crowd: Option<u32>,
    /// The kernel may skip runs of the programs, without a crowd too.
    pub runs_may_be_missed: bool,
    /// Of a hundred sends and receives the capture misses so many.
    pub miss_calls: u32,
    /// Worker processes of nginx, unless a scenario needs a number of its own.
    pub workers: Option<u16>,
    /// Folder for what the run leaves.
    pub save: Option<PathBuf>,
    /// Folder for the fixture of a single scenario.
    pub fixtures: Option<PathBuf>,
}

/// Runs these scenarios together on one nginx, each in a thread of its own, and scores
/// what the command says of them.
///
/// # Errors
/// If something cannot be started, a fact never comes about or the capture fails; a
/// bad score is none.
pub fn run(scenarios: &[Scenario], setting: &Setting) -> Result<Score> {
    let mut configuration = Configuration {
        log_level: Some("info"),
        ..Configuration::new(Vec::new())
    };
    if let Some(workers) = setting.workers {
        configuration.workers = workers;
    }
    let mut parts = Vec::new();
    for scenario in scenarios {
        if scenario.alone && (scenarios.len() > 1 || setting.traffic) {
            bail!("{} needs an nginx of its own", scenario.name);
        }
        let mut draw = Draw::for_round(setting.seed, scenario.name, setting.round);
        let part = (scenario.prepare)(&mut draw)
            .with_context(|| format!("cannot prepare {}", scenario.name))?;
        part.configure(&mut configuration);
        parts.push((scenario.name, part));
    }
    let good = match setting.traffic {
        true => Some(traffic::Backends::start()?),
        false => None,
    };
    if let Some(good) = &good {
        good.configure(&mut configuration);
    }
    let start = || Nginx::start_binary(&setting.nginx, &configuration);
    let nginx = match parts.iter().find_map(|(_, part)| part.namespace()) {
        Some(namespace) => namespace.enter(start)?,
        None => start()?,
    };
    let folder = tempfile::tempdir().context("no folder for the trace")?;
    let trace = folder.path().join("trace");
    let witness = Witness::start()?;
    let mut more: Vec<&str> = [
        (setting.no_uprobe, "--no-uprobe"),
        (setting.no_io_tracepoints, "--no-io-tracepoints"),
        (setting.no_fentry, "--no-fentry"),
    ]
    .into_iter()
    .filter_map(|(given, flag)| given.then_some(flag))
    .collect();
    let percent = setting.miss_calls.to_string();
    if setting.miss_calls > 0 {
        more.extend(["--miss-calls", &percent]);
    }
    let capture = Capture::start(nginx.master_pid(), &trace, &more)?;
    let mut recorded = Recorded {
        without_uprobe: setting.no_uprobe || !exports_log_function(&setting.nginx)?,
        runs_may_be_missed: setting.runs_may_be_missed
            || setting.crowd.is_some()
            || setting.miss_calls > 0,
        ..Recorded::default()
    };
    let clients = match &good {
        Some(_) => Some(traffic::Clients::start(nginx.address())?),
        None => None,
    };
    let crowd = setting.crowd.map(Crowd::start).transpose()?;
    drive(&mut parts, &Stage::new(&nginx))?;
    recorded.traffic = clients.map(traffic::Clients::finish);
    let crowded = crowd.map(Crowd::finish).transpose()?;
    capture.finish()?.succeeded()?;

    recorded.log = read_error_log(&nginx.error_log())?;
    recorded.wire = carried(&witness.finish()?, &recorded.log, &nginx)?;
    for (name, part) in &parts {
        let truth = part.truth();
        let truth = truth.with_context(|| format!("no truth of {name}"))?;
        let of_it = |act| ((*name).to_owned(), act);
        recorded.acts.extend(truth.into_iter().map(of_it));
        let constants = part.constants().into_iter();
        let of_it = |constant| ((*name).to_owned(), constant);
        recorded.constants.extend(constants.map(of_it));
    }
    if let Some(folder) = &setting.save {
        save(folder, &trace, &nginx, &recorded)
            .with_context(|| format!("cannot write {}", folder.display()))?;
    }
    if let (Some(folder), [scenario]) = (&setting.fixtures, scenarios) {
        let fixture = Fixture {
            scenario: scenario.name.to_owned(),
            seed: setting.seed,
            recorded: recorded.without_normal_acts(),
        };
        let machine = Machine::this(&setting.nginx, nginx.prefix())?;
        fixture
            .write(folder, &trace, &machine)
            .context("cannot write the fixture")?;
    }
    let report = tool::run([
        "report".as_ref(),
        trace.as_os_str(),
        "--format".as_ref(),
        "json".as_ref(),
    ])?;
    let report = Report::parse(&report.succeeded()?.stdout)?;
    Ok(Score {
        crowd: crowded.unwrap_or(0),
        ..Score::of(&report, &recorded)
    })
}

/// Is the name of the function that writes nginx's lines in the binary, for others to find?
fn exports_log_function(nginx: &Path) -> Result<bool> {
    const NAME: &[u8] = b"\0ngx_log_error_core\0";
    let bytes = fs::read(nginx).with_context(|| format!("cannot read {}", nginx.display()))?;
    Ok(bytes.windows(NAME.len()).any(|part| part == NAME))
}

/// Keeps the trace, the truth, nginx's logs and its configuration.
fn save(folder: &Path, trace: &Path, nginx: &Nginx, recorded: &Recorded) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::copy(trace, folder.join("trace"))?;
    for file in [
        nginx.error_log(),
        nginx.access_log(),
        nginx.prefix().join("nginx.conf"),
    ] {
        fs::copy(&file, folder.join(file.file_name().unwrap_or_default()))?;
    }
    let truth = serde_json::to_string_pretty(recorded)?;
    Ok(fs::write(folder.join("truth.json"), truth)?)
}

/// Which connections carried the requests of failed attempts. A target that several
/// requests had tells nothing and is left out.
fn carried(seen: &[Seen], log: &[LogLine], nginx: &Nginx) -> Result<Vec<Carried>> {
    let accessed = read_access_log(&nginx.access_log())?;
    let failed: HashSet<&str> = log.iter().filter_map(LogLine::target).collect();
    let mut carried: Vec<Carried> = Vec::new();
    for request in seen {
        let accessed = accessed.get(&request.target);
        let several = accessed.is_some_and(|accessed| accessed.requests > 1);
        // Clients' own requests to nginx are on the wire too.
        if several || request.to == nginx.address() || !failed.contains(&*request.target) {
            continue;
        }
        let same =
            |other: &&mut Carried| other.target == request.target && other.upstream == request.to;
        match carried.iter_mut().find(same) {
            Some(found) => found.ends.push(request.from),
            None => carried.push(Carried {
                target: request.target.clone(),
                upstream: request.to,
                ends: vec![request.from],
                // Of one that is not in the log nobody knows.
                answered: accessed.is_none_or(|accessed| {
                    accessed.answered_by.as_ref() == Some(&request.to.to_string())
                }),
            }),
        }
    }
    Ok(carried)
}

/// Drives all parts at once. Of several that fail the one that did first is told first:
/// it may have kept the others waiting.
fn drive(parts: &mut [(&'static str, Box<dyn Part>)], stage: &Stage<'_>) -> Result<()> {
    let mut failed: Vec<(u64, String)> = thread::scope(|scope| {
        let drivers: Vec<_> = parts
            .iter_mut()
            .map(|(name, part)| {
                let drive = move || part.drive(stage).map_err(|error| (now_ns(), error));
                (*name, scope.spawn(drive))
            })
            .collect();
        drivers
            .into_iter()
            .filter_map(|(name, driver)| match driver.join() {
                Ok(Ok(())) => None,
                Ok(Err((at_ns, error))) => Some((at_ns, format!("{name} failed: {error:#}"))),
                Err(_) => Some((now_ns(), format!("{name} panicked"))),
            })
            .collect()
    });
    if failed.is_empty() {
        return Ok(());
    }
    failed.sort();
    let told: Vec<String> = failed.into_iter().map(|(_, failure)| failure).collect();
    bail!("{}", told.join("; "))
}
