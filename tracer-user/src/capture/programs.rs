//! The kernel programs: loaded, attached, and what became of each hook.

mod accepting;
mod reading;
mod refusal;
mod uprobes;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, MapData, Queue, RingBuf};
use aya::programs::{BtfTracePoint, Program, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};
use tracer_ebpf::layout;
use tracer_ebpf::settings::{self, NAME_BYTES, NAMES, SETTINGS};
use tracer_ebpf::upstream::SLOTS;

use self::refusal::explain_load;
pub(super) use self::refusal::{telling_line, why};
use self::uprobes::Uprobes;
pub use self::uprobes::{HANDSHAKE_FUNCTION, LOG_FUNCTION};
use super::calls::{self, Withheld};
use super::hooks::{OF_BACKEND, OF_NGINX, Tracepoint};
use super::twins::Twins;
use super::{abilities, clock, mid_life};
use crate::trace::record::{Hook, Role};

#[cfg(programs_embedded)]
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/programs.o"));

/// Bytes of the ring buffer: about half a second of records at 50,000 connections a
/// second; a power of two.
pub(crate) const RING_BYTES: u32 = 8 << 20;

const OPEN_CONNECTIONS: &str = "whoclosed_open";
const OPEN_ACCEPTED: &str = "whoclosed_b_ope";

/// What the programs are told when they are loaded.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whose side of connections is watched.
    pub role: Role,
    /// Process names whose connections count, unless `master` is given.
    pub names: Vec<String>,
    /// Only connections of this master's workers.
    pub master: Option<u32>,
    /// nginx's log function takes a file name before errno (Angie 1.12 and later).
    pub log_has_file_name: bool,
    /// Leave the backends' sides of connections on this host alone.
    pub no_local_backends: bool,
    /// Bytes of the ring buffer, if not the usual.
    pub ring_bytes: Option<u32>,
    /// Let the programs' own diagnostics through.
    pub diagnostics: bool,
    /// Hooks to do without, for tests.
    pub withheld: Withheld,
    /// Attach all second programs at the start, for tests.
    pub twins_at_once: bool,
}

/// The loaded programs. Dropping them detaches everything.
pub struct Programs {
    ebpf: Ebpf,
    /// Every hook and what became of it.
    pub hooks: Vec<Hook>,
    /// What no capture can do without and the kernel refused, in sentences.
    pub refused: Vec<String>,
    losses_told: BTreeMap<String, u64>,
    twins: Twins,
    uprobes: Uprobes,
    /// Programs that this kernel's tracepoints do not suit, and why.
    unsuited: BTreeMap<&'static str, String>,
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Programs")
            .field("hooks", &self.hooks)
            .finish_non_exhaustive()
    }
}

/// Whether this build carries the kernel programs.
#[must_use]
pub const fn embedded() -> bool {
    cfg!(programs_embedded)
}

#[cfg(programs_embedded)]
const fn object() -> Option<&'static [u8]> {
    Some(OBJECT)
}

#[cfg(not(programs_embedded))]
const fn object() -> Option<&'static [u8]> {
    None
}

fn name_words(name: &str) -> Result<[u64; 2]> {
    let mut bytes = [0u8; NAME_BYTES];
    let length = name.len();
    if length == 0 || length >= NAME_BYTES {
        bail!(
            "process name {name:?} must have 1 to {} bytes",
            NAME_BYTES - 1
        );
    }
    bytes[..length].copy_from_slice(name.as_bytes());
    let word = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    Ok([word(0), word(8)])
}

impl Programs {
    /// Loads the object and attaches every tracepoint program.
    ///
    /// # Errors
    /// As [`Programs::try_all`]; also if the kernel refuses a program that no capture can
    /// do without: the error names it and what would be lost.
    pub fn load(options: &Options) -> Result<Self> {
        let this = Self::try_all(options)?;
        match this.refused.first() {
            Some(refused) => bail!("{refused}"),
            None => Ok(this),
        }
    }

