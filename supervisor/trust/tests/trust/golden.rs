//! A feed as it was published once: every format that ever went out is read for ever.
//!
//! `golden/1/` was written by hand and signed with the minisign tool; its secret keys are gone. It has two
//! roots (the second changes every key and asks for two of three builders), an index with every field in
//! use, and what its builders signed. A file there is never changed: another format gets another folder.
use std::path::{Path, PathBuf};

use crate::feed::*;
use bumpless_trust::build::BuildDocument;
use bumpless_trust::document::{
    Group, IndexDocument, ReleaseDocument, RootDocument, Stage, TimestampDocument, parse,
};
use bumpless_trust::refresh::sha256;
use bumpless_trust::{Answer, Machine, Refresh, Request, Signed, Stored, Trusted, WhyNot};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trust/golden/1")
}

fn signed(name: &str) -> Option<Signed> {
    let path = folder().join(name);
    let signatures = std::fs::read(format!("{}.sigs", path.display())).ok()?;
    Some(Signed { bytes: std::fs::read(path).unwrap(), signatures })
}

fn refreshed() -> (Trusted, Vec<String>) {
    let anchor = signed("root/1.json");
    let (trusted, _, _) = Trusted::load(anchor, Stored::default(), "stable".parse().unwrap()).unwrap();
    let mut refresh = Refresh::begin(trusted, NOW, 0).unwrap();
    let mut asked = Vec::new();
    while let Some((name, _)) = refresh.file() {
        let name = name.to_str().unwrap().to_owned();
        let answer = signed(&name).map_or(Answer::Missing, Answer::Found);
        asked.push(name);
        refresh.answer(answer).unwrap();
    }
    (refresh.trusted().clone(), asked)
}

#[test]
fn the_feed_of_the_first_format_is_followed_from_its_first_root_to_a_choice() {
    let (trusted, asked) = refreshed();
    let build = asked.last().unwrap().clone();
    assert_eq!(asked, ["root/2.json", "root/3.json", "timestamp.json", "index/412.json", build.as_str()]);
    assert!(build.starts_with("build/"));
    assert_eq!(trusted.root().version(), 2);
    let choose = |group: Option<&str>| {
        let group: Option<Group> = group.map(|name| name.parse().unwrap());
        let machine = Machine { group, ..machine() };
        let choice = trusted.choose(&machine, None, &Request::Newest, |_| None, NOW, 0)?;
        Ok::<_, WhyNot>((choice.release().version.to_string(), choice.release().sha256, choice.urgent()))
    };
    let newest = ("1.8.2".to_owned(), sha256(b"1.8.2 for x86_64\n"), true);
    assert_eq!(choose(Some("canary")), Ok(newest));
    // The older one is for everybody else, and no builders were asked when it came out.
    assert!(matches!(choose(Some("us")), Err(WhyNot::OtherGroup { .. })));
}

#[test]
fn every_field_of_the_first_format_means_what_it_meant() {
    let (trusted, _) = refreshed();
    let index = trusted.index().unwrap();
    assert_eq!((index.version, index.min_release_counter, index.paused), (412, 37, false));
    assert_eq!((index.protocol_min, &index.protocol_revoked[..]), (7, &[8][..]));
    assert_eq!(index.revoked, [sha256(b"1.8.1 was bad\n")]);
    let ReleaseDocument { rollout, artifacts, build, .. } = &index.releases[0];
    assert_eq!(rollout.group, Some("eu".parse().unwrap()));
    assert_eq!(rollout.canaries, ["canary".parse().unwrap(), "lab".parse().unwrap()]);
    assert_eq!(rollout.stages, [Stage { after: 0, permille: 0 }, Stage { after: 86_400, permille: 250 }]);
    assert_eq!((artifacts.len(), build.commit.as_str()), (2, "5f1c0de"), "one of unknown kind is skipped");
}

/// What this version writes is what was written then, to the byte.
#[test]
fn the_first_format_is_written_as_it_was() {
    fn same<T: Serialize + DeserializeOwned>(name: &str, kind: &str) {
        let bytes = signed(name).unwrap().bytes;
        let document: T = parse(&bytes, kind).unwrap();
        assert_eq!(
            String::from_utf8(serde_json::to_vec(&document).unwrap()),
            String::from_utf8(bytes),
            "{name}"
        );
    }
    same::<RootDocument>("root/1.json", "root");
    same::<RootDocument>("root/2.json", "root");
    same::<TimestampDocument>("timestamp.json", "timestamp");
    // The one thing that is read and not kept is an artifact of unknown kind.
    let text = String::from_utf8(signed("index/412.json").unwrap().bytes).unwrap();
    let unknown = "{\"kind\":\"wasm-judge\",\"memory\":[1.5,{\"pages\":null}]},";
    let known = text.replace(unknown, "");
    assert_ne!(known, text);
    let index = IndexDocument::parse(text.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(serde_json::to_vec(&index).unwrap()).unwrap(), known);
    let name = format!("build/{}", index.releases[0].build.sums_sha256.unwrap());
    same::<BuildDocument>(&name, "build");
    // And what builders have to sign follows from the index.
    let build = serde_json::to_vec(&BuildDocument::of(index.network, &index.releases[0])).unwrap();
    assert_eq!(build, signed(&name).unwrap().bytes);
}
