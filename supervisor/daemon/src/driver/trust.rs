//! What an operator has to say about trust: a folder as the feed for one upgrade, a new beginning, and the
//! question what is trusted.
//!
//! ```text
//!   upgrade --from DIR ──▶ (history, if stale media are accepted) ──▶ the feed looks into DIR ──▶ chosen, begun
//!   trust reset        ──▶ root and configuration checked ──▶ written down ──▶ history ──▶ the feed is opened anew
//! ```
//!
//! A folder is as little trusted as any server: it brings bytes, and what is verified of them is kept as ever.
//! Where root says that stale media are accepted, that stands in the history before anything of them is read,
//! and it holds for this look and for the choice after it, never for what the supervisor does by itself.
//!
//! What can go wrong: the folder has nothing that is believed (the operator is told, and of what should not
//! exist there is an alarm), the feed is away (a folder waits its turn, a reset is refused), an upgrade is under
//! way (refused). A reset that cannot be finished is finished as soon as the feed can be opened again.

use std::path::Path;
use std::time::Instant;

use bumpless_control::history::{Entry, Event as Happening};
use bumpless_control::reply::{Answer, Outcome};
use bumpless_control::trust::{Kept, RootShown, Signers, Trust};
use bumpless_shared::digest::Digest;
use bumpless_shared::release::Version;
use bumpless_trust::keys::{Key, Keys};
use bumpless_trust::{Expiry, Request as Wanted, Role, Trusted};

use super::{Driver, Fed, FeedState};
use crate::bans::Bans;
use crate::control_socket::Replies;
use crate::effects::unix_now;
use crate::feed::{self, Feed, FeedError, Notice, Trouble};
use crate::ledger::Ledger;
use crate::upgrade::{Ask, Event};

/// `bumpless upgrade --from DIR`.
#[derive(Debug)]
pub struct FromFolder {
    pub(super) folder: String,
    pub(super) version: Option<Version>,
    pub(super) wait: bool,
    pub(super) rehearse: bool,
    /// Why expiry does not count, where it does not.
    pub(super) accept_stale: Option<String>,
    pub(super) uid: u32,
    pub(super) replies: Replies,
}

impl FromFolder {
    fn expiry(&self) -> Expiry {
        match self.accept_stale {
            Some(_) => Expiry::Waived,
            None => Expiry::Counts,
        }
    }
}

/// Passes on what an operator should hear of the opening of a feed.
pub(crate) fn tell(notices: Vec<Notice>, ledger: &mut Ledger) {
    for notice in notices {
        match &notice {
            Notice::Damage(_) | Notice::Anchor(_) => ledger.alarm(notice.to_string(), unix_now()),
            Notice::Reset { by, .. } => ledger.append(&begun_anew(*by, notice.to_string())),
        }
    }
}

fn begun_anew(by: u32, reason: String) -> Entry {
    Entry { actor: Some(by), reason: Some(reason), ..Entry::new(unix_now(), Happening::TrustReset) }
}

impl Driver {
    /// The feed goes away.
    pub(super) fn leaves(&mut self, feed: &Feed) {
        self.away = true;
        self.left = Some(Box::new(feed.trusted().clone()));
    }

    /// It comes home, or could not be opened.
    pub(super) fn comes_home(&mut self) {
        self.away = false;
        self.left = None;
    }

    pub(super) fn ask_folder(&mut self, asked: FromFolder) {
        if let Err(reason) = absolute(&asked.folder) {
            return asked.replies.finish(Outcome::Refused { reason });
        }
        self.folders.push_back(asked);
        self.errand();
    }

    /// Looks into the next folder, if there is one and nothing stands in the way.
    pub(super) fn next_folder(&mut self) {
        while let Some(asked) = self.folders.pop_front() {
            if let Some(reason) = self.busy().or_else(|| self.held()) {
                asked.replies.finish(Outcome::Refused { reason });
                continue;
            }
            let Some(settings) = self.settings.clone() else {
                let reason = self.feed_state.error.clone().unwrap_or_default();
                asked.replies.finish(Outcome::Failed { reason });
                continue;
            };
            return self.look_into(asked, settings);
        }
    }