    /// The same, but goes on where the kernel refuses a program, and notes it.
    ///
    /// # Errors
    /// If this build has no programs, or the kernel's types cannot be read, or it refuses
    /// maps.
    pub fn try_all(options: &Options) -> Result<Self> {
        let object = object().context(
            "this whoclosed was built without its kernel programs, so it can report on traces \
             but not capture; build it with `cargo xtask build`",
        )?;
        let facts = super::btf::Facts::read(Path::new(super::btf::KERNEL_BTF))?;
        let mut names = [[0u64; 2]; NAMES];
        if options.names.len() > NAMES {
            bail!("at most {NAMES} process names can be given");
        }
        for (slot, name) in names.iter_mut().zip(&options.names) {
            *slot = name_words(name)?;
        }
        let mut values = [0u32; SETTINGS];
        values[settings::MASTER_PID] = options.master.unwrap_or(0);
        values[settings::LOG_HAS_FILE_NAME] = u32::from(options.log_has_file_name);
        values[settings::EXECVE] = u32::try_from(libc::SYS_execve)?;
        values[settings::EXECVEAT] = u32::try_from(libc::SYS_execveat)?;
        values[settings::WRITE] = u32::try_from(libc::SYS_write)?;
        values[settings::SENDTO] = u32::try_from(libc::SYS_sendto)?;
        values[settings::NO_LOCAL_BACKENDS] = u32::from(options.no_local_backends);
        values[settings::TICK_NS] = clock::tick_ns();
        values[settings::MISSED_CALLS] = options.withheld.calls;
        let registers = abilities::registers(options.withheld.task_registers);
        values[settings::TASK_REGISTERS] = u32::from(registers.is_none());
        let level: u8 = if options.diagnostics { u8::MAX } else { 0 };
        let layout_global: &[u32; layout::COUNT] = &facts.layout;

        let btf = Btf::from_sys_fs().context("cannot read the kernel's type information")?;
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("LAYOUT", layout_global, true)
            .override_global("NAMES", &names, true)
            .override_global("SETTINGS", &values, true)
            .override_global("AYA_LOG_LEVEL", &level, true)
            .map_max_entries("RECORDS", options.ring_bytes.unwrap_or(RING_BYTES))
            .load(object)
            .map_err(|error| explain_load(anyhow::Error::new(error)))?;

        let mut free: Queue<_, u32> = Queue::try_from(map(&mut ebpf, "FREE_SLOTS")?)?;
        for slot in 1..u32::try_from(SLOTS)? {
            free.push(slot, 0)
                .context("cannot fill the map of counter slots")?;
        }

        let mut this = Self {
            ebpf,
            hooks: registers.into_iter().collect(),
            refused: Vec::new(),
            losses_told: BTreeMap::new(),
            twins: Twins::new(options.twins_at_once),
            uprobes: Uprobes::Unloaded(options.withheld),
            unsuited: facts.unsuited,
        };
        let (tracepoints, open) = match options.role {
            Role::Nginx => (OF_NGINX, OPEN_CONNECTIONS),
            Role::Backend => (OF_BACKEND, OPEN_ACCEPTED),
        };
        if options.role == Role::Nginx {
            this.attach_calls(options.withheld, &btf)?;
        }
        for tracepoint in tracepoints {
            this.attach_tracepoint(tracepoint, &btf);
        }
        this.hooks.extend(this.twins.refused());
        this.load_open_connections(open, &btf);
        this.drop_unused_maps(options.role);
        Ok(this)
    }

    /// The other programs are told if nginx's calls are not seen.
    fn attach_calls(&mut self, withheld: Withheld, btf: &Btf) -> Result<()> {
        let hooks = calls::attach(&mut self.ebpf, &mut self.twins, btf, withheld);
        let unseen = hooks.iter().any(|hook| !hook.attached);
        let mut map: Array<_, u32> = Array::try_from(map(&mut self.ebpf, "CALLS_UNSEEN")?)?;
        map.set(0, u32::from(unseen), 0)
            .context("cannot tell the programs that calls are not seen")?;
        self.hooks.extend(hooks);
        Ok(())
    }

