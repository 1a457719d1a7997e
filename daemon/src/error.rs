//! How the daemon ends: trouble that cannot be rejected and does not pass by waiting stops the process.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | ended well, on request |
//! | 2 | bad command line or configuration |
//! | 3 | a part was still running at its deadline during the stop |
//! | 4 | stopped by a fault, or ended without a last checkpoint: the next start goes on from the one before |
//! | 5 | data on disk unusable |

use std::error::Error;
use std::fmt;

use sluice_features::pack::OutOfReach;

use crate::config::Mistakes;
use crate::kafka::Trouble;
use crate::pipeline::names::NamesError;
use crate::store::StoreError;

/// How the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Ended well, on request.
    Well = 0,
    /// Bad command line or configuration.
    Config = 2,
    /// A part was still running at its deadline.
    Deadline = 3,
    /// Stopped by a fault.
    Fault = 4,
    /// Data on disk unusable.
    Data = 5,
}

impl Exit {
    /// Returns the process's exit code.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A reason to stop the process. Prints its own level; causes are its sources (see [`chain`]).
#[derive(Debug)]
pub struct Stop {
    exit: Exit,
    message: String,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Stop {
    /// Creates a fault: something that should work does not.
    pub fn fault(message: impl Into<String>) -> Self {
        Self { exit: Exit::Fault, message: message.into(), cause: None }
    }

    /// Creates a stop because of data on disk that cannot be used.
    pub fn data(message: impl Into<String>) -> Self {
        Self { exit: Exit::Data, message: message.into(), cause: None }
    }

    /// Creates a stop because of a configuration that cannot work in this world (an address in use, a missing topic).
    pub fn config(message: impl Into<String>) -> Self {
        Self { exit: Exit::Config, message: message.into(), cause: None }
    }

    /// Creates the stop that follows from a trouble with Kafka that does not pass by waiting.
    pub fn kafka(action: &str, trouble: Trouble) -> Self {
        let message = format!("{action} failed");
        match &trouble {
            Trouble::Settings(_) | Trouble::MissingTopic { .. } => Self::config(message),
            _ => Self::fault(message),
        }
        .because(trouble)
    }

    /// Adds what it came from.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Returns how the process ends by it.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Stop {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Damaged { .. } | StoreError::Format { .. } => {
                Self::data("the state on disk cannot be used").because(error)
            }
            StoreError::InUse { .. } | StoreError::Unusable { .. } => {
                Self::config("the state on disk cannot be opened").because(error)
            }
            StoreError::Full { .. } | StoreError::Io { .. } => {
                Self::fault("the state on disk cannot be read or written").because(error)
            }
        }
    }
}

impl From<OutOfReach> for Stop {
    fn from(error: OutOfReach) -> Self {
        if error.is_damage() {
            let message = "what was put away of users and open impressions cannot be used: move the folder of the state away and start again, to build it anew from Kafka";
            return Self::data(message).because(error);
        }
        Self::fault("what is put away of users and open impressions is out of reach").because(error)
    }
}

impl From<NamesError> for Stop {
    fn from(error: NamesError) -> Self {
        if error.is_damage() {
            let message = "names on disk cannot be used: move the folder of the state away and start again, to build it anew from Kafka";
            return Self::data(message).because(error);
        }
        Self::fault("names on disk are out of reach").because(error)
    }
}

impl From<Mistakes> for Stop {
    fn from(mistakes: Mistakes) -> Self {
        Self::config(mistakes.to_string())
    }
}

/// Returns an error with all its causes, joined by `: `.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += ": ";
        text += &error.to_string();
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_knows_its_exit_code_and_tells_its_causes() {
        let damaged = StoreError::Damaged { path: "state".into(), what: "a hole".into() };
        let stop = Stop::from(damaged);
        assert_eq!(stop.exit().code(), 5);
        assert_eq!(
            chain(&stop),
            "the state on disk cannot be used: the store in state is damaged: a hole"
        );
        assert_eq!(Stop::fault("x").exit().code(), 4);
        let missing = Stop::kafka("reading", Trouble::MissingTopic { topic: "t".into() });
        assert_eq!(missing.exit(), Exit::Config);
        assert!(chain(&missing).starts_with("reading failed: topic t does not exist"));
    }
}
