//! A small schema and batches of it, for tests of whole models.

use sluice_features::example::{About, Batch, LabelMode};
use sluice_features::ids::{EventId, ItemId, UserId, salted_key};
use sluice_features::schema::{EventField, Field, Kind, Missing, Schema, Source, Table};
use sluice_features::time::EventTime;

use crate::spec::Normalise;
use crate::spec::{
    CrossingSpec, ExpertNorm, FunnelSpec, InterestSpec, Method, ModelSpec, SharingSpec,
};

/// Click, like after click, gift after like, and share beside click.
pub(crate) const PARENTS: [Option<usize>; 4] = [None, Some(0), Some(1), None];
pub(crate) const PRIORS: [f64; 4] = [0.3, 0.1, 0.02, 0.05];

fn field(name: &str, source: Source, kind: Kind, table: usize) -> Field {
    Field { name: name.into(), source, kind, table, missing: Missing::Own }
}

/// Item, category and user of width 3, a list of tags of width 2, a number; with `linear` beside a deep part or with variances, pairs of item and user before them, of width 0.
pub(crate) fn schema(spec: &ModelSpec) -> Schema {
    let table = |name: &str, width| Table { name: name.into(), width };
    let number = Kind::Number { scale: 1.0, shift: 0.0 };
    let attribute = |name: &str| sluice_features::attributes::AttributeKey::of(name);
    let pair = field("pair", Source::Cross(vec![1, 5]), Kind::Category, 5);
    let fields = [
        field("item", Source::Event(EventField::Item), Kind::Category, 0),
        field("price", Source::Item(attribute("price")), number, 0),
        field("tags", Source::Item(attribute("tags")), Kind::List, 3),
        field("category", Source::Event(EventField::Category), Kind::Category, 1),
        field("user", Source::Event(EventField::User), Kind::Category, 2),
    ];
    let with_pair = spec.crossing.has_linear() && (spec.is_deep() || spec.has_variances());
    Schema {
        fields: with_pair.then_some(pair).into_iter().chain(fields).collect(),
        tables: vec![
            table("item", 3),
            table("category", 3),
            table("user", 3),
            table("tag", 2),
            table("gap", 2),
            table("pair", 0),
        ],
        counters: vec![],
        lookups: spec.lookups(),
        read: vec![true; 4],
        item_table: 0,
        category_table: 1,
        gap_table: 4,
        tasks: PARENTS.len(),
    }
}

/// Examples that differ in everything: among them empty histories and lists, all kinds of labels, repeated ids.
pub(crate) fn batch(schema: &Schema, size: usize) -> Batch {
    let key = |table: usize, id: u64| salted_key(schema.tables[table].salt(), id);
    let mut batch = Batch::new(1, schema.lookups.len());
    for i in 0..size as u64 {
        let (item, user) = (i * i % 7, i % 5);
        let category = item % 3;
        if schema.fields[0].name == "pair" {
            batch.keys.push(key(5, item * 5 + user));
        }
        batch.keys.extend([key(0, item), key(1, category), if i == 3 { 0 } else { key(2, user) }]);
        batch.numbers.push((i as f32 * 0.7).sin());
        let list = &mut batch.lists[0];
        list.keys.extend((0..i % 3).map(|tag| key(3, tag + item)));
        list.starts.push(list.keys.len() as u32);
        for (look, history) in batch.histories.iter_mut().enumerate() {
            for j in 0..(i + 1 + look as u64) % 4 {
                let item = (i + j * 3) % 7;
                history.items.push(key(0, item));
                history.categories.push(key(1, if look == 0 { item % 3 } else { category }));
                history.gaps.push(key(4, j * 2));
            }
            history.starts.push(history.items.len() as u32);
        }
        let click = f32::from(u8::from(i * 7 % 3 == 0));
        let like = click * f32::from(u8::from(i % 2 == 0));
        batch.labels.extend([click, like, like * f32::from(u8::from(i % 4 == 0)), 1.0 - click]);
        let mode = |on: f32| if on > 0.5 { LabelMode::FnwPositive } else { LabelMode::FnwNegative };
        batch.modes.extend(match i % 4 {
            0 => [LabelMode::Final; 4],
            1 => [LabelMode::Final, mode(like), LabelMode::Masked, mode(1.0 - click)],
            2 => [LabelMode::Masked; 4],
            _ => [mode(click), LabelMode::Masked, LabelMode::Final, LabelMode::Masked],
        });
        batch.groups.push(batch.groups.len() as u32);
        batch.about.push(About {
            impression: EventId(i),
            user: UserId(user),
            item: ItemId(item),
            time: EventTime(1_000_000_000_000 + i as i64 * 1000),
            new_item: false,
            offered: true,
        });
    }
    batch
}

