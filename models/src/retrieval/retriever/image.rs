//! The retrieval model in a file: all that it needs to go on to the bit, or what of it has changed since it was written last and kept.
//!
//! ```text
//! "sluice.r" | format u32 | fingerprint u64 | section: state | section: touched | 64 sections: rows
//! section: length u64 | crc32 u32 | postcard
//! ```
//! Numbers are little-endian. The fingerprint is that of configuration and schema.

use std::borrow::Cow;
use std::io::{Error, Read, Write};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sluice_features::ids::{salted_hash, stable_hash};
use sluice_features::schema::Schema;
use sluice_features::time::EventTime;

use super::columns::Facts;
use super::offered::{Articles, Offered};
use super::touched::{Marks, Touched};
use super::{Pending, Retriever, RetrieverSpec, offered_seed, unflatten};
use crate::checkpoint::all_finite;
use crate::retrieval::LogQ;
use crate::table::{FrozenRows, ImageError, Part, RowStore, ShardImage};

const MAGIC: [u8; 8] = *b"sluice.r";
const FORMAT: u32 = 4;

/// Why a retrieval model cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RetrieverError {
    /// The file or the memory behind it failed, or ended early.
    #[error("reading the retrieval model's {part}: go back to an older checkpoint if this stays")]
    Io {
        /// What was being read.
        part: &'static str,
        /// What happened.
        #[source]
        source: Error,
    },
    /// Something else is stored here.
    #[error("expected a retrieval model, found other bytes: name the file of a checkpoint")]
    Magic,
    /// Another release has written it.
    #[error(
        "retrieval model: expected format {FORMAT}, found {found}: use the release that wrote it"
    )]
    Format {
        /// The format found.
        found: u32,
    },
    /// It belongs to another configuration or schema.
    #[error(
        "retrieval model: expected configuration and schema {expected:016x}, found {found:016x}: \
         restore both as they were, or start with --new-model"
    )]
    Fingerprint {
        /// The fingerprint of the configuration and the schema given.
        expected: u64,
        /// The fingerprint stored.
        found: u64,
    },
    /// Bytes have changed since they were written.
    #[error(
        "the retrieval model's {part}: expected checksum {expected:08x}, found {found:08x}: \
         the file is damaged, go back to an older checkpoint"
    )]
    Damaged {
        /// Which section.
        part: &'static str,
        /// The checksum stored.
        expected: u32,
        /// The checksum of the bytes.
        found: u32,
    },
    /// A section is whole and yet does not fit.
    #[error(
        "the retrieval model's {part} is not of this configuration: go back to an older checkpoint"
    )]
    Content {
        /// Which section.
        part: &'static str,
    },
    /// A part of the rows does not fit.
    #[error("the retrieval model's rows do not fit: go back to an older checkpoint")]
    Rows(#[from] ImageError),
}

/// All but rows and touched ids.
#[derive(Debug, Serialize, Deserialize)]
struct State<'a> {
    seed: u64,
    now: EventTime,
    steps: u64,
    refused: u64,
    parameters: Cow<'a, [f32]>,
    mean: Cow<'a, [f32]>,
    square: Cow<'a, [f32]>,
    log_q: Cow<'a, LogQ>,
    offered: Cow<'a, Articles>,
    pending: Cow<'a, Pending>,
}

impl State<'_> {
    fn into_owned(self) -> State<'static> {
        fn owned<T: ToOwned + ?Sized>(part: Cow<'_, T>) -> Cow<'static, T> {
            Cow::Owned(part.into_owned())
        }
        State {
            seed: self.seed,
            now: self.now,
            steps: self.steps,
            refused: self.refused,
            parameters: owned(self.parameters),
            mean: owned(self.mean),
            square: owned(self.square),
            log_q: owned(self.log_q),
            offered: owned(self.offered),
            pending: owned(self.pending),
        }
    }
}

/// A retrieval model as it was at one instant, to be written while it goes on.
#[derive(Debug)]
pub struct RetrieverImage {
    fingerprint: u64,
    state: State<'static>,
    marks: Marks,
    rows: FrozenRows,
}

