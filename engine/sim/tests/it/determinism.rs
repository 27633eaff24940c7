//! One seed is one run: the same bytes twice, also when other runs go on beside it.

use pontoon_sim::{Options, Overrides, Part, run, run_many};

#[test]
fn the_same_seed_prints_the_same_bytes_twice() {
    for seed in 100..120 {
        let (first, second) = (run(seed, &Overrides::default()), run(seed, &Overrides::default()));
        assert_eq!(first.to_string(), second.to_string());
        assert_eq!(first, second);
    }
}

/// Over every kind of fault: of each one seed that has it.
#[test]
fn every_fault_repeats_itself() {
    for part in Part::ALL {
        let with = Overrides { old_images: part == Part::OldImages, nodes: Some(3), ..Overrides::default() };
        let without = Overrides { without: vec![part], ..with.clone() };
        let has = |seed: &u64| Options::draw(*seed, &with) != Options::draw(*seed, &without);
        let seed = (400..).find(has).expect("some seed has the part");
        assert_eq!(run(seed, &with), run(seed, &with), "seed {seed} with {part}");
    }
}

#[test]
fn the_whole_trace_is_the_same_twice_and_says_what_happened() {
    let overrides = Overrides { trace: true, nodes: Some(3), ..Overrides::default() };
    let (first, second) = (run(7, &overrides), run(7, &overrides));
    assert_eq!(first.to_string(), second.to_string());
    let text = first.to_string();
    for word in [" is leader of term ", "AppendResponse matched", " committed ", "beacon ", "answered: Ok("] {
        assert!(text.contains(word), "the trace says nothing of {word:?}");
    }
}

#[test]
fn keeping_the_trace_changes_nothing() {
    let kept = run(3, &Overrides { trace: true, ..Overrides::default() });
    let not_kept = run(3, &Overrides::default());
    assert_eq!(kept.digest, not_kept.digest);
    assert_eq!(kept.summary(), not_kept.summary());
}

#[test]
fn threads_change_nothing() {
    let collect = |threads| {
        let mut texts = Vec::new();
        run_many(200..230, &Overrides::default(), threads, |report| {
            texts.push(report.to_string());
            true
        });
        texts
    };
    assert_eq!(collect(1), collect(4));
}

#[test]
fn different_seeds_are_different_runs() {
    let digests: std::collections::BTreeSet<u64> =
        (300..330).map(|seed| run(seed, &Overrides::default()).digest).collect();
    assert_eq!(digests.len(), 30);
}
