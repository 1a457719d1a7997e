//! Why the daemon is not ready yet: a set of reasons that parts put up and take down.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// What there is to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// Parts are being started.
    Starting,
    /// Items and users are read up to their high-water marks.
    Catalogue,
    /// Brokers cannot be reached.
    Kafka,
    /// Requests are not read yet.
    Requests,
    /// The retrieval index does not hold all items that the catalogue has named.
    Index,
    /// Events are behind.
    Lag,
    /// A checkpoint could not be written.
    Checkpoint,
    /// Open impressions take all the memory that they may.
    Open,
    /// What is known of users and items takes all the memory that it may.
    Memory,
    /// Answers, embeddings or top lists are not taken.
    Output,
    /// Dead letters are not taken: an output too, put up and taken down by itself.
    DeadLetters,
    /// A guard has found the model unsound.
    Guard,
    /// The model has learned next to nothing: answers are noise.
    Cold,
    /// Most records are refused.
    Rejects,
    /// Most events come after their windows.
    Late,
    /// Event time has jumped in a partition, and nobody confirms it.
    Time,
}

impl Wait {
    /// Returns the name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Catalogue => "catalogue",
            Self::Kafka => "kafka",
            Self::Requests => "requests",
            Self::Index => "index",
            Self::Lag => "lag",
            Self::Checkpoint => "checkpoint",
            Self::Open => "open",
            Self::Memory => "memory",
            Self::Output | Self::DeadLetters => "output",
            Self::Guard => "guard",
            Self::Cold => "model-cold",
            Self::Rejects => "rejects",
            Self::Late => "late",
            Self::Time => "time",
        }
    }
}

/// The reasons, shared by all parts.
#[derive(Debug)]
pub struct Readiness {
    reasons: Mutex<BTreeMap<Wait, String>>,
}

impl Default for Readiness {
    fn default() -> Self {
        let readiness = Self { reasons: Mutex::default() };
        readiness.wait_for(Wait::Starting, "parts are being started");
        readiness
    }
}

impl Readiness {
    /// Puts up a reason, or changes its text. Returns whether it is new, so that it is logged once.
    pub fn wait_for(&self, what: Wait, text: impl Into<String>) -> bool {
        self.reasons.lock().insert(what, text.into()).is_none()
    }

    /// Takes a reason down. Returns whether it was up.
    pub fn clear(&self, what: Wait) -> bool {
        self.reasons.lock().remove(&what).is_some()
    }

    /// Tells whether a reason is up.
    pub fn waits_for(&self, what: Wait) -> bool {
        self.reasons.lock().contains_key(&what)
    }

    /// Tells whether there is no reason left.
    pub fn is_ready(&self) -> bool {
        self.reasons.lock().is_empty()
    }

    /// Returns all reasons with their texts.
    pub fn reasons(&self) -> Vec<(Wait, String)> {
        self.reasons.lock().iter().map(|(what, text)| (*what, text.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_that_no_reason_is_left() {
        let readiness = Readiness::default();
        assert!(readiness.wait_for(Wait::Lag, "7 records"));
        assert!(!readiness.wait_for(Wait::Lag, "5 records"));
        assert!(readiness.clear(Wait::Starting) && !readiness.clear(Wait::Starting));
        assert_eq!(readiness.reasons(), [(Wait::Lag, "5 records".to_owned())]);
        assert!(!readiness.is_ready());
        assert!(readiness.waits_for(Wait::Lag) && !readiness.waits_for(Wait::Starting));
        readiness.clear(Wait::Lag);
        assert!(readiness.is_ready());
    }
}
