//! What an nginx binary says of itself, read from the file without running it.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, Result};
use memchr::memmem;
use object::read::elf::ElfFile64;
use object::{
    Endianness, Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, ReadCache,
};

/// Function that writes a log line: the uprobe's target.
pub const LOG_FUNCTION: &str = "ngx_log_error_core";
/// Pointer to all that a master has loaded; another one after a reload.
const CYCLE: &str = "ngx_cycle";
/// No nginx is longer; it bounds the search of a file without section headers.
const LONGEST_FILE: u64 = 256 << 20;

/// Facts about an nginx binary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Binary {
    /// Flavour and version, e.g. `nginx/1.22.1`, `openresty/1.21.4.1`, `Angie/1.9.0`.
    pub version: Option<String>,
    /// Arguments of `configure`, as `nginx -V` prints them.
    pub configure: Option<String>,
    /// [`LOG_FUNCTION`] is in a symbol table.
    pub exports_log_function: bool,
    /// Where `ngx_cycle` lies from the start of the binary in memory, if that is in a
    /// symbol table.
    pub cycle_offset: Option<u64>,
}

impl Binary {
    /// Reads a binary, e.g. `/proc/PID/exe`.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is no 64-bit ELF file.
    pub fn read(path: &Path) -> Result<Self> {
        let named = || format!("cannot read the nginx binary {}", path.display());
        let mut file = File::open(path).with_context(named)?;
        let cache = ReadCache::new(&mut file);
        let elf = ElfFile64::<Endianness, _>::parse(&cache).with_context(named)?;
        let exports_log_function = elf
            .dynamic_symbols()
            .chain(elf.symbols())
            .any(|symbol| symbol.is_definition() && symbol.name() == Ok(LOG_FUNCTION));
        let cycle = elf
            .dynamic_symbols()
            .chain(elf.symbols())
            .find(|symbol| symbol.is_definition() && symbol.name() == Ok(CYCLE));
        let start = elf.segments().map(|segment| segment.address()).min();
        let cycle_offset = cycle
            .zip(start)
            .and_then(|(cycle, start)| cycle.address().checked_sub(start & !0xfff));
        // String literals are in .rodata, a tenth of the file.
        let literals = elf
            .section_by_name(".rodata")
            .and_then(|section| section.data().ok());
        let mut facts = literals.map(Self::from_bytes).unwrap_or_default();
        if facts.version.is_none() || facts.configure.is_none() {
            let mut whole = Vec::new();
            file.seek(SeekFrom::Start(0)).with_context(named)?;
            file.take(LONGEST_FILE)
                .read_to_end(&mut whole)
                .with_context(named)?;
            facts = Self::from_bytes(&whole);
        }
        Ok(Self {
            exports_log_function,
            cycle_offset,
            ..facts
        })
    }

    /// The value of a `configure` option, e.g. `--conf-path`.
    pub fn option(&self, name: &str) -> Option<String> {
        let mut value = None;
        for argument in words(self.configure.as_deref()?) {
            let assigned = argument
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('='));
            value = assigned.map(str::to_owned).or(value);
        }
        value
    }

    /// The compiled-in prefix, with a slash at its end (`auto/options`).
    pub fn prefix(&self) -> String {
        let mut prefix = self
            .option("--prefix")
            .unwrap_or_else(|| "/usr/local/nginx".to_owned());
        if !prefix.ends_with('/') {
            prefix.push('/');
        }
        prefix
    }

    /// The configuration file if `-c` gives none; relative to the prefix.
    pub fn configuration_path(&self) -> String {
        self.option("--conf-path")
            .unwrap_or_else(|| match self.flavour() {
                "Angie" => "conf/angie.conf".to_owned(),
                _ => "conf/nginx.conf".to_owned(),
            })
    }

    /// The error log if the configuration names none; relative to the prefix, or
    /// `stderr`.
    pub fn error_log_path(&self) -> String {
        self.option("--error-log-path")
            .unwrap_or_else(|| "logs/error.log".to_owned())
    }

    /// Name before the slash of the version; empty if that is unknown.
    pub fn flavour(&self) -> &str {
        self.version
            .as_deref()
            .and_then(|text| text.split('/').next())
            .unwrap_or_default()
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        Self {
            version: version(bytes),
            configure: configure(bytes),
            ..Self::default()
        }
    }
}

