//! What an upgrade would do, in words: what is chosen, what stands before its start, and what each release of
//! the feed and of the system's packages is to this machine.

use bumpless_control::Unix;
use bumpless_control::dry_run::{Considered, DryRun, Hurdle, Obstacle, Stops};
use bumpless_control::history::Source;
use bumpless_control::status::Refused;

use crate::words::{clause, course, relative, safe, when};

/// Pure: the same answer and moment give the same text. Ends with an end of line.
pub fn dry_run(foreseen: &DryRun, now: Unix) -> String {
    let DryRun {
        asked, folder, from, to, why_not, obstacles, refused, index, checked_at, feed_error, ..
    } = foreseen;
    let mut text = match folder {
        None => "Nothing was changed, and the feed was not asked.\n".to_owned(),
        Some(folder) => {
            format!("Nothing was changed; {} was looked into, and nothing of it is kept.\n", safe(folder))
        }
    };
    let mut command = String::from("bumpless upgrade");
    command += &folder.as_ref().map_or(String::new(), |folder| format!(" --from {}", safe(folder)));
    command += &asked.as_ref().map_or(String::new(), |asked| format!(" {asked}"));
    let stopped = obstacles.iter().any(|obstacle| obstacle.stops != Stops::Supervisor);
    text += &match (to, why_not) {
        (Some(to), _) => {
            let would = if stopped { "would be refused now; it leads" } else { "would go" };
            format!("{command} {would} {}.\n", course(from.as_ref(), to))
        }
        (None, Some(why_not)) => format!("{command} would begin nothing: {}.\n", clause(why_not)),
        (None, None) => format!("{command} would begin nothing.\n"),
    };
    text += &obstacles.iter().map(obstacle_part).collect::<String>();
    if to.is_some() && obstacles.is_empty() {
        text += match folder {
            None => {
                "    Nothing stands before its start; the supervisor begins it by itself at its next look.\n"
            }
            Some(_) => "    Nothing stands before its start.\n",
        };
    }
    let (packaged, offered): (Vec<_>, Vec<_>) =
        foreseen.releases.iter().partition(|release| release.source == Some(Source::Package));
    let parts = |releases: &[&Considered]| match releases {
        [] => "    none\n".to_owned(),
        some => some.iter().map(|release| release_part(release, now)).collect(),
    };
    if let Some(index) = index {
        let seen = match (folder, checked_at) {
            (Some(folder), _) => format!("which {} has", safe(folder)),
            (None, Some(at)) => format!("verified {}", relative(*at, now)),
            (None, None) => "not looked for since the supervisor's start".to_owned(),
        };
        let signed = foreseen.signed_at.map_or(String::new(), |at| format!(", signed {}", when(at, now)));
        text += &format!("\nReleases in index {}, {seen}{signed}:\n", index.version);
    }
    if let Some(error) = feed_error {
        text += &format!("    (The last look FAILED: {}.)\n", clause(error));
    }
    if index.is_some() {
        text += &parts(&offered);
    }
    if !packaged.is_empty() || !refused.is_empty() || index.is_none() {
        text += &format!("\nReleases of this system's packages:\n{}", parts(&packaged));
    }
    text + &refused.iter().map(refused_part).collect::<String>()
}

/// A declaration that is not believed.
pub fn refused_part(Refused { file: _, why }: &Refused) -> String {
    format!("    REFUSED: {}.\n", clause(why))
}

fn obstacle_part(obstacle: &Obstacle) -> String {
    let Obstacle { kind, stops, text } = obstacle;
    let what = match kind {
        Hurdle::Busy => "Not now",
        Hurdle::Hold => "Upgrades are HELD (bumpless unhold frees them)",
        Hurdle::Room => "No room on the disk",
        Hurdle::Manual | Hurdle::Time | Hurdle::Retry => "The supervisor does not begin it by itself",
        Hurdle::Other(word) => return format!("    {}: {}.\n", safe(word), clause(text)),
    };
    match stops {
        Stops::Everybody | Stops::Supervisor => format!("    {what}: {}.\n", clause(text)),
        Stops::Other(word) => format!("    {what} (stops {}): {}.\n", safe(word), clause(text)),
    }
}

fn release_part(considered: &Considered, now: Unix) -> String {
    let Considered { release, source, chosen, bucket, eligible_at, why_not } = considered;
    let release = release.as_str();
    let verdict = match (chosen, why_not) {
        (true, _) => "chosen".to_owned(),
        (false, Some(why_not)) => format!("not chosen: {}", clause(why_not)),
        (false, None) => "not chosen".to_owned(),
    };
    let open = match eligible_at {
        Some(at) if *at <= now => "open to this machine".to_owned(),
        Some(at) => format!("opens to this machine {}", relative(*at, now)),
        None => "reaches this machine by no stage".to_owned(),
    };
    let stages = match source {
        Some(Source::Package) => String::new(),
        Some(Source::Feed | Source::Other(_)) | None => {
            format!("               bucket {bucket} of 1000, {open}\n")
        }
    };
    format!("  {release:<12} {verdict}\n{stages}")
}
