//! Candidates become examples, by the functions that make impressions into examples; those of one answer hold what they have in common once.

use sluice_features::assemble::{FieldValues, Labelled, Shown};
use sluice_features::attributes::Attributes;
use sluice_features::attribution::Labels;
use sluice_features::candidates::Candidates;
use sluice_features::example::Batch;
use sluice_features::ids::{EventId, ItemId, UserId};
use sluice_features::time::{EventTime, Span};

use crate::pipeline::Pipeline;

/// For whom, when and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'a> {
    pub(crate) user: UserId,
    pub(crate) time: EventTime,
    /// The id of the surface's text.
    pub(crate) surface: Option<u64>,
    pub(crate) context: &'a Attributes,
}

/// An item as if it were shown to who asks. What the circumstances do not say takes the declared defaults.
fn shown<'a>(pipeline: &Pipeline, asker: &Asker<'a>, item: ItemId) -> Shown<'a> {
    let (shared, span) = (pipeline.shared(), pipeline.rules().new_for);
    let new_item = match shared.items.number(item.0) {
        Some(number) => shared.is_new(number, asker.time, span),
        // An item that is seen for the first time now.
        None => span > Span::ZERO,
    };
    Shown {
        user: asker.user,
        item,
        time: asker.time,
        surface: asker.surface,
        position: None,
        context: asker.context,
        new_item,
    }
}

/// Starts the candidates of who asks: reads once what they have in common, and removes those there were.
pub(super) fn start(pipeline: &Pipeline, asker: &Asker<'_>, candidates: &mut Candidates) {
    // The item does not matter.
    let shown = shown(pipeline, asker, ItemId(0));
    let (known, past) = (pipeline.shared().known(), pipeline.past(asker.user));
    pipeline.assembler().start(&shown, &known, &past, candidates);
}

/// Adds an item to the candidates of who asks, after [`start`].
pub(super) fn add(
    pipeline: &Pipeline,
    asker: &Asker<'_>,
    item: ItemId,
    candidates: &mut Candidates,
) {
    let shown = shown(pipeline, asker, item);
    let (known, past) = (pipeline.shared().known(), pipeline.past(asker.user));
    pipeline.assembler().add(&shown, &known, &past, candidates);
}

/// Adds an item to a batch of examples, as if it were shown to who asks. `values` is memory that serves again.
pub(crate) fn append(
    pipeline: &Pipeline,
    asker: &Asker<'_>,
    item: ItemId,
    values: &mut FieldValues,
    batch: &mut Batch,
) {
    let shown = shown(pipeline, asker, item);
    pipeline.assembler().snapshot(&shown, &pipeline.shared().known(), values);
    let example = Labelled {
        values,
        impression: EventId(0),
        user: asker.user,
        item,
        labels: Labels::default(),
    };
    let history = pipeline.past(asker.user);
    let alike = batch.about.last().map(|about| (about.user, about.time));
    if alike == Some((asker.user, asker.time)) {
        pipeline.assembler().append_alike(&example, &history, batch);
    } else {
        pipeline.assembler().append(&example, &history, batch);
    }
}
