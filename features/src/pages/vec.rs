//! A vector in pages.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A vector whose copy shares pages of `PAGE` elements. Serialised like a vector.
#[derive(Clone, Debug)]
pub struct PagedVec<T, const PAGE: usize> {
    pages: Vec<Arc<[T; PAGE]>>,
    length: usize,
}

impl<T: Clone + Default, const PAGE: usize> PagedVec<T, PAGE> {
    /// Creates an empty vector.
    pub fn new() -> Self {
        Self { pages: Vec::new(), length: 0 }
    }

    /// Returns how many elements there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Tells whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds an element at the end.
    pub fn push(&mut self, element: T) {
        if self.length == self.pages.len() * PAGE {
            self.pages.push(Arc::new(std::array::from_fn(|_| T::default())));
        }
        let place = self.length;
        self.length += 1;
        self[place] = element;
    }

    /// Removes the last element and returns it.
    pub fn pop(&mut self) -> Option<T> {
        let place = self.length.checked_sub(1)?;
        let last = std::mem::take(&mut self[place]);
        self.length = place;
        Some(last)
    }

    /// Returns the element at a place, if there is one.
    pub fn get(&self, place: usize) -> Option<&T> {
        (place < self.length).then(|| &self.pages[place / PAGE][place % PAGE])
    }

    /// Returns the elements in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flat_map(|page| page.iter()).take(self.length)
    }

    /// Returns the elements in order, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.pages.iter_mut().flat_map(|page| Arc::make_mut(page).iter_mut()).take(self.length)
    }
}

impl<T: Clone + Default, const PAGE: usize> Default for PagedVec<T, PAGE> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const PAGE: usize> Index<usize> for PagedVec<T, PAGE> {
    type Output = T;

    fn index(&self, place: usize) -> &T {
        assert!(place < self.length, "place {place} of {}", self.length);
        &self.pages[place / PAGE][place % PAGE]
    }
}

impl<T: Clone, const PAGE: usize> IndexMut<usize> for PagedVec<T, PAGE> {
    fn index_mut(&mut self, place: usize) -> &mut T {
        assert!(place < self.length, "place {place} of {}", self.length);
        &mut Arc::make_mut(&mut self.pages[place / PAGE])[place % PAGE]
    }
}

impl<T: Clone + Default + Serialize, const PAGE: usize> Serialize for PagedVec<T, PAGE> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(self.length))?;
        self.iter().try_for_each(|element| sequence.serialize_element(element))?;
        sequence.end()
    }
}

impl<'de, T: Clone + Default + Deserialize<'de>, const PAGE: usize> Deserialize<'de>
    for PagedVec<T, PAGE>
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut vector = Self::new();
        Vec::deserialize(deserializer)?.into_iter().for_each(|element| vector.push(element));
        Ok(vector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_stays_as_it_is() {
        let mut vector = PagedVec::<u64, 4>::new();
        (0..10).for_each(|i| vector.push(i));
        let copy = vector.clone();
        vector[3] = 99;
        vector.push(10);
        vector.iter_mut().for_each(|element| *element += 1);
        assert!(copy.iter().copied().eq(0..10));
        assert_eq!(copy.get(10), None);
        let mut shorter = copy.clone();
        assert!((0..10).rev().all(|i| shorter.pop() == Some(i)));
        assert!(shorter.pop().is_none() && shorter.is_empty() && copy.iter().copied().eq(0..10));
        let expected: Vec<u64> = (0..11).map(|i| if i == 3 { 100 } else { i + 1 }).collect();
        assert!(vector.iter().eq(&expected));
        let text = serde_json::to_string(&vector).unwrap();
        assert_eq!(text, serde_json::to_string(&expected).unwrap());
        let back: PagedVec<u64, 4> = serde_json::from_str(&text).unwrap();
        assert!(back.iter().eq(vector.iter()) && back.len() == 11 && !back.is_empty());
    }
}
