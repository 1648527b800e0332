//! An index: counters and names are unique, ranges hold something, stages rise.
#![no_main]

use bumpless_trust::document::IndexDocument;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    bumpless_fuzz::reads_back::<IndexDocument>(bytes, |bytes| IndexDocument::parse(bytes).ok());
    let Ok(index) = IndexDocument::parse(bytes) else { return };
    assert_eq!(bytes[0], b'{');
    for (at, release) in index.releases.iter().enumerate() {
        let others = &index.releases[..at];
        assert!(others.iter().all(|other| other.counter != release.counter && other.release != release.release));
        assert!(release.contract.min <= release.contract.max && release.protocol.min <= release.protocol.max);
        let stages = &release.rollout.stages;
        assert!(stages.windows(2).all(|pair| pair[0].after < pair[1].after && pair[0].permille <= pair[1].permille));
        assert!(stages.iter().all(|stage| stage.permille <= 1000));
        for artifact in &release.artifacts {
            let path = artifact.path();
            assert!(path.is_relative() && path.components().count() == 2, "{}", path.display());
        }
    }
});
