//! The time zone that nginx stamps its lines in: found for a running instance, and
//! taken from a trace again.
//!
//! nginx keeps TZ for its workers (`ngx_set_environment`), and libc looks for it as a
//! zone file first, as a POSIX rule next. Without TZ it is `/etc/localtime`.

mod environment;

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::processes::{Instance, Root};
use crate::trace::record::TimeZone;

/// The longest zone file known is below 4 KiB; a bound for what else may lie there.
const LONGEST_ZONE_FILE: u64 = 256 << 10;
/// Where glibc, then musl look for zone files.
const DIRECTORIES: [&str; 3] = ["/usr/share/zoneinfo", "/share/zoneinfo", "/etc/zoneinfo"];

/// Finds the zone of an instance. `configured` is the configuration's `env TZ=value`
/// ([`super::configuration::InForce::time_zone`]).
///
/// UTC, as libc would have it, if there is neither TZ nor `/etc/localtime`.
pub fn find(instance: &Instance, configured: Option<&str>) -> TimeZone {
    let Ok(root) = Root::open(&instance.root) else {
        return TimeZone::default();
    };
    let pid = instance
        .workers
        .first()
        .map_or(instance.master_pid, |worker| worker.pid);
    let variable = configured
        .map(str::to_owned)
        .or_else(|| environment::variable(&root, pid, "TZ"));
    zone(&root, variable.as_deref())
}

/// The zone that a TZ variable (or its absence) means in a root directory.
pub fn zone(root: &Root, variable: Option<&str>) -> TimeZone {
    match variable {
        None => TimeZone {
            name: local_name(root),
            tzif: file(root, "/etc/localtime"),
        },
        Some(variable) => {
            let name = variable.strip_prefix(':').unwrap_or(variable);
            let tzif = if name.is_empty() {
                None
            } else if name.starts_with('/') {
                file(root, name)
            } else {
                DIRECTORIES
                    .iter()
                    .find_map(|directory| file(root, &format!("{directory}/{name}")))
            };
            TimeZone {
                name: Some(name.to_owned()).filter(|name| !name.is_empty()),
                tzif,
            }
        }
    }
}

/// The rules of a trace's zone. A name without a zone file is a POSIX rule; what is
/// neither is UTC, as for libc.
pub fn resolve(zone: &TimeZone) -> jiff::tz::TimeZone {
    let name = zone.name.as_deref().unwrap_or_default();
    let from_file = zone.tzif.as_ref().and_then(|tzif| {
        let bytes = STANDARD.decode(tzif).ok()?;
        jiff::tz::TimeZone::tzif(if name.is_empty() { "Local" } else { name }, &bytes).ok()
    });
    from_file
        .or_else(|| posix(name))
        .unwrap_or(jiff::tz::TimeZone::UTC)
}

/// A POSIX rule; libc completes one that names a summer time without its dates.
fn posix(rule: &str) -> Option<jiff::tz::TimeZone> {
    jiff::tz::TimeZone::posix(rule)
        .or_else(|_| jiff::tz::TimeZone::posix(&format!("{rule},M3.2.0,M11.1.0")))
        .ok()
}

fn file(root: &Root, path: &str) -> Option<String> {
    let bytes = root.read(Path::new(path), LONGEST_ZONE_FILE).ok()?;
    bytes.starts_with(b"TZif").then(|| STANDARD.encode(bytes))
}

/// `/etc/localtime` is a link to the zone's file as a rule.
fn local_name(root: &Root) -> Option<String> {
    let target = root.link(Path::new("/etc/localtime"))?;
    let (_, name) = target.to_str()?.split_once("zoneinfo/")?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A zone file with nothing but the rule at its end (RFC 9636, version 2).
    fn tzif(rule: &str) -> Vec<u8> {
        let mut block = b"TZif2".to_vec();
        block.extend([0; 15]);
        for count in [0_u32, 0, 0, 0, 1, 4] {
            block.extend(count.to_be_bytes());
        }
        block.extend(3600_i32.to_be_bytes());
        block.extend([0, 0]);
        block.extend(b"CET\0");
        [&block[..], &block[..], b"\n", rule.as_bytes(), b"\n"].concat()
    }

    fn host() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let zones = directory.path().join("usr/share/zoneinfo/Europe");
        fs::create_dir_all(&zones).unwrap();
        fs::create_dir_all(directory.path().join("etc")).unwrap();
        fs::write(zones.join("Berlin"), tzif("CET-1CEST,M3.5.0,M10.5.0/3")).unwrap();
        let link = directory.path().join("etc/localtime");
        std::os::unix::fs::symlink("/usr/share/zoneinfo/Europe/Berlin", link).unwrap();
        let root = Root::open(directory.path()).unwrap();
        (directory, root)
    }

    #[track_caller]
    fn offset_s(zone: &TimeZone, timestamp: &str) -> i32 {
        resolve(zone)
            .to_offset(timestamp.parse().unwrap())
            .seconds()
    }

    #[test]
    fn localtime_and_a_name_lead_to_the_same_rules() {
        let (_directory, root) = host();
        let local = zone(&root, None);
        assert_eq!(local.name.as_deref(), Some("Europe/Berlin"));
        assert_eq!(local, zone(&root, Some("Europe/Berlin")));
        assert_eq!(local, zone(&root, Some(":Europe/Berlin")));
        assert_eq!(local.tzif, zone(&root, Some(":/etc/localtime")).tzif);
        assert_eq!(offset_s(&local, "2026-07-01T00:00:00Z"), 7200);
        assert_eq!(offset_s(&local, "2026-12-01T00:00:00Z"), 3600);
    }

    #[test]
    fn posix_rules_need_no_file() {
        let (_directory, root) = host();
        let berlin = zone(&root, Some("CET-1CEST,M3.5.0,M10.5.0/3"));
        assert_eq!(berlin.tzif, None);
        assert_eq!(offset_s(&berlin, "2026-07-01T00:00:00Z"), 7200);
        assert_eq!(
            offset_s(&zone(&root, Some("<+0530>-5:30")), "2026-07-01T00:00:00Z"),
            19_800
        );
        assert_eq!(
            offset_s(&zone(&root, Some("EST5EDT")), "2026-07-01T00:00:00Z"),
            -14_400
        );
    }

    #[test]
    fn what_libc_does_not_know_is_utc() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        assert_eq!(zone(&root, None), TimeZone::default());
        for variable in ["", "Europe/Berlin", ":/none", "UTC0"] {
            let found = zone(&root, Some(variable));
            assert_eq!(offset_s(&found, "2026-07-01T00:00:00Z"), 0, "{variable}");
        }
        let broken = TimeZone {
            name: None,
            tzif: Some("!".to_owned()),
        };
        assert_eq!(offset_s(&broken, "2026-07-01T00:00:00Z"), 0);
    }
}
