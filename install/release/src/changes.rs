//! What a document says and what it changes, in words for the people who sign it.

use std::fs;
use std::path::Path;

use bumpless_shared::digest::Digest;
use bumpless_trust::build::{BuildDocument, Built};
use bumpless_trust::document::{IndexDocument, ReleaseDocument, Rollout, RootDocument, root_path};
use bumpless_trust::refresh::sha256;
use bumpless_trust::time::Utc;

use crate::document::Document;
use crate::error::PublishError;
use crate::signer::{Signer, keys_in};

/// What a document says, whatever was published before.
pub fn summary(document: &Document) -> Vec<String> {
    let (network, hash) = (document.network(), sha256(&document.bytes()));
    let mut says = vec![format!("SHA-256 {hash}, network {network}")];
    match document {
        Document::Root(root) => {
            says.insert(0, format!("root {}, valid until {}", root.version, Utc(root.expires)));
            for signer in Signer::ALL {
                if let Some(keys) = keys_in(root, signer) {
                    let (need, count) = (keys.threshold, keys.keys.len());
                    says.push(format!("{signer}: {need} of {count} keys: {}", keys.keys.join(", ")));
                }
            }
            if let Some(seconds) = root.timestamp_valid {
                says.push(format!("a timestamp may be valid for {}", span(seconds)));
            }
            says.extend(extra(&root.x, "the root"));
        }
        Document::Timestamp(timestamp) => {
            let (version, index) = (timestamp.version, timestamp.index.version);
            let (channel, expires) = (&timestamp.channel, Utc(timestamp.expires));
            says.insert(0, format!("timestamp {version} of channel {channel}, valid until {expires}"));
            says.push(format!("the newest index is {index}, SHA-256 {}", timestamp.index.sha256));
            says.extend(extra(&timestamp.x, "the timestamp"));
        }
        Document::Index(index) => {
            let (channel, expires) = (&index.channel, Utc(index.expires));
            says.insert(0, format!("index {} of channel {channel}, valid until {expires}", index.version));
            says.extend(index.releases.iter().map(|entry| format!("it has {}", release(entry))));
            says.extend(standing(index));
            says.extend(extra(&index.x, "the index"));
        }
        Document::Build(build) => {
            let (release, counter) = (&build.release, build.counter);
            says.insert(0, format!("what release {release}, number {counter}, consists of"));
            says.push(format!("built from {:?}", build.commit));
            says.extend(build.artifacts.iter().map(|built| {
                format!("for {}: {} bytes, SHA-256 {}", built.target, built.raw_size, built.raw_sha256)
            }));
            says.extend(extra(&build.x, "the build"));
        }
    }
    says
}

/// What is nobody's default in an index.
fn standing(index: &IndexDocument) -> Vec<String> {
    let mut says = Vec::new();
    if index.paused {
        says.push("the channel is paused: nobody installs anything".to_owned());
    }
    if index.min_release_counter > 0 {
        says.push(format!("releases below number {} are forbidden", index.min_release_counter));
    }
    says.extend(index.revoked.iter().map(|hash| format!("revoked: {hash}")));
    if index.protocol_min > 0 {
        says.push(format!("the network speaks no protocol below {}", index.protocol_min));
    }
    says.extend(index.protocol_revoked.iter().map(|number| format!("nor protocol {number}")));
    says
}

fn extra(x: &bumpless_trust::document::Extra, of: &str) -> Option<String> {
    if x.is_empty() {
        return None;
    }
    let text = serde_json::Value::Object(x.clone()).to_string();
    Some(format!("{of} also holds, ignored by machines: {text}"))
}

/// What the next root changes.
pub fn of_root(old: &RootDocument, new: &RootDocument) -> Vec<String> {
    let mut says = Vec::new();
    for signer in Signer::ALL {
        let (before, after) = (keys_in(old, signer), keys_in(new, signer));
        match (before, after) {
            (None, None) => {}
            (Some(_), None) => says.push(format!("{signer}: nobody is asked any more")),
            (None, Some(_)) => says.push(format!("{signer}: are asked from now on")),
            (Some(before), Some(after)) => {
                let new_keys = after.keys.iter().filter(|key| !before.keys.contains(key));
                says.extend(new_keys.map(|key| format!("{signer}: {key} is new")));
                let gone = before.keys.iter().filter(|key| !after.keys.contains(key));
                says.extend(gone.map(|key| format!("{signer}: {key} is no key any more")));
                if before.threshold != after.threshold {
                    let (before, after) = (before.threshold, after.threshold);
                    says.push(format!("{signer}: {after} must sign instead of {before}"));
                }
            }
        }
    }
    if old.timestamp_valid != new.timestamp_valid {
        says.push("how long a timestamp may be valid is changed".to_owned());
    }
    if old.elders != new.elders {
        says.push(format!("elders: {:?} instead of {:?}", new.elders, old.elders));
    }
    says.push(format!("valid until {} instead of {}", Utc(new.expires), Utc(old.expires)));
    says
}

/// How what one builder found differs from what is expected.
pub fn of_build(expected: &BuildDocument, found: &BuildDocument) -> Vec<String> {
    let head = |build: &BuildDocument| (build.release.clone(), build.counter, build.commit.clone());
    let mut says = Vec::new();
    if head(expected) != head(found) || expected.network != found.network {
        let (was, is) = (head(expected), head(found));
        says.push(format!(
            "release, number and commit are {is:?} instead of {was:?}, or the network differs"
        ));
    }
    for built in &found.artifacts {
        match expected.artifacts.iter().find(|other| other.target == built.target) {
            Some(other) if other == built => {}
            Some(other) => says.push(format!(
                "for {} it has {} bytes, SHA-256 {}, instead of {} bytes, {}",
                built.target, built.raw_size, built.raw_sha256, other.raw_size, other.raw_sha256
            )),
            None => says.push(format!("it has an artifact for {} too many", built.target)),
        }
    }
    let lacks = |other: &&Built| !found.artifacts.iter().any(|built| built.target == other.target);
    says.extend(expected.artifacts.iter().filter(lacks).map(|other| format!("it lacks {}", other.target)));
    says
}

