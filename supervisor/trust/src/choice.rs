//! Which of the index's releases this machine takes, or why it takes none.

use std::cmp::Ordering;
use std::fmt;

use bumpless_shared::control::StateRange;
use bumpless_shared::digest::Digest;
use bumpless_shared::release::{Release, Version};
use bumpless_shared::version::Range;
use sha2::{Digest as _, Sha256};

use crate::build::Unattested;
use crate::document::{
    Artifact, Channel, Elders, Group, IndexDocument, Kind, ReleaseDocument, Role, Rollout, TimestampDocument,
};
use crate::pin::Pin;
use crate::refresh::{Evidence, Held, Trusted};
use crate::refused::Refused;
use crate::time::{At, Utc};

/// What a release must fit.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Targets that run here, the preferred one first.
    pub targets: Vec<String>,
    /// The supervisor's version.
    pub supervisor: [u32; 3],
    /// Versions of the contract that the supervisor speaks.
    pub contract: Range,
    /// What the release that runs reads and writes of the logical state stream; nothing if nothing is stored
    /// yet.
    pub state: Option<StateRange>,
    /// What tells this machine from others; with a rollout's salt it gives the bucket.
    pub id: Digest,
    /// The group that the machine's administrator put it in.
    pub group: Option<Group>,
    /// Which versions the machine's administrator lets onto it; absent: all.
    pub pin: Option<Pin>,
}

/// The targets whose workers run where this code was built for, the preferred one first. A machine with a
/// dynamic C library also runs a static executable; the reverse is not certain.
pub fn targets() -> Vec<String> {
    let arch = std::env::consts::ARCH;
    let environments: &[&str] = if cfg!(target_env = "musl") { &["musl"] } else { &["gnu", "musl"] };
    environments.iter().map(|environment| format!("{arch}-unknown-linux-{environment}")).collect()
}

/// What runs here now.
#[derive(Clone, Copy, Debug)]
pub struct Running<'a> {
    /// The release.
    pub release: &'a Release,
    /// Its place in the order.
    pub counter: u64,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The newest that fits, and whose rollout has reached this machine.
    Newest,
    /// The same among those that their publisher calls urgent: what goes outside of maintenance windows, also
    /// if something newer waits for one.
    Urgent,
    /// Exactly this one. An operator who names a version does not wait for its rollout; the pin holds for
    /// them, too.
    Version(Version),
}

/// On whose word a release may be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The publisher's: an index of the feed, its bytes and who signed them.
    Index(Evidence),
    /// The machine's administrator's: a package of the system.
    Package,
}

/// A release that may be installed here. It can only be had from [`Trusted::choose`] and [`crate::package`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    entry: ReleaseDocument,
    artifact: Artifact,
    origin: Origin,
}

impl Choice {
    pub(crate) fn new(entry: &ReleaseDocument, artifact: &Artifact, origin: Origin) -> Choice {
        Choice { entry: entry.clone(), artifact: artifact.clone(), origin }
    }

    /// Its name and the hash of the bytes that will run.
    pub fn release(&self) -> Release {
        Release { version: self.entry.release.clone(), sha256: self.artifact.raw_sha256 }
    }

    /// Its place in the order.
    pub fn counter(&self) -> u64 {
        self.entry.counter
    }

    /// Whether it should not wait for a maintenance window nor, where what runs is forbidden, for its turn.
    pub fn urgent(&self) -> bool {
        self.entry.urgent
    }

    /// Versions of the contract that it speaks.
    pub fn contract(&self) -> Range {
        self.entry.contract
    }

    /// Versions of the protocol between nodes that it speaks.
    pub fn protocol(&self) -> Range {
        self.entry.protocol
    }

    /// Versions of the logical state stream that it reads and writes.
    pub fn state(&self) -> StateRange {
        self.entry.state
    }

    /// The blob: where it lies, how large it is, what is in it.
    pub fn artifact(&self) -> &Artifact {
        &self.artifact
    }

