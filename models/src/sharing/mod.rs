//! Slot 3: what the tasks share on the way from the features to their towers.
//!
//! Every entry is made of *levels* of experts and gates ([`Level`]): what differs is which expert reads what, and which gate mixes which experts.
//!
//! | entry | experts | what a task's tower reads |
//! |---|---|---|
//! | `shared-bottom` | one | that expert |
//! | `mmoe` | K, all reading `x` | its own mixture of all |
//! | `ple`, one level | own ones for each task, and shared ones, all reading `x` | its own mixture of `[own, shared]` |
//! | `ple`, more levels | own ones read the task's mixture of the level below, shared ones the mixture of *all* experts below | the last level's |
//!
//! Shapes: `x` `[n, D]`; a stream is `[n, E]`, `E` the width of an expert's last layer.

mod level;

use ndarray::{ArrayView2, ArrayViewMut2};

use crate::kernels::Real;
use crate::layers::{Grid, SplitInput, SplitScratch};
use crate::params::{Layout, Params};
use crate::spec::{ExpertNorm, SharingSpec};
use level::{Gate, Shape};
pub use level::{Level, LevelTape};

/// The levels between features and towers.
#[derive(Clone, Debug)]
pub struct Sharing {
    levels: Vec<Level>,
}

/// What the backward pass reads, and scratch: one for each level.
#[derive(Clone, Debug, Default)]
pub struct SharingTape<R> {
    levels: Vec<LevelTape<R>>,
}

impl Sharing {
    /// Adds the blocks of the levels; `None` where there is no deep part.
    pub fn build(
        layout: &mut Layout,
        spec: &SharingSpec,
        inputs: usize,
        tasks: usize,
    ) -> Option<Self> {
        let levels = match spec {
            SharingSpec::None {} => return None,
            SharingSpec::SharedBottom { hidden } => {
                let shape = Shape {
                    streams: vec![0],
                    gates: vec![],
                    norm: ExpertNorm::None,
                    hidden,
                    copies: tasks,
                };
                vec![Level::new(layout, "sharing.0", inputs, &shape)]
            }
            SharingSpec::Mmoe { experts, hidden, normalise } => {
                let gate = Gate { stream: 0, experts: (0..*experts).collect() };
                let shape = Shape {
                    streams: vec![0; *experts],
                    gates: vec![gate; tasks],
                    norm: *normalise,
                    hidden,
                    copies: tasks,
                };
                vec![Level::new(layout, "sharing.0", inputs, &shape)]
            }
            SharingSpec::Ple { levels, shared, own, hidden, normalise } => {
                let mut built = Vec::new();
                let mut width = inputs;
                for level in 0..*levels {
                    let (first, last) = (level == 0, level + 1 == *levels);
                    let stream = |task: usize| if first { 0 } else { task };
                    let commons = tasks * own..tasks * own + shared;
                    let mut streams: Vec<usize> =
                        (0..tasks).flat_map(|t| vec![stream(t); *own]).collect();
                    streams.extend(vec![stream(tasks); *shared]);
                    let mut gates: Vec<Gate> = (0..tasks)
                        .map(|t| Gate {
                            stream: stream(t),
                            experts: (t * own..(t + 1) * own).chain(commons.clone()).collect(),
                        })
                        .collect();
                    if !last && *shared > 0 {
                        let experts = (0..commons.end).collect();
                        gates.push(Gate { stream: stream(tasks), experts });
                    }
                    let shape = Shape { streams, gates, norm: *normalise, hidden, copies: tasks };
                    let name = format!("sharing.{level}");
                    built.push(Level::new(layout, &name, width, &shape));
                    width = *hidden.last().expect("a validated expert has a layer");
                }
                built
            }
        };
        Some(Self { levels })
    }

    /// `E`, the width of what a tower reads.
    pub fn outputs(&self) -> usize {
        self.levels.last().map_or(0, Level::width)
    }