    fn look_into(&mut self, asked: FromFolder, settings: feed::Settings) {
        if let Some(reason) = &asked.accept_stale {
            let reason = Some(format!("{}: {reason}", asked.folder));
            let entry = Entry::new(unix_now(), Happening::StaleAccepted);
            self.ledger.append(&Entry { actor: Some(asked.uid), reason, ..entry });
        }
        let (fed, feed, expiry) = (self.fed.clone(), self.feed.take(), asked.expiry());
        match &feed {
            Some(feed) => self.leaves(feed),
            None => self.away = true,
        }
        tokio::task::spawn_local(async move {
            let here = vec![asked.folder.clone()];
            let opened = match feed {
                Some(feed) => Ok((feed, Vec::new())),
                // The first root may be known by its fingerprint alone, and lie in the folder.
                None => {
                    let there = feed::Settings { places: here.clone(), ..settings.clone() };
                    let opened = Feed::establish(there).await;
                    opened.map(|(feed, notices)| (Box::new(feed.at(settings.places)), notices))
                }
            };
            let sent = match opened {
                Ok((mut feed, notices)) => {
                    let result = feed.refresh_at(here, unix_now(), expiry).await.map(|_| ());
                    Fed::Folder(Some((feed, notices)), Box::new(asked), result)
                }
                Err(error) => Fed::Folder(None, Box::new(asked), Err(error)),
            };
            let _ = fed.send(sent);
        });
    }

    /// A look into a folder has ended: decides, for the operator who waits.
    pub(super) fn looked_into(&mut self, asked: FromFolder, result: Result<(), FeedError>) {
        let (expiry, now) = (asked.expiry(), unix_now());
        let FromFolder { folder, version, wait, rehearse, uid, replies, accept_stale: _ } = asked;
        // A folder may bring a revocation, too, and may be fresher than what was verified before.
        self.reckon();
        self.feed_in([Event::Asked(Ask::Reconsider)].into());
        if self.expiry().is_some_and(|(_, at)| now < at) {
            self.watch_expiry(now);
        }
        if let Err(error) = result {
            return replies.finish(self.not_believed(&error));
        }
        if let Some(reason) = self.busy() {
            return replies.finish(Outcome::Refused { reason });
        }
        let wanted = version.map_or(Wanted::Newest, Wanted::Version);
        match self.choose_offered(&wanted, expiry) {
            Err(reason) if wanted == Wanted::Newest || self.runs(&wanted) => {
                replies.finish(Outcome::NothingToDo { reason });
            }
            Err(reason) => replies.finish(Outcome::Refused { reason }),
            Ok(choice) => {
                let started = self.moving(&choice.release());
                self.wait_or_answer(replies, wait, started, false);
                self.folder = Some(folder);
                self.begin(choice, Some(uid), rehearse);
            }
        }
    }

    fn not_believed(&mut self, error: &FeedError) -> Outcome {
        let reason = error.to_string();
        match error.trouble() {
            Trouble::Expired => {
                let reason = format!("{reason}. Root may accept it as it is: --accept-stale --reason TEXT");
                Outcome::Refused { reason }
            }
            Trouble::Refused => {
                self.ledger.alarm(reason.clone(), unix_now());
                Outcome::Refused { reason }
            }
            Trouble::Unreachable | Trouble::Local => Outcome::Failed { reason },
        }
    }

    pub(super) fn show_trust(&self, replies: Replies) {
        replies.finish(match self.trusted() {
            Ok(trusted) => Outcome::Done { answer: Answer::Trust(Box::new(shown(trusted))) },
            Err(reason) => Outcome::Failed { reason },
        });
    }

