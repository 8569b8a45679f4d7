//! What is not seen where programs at the ends of the kernel's TCP functions took the place
//! of the tracepoints on sends and receives (`docs/compatibility.md`). Those functions are of
//! TCP alone: bytes on a unix socket never come there, and what the kernel encrypts goes past
//! them (`tls_push_sg` of net/tls/tls_main.c calls `do_tcp_sendpages`, since Linux 6.5
//! `tcp_sendmsg_locked`).

use crate::trace::record::{Configuration, Hook};

/// Which bytes of an nginx go past these functions; none: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    unix_clients: Option<bool>,
    encrypted_clients: Option<bool>,
    encrypted_backends: Option<bool>,
}

impl Past {
    /// By its configuration, if that is known and in force.
    #[must_use]
    pub fn of(configuration: Option<&Configuration>) -> Self {
        let clients = configuration.and_then(|configuration| configuration.clients);
        let of_location = |(name, value): (&String, &String)| {
            name.ends_with("ssl_conf_command") && value.contains("KTLS")
        };
        Self {
            unix_clients: clients.map(|clients| clients.unix),
            encrypted_clients: clients.map(|clients| clients.kernel_tls),
            encrypted_backends: configuration.map(|configuration| {
                let mut places = configuration.locations.iter();
                places.any(|place| place.settings.iter().any(of_location))
            }),
        }
    }
}

/// What is not known of these instances, to follow "not known:"; empty if they have nothing
/// that goes past the functions.
#[must_use]
pub fn unknown(all: &[Past]) -> Vec<&'static str> {
    let may = |which: fn(&Past) -> Option<bool>| all.iter().any(|one| which(one) != Some(false));
    let mut unknown = Vec::new();
    if may(|one| one.unix_clients) {
        unknown.push("whether clients on unix sockets were served");
    }
    if may(|one| one.encrypted_clients) {
        unknown.push("whether clients were served for whom the kernel encrypts (KTLS)");
    }
    if may(|one| one.encrypted_backends) {
        unknown.push("what was sent to backends for which the kernel encrypts (KTLS)");
    }
    unknown
}

/// Of a configuration that is not known: whether there are such sockets is not either.
#[must_use]
pub fn is_guessed(all: &[Past]) -> bool {
    let is_known = |one: &Past| {
        let facts = [
            one.unix_clients,
            one.encrypted_clients,
            one.encrypted_backends,
        ];
        facts.contains(&Some(true)) || !facts.contains(&None)
    };
    !all.iter().all(is_known)
}

/// What took the place of the tracepoints, in words; none if nothing did.
#[must_use]
pub fn instead(hooks: &[Hook]) -> Option<String> {
    let mut by: Vec<&str> = hooks.iter().filter_map(Hook::of_calls_by).collect();
    by.dedup();
    (!by.is_empty()).then(|| by.join(", "))
}

/// What it cost this capture, if it may have cost anything.
pub(super) fn note(hooks: &[Hook], all: &[Past]) -> Option<String> {
    let by = instead(hooks)?;
    let unknown = unknown(all);
    if unknown.is_empty() {
        return None;
    }
    let condition = if is_guessed(all) {
        "; whether there are any, its configuration would tell, and that is not known"
    } else {
        ""
    };
    Some(format!(
        "nginx's sends and receives were seen at the ends of the kernel's TCP functions alone \
         ({by}); not known: {}{condition}",
        unknown.join(", ")
    ))
}