    /// Who said so.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

/// Why nothing is chosen. What runs goes on running in each of these cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// No index was ever fetched.
    NoIndex(Channel),
    /// What was verified may not be used at this moment: it is expired, or the clock is wrong.
    Stale(Refused),
    /// The publisher has paused the channel.
    Paused(Channel),
    /// The root asks for a gate that this supervisor cannot check.
    Gate(&'static str),
    /// The root asks for independent builders, and not enough of them have built this.
    Unattested {
        /// Which one.
        version: Version,
        /// What is missing.
        why: Unattested,
    },
    /// The channel has nothing newer.
    NothingNewer {
        /// What runs, if anything does.
        running: Option<Version>,
        /// Which channel.
        channel: Channel,
    },
    /// No package has anything newer.
    NothingDeclared {
        /// What runs, if anything does.
        running: Option<Version>,
    },
    /// That one runs already.
    Running(Version),
    /// The channel has no such release.
    Unknown {
        /// What was asked for.
        version: Version,
        /// Which channel.
        channel: Channel,
        /// What it has, the newest first, at most eight.
        has: Vec<Version>,
    },
    /// No package has such a release.
    Undeclared {
        /// What was asked for.
        version: Version,
        /// What packages have, the newest first, at most eight.
        has: Vec<Version>,
    },
    /// Older than what runs. Going back is `bumpless rollback`, which has rules of its own.
    Older {
        /// What was asked for.
        version: Version,
        /// What runs.
        running: Version,
    },
    /// The publisher has withdrawn it.
    Forbidden(Version, Forbidden),
    /// The machine's administrator lets no such version onto it.
    Pinned {
        /// Which one.
        version: Version,
        /// What may come.
        pin: Pin,
    },
    /// It failed here.
    Quarantined {
        /// Which one.
        version: Version,
        /// How it failed.
        reason: String,
    },
    /// It has nothing for this machine.
    Target {
        /// Which one.
        version: Version,
        /// What runs here.
        wanted: Vec<String>,
        /// What it has.
        has: Vec<String>,
    },
    /// It needs a newer supervisor.
    Supervisor {
        /// Which one.
        version: Version,
        /// The lowest that can run it.
        needs: [u32; 3],
        /// What runs.
        is: [u32; 3],
    },
    /// It and this supervisor have no version of the contract in common.
    Contract {
        /// Which one.
        version: Version,
        /// What it speaks.
        its: Range,
        /// What the supervisor speaks.
        ours: Range,
    },
    /// The network no longer speaks what it speaks.
    Protocol {
        /// Which one.
        version: Version,
        /// What it speaks.
        its: Range,
        /// The lowest that the network speaks.
        min: u16,
    },
    /// It reads no version in which the release that runs could hand its state over.
    State {
        /// Which one.
        version: Version,
        /// What it reads.
        reads: StateRange,
        /// What the release that runs reads and writes.
        serving: StateRange,
    },
    /// Its rollout has not reached this machine.
    NotYet {
        /// Which one.
        version: Version,
        /// When it will, if its stages say so.
        at: Option<u64>,
        /// This machine's place, 0 to 999.
        bucket: u16,
    },
    /// Its rollout is for canaries and for machines of another group.
    OtherGroup {
        /// Which one.
        version: Version,
        /// This machine's.
        ours: Option<Group>,
    },
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dotted = |[major, minor, patch]: &[u32; 3]| format!("{major}.{minor}.{patch}");
        match self {
            WhyNot::NoIndex(channel) => write!(f, "no index of channel {channel} was fetched yet"),
            WhyNot::Stale(why) => why.fmt(f),
            WhyNot::Paused(channel) => write!(f, "the publisher has paused channel {channel}"),
            WhyNot::Gate(what) => write!(
                f,
                "this network's root requires {what}, which this supervisor cannot check; upgrade the supervisor"
            ),
            WhyNot::Unattested { version, why } => {
                write!(f, "{version} needs independent builders who agree: {why}")
            }
            WhyNot::NothingNewer { running: Some(running), channel } => {
                write!(f, "nothing newer than {running} on channel {channel}")
            }
            WhyNot::NothingNewer { running: None, channel } => write!(f, "channel {channel} has no release"),
            WhyNot::NothingDeclared { running: Some(running) } => {
                write!(f, "no package declares anything newer than {running}")
            }
            WhyNot::NothingDeclared { running: None } => f.write_str("no package declares a release"),
            WhyNot::Running(version) => write!(f, "{version} runs already"),
            WhyNot::Unknown { version, channel, has } => {
                write!(f, "channel {channel} has no release {version}; it has {}", list(has))
            }
            WhyNot::Undeclared { version, has } => {
                write!(f, "no package declares {version}; there is {}", list(has))
            }
            WhyNot::Older { version, running } => {
                write!(
                    f,
                    "{version} is older than {running}, which runs; `bumpless rollback` goes back to the previous one"
                )
            }
            WhyNot::Forbidden(version, why) => write!(f, "{version} {why}"),
            WhyNot::Pinned { version, pin } => write!(
                f,
                "{version} is outside of this machine's pin {pin}; to let it in, change rollout.pin in config.toml and restart the supervisor"
            ),
            WhyNot::Quarantined { version, reason } => write!(f, "{version} is quarantined here: {reason}"),
            WhyNot::Target { version, wanted, has } => {
                write!(
                    f,
                    "{version} has no artifact for this machine ({}); it has {}",
                    list(wanted),
                    list(has)
                )
            }
            WhyNot::Supervisor { version, needs, is } => {
                write!(
                    f,
                    "{version} needs supervisor {} or newer, this is {}; upgrade bumplessd first",
                    dotted(needs),
                    dotted(is)
                )
            }
            WhyNot::Contract { version, its, ours } => write!(
                f,
                "{version} speaks versions {its} of the contract with the supervisor, this supervisor {ours}; upgrade bumplessd first"
            ),
            WhyNot::Protocol { version, its, min } => write!(
                f,
                "{version} speaks versions {its} of the protocol between nodes; the network needs {min} or higher and none that is revoked"
            ),
            WhyNot::State { version, reads, serving } => write!(
                f,
                "{version} reads state versions {reads}, and what runs here writes {} to {}; take a release between the two first",
                serving.read_min, serving.write
            ),
            WhyNot::NotYet { version, at: Some(at), bucket } => {
                write!(f, "{version} is not eligible before {} (bucket {bucket} of its rollout)", Utc(*at))
            }
            WhyNot::NotYet { version, at: None, bucket } => write!(
                f,
                "{version} is not rolled out to this machine yet (bucket {bucket}); the publisher has not scheduled the stage that reaches it"
            ),
            WhyNot::OtherGroup { version, ours: Some(ours) } => {
                write!(f, "{version} is rolled out to other groups of machines than {ours}")
            }
            WhyNot::OtherGroup { version, ours: None } => write!(
                f,
                "{version} is rolled out to certain groups of machines, and this one belongs to none; rollout.group puts it into one"
            ),
        }
    }
}

