//! A [`Status`] in words, for somebody who has never seen this project.
//!
//! In this order: what is wrong; what serves; what is going on, and what happens if it fails; how the
//! last upgrade ended and why; what is not tried again, with what it wrote last; what comes next and
//! why not now; and last, always, what the reader has to do.

use bumpless_control::Unix;
use bumpless_control::status::{
    Ending, Feed, Figures, Held, Last, Next, Packages, Phase, Quarantined, Rollout, Status, Supervisor,
    Upgrade, Worker,
};

use crate::dry_run::refused_part;
use crate::words::{amount, clause, course, date, indented, milliseconds, relative, safe, size, span, when};

/// Pure: the same status and moment give the same text. Ends with an end of line.
pub fn report(status: &Status, now: Unix) -> String {
    let Status {
        schema: _,
        supervisor,
        serving,
        standby,
        draining,
        upgrade,
        next_check,
        next,
        rollout,
        held,
        quarantined,
        last,
        feed,
        packages,
        alarms,
        you_need_to_do,
    } = status;
    let mut text = String::new();
    for alarm in alarms {
        text += &format!("ALARM, since {}:\n{}", when(alarm.at, now), indented(&alarm.text, 4));
    }
    text += &serving_part(serving.as_ref(), now);
    for (role, worker) in [("Standing by", standby), ("Sending its connections away", draining)] {
        if let Some(worker) = worker {
            text += &format!("{role}: release {}\n{}", worker.release, worker_part(worker, now));
        }
    }
    text.push('\n');
    match upgrade {
        Some(upgrade) => text += &upgrade_part(upgrade, now),
        None => text += "No upgrade is under way.\n",
    }
    if let Some(last) = last {
        text += &last_part(last, now);
    }
    if !quarantined.is_empty() {
        text += "\nNot tried again on this node:\n";
        text += &quarantined.iter().map(|entry| quarantined_part(entry, now)).collect::<String>();
    }
    text.push('\n');
    text += &coming_part(held.as_ref(), next.as_ref(), now);
    if let Some(rollout) = rollout {
        let serves = serving.as_ref().is_some_and(|worker| worker.release == rollout.release);
        if !serves || rollout.group.is_some() || rollout.pin.is_some() {
            let said = next.as_ref().and_then(|next| next.why_not.as_deref());
            text += &rollout_part(rollout, said, now);
        }
    }
    text += &feed_part(feed.as_ref(), packages.is_some(), *next_check, now);
    if let Some(packages) = packages {
        text += &packages_part(packages);
    }
    text += &supervisor_part(supervisor, now);
    let duty = you_need_to_do.as_deref().map_or("nothing".into(), clause);
    text + &format!("\nYou need to do: {duty}\n")
}

fn serving_part(serving: Option<&Worker>, now: Unix) -> String {
    match serving {
        Some(worker) => {
            format!(
                "Release {} is serving, since {}.\n{}",
                worker.release,
                when(worker.since, now),
                worker_part(worker, now)
            )
        }
        None => "NOTHING IS SERVING.\n".into(),
    }
}

fn worker_part(worker: &Worker, now: Unix) -> String {
    let term = worker.term.map_or(String::new(), |term| format!(", term {term}"));
    let source = worker.source.as_ref().map_or(String::new(), |source| {
        let source = safe(source.as_str());
        format!(", source: {source}")
    });
    let id = format!(
        "    worker {}, process {}{term}, release hash {}{source}\n",
        worker.instance,
        worker.pid,
        worker.sha256.short()
    );
    worker.figures.as_ref().map_or(id.clone(), |figures| id + &figures_part(figures, now))
}

fn figures_part(figures: &Figures, now: Unix) -> String {
    let Figures { memory, connections, lag, logbook, requests_per_second, errors_permille, p99_us, at } =
        *figures;
    let mut parts = vec![format!("{connections} connections")];
    if requests_per_second > 0 {
        parts.push(format!("{requests_per_second} requests per second"));
        parts.push(format!("99 % answered within {}", milliseconds(p99_us as f64 / 1000.0)));
    }
    if errors_permille > 0 {
        parts.push(format!("{errors_permille} of 1000 failed"));
    }
    if lag > 0 {
        parts.push(format!("{lag} records behind"));
    }
    if logbook > 0 {
        parts.push(format!("logbook {}", size(logbook)));
    }
    parts.push(format!("memory {}", size(memory)));
    if now.saturating_sub(at) > 10 {
        parts.push(format!("as of {}", relative(at, now)));
    }
    format!("    {}\n", parts.join(", "))
}

