//! A learner as bytes and back, to the bit: a restored learner goes on as if it had never stopped.
//!
//! It is written whole, or as what has changed since it was written last and [kept](Image::keep): then the rows that have changed, the keys that
//! have lost theirs, and everything else, which is small. [`read()`] takes the whole, [`advance`] one such step after the other, in their order.
//!
//! ```text
//! magic "sluice\0p" | format version u32 | schema fingerprint u64
//! block "head"   JSON: slots of the model, tree of tasks, seed, steps, refused, shapes of all dense blocks
//! block "dens"   dense parameters, then both moments of Adam
//! block "rows"   one for each shard of each store: whole or not, removed ids, ids, rows, optimiser state, counts, times, admission filter
//! block "end "   empty
//! ```
//!
//! A block is its name (4 bytes), length (u64), bytes, and their CRC-32. All numbers are little-endian. A file for another schema, model or tree is refused
//! with the difference in words; one that is damaged or ends early is refused with the place.

mod columns;
mod format;

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};
use sluice_features::schema::Schema;

pub use format::FormatError;
use format::{read_block, read_start, write_block, write_start};

use crate::learner::Learner;
use crate::spec::{CrossingSpec, FunnelSpec, InterestSpec, ModelSpec, SharingSpec, SpecError};
use crate::table::{FrozenRows, Part, RowStore};

/// What a checkpoint says about its learner.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    interest: InterestSpec,
    crossing: CrossingSpec,
    sharing: SharingSpec,
    funnel: FunnelSpec,
    parents: Vec<Option<usize>>,
    seed: u64,
    steps: u64,
    refused: u64,
    /// Name, rows and columns of each dense block.
    shapes: Vec<(String, usize, usize)>,
}

impl Head {
    fn of(learner: &Learner) -> Self {
        let spec = learner.spec().clone();
        let layout = learner.model().params().layout();
        Self {
            interest: spec.interest,
            crossing: spec.crossing,
            sharing: spec.sharing,
            funnel: spec.funnel,
            parents: learner.parents().to_vec(),
            seed: learner.seed(),
            steps: learner.steps(),
            refused: learner.refused(),
            shapes: layout.shapes().map(|(name, r, c)| (name.to_owned(), r, c)).collect(),
        }
    }

    /// Where the file's model is not the configured one, in words.
    fn differences(&self, spec: &ModelSpec, parents: &[Option<usize>]) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, file: String, here: String| {
            if file != here {
                differences.push(format!("{what}: the file has {file}, the configuration {here}"));
            }
        };
        compare("interest", text(&self.interest), text(&spec.interest));
        compare("crossing", text(&self.crossing), text(&spec.crossing));
        compare("sharing", text(&self.sharing), text(&spec.sharing));
        compare("funnel", text(&self.funnel), text(&spec.funnel));
        compare("parents of the tasks", text(&self.parents), text(&parents));
        differences
    }
}

/// A learner as it was at one instant, to be written while it goes on.
#[derive(Debug)]
pub struct Image {
    fingerprint: u64,
    head: Head,
    /// Dense parameters and both moments.
    dense: Vec<f32>,
    rows: Vec<FrozenRows>,
}

/// Takes the image of a learner: copies the dense part and freezes the rows.
///
/// # Panics
/// When an earlier image is neither written nor dropped.
pub fn image(learner: &Learner) -> Image {
    let (mean, square) = learner.moments();
    Image {
        fingerprint: learner.schema().fingerprint(),
        head: Head::of(learner),
        dense: [learner.model().params().values(), mean, square].concat(),
        rows: learner.embeddings().stores().iter().map(RowStore::freeze).collect(),
    }
}

impl Image {
    /// Returns about how many bytes a part takes, at most.
    pub fn bytes(&self, part: Part) -> u64 {
        let rows: u64 = self.rows.iter().map(|rows| rows.bytes(part)).sum();
        rows + size_of_val(&self.dense[..]) as u64
    }

    /// Writes a part of it, once. The learner may go on meanwhile.
    ///
    /// # Errors
    /// Those of the writer, and [`NotFinite`] inside one of kind `Other`: what is written can always be learned on from.
    pub fn write(&mut self, part: Part, out: &mut impl Write) -> std::io::Result<()> {
        all_finite("dense parameters", &self.dense)?;
        write_start(out, self.fingerprint)?;
        write_block(out, b"head", &serde_json::to_vec(&self.head)?)?;
        let mut bytes = Vec::new();
        columns::put(&mut bytes, &self.dense);
        write_block(out, b"dens", &bytes)?;
        for rows in &mut self.rows {
            while let Some(shard) = rows.next_shard(part) {
                all_finite("embedding rows", &shard.rows)?;
                all_finite("accumulators of embedding rows", &shard.accumulators)?;
                bytes.clear();
                columns::encode(&shard, &mut bytes);
                write_block(out, b"rows", &bytes)?;
            }
        }
        write_block(out, b"end ", &[])
    }

