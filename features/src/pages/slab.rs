//! A slab in pages: elements that keep their place until they are removed.

use std::ops::{Index, IndexMut};

use super::PagedVec;

/// Elements by place; the place of a removed one is given to another. A copy shares pages of `PAGE` elements, and does not use free places
/// again.
#[derive(Debug)]
pub struct PagedSlab<T, const PAGE: usize> {
    cells: PagedVec<Option<T>, PAGE>,
    free: Vec<usize>,
    length: usize,
}

impl<T: Clone, const PAGE: usize> PagedSlab<T, PAGE> {
    /// Creates an empty slab.
    pub fn new() -> Self {
        Self { cells: PagedVec::new(), free: Vec::new(), length: 0 }
    }

    /// Returns how many elements there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Tells whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds an element and returns its place.
    pub fn insert(&mut self, element: T) -> usize {
        self.length += 1;
        if let Some(place) = self.free.pop() {
            self.cells[place] = Some(element);
            return place;
        }
        self.cells.push(Some(element));
        self.cells.len() - 1
    }

    /// Removes an element and returns it.
    ///
    /// # Panics
    /// When there is none at this place.
    pub fn remove(&mut self, place: usize) -> T {
        let element = self.cells[place].take().expect("an element at the place to be emptied");
        self.free.push(place);
        self.length -= 1;
        element
    }

    /// Returns the element at a place, if there is one.
    pub fn get(&self, place: usize) -> Option<&T> {
        self.cells.get(place)?.as_ref()
    }

    /// Returns all elements with their places, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.cells.iter().enumerate().filter_map(|(place, cell)| Some((place, cell.as_ref()?)))
    }
}

impl<T: Clone, const PAGE: usize> Default for PagedSlab<T, PAGE> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone, const PAGE: usize> Clone for PagedSlab<T, PAGE> {
    fn clone(&self) -> Self {
        Self { cells: self.cells.clone(), free: Vec::new(), length: self.length }
    }
}

impl<T: Clone, const PAGE: usize> Index<usize> for PagedSlab<T, PAGE> {
    type Output = T;

    fn index(&self, place: usize) -> &T {
        self.cells[place].as_ref().expect("an element at this place")
    }
}

impl<T: Clone, const PAGE: usize> IndexMut<usize> for PagedSlab<T, PAGE> {
    fn index_mut(&mut self, place: usize) -> &mut T {
        self.cells[place].as_mut().expect("an element at this place")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn places_are_kept_and_used_again_and_a_copy_stays_as_it_is() {
        let (mut slab, mut map) = (PagedSlab::<u64, 8>::new(), BTreeMap::new());
        let mut state = 7_u64;
        let mut copies = Vec::new();
        for round in 0..3_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let chosen = (state >> 33) as usize % map.len().max(1);
            let place = map.keys().nth(chosen).copied();
            match (place, state >> 20 & 3) {
                (Some(place), 0) => assert_eq!(Some(slab.remove(place)), map.remove(&place)),
                (Some(place), 1) => {
                    slab[place] += 1;
                    *map.get_mut(&place).unwrap() += 1;
                }
                _ if map.len() < 200 => assert_eq!(map.insert(slab.insert(round), round), None),
                _ => {}
            }
            if round % 500 == 0 {
                copies.push((slab.clone(), map.clone()));
            }
        }
        copies.push((slab, map));
        for (slab, map) in copies {
            assert!(slab.iter().eq(map.iter().map(|(place, element)| (*place, element))));
            assert_eq!((slab.len(), slab.is_empty()), (map.len(), map.is_empty()));
            assert_eq!(slab.get(1000), None);
        }
    }
}
