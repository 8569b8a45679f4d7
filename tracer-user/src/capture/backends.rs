//! The processes of this host that end backends' sides of connections: what changed
//! since they were last read.

use std::collections::HashMap;

use tracer_ebpf::backend::{BackendKey, BackendProcess as Wire};
use tracer_ebpf::upstream::UpstreamKey;

use super::convert;
use crate::trace::record::BackendProcess;

/// What was told last, by process and upstream.
#[derive(Debug, Default)]
pub(super) struct Backends {
    told: HashMap<BackendKey, Wire>,
}

impl Backends {
    /// Those of `read` that are not as they were last told, with the addresses of their
    /// upstreams.
    pub(super) fn changed(
        &mut self,
        read: &[(BackendKey, Wire)],
        upstreams: &HashMap<u32, UpstreamKey>,
    ) -> Vec<BackendProcess> {
        let mut changed = Vec::new();
        let mut told = HashMap::with_capacity(read.len());
        for (key, process) in read {
            // An upstream that is newer than its reading; the next one has it.
            let Some(upstream) = upstreams.get(&key.upstream) else {
                continue;
            };
            if self.told.get(key) != Some(process) {
                changed.push(convert::backend_process(key, process, upstream));
            }
            told.insert(*key, *process);
        }
        self.told = told;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_ebpf::connection::FAMILY_IPV4;

    #[test]
    fn a_process_is_told_again_only_when_it_has_ended_more() {
        let mut address = [0; 16];
        address[..4].copy_from_slice(&[127, 0, 0, 1]);
        let upstream = UpstreamKey {
            address,
            port: 9101,
            family: FAMILY_IPV4,
            netns: 7,
        };
        let upstreams = HashMap::from([(3, upstream)]);
        let mut process = Wire {
            first_ns: 10,
            last_ns: 10,
            connections: 1,
            parent_pid: 4700,
            ..Wire::ZERO
        };
        process.comm[..3].copy_from_slice(b"app");
        let key = |upstream| BackendKey {
            pid: 4711,
            upstream,
        };
        let mut backends = Backends::default();
        let told = backends.changed(&[(key(3), process), (key(4), process)], &upstreams);
        assert_eq!(
            told,
            [BackendProcess {
                address: "127.0.0.1".parse().unwrap(),
                port: 9101,
                netns: 7,
                pid: 4711,
                parent_pid: 4700,
                comm: "app".to_owned(),
                first_ns: 10,
                last_ns: 10,
                connections: 1,
            }]
        );
        assert!(
            backends
                .changed(&[(key(3), process)], &upstreams)
                .is_empty()
        );
        process.last_ns = 20;
        process.connections = 2;
        let told = backends.changed(&[(key(3), process)], &upstreams);
        assert_eq!((told[0].connections, told[0].last_ns), (2, 20));
        // One that made room for others and came back.
        backends.changed(&[], &upstreams);
        assert_eq!(backends.changed(&[(key(3), process)], &upstreams).len(), 1);
    }
}
