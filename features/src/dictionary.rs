//! The strings behind ids, numbered in the order of their first sight.
//!
//! In memory a name costs its id, its number and a second hash of its string, by which two strings that share an id are told apart without
//! the strings. The strings lie in pages of neighbouring numbers, in memory only until a page is full and kept elsewhere:
//!
//! ```text
//! numbers  0 .. 255   256 .. 511   512 .. 767   768 .. 801
//! strings  elsewhere  elsewhere    in memory    in memory, filling       Dictionary::forget(768) lets the third page go
//! ```

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use crate::ids::salted_hash;
use crate::maps::{BLOCK, Seeded};
use crate::pages::PagedVec;

/// Names of a page.
pub const PAGE: usize = 256;
/// Names that lie together in memory.
const CHUNK: usize = 1024;
/// The seed of the second hash. It is part of every checkpoint.
const CHECK: u64 = 0x6e61_6d65;

/// Returns the second hash of a string: of two strings with the same id it differs, but for one in four thousand million pairs.
pub fn check_of(text: &str) -> u32 {
    // The upper half: the lower one has the bit that keeps zero free.
    (salted_hash(CHECK, text.as_bytes()) >> 32) as u32
}

/// What is kept in memory of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, packed(4))]
pub struct Name {
    /// The id.
    pub id: u64,
    /// The second hash of the string ([`check_of`]).
    pub check: u32,
}

/// The strings of neighbouring numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    text: String,
    ends: Vec<u32>,
}

/// Where the string of a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts<'a> {
    /// In memory.
    Here(&'a str),
    /// In a page that is kept elsewhere.
    Elsewhere(Away),
}

/// A string that is kept elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Away {
    /// The page.
    pub page: u32,
    /// The place in it.
    pub place: u32,
    /// The second hash of the string.
    pub check: u32,
}

/// Two different strings have the same 64-bit id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another name has the same 64-bit id: rename one of them")]
pub struct Collision;

/// A page or a name does not fit to what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name is there already, or does not belong here")]
pub struct Misfit;

/// The strings behind ids of one kind, numbered in the order of their first sight: sequences store the number (4 bytes) where the
/// id would take 8.
#[derive(Clone, Debug, Default)]
pub struct Dictionary {
    numbers: HashTable<u32>,
    hashing: Seeded,
    names: PagedVec<Name, CHUNK>,
    /// Pages whose strings are kept elsewhere; all behind them are in memory.
    away: usize,
    pages: VecDeque<Texts>,
    /// Bytes of memory that the pages take.
    bytes: usize,
}

impl Texts {
    /// Adds a string.
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(u32::try_from(self.text.len()).unwrap_or(u32::MAX));
    }

    /// Returns the string at a place, if there is one.
    pub fn get(&self, place: usize) -> Option<&str> {
        let end = *self.ends.get(place)? as usize;
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.text.get(start..end)
    }

    /// Returns the string that is kept elsewhere, if this is its page and holds it.
    pub fn find(&self, away: &Away) -> Option<&str> {
        self.get(away.place as usize).filter(|text| check_of(text) == away.check)
    }

    /// Returns the strings in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|place| self.get(place))
    }

    /// Returns how many strings there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Tells whether there is no string.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns about how many bytes of memory it takes.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.text.capacity() + 4 * self.ends.capacity() + 2 * BLOCK
    }
}

impl<'a> FromIterator<&'a str> for Texts {
    fn from_iter<I: IntoIterator<Item = &'a str>>(texts: I) -> Self {
        let mut all = Self::default();
        texts.into_iter().for_each(|text| all.push(text));
        all.text.shrink_to_fit();
        all.ends.shrink_to_fit();
        all
    }
}

impl Dictionary {
    /// Returns the number of a string with its id, entering it when it is new.
    ///
    /// # Errors
    /// [`Collision`] when another string has this id already.
    pub fn enter(&mut self, id: u64, text: &str) -> Result<u32, Collision> {
        let check = check_of(text);
        if let Some(number) = self.number(id) {
            let known = self.names[number as usize].check == check;
            return if known { Ok(number) } else { Err(Collision) };
        }
        if self.names.len().is_multiple_of(PAGE) {
            self.pages.push_back(Texts::default());
            self.bytes += size_of::<Texts>() + 2 * BLOCK;
        }
        if let Some(page) = self.pages.back_mut() {
            let before = page.memory();
            page.push(text);
            self.bytes += page.memory() - before;
        }
        Ok(self.push(Name { id, check }))
    }

    /// Returns the number of an id, if it was ever entered.
    pub fn number(&self, id: u64) -> Option<u32> {
        let names = &self.names;
        self.numbers.find(self.hash(id), |&number| names[number as usize].id == id).copied()
    }

    /// Returns the id behind a number.
    ///
    /// # Panics
    /// When the number was not given out by this dictionary.
    pub fn id(&self, number: u32) -> u64 {
        self.names[number as usize].id
    }

