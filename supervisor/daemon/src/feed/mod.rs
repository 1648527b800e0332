//! Releases from the feed: what is new, which one fits, and its bytes.
//!
//! ```text
//!   Feed ── refresh ──▶ bumpless_trust::Refresh says what to fetch next
//!     │                   ├ fetcher: bumpless-fetch as a child, into an unnamed file   (https)
//!     │                   ├ folder: the same names below a path                        (USB stick, mirror)
//!     │                   └ store: verified bytes into trust/, durable before the next
//!     ├─ choose ──▶ a Choice, or why not
//!     └─ fetch ───▶ room first, then the blob into staging/, from where an earlier try stopped; hashed as a
//!                   whole: a Staged
//! ```
//!
//! Nothing here is believed before it is verified, and nothing that fails here touches what runs: every
//! error ends this look at the feed and leaves the last verified state in force. A place that does not
//! answer, or answers wrongly, is followed by the next one in the configuration; what was verified from
//! the first stays verified.

mod error;
#[path = "../../../fetcher/src/exit.rs"]
#[allow(dead_code)]
mod exit;
mod fetcher;
mod folder;
mod partial;
pub mod proxy;
mod staged;
mod store;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bumpless_trust::document::{Artifact, Channel, MAX_SIGNATURES};
use bumpless_trust::refresh::Signed;
use bumpless_trust::{Answer, Choice, Damage, Keep, Machine, Refresh, Request, Running, Trusted, WhyNot};

pub use error::{FeedError, Trouble};
pub use exit::Exit;
pub use fetcher::Limits;
pub use staged::Staged;

use fetcher::Fetcher;
use partial::Partial;
use proxy::Proxy;
use store::Store;

/// A moment that is certainly past (2026-08-01): this source is younger. A clock before it is wrong.
pub const WRITTEN: u64 = 1_785_542_400;

/// A round over all places that brought fewer bytes than this is not followed by another one.
const WORTH_A_ROUND: u64 = 64 * 1024;

/// Where releases come from and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Base addresses (`https://…`) or folders (absolute paths), tried in order.
    pub places: Vec<String>,
    /// The channel to follow.
    pub channel: Channel,
    /// The administrator's root file; needed until a root is kept.
    pub root: Option<PathBuf>,
    /// The fetcher; absent: `bumpless-fetch` beside this executable.
    pub fetcher: Option<PathBuf>,
    /// The user that it runs as, by name; absent: `bumpless-fetch` if this process is root and there is such
    /// a user, and otherwise its own.
    pub user: Option<String>,
    /// Certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Plain http to loopback addresses is allowed.
    pub allow_http_loopback: bool,
    /// The proxy that places with `https://` are reached through; absent: none, whatever the environment says.
    pub proxy: Option<Proxy>,
    /// For a connection to stand.
    pub connect_timeout: Duration,
    /// For one file of metadata.
    pub metadata_timeout: Duration,
    /// For a whole artifact.
    pub blob_timeout: Duration,
    /// Bytes per second below which a transfer is given up.
    pub min_rate: u64,
    /// Verified metadata is kept here.
    pub trust_dir: PathBuf,
    /// What is being fetched lies here, without a name; on the same file system as the releases.
    pub staging_dir: PathBuf,
}

/// The feed as this machine knows it. A clone is for a task that fetches while its owner goes on.
#[derive(Clone, Debug)]
pub struct Feed {
    settings: Settings,
    store: Store,
    trusted: Trusted,
}

/// What a refresh found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refreshed {
    /// The newest index.
    pub index_version: u64,
    /// Whether it was not known before.
    pub news: bool,
    /// The place that answered.
    pub place: String,
}

impl Feed {
    /// Verifies what is kept under `trust_dir` and takes up a newer root from the configuration. What was
    /// found damaged comes back with it: an alarm each, and it will be fetched again.
    ///
    /// # Errors
    /// There is no root, or what is kept cannot be read or brought in order.
    pub fn open(settings: Settings) -> Result<(Feed, Vec<Damage>), FeedError> {
        let store = Store::new(&settings.trust_dir);
        let anchor = settings.root.as_deref().map(store::anchor).transpose()?;
        let stored = store.load()?;
        let (trusted, keep, damage) =
            Trusted::load(anchor, stored, settings.channel.clone()).map_err(FeedError::Refused)?;
        keep.into_iter().try_for_each(|change| store.keep(change))?;
        Ok((Feed { settings, store, trusted }, damage))
    }