impl std::error::Error for WhyNot {}

fn list<T: fmt::Display>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// A release must not be started, whoever asks for it: neither installed nor gone back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// Its hash is revoked.
    Revoked,
    /// Its counter is below the floor.
    BelowFloor {
        /// Its counter.
        counter: u64,
        /// The lowest allowed.
        floor: u64,
    },
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Forbidden::Revoked => f.write_str("is revoked by the publisher"),
            Forbidden::BelowFloor { counter, floor } => {
                write!(
                    f,
                    "(number {counter}) is older than the oldest that the publisher still allows (number {floor})"
                )
            }
        }
    }
}

/// A machine's place in one release's rollout: 0 to 999, the same at every restart.
pub fn bucket(rollout: &Rollout, id: &Digest) -> u16 {
    let mut hash = Sha256::new();
    hash.update((rollout.salt.len() as u64).to_be_bytes());
    hash.update(&rollout.salt);
    hash.update(id.0);
    let hash: [u8; 32] = hash.finalize().into();
    let (first, _) = hash.split_at(8);
    // 2⁶⁴ is so large against 1000 that the remainder prefers no bucket measurably.
    (first.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte)) % 1000) as u16
}

/// From when on a machine with this bucket and group may take the release; nothing if no stage reaches it.
pub fn eligible_at(rollout: &Rollout, bucket: u16, group: Option<&Group>) -> Option<u64> {
    if is_canary(rollout, group) {
        return Some(rollout.start);
    }
    if !is_for(rollout, group) {
        return None;
    }
    let stage = rollout.stages.iter().find(|stage| bucket < stage.permille)?;
    Some(rollout.start.saturating_add(stage.after))
}

