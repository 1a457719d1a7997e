use super::*;
use crate::model::testing::{PARENTS, PRIORS, batch, combinations, schema, with_variances};

fn trained(spec: &ModelSpec) -> Learner {
    let mut learner = Learner::new(spec, &schema(spec), &PARENTS, &PRIORS, 5).unwrap();
    for size in [7, 16, 3] {
        learner.step(&batch(&schema(spec), size));
    }
    learner
}

fn bytes(learner: &Learner) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(learner, &mut bytes).unwrap();
    bytes
}

fn back(bytes: &[u8], spec: &ModelSpec) -> Result<Learner, FormatError> {
    read(&mut &*bytes, spec, &schema(spec), &PARENTS)
}

#[test]
fn a_restored_learner_goes_on_to_the_bit() {
    for mut spec in combinations().into_iter().step_by(11).chain(with_variances()) {
        spec.embeddings.admission = 2;
        let mut learner = trained(&spec);
        let mut restored = back(&bytes(&learner), &spec).unwrap();
        assert_eq!(restored.checksum(), learner.checksum());
        for size in [9, 2] {
            let batch = batch(&schema(&spec), size);
            assert_eq!(restored.step(&batch), learner.step(&batch));
        }
        assert_eq!(restored.checksum(), learner.checksum());
        assert_eq!(bytes(&restored), bytes(&learner));
        assert_eq!(restored.steps(), learner.steps());
        // Without a deep part each example that has a label is a step.
        assert!(restored.steps() == 5 || !spec.is_deep());
    }
}

#[test]
fn changes_take_a_learner_on_to_where_one_is_that_never_stopped() {
    for mut spec in combinations().into_iter().step_by(11).chain(with_variances()) {
        spec.embeddings.admission = 2;
        let mut learner = trained(&spec);
        let schema = schema(&spec);
        let written = |learner: &Learner, part, kept: bool| {
            let (mut image, mut bytes) = (image(learner), Vec::new());
            image.write(part, &mut bytes).unwrap();
            if kept {
                image.keep();
            }
            bytes
        };
        let whole = written(&learner, Part::Whole, true);
        let mut restored = back(&whole, &spec).unwrap();
        let mut changes = Vec::new();
        for kept in [true, false, true] {
            learner.step(&batch(&schema, 5));
            let bytes = written(&learner, Part::Changes, kept);
            assert!(back(&bytes, &spec).is_err(), "changes are no learner");
            if kept {
                advance(&mut restored, &mut &*bytes).unwrap();
                assert_eq!(restored.checksum(), learner.checksum());
                assert_eq!(
                    (restored.steps(), restored.refused()),
                    (learner.steps(), learner.refused())
                );
            }
            changes.push(bytes);
        }
        assert_eq!(written(&restored, Part::Whole, false), written(&learner, Part::Whole, false));
        // What was restored knows that nothing has changed since.
        assert_eq!(
            written(&restored, Part::Changes, false),
            written(&learner, Part::Changes, false)
        );
        let error = advance(&mut restored, &mut &*changes[0]);
        assert!(error.is_err() || !spec.is_deep(), "changes of an earlier time");
    }
}

#[test]
fn changes_of_another_model_are_refused() {
    let spec = ModelSpec::default();
    let other = ModelSpec { sharing: ModelSpec::reference().sharing, ..spec.clone() };
    let (learner, mut wrong) = (trained(&spec), trained(&other));
    let mut bytes = Vec::new();
    image(&learner).write(Part::Changes, &mut bytes).unwrap();
    let error = advance(&mut wrong, &mut &*bytes).unwrap_err();
    assert!(matches!(error, FormatError::Model(_) | FormatError::Schema { .. }), "{error}");
    let mut seed = Learner::new(&spec, &schema(&spec), &PARENTS, &PRIORS, 6).unwrap();
    assert!(matches!(advance(&mut seed, &mut &*bytes), Err(FormatError::Model(_))));
}

