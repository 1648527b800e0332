//! What a client of this format ignores, skips and refuses, and what it makes of later formats.
use crate::feed::*;
use bumpless_trust::document::{BadDocument, IndexDocument, Role, parse};
use bumpless_trust::root::BadRoot;
use bumpless_trust::signature::trusted_comment;
use bumpless_trust::{Refused, Request};

/// Signs an index with `edit` made in its text, and reads it.
fn with_index_text(edit: impl FnOnce(String) -> String) -> Result<usize, Refused> {
    let mut feed = Feed::new();
    let text = String::from_utf8(feed.files["index/1.json"].bytes.clone()).unwrap();
    let edited = edit(text.clone());
    assert_ne!(text, edited);
    feed.publish_index_bytes(edited.into_bytes());
    feed.publish_timestamp();
    let trusted = Client::new(&feed).refresh(&feed)?.unwrap();
    Ok(trusted.index().unwrap().releases[0].artifacts.len())
}

#[test]
fn the_object_x_may_hold_anything_and_every_other_unknown_field_is_refused() {
    assert_eq!(with_index_text(|t| t.replace("\"x\":{}", "\"x\":{\"a\":[1.5,{\"b\":null}]}")), Ok(1));
    for edit in [
        ("\"x\":{}", "\"x\":{},\"y\":1"),
        ("\"urgent\":false", "\"urgent\":false,\"y\":1"),
        ("\"kind\":\"worker\"", "\"kind\":\"worker\",\"y\":1"),
        ("\"commit\":\"\"", "\"commit\":\"\",\"path\":\"/bin/sh\""),
        ("\"x\":{}", "\"x\":1"),
        ("\"paused\":false", "\"paused\":false,\"paused\":true"),
        ("\"kind\":\"worker\"", "\"kind\":\"worker\",\"kind\":\"worker\""),
        ("\"raw_size\":9", "\"raw_size\":9,\"raw_size\":10"),
        ("\"version\":1", "\"version\":1.0"),
        ("\"version\":1", "\"version\":-1"),
        ("\"min_release_counter\":0", "\"min_release_counter\":18446744073709551616"),
    ] {
        let result = with_index_text(|t| t.replacen(edit.0, edit.1, 1));
        assert!(
            matches!(result, Err(Refused::Document(Role::Release, BadDocument::Shape(_)))),
            "{edit:?}: {result:?}"
        );
    }
    for bytes in
        [|t| format!(" {t}"), |t| format!("\u{feff}{t}"), |t| format!("[{t}]"), |t| format!("{t}{{}}")]
    {
        let bytes: fn(String) -> String = bytes;
        let result = with_index_text(bytes);
        assert!(matches!(result, Err(Refused::Document(Role::Release, BadDocument::Shape(_)))), "{result:?}");
    }
}

/// A publisher takes over what stands in `x` into the next version.
#[test]
fn a_number_in_x_is_written_as_it_was_read() {
    let text = String::from_utf8(Feed::new().files["index/1.json"].bytes.clone()).unwrap();
    // The first is one that a fuzzer found.
    for number in [
        "18608888880000000000000000000000000000000000000000000000000000000000000000000000000000000000000001150568179",
        "0.1",
        "5e-324",
        "1.7976931348623157e308",
    ] {
        let text = text.replace("\"x\":{}", &format!("\"x\":{{\"a\":{number}}}"));
        let read: IndexDocument = parse(text.as_bytes(), "index").unwrap();
        assert!(read.x.contains_key("a"));
        let again: IndexDocument = parse(&serde_json::to_vec(&read).unwrap(), "index").unwrap();
        assert_eq!(again, read);
    }
}

#[test]
fn an_artifact_of_an_unknown_kind_is_skipped_whole() {
    let unknown = "\"artifacts\":[{\"kind\":\"wasm-judge\",\"anything\":{\"goes\":[1.5]}},";
    assert_eq!(with_index_text(|t| t.replace("\"artifacts\":[", unknown)), Ok(1));
    let result = with_index_text(|t| t.replace("\"artifacts\":[", "\"artifacts\":[{\"no\":\"kind\"},"));
    assert!(matches!(result, Err(Refused::Document(Role::Release, BadDocument::Shape(_)))), "{result:?}");
}

#[test]
fn a_newer_spec_is_named_as_such() {
    let result = with_index_text(|t| t.replace("\"spec\":1", "\"spec\":2,\"unheard_of\":true"));
    assert_eq!(result, Err(Refused::Document(Role::Release, BadDocument::Spec(2))));
}

#[test]
fn metadata_cannot_name_a_path() {
    for edit in [
        ("\"target\":\"x86_64-unknown-linux-gnu\"", "\"target\":\"../../etc\""),
        ("\"release\":\"1.0.0\"", "\"release\":\"../1\""),
        ("\"channel\":\"stable\"", "\"channel\":\"sta/ble\""),
    ] {
        let result = with_index_text(|t| t.replace(edit.0, edit.1));
        assert!(matches!(result, Err(Refused::Document(Role::Release, _))), "{edit:?}: {result:?}");
    }
}