fn is_canary(rollout: &Rollout, group: Option<&Group>) -> bool {
    group.is_some_and(|group| rollout.canaries.contains(group))
}

/// Whether the rollout's stages count for a machine of this group.
fn is_for(rollout: &Rollout, group: Option<&Group>) -> bool {
    rollout.group.is_none() || rollout.group.as_ref() == group
}

impl Trusted {
    /// Whether the newest verified index forbids a release. Without an index nothing is known to be forbidden.
    pub fn forbids(&self, sha256: &Digest, counter: u64) -> Option<Forbidden> {
        forbids(self.index()?, sha256, counter)
    }

    /// Chooses at `now` (unix seconds). `quarantined` says why a hash failed here, if it did; `built` as in
    /// [`crate::Refresh::begin`]. Every expiry counts.
    ///
    /// # Errors
    /// Why nothing is chosen. For [`Request::Newest`] and [`Request::Urgent`], where something newer exists, the
    /// reason is about the newest release among those that are meant and that the pin admits.
    pub fn choose(
        &self,
        machine: &Machine,
        running: Option<Running<'_>>,
        request: &Request,
        quarantined: impl Fn(&Digest) -> Option<String>,
        now: u64,
        built: u64,
    ) -> Result<Choice, WhyNot> {
        self.choose_at(machine, running, request, quarantined, At::new(now, built))
    }

    /// The same where expiry may be waived: after a refresh at the same moment.
    ///
    /// # Errors
    /// As [`Trusted::choose`].
    pub fn choose_at(
        &self,
        machine: &Machine,
        running: Option<Running<'_>>,
        request: &Request,
        quarantined: impl Fn(&Digest) -> Option<String>,
        at: At,
    ) -> Result<Choice, WhyNot> {
        match request {
            Request::Newest | Request::Urgent => {
                self.outlook_at(machine, running, request, quarantined, at)?.chosen
            }
            Request::Version(version) => {
                let (timestamp, index) = self.newest()?;
                self.gate(timestamp, &index.document, at)?;
                self.named(version, index, machine, running, &quarantined)
            }
        }
    }

    /// What was verified last.
    pub(crate) fn newest(&self) -> Result<(&TimestampDocument, &Held<IndexDocument>), WhyNot> {
        let both = self.timestamp().zip(self.index.as_ref());
        both.ok_or_else(|| WhyNot::NoIndex(self.channel.clone()))
    }

    /// Whether anything at all may be chosen at this moment.
    pub(crate) fn gate(
        &self,
        timestamp: &TimestampDocument,
        index: &IndexDocument,
        at: At,
    ) -> Result<(), WhyNot> {
        self.check_clock(at.now, at.built)
            .and_then(|()| at.not_expired(Role::Root, self.root().expires()))
            .and_then(|()| at.not_expired(Role::Timestamp, timestamp.expires))
            .and_then(|()| at.not_expired(Role::Release, index.expires))
            .map_err(WhyNot::Stale)?;
        if timestamp.index.version != index.version {
            // A newer index is named, and could not be fetched: what is here may lack a revocation.
            return Err(WhyNot::Stale(Refused::Missing(
                crate::Want::Index(timestamp.index),
                self.channel.clone(),
            )));
        }
        match self.root().elders() {
            Elders::Off => {}
            Elders::Required => return Err(WhyNot::Gate("the elders' agreement")),
        }
        if index.paused { Err(WhyNot::Paused(self.channel.clone())) } else { Ok(()) }
    }

