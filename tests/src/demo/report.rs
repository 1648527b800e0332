//! What the demo found: the object of `--json` and the table.

use serde::Serialize;

use crate::display::{bytes, thousands};

/// The object that `cargo demo --json` prints. Scripts read it: fields are added, never renamed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Files stored before the load began.
    pub stored_files: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// Requests of the load.
    pub requests: u64,
    /// Requests without a right answer by the client's deadline, retries included.
    pub failed: u64,
    /// Stored files and acknowledged writes that could not be read back byte for byte.
    pub lost: u64,
    /// The upgrade that went well.
    pub upgrade: UpgradeReport,
    /// The one that did not.
    pub rollback: RollbackReport,
    /// Writes acknowledged under the load.
    pub acknowledged: u64,
    /// Resident memory of the supervisor at the end, bytes.
    pub supervisor_rss: u64,
    /// From the first process to the last byte read back.
    pub seconds: f64,
    /// Where the picture is.
    pub picture: String,
}

/// The good upgrade.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UpgradeReport {
    /// The release before.
    pub from: String,
    /// The release after.
    pub to: String,
    /// The new worker took so long to become level.
    pub sync_ms: f64,
    /// Longest time without an answer around the cut, as the clients saw it.
    pub gap_ms: f64,
    /// From the freeze of the old worker to the new one's `Took`, as the node saw it.
    pub handover_ms: Option<f64>,
    /// 99th percentile of latency before the upgrade.
    pub p99_before_ms: f64,
    /// The same from its beginning until the old worker had gone.
    pub p99_during_ms: f64,
    /// Connections ended by neither their client nor a GOAWAY.
    pub dropped: u64,
    /// Connections that followed a GOAWAY.
    pub moved: u64,
}

/// The bad one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RollbackReport {
    /// The release that failed.
    pub from: String,
    /// The release that serves again.
    pub to: String,
    /// Why, in the supervisor's words.
    pub cause: String,
    /// Longest time without an answer around the death, as the clients saw it.
    pub gap_ms: f64,
    /// Writes acknowledged between the upgrade's begin and the way back's end that could not be read.
    pub lost: u64,
    /// Connections older than the cut that were dropped.
    pub dropped_old: u64,
    /// Connections made between cut and kill, to the worker that died.
    pub dropped_new: u64,
    /// Requests that clients sent again.
    pub retried: u64,
}

impl Report {
    /// Whether the promise was kept.
    pub fn is_good(&self) -> bool {
        let promised =
            [self.failed, self.lost, self.upgrade.dropped, self.rollback.lost, self.rollback.dropped_old];
        promised.iter().all(|count| *count == 0)
    }

    /// The table.
    pub fn table(&self) -> Vec<String> {
        let up = &self.upgrade;
        let back = &self.rollback;
        let mut lines = vec![row(
            "",
            &format!("upgrade {} → {}", up.from, up.to),
            &format!("rollback {} → {}", back.from, back.to),
        )];
        lines.push("─".repeat(86));
        let ms = |value: f64| format!("{value:.1} ms");
        lines.push(row("longest time without an answer", &ms(up.gap_ms), &ms(back.gap_ms)));
        lines.push(row("  authority in no hands", &up.handover_ms.map_or_else(|| "–".to_owned(), ms), "–"));
        lines.push(row("99th percentile before", &ms(up.p99_before_ms), "–"));
        lines.push(row("99th percentile during", &ms(up.p99_during_ms), "–"));
        lines.push(row("state taken over in", &ms(up.sync_ms), "–"));
        lines.push(row("old connections dropped", &up.dropped.to_string(), &back.dropped_old.to_string()));
        lines.push(row("connections moved (GOAWAY)", &thousands(up.moved), "–"));
        lines.push(row("connections to the dead worker", "–", &back.dropped_new.to_string()));
        lines.push(row("requests sent again", "–", &thousands(back.retried)));
        lines.push(row(
            "acknowledged writes lost",
            &(self.lost - back.lost.min(self.lost)).to_string(),
            &back.lost.to_string(),
        ));
        lines.push("─".repeat(86));
        lines.push(format!(
            "  {} files, {} and {} acknowledged writes read back byte for byte: {} lost",
            thousands(self.stored_files),
            bytes(self.stored_bytes),
            thousands(self.acknowledged),
            self.lost
        ));
        lines.push(format!("  {} requests under load: {} failed", thousands(self.requests), self.failed));
        lines
    }

    /// The result in one line, for the picture.
    pub fn line(&self) -> String {
        format!(
            "{} requests · {} failed · {} acknowledged writes · {} lost · {} old connections dropped",
            thousands(self.requests),
            self.failed,
            thousands(self.acknowledged),
            self.lost,
            self.upgrade.dropped + self.rollback.dropped_old
        )
    }
}

fn row(name: &str, upgrade: &str, rollback: &str) -> String {
    format!("  {name:<34} {upgrade:>23} {rollback:>25}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn report() -> Report {
        Report {
            stored_files: 87,
            stored_bytes: 299_000_000,
            requests: 24_000,
            failed: 0,
            lost: 0,
            upgrade: UpgradeReport {
                from: "1.0.0".into(),
                to: "1.1.0".into(),
                sync_ms: 1234.5,
                gap_ms: 9.3,
                handover_ms: Some(1.2),
                p99_before_ms: 4.5,
                p99_during_ms: 6.7,
                dropped: 0,
                moved: 32,
            },
            rollback: RollbackReport {
                from: "1.2.0".into(),
                to: "1.1.0".into(),
                cause: "the new worker exited with status 3, 2.0 s after the cut".into(),
                gap_ms: 14.2,
                lost: 0,
                dropped_old: 0,
                dropped_new: 4,
                retried: 9,
            },
            acknowledged: 8000,
            supervisor_rss: 6_000_000,
            seconds: 61.2,
            picture: "target/demo.svg".into(),
        }
    }

    #[test]
    fn the_object_has_the_fields_that_scripts_read() {
        let json = serde_json::to_value(report()).unwrap();
        for path in [
            "/stored_files",
            "/stored_bytes",
            "/requests",
            "/failed",
            "/lost",
            "/upgrade/from",
            "/upgrade/to",
            "/upgrade/sync_ms",
            "/upgrade/gap_ms",
            "/upgrade/p99_before_ms",
            "/upgrade/p99_during_ms",
            "/upgrade/dropped",
            "/upgrade/moved",
            "/rollback/from",
            "/rollback/to",
            "/rollback/cause",
            "/rollback/gap_ms",
            "/rollback/lost",
            "/rollback/dropped_old",
            "/rollback/dropped_new",
            "/rollback/retried",
        ] {
            assert!(json.pointer(path).is_some(), "{path}");
        }
    }

    #[test]
    fn one_broken_promise_is_enough() {
        assert!(report().is_good());
        let breaks: [fn(&mut Report); 5] = [
            |report| report.failed = 1,
            |report| report.lost = 1,
            |report| report.upgrade.dropped = 1,
            |report| report.rollback.lost = 1,
            |report| report.rollback.dropped_old = 1,
        ];
        for change in breaks {
            let mut broken = report();
            change(&mut broken);
            assert!(!broken.is_good(), "{broken:?}");
        }
        let mut expected = report();
        expected.rollback.dropped_new = 9;
        assert!(expected.is_good());
    }

    #[test]
    fn the_table_is_narrow_enough_for_a_terminal() {
        let table = report().table();
        assert!(table.iter().all(|line| line.chars().count() <= 90), "{table:#?}");
    }
}
