//! Files of lines, as every subcommand reads and writes them.
//!
//! ```text
//! file, pipe, - ──> Input (opened once, unpacked) ──> Lines ──> the subcommand
//! the subcommand ──> Output (beside its place, packed) ──> moved to its place at the end
//! ```
//!
//! What is read is known by its first bytes, whatever its name; what is written, by its name.

mod ahead;
mod archive;
mod compressed;
mod foreign;
mod identity;
mod input;
mod lines;
mod output;
mod stoppable;

#[cfg(test)]
mod tests;

pub use foreign::Foreign;
pub use input::{Input, check, check_rereadable, open, shown};
pub use lines::{Line, Lines, TOO_LONG, for_each_line};
pub use output::{Closed, Output, ensure_apart, stop_clean};
pub use stoppable::Stopped;
