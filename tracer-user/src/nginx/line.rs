//! The error log's grammar.
