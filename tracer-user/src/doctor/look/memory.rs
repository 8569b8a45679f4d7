//! How much memory a capture may still use here: what is left of the host's, and of each
//! memory cgroup that this process is in.

use std::fs;
use std::path::{Path, PathBuf};

use tracer_ebpf::loss;
use tracer_ebpf::upstream::{SLOTS, UpstreamCounters};
use tracer_ebpf::written::{TEXT, Written};

use crate::doctor::found::Memory;

/// Of maps and programs in the kernel what neither the ring buffer nor a processor decides, and
/// what the process has of its own: 4 and 51 MiB.
const ANYWHERE: u64 = 55 << 20;

/// What each processor that the kernel may ever have adds to the maps: the kernel makes a
/// per-processor array whole for all of them when it is created (`bpf_array_alloc_percpu` of
/// kernel/bpf/arraymap.c), in use or not.
const A_PROCESSOR: usize =
    SLOTS * UpstreamCounters::SIZE + size_of::<u64>() * loss::COUNT as usize + Written::SIZE + TEXT;

/// What a capture uses at most.
fn needed(ring_buffer_bytes: u64, processors: usize) -> u64 {
    let processors = (processors as u64).saturating_mul(A_PROCESSOR as u64);
    ANYWHERE
        .saturating_add(ring_buffer_bytes)
        .saturating_add(processors)
}

/// Looks.
pub(super) fn look(ring_buffer_bytes: u64) -> Memory {
    let mut least: Option<(u64, String)> =
        available(&text("/proc/meminfo")).map(|free| (free, "this host".to_owned()));
    for (group, name) in groups(&text("/proc/self/cgroup"), &text("/proc/self/mountinfo")) {
        if let Some(free) = free_in(&group)
            && least.as_ref().is_none_or(|(least, _)| free < *least)
        {
            least = Some((free, format!("the memory cgroup {name}")));
        }
    }
    let (free_bytes, limited_by) = least.unzip();
    // Where it cannot be read no such map can be made either.
    let processors = aya::util::nr_cpus().unwrap_or(1);
    Memory {
        ring_buffer_bytes,
        needed_bytes: needed(ring_buffer_bytes, processors),
        free_bytes,
        limited_by,
    }
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Folders of this process's memory cgroup and of those around it, with their names.
fn groups(memberships: &str, mounts: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for membership in memberships.lines() {
        // `4:memory:/a/b` of version 1, `0::/a/b` of version 2.
        let mut parts = membership.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let kind = if controllers.is_empty() {
            "cgroup2"
        } else if controllers.split(',').any(|one| one == "memory") {
            "cgroup"
        } else {
            continue;
        };
        let Some((root, point)) = mounts.lines().find_map(|line| mount(line, kind)) else {
            continue;
        };
        // In a container the mount may begin at the group itself.
        let inside = path.strip_prefix(root.trim_end_matches('/')).unwrap_or("");
        let mut name = PathBuf::from("/").join(inside.trim_start_matches('/'));
        loop {
            let folder = Path::new(point).join(name.strip_prefix("/").unwrap_or(&name));
            found.push((folder, name.display().to_string()));
            if !name.pop() {
                break;
            }
        }
    }
    found
}

/// Root and mount point of a line of mountinfo that mounts memory cgroups of this kind.
fn mount<'a>(line: &'a str, kind: &str) -> Option<(&'a str, &'a str)> {
    let (place, system) = line.split_once(" - ")?;
    let mut system = system.split(' ');
    if system.next()? != kind {
        return None;
    }
    let options = system.nth(1)?;
    if kind == "cgroup" && !options.split(',').any(|option| option == "memory") {
        return None;
    }
    let mut place = place.split(' ').skip(3);
    Some((place.next()?, place.next()?))
}

/// What a group has left, the cache that it would give up not counted; none if it has no
/// limit.
fn free_in(group: &Path) -> Option<u64> {
    let number = |file: &str| text(group.join(file)).trim().parse::<u64>().ok();
    let limit = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    // Version 1 writes "no limit" as a number near the largest.
    if limit >= 1 << 60 {
        return None;
    }
    let cache = cache(&text(group.join("memory.stat")));
    Some(limit.saturating_sub(used.saturating_sub(cache)))
}

fn cache(statistics: &str) -> u64 {
    let of = |name: &str| {
        statistics
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find_map(|(key, value)| (key == name).then(|| value.parse::<u64>().ok())?)
    };
    // Version 1 tells the group's own and, beginning with `total_`, the whole tree's.
    of("total_inactive_file")
        .or_else(|| of("inactive_file"))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_capture_needs_grows_with_the_processors_that_there_may_be() {
        let mebibytes = |processors| needed(8 << 20, processors).div_ceil(1 << 20);
        assert_eq!(mebibytes(2), 64);
        assert_eq!(mebibytes(128), 114);
        let one_more = needed(8 << 20, 3) - needed(8 << 20, 2);
        assert!(one_more >= 256 * 1592, "{one_more}");
        assert_eq!(needed(9 << 20, 2) - needed(8 << 20, 2), 1 << 20);
    }

    const MOUNTS: &str = "\
24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
25 24 0:23 / /sys/fs/cgroup/cpu rw shared:2 - cgroup cgroup rw,cpu
26 24 0:24 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
27 24 0:25 /inner /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

    #[test]
    fn the_groups_around_a_process_are_found_in_both_versions() {
        let found = groups("8:cpu:/x\n4:memory:/a/b\n0::/inner/c\n", MOUNTS);
        let found: Vec<String> = found
            .iter()
            .map(|(folder, name)| format!("{} {name}", folder.display()))
            .collect();
        assert_eq!(
            found,
            [
                "/sys/fs/cgroup/memory/a/b /a/b",
                "/sys/fs/cgroup/memory/a /a",
                "/sys/fs/cgroup/memory/ /",
                "/sys/fs/cgroup/unified/c /c",
                "/sys/fs/cgroup/unified/ /",
            ]
        );
        assert_eq!(groups("", ""), []);
    }

    #[test]
    fn what_is_left_of_a_group_leaves_its_cache_out() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(folder.path().join(file), text).unwrap();
        assert_eq!(free_in(folder.path()), None);
        write("memory.max", "max\n");
        write("memory.current", "600\n");
        assert_eq!(free_in(folder.path()), None);
        write("memory.max", "1000\n");
        assert_eq!(free_in(folder.path()), Some(400));
        write("memory.stat", "anon 200\ninactive_file 300\n");
        assert_eq!(free_in(folder.path()), Some(700));
    }

    #[test]
    fn what_a_host_has_left_is_read() {
        assert_eq!(
            available("MemFree: 1 kB\nMemAvailable:   20 kB\n"),
            Some(20_480)
        );
    }
}