    /// What an operator gets who names a version.
    pub(crate) fn named(
        &self,
        version: &Version,
        index: &Held<IndexDocument>,
        machine: &Machine,
        running: Option<Running<'_>>,
        quarantined: impl Fn(&Digest) -> Option<String>,
    ) -> Result<Choice, WhyNot> {
        let Some(entry) = index.document.releases.iter().find(|entry| entry.release == *version) else {
            return Err(self.unknown(version, &index.document));
        };
        match standing(entry, running) {
            Standing::Newer | Standing::Beside => {}
            Standing::Runs => return Err(WhyNot::Running(version.clone())),
            Standing::Older { running } => return Err(WhyNot::Older { version: version.clone(), running }),
        }
        admitted(entry, machine).and_then(|()| self.fits(entry, index, machine, quarantined))
    }

    /// What a machine takes of a release without anybody's word.
    pub(crate) fn unasked(
        &self,
        entry: &ReleaseDocument,
        index: &Held<IndexDocument>,
        machine: &Machine,
        running: Option<Running<'_>>,
        quarantined: impl Fn(&Digest) -> Option<String>,
        now: u64,
    ) -> Result<Choice, WhyNot> {
        let version = || entry.release.clone();
        match standing(entry, running) {
            Standing::Newer => {}
            Standing::Beside => return Err(self.nothing_newer(running)),
            Standing::Runs => return Err(WhyNot::Running(version())),
            Standing::Older { running } => return Err(WhyNot::Older { version: version(), running }),
        }
        let withdrawn = withdrawn(&index.document, running);
        admitted(entry, machine)
            .and_then(|()| reached(entry, machine, withdrawn.as_ref(), now))
            .and_then(|()| self.fits(entry, index, machine, quarantined))
    }

    pub(crate) fn nothing_newer(&self, running: Option<Running<'_>>) -> WhyNot {
        let running = running.map(|running| running.release.version.clone());
        WhyNot::NothingNewer { running, channel: self.channel.clone() }
    }

    fn fits(
        &self,
        entry: &ReleaseDocument,
        index: &Held<IndexDocument>,
        machine: &Machine,
        quarantined: impl Fn(&Digest) -> Option<String>,
    ) -> Result<Choice, WhyNot> {
        let Held { document: index, evidence, .. } = index;
        let artifact = suited(entry, Some(index), machine, quarantined)?;
        let unattested = |why| WhyNot::Unattested { version: entry.release.clone(), why };
        self.attested(entry, artifact).map_err(unattested)?;
        Ok(Choice::new(entry, artifact, Origin::Index(evidence.clone())))
    }

    /// The builders' gate; open where the root names none.
    fn attested(&self, entry: &ReleaseDocument, artifact: &Artifact) -> Result<(), Unattested> {
        if self.root().builders().is_none() {
            return Ok(());
        }
        let name = entry.build.sums_sha256.ok_or(Unattested::Unnamed)?;
        let build = self.builds.get(&name).ok_or(Unattested::Unknown(name))?;
        if build.is_about(entry, artifact) { Ok(()) } else { Err(Unattested::Other(name)) }
    }

    fn unknown(&self, version: &Version, index: &IndexDocument) -> WhyNot {
        let mut entries: Vec<_> = index.releases.iter().collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.counter));
        let has = entries.iter().take(8).map(|entry| entry.release.clone()).collect();
        WhyNot::Unknown { version: version.clone(), channel: self.channel.clone(), has }
    }
}

