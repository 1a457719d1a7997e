//! Which number stands for a type of behaviour in sequences: given once to each name, and kept with the sequences.
//!
//! Tasks and further behaviours are numbered by their place in the funnel ([`BehaviourType`]), which changes when one is added, removed or
//! moved. Sequences outlive that. So they hold numbers of their own, and what is configured is found among them by name.

use serde::{Deserialize, Serialize};

use crate::event::BehaviourType;
use crate::funnel::{Funnel, MAX_BEHAVIOURS};

/// The number of a type of behaviour in sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KindNumber(pub(crate) u8);

/// A choice of types of behaviour: those that a look reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kinds([bool; 256]);

/// The types of behaviour that sequences hold or ever held, by number, and which of them are configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindNumbers {
    /// Names by number. A name keeps its number when it is no longer configured.
    names: Vec<String>,
    /// The numbers of what is configured, by [`BehaviourType`].
    configured: Vec<KindNumber>,
}

/// There is no number left for a new type of behaviour.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected at most {MAX_BEHAVIOURS} types of behaviour in the life of a state, found {known} and the new {}: leave out new ones, or start without the stored state",
    .new.join(", ")
)]
pub struct TooManyKinds {
    /// How many names have a number.
    pub known: usize,
    /// The names that have none.
    pub new: Vec<String>,
}

impl KindNumbers {
    /// Numbers the types of behaviour of a funnel for sequences with nothing in them.
    pub fn new(funnel: &Funnel) -> Self {
        let names: Vec<String> = funnel.behaviour_names().map(str::to_owned).collect();
        let configured = (0u8..).take(names.len()).map(KindNumber).collect();
        Self { names, configured }
    }

    /// Finds the types of behaviour of another funnel by their names, and gives numbers to those that have none.
    ///
    /// # Errors
    /// [`TooManyKinds`] when there are more than [`MAX_BEHAVIOURS`] then.
    pub fn configured_as(&self, funnel: &Funnel) -> Result<Self, TooManyKinds> {
        let known = |name: &str| self.names.iter().any(|known| known == name);
        let new: Vec<String> =
            funnel.behaviour_names().filter(|name| !known(name)).map(str::to_owned).collect();
        if self.names.len() + new.len() > MAX_BEHAVIOURS {
            return Err(TooManyKinds { known: self.names.len(), new });
        }
        let names = [self.names.as_slice(), &new].concat();
        let number = |name: &str| {
            let mut numbered = names.iter().zip(0u8..);
            numbered.find_map(|(known, number)| (known == name).then_some(KindNumber(number)))
        };
        let configured = funnel.behaviour_names().filter_map(number).collect();
        Ok(Self { names, configured })
    }

    /// Returns the number of a configured type.
    ///
    /// # Panics
    /// When the type is of another funnel.
    pub fn number(&self, kind: BehaviourType) -> KindNumber {
        self.configured[usize::from(kind.0)]
    }

    /// Returns the name behind a configured type, `None` when there is no such type.
    pub fn name(&self, kind: BehaviourType) -> Option<&str> {
        let number = self.configured.get(usize::from(kind.0))?;
        self.names.get(usize::from(number.0)).map(String::as_str)
    }

    /// Returns the configured types that `read` has, by [`BehaviourType`].
    pub fn among(&self, read: &[bool]) -> Kinds {
        let read = self.configured.iter().zip(read).filter(|(_, read)| **read);
        Kinds::of(read.map(|(number, _)| *number))
    }

    /// Returns all configured types.
    pub fn configured(&self) -> Kinds {
        Kinds::of(self.configured.iter().copied())
    }

    /// Returns how many numbers were given.
    pub(super) fn given(&self) -> usize {
        self.names.len()
    }
}

impl Kinds {
    fn of(numbers: impl Iterator<Item = KindNumber>) -> Self {
        let mut kinds = Self([false; 256]);
        numbers.for_each(|KindNumber(number)| kinds.0[usize::from(number)] = true);
        kinds
    }

    /// Tells whether a type is among them.
    #[inline]
    pub fn has(&self, kind: KindNumber) -> bool {
        self.0[usize::from(kind.0)]
    }
}
