//! Releases from the feed: what is new, which one fits, and its bytes.
//!
//! ```text
//!   Feed ── refresh ──▶ bumpless_trust::Refresh says what to fetch next
//!     │                   ├ fetcher: bumpless-fetch as a child, into an unnamed file   (https)
//!     │                   ├ folder: the same names below a path                        (USB stick, mirror)
//!     │                   └ store: verified bytes into trust/, durable before the next
//!     ├─ trusted ─▶ a Choice, or why not
//!     └─ fetch ───▶ room first, then the blob into staging/, from where an earlier try stopped; hashed as a
//!                   whole: a Staged
//! ```
//!
//! Nothing here is believed before it is verified, and nothing that fails here touches what runs: every
//! error ends this look at the feed and leaves the last verified state in force. A place that does not
//! answer, or answers wrongly, is followed by the next one in the configuration; what was verified from
//! the first stays verified.
//!
//! The first root is never believed because a feed has it ([`FirstRoot`]). It is needed while nothing is kept;
//! later it may be gone, with a [`Notice`]. [`Feed::reset`] begins anew with another one.

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

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bumpless_shared::digest::Digest;
use bumpless_trust::document::{Artifact, Channel, MAX_DOCUMENT, MAX_SIGNATURES, root_path};
use bumpless_trust::refresh::{Signed, sha256};
use bumpless_trust::{Answer, At, Choice, Damage, Expiry, Keep, Refresh, Refused, Stored, Trusted, Want};

pub use error::{FeedError, Trouble};
pub use exit::Exit;
pub use fetcher::{Limits, USER as FETCHER, lacks};
pub use staged::Staged;
pub(crate) use staged::unnamed;

use fetcher::Fetcher;
use partial::Partial;
use proxy::Proxy;
use store::{Reset, Store};

/// A moment that is certainly past (2026-08-01): this source is younger. A clock before it is wrong.
pub const WRITTEN: u64 = 1_785_542_400;

/// A round over all places that brought fewer bytes than this is not followed by another one.
const WORTH_A_ROUND: u64 = 64 * 1024;

/// Where packages of the system put the roots of networks, each as `<network>.json` with `<network>.json.sigs`.
const NETWORKS: &str = "/usr/share/bumpless/networks";

/// By what a machine knows the root that its trust begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstRoot {
    /// A file, with its `.sigs` beside it.
    File(PathBuf),
    /// The SHA-256 of the first root on the feed.
    Sha256(Digest),
    /// A file that came with the system's packages, and the network that it has to be of.
    Shipped(Digest, PathBuf),
}

impl FirstRoot {
    /// The root of this network that came with the system's packages.
    pub fn shipped(network: Digest) -> FirstRoot {
        FirstRoot::Shipped(network, Path::new(NETWORKS).join(format!("{network}.json")))
    }

    /// The networks whose roots came with the system's packages.
    pub fn networks() -> Vec<Digest> {
        let names =
            std::fs::read_dir(NETWORKS).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let network = |name: OsString| name.to_str()?.strip_suffix(".json")?.parse().ok();
        names.filter_map(network).collect()
    }

    fn file(&self) -> Option<&Path> {
        match self {
            FirstRoot::File(path) | FirstRoot::Shipped(_, path) => Some(path),
            FirstRoot::Sha256(_) => None,
        }
    }

    /// Whether a trust that stands can have begun here; a file is compared by [`Trusted::load`].
    fn agrees(&self, trusted: &Trusted) -> Result<(), FeedError> {
        let agrees = match self {
            FirstRoot::File(_) => true,
            // Later roots no longer show where they began.
            FirstRoot::Sha256(sha256) => {
                trusted.root().version() != 1 || trusted.root_fingerprint() == *sha256
            }
            FirstRoot::Shipped(network, _) => trusted.root().network() == *network,
        };
        if agrees { Ok(()) } else { Err(self.contradicts(trusted)) }
    }

    fn contradicts(&self, trusted: &Trusted) -> FeedError {
        FeedError::Contradiction { configured: self.to_string(), other: trusted.root_fingerprint() }
    }
}

