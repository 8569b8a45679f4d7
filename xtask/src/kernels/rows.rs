//! The matrix's rows: which kernel each is, and with what command line it is started.

use anyhow::Result;

use super::fetch::{self, Kernel};
use super::withheld::{self, Calls};
use super::{another, given};
use crate::machine::Machine;

/// The name of the kernel that is running already: its row is no guest's.
pub(super) const HOST: &str = "host";
/// What a kernel's name may end in, and what that adds to its command line. With
/// `preempt=full` a task is preempted wherever it is, within a program too.
const ENDINGS: [(&str, &str); 5] = [
    ("-integrity", "lockdown=integrity"),
    ("-confidentiality", "lockdown=confidentiality"),
    ("-preempt", "preempt=full"),
    withheld::ENDINGS[0],
    withheld::ENDINGS[1],
];
/// The rows with such an ending where no kernel is named.
const ENDED: [&str; 6] = [
    "6.12-integrity",
    "6.1-confidentiality",
    "6.12-confidentiality",
    "6.1-preempt",
    "7.1-preempt",
    "6.1-unseen",
];
/// The newest kernel has one, too: the functions change, and nothing else there shows it.
const NEWEST: &str = withheld::ENDINGS[0].0;

/// Where a capture has to refuse, by the line or by the command line, and a word that it
/// has to say: a kernel that lets no program read its memory (LOCKDOWN_BPF_READ_KERNEL), and
/// one without socket storage for programs on tracepoints (before 5.11).
pub(super) const REFUSES: [(&str, &str); 2] =
    [("lockdown=confidentiality", "lockdown"), (OLD, TOO_OLD)];
/// The line that is too old, and the words.
const OLD: &str = "5.10";
pub(super) const TOO_OLD: &str = "too old";

/// A kernel to run on.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) name: String,
    /// None: the host's own, or one that cannot be had.
    pub(super) kernel: Option<Kernel>,
    pub(super) append: &'static str,
    /// What a capture has to say that has to refuse here.
    pub(super) refuses: Option<&'static str>,
}

impl Run {
    /// The guest's machine, if there is to be a guest; none within for one as this.
    pub(super) fn machine(&self) -> Option<Option<Machine>> {
        self.kernel.as_ref().map(|kernel| kernel.machine)
    }

    /// What sees nginx's sends and receives in it.
    pub(super) fn calls(&self) -> Calls {
        let kernel = self.kernel.as_ref();
        kernel.map_or_else(Calls::default, |kernel| Calls::of(kernel, self.append))
    }
}

/// The rows of these names, or all.
pub(super) fn plan(names: &[String]) -> Result<Vec<Run>> {
    let (files, mut names): (Vec<String>, Vec<String>) =
        names.iter().cloned().partition(|name| given::is_file(name));
    let given = files.iter().map(|file| given::kernel(file));
    let given: Vec<Kernel> = given.collect::<Result<_>>()?;
    let mut lines: Vec<String> = names
        .iter()
        .filter(|name| *name != HOST)
        .map(|name| line(name).0.to_owned())
        .collect();
    lines.sort();
    lines.dedup();
    let is_all = names.is_empty() && given.is_empty();
    let kernels = if !lines.is_empty() || is_all {
        another::kernels(&lines)
    } else {
        Ok(Vec::new())
    };
    let kernels = kernels.unwrap_or_else(|error| {
        eprintln!("kernels: {error:#}");
        Vec::new()
    });
    if is_all {
        names = usual(&kernels);
    }
    let mut runs = runs(names, &kernels);
    runs.extend(given.into_iter().map(|kernel| Run {
        name: kernel.name.clone(),
        kernel: Some(kernel),
        append: "",
        refuses: None,
    }));
    Ok(runs)
}

/// The rows where none is named, of which these kernels could be had, the newest last.
fn usual(kernels: &[Kernel]) -> Vec<String> {
    let mut names = fetch::LINES.map(str::to_owned).to_vec();
    let more = kernels.iter().map(|kernel| kernel.name.clone());
    let more: Vec<String> = more.filter(|name| !names.contains(name)).collect();
    names.extend(more);
    names.extend(ENDED.map(str::to_owned));
    names.extend(kernels.last().map(|newest| newest.name.clone() + NEWEST));
    names.push(HOST.to_owned());
    names
}

/// The rows of these names, with those of the kernels that could be had.
pub(super) fn runs(names: Vec<String>, kernels: &[Kernel]) -> Vec<Run> {
    let run = |name: String| {
        let (line, append) = line(&name);
        let kernel = kernels.iter().find(|kernel| kernel.name == line).cloned();
        let refuses = REFUSES
            .iter()
            .find(|(what, _)| [line, append].contains(what));
        Run {
            refuses: refuses.map(|(_, word)| *word),
            name,
            kernel,
            append,
        }
    };
    names.into_iter().map(run).collect()
}

/// The line in a row's name, and what the rest adds to the command line.
pub(super) fn line(name: &str) -> (&str, &'static str) {
    ENDINGS
        .iter()
        .find_map(|(ending, append)| Some((name.strip_suffix(ending)?, *append)))
        .unwrap_or((name, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_of_a_rows_name_goes_to_the_kernels_command_line() {
        assert_eq!(line("6.12"), ("6.12", ""));
        assert_eq!(line("6.12-cloud"), ("6.12-cloud", ""));
        assert_eq!(line("6.12-integrity"), ("6.12", "lockdown=integrity"));
        assert_eq!(line("6.1-cloud-preempt"), ("6.1-cloud", "preempt=full"));
        assert_eq!(line("7.3-fexit"), ("7.3", "WITHHELD=--no-io-tracepoints"));
        assert_eq!(line("6.1-cloud-unseen").0, "6.1-cloud");
        let locked_down = line("6.12-cloud-arm64-integrity");
        assert_eq!(locked_down, ("6.12-cloud-arm64", "lockdown=integrity"));
    }

    #[test]
    fn where_nothing_is_named_the_newest_kernel_also_does_without_the_tracepoints() {
        let kernel = |name: &str| Kernel {
            name: name.to_owned(),
            release: format!("{name}.9-amd64"),
            vmlinux: std::path::PathBuf::new(),
            machine: None,
        };
        let kernels = ["6.1", "7.0", "8.1"].map(kernel);
        let names = usual(&kernels);
        for name in ["6.12", "7.0", "8.1", "8.1-fexit", "6.1-unseen", HOST] {
            assert!(names.iter().any(|one| one == name), "{name} of {names:?}");
        }
        let calls: Vec<Calls> = runs(names, &kernels)
            .iter()
            .filter(|run| ["7.0", "8.1-fexit", "6.1-unseen"].contains(&run.name.as_str()))
            .map(Run::calls)
            .collect();
        assert_eq!(calls, [Calls::Seen, Calls::Unseen, Calls::AtEnds]);
        assert!(!usual(&[]).iter().any(|name| name.ends_with(NEWEST)));
    }

    #[test]
    fn a_capture_has_to_refuse_where_the_kernel_is_locked_down_or_too_old_only() {
        let names = ["6.12", "6.12-integrity", "6.1-confidentiality", "5.10"];
        let refuses: Vec<_> = runs(names.map(str::to_owned).to_vec(), &[])
            .into_iter()
            .map(|run| run.refuses)
            .collect();
        assert_eq!(refuses, [None, None, Some("lockdown"), Some("too old")]);
    }
}