    /// Says that what was written lasts: changes count from here on. An image that is dropped instead leaves its changes to the next one.
    pub fn keep(self) {
        self.rows.into_iter().for_each(FrozenRows::keep);
    }
}

/// A parameter that is no finite number: nothing can be learned or predicted with it.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("expected finite numbers, found {found} among the {what}")]
pub struct NotFinite {
    /// Which numbers.
    pub what: &'static str,
    /// What was found.
    pub found: f32,
}

/// Refuses numbers that are not finite.
pub(crate) fn all_finite(what: &'static str, numbers: &[f32]) -> std::io::Result<()> {
    match numbers.iter().find(|number| !number.is_finite()) {
        None => Ok(()),
        Some(&found) => Err(std::io::Error::other(NotFinite { what, found })),
    }
}

/// Writes all of a learner. Changes count from where they did.
///
/// # Errors
/// Those of the writer.
///
/// # Panics
/// When an image of it is neither written nor dropped.
pub fn write(learner: &Learner, out: &mut impl Write) -> std::io::Result<()> {
    image(learner).write(Part::Whole, out)
}

/// Reads a learner that was written whole. Slots and tree must be those of the file; rates and limits may be new.
///
/// # Errors
/// When the file belongs to another schema or model, is of another format, is damaged, or cannot be read.
pub fn read(
    input: &mut impl Read,
    spec: &ModelSpec,
    schema: &Schema,
    parents: &[Option<usize>],
) -> Result<Learner, FormatError> {
    let head = read_head(input, spec, schema, parents)?;
    let priors = vec![0.5; parents.len()];
    let mut learner = Learner::new(spec, schema, parents, &priors, head.seed)
        .map_err(|errors| FormatError::Model(all(&errors)))?;
    read_parameters(&mut learner, &head, true, input)?;
    Ok(learner)
}

/// Takes a learner on from where it was written to where its changes were written next.
///
/// # Errors
/// As [`read()`]. The learner is of no use then.
pub fn advance(learner: &mut Learner, input: &mut impl Read) -> Result<(), FormatError> {
    let head = read_head(input, learner.spec(), learner.schema(), learner.parents())?;
    read_parameters(learner, &head, false, input)
}

fn read_head(
    input: &mut impl Read,
    spec: &ModelSpec,
    schema: &Schema,
    parents: &[Option<usize>],
) -> Result<Head, FormatError> {
    read_start(input, schema.fingerprint())?;
    let mut bytes = Vec::new();
    read_block(input, b"head", &mut bytes)?;
    let head: Head = serde_json::from_slice(&bytes).map_err(|error| FormatError::Damaged {
        block: "head".into(),
        problem: error.to_string(),
    })?;
    let differences = head.differences(spec, parents);
    if !differences.is_empty() {
        return Err(FormatError::Model(differences.join("; ")));
    }
    Ok(head)
}

/// Reads what follows the head: `whole`, or what has changed.
fn read_parameters(
    learner: &mut Learner,
    head: &Head,
    whole: bool,
    input: &mut impl Read,
) -> Result<(), FormatError> {
    let here = Head::of(learner);
    if head.shapes != here.shapes {
        let differ = |(a, b): &(&_, &_)| a != b;
        let pair = head.shapes.iter().zip(&here.shapes).find(differ);
        return Err(FormatError::Model(format!(
            "dense blocks of the file and of this program: {pair:?}"
        )));
    }
    if head.seed != here.seed || head.steps < here.steps {
        return Err(FormatError::Model(format!(
            "changes of a learner of seed {} after {} steps, expected seed {} and no fewer steps than {}",
            head.seed, head.steps, here.seed, here.steps
        )));
    }
    let mut bytes = Vec::new();
    read_block(input, b"dens", &mut bytes)?;
    let dense =
        columns::Source::new(&bytes, "dens").floats(3 * learner.model().params().values().len())?;
    learner.restore(&dense, head.steps, head.refused);
    for store in learner.embeddings().stores() {
        for shard in 0..RowStore::SHARDS {
            read_block(input, b"rows", &mut bytes)?;
            let image = columns::decode(&bytes, store.width())?;
            if whole && !image.whole {
                return Err(FormatError::Damaged {
                    block: "rows".into(),
                    problem: "found changes, expected all rows".into(),
                });
            }
            store.import(shard, image).map_err(FormatError::Rows)?;
        }
    }
    read_block(input, b"end ", &mut bytes)
}

/// As JSON, in which a difference shows.
fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| error.to_string())
}

fn all(errors: &[SpecError]) -> String {
    errors.iter().map(SpecError::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