impl fmt::Display for FirstRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FirstRoot::File(path) => write!(f, "feed.root = {:?}", path.display().to_string()),
            FirstRoot::Sha256(sha256) => write!(f, "feed.root_sha256 = \"{sha256}\""),
            FirstRoot::Shipped(network, _) => write!(f, "feed.network = \"{network}\""),
        }
    }
}

/// What happened when a feed was opened.
#[derive(Debug)]
pub enum Notice {
    /// Something was damaged, and something else is used: worth an alarm.
    Damage(Damage),
    /// The configured first root is not there, and not needed at present: worth an alarm.
    Anchor(FeedError),
    /// A reset that an earlier process had begun was done.
    Reset {
        /// User id of who had asked for it.
        by: u32,
        /// The version of the root that stands now.
        version: u64,
        /// Its SHA-256.
        sha256: Digest,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Damage(damage) => damage.fmt(f),
            Notice::Anchor(error) => {
                write!(
                    f,
                    "{error}. It is not needed as long as a root is kept on this machine, which goes on"
                )
            }
            Notice::Reset { version, sha256, .. } => {
                write!(f, "trust begins anew with root {version}, {sha256}")
            }
        }
    }
}

/// Where releases come from and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Base addresses (`https://…`) or folders (absolute paths), tried in order.
    pub places: Vec<String>,
    /// The channel to follow.
    pub channel: Channel,
    /// The first root; needed until a root is kept.
    pub root: Option<FirstRoot>,
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
    /// Does what a reset says that was begun, verifies what is kept under `trust_dir` and takes up a newer root
    /// from the configuration. What an operator should hear of comes back with it.
    ///
    /// # Errors
    /// There is no root that can be used, it contradicts the configuration, or what is kept cannot be read or
    /// brought in order.
    pub fn open(settings: Settings) -> Result<(Feed, Vec<Notice>), FeedError> {
        Feed::open_with(settings, None)
    }

    /// The same where the first root may still have to be fetched: from the places, and believed if its
    /// fingerprint is the configured one.
    ///
    /// # Errors
    /// As for [`Feed::open`]; and no place has that root.
    pub async fn establish(settings: Settings) -> Result<(Feed, Vec<Notice>), FeedError> {
        let expected = match (Feed::open(settings.clone()), &settings.root) {
            (Err(FeedError::Rootless(_)), Some(FirstRoot::Sha256(expected))) => *expected,
            (opened, _) => return opened,
        };
        let root = settings.first_root(expected).await?;
        Feed::open_with(settings, Some(root))
    }

    fn open_with(settings: Settings, fetched: Option<Signed>) -> Result<(Feed, Vec<Notice>), FeedError> {
        let store = Store::new(&settings.trust_dir, &settings.channel);
        let mut notices = Vec::new();
        if let Some(Reset { by, version, bytes, .. }) = store.finish_reset()? {
            notices.push(Notice::Reset { by, version, sha256: sha256(&bytes) });
        }
        let stored = store.load()?;
        let first = settings.root.as_ref();
        let anchor = match first.and_then(FirstRoot::file).map(store::anchor).transpose() {
            Err(error) if !stored.roots.is_empty() => {
                notices.push(Notice::Anchor(error));
                None
            }
            anchor => anchor?.or(fetched),
        };
        let may_be_fetched = anchor.is_none() && matches!(first, Some(FirstRoot::Sha256(_)));
        let refused = if may_be_fetched { FeedError::Rootless } else { FeedError::Refused };
        let (trusted, keep, damage) =
            Trusted::load(anchor, stored, settings.channel.clone()).map_err(refused)?;
        first.map_or(Ok(()), |first| first.agrees(&trusted))?;
        keep.into_iter().try_for_each(|change| store.keep(change))?;
        notices.extend(damage.into_iter().map(Notice::Damage));
        Ok((Feed { settings, store, trusted }, notices))
    }

    /// Writes down that everything which is kept is to be forgotten and trust to begin with the root in this
    /// file, whose own keys have to have signed it. The next [`Feed::open`] makes it so. Its version and
    /// SHA-256 come back. The feed must not be in use meanwhile.
    ///
    /// # Errors
    /// The root cannot be read or is refused, or the configuration would contradict it at the next start: the
    /// trust that stands, stands.
    pub fn reset(settings: &Settings, path: &Path, by: u32) -> Result<(u64, Digest), FeedError> {
        let root = store::anchor(path).map_err(|error| match error {
            FeedError::Root { path, source } => FeedError::NewRoot { path, source },
            other => other,
        })?;
        let load = |anchor: &Signed, roots: Vec<Signed>| {
            let stored = Stored { roots, ..Stored::default() };
            let loaded = Trusted::load(Some(anchor.clone()), stored, settings.channel.clone());
            loaded.map(|(trusted, _, _)| trusted)
        };
        let trusted = load(&root, Vec::new()).map_err(FeedError::Refused)?;
        if let Some(first) = &settings.root {
            first.agrees(&trusted)?;
            // A configured file that is not there, or damaged, contradicts nothing.
            if let Some(Ok(configured)) = first.file().map(store::anchor) {
                let stands = load(&configured, vec![root.clone()])
                    .is_ok_and(|later| later.root_fingerprint() == trusted.root_fingerprint());
                if !stands {
                    return Err(first.contradicts(&trusted));
                }
            }
        }
        let (version, sha256) = (trusted.root().version(), trusted.root_fingerprint());
        let Signed { bytes, signatures } = root;
        let store = Store::new(&settings.trust_dir, &settings.channel);
        store.begin_reset(&Reset { by, version, bytes, signatures })?;
        Ok((version, sha256))
    }

    /// The same feed at other places: what is verified there is not known here.
    pub fn at(&self, places: Vec<String>) -> Feed {
        let mut there = self.clone();
        there.settings.places = places;
        there
    }

    /// The root in force, as it is kept.
    ///
    /// # Errors
    /// It cannot be read, or is not there any more.
    pub fn root(&self) -> Result<Signed, FeedError> {
        let mut roots = self.store.load()?.roots.into_iter();
        let root = roots.find(|root| sha256(&root.bytes) == self.trusted.root_fingerprint());
        root.ok_or(FeedError::Refused(Refused::NoRoot))
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
        self.refresh_at(self.settings.places.clone(), now, Expiry::Counts).await
    }

    /// The same at other places than those of the configuration, for once.
    ///
    /// # Errors
    /// As for [`Feed::refresh`].
    pub async fn refresh_at(
        &mut self,
        places: Vec<String>,
        now: u64,
        expiry: Expiry,
    ) -> Result<Refreshed, FeedError> {
        let known = self.trusted.index().map(|index| index.version);
        let mut errors = Vec::new();
        for place in places {
            match self.refresh_from(&place, now, expiry).await {
                Ok(()) => {
                    let index_version = self.trusted.index().map_or(0, |index| index.version);
                    return Ok(Refreshed { index_version, news: known != Some(index_version), place });
                }
                Err(error) => errors.push((place, error)),
            }
        }
        Err(FeedError::every(errors))
    }

    async fn refresh_from(&mut self, place: &str, now: u64, expiry: Expiry) -> Result<(), FeedError> {
        let at = At { now, built: WRITTEN, expiry };
        let (from, store, trusted) = (self.trusted.clone(), &self.store, &mut self.trusted);
        let keep = async |changes: Vec<Keep>, verified: &Trusted| {
            if !changes.is_empty() {
                let store = store.clone();
                staged::blocking(move || changes.into_iter().try_for_each(|change| store.keep(change)))
                    .await?;
            }
            *trusted = verified.clone();
            Ok(())
        };
        self.settings.follow(from, place, at, keep).await
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
        let limits = self.settings.limits(artifact.size, self.settings.blob_timeout);
        let url = address(place, &artifact.path());
        let mut report = |done: u64, _: Option<u64>| progress(done.min(artifact.size), artifact.size);
        self.settings.fetcher().fetch(&url, &limits, &file, from, &mut report).await
    }
}

