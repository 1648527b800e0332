//! A whole refresh against a feed that answers anything: nothing is kept but what was published.
//!
//! Each answer is the published file, or bytes of the input in the place of the file, its signatures or both,
//! or "not found". The published feed is the one in golden bytes; its secret keys are gone, so whatever else
//! is taken for verified is a forgery.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use bumpless_trust::document::Channel;
use bumpless_trust::{Answer, Keep, Refresh, Signed, Stored, Trusted};
use libfuzzer_sys::fuzz_target;

/// When it was valid.
const THEN: u64 = bumpless_fuzz::PUBLISHED;

static FEED: LazyLock<Vec<(String, Signed)>> = LazyLock::new(|| {
    let build = "build/af6476bd1925a9f5257abc8029f97effdb0f60a23c9a715c6267b54f80eb538c";
    let names = ["root/1.json", "root/2.json", "timestamp.json", "index/412.json", build];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../supervisor/trust/tests/trust/golden/1");
    let read = |name: &str| std::fs::read(folder.join(name)).expect("a published file");
    let signed = |name: &str| Signed { bytes: read(name), signatures: read(&format!("{name}.sigs")) };
    names.into_iter().map(|name| (name.to_owned(), signed(name))).collect()
});

fn published(name: &str) -> Option<&'static Signed> {
    FEED.iter().find(|(known, _)| known == name).map(|(_, signed)| signed)
}

/// The next part of the input: a length, and so many bytes.
fn part<'a>(input: &mut &'a [u8]) -> &'a [u8] {
    let Some((length, rest)) = input.split_first_chunk::<2>() else { return std::mem::take(input) };
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    let (part, rest) = rest.split_at(length);
    *input = rest;
    part
}

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let channel = Channel::default();
    let anchor = published("root/1.json").cloned();
    let (trusted, _, _) =
        Trusted::load(anchor, Stored::default(), channel.clone()).expect("the published root");
    let mut refresh = Refresh::begin(trusted, THEN, 0).expect("a clock that is right");
    while let Some((name, _)) = refresh.file() {
        let truth = published(&name.display().to_string());
        let choice = input.split_off_first().copied().unwrap_or(0);
        let signed = match (choice % 5, truth) {
            (0, Some(truth)) => Some(truth.clone()),
            (1, Some(truth)) => Some(Signed { bytes: part(&mut input).to_vec(), ..truth.clone() }),
            (2, Some(truth)) => Some(Signed { signatures: part(&mut input).to_vec(), ..truth.clone() }),
            (3, _) => {
                let (bytes, signatures) = (part(&mut input).to_vec(), part(&mut input).to_vec());
                Some(Signed { bytes, signatures })
            }
            (_, _) => None,
        };
        let Ok(kept) = refresh.answer(signed.map_or(Answer::Missing, Answer::Found)) else { break };
        for keep in kept {
            if let Keep::Put(role, version, signed) = keep {
                let truth = published(&role.path(&channel, version).display().to_string());
                assert_eq!(Some(&signed.bytes), truth.map(|truth| &truth.bytes), "forged: {}", role.file());
            }
        }
    }
});