    /// What is verified at this moment.
    pub fn trusted(&self) -> &Trusted {
        &self.trusted
    }

    /// Looks for news, at `now` (unix seconds). Everything that it verifies is durable before it goes on;
    /// dropped half-way, it has lost nothing but time.
    ///
    /// # Errors
    /// What went wrong, at every place that was tried.
    pub async fn refresh(&mut self, now: u64) -> Result<Refreshed, FeedError> {
        let known = self.trusted.index().map(|index| index.version);
        let mut errors = Vec::new();
        for place in self.settings.places.clone() {
            match self.refresh_from(&place, now).await {
                Ok(()) => {
                    let index_version = self.trusted.index().map_or(0, |index| index.version);
                    return Ok(Refreshed { index_version, news: known != Some(index_version), place });
                }
                Err(error) => errors.push((place, error)),
            }
        }
        Err(FeedError::every(errors))
    }

    async fn refresh_from(&mut self, place: &str, now: u64) -> Result<(), FeedError> {
        let mut refresh = Refresh::begin(self.trusted.clone(), now, WRITTEN).map_err(FeedError::Refused)?;
        while let Some((name, limit)) = refresh.want().file() {
            let answer = match self.small(place, &name, limit).await? {
                None => Answer::Missing,
                Some(bytes) => {
                    let mut sigs = name.into_os_string();
                    sigs.push(".sigs");
                    let signatures = self.small(place, &PathBuf::from(sigs), MAX_SIGNATURES).await?;
                    Answer::Found(Signed { bytes, signatures: signatures.unwrap_or_default() })
                }
            };
            let keep = refresh.answer(answer).map_err(FeedError::Refused)?;
            self.keep(keep).await?;
            self.trusted = refresh.trusted().clone();
        }
        Ok(())
    }

    async fn keep(&self, changes: Vec<Keep>) -> Result<(), FeedError> {
        if changes.is_empty() {
            return Ok(());
        }
        let store = self.store.clone();
        staged::blocking(move || changes.into_iter().try_for_each(|change| store.keep(change))).await
    }