fn upgrade_part(upgrade: &Upgrade, now: Unix) -> String {
    let Upgrade { phase, from, to, since, attempt, attempts, progress, deadline, text, rehearsal } = upgrade;
    let tries = if *attempt > 1 { format!(", try {attempt} of {attempts}") } else { String::new() };
    let mut part = format!(
        "An upgrade {} is under way, for {}{tries}.\n    Now: {}\n",
        course(from.as_ref(), to),
        span(now.saturating_sub(*since)),
        phase_part(phase)
    );
    if let Some(done) = progress {
        part += &format!("    Progress: {}\n", amount(done));
    }
    if let Some(text) = text {
        part += &format!("    {}\n", safe(text).replace('\n', "\n    "));
    }
    let at = |at: &Unix| format!("{} ({})", date(*at), relative(*at, now));
    part += &match (phase, deadline) {
        (Phase::Probation, Some(deadline)) if *rehearsal == Some(1) => {
            format!("    It hands back, for practice, at {}.\n", at(deadline))
        }
        (Phase::Probation, Some(deadline)) => format!("    The verdict is due at {}.\n", at(deadline)),
        (Phase::BackingOut | Phase::RollingBack, None) => {
            "    It is waited until the ended process is gone, however long that takes.\n".into()
        }
        (Phase::Draining, Some(deadline)) => {
            format!("    Connections that are left at {} are closed.\n", at(deadline))
        }
        (_, Some(deadline)) => format!("    Given up if that is not done by {}.\n", at(deadline)),
        (_, None) => String::new(),
    };
    part
}

fn phase_part(phase: &Phase) -> String {
    let words = match phase {
        Phase::Fetching => "the release is fetched; nothing has changed yet.",
        Phase::Verifying => "the release is unpacked and its hash checked; nothing has changed yet.",
        Phase::Installing => "the release is put into its place; nothing has changed yet.",
        Phase::Starting => "the new worker starts; the old one serves.",
        Phase::Syncing => "the new worker takes over a copy of the state; the old one serves.",
        Phase::Level => {
            "the new worker has all the state and waits for a suitable moment; the old one serves."
        }
        Phase::Cutting => "the old worker hands over to the new one; this takes milliseconds.",
        Phase::Probation => "the new worker serves and is watched; the old one is ready to take over again.",
        Phase::Committing => "the new worker did well; this is being made final.",
        Phase::Draining => "done; the connections of the old worker move over to the new one.",
        Phase::BackingOut => {
            "it failed before the new worker served; that one is being ended, the old one serves."
        }
        Phase::GoingBack => {
            "the new worker hands back to the old one; connections move over and none is dropped."
        }
        Phase::RollingBack => "it failed; the new worker is being ended and the old one takes over again.",
        Phase::Recovering => "no worker was left; the release that served last is being started.",
        Phase::Other(word) => return safe(word),
    };
    words.into()
}

fn last_part(last: &Last, now: Unix) -> String {
    let Last { result, from, to, at, gap_ms, reason } = last;
    let (course, when) = (course(from.as_ref(), to), when(*at, now));
    let why = reason.as_ref().map_or(String::new(), |reason| format!("    Why: {}.\n", clause(reason)));
    let gap = gap_ms.map(|ms| format!("nothing was served for {}", milliseconds(ms)));
    let back = from.as_ref().map_or("The release before".into(), ToString::to_string);
    match result {
        Ending::Committed => {
            let gap = gap.map_or(String::new(), |gap| format!("    During the cut {gap}.\n"));
            format!("The last upgrade went well: {course}, {when}.\n{gap}")
        }
        Ending::RolledBack => {
            let gap = gap.map_or(String::new(), |gap| format!("; in between {gap}"));
            format!(
                "The last upgrade FAILED and was taken back: {course}, {when}.\n{why}    \
                 {back} took over again with everything that had been stored{gap}.\n"
            )
        }
        Ending::Failed => {
            let on = if from.is_some() {
                format!("    {back} served on without a break.\n")
            } else {
                String::new()
            };
            format!("The last upgrade FAILED before the new release served: {course}, {when}.\n{why}{on}")
        }
        Ending::Undecided => format!(
            "The last upgrade ended without a verdict: {course}, {when}.\n{why}    \
             That says nothing against {to}, which may be tried again.\n"
        ),
        Ending::Other(word) => format!("The last upgrade: {}: {course}, {when}.\n{why}", safe(word)),
    }
}