/// What a look into this place at `now` (unix seconds) would come to, from what is trusted now. Nothing is kept.
///
/// # Errors
/// As for [`Feed::refresh`].
pub async fn foresee(
    settings: &Settings,
    trusted: Trusted,
    place: &str,
    now: u64,
) -> Result<Trusted, FeedError> {
    let at = At { now, built: WRITTEN, expiry: Expiry::Counts };
    let mut foreseen = trusted.clone();
    let note = async |_: Vec<Keep>, verified: &Trusted| {
        foreseen = verified.clone();
        Ok(())
    };
    settings.follow(trusted, place, at, note).await?;
    Ok(foreseen)
}

impl Settings {
    /// Asks this place for one file after the other. Whatever is verified is given to `keep` before the next one.
    async fn follow(
        &self,
        from: Trusted,
        place: &str,
        at: At,
        mut keep: impl AsyncFnMut(Vec<Keep>, &Trusted) -> Result<(), FeedError>,
    ) -> Result<(), FeedError> {
        let mut refresh = Refresh::begin_at(from, at).map_err(FeedError::Refused)?;
        while let Some((name, limit)) = refresh.file() {
            let found = self.signed(place, name, limit).await?;
            let answer = found.map_or(Answer::Missing, Answer::Found);
            let changes = refresh.answer(answer).map_err(FeedError::Refused)?;
            keep(changes, refresh.trusted()).await?;
        }
        Ok(())
    }