/// What a release has for this machine, whoever offers it; or why it cannot run here. What the newest verified
/// index forbids counts where there is one.
pub(crate) fn suited<'a>(
    entry: &'a ReleaseDocument,
    index: Option<&IndexDocument>,
    machine: &Machine,
    quarantined: impl Fn(&Digest) -> Option<String>,
) -> Result<&'a Artifact, WhyNot> {
    let version = entry.release.clone();
    let workers = || entry.artifacts.iter().filter(|artifact| artifact.kind == Kind::Worker);
    let artifact =
        machine.targets.iter().find_map(|target| workers().find(|artifact| artifact.target == *target));
    let Some(artifact) = artifact else {
        let has = workers().map(|artifact| artifact.target.clone()).collect();
        return Err(WhyNot::Target { version, wanted: machine.targets.clone(), has });
    };
    if let Some(why) = index.and_then(|index| forbids(index, &artifact.raw_sha256, entry.counter)) {
        return Err(WhyNot::Forbidden(version, why));
    }
    if let Some(reason) = quarantined(&artifact.raw_sha256) {
        return Err(WhyNot::Quarantined { version, reason });
    }
    if machine.supervisor < entry.min_supervisor {
        return Err(WhyNot::Supervisor { version, needs: entry.min_supervisor, is: machine.supervisor });
    }
    if machine.contract.common(entry.contract).is_err() {
        return Err(WhyNot::Contract { version, its: entry.contract, ours: machine.contract });
    }
    if let Some(index) = index {
        let spoken = |number: u16| number >= index.protocol_min && !index.protocol_revoked.contains(&number);
        if !(entry.protocol.min..=entry.protocol.max).any(spoken) {
            return Err(WhyNot::Protocol { version, its: entry.protocol, min: index.protocol_min });
        }
    }
    if let Some(serving) = machine.state
        && !entry.state.reads(&serving)
    {
        return Err(WhyNot::State { version, reads: entry.state, serving });
    }
    Ok(artifact)
}

/// Where a release stands beside the one that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It comes after it, or nothing runs.
    Newer,
    /// It is the one.
    Runs,
    /// It has the same place in the order and other bytes.
    Beside,
    /// It comes before it.
    Older {
        /// What runs.
        running: Version,
    },
}

pub(crate) fn standing(entry: &ReleaseDocument, running: Option<Running<'_>>) -> Standing {
    let Some(running) = running else { return Standing::Newer };
    if entry.artifacts.iter().any(|artifact| artifact.raw_sha256 == running.release.sha256) {
        return Standing::Runs;
    }
    match entry.counter.cmp(&running.counter) {
        Ordering::Greater => Standing::Newer,
        Ordering::Equal => Standing::Beside,
        Ordering::Less => Standing::Older { running: running.release.version.clone() },
    }
}

/// The machine's pin.
pub(crate) fn admitted(entry: &ReleaseDocument, machine: &Machine) -> Result<(), WhyNot> {
    match &machine.pin {
        Some(pin) if !pin.admits(&entry.release) => {
            Err(WhyNot::Pinned { version: entry.release.clone(), pin: pin.clone() })
        }
        Some(_) | None => Ok(()),
    }
}

fn forbids(index: &IndexDocument, sha256: &Digest, counter: u64) -> Option<Forbidden> {
    let floor = index.min_release_counter;
    if index.revoked.contains(sha256) {
        Some(Forbidden::Revoked)
    } else if counter < floor {
        Some(Forbidden::BelowFloor { counter, floor })
    } else {
        None
    }
}

/// Whether the rollout has reached this machine. Where what runs is forbidden (`withdrawn`), an urgent
/// release does not wait for this machine's turn once its rollout has begun; but one has to be scheduled.
fn reached(
    entry: &ReleaseDocument,
    machine: &Machine,
    withdrawn: Option<&Forbidden>,
    now: u64,
) -> Result<(), WhyNot> {
    let (rollout, version) = (&entry.rollout, entry.release.clone());
    match turn(entry, machine, withdrawn) {
        Some(at) if at <= now => Ok(()),
        None if !is_for(rollout, machine.group.as_ref()) => {
            Err(WhyNot::OtherGroup { version, ours: machine.group.clone() })
        }
        at => Err(WhyNot::NotYet { version, at, bucket: bucket(rollout, &machine.id) }),
    }
}

/// From when on this machine takes the release without anybody's word; nothing if no stage reaches it.
pub(crate) fn turn(entry: &ReleaseDocument, machine: &Machine, withdrawn: Option<&Forbidden>) -> Option<u64> {
    let rollout = &entry.rollout;
    let at = eligible_at(rollout, bucket(rollout, &machine.id), machine.group.as_ref())?;
    Some(if entry.urgent && withdrawn.is_some() { rollout.start } else { at })
}

/// Why what runs must not run, if that is so.
pub(crate) fn withdrawn(index: &IndexDocument, running: Option<Running<'_>>) -> Option<Forbidden> {
    let Running { release, counter } = running?;
    forbids(index, &release.sha256, counter)
}