/// The same with every label final.
pub(crate) fn final_batch(schema: &Schema, size: usize) -> Batch {
    let mut batch = batch(schema, size);
    batch.modes.fill(LabelMode::Final);
    batch
}

/// Every combination of the four slots that is allowed, with narrow layers.
pub(crate) fn combinations() -> Vec<ModelSpec> {
    let limit = 4;
    let (none, softmax) = (Normalise::None, Normalise::Softmax);
    let interests = [
        InterestSpec::Base { limit },
        InterestSpec::Din { limit, hidden: [4, 3], normalise: softmax },
        InterestSpec::Sim {
            limit,
            hidden: [4, 3],
            normalise: none,
            matching: 4,
            heads: 2,
            width: 2,
        },
    ];
    let crossings = [
        CrossingSpec::None {},
        CrossingSpec::Fm {},
        CrossingSpec::Linear {},
        CrossingSpec::FmLinear {},
    ];
    let hidden = vec![5, 4];
    let (plain, norm) = (ExpertNorm::None, ExpertNorm::LayerNorm);
    let sharings = [
        SharingSpec::None {},
        SharingSpec::SharedBottom { hidden: hidden.clone() },
        SharingSpec::Mmoe { experts: 3, hidden: hidden.clone(), normalise: plain },
        SharingSpec::Ple { levels: 1, shared: 2, own: 1, hidden: hidden.clone(), normalise: plain },
        SharingSpec::Ple { levels: 2, shared: 1, own: 1, hidden, normalise: norm },
    ];
    let tower = vec![4, 3];
    let funnels = [
        FunnelSpec::Independent { tower: tower.clone() },
        FunnelSpec::Esmm { tower: tower.clone() },
        FunnelSpec::Aitm { tower, calibrator: 0.6 },
    ];
    let mut specs = Vec::new();
    for interest in &interests {
        for crossing in &crossings {
            for sharing in &sharings {
                for funnel in &funnels {
                    let spec = ModelSpec {
                        interest: interest.clone(),
                        crossing: crossing.clone(),
                        sharing: sharing.clone(),
                        funnel: funnel.clone(),
                        ..ModelSpec::default()
                    };
                    if spec.validate(&schema(&spec), &PARENTS).is_ok() {
                        specs.push(spec);
                    }
                }
            }
        }
    }
    specs
}

/// Every combination whose weights have variances.
pub(crate) fn with_variances() -> Vec<ModelSpec> {
    let crossings = [CrossingSpec::Fm {}, CrossingSpec::Linear {}, CrossingSpec::FmLinear {}];
    let funnels = [FunnelSpec::Independent { tower: vec![4] }, FunnelSpec::Esmm { tower: vec![4] }];
    let mut specs = Vec::new();
    for crossing in crossings {
        for funnel in funnels.clone() {
            let (crossing, sharing) = (crossing.clone(), SharingSpec::None {});
            let mut spec = ModelSpec { crossing, sharing, funnel, ..ModelSpec::default() };
            spec.learning.method = Method::Bayes;
            assert_eq!(spec.validate(&schema(&spec), &PARENTS), Ok(()));
            specs.push(spec);
        }
    }
    specs
}
