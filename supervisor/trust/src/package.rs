//! The second authority: the machine's administrator, who lets the system's packages bring workers.
//!
//! ```json
//! {"type":"package","spec":1,"release":"1.8.2","counter":41,"urgent":false,"min_supervisor":[0,1,0],
//!  "contract":{"min":1,"max":2},"protocol":{"min":7,"max":9},"state":{"read_min":4,"read_max":6,"write":6},
//!  "target":"x86_64-unknown-linux-gnu","size":0,"sha256":"…","x":{}}
//! ```
//!
//! Nothing of this is signed: a declaration is believed because of where it lies, and the caller has made sure
//! that nobody but root can have put it there. So what limits the power of the publisher's keys (expiry, a
//! paused channel, stages, builders, elders) does not concern it, and what tells whether a release can run on
//! this machine does:
//!
//! | Gate | For a package |
//! |---|---|
//! | target, supervisor, contract, state | as for a release of the feed |
//! | quarantine, pin | as for a release of the feed |
//! | revoked, below the floor, the network's protocol | by the newest verified index, if there is one, however old |
//! | stages | open to each machine from the beginning |
//!
//! Where both offer something, `counter` gives the order among all of it: whoever declares a package of a
//! release that is on a feed, too, gives it the feed's counter.

use std::cmp::Reverse;

use bumpless_shared::control::StateRange;
use bumpless_shared::digest::Digest;
use bumpless_shared::release::{Release, Version};
use bumpless_shared::version::Range;
use serde::{Deserialize, Serialize};

use crate::choice::{
    Choice, Machine, Origin, Request, Running, Standing, WhyNot, admitted, standing, suited,
};
use crate::document::{
    Artifact, BadDocument, Build, Encoding, Extra, IndexDocument, Kind, PackageType, ReleaseDocument,
    Rollout, Stage, parse,
};
use crate::outlook::{Outlook, Prospect, newest};

/// Bytes of a declaration; a larger one is refused unread.
pub const MAX_DECLARATION: u64 = 16 * 1024;

/// What lies beside a worker that a package brought, under its name with the ending `.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    /// `package`.
    #[serde(rename = "type")]
    pub kind: PackageType,
    /// [`crate::document::SPEC`].
    pub spec: u32,
    /// Its name, for people.
    pub release: Version,
    /// Its place in the order, among the releases of a feed, too.
    pub counter: u64,
    /// Does not wait for a maintenance window.
    pub urgent: bool,
    /// The lowest supervisor that can run it.
    pub min_supervisor: [u32; 3],
    /// Versions of the contract with the supervisor that it speaks.
    pub contract: Range,
    /// Versions of the protocol between nodes that it speaks.
    pub protocol: Range,
    /// Versions of the logical state stream that it reads and writes.
    pub state: StateRange,
    /// For which machine, such as `x86_64-unknown-linux-musl`.
    pub target: String,
    /// Bytes of the worker.
    pub size: u64,
    /// Their SHA-256.
    pub sha256: Digest,
    /// Ignored.
    #[serde(default, skip_serializing_if = "Extra::is_empty")]
    pub x: Extra,
}

/// A worker that a package brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    entry: ReleaseDocument,
    artifact: Artifact,
}

impl Package {
    /// Parses a declaration, and checks what no type can.
    ///
    /// # Errors
    /// The bytes are not exactly a declaration, or a value in it cannot be meant.
    pub fn parse(bytes: &[u8]) -> Result<Package, BadDocument> {
        let Declaration {
            kind: PackageType::Package,
            spec: _,
            release,
            counter,
            urgent,
            min_supervisor,
            contract,
            protocol,
            state,
            target,
            size,
            sha256,
            x,
        } = parse(bytes, "package")?;
        let (kind, encoding) = (Kind::Worker, Encoding::Plain);
        let artifact = Artifact { kind, target, encoding, size, sha256, raw_size: size, raw_sha256: sha256 };
        let everywhere = vec![Stage { after: 0, permille: 1000 }];
        let entry = ReleaseDocument {
            release,
            counter,
            urgent,
            min_supervisor,
            contract,
            protocol,
            state,
            rollout: Rollout {
                start: 0,
                salt: String::new(),
                group: None,
                canaries: vec![],
                stages: everywhere,
            },
            build: Build { sums_sha256: None, commit: String::new() },
            artifacts: vec![artifact.clone()],
            x,
        };
        entry.check()?;
        Ok(Package { entry, artifact })
    }

