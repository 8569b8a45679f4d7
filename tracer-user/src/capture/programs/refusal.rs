//! What the kernel refuses, in words.

use aya::programs::ProgramError;

/// The line of a verifier's log that says what it refused.
pub(in crate::capture) fn telling_line(log: &str) -> &str {
    log.lines()
        .map(str::trim)
        .rfind(|line| {
            !line.is_empty()
                && !line.starts_with("processed ")
                && !line.starts_with("verification time")
                && !line.starts_with("stack depth")
        })
        .unwrap_or("the verifier said nothing")
}

/// Why a program could not be loaded or attached.
pub(in crate::capture) fn why(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            match io_error.raw_os_error() {
                Some(libc::EPERM) => "the host does not permit this program (EPERM): \
                     CAP_BPF and CAP_PERFMON are needed, or its security policy refuses"
                    .to_owned(),
                _ => format!("{io_error}: {}", telling_line(&log)),
            }
        }
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(inner) = source {
                text = format!("{text}: {inner}");
                source = inner.source();
            }
            text
        }
    }
}

/// The same of the maps and the object as a whole.
pub(super) fn explain_load(error: anyhow::Error) -> anyhow::Error {
    let denied = error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.raw_os_error() == Some(libc::EPERM))
    });
    if denied {
        error.context(
            "the kernel does not permit BPF maps: run as root, or with CAP_BPF and CAP_PERFMON",
        )
    } else {
        error.context("cannot load the kernel programs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_telling_line_is_the_last_that_is_no_statistic() {
        let log = "0: R1=ctx()\n1: (79) r6 = *(u64 *)(r1 +0)\nfunc 'x' doesn't have 3-th argument\n\
                   processed 2 insns (limit 1000000)\n\n";
        assert_eq!(telling_line(log), "func 'x' doesn't have 3-th argument");
        assert_eq!(telling_line(""), "the verifier said nothing");
    }
}