fn quarantined_part(entry: &Quarantined, now: Unix) -> String {
    let Quarantined { release, sha256, reason, at, output } = entry;
    let mut part = format!(
        "  {release} (hash {}), since {}:\n    {}.\n",
        sha256.short(),
        when(*at, now),
        clause(reason)
    );
    if output.trim().is_empty() {
        part += "    Its worker wrote nothing.\n";
    } else {
        part += &format!("    The last that its worker wrote:\n{}", indented(&tail(output), 8));
    }
    part
}

/// Lines of output that are shown of a failed worker; `--json` has all that is kept.
const LINES: usize = 12;

fn tail(output: &str) -> String {
    let lines: Vec<&str> = output.trim_end().lines().collect();
    lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n")
}

fn coming_part(held: Option<&Held>, next: Option<&Next>, now: Unix) -> String {
    let mut part = String::new();
    if let Some(Held { reason, at, by }) = held {
        let by = by.map_or(String::new(), |uid| format!(" by user {uid}"));
        let since = if *at == 0 { String::new() } else { format!(", since {}", when(*at, now)) };
        part += &format!(
            "Upgrades are HELD{by}{since}: {}.\n    None begins until somebody says: bumpless unhold\n",
            clause(reason)
        );
    }
    if let Some(Next { what, at, why_not }) = next {
        let at = at.map_or(String::new(), |at| format!(", {}", relative(at, now)));
        part += &format!("Next: {}{at}.\n", clause(what));
        if let Some(why_not) = why_not {
            part += &format!("    Not now, because {}.\n", clause(why_not));
        }
    }
    part
}

/// What was said already is not said again.
fn rollout_part(rollout: &Rollout, said: Option<&str>, now: Unix) -> String {
    let Rollout { release, bucket, group, pin, eligible_at, blocks } = rollout;
    let mut part = format!("Rollout of {release}: bucket {bucket} of 1000");
    for (name, value) in [("group", group), ("pin", pin)] {
        if let Some(value) = value {
            part += &format!(", {name} {}", safe(value));
        }
    }
    part += &match eligible_at {
        // From the first second on: it never was restricted.
        Some(0) => "; open to this machine.\n".into(),
        Some(at) if *at <= now => format!("; open to this machine since {}.\n", when(*at, now)),
        Some(at) => format!("; it opens to this machine at {}.\n", when(*at, now)),
        None => "; no stage that is announced reaches this machine.\n".into(),
    };
    if let Some(blocks) = blocks.as_deref().filter(|blocks| said != Some(*blocks)) {
        part += &format!("    Not now, because {}.\n", clause(blocks));
    }
    part
}

fn feed_part(feed: Option<&Feed>, packaged: bool, next_check: Option<Unix>, now: Unix) -> String {
    let mut part = String::new();
    let next = next_check.map_or(String::new(), |at| match at.checked_sub(now) {
        None | Some(0) => ", looked at again now".into(),
        Some(left) => format!(", looked at again in {}", span(left)),
    });
    match feed {
        None if packaged => {
            part += &format!("No feed is configured: releases come from this system's packages{next}.\n")
        }
        None => {
            part += "No feed is configured, so no new release is ever found (feed.urls in config.toml).\n"
        }
        Some(Feed { channel, urls: _, checked_at, error, sandbox_lacks }) => {
            let seen = checked_at
                .map_or("never seen so far".into(), |at| format!("last seen {}", relative(at, now)));
            part += &format!("Feed, channel {}: {seen}{next}.\n", safe(channel));
            if let Some(error) = error {
                part += &format!("    The last look FAILED: {}.\n", clause(error));
            }
            for lack in sandbox_lacks {
                part += &format!("    The sandbox of what fetches lacks {}.\n", clause(lack));
            }
        }
    }
    part
}

fn packages_part(packages: &Packages) -> String {
    let Packages { folder, declared, refused } = packages;
    let names: Vec<_> = declared.iter().map(ToString::to_string).collect();
    let names = if names.is_empty() { "no release".into() } else { names.join(", ") };
    let refused: String = refused.iter().map(refused_part).collect();
    format!("Packages in {}: {names}.\n{refused}", safe(folder))
}

fn supervisor_part(supervisor: &Supervisor, now: Unix) -> String {
    let Supervisor { version, pid, since } = supervisor;
    format!("Supervisor: bumplessd {}, process {pid}, since {}.\n", safe(version), when(*since, now))
}
