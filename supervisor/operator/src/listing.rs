//! Outcomes, history and versions in words.

use bumpless_control::Unix;
use bumpless_control::history::{Entry, Event};
use bumpless_control::reply::{Answer, Listed, Move, Outcome};
use bumpless_control::trust::{Kept, RootShown, Signers, Trust};

use crate::dry_run::dry_run;
use crate::report::report;
use crate::words::{clause, course, date, milliseconds, relative, safe};

/// An outcome; ends with an end of line.
pub fn outcome(outcome: &Outcome, now: Unix) -> String {
    match outcome {
        Outcome::Done { answer } => done(answer, now),
        Outcome::Refused { reason } => format!("Refused: {}.\n", clause(reason)),
        Outcome::NothingToDo { reason } => format!("Nothing to do: {}.\n", clause(reason)),
        Outcome::Failed { reason } => {
            format!("FAILED: {}.\nMore: bumpless status\n", clause(reason))
        }
        Outcome::RolledBack { from, to, gap_ms, reason } => format!(
            "ROLLED BACK: {to} served and failed: {}.\n\
             {from} took over again with everything that had been stored{}.\nMore: bumpless status\n",
            clause(reason),
            gap_ms.map_or(String::new(), |ms| format!(
                "; in between nothing was served for {}",
                milliseconds(ms)
            ))
        ),
    }
}

fn done(answer: &Answer, now: Unix) -> String {
    let gap = |step: &Move| {
        step.gap_ms.map_or(String::new(), |ms| format!(" Nothing was served for {}.", milliseconds(ms)))
    };
    match answer {
        Answer::Status(status) => report(status, now),
        Answer::DryRun(foreseen) => dry_run(foreseen, now),
        Answer::Checked(checked) => format!("{}.\n", clause(&checked.text)),
        Answer::Started(step) => {
            format!("Begun: {}. How it goes: bumpless status\n", course(step.from.as_ref(), &step.to))
        }
        Answer::Upgraded(step) => {
            format!("Done: {}; {} serves.{}\n", course(step.from.as_ref(), &step.to), step.to, gap(step))
        }
        Answer::WentBack(step) => {
            format!("Done: back {}; {} serves.{}\n", course(step.from.as_ref(), &step.to), step.to, gap(step))
        }
        Answer::Held { reason } => {
            format!("Held: {}. No upgrade begins until: bumpless unhold\n", clause(reason))
        }
        Answer::Unheld => "Upgrades may begin again.\n".into(),
        Answer::History(entries) if entries.is_empty() => "Nothing has happened here yet.\n".into(),
        Answer::History(entries) => entries.iter().map(entry).collect(),
        Answer::Versions(versions) if versions.is_empty() => {
            "No release is installed here or offered.\n".into()
        }
        Answer::Versions(versions) => versions.iter().map(listed).collect(),
        Answer::Trust(it) => trust(it, now),
        Answer::TrustReset(RootShown { version, sha256, .. }) => format!(
            "Done: trust begins anew with root {version}.\n    fingerprint {sha256}\n\
             Everything that was verified before is forgotten. What runs goes on running; the feed is asked now.\n"
        ),
    }
}

fn trust(trust: &Trust, now: Unix) -> String {
    let Trust { network, channel, root, timestamp, index, roles } = trust;
    let RootShown { version, sha256, expires } = root;
    let mut text = format!("Network {network}, channel {}.\n", safe(channel));
    text += &format!("Root {version}, {}.\n    fingerprint {sha256}\n", valid(*expires, now));
    for (name, kept) in [("Timestamp", timestamp), ("Index", index)] {
        text += &match kept {
            Some(Kept { version, issued, expires }) => {
                format!("{name} {version}, signed {}, {}.\n", date(*issued), valid(*expires, now))
            }
            None => format!("{name}: none was verified yet.\n"),
        };
    }
    text += "Who has to sign:\n";
    for Signers { role, threshold, keys } in roles {
        text += &format!("    {}: {threshold} of {}\n", safe(role), keys.len());
        text += &keys.iter().map(|key| format!("        {}\n", safe(key))).collect::<String>();
    }
    text
}

fn valid(expires: Unix, now: Unix) -> String {
    if expires > now {
        format!("valid until {} ({})", date(expires), relative(expires, now))
    } else {
        format!("EXPIRED on {} ({})", date(expires), relative(expires, now))
    }
}

fn entry(entry: &Entry) -> String {
    let Entry { schema: _, at, event, actor, from, to, reason, gap_ms, index, source } = entry;
    let mut line = format!("{}  {}", date(*at), happened(event));
    line += &match (from, to) {
        (Some(from), Some(to)) => format!(", {} to {}", from.version, to.version),
        (None, Some(one)) | (Some(one), None) => format!(", {}", one.version),
        (None, None) => String::new(),
    };
    if let Some(index) = index {
        line += &format!(", decided on index {}", index.version);
    }
    if let Some(source) = source {
        line += &format!(", source: {}", safe(source.as_str()));
    }
    if let Some(ms) = gap_ms {
        line += &format!(", nothing served for {}", milliseconds(*ms));
    }
    if let Some(uid) = actor {
        line += &format!(", by user {uid}");
    }
    if let Some(reason) = reason {
        line += &format!(": {}", clause(reason));
    }
    line + "\n"
}

fn happened(event: &Event) -> String {
    let words = match event {
        Event::SupervisorStarted => "supervisor started",
        Event::SupervisorStopped => "supervisor stopped, and its workers",
        Event::WorkerStarted => "worker started",
        Event::WorkerDied => "worker died",
        Event::WorkerTakenBack => "worker taken back",
        Event::Installed => "release installed",
        Event::UpgradeStarted => "upgrade begun",
        Event::Cut => "cut over",
        Event::Rehearsed => "rehearsed",
        Event::Committed => "upgrade committed",
        Event::RolledBack => "upgrade rolled back",
        Event::Failed => "upgrade failed",
        Event::Undecided => "upgrade ended without a verdict",
        Event::Quarantined => "release quarantined",
        Event::Held => "upgrades held",
        Event::Unheld => "upgrades let go on",
        Event::StaleAccepted => "expired media accepted",
        Event::TrustReset => "trust reset",
        Event::FeedFailed => "feed failed",
        Event::FeedWell => "feed well again",
        Event::Alarm => "ALARM",
        Event::Other(word) => return safe(word),
    };
    words.into()
}

fn listed(listed: &Listed) -> String {
    let Listed { release, sha256, serving, installed, offered, packaged, why_not } = listed;
    let mut parts = Vec::new();
    for (holds, word) in [
        (serving, "serving"),
        (installed, "installed"),
        (offered, "offered by the feed"),
        (packaged, "declared by a package"),
    ] {
        if *holds {
            parts.push(word.to_owned());
        }
    }
    if let Some(why_not) = why_not {
        parts.push(format!("not chosen: {}", clause(why_not)));
    }
    format!("{release:<12} {}  {}\n", sha256.short(), parts.join(", "))
}
