//! The verb `layouts`: what other kernels' own descriptions say of the struct fields,
//! functions and tracepoints that whoclosed reads, for tests that need no other kernel.
//! Of each kernel `tests/fixtures/layouts` has its BTF, cut down to what is looked up
//! there, and beside it what bpftool and the C compiler make of the whole.

mod btf;
mod witness;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use tracer_ebpf::layout::{self, Field};

use crate::kernels::fetch::{self, Kernel};
use crate::{apt, step, workspace};

/// Where a kernel lets its BTF be read.
const HOST: &str = "/sys/kernel/btf/vmlinux";
const FOLDER: &str = "tests/fixtures/layouts";

/// An architecture, as Debian names it, and its kernels.
struct Architecture {
    name: &'static str,
    fields: &'static [Field],
    kernels: &'static [&'static str],
}

const ARCHITECTURES: [Architecture; 2] = [
    Architecture {
        name: "amd64",
        fields: layout::x86_64::FIELDS,
        kernels: &[
            "5.10",
            "6.1",
            "6.1-cloud",
            "6.12",
            "6.12-cloud",
            "6.16-cloud",
            "6.17-cloud",
            "6.18-cloud",
            "6.19",
            "7.0",
            "7.1",
            "7.2",
            "7.3",
        ],
    },
    Architecture {
        name: "arm64",
        fields: layout::aarch64::FIELDS,
        kernels: &["6.1-cloud", "6.12-cloud", "6.19", "7.3"],
    },
];

/// Functions whose ends are watched where there is no tracepoint.
const FUNCTIONS: [&str; 3] = ["tcp_sendmsg", "tcp_sendpage", "tcp_recvmsg"];
/// Tracepoints that programs are attached to, or may be.
const TRACEPOINTS: [&str; 12] = [
    "inet_sock_set_state",
    "tcp_destroy_sock",
    "sock_send_length",
    "sock_recv_length",
    "tcp_receive_reset",
    "tcp_send_reset",
    "tcp_retransmit_skb",
    "sched_process_exit",
    "sys_enter",
    "inet_sk_error_report",
    "mark_victim",
    "signal_deliver",
];

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Kernels by name, such as 6.12 or 6.12-cloud; all that the tests use if none is given
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Write the running kernel's too, under this name
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

/// What is looked for in a kernel's BTF.
struct Wanted {
    fields: &'static [Field],
    functions: &'static [&'static str],
    tracepoints: &'static [&'static str],
}

/// Writes the facts of kernels for the tests.
///
/// # Errors
/// If no kernel can be had, one has no BTF, or bpftool or the C compiler fails.
pub(crate) fn verb(options: &Options) -> Result<()> {
    set_up()?;
    let folder = workspace::root().join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for architecture in &ARCHITECTURES {
        let is_wanted = |name: &&&str| {
            options.names.is_empty() && options.host.is_none()
                || options.names.iter().any(|wanted| wanted == *name)
        };
        let names: Vec<String> = architecture
            .kernels
            .iter()
            .filter(is_wanted)
            .map(|name| (*name).to_owned())
            .collect();
        if names.is_empty() {
            continue;
        }
        for kernel in fetch::kernels_for(architecture.name, &names)? {
            let Kernel { name, release, .. } = &kernel;
            let image = fs::read(&kernel.vmlinux)
                .with_context(|| format!("cannot read {}", kernel.vmlinux.display()))?;
            let blob = btf::find(&image).with_context(|| format!("{release} has no BTF"))?;
            let name = format!("{name}.{}", architecture.name);
            write(&folder, &name, release, blob, architecture.fields)?;
        }
    }
    if let Some(name) = &options.host {
        let blob = fs::read(HOST).with_context(|| format!("cannot read {HOST}"))?;
        let release = step::ask(Command::new("uname").arg("-r")).unwrap_or_default();
        // A name that its owner gave is nobody's business.
        let release = release.trim().split('-').next().unwrap_or_default();
        let machine = step::ask(Command::new("dpkg").arg("--print-architecture"));
        let architecture = ARCHITECTURES
            .iter()
            .find(|it| machine.as_deref().map(str::trim) == Some(it.name))
            .context("whoclosed does not know this machine's architecture")?;
        let name = format!("{name}.{}", architecture.name);
        write(&folder, &name, release, &blob, architecture.fields)?;
    }
    Ok(())
}

fn set_up() -> Result<()> {
    let programs = [("bpftool", "bpftool"), ("cc", "gcc"), ("zstd", "zstd")];
    let missing: Vec<String> = programs
        .iter()
        .filter(|(program, _)| workspace::find_program(program).is_none())
        .map(|(_, package)| (*package).to_owned())
        .collect();
    apt::install("reading kernels' types", &missing)?;
    // The C library's own header is not needed, but its object files are.
    let lacks_library = missing.iter().any(|package| package == "gcc");
    if lacks_library {
        apt::install("reading kernels' types", &apt::missing(&["libc6-dev"]))?;
    }
    Ok(())
}

fn write(
    folder: &Path,
    name: &str,
    release: &str,
    blob: &[u8],
    fields: &'static [Field],
) -> Result<()> {
    let wanted = Wanted {
        fields,
        functions: &FUNCTIONS,
        tracepoints: &TRACEPOINTS,
    };
    let cut = btf::Blob::parse(blob)
        .with_context(|| format!("cannot read the BTF of {release}"))?
        .cut(&wanted);
    let packed = compress(&cut)?;
    let witness = witness::of(blob, &wanted).with_context(|| format!("kernel {release}"))?;
    let put = |ending: &str, bytes: &[u8]| {
        let file = folder.join(format!("{name}.{ending}"));
        fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))
    };
    put("btf.zst", &packed)?;
    put(
        "txt",
        format!("# bpftool's and the C compiler's reading of Linux {release}\n{witness}")
            .as_bytes(),
    )?;
    println!(
        "{name}: {release}, {} of {} bytes, {} packed",
        cut.len(),
        blob.len(),
        packed.len()
    );
    Ok(())
}

fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("zstd")
        .args(["-19", "-c", "-q"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start zstd")?;
    let mut stdin = child.stdin.take().context("the pipe is gone")?;
    let output = std::thread::scope(|scope| {
        // What it makes of a pipe that breaks, its exit status says.
        scope.spawn(move || stdin.write_all(bytes));
        child.wait_with_output()
    })?;
    if !output.status.success() {
        bail!("zstd failed ({})", output.status);
    }
    Ok(output.stdout)
}
