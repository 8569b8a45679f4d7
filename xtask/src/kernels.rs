//! Other kernels than the host's: where they come from.
#![expect(
    dead_code,
    reason = "the verbs that use other kernels are not here yet"
)]

pub(crate) mod fetch;
mod payload;
mod suite;
