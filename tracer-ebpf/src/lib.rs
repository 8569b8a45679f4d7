//! The wire: every record that crosses from the kernel programs to user space, and
//! the read-only globals that cross the other way.
//!
//! `no_std`, no dependencies. All fields are fixed-width integers or byte arrays in
//! the host's byte order (little-endian hosts only), with explicit padding; sizes
//! and last offsets are asserted at compile time. User space decodes by validation
//! ([`connection::Connection::decode`] and its siblings), never by transmute. What a
//! record means for a verdict is left to user space.
#![no_std]

#[cfg(not(target_endian = "little"))]
compile_error!("whoclosed's wire is little-endian");

pub mod accepted;
pub mod backend;
pub mod closer;
pub mod connection;
pub mod continuation;
pub mod histogram;
pub mod layout;
pub mod logged;
pub mod loss;
pub mod peer;
pub mod record;
pub mod settings;
pub mod upstream;
pub mod written;

pub use record::{DecodeError, Kind};
