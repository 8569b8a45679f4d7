//! What this host can tell: looks at it, tries everything that a capture would do, and
//! says in sentences what a capture would and would not find out.
//!
//! [`look`] gathers facts and leaves nothing behind; [`statements`] is a pure function of
//! them; [`text`] prints both. What keeps a capture from running is said in the words of
//! [`crate::capture::checks`], which `capture` uses too; what limits it, `capture` says in
//! the words of [`warnings`], from what it has tried itself.

pub mod found;
pub mod look;
pub mod statements;
#[cfg(test)]
mod tests;
pub mod text;

use serde::Serialize;

use self::found::Found;
use self::statements::{Statement, Weight};
use crate::report::escape::escape;

/// Name of the JSON's form.
pub const SCHEMA: &str = "whoclosed.doctor/1";

/// What `whoclosed doctor` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diagnosis {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Name and version of this program.
    pub program: String,
    /// A capture would run.
    pub possible: bool,
    /// A capture would give full verdicts.
    pub full: bool,
    /// What it would tell, a sentence each.
    pub can: Vec<String>,
    /// What it would not, why, and what to do about it.
    pub statements: Vec<Statement>,
    /// The facts.
    pub found: Found,
}

/// What a capture tells its user before it begins: all that makes it less than whole, as the
/// diagnosis has it, one line each.
#[must_use]
pub fn warnings(found: &Found) -> Vec<String> {
    statements::before_capture(found)
        .into_iter()
        .map(|said| match said.remedy {
            Some(remedy) => format!("{}; {remedy}", said.text),
            None => said.text,
        })
        .map(|line| escape(&line, usize::MAX))
        .collect()
}

impl Diagnosis {
    /// From facts alone.
    #[must_use]
    pub fn of(found: Found) -> Self {
        let statements = statements::all(&found);
        let none = |weight| statements.iter().all(|said| said.weight != weight);
        let possible = none(Weight::Prevents);
        Self {
            schema: SCHEMA,
            program: concat!("whoclosed ", env!("CARGO_PKG_VERSION")).to_owned(),
            possible,
            full: possible && none(Weight::Limits),
            can: if possible {
                statements::can(&found)
            } else {
                Vec::new()
            },
            statements,
            found,
        }
    }
}