    fn attach_tracepoint(&mut self, wanted: &Tracepoint, btf: &Btf) {
        let mut result = self.try_tracepoint(wanted.program, wanted.tracepoint, btf);
        let mut by = None;
        if let (Err(_), Some((instead, what))) = (&result, wanted.instead) {
            result = self.try_tracepoint(instead, wanted.tracepoint, btf);
            by = result.is_ok().then(|| what.to_owned());
        }
        let reason = match result {
            Ok(()) => None,
            Err(error) => Some(why(&error)),
        };
        if let Some(reason) = &reason
            && wanted.required
        {
            self.refused.push(format!(
                "cannot attach to the kernel's tracepoint {}: {reason}; without it {}",
                wanted.tracepoint, wanted.without
            ));
        }
        self.hooks.push(Hook {
            name: wanted.hook(),
            attached: reason.is_none(),
            by,
            reason: reason.map(|reason| format!("{reason}; without it {}", wanted.without)),
        });
    }

    fn try_tracepoint(
        &mut self,
        program: &str,
        tracepoint: &str,
        btf: &Btf,
    ) -> Result<(), ProgramError> {
        if let Some(reason) = self.unsuited(program) {
            return Err(std::io::Error::other(reason).into());
        }
        let loaded = self
            .ebpf
            .program_mut(program)
            .ok_or(ProgramError::NotLoaded)?;
        let loaded: &mut BtfTracePoint = loaded.try_into()?;
        loaded.load(tracepoint, btf)?;
        loaded.attach()?;
        self.twins.load(&mut self.ebpf, btf, program, tracepoint);
        Ok(())
    }

    fn load_open_connections(&mut self, program: &str, btf: &Btf) {
        let result = match self.ebpf.program_mut(program) {
            Some(Program::Iter(program)) => program.load("bpf_sk_storage_map", btf),
            _ => Err(ProgramError::NotLoaded),
        };
        let reason = result.err().map(|error| {
            format!(
                "{}; without it connections still open at the end are not recorded",
                why(&error)
            )
        });
        self.hooks.push(Hook {
            name: "bpf_sk_storage_map (iterator)".to_owned(),
            attached: reason.is_none(),
            by: None,
            reason,
        });
    }

    /// Why a program may not be attached to this kernel's tracepoint, if so.
    pub(super) fn unsuited(&self, program: &str) -> Option<&str> {
        self.unsuited.get(program).map(String::as_str)
    }

    /// Lets another module load what only it knows of.
    pub(super) fn with<T>(&mut self, act: impl FnOnce(&mut Ebpf) -> T) -> T {
        act(&mut self.ebpf)
    }

    /// Makes records for the connections that are open already. To be called when
    /// everything is attached.
    pub fn take_over(&mut self, role: Role) {
        let reason = mid_life::take_over(&mut self.ebpf, role)
            .err()
            .map(|error| {
                format!(
                    "{error:#}; without it connections that were open before the capture are not \
                 known"
                )
            });
        self.hooks.push(Hook {
            name: "task_file (iterator)".to_owned(),
            attached: reason.is_none(),
            by: None,
            reason,
        });
    }

    /// The ring buffer of records; can be taken once.
    ///
    /// # Errors
    /// If it was taken before.
    pub fn take_records(&mut self) -> Result<RingBuf<MapData>> {
        let map = self
            .ebpf
            .take_map("RECORDS")
            .context("the ring buffer is taken")?;
        Ok(RingBuf::try_from(map)?)
    }

    /// The programs' own diagnostics; see [`Options::diagnostics`].
    ///
    /// # Errors
    /// If the programs have no log.
    pub fn diagnostics(&mut self) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>> {
        Ok(aya_log::EbpfLogger::init(&mut self.ebpf)?)
    }
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::maps::Map> {
    ebpf.map_mut(name)
        .with_context(|| format!("the kernel programs have no map {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_too_long_for_the_kernel_is_refused() {
        assert!(name_words("nginx").is_ok());
        assert!(name_words("a-name-of-sixteen").is_err());
        assert!(name_words("").is_err());
    }
}
