//! The store in memory: for replays and tests, and the plain twin of the store on disk.

use std::collections::BTreeMap;
use std::path::PathBuf;

use parking_lot::RwLock;

use super::framing::unframe;
use super::{Batch, Store, StoreError};

/// A store that forgets everything at its end.
#[derive(Debug, Default)]
pub struct MemoryStore {
    values: RwLock<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let values = self.values.read();
        values.get(key).map(|framed| sound(key, framed).map(<[u8]>::to_vec)).transpose()
    }

    fn scan_prefix(
        &self,
        prefix: &[u8],
        see: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let values = self.values.read();
        let from = values.range(prefix.to_vec()..);
        for (key, framed) in from.take_while(|(key, _)| key.starts_with(prefix)) {
            if !see(key, sound(key, framed)?) {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let mut values = self.values.write();
        for (key, value) in batch.changes {
            match value {
                Some(value) => values.insert(key, value),
                None => values.remove(&key),
            };
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn bytes(&self) -> Result<u64, StoreError> {
        let values = self.values.read();
        Ok(values.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }
}

fn sound<'a>(key: &[u8], framed: &'a [u8]) -> Result<&'a [u8], StoreError> {
    unframe(framed).ok_or_else(|| StoreError::Damaged {
        path: PathBuf::from("memory"),
        what: format!("wrong checksum at key {key:02x?}"),
    })
}