/// `-V` prints `nginx version: nginx/1.22.1`; Tengine prints such a line for itself
/// and one for the nginx it is made of.
fn version(bytes: &[u8]) -> Option<String> {
    const LABEL: &[u8] = b" version: ";
    let mut found = None;
    for at in memmem::find_iter(bytes, LABEL) {
        let Some(version) = version_token(&bytes[at + LABEL.len()..]) else {
            continue;
        };
        if !version.starts_with("nginx/") {
            return Some(version);
        }
        found.get_or_insert(version);
    }
    found.or_else(|| memmem::find_iter(bytes, b"nginx/").find_map(|at| version_token(&bytes[at..])))
}

/// `Name/1.2.3` at the start of the bytes.
fn version_token(bytes: &[u8]) -> Option<String> {
    let window = &bytes[..bytes.len().min(64)];
    let end = window.iter().position(|byte| !byte.is_ascii_graphic())?;
    let token = std::str::from_utf8(&window[..end]).ok()?;
    let (name, number) = token.split_once('/')?;
    let named = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
    (named && number.starts_with(|digit: char| digit.is_ascii_digit())).then(|| token.to_owned())
}

fn configure(bytes: &[u8]) -> Option<String> {
    const LABEL: &[u8] = b"configure arguments:";
    let rest = &bytes[memmem::find(bytes, LABEL)? + LABEL.len()..];
    let end = rest.iter().position(|&byte| byte == 0 || byte == b'\n')?;
    Some(String::from_utf8_lossy(&rest[..end]).trim().to_owned())
}

/// Words of a `configure` line; `auto/options` puts values with spaces in single
/// quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for character in line.chars() {
        match quote {
            Some(open) if character == open => quote = None,
            Some(_) => word.push(character),
            None if character == '\'' || character == '"' => quote = Some(character),
            None if character == ' ' => words.push(std::mem::take(&mut word)),
            None => word.push(character),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_line_wins_over_a_server_header() {
        let bytes = b"\0nginx/1.2.3\0OpenSSL version: 3.0\0nginx version: openresty/1.21.4.1\n\0";
        assert_eq!(version(bytes).as_deref(), Some("openresty/1.21.4.1"));
        let bytes = b"nginx version: nginx/1.24.0\n\0Tengine version: Tengine/3.1.0\n\0";
        assert_eq!(version(bytes).as_deref(), Some("Tengine/3.1.0"));
        assert_eq!(
            version(b"\0Server: nginx/1.2.3\r\n").as_deref(),
            Some("nginx/1.2.3")
        );
        assert_eq!(
            version(b"nginx version: nginx/1.22.1 (Ubuntu)\n").as_deref(),
            Some("nginx/1.22.1")
        );
        assert_eq!(version(b"nothing"), None);
    }

    #[test]
    fn options_are_found_behind_quoted_ones() {
        let bytes = b"\0configure arguments: --with-cc-opt='-O2 --prefix=/wrong' \
            --prefix=/etc/nginx --error-log-path=stderr\n\0";
        let binary = Binary::from_bytes(bytes);
        assert_eq!(binary.prefix(), "/etc/nginx/");
        assert_eq!(binary.error_log_path(), "stderr");
        assert_eq!(binary.configuration_path(), "conf/nginx.conf");
    }

    #[test]
    fn a_file_that_is_no_elf_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "#!/bin/sh\n").unwrap();
        assert!(Binary::read(file.path()).is_err());
    }

    #[test]
    fn a_binary_without_nginx_in_it_has_no_log_function() {
        let own = Binary::read(Path::new("/proc/self/exe")).unwrap();
        assert!(!own.exports_log_function);
    }
}