impl RetrieverImage {
    /// Returns about how many bytes of rows a part takes, at most.
    pub fn bytes(&self, part: Part) -> u64 {
        self.rows.bytes(part)
    }

    /// Writes a part of it, once: of the rows, for the rest is small. The model may go on meanwhile.
    ///
    /// # Errors
    /// When `to` fails, and [`NotFinite`](crate::checkpoint::NotFinite) inside one of kind `Other`: what is written can always be learned on from.
    pub fn write(&mut self, part: Part, mut to: impl Write) -> std::io::Result<()> {
        for numbers in [&self.state.parameters, &self.state.mean, &self.state.square] {
            all_finite("parameters of the retrieval model", numbers)?;
        }
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&FORMAT.to_le_bytes());
        head.extend_from_slice(&self.fingerprint.to_le_bytes());
        to.write_all(&head)?;
        write_section(&mut to, &self.state)?;
        write_section(&mut to, &self.marks.list())?;
        while let Some(shard) = self.rows.next_shard(part) {
            all_finite("rows of the retrieval model", &shard.rows)?;
            all_finite("accumulators of the retrieval model", &shard.accumulators)?;
            write_section(&mut to, &shard)?;
        }
        Ok(())
    }

    /// Says that what was written lasts: changes count from here on. An image that is dropped instead leaves its changes to the next one.
    pub fn keep(self) {
        self.rows.keep();
    }
}

impl Retriever {
    /// Takes the image of the state: freezes rows, shares the pages of what is kept by item, and copies the rest, which is small.
    ///
    /// # Panics
    /// When an earlier image is neither written nor dropped.
    pub fn image(&self) -> RetrieverImage {
        RetrieverImage {
            fingerprint: self.fingerprint,
            state: self.state().into_owned(),
            marks: self.marks.clone(),
            rows: self.rows.freeze(),
        }
    }

    /// Writes all of the state. [`Self::read`] goes on from it to the bit. Changes count from where they did.
    ///
    /// # Errors
    /// When `to` fails.
    ///
    /// # Panics
    /// When an image of it is neither written nor dropped.
    pub fn write(&self, to: impl Write) -> std::io::Result<()> {
        self.image().write(Part::Whole, to)
    }

    /// Returns how many bytes of rows are put aside for an image.
    pub fn put_aside(&self) -> usize {
        self.rows.put_aside()
    }

    /// Reads what was written whole, and nothing behind it.
    ///
    /// # Errors
    /// When `from` fails or ends early, when it holds something else, a model of another format,
    /// configuration or schema, or damaged bytes.
    pub fn read(
        spec: RetrieverSpec,
        schema: &Schema,
        mut from: impl Read,
    ) -> Result<Self, RetrieverError> {
        let state = read_state(spec.fingerprint(schema), &mut from)?;
        let mut retriever = Self::new(spec, schema, state.seed);
        retriever.take_in(state, true, from)?;
        Ok(retriever)
    }

    /// Takes the model on from where it was written to where its changes were written next, and reads nothing behind them.
    ///
    /// # Errors
    /// As [`Self::read`]. The model is of no use then.
    pub fn advance(&mut self, mut from: impl Read) -> Result<(), RetrieverError> {
        let state = read_state(self.fingerprint, &mut from)?;
        if state.seed != self.seed || state.steps < self.adam.steps() {
            return Err(RetrieverError::Content { part: "state" });
        }
        self.take_in(state, false, from)
    }

    /// Reads what follows the state: `whole`, or what has changed.
    fn take_in(
        &mut self,
        state: State<'static>,
        whole: bool,
        mut from: impl Read,
    ) -> Result<(), RetrieverError> {
        let touched: Touched = read_section(&mut from, "touched ids")?;
        self.restore(state)?;
        self.marks = touched.into();
        for shard in 0..RowStore::SHARDS {
            let image: ShardImage = read_section(&mut from, "rows")?;
            if whole && !image.whole {
                return Err(RetrieverError::Content { part: "rows" });
            }
            self.rows.import(shard, image)?;
        }
        Ok(())
    }