#[test]
fn the_files_are_written_as_they_are_documented() {
    let feed = Feed::new();
    let timestamp = serde_json::to_value(&feed.timestamp).unwrap();
    let fields =
        |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(fields(&timestamp), "channel expires index issued network spec type version");
    let root = serde_json::to_value(&feed.root).unwrap();
    assert_eq!(fields(&root), "builders elders expires network release root spec timestamp type version");
    let index = serde_json::to_value(&feed.index).unwrap();
    assert_eq!(
        fields(&index),
        "channel expires issued min_release_counter network paused protocol_min protocol_revoked releases revoked spec type version x"
    );
    assert_eq!(
        fields(&index["releases"][0]),
        "artifacts build contract counter min_supervisor protocol release rollout state urgent"
    );
    assert_eq!(
        fields(&index["releases"][0]["artifacts"][0]),
        "encoding kind raw_sha256 raw_size sha256 size target"
    );
}

/// The same strictness in the other two files: an unknown field, a field twice, `x`.
#[test]
fn a_root_and_a_timestamp_are_read_as_strictly_as_an_index() {
    for (edit, good) in [
        (("\"spec\":1", "\"spec\":1,\"x\":{\"a\":[1.5]}"), true),
        (("\"spec\":1", "\"spec\":1,\"y\":1"), false),
        (("\"version\":1", "\"version\":1,\"version\":1"), false),
        (("\"expires\":1", "\"expires\":1.5,\"was\":1"), false),
    ] {
        let edited = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            let edited = text.replacen(edit.0, edit.1, 1);
            assert_ne!(text, edited);
            edited.into_bytes()
        };
        let mut feed = Feed::new();
        let bytes = edited(&feed.files["timestamp.json"].bytes);
        feed.put(
            "timestamp.json",
            sign(bytes, &trusted_comment(Role::Timestamp, 1), &feed.timestamps.clone()),
        );
        match Client::new(&feed).refresh(&feed) {
            Ok(_) => assert!(good, "{edit:?}"),
            Err(Refused::Document(Role::Timestamp, BadDocument::Shape(_))) => assert!(!good, "{edit:?}"),
            Err(why) => panic!("{edit:?}: {why}"),
        }

        let mut feed = Feed::new();
        let bytes = edited(&feed.anchor().bytes);
        feed.put("root/1.json", sign(bytes, &trusted_comment(Role::Root, 1), &feed.roots.clone()));
        match Client::new(&feed).refresh(&feed) {
            Ok(_) => assert!(good, "{edit:?}"),
            Err(Refused::Root(BadRoot::Document(BadDocument::Shape(_)))) => assert!(!good, "{edit:?}"),
            Err(why) => panic!("{edit:?}: {why}"),
        }
    }
}

#[test]
fn a_client_of_this_spec_lives_beside_a_feed_of_the_next_one_and_never_asks_for_its_files() {
    let mut feed = Feed::new();
    let mut client = Client::new(&feed);
    client.refresh(&feed).unwrap();
    // The next spec, under names of its own, signed by the same keys; it goes its own way.
    for (name, role, keys) in [
        ("root/2.json", Role::Root, feed.roots.clone()),
        ("timestamp.json", Role::Timestamp, feed.timestamps.clone()),
        ("index/2.json", Role::Release, feed.releases.clone()),
    ] {
        let text = format!("{{\"type\":\"{}\",\"spec\":2,\"version\":2,\"all\":[\"new\"]}}", role.file());
        let signed = sign(text.into_bytes(), &trusted_comment(role, 2), &keys);
        feed.put(&format!("2/{name}"), signed);
    }
    feed.index.releases.push(release("1.1.0", 2));
    feed.next();
    let trusted = client.refresh(&feed).unwrap().unwrap();
    assert_eq!(client.asked, ["root/2.json", "timestamp.json", "index/2.json"]);
    let choice = trusted.choose(&machine(), None, &Request::Newest, |_| None, NOW, 0).unwrap();
    assert_eq!(choice.release().version.to_string(), "1.1.0");

    // Put where this spec's files belong, each of them is refused by its number, and what was verified stays.
    let kept = client.kept.clone();
    for (name, refused) in [
        ("root/2.json", Refused::Root(BadRoot::Document(BadDocument::Spec(2)))),
        ("timestamp.json", Refused::Document(Role::Timestamp, BadDocument::Spec(2))),
    ] {
        let mut mixed = feed.clone();
        mixed.put(name, feed.files[&format!("2/{name}")].clone());
        assert_eq!(client.refresh(&mixed).unwrap_err(), refused);
        assert_eq!(client.kept, kept);
    }
}