    /// Tells whether a string was entered with its id.
    pub fn knows(&self, id: u64, text: &str) -> bool {
        self.number(id).is_some_and(|number| self.names[number as usize].check == check_of(text))
    }

    /// Returns where the string of a number is, `None` for a number that was not given out.
    pub fn whereabouts(&self, number: u32) -> Option<Whereabouts<'_>> {
        let (page, place) = (number as usize / PAGE, number as usize % PAGE);
        let check = self.names.get(number as usize)?.check;
        let Some(page) = page.checked_sub(self.away) else {
            let (page, place) = (page as u32, place as u32);
            return Some(Whereabouts::Elsewhere(Away { page, place, check }));
        };
        self.pages.get(page)?.get(place).map(Whereabouts::Here)
    }

    /// Returns how many strings there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Tells whether nothing was entered yet.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Returns the names of a page by number.
    pub fn names(&self, page: u32) -> impl ExactSizeIterator<Item = Name> + '_ {
        let from = (page as usize * PAGE).min(self.len());
        let to = self.len().min(from + PAGE);
        (from..to).map(|number| self.names[number])
    }

    /// Returns the strings of a page by number, `None` where they are kept elsewhere or there is no such page.
    pub fn texts(&self, page: u32) -> Option<&Texts> {
        self.pages.get((page as usize).checked_sub(self.away)?)
    }

    /// Returns about how many bytes of memory the strings take.
    pub fn text_bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets the strings of full pages of the first so many names: they are kept elsewhere now, for good.
    pub fn forget(&mut self, names: usize) {
        while self.away < names.min(self.len()) / PAGE {
            if let Some(page) = self.pages.pop_front() {
                self.bytes -= page.memory();
            }
            self.away += 1;
        }
        if self.pages.capacity() > 2 * (self.pages.len() + PAGE) {
            self.pages.shrink_to(self.pages.len() + PAGE);
        }
    }

    /// Puts back the next name, of which the string is kept elsewhere or comes with [`Dictionary::restore_texts`].
    ///
    /// # Errors
    /// When the id is there already.
    pub fn restore(&mut self, name: Name) -> Result<(), Misfit> {
        if self.number(name.id).is_some() {
            return Err(Misfit);
        }
        self.push(name);
        self.away = self.len() / PAGE;
        Ok(())
    }

    /// Returns the page whose strings are to be put back when all names are: the one that fills.
    pub fn filling(&self) -> Option<u32> {
        (!self.len().is_multiple_of(PAGE)).then_some((self.len() / PAGE) as u32)
    }

    /// Puts back the strings of the page that fills.
    ///
    /// # Errors
    /// When they are not those of its names.
    pub fn restore_texts(&mut self, texts: Texts) -> Result<(), Misfit> {
        let page = self.filling().filter(|_| self.pages.is_empty()).ok_or(Misfit)?;
        let fit = self.names(page).map(|name| name.check).eq(texts.iter().map(check_of));
        if !fit || texts.len() > PAGE {
            return Err(Misfit);
        }
        self.bytes += texts.memory();
        self.pages.push_back(texts);
        Ok(())
    }

    /// Returns about how many bytes of memory the dictionary takes. O(1).
    pub fn memory(&self) -> usize {
        let names = self.len().next_multiple_of(CHUNK) * size_of::<Name>();
        let pages = self.pages.capacity() * size_of::<Texts>();
        names + self.numbers.allocation_size() + pages + self.bytes
    }

    fn push(&mut self, name: Name) -> u32 {
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let hash = self.hash(name.id);
        self.names.push(name);
        let (names, hashing) = (&self.names, &self.hashing);
        let again = |number: &u32| hashing.hash_one(names[*number as usize].id);
        self.numbers.insert_unique(hash, number, again);
        number
    }

    fn hash(&self, id: u64) -> u64 {
        self.hashing.hash_one(id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_dictionary_gives_numbers_in_order_and_refuses_a_collision() {
        let mut dictionary = Dictionary::default();
        assert_eq!(dictionary.enter(10, "a"), Ok(0));
        assert_eq!(dictionary.enter(11, "b"), Ok(1));
        assert_eq!(dictionary.enter(10, "a"), Ok(0));
        assert_eq!(dictionary.enter(10, "c"), Err(Collision));
        assert_eq!((dictionary.id(1), dictionary.len()), (11, 2));
        assert_eq!(dictionary.whereabouts(1), Some(Whereabouts::Here("b")));
        assert_eq!(dictionary.whereabouts(2), None);
        assert!(dictionary.knows(11, "b") && !dictionary.knows(11, "a"));
    }

    #[test]
    fn the_second_hash_is_stable_across_releases() {
        // The value is part of every checkpoint: changing it needs another format of the store.
        assert_eq!(check_of("5239"), 3_544_797_818);
    }

    #[test]
    fn a_name_costs_few_bytes_without_its_string() {
        let mut dictionary = Dictionary::default();
        for number in 0..1_000_000_u64 {
            dictionary.restore(Name { id: number * 7_919 + 1, check: 0 }).unwrap();
        }
        // A table that is half full takes ten of them, and the name itself twelve.
        let bytes = dictionary.memory() as f64 / dictionary.len() as f64;
        assert!(bytes < 23.0, "{bytes}");
    }

    /// What is done to a dictionary.
    #[derive(Clone, Debug)]
    enum Step {
        /// A string comes with an id; ids are few, so that many collide.
        Enter(u64, String),
        /// What there is is kept elsewhere.
        Keep,
        /// The full pages of what is kept are forgotten.
        Forget,
        /// Everything is put back from what is kept.
        Restart,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let id = prop_oneof![1..40_u64, 1..3_000_u64, any::<u64>()];
        let enter = (id, "[a-cé]{0,3}").prop_map(|(id, text)| Step::Enter(id, text));
        let step = prop_oneof![
            600 => enter,
            2 => Just(Step::Keep),
            2 => Just(Step::Forget),
            1 => Just(Step::Restart),
        ];
        prop::collection::vec(step, 0..3_000)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn it_is_a_plain_map_of_strings_wherever_the_strings_are(steps in steps()) {
            let mut dictionary = Dictionary::default();
            let (mut plain, mut order) = (HashMap::<u64, (u32, String)>::new(), Vec::new());
            let mut elsewhere: Vec<(Vec<Name>, Texts)> = Vec::new();
            let mut kept = 0;
            for step in steps {
                match step {
                    Step::Enter(id, text) => {
                        let next = order.len() as u32;
                        let expected = match plain.get(&id) {
                            Some((number, known)) if *known == text => Ok(*number),
                            Some(_) => Err(Collision),
                            None => Ok(next),
                        };
                        prop_assert_eq!(dictionary.enter(id, &text), expected);
                        if expected == Ok(next) {
                            order.push((id, text.clone()));
                            plain.insert(id, (next, text));
                        }
                    }
                    Step::Keep => {
                        for page in kept / PAGE..dictionary.len().div_ceil(PAGE) {
                            elsewhere.truncate(page);
                            let names = dictionary.names(page as u32).collect();
                            elsewhere.push((names, dictionary.texts(page as u32).unwrap().clone()));
                        }
                        kept = dictionary.len();
                    }
                    Step::Forget => dictionary.forget(kept),
                    Step::Restart => {
                        dictionary = Dictionary::default();
                        for (id, _) in order.drain(kept..) {
                            plain.remove(&id);
                        }
                        for name in elsewhere.iter().flat_map(|(names, _)| names) {
                            dictionary.restore(*name).unwrap();
                        }
                        if let Some(page) = dictionary.filling() {
                            dictionary.restore_texts(elsewhere[page as usize].1.clone()).unwrap();
                        }
                    }
                }
            }
            prop_assert_eq!(dictionary.len(), order.len());
            for (number, (id, text)) in (0..).zip(&order) {
                prop_assert_eq!((dictionary.number(*id), dictionary.id(number)), (Some(number), *id));
                prop_assert!(dictionary.knows(*id, text) && !dictionary.knows(*id, "another"));
                let found = match dictionary.whereabouts(number) {
                    Some(Whereabouts::Here(text)) => Some(text),
                    Some(Whereabouts::Elsewhere(away)) => elsewhere[away.page as usize].1.find(&away),
                    None => None,
                };
                prop_assert_eq!(found, Some(&**text));
            }
            prop_assert!(dictionary.whereabouts(order.len() as u32).is_none());
            dictionary.forget(kept);
            let counted: usize = (0..).map_while(|page| {
                let page = dictionary.texts(page + (kept / PAGE) as u32)?;
                Some(page.memory())
            }).sum();
            prop_assert_eq!(dictionary.text_bytes(), counted);
        }
    }

    #[test]
    fn strings_that_are_not_those_of_the_page_are_refused() {
        let mut dictionary = Dictionary::default();
        (0..3)
            .for_each(|id| dictionary.restore(Name { id: id + 1, check: check_of("x") }).unwrap());
        assert_eq!(dictionary.restore(Name { id: 2, check: 5 }), Err(Misfit));
        for wrong in [&["x", "x"][..], &["x", "x", "y"], &["x", "x", "x", "x"]] {
            let texts = wrong.iter().copied().collect();
            assert_eq!(dictionary.restore_texts(texts), Err(Misfit), "{wrong:?}");
        }
        dictionary.restore_texts(["x"; 3].into_iter().collect()).unwrap();
        assert_eq!(dictionary.whereabouts(2), Some(Whereabouts::Here("x")));
    }
}