    /// Writes the streams of all levels to the tape.
    pub fn forward<R: Real>(
        &self,
        params: &Params<R>,
        x: ArrayView2<R>,
        tape: &mut SharingTape<R>,
    ) {
        tape.levels.resize_with(self.levels.len(), LevelTape::default);
        for (k, level) in self.levels.iter().enumerate() {
            let (below, here) = tape.levels.split_at_mut(k);
            match below.last() {
                None => level.forward(params, &|_| x, &mut here[0]),
                Some(below) => level.forward(params, &|s| below.stream(s), &mut here[0]),
            }
        }
    }

    /// Operations for so many examples, see [`crate::work`].
    pub(crate) fn operations(&self, examples: usize) -> u64 {
        self.levels.iter().map(|level| level.operations(examples)).sum()
    }

    /// Operations of [`Sharing::score`] for so many examples with these features.
    pub(crate) fn shared_operations(&self, x: &SplitInput<'_>) -> u64 {
        let all = self.operations(x.own.nrows());
        let columns = self.levels[0].first_columns();
        all - x.unshared_operations(columns) + x.operations(columns)
    }

    /// [`Sharing::forward`] over candidates, which share some of their features.
    pub fn score(
        &self,
        params: &Params<f32>,
        x: &SplitInput<'_>,
        scratch: &mut SplitScratch,
        tape: &mut SharingTape<f32>,
    ) {
        tape.levels.resize_with(self.levels.len(), LevelTape::default);
        for (k, level) in self.levels.iter().enumerate() {
            let (below, here) = tape.levels.split_at_mut(k);
            match below.last() {
                None => level.score(params, x, scratch, &mut here[0]),
                Some(below) => level.forward(params, &|s| below.stream(s), &mut here[0]),
            }
        }
    }

    /// What the tower of each task reads, after [`Sharing::forward`]: one `[n, E]` for each task.
    pub fn streams<'a, R: Real>(&self, tape: &'a SharingTape<R>) -> &'a [Grid<R>] {
        tape.levels[self.levels.len() - 1].streams()
    }

    /// The streams again, and their gradients, zero, for towers to add to.
    pub fn dstreams<'a, R: Real>(
        &self,
        tape: &'a mut SharingTape<R>,
    ) -> (&'a [Grid<R>], &'a mut [Grid<R>]) {
        tape.levels.iter_mut().for_each(LevelTape::clear);
        tape.levels[self.levels.len() - 1].dstreams()
    }

    /// Given the gradients of the last streams, overwrites its `grads` and `dx`.
    pub fn backward<R: Real>(
        &self,
        params: &Params<R>,
        x: ArrayView2<R>,
        tape: &mut SharingTape<R>,
        grads: &mut Params<R>,
        dx: &mut Grid<R>,
    ) {
        dx.reshape(x.nrows(), x.ncols());
        for (k, level) in self.levels.iter().enumerate().rev() {
            let (below, here) = tape.levels.split_at_mut(k);
            match below.last_mut() {
                None => level.backward(params, &mut Below::Inputs(x, dx), &mut here[0], grads),
                Some(below) => {
                    level.backward(params, &mut Below::Level(below), &mut here[0], grads);
                }
            }
        }
    }
}

/// What a level reads, with the place of its gradient.
pub(crate) enum Below<'a, 'x, R> {
    /// The features: one stream for all.
    Inputs(ArrayView2<'x, R>, &'a mut Grid<R>),
    /// The level below.
    Level(&'a mut LevelTape<R>),
}

impl<R: Real> Below<'_, '_, R> {
    /// A stream, and the place of its gradient: only the experts and gates of one group read it.
    fn pair(&mut self, stream: usize) -> (ArrayView2<'_, R>, ArrayViewMut2<'_, R>) {
        match self {
            Self::Inputs(x, dx) => (x.reborrow(), dx.view_mut()),
            Self::Level(tape) => tape.pair(stream),
        }
    }
}

#[cfg(test)]
mod tests;
