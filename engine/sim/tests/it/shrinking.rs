//! What is left of a failing seed, and the faults that no seed draws by itself.

use pontoon_raft::Mutation;
use pontoon_sim::options::DRIFT_MARGIN_PPM;
use pontoon_sim::shrink::shrink;
use pontoon_sim::{Options, Overrides, Part, run};

#[test]
fn a_failing_seed_is_shrunk_and_what_is_left_still_fails() {
    let overrides = Overrides { mutation: Some(Mutation::ForgetVoteAtRestart), ..Overrides::default() };
    let seed = (0..50).find(|seed| !run(*seed, &overrides).passed()).expect("the bug is found");
    let mut heard = 0;
    let shrunk = shrink(seed, &overrides, |_| heard += 1).expect("the seed fails");
    assert!(heard >= shrunk.without.len() && shrunk.without.len() > 5, "{:?}", shrunk.without);
    let again = run(seed, &shrunk.overrides);
    assert_eq!(again, shrunk.report, "the replay is the run that was kept");
    let broken = again.violation.expect("what is left still fails").broken.to_string();
    assert!(broken.starts_with("one vote in a term"), "{broken}");
    assert!(shrunk.arguments().starts_with(&format!("--seed {seed} ")), "{}", shrunk.arguments());
}

#[test]
fn a_seed_that_passes_is_not_shrunk() {
    assert!(shrink(3, &Overrides::default(), |_| panic!("nothing is left out")).is_none());
}

#[test]
fn each_part_can_be_left_out_and_has_a_name() {
    for part in Part::ALL {
        assert_eq!(Part::named(part.name()), Some(part));
        let with = Overrides { old_images: part == Part::OldImages, ..Overrides::default() };
        let without = Overrides { without: vec![part], ..with.clone() };
        let differ = |seed: &u64| Options::draw(*seed, &without) != Options::draw(*seed, &with);
        assert!((0..200).any(|seed| differ(&seed)), "no seed has {part}");
    }
    let calm = Overrides { without: Part::ALL.to_vec(), ..Overrides::default() };
    let report = run(9, &calm);
    assert!(report.passed(), "{report}");
    let counts = &report.counts;
    assert_eq!((counts.crashes, counts.pauses, counts.frames_lost, counts.damages), (0, 0, 0, 0), "{report}");
}

/// Nothing leans on clocks yet, so beyond the margin everything holds too, though elections take longer.
#[test]
fn clocks_beyond_the_margin_break_no_law() {
    let overrides = Overrides { drift_ppm: Some(6 * DRIFT_MARGIN_PPM), ..Overrides::default() };
    for seed in 0..30 {
        let report = run(seed, &overrides);
        assert!(report.passed(), "{report}");
    }
}

/// Law 12: a replica that has forgotten what it promised follows, votes for nobody and breaks nobody's law.
#[test]
fn an_old_image_of_a_disk_is_noticed() {
    let overrides = Overrides { nodes: Some(3), old_images: true, ..Overrides::default() };
    let mut images = 0;
    for seed in 0..60 {
        let report = run(seed, &overrides);
        assert!(report.passed(), "{report}");
        images += report.counts.old_images;
    }
    assert!(images >= 10, "{images} images came back");
}