    /// The first root, from whichever place has the one with this SHA-256.
    async fn first_root(&self, expected: Digest) -> Result<Signed, FeedError> {
        let mut errors = Vec::new();
        for place in &self.places {
            let found = match self.signed(place, root_path(1), MAX_DOCUMENT).await {
                Ok(Some(root)) => root,
                Ok(None) => {
                    let missing = Refused::Missing(Want::Root(1), self.channel.clone());
                    errors.push((place.clone(), FeedError::Refused(missing)));
                    continue;
                }
                Err(error) => {
                    errors.push((place.clone(), error));
                    continue;
                }
            };
            match sha256(&found.bytes) {
                hash if hash == expected => return Ok(found),
                found => errors.push((place.clone(), FeedError::Fingerprint { expected, found })),
            }
        }
        Err(FeedError::every(errors))
    }

    /// One file of metadata with its signatures; `None` if the place says that there is none.
    async fn signed(&self, place: &str, name: PathBuf, limit: u64) -> Result<Option<Signed>, FeedError> {
        let Some(bytes) = self.small(place, &name, limit).await? else { return Ok(None) };
        let mut sigs = name.into_os_string();
        sigs.push(".sigs");
        let signatures = self.small(place, Path::new(&sigs), MAX_SIGNATURES).await?;
        Ok(Some(Signed { bytes, signatures: signatures.unwrap_or_default() }))
    }

    /// One small file; `None` if the place says that there is none.
    async fn small(&self, place: &str, name: &Path, limit: u64) -> Result<Option<Vec<u8>>, FeedError> {
        if place.starts_with('/') {
            let (place, name) = (PathBuf::from(place), name.to_owned());
            return staged::blocking(move || folder::read(&place, &name, limit)).await;
        }
        let limits = self.limits(limit, self.metadata_timeout);
        let file = staged::unnamed(&self.staging_dir)?;
        let url = address(place, name);
        match self.fetcher().fetch(&url, &limits, &file, 0, &mut |_, _| {}).await {
            Ok(()) => staged::blocking(move || staged::read(file, limit)).await.map(Some),
            Err(FeedError::Fetch { exit: Exit::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn limits(&self, max_bytes: u64, total_timeout: Duration) -> Limits {
        let Settings { connect_timeout, min_rate, .. } = *self;
        Limits { max_bytes, connect_timeout, total_timeout, min_rate }
    }

    fn fetcher(&self) -> Fetcher<'_> {
        Fetcher {
            program: self.fetcher.as_deref(),
            user: self.user.as_deref(),
            ca_file: self.ca_file.as_deref(),
            allow_http_loopback: self.allow_http_loopback,
            proxy: self.proxy.as_ref(),
        }
    }
}

/// What is verified of what is kept under `trust_dir`, for a supervisor that has no feed or cannot open it;
/// nothing if no root was ever kept there. Nothing is changed.
///
/// # Errors
/// It cannot be read.
pub fn kept(trust_dir: &Path, channel: Channel) -> Result<Option<Trusted>, FeedError> {
    let store = Store::new(trust_dir, &channel);
    if store.is_resetting()? {
        return Err(FeedError::Unfinished);
    }
    let stored = store.load()?;
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