    /// Its name and the hash of the bytes that will run.
    pub fn release(&self) -> Release {
        Release { version: self.entry.release.clone(), sha256: self.artifact.raw_sha256 }
    }

    /// Its place in the order.
    pub fn counter(&self) -> u64 {
        self.entry.counter
    }

    /// Its file: for which machine, how large, with which hash.
    pub fn artifact(&self) -> &Artifact {
        &self.artifact
    }

    fn fits(
        &self,
        index: Option<&IndexDocument>,
        machine: &Machine,
        quarantined: impl Fn(&Digest) -> Option<String>,
    ) -> Result<Choice, WhyNot> {
        admitted(&self.entry, machine)?;
        let artifact = suited(&self.entry, index, machine, quarantined)?;
        Ok(Choice::new(&self.entry, artifact, Origin::Package))
    }
}

/// What each package is to this machine, and what is chosen of them. `index` is the newest verified one of the
/// feed; the other arguments are those of [`crate::Trusted::choose`].
pub fn outlook(
    packages: &[Package],
    index: Option<&IndexDocument>,
    machine: &Machine,
    running: Option<Running<'_>>,
    request: &Request,
    quarantined: impl Fn(&Digest) -> Option<String>,
) -> Outlook {
    // Of two with the same place in the order, the one whose target this machine prefers.
    let preferred = |package: &Package| {
        let is_its = |target: &String| *target == package.artifact.target;
        machine.targets.iter().position(is_its).unwrap_or(machine.targets.len())
    };
    let mut packages: Vec<_> = packages.iter().collect();
    packages.sort_by_key(|package| (Reverse(package.counter()), preferred(package)));
    let nothing_newer = || {
        let running = running.map(|running| running.release.version.clone());
        WhyNot::NothingDeclared { running }
    };
    let judged = |package: &Package, standing: Standing, beside: Result<(), WhyNot>| {
        let version = package.entry.release.clone();
        match standing {
            Standing::Newer => {}
            Standing::Beside => beside?,
            Standing::Runs => return Err(WhyNot::Running(version)),
            Standing::Older { running } => return Err(WhyNot::Older { version, running }),
        }
        package.fits(index, machine, &quarantined)
    };
    let prospect = |package: &&Package| {
        let standing = standing(&package.entry, running);
        Prospect {
            version: package.entry.release.clone(),
            counter: package.entry.counter,
            urgent: package.entry.urgent,
            bucket: 0,
            eligible_at: Some(0),
            standing: standing.clone(),
            unasked: judged(package, standing, Err(nothing_newer())),
        }
    };
    let releases: Vec<_> = packages.iter().map(prospect).collect();
    let chosen = match request {
        Request::Newest | Request::Urgent => {
            newest(&releases, request).map_err(|why| why.unwrap_or_else(nothing_newer))
        }
        Request::Version(version) => {
            match packages.iter().find(|package| package.entry.release == *version) {
                // An operator who names a version means it, also where it is only another build of what runs.
                Some(package) => judged(package, standing(&package.entry, running), Ok(())),
                None => {
                    let has = packages.iter().take(8).map(|package| package.entry.release.clone()).collect();
                    Err(WhyNot::Undeclared { version: version.clone(), has })
                }
            }
        }
    };
    Outlook { chosen, releases }
}
