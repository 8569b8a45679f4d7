//! What people and programs read: the report as data, as text, as JSON, and one
//! incident's timeline. Makes no judgement of its own.

pub mod model;
