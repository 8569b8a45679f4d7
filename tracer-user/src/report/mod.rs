//! What people and programs read: the report as data, as text, as JSON, and one
//! incident's timeline. Makes no judgement of its own.

pub mod accepting;
pub mod escape;
pub mod json;
pub mod model;
pub mod text;
pub mod timeline;

mod advice;
mod incidents;
mod meanwhile;
pub(crate) mod page;
mod table;
mod upstreams;
pub(crate) mod words;