    /// Begins anew with another root. Everything here is written before anybody is told.
    pub(super) fn reset_trust(&mut self, root: &str, uid: u32, replies: Replies) {
        let under_way = self.state.attempt().map(|attempt| {
            format!("an upgrade to {} is under way; reset trust when it has ended", attempt.to.version)
        });
        let away = self.away.then(|| "the feed is being asked; ask again in a moment".to_owned());
        if let Some(reason) = under_way.or(away).or(absolute(root).err()) {
            return replies.finish(Outcome::Refused { reason });
        }
        let Some(settings) = self.settings.clone() else {
            let reason = self.feed_state.error.clone().unwrap_or_default();
            return replies.finish(Outcome::Failed { reason });
        };
        let (version, sha256) = match Feed::reset(&settings, Path::new(root), uid) {
            Ok(root) => root,
            Err(error @ (FeedError::Refused(_) | FeedError::Contradiction { .. })) => {
                return replies.finish(Outcome::Refused { reason: error.to_string() });
            }
            Err(error) => return replies.finish(Outcome::Failed { reason: error.to_string() }),
        };
        let done = Notice::Reset { by: uid, version, sha256 };
        tell(vec![done], &mut self.ledger);
        // What was trusted until now is not trusted any more, whatever comes.
        (self.feed, self.feed_state) = (None, FeedState::default());
        self.bans = Bans::Unknown("trust has begun anew, and no index was verified since".into());
        self.next_check = Instant::now();
        replies.finish(match Feed::open(settings) {
            Ok((feed, mut notices)) => {
                notices.retain(|notice| !matches!(notice, Notice::Reset { .. }));
                tell(notices, &mut self.ledger);
                let root = root_shown(feed.trusted());
                self.feed = Some(Box::new(feed));
                self.reckon();
                Outcome::Done { answer: Answer::TrustReset(root) }
            }
            Err(error) => {
                let reason = format!(
                    "trust begins anew with root {version}, {sha256}, but that could not be finished: {error}. It is \
                     tried again; until then nothing new is installed"
                );
                (self.feed_state.error, self.feed_state.trouble) =
                    (Some(reason.clone()), Some(error.trouble()));
                self.reckon();
                Outcome::Failed { reason }
            }
        });
    }
}

/// Anything else would be read as an address, or from wherever the supervisor stands.
pub(super) fn absolute(path: &str) -> Result<(), String> {
    match path.starts_with('/') {
        true => Ok(()),
        false => Err(format!("{path:?} is no absolute path; nothing was changed")),
    }
}

/// What is trusted, for people.
fn shown(trusted: &Trusted) -> Trust {
    let root = trusted.root();
    let role = |role: Role| signers(&role.to_string(), root.keys(role));
    let mut roles = vec![role(Role::Root), role(Role::Release), role(Role::Timestamp)];
    roles.extend(root.builders().map(|keys| signers(bumpless_trust::build::BUILDERS, keys)));
    Trust {
        network: root.network(),
        channel: trusted.channel().to_string(),
        root: root_shown(trusted),
        timestamp: trusted.timestamp().map(|it| Kept {
            version: it.version,
            issued: it.issued,
            expires: it.expires,
        }),
        index: trusted.index().map(|it| Kept { version: it.version, issued: it.issued, expires: it.expires }),
        roles,
    }
}

fn root_shown(trusted: &Trusted) -> RootShown {
    let (version, expires) = (trusted.root().version(), trusted.root().expires());
    let sha256: Digest = trusted.root_fingerprint();
    RootShown { version, sha256, expires }
}

fn signers(role: &str, keys: &Keys) -> Signers {
    let threshold = u32::try_from(keys.threshold()).unwrap_or(u32::MAX);
    Signers {
        role: role.to_owned(),
        threshold,
        keys: keys.keys().iter().map(Key::text).map(str::to_owned).collect(),
    }
}