/// What the next index changes.
pub fn of_index(old: &IndexDocument, new: &IndexDocument) -> Vec<String> {
    let mut says = vec![format!("index {} is published; this one", old.version)];
    for entry in &new.releases {
        match old.releases.iter().find(|before| before.release == entry.release) {
            None => says.push(format!("adds {}", release(entry))),
            Some(before) if before == entry => {}
            Some(before)
                if ReleaseDocument { rollout: entry.rollout.clone(), ..before.clone() } == *entry =>
            {
                let (was, is) = (spread(&before.rollout), spread(&entry.rollout));
                says.push(format!("rolls {} out {is}; it was {was}", entry.release));
            }
            Some(before) => {
                says.push(format!(
                    "CHANGES {} from {} to {}",
                    entry.release,
                    release(before),
                    release(entry)
                ));
            }
        }
    }
    let kept = |entry: &&ReleaseDocument| !new.releases.iter().any(|other| other.release == entry.release);
    says.extend(old.releases.iter().filter(kept).map(|entry| format!("takes {} out", release(entry))));
    let revoked = new.revoked.iter().filter(|hash| !old.revoked.contains(hash));
    says.extend(revoked.map(|hash| format!("revokes {}", named(hash, old, new))));
    let allowed = old.revoked.iter().filter(|hash| !new.revoked.contains(hash));
    says.extend(allowed.map(|hash| format!("ALLOWS AGAIN {}, which was revoked", named(hash, old, new))));
    match (old.paused, new.paused) {
        (false, true) => says.push("pauses the channel".to_owned()),
        (true, false) => says.push("lets the channel go on".to_owned()),
        (false, false) | (true, true) => {}
    }
    if old.min_release_counter != new.min_release_counter {
        let (was, is) = (old.min_release_counter, new.min_release_counter);
        says.push(format!("forbids releases below number {is}; it was {was}"));
    }
    if (old.protocol_min, &old.protocol_revoked) != (new.protocol_min, &new.protocol_revoked) {
        says.push("changes which protocols the network speaks".to_owned());
    }
    if old.x != new.x {
        says.push("changes what machines ignore".to_owned());
    }
    if says.len() == 1 {
        says.push("changes nothing but its version and dates".to_owned());
    }
    says
}

fn release(entry: &ReleaseDocument) -> String {
    let artifacts: Vec<String> =
        entry.artifacts.iter().map(|one| format!("{} {}", one.target, one.raw_sha256)).collect();
    let urgent = if entry.urgent { ", urgent" } else { "" };
    let built = match entry.build.sums_sha256 {
        Some(name) => format!(", built as in build/{name}"),
        None => String::new(),
    };
    let [major, minor, patch] = entry.min_supervisor;
    let x = match entry.x.is_empty() {
        true => String::new(),
        false => format!(", ignored by machines: {}", serde_json::Value::Object(entry.x.clone())),
    };
    format!(
        "release {}, number {}{urgent}, from {:?}{built}, rolled out {}: {}; it speaks contract {}, protocol {} \
         and needs supervisor {major}.{minor}.{patch}, reads state {} and writes {}{x}",
        entry.release,
        entry.counter,
        entry.build.commit,
        spread(&entry.rollout),
        artifacts.join(", "),
        entry.contract,
        entry.protocol,
        entry.state,
        entry.state.write,
    )
}

fn spread(rollout: &Rollout) -> String {
    let mut parts = Vec::new();
    if !rollout.canaries.is_empty() {
        let groups: Vec<String> = rollout.canaries.iter().map(ToString::to_string).collect();
        parts.push(format!("at once to {}", groups.join(", ")));
    }
    for stage in &rollout.stages {
        let share = f64::from(stage.permille) / 10.0;
        parts.push(format!("to {share} % after {}", span(stage.after)));
    }
    let group = rollout.group.as_ref().map_or(String::new(), |group| format!(" of group {group}"));
    format!("from {}: {}{group}", Utc(rollout.start), parts.join(", "))
}

/// A revoked hash with the name of its release, where one of the two indexes has it.
fn named(hash: &Digest, old: &IndexDocument, new: &IndexDocument) -> String {
    let mut all = new.releases.iter().chain(&old.releases);
    let entry = all.find(|entry| entry.artifacts.iter().any(|artifact| artifact.raw_sha256 == *hash));
    entry.map_or_else(|| hash.to_string(), |entry| format!("{hash} ({})", entry.release))
}

fn span(seconds: u64) -> String {
    match seconds {
        0 => "0 s".to_owned(),
        days if days % 86_400 == 0 => format!("{} d", days / 86_400),
        hours if hours % 3600 == 0 => format!("{} h", hours / 3600),
        minutes if minutes % 60 == 0 => format!("{} min", minutes / 60),
        seconds => format!("{seconds} s"),
    }
}

/// SHA-256 of a feed's first root: what a holder compares with what they know.
pub(crate) fn first_root(feed: &Path) -> Result<Digest, PublishError> {
    let path = feed.join(root_path(1));
    fs::read(&path).map(|bytes| sha256(&bytes)).map_err(|error| PublishError::File("read", path, error))
}
