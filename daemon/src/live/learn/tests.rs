//! What the learner's thread tells of its model, and how it ends.

use crossbeam_channel::bounded;
use parking_lot::RwLock;

use super::*;
use crate::app::labels;
use crate::clock::Clock;
use crate::config::Config;
use crate::error::Exit;
use crate::http::Readiness;
use crate::learn::trainer::tests::{SHORT_LIVED, batches};
use crate::metrics::Metrics;
use crate::parts;

/// A learner with a queue in front that takes all its work at once.
struct Stage {
    shared: Arc<Live>,
    learner: Learner,
    work: Sender<Work>,
}

fn stage(config: &Config) -> Stage {
    let sets = labels(config);
    let (trainer, clock) = (parts::trainer(config).unwrap(), Clock::system());
    let pipeline = Arc::new(RwLock::new(parts::pipeline(config, 1)));
    let serving = Arc::new(Serving::new(
        Arc::clone(&pipeline),
        snapshot(&trainer),
        Arc::clone(trainer.learner().embeddings()),
        config.serve.clone(),
        "test",
        clock.clone(),
    ));
    let shared = Arc::new(Live::new(
        pipeline,
        trainer,
        clock,
        Arc::new(Metrics::new(&sets)),
        Arc::new(Readiness::default()),
        config.kafka.topics.clone(),
    ));
    shared.readiness.clear(Wait::Starting);
    let (sender, work) = bounded(10_000);
    let (used, _) = bounded(1);
    Stage {
        learner: Learner { shared: Arc::clone(&shared), serving, work, used },
        shared,
        work: sender,
    }
}

impl Stage {
    fn reason(&self, wait: Wait) -> Option<String> {
        self.shared
            .readiness
            .reasons()
            .into_iter()
            .find(|(what, _)| *what == wait)
            .map(|(_, text)| text)
    }
}

#[test]
fn a_model_is_cold_until_it_has_learned_a_thousand_examples() {
    let config = Config::build(SHORT_LIVED, &[]).unwrap();
    let stage = stage(&config);
    tell(&stage.shared, &stage.shared.trainer.lock());
    assert_eq!(Wait::Cold.name(), "model-cold");
    assert!(stage.reason(Wait::Cold).unwrap().starts_with("0 of 1000 examples"));
    let mut learned = 0;
    for batch in batches(&config) {
        let report = stage.shared.trainer.lock().work(&batch);
        learned += report.labelled as u64;
        tell(&stage.shared, &stage.shared.trainer.lock());
        assert_eq!(stage.reason(Wait::Cold).is_none(), learned >= COLD, "{learned}");
    }
    assert!(learned > COLD && stage.shared.readiness.is_ready());
    // A restart knows it, other parameters do not.
    let mut written = Vec::new();
    stage.shared.trainer.lock().write(&mut written).unwrap();
    let mut again = parts::trainer(&config).unwrap();
    tell(&stage.shared, &again);
    assert!(stage.reason(Wait::Cold).is_some());
    again.restore(parts::retriever_spec(&config), &mut &written[..]).unwrap();
    tell(&stage.shared, &again);
    assert!(stage.reason(Wait::Cold).is_none());
}

#[test]
fn too_many_refused_batches_end_the_thread_and_no_image_is_given_of_them() {
    let config = Config::build(SHORT_LIVED, &[]).unwrap();
    let stage = stage(&config);
    let mut batches = batches(&config).into_iter();
    let mut learn = |count: usize| {
        for batch in batches.by_ref().take(count) {
            stage.work.send(Work::Learn(Box::new(batch))).unwrap();
        }
    };
    let freeze = || {
        let (to, image) = bounded(1);
        stage.work.send(Work::Freeze(to)).unwrap();
        image
    };
    let sound = freeze();
    learn(5);
    let few = freeze();
    learn(20);
    let many = freeze();
    learn(150);
    let last = freeze();
    stage.shared.trainer.lock().spoil();
    let Stage { shared, learner, work } = stage;
    drop(work);
    let stop = learner.run(&Shutdown::new()).unwrap_err();
    assert_eq!(stop.exit(), Exit::Fault);

    assert!(sound.recv().unwrap().is_ok(), "nothing was refused yet");
    for (image, told) in
        [(few, "a batch was refused 0 batches ago"), (many, "25 batches were refused")]
    {
        let refused = image.recv().unwrap().map(drop).unwrap_err();
        assert!(refused.to_string().contains(told), "{refused}");
    }
    assert!(last.recv().is_err(), "it has ended before");
    tell(&shared, &shared.trainer.lock());
    let reasons = shared.readiness.reasons();
    let guard = reasons.iter().find(|(what, _)| *what == Wait::Guard).unwrap();
    assert!(guard.1.contains("100 batches were refused"), "{guard:?}");
    let page = shared.metrics.render();
    for line in [
        "sluice_learn_refused_batches_total 100",
        "sluice_learn_unsound{cause=\"refusals\"} 1",
        "sluice_learn_unsound{cause=\"figures\"} 0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}");
    }
}