#[test]
fn an_image_is_the_learner_as_it_was_whatever_it_learns_meanwhile() {
    let mut spec = ModelSpec::default();
    spec.embeddings.admission = 2;
    let (schema, mut learner) = (schema(&spec), trained(&spec));
    for at_once in [true, false] {
        let expected = bytes(&learner);
        let mut image = image(&learner);
        if at_once {
            learner.step(&batch(&schema, 40));
        }
        let mut writer = Learning { written: Vec::new(), learner: &mut learner };
        image.write(Part::Whole, &mut writer).unwrap();
        assert_eq!(writer.written, expected);
        drop(image);
        assert_ne!(bytes(&learner), expected);
    }
    drop(image(&learner));
    assert_eq!(learner.embeddings().put_aside(), 0);

    /// Learns whenever something is written.
    struct Learning<'a> {
        written: Vec<u8>,
        learner: &'a mut Learner,
    }

    impl Write for Learning<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let schema = self.learner.schema().clone();
            self.learner.step(&batch(&schema, 1 + self.written.len() % 7));
            self.written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}

#[test]
fn another_model_is_refused_with_the_difference() {
    let spec = ModelSpec::default();
    let file = bytes(&trained(&spec));
    let other = ModelSpec { sharing: ModelSpec::reference().sharing, ..spec.clone() };
    let error = back(&file, &other).unwrap_err().to_string();
    assert!(error.contains("layer-norm") && error.contains("sharing"), "{error}");
    let mut funnel = spec.clone();
    funnel.funnel = FunnelSpec::Esmm { tower: vec![64, 32] };
    let error = back(&file, &funnel).unwrap_err().to_string();
    assert!(error.contains("aitm") && error.contains("esmm"), "{error}");
    let mut wide = schema(&spec);
    wide.tables[0].width = 4;
    let error = read(&mut &*file, &spec, &wide, &PARENTS).unwrap_err();
    assert!(matches!(error, FormatError::Schema { .. }), "{error}");
    let error = read(&mut &*file, &spec, &schema(&spec), &[None; 4]).unwrap_err().to_string();
    assert!(error.contains("parents"), "{error}");
}

#[test]
fn rates_may_change_between_runs() {
    let mut spec = ModelSpec::default();
    let file = bytes(&trained(&spec));
    spec.learning.dense_rate = 0.01;
    assert_eq!(
        back(&file, &spec).unwrap().spec().learning.dense_rate.to_bits(),
        0.01_f64.to_bits()
    );
}

#[test]
fn every_damage_is_noticed() {
    let spec = combinations().remove(0);
    let file = bytes(&trained(&spec));
    for place in (0..file.len()).step_by(file.len() / 200 + 1) {
        let mut damaged = file.clone();
        damaged[place] ^= 0x10;
        assert!(back(&damaged, &spec).is_err(), "a changed byte at {place} of {}", file.len());
        assert!(back(&file[..place], &spec).is_err(), "the end at {place}");
    }
    assert!(matches!(back(b"PK\x03\x04 not this", &spec), Err(FormatError::Magic(_))));
    let mut newer = file;
    newer[8] = 9;
    assert!(matches!(back(&newer, &spec), Err(FormatError::Version(9))));
}

#[test]
fn numbers_that_are_not_finite_are_never_written() {
    let spec = ModelSpec::default();
    for found in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let refused = |learner: &Learner| {
            let error = write(learner, &mut Vec::new()).unwrap_err();
            let inside = error.get_ref().and_then(|error| error.downcast_ref::<NotFinite>());
            inside.map(|error| (error.what, error.found.to_bits()))
        };
        let mut learner = trained(&spec);
        learner.model_mut().params_mut().values_mut()[5] = found;
        assert_eq!(refused(&learner), Some(("dense parameters", found.to_bits())));
        // What a step would make of a row that is out of bounds.
        let learner = trained(&spec);
        let store = &learner.embeddings().stores()[0];
        let mut shards: Vec<_> = (0..RowStore::SHARDS).map(|shard| store.export(shard)).collect();
        let shard = shards.iter().position(|shard| !shard.keys.is_empty()).unwrap();
        shards[shard].rows[0] = found;
        store.import(shard, shards.swap_remove(shard)).unwrap();
        assert_eq!(refused(&learner), Some(("embedding rows", found.to_bits())));
    }
}
