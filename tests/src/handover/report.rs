//! What the benchmark found: the object of `--json`, and the tables.

use serde::Serialize;
use serde_json::{Value, json};

use super::figures::{Measure, Scenario, Spread};
use super::round::Rounds;
use super::row::Row;
use super::storage::{Links, Throughput};
use crate::display::thousands;

/// Taking a state in, without load.
#[derive(Clone, Debug, Serialize)]
pub struct Sync {
    /// Records a second, from the first to level.
    pub records_per_s: Spread,
    /// Most resident memory of the new worker until it was level, above that of an idle one, megabytes.
    pub standby_extra_mb: Spread,
    /// Resident memory of a worker that holds nothing, megabytes.
    pub idle_mb: f64,
}

/// The supervisor while nothing happens.
#[derive(Clone, Debug, Serialize)]
pub struct Rest {
    /// Resident memory, megabytes.
    pub rss_mb: f64,
    /// How often a second it is woken up; a worker's heartbeat comes once.
    pub wake_ups_per_s: f64,
}

/// All of it; what was not asked for is not there.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Records before the first round.
    pub records: u64,
    /// Megabytes in chunk files.
    pub chunks_mb: u64,
    /// Requests per second.
    pub rate: u32,
    /// Rounds that were run.
    pub rounds: u32,
    /// Times that a trigger was put off because the machine was not quiet.
    pub noisy: u32,
    /// The storage alone.
    pub throughput: Option<Throughput>,
    /// Chunk files linked.
    pub links: Vec<Links>,
    /// Syncs without load.
    pub sync: Option<Sync>,
    /// The scenarios by name.
    pub scenarios: Vec<(&'static str, Scenario)>,
    /// From the freeze to `Took`, as the node measured it, milliseconds.
    pub handover_ms: Spread,
    /// Connections from after the cut: from the kill to their next answer, milliseconds.
    pub back_ms: Spread,
    /// Syncs under load, seconds.
    pub sync_s: Spread,
    /// The supervisor.
    pub supervisor: Option<Rest>,
    /// Many upgrades in a row.
    pub row: Option<Row>,
}

/// One figure beside what it must reach.
struct Target {
    what: &'static str,
    found: String,
    must: String,
    reached: bool,
}