    /// One file of metadata; `None` if the place says that there is none.
    async fn small(&self, place: &str, name: &Path, limit: u64) -> Result<Option<Vec<u8>>, FeedError> {
        if place.starts_with('/') {
            let path = PathBuf::from(place).join(name);
            return staged::blocking(move || folder::read(&path, limit)).await;
        }
        let limits = self.limits(limit, self.settings.metadata_timeout);
        let file = staged::unnamed(&self.settings.staging_dir)?;
        let url = address(place, name);
        match self.fetcher().fetch(&url, &limits, &file, 0, &mut |_, _| {}).await {
            Ok(()) => staged::blocking(move || staged::read(file, limit)).await.map(Some),
            Err(FeedError::Fetch { exit: Exit::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Chooses a release from what is verified; see [`Trusted::choose`].
    ///
    /// # Errors
    /// Why nothing is chosen.
    pub fn choose(
        &self,
        machine: &Machine,
        running: Option<Running<'_>>,
        request: &Request,
        quarantined: impl Fn(&bumpless_shared::digest::Digest) -> Option<String>,
        now: u64,
    ) -> Result<Choice, WhyNot> {
        self.trusted.choose(machine, running, request, quarantined, now, WRITTEN)
    }

    /// Fetches a chosen release's blob and hashes it. `progress` gets bytes so far and in all. An
    /// interruption is gone on from at the next place, and in the next call; as long as every round over
    /// the places brings something, there is another one. Dropped half-way, the fetcher is killed, and what
    /// came so far is kept for the next call.
    ///
    /// # Errors
    /// There is no room for it (found out before anything is fetched), or what every place answered.
    pub async fn fetch(
        &self,
        choice: &Choice,
        mut progress: impl FnMut(u64, u64) + Send,
    ) -> Result<Staged, FeedError> {
        let artifact = choice.artifact();
        let dir = &self.settings.staging_dir;
        let partial = Partial::open(dir, artifact)?;
        let result = self.fetch_all(artifact, &partial, &mut progress).await;
        if result.is_ok() || partial.len()? == 0 {
            partial.unname()?;
        }
        result
    }

    async fn fetch_all(
        &self,
        artifact: &Artifact,
        partial: &Partial,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<Staged, FeedError> {
        room(&self.settings.staging_dir, artifact, partial.len()?)?;
        loop {
            let before = partial.len()?;
            let mut errors = Vec::new();
            for place in &self.settings.places {
                match self.fetch_from(place, artifact, partial, progress).await {
                    Ok(staged) => return Ok(staged),
                    Err(error) => errors.push((place.clone(), error)),
                }
            }
            if partial.len()? < before.saturating_add(WORTH_A_ROUND) {
                return Err(FeedError::every(errors));
            }
        }
    }

    async fn fetch_from(
        &self,
        place: &str,
        artifact: &Artifact,
        partial: &Partial,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<Staged, FeedError> {
        loop {
            let from = partial.len()?;
            progress(from, artifact.size);
            // All of it may be there already, if a supervisor was killed before it could look at it.
            if from < artifact.size {
                self.fetch_rest(place, artifact, partial, progress).await?;
            }
            match partial.verify(artifact).await {
                Ok(staged) => {
                    progress(artifact.size, artifact.size);
                    return Ok(staged);
                }
                Err(error) => {
                    partial.clear()?;
                    if from == 0 {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Appends what this place has behind what is there.
    async fn fetch_rest(
        &self,
        place: &str,
        artifact: &Artifact,
        partial: &Partial,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<(), FeedError> {
        let (mut file, from) = (partial.end()?, partial.len()?);
        if place.starts_with('/') {
            let (path, limit) = (PathBuf::from(place).join(artifact.path()), artifact.size);
            return staged::blocking(move || folder::copy(&path, from, limit, &mut file)).await;
        }
        let limits = self.limits(artifact.size, self.settings.blob_timeout);
        let url = address(place, &artifact.path());
        let mut report = |done: u64, _: Option<u64>| progress(done.min(artifact.size), artifact.size);
        self.fetcher().fetch(&url, &limits, &file, from, &mut report).await
    }

    fn limits(&self, max_bytes: u64, total_timeout: Duration) -> Limits {
        let Settings { connect_timeout, min_rate, .. } = self.settings;
        Limits { max_bytes, connect_timeout, total_timeout, min_rate }
    }

    fn fetcher(&self) -> Fetcher<'_> {
        Fetcher {
            program: self.settings.fetcher.as_deref(),
            user: self.settings.user.as_deref(),
            ca_file: self.settings.ca_file.as_deref(),
            allow_http_loopback: self.settings.allow_http_loopback,
            proxy: self.settings.proxy.as_ref(),
        }
    }
}

/// What is verified of what is kept under `trust_dir`, for a supervisor that has no feed or cannot open it;
/// nothing if no root was ever kept there. Nothing is changed.
///
/// # Errors
/// It cannot be read.
pub fn kept(trust_dir: &Path, channel: Channel) -> Result<Option<Trusted>, FeedError> {
    let stored = Store::new(trust_dir).load()?;
    if stored.roots.is_empty() {
        return Ok(None);
    }
    let (trusted, _, _) = Trusted::load(None, stored, channel).map_err(FeedError::Refused)?;
    Ok(Some(trusted))
}

/// Whether there is room in the staging folder for an artifact of which so many bytes are there.
fn room(dir: &Path, artifact: &Artifact, there: u64) -> Result<(), FeedError> {
    // Blob and unpacked artifact lie side by side for a moment.
    let needs = artifact.size.saturating_add(artifact.raw_size).saturating_sub(there);
    let has = bumpless_os::durable::free_bytes(dir)
        .map_err(|source| FeedError::Staging { path: dir.to_owned(), source })?;
    if has < needs { Err(FeedError::NoRoom { path: dir.to_owned(), needs, has }) } else { Ok(()) }
}

/// What a fetch into this staging folder would say of the room there; changes nothing.
///
/// # Errors
/// There is too little, or nobody can tell.
pub fn has_room(dir: &Path, artifact: &Artifact) -> Result<(), FeedError> {
    room(dir, artifact, partial::there(dir, artifact))
}

/// Names come from this program and from hashes and numbers in verified files, so nothing needs escaping.
fn address(place: &str, name: &Path) -> String {
    format!("{}/{}", place.trim_end_matches('/'), name.display())
}