    /// Returns a number that two models share when they go on alike: parameters, rows, states of the
    /// optimisers, frequencies, positives that wait. Which ids are touched has no part in it.
    pub fn checksum(&self) -> u64 {
        salted_hash(stable_hash(&encode(&self.state())), &self.rows.checksum().to_le_bytes())
    }

    fn state(&self) -> State<'_> {
        let (mean, square) = self.adam.moments();
        State {
            seed: self.seed,
            now: self.now,
            steps: self.adam.steps(),
            refused: self.refused,
            parameters: Cow::Borrowed(&self.parameters),
            mean: Cow::Borrowed(mean),
            square: Cow::Borrowed(square),
            log_q: Cow::Borrowed(&self.log_q),
            offered: Cow::Borrowed(self.offered.articles()),
            pending: Cow::Borrowed(&self.pending),
        }
    }

    fn restore(&mut self, state: State<'static>) -> Result<(), RetrieverError> {
        let dense = [&state.parameters, &state.mean, &state.square];
        let waiting = state.pending.pairs.len();
        let fits = dense.iter().all(|numbers| numbers.len() == self.parameters.len())
            && waiting < self.spec.batch
            && state.pending.users.fits(&self.columns.user, waiting)
            && state.pending.items.fits(&self.columns.item, waiting)
            && state
                .offered
                .iter()
                .all(|article| Facts::fits_packed(&self.columns.item, article.facts()));
        let seed = offered_seed(self.seed);
        let offered = Offered::restore(seed, state.offered.into_owned());
        let Some(offered) = offered.filter(|_| fits) else {
            return Err(RetrieverError::Content { part: "state" });
        };
        self.offered = offered;
        self.adam.restore(state.steps, &state.mean, &state.square);
        self.parameters = state.parameters.into_owned();
        unflatten(Arc::make_mut(&mut self.model), &self.parameters);
        self.log_q = state.log_q.into_owned().with_capacity(self.spec.max_rows);
        self.pending = state.pending.into_owned();
        (self.now, self.refused) = (state.now, state.refused);
        Ok(())
    }
}

/// Reads the head, and the state of a model of this fingerprint.
fn read_state(expected: u64, mut from: impl Read) -> Result<State<'static>, RetrieverError> {
    let (magic, format) = (take(&mut from)?, u32::from_le_bytes(take(&mut from)?));
    if magic != MAGIC {
        return Err(RetrieverError::Magic);
    }
    if format != FORMAT {
        return Err(RetrieverError::Format { found: format });
    }
    let found = u64::from_le_bytes(take(&mut from)?);
    if found != expected {
        return Err(RetrieverError::Fingerprint { expected, found });
    }
    read_section(&mut from, "state")
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain data of known lengths can be written")
}

fn write_section(to: &mut impl Write, value: &impl Serialize) -> std::io::Result<()> {
    let bytes = encode(value);
    to.write_all(&(bytes.len() as u64).to_le_bytes())?;
    to.write_all(&crc32fast::hash(&bytes).to_le_bytes())?;
    to.write_all(&bytes)
}

fn read_section<T: DeserializeOwned>(
    from: &mut impl Read,
    part: &'static str,
) -> Result<T, RetrieverError> {
    let (length, expected) = (u64::from_le_bytes(take(from)?), u32::from_le_bytes(take(from)?));
    // The length may be damaged: memory grows with what is really there.
    let mut bytes = Vec::new();
    let read = from.take(length).read_to_end(&mut bytes);
    read.map_err(|source| RetrieverError::Io { part, source })?;
    let found = crc32fast::hash(&bytes);
    if found != expected {
        return Err(RetrieverError::Damaged { part, expected, found });
    }
    postcard::from_bytes(&bytes).map_err(|_| RetrieverError::Content { part })
}

fn take<const N: usize>(from: &mut impl Read) -> Result<[u8; N], RetrieverError> {
    let mut bytes = [0; N];
    let read = from.read_exact(&mut bytes);
    read.map_err(|source| RetrieverError::Io { part: "head of a part", source })?;
    Ok(bytes)
}