impl Report {
    /// Takes the rounds over.
    pub fn take(&mut self, rounds: &Rounds) {
        let scenarios: [(&'static str, &[Measure]); 7] = [
            ("steady", &rounds.steady),
            ("sync", &rounds.sync),
            ("upgrade", &rounds.upgrade),
            ("commit", &rounds.commit),
            ("reverse", &rounds.reverse),
            ("kill", &rounds.kill),
            ("restart", &rounds.restart),
        ];
        self.scenarios = scenarios.map(|(name, rounds)| (name, Scenario::of(rounds))).to_vec();
        self.handover_ms = Spread::of(rounds.handover_ms.clone());
        self.back_ms = Spread::of(rounds.back_ms.clone());
        self.sync_s = Spread::of(rounds.sync_s.clone());
    }

    /// Which promise was broken, if one was. Times are not promised here: machines differ.
    pub fn broken(&self) -> Option<String> {
        if let Some(row) = &self.row {
            return row.broken();
        }
        let dirty = self.scenarios.iter().find(|(name, scenario)| match *name {
            "upgrade" | "commit" | "reverse" | "steady" | "sync" => !scenario.is_clean(),
            "kill" => (scenario.failed, scenario.lost, scenario.dropped_old) != (0, 0, 0),
            _ => scenario.lost != 0,
        });
        dirty.map(|(name, found)| {
            format!(
                "the promise was broken in {name}: {} failed, {} dropped, {} lost",
                found.failed, found.dropped, found.lost
            )
        })
    }

    /// The object.
    pub fn json(&self) -> Value {
        if let Some(row) = &self.row {
            return json!({ "row": row });
        }
        let mut all = json!({
            "records": self.records,
            "chunks_mb": self.chunks_mb,
            "rate": self.rate,
            "rounds": self.rounds,
            "noisy": self.noisy,
            "throughput": self.throughput,
            "links": self.links,
            "supervisor": self.supervisor,
            "handover_ms": self.handover_ms,
            "kill_back_ms": self.back_ms,
            "sync_under_load_s": self.sync_s,
        });
        if let Value::Object(object) = &mut all {
            for (name, scenario) in &self.scenarios {
                object.insert((*name).to_owned(), json!(scenario));
            }
            if let Some(sync) = &self.sync {
                // Beside what clients noticed of it under load.
                let figures = [
                    ("records_per_s", json!(sync.records_per_s)),
                    ("links_per_s", json!(self.links_per_s())),
                    ("standby_extra_mb", json!(sync.standby_extra_mb)),
                    ("idle_mb", json!(sync.idle_mb)),
                ];
                if let Some(Value::Object(scenario)) = object.get_mut("sync") {
                    scenario.extend(figures.map(|(name, value)| (name.to_owned(), value)));
                }
            }
        }
        all
    }

    fn links_per_s(&self) -> f64 {
        self.links.last().map_or(0.0, |links| (links.files as f64 / links.seconds).round())
    }

    fn scenario(&self, wanted: &str) -> Option<&Scenario> {
        self.scenarios.iter().find(|(name, _)| *name == wanted).map(|(_, scenario)| scenario)
    }

    fn targets(&self) -> Vec<Target> {
        let mut all = Vec::new();
        let mut target = |what, found: String, must: String, reached| {
            all.push(Target { what, found, must, reached });
        };
        if let [Some(steady), Some(sync), Some(upgrade), Some(commit), Some(reverse), Some(kill)] =
            ["steady", "sync", "upgrade", "commit", "reverse", "kill"].map(|name| self.scenario(name))
        {
            let clean = [upgrade, commit, reverse].map(|it| it.failed + it.dropped + it.lost);
            let sum: u64 = clean.iter().sum();
            target(
                "failed, dropped, lost over upgrade, commit, reverse",
                sum.to_string(),
                "0".into(),
                sum == 0,
            );
            let must = (2.0 * steady.gap_ms.median).max(5.0);
            let found = upgrade.gap_ms.median;
            target(
                "longest time without an answer at the cut, median",
                ms(found),
                at_most(must),
                found <= must,
            );
            for (what, scenario, factor) in [
                ("99th percentile at the cut, over steady", upgrade, 1.5),
                ("99th percentile while syncing, over steady", sync, 1.5),
                ("99th percentile at the commit, over steady", commit, 2.0),
            ] {
                let ratio = scenario.p99_ms.median / steady.p99_ms.median.max(0.001);
                target(what, format!("{ratio:.2} ×"), format!("≤ {factor:.1} ×"), ratio <= factor);
            }
            let found = kill.gap_ms.median;
            target("kill -9 to the next answer, median", ms(found), at_most(20.0), found <= 20.0);
            let sum = kill.dropped_old + kill.lost + kill.failed;
            target(
                "failed, lost, older connections dropped over kill",
                sum.to_string(),
                "0".into(),
                sum == 0,
            );
            let found = self.back_ms.median;
            target("later connections back after the kill", ms(found), at_most(100.0), found <= 100.0);
        }
        if let Some(sync) = &self.sync {
            let rate = sync.records_per_s.median;
            let must = 500_000.0;
            target("records a second into a new generation", whole(rate), "≥ 500,000".into(), rate >= must);
            let extra = sync.standby_extra_mb.median;
            target(
                "memory of the new worker above idle",
                format!("{extra:.0} MB"),
                "≤ 64 MB".into(),
                extra <= 64.0,
            );
        }
        if let Some(throughput) = &self.throughput {
            for (what, ratio) in [
                ("puts with a logbook for a standby, over steady", throughput.sync_ratio.median),
                ("puts in probation, over steady", throughput.probation_ratio.median),
            ] {
                target(what, format!("{:.0} %", ratio * 100.0), "≥ 85 %".into(), ratio >= 0.85);
            }
        }
        if let Some(rest) = &self.supervisor {
            let found = rest.rss_mb;
            target("supervisor, resident", format!("{found:.1} MB"), "≤ 10 MB".into(), found <= 10.0);
        }
        all
    }

    /// The tables.
    pub fn table(&self) -> Vec<String> {
        if let Some(row) = &self.row {
            return row.table();
        }
        let mut lines = vec![String::new()];
        if !self.scenarios.is_empty() {
            lines.push(format!(
                "{} records of 200 B, {} MB in chunk files, {} requests/s (a quarter puts), 64 connections and 50 new \
                 ones a second;",
                thousands(self.records),
                self.chunks_mb,
                thousands(u64::from(self.rate))
            ));
            lines.push(format!(
                "{} rounds: median (least – most); {} times a trigger was put off because the machine was not quiet",
                self.rounds, self.noisy
            ));
            lines.push(String::new());
            lines.push(format!(
                "  {:<9} {:>6} {:>7} {:>7} {:>4}   {:<28} 99th percentile, ms",
                "", "failed", "dropped", "retried", "lost", "longest without answer, ms"
            ));
            for (name, found) in &self.scenarios {
                lines.push(format!(
                    "  {name:<9} {:>6} {:>7} {:>7} {:>4}   {:<28} {}",
                    found.failed,
                    found.dropped,
                    found.retried,
                    found.lost,
                    spread(&found.gap_ms),
                    spread(&found.p99_ms)
                ));
            }
            lines.push(String::new());
            lines.push(format!("  authority in no hands at the cut, ms   {}", spread(&self.handover_ms)));
            lines.push(format!("  sync under load, s                     {}", spread(&self.sync_s)));
        }
        if let Some(sync) = &self.sync {
            lines.push(format!("  sync without load, records/s           {}", spread(&sync.records_per_s)));
        }
        for links in &self.links {
            lines.push(format!(
                "  {:>7} chunk files linked               {:.2} s",
                thousands(links.files),
                links.seconds
            ));
        }
        if let Some(throughput) = &self.throughput {
            lines.push(format!("  storage alone, puts/s: steady          {}", spread(&throughput.steady)));
            lines.push(format!("    with a logbook for a standby         {}", spread(&throughput.sync)));
            lines.push(format!("    in probation                         {}", spread(&throughput.probation)));
        }
        if let Some(rest) = &self.supervisor {
            lines.push(format!("  supervisor at rest, wake-ups/s         {}", rest.wake_ups_per_s));
        }
        lines.push(String::new());
        for Target { what, found, must, reached } in self.targets() {
            let sign = if reached { '✔' } else { '✘' };
            lines.push(format!("  {sign} {what:<54} {found:>12}   {must}"));
        }
        lines
    }
}

fn ms(value: f64) -> String {
    format!("{value:.1} ms")
}

fn at_most(value: f64) -> String {
    format!("≤ {value:.1} ms")
}

fn whole(value: f64) -> String {
    thousands(value as u64)
}

fn spread(figure: &Spread) -> String {
    let Spread { median, min, max } = *figure;
    if median >= 10_000.0 {
        return format!("{} ({} – {})", whole(median), whole(min), whole(max));
    }
    format!("{median:.1} ({min:.1} – {max:.1})")
}

/// One round in a line.
pub fn round(rounds: &Rounds) -> String {
    let last = |measures: &[Measure]| measures.last().copied().unwrap_or_default();
    let [steady, sync, upgrade, commit, reverse, kill, restart] = [
        &rounds.steady,
        &rounds.sync,
        &rounds.upgrade,
        &rounds.commit,
        &rounds.reverse,
        &rounds.kill,
        &rounds.restart,
    ]
    .map(|measures| last(measures));
    let lost: u64 =
        [steady, sync, upgrade, commit, reverse, kill, restart].iter().map(|it| it.failed + it.lost).sum();
    let dropped: u64 = [steady, sync, upgrade, commit, reverse].iter().map(|it| it.dropped).sum();
    format!(
        "gap {:.1} ms at the cut ({:.1} steady), {:.1} back, {:.1} kill, {:.0} restart; {lost} failed or lost, {dropped} \
         dropped",
        upgrade.gap_ms, steady.gap_ms, reverse.gap_ms, kill.gap_ms, restart.gap_ms
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_connection_breaks_the_promise_except_where_a_worker_was_killed_or_stopped() {
        let scenario = |dropped| Scenario { dropped, ..Scenario::default() };
        let report = |scenarios| Report { scenarios, ..Report::default() };
        assert_eq!(report(vec![("upgrade", scenario(0)), ("restart", scenario(64))]).broken(), None);
        assert_eq!(report(vec![("kill", scenario(9))]).broken(), None);
        assert!(report(vec![("commit", scenario(1))]).broken().is_some());
        let old = Scenario { dropped: 1, dropped_old: 1, ..Scenario::default() };
        assert!(report(vec![("kill", old)]).broken().is_some());
        let lost = Scenario { lost: 1, ..Scenario::default() };
        assert!(report(vec![("restart", lost)]).broken().is_some());
    }
}
