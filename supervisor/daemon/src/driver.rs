//! Wait, step, perform: the supervisor's one loop.
//!
//! Everything that happens comes in through one `select`: news from workers, outcomes of slow effects,
//! operators, signals, time. Each becomes an event for the sequence ([`crate::upgrade`]), whose effects
//! are performed before the next event is looked at. Time comes last, and only after everything that
//! had already arrived was taken in: a supervisor that slept must not take its own absence for the
//! silence of others. For the same reason its clock stands still while it sleeps: time in which it was
//! stopped, or held up by a disk, is nobody's delay.

mod dry_run;
mod looks;
mod operator;
mod packages;
mod reports;
mod rollout;
pub(crate) mod trust;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bumpless_control::history::{Entry, Event as Happening};
use bumpless_control::status::{Amount, Phase};
use bumpless_control::{Unix, gap_ms};
use bumpless_shared::control::{Command, Instance};
use bumpless_shared::digest::Digest;
use bumpless_shared::release::Release;
use bumpless_trust::{Choice, Origin, Trusted};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;

use crate::bans::Bans;
use crate::control_socket::Asked;
use crate::effects::journal::Journal;
use crate::effects::worker::News;
use crate::effects::{Done, Edge, unix_now};
use crate::feed::{self, Feed, FeedError, Notice, Staged, Trouble};
use crate::ledger::{Cause, Ledger};
use crate::pace::Pace;
use crate::packages::Packages;
use crate::releases::{InstallError, Record};
use crate::status;
use crate::upgrade::retry::Next;
use crate::upgrade::{Acquired, Ask, Attempt, Effect, Event, Moment, Rules, Said, State, Verdict};
use dry_run::Foreseen;
use operator::{Pending, Waiter};
use trust::FromFolder;

/// How often what could not be written or removed is tried again.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// What is this much too late was not merely waiting for a processor.
const OVERSLEPT: Duration = Duration::from_millis(250);

/// Longest sleep.
const FAR: Duration = Duration::from_secs(3600);

/// What the tasks of feed and packages bring back.
#[derive(Debug)]
pub enum Fed {
    /// The packages were looked at.
    Packages(Arc<Packages>),
    /// A refresh has ended; the feed comes home.
    Refreshed(Box<Feed>, Result<(), (Trouble, String)>),
    /// A feed that could not be opened at the start now could, or still cannot.
    Opened(Result<(Box<Feed>, Vec<Notice>), FeedError>),
    /// A look into an operator's folder has ended; the feed, if it can be opened at all, comes home.
    Folder(Option<(Box<Feed>, Vec<Notice>)>, Box<FromFolder>, Result<(), FeedError>),
    /// A look into an operator's folder that keeps nothing has ended; what would be trusted then.
    Foreseen(Box<Foreseen>, Result<Box<Trusted>, FeedError>),
    /// Bytes of the blob so far.
    Progress(u64, u64, u64),
    /// The blob lies in staging.
    Fetched(u64, Result<Staged, Verdict>),
    /// It is installed.
    Installed(u64, Result<(), Verdict>),
}

/// What came from the feed last.
#[derive(Debug, Default)]
struct FeedState {
    checked_at: Option<Unix>,
    error: Option<String>,
    /// What kind of error it is, if a look ended with it.
    trouble: Option<Trouble>,
}

/// The supervisor.
#[derive(Debug)]
pub struct Driver {
    edge: Edge,
    state: State,
    rules: Rules,
    ledger: Ledger,
    born: Instant,
    /// When it should have woken up.
    due: Option<Instant>,
    since: Unix,
    /// At home, or away with a refresh, or not opened yet.
    feed: Option<Box<Feed>>,
    /// What was verified when it went away.
    left: Option<Box<Trusted>>,
    /// What it is opened with; none where that cannot be said.
    settings: Option<feed::Settings>,
    /// It is away, or being opened, or where there is none the packages are being looked at.
    away: bool,
    /// What they declare, by the last look.
    packages: Arc<Packages>,
    /// Operators' folders that are still to be looked into.
    folders: VecDeque<FromFolder>,
    /// The folder that the upgrade under way comes from.
    folder: Option<String>,
    feed_state: FeedState,
    /// Known also while the feed is away, and without one.
    bans: Bans,
    fed: UnboundedSender<Fed>,
    /// Who waits for the refresh that is under way.
    pending: Vec<Pending>,
    /// Of the upgrade under way.
    choice: Option<Choice>,
    staged: Option<Staged>,
    acquiring: Option<JoinHandle<()>>,
    /// Outcomes of an acquisition that was given up bear a lower number.
    acquisition: u64,
    progress: Option<Amount>,
    pace: Pace,
    /// The phase that was entered last, and when.
    phase: Option<(Phase, Unix)>,
    /// What it was waiting for when that was last told.
    text: Option<String>,
    waiters: Vec<Waiter>,
    /// What the last worker that ended had printed.
    last_words: Option<(Instance, String)>,
    /// An upgrade that is a way back: this release is set aside once it is done.
    going_back: Option<u32>,
    next_check: Instant,
    /// The number of the look that comes then, from 0.
    looks: u64,
    /// When it is looked at because a maintenance window has opened. By the wall clock, which may be set.
    window_check: Option<Unix>,
    /// A look that came in the middle of something found a release that could not be begun then.
    found_meanwhile: bool,
    /// The release that failed last, and when it may be tried again.
    again: Option<(Digest, Instant)>,
    next_tidy: Instant,
    /// The removal that was asked for and not yet answered.
    removing: bool,
    /// Whether a release may be installed that nobody needs.
    collect: bool,
}

/// The channels that the driver waits on.
#[derive(Debug)]
pub struct Inputs {
    /// From workers' tasks.
    pub news: UnboundedReceiver<News>,
    /// From slow effects.
    pub done: UnboundedReceiver<Done>,
    /// From the feed's tasks.
    pub fed: UnboundedReceiver<Fed>,
    /// From operators.
    pub asked: Receiver<Asked>,
    /// Asks for a real stop.
    pub stop: UnboundedReceiver<()>,
}

/// What a driver begins with.
#[derive(Debug)]
pub struct Beginning {
    /// Performs effects.
    pub edge: Edge,
    /// From the configuration.
    pub rules: Rules,
    /// What is remembered.
    pub ledger: Ledger,
    /// The feed, if one is configured and its trust could be loaded; otherwise why not.
    pub feed: Result<Feed, String>,
    /// What the publisher forbids, by what is kept.
    pub bans: Bans,
    /// What it is opened with.
    pub settings: Option<feed::Settings>,
    /// Where the feed's tasks send.
    pub fed: UnboundedSender<Fed>,
    /// The supervisor's start on the clock that moments are counted on.
    pub born: Instant,
}

impl Driver {
    /// Takes over at a state that recovery has found.
    pub fn new(beginning: Beginning, state: State) -> Driver {
        let Beginning { edge, rules, ledger, feed, bans, settings, fed, born } = beginning;
        let mut feed_state = FeedState::default();
        let feed = match feed {
            Ok(feed) => Some(Box::new(feed)),
            Err(why) => {
                feed_state.error = Some(why);
                None
            }
        };
        let next_check = Instant::now() + crate::looks::first(&edge.machine_id(), &edge.config.feed);
        let packages = Arc::new(Packages::unseen(&edge.config.packages.folder));
        Driver {
            edge,
            state,
            rules,
            ledger,
            born,
            due: None,
            since: unix_now(),
            feed,
            left: None,
            settings,
            away: false,
            packages,
            folders: VecDeque::new(),
            folder: None,
            feed_state,
            bans,
            fed,
            pending: vec![],
            choice: None,
            staged: None,
            acquiring: None,
            acquisition: 0,
            progress: None,
            pace: Pace::default(),
            phase: None,
            text: None,
            waiters: vec![],
            last_words: None,
            going_back: None,
            next_check,
            looks: 0,
            window_check: None,
            found_meanwhile: false,
            again: None,
            next_tidy: Instant::now(),
            removing: false,
            collect: true,
        }
    }

    fn now(&self) -> Moment {
        Moment(self.born.elapsed())
    }

    /// Runs until everything has stopped.
    pub async fn run(mut self, first: Vec<Effect>, mut inputs: Inputs) {
        let entry = Entry::new(self.since, Happening::SupervisorStarted);
        self.ledger.append(&entry);
        let more = self.perform_all(first);
        self.feed_in(more);
        self.reckon();
        self.feed_in([Event::Asked(Ask::Reconsider)].into());
        while self.state != State::Stopped {
            let wake = self.next_wake();
            self.due = Some(wake);
            tokio::select! {
                biased;
                Some(news) = inputs.news.recv() => self.news(news),
                Some(done) = inputs.done.recv() => self.done(done),
                Some(fed) = inputs.fed.recv() => self.fed(fed),
                Some(asked) = inputs.asked.recv() => self.asked(asked),
                Some(()) = inputs.stop.recv() => self.feed_in([Event::Asked(Ask::Stop)].into()),
                () = tokio::time::sleep_until(wake.into()) => {
                    // The readers' tasks may not have run since the timer and the messages came.
                    for _ in 0..2 {
                        tokio::task::yield_now().await;
                    }
                    if let Ok(news) = inputs.news.try_recv() {
                        self.news(news);
                    } else {
                        self.tick();
                    }
                }
            }
        }
        self.ledger.append(&Entry::new(unix_now(), Happening::SupervisorStopped));
    }

    /// Takes out of its time what it slept beyond the moment at which it should have woken up.
    fn wake_up(&mut self) {
        let late = self.due.take().map(|due| due.elapsed());
        self.born += late.filter(|late| *late > OVERSLEPT).unwrap_or_default();
    }

    fn next_wake(&self) -> Instant {
        let tick = self.state.next_tick(&self.rules).map(|Moment(since)| self.born + since);
        let tidy = (self.owes_work()).then_some(self.next_tidy);
        let check = self.checks().then_some(self.next_check);
        let window = self.window_check.filter(|_| !self.away && self.may_begin()).map(on_the_wall);
        let expiry = self.next_expiry(unix_now()).map(on_the_wall);
        let far = Instant::now() + FAR;
        [tick, tidy, check, window, expiry].into_iter().flatten().fold(far, Instant::min)
    }

    fn may_begin(&self) -> bool {
        matches!(self.state, State::Vacant | State::Steady(_))
    }

    /// Whether feed and packages are looked at by itself: also in the middle of an upgrade, whose release the
    /// publisher may forbid at any time.
    fn checks(&self) -> bool {
        let ends = matches!(self.state, State::Stopping { .. } | State::Stopped);
        !self.away && !ends
    }

    fn owes_work(&self) -> bool {
        let owed = self.edge.journal.get().owed(&self.state).is_some();
        !self.edge.journal.is_written() || owed || self.collect && self.may_begin()
    }

    /// Feeds events to the sequence, and those that its effects lead to at once, until there are none.
    fn feed_in(&mut self, mut events: VecDeque<Event>) {
        self.wake_up();
        while let Some(event) = events.pop_front() {
            let holder = self.holder();
            let before = std::mem::replace(&mut self.state, State::Stopped);
            let (state, effects) = before.step(event, self.now(), &self.rules);
            self.state = state;
            if holder != self.holder() {
                // What the one before it was told to remove it may not have removed.
                self.removing = false;
                self.next_tidy = Instant::now();
            }
            self.entered();
            events.extend(self.perform_all(effects));
        }
    }

    /// Who would be told to tidy up.
    fn holder(&self) -> Option<Instance> {
        self.state.serving().map(|serving| serving.worker.instance)
    }

    /// Notes the phase that was entered, tells those who wait, and tidies up once it is quiet.
    fn entered(&mut self) {
        if self.may_begin() && std::mem::take(&mut self.found_meanwhile) {
            self.next_check = Instant::now();
        }
        self.tell_forbidden();
        let phase = status::phase(&self.state);
        if phase.as_ref() != self.phase.as_ref().map(|(phase, _)| phase) {
            let quiet = phase.is_none();
            self.phase = phase.map(|phase| (phase, unix_now()));
            self.progress = None;
            self.pace = Pace::default();
            self.text = status::text(&self.state);
            self.tell_waiters();
            if quiet {
                self.collect = true;
                self.next_tidy = Instant::now();
            }
        } else if self.text != status::text(&self.state) {
            self.text = status::text(&self.state);
            self.tell_waiters();
        }
    }

    /// So many bytes of the phase that is under way are done.
    fn progressed(&mut self, done: u64, total: u64) {
        self.progress = Some(self.pace.amount(Instant::now(), done, total));
        self.tell_waiters();
    }

    fn perform_all(&mut self, effects: Vec<Effect>) -> VecDeque<Event> {
        let mut events = VecDeque::new();
        for effect in effects {
            match effect {
                Effect::Fetch(_) => self.begin_fetch(),
                Effect::Install(_) => self.begin_install(),
                Effect::CancelAcquire => {
                    self.acquisition += 1;
                    if let Some(task) = self.acquiring.take() {
                        task.abort();
                    }
                }
                Effect::Conclude { attempt, verdict, gap_us } => self.conclude(&attempt, &verdict, gap_us),
                Effect::Alarm(text) => self.ledger.alarm(text, unix_now()),
                Effect::Rehearsed { attempt, cut_us, back_us } => {
                    self.ledger.append(&rehearsed(&attempt, cut_us, back_us));
                    // What the first instance leaves behind need not wait until the second is committed.
                    self.next_tidy = Instant::now();
                }
                Effect::Spawn { .. }
                | Effect::Start(..)
                | Effect::Pair { .. }
                | Effect::Tell(..)
                | Effect::Kill(_)
                | Effect::Reserve { .. }
                | Effect::Record { .. }
                | Effect::Discard { .. } => events.extend(self.edge.perform(effect, &self.state)),
            }
        }
        events
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.feed_in([Event::Tick].into());
        if self.owes_work() && now >= self.next_tidy {
            self.tidy();
        }
        let wall = unix_now();
        if self.feed_state.trouble.is_some() {
            self.watch_expiry(wall);
        }
        let opened = self.window_check.is_some_and(|at| at <= wall);
        // The last look went well: before it is called silent, the feed is asked once more.
        let silent = self.has_places() && self.next_expiry(wall).is_some_and(|at| at <= wall);
        if self.checks() && (now >= self.next_check || self.may_begin() && (opened || silent)) {
            self.check(Pending::Automatic);
        }
    }

    /// Writes what could not be written, and has removed what nobody needs: first the holder makes its
    /// database durable, then the logbooks and generations that the journal names may go.
    fn tidy(&mut self) {
        self.next_tidy = Instant::now() + TIDY_EVERY;
        self.edge.retry_journal();
        self.ledger.retry();
        if let Some((holder, _)) = self.edge.journal.get().owed(&self.state) {
            self.removing = true;
            self.edge.tell(holder, Command::Persist, vec![]);
        }
        self.collect_releases();
    }

    /// The holder's database is durable: now they may go.
    fn persisted(&mut self, from: Instance) {
        if self.state.serving().is_some_and(|serving| serving.worker.instance == from)
            && std::mem::take(&mut self.removing)
            && let Some((holder, command)) = self.edge.journal.get().owed(&self.state)
        {
            self.edge.tell(holder, command, vec![]);
        }
    }

    /// What is installed, or was being installed when its supervisor ended, and is neither running nor the
    /// way back is removed.
    fn collect_releases(&mut self) {
        if !self.may_begin() {
            return;
        }
        self.collect = false;
        let committed = self.edge.committed.as_ref().map(|committed| committed.release.clone());
        // One whose record cannot be read keeps the list from being read, too: nothing is removed.
        let previous = self.edge.releases.previous().ok().flatten().map(|record| record.release());
        let releases = &self.edge.releases;
        let installed = releases.list().unwrap_or_default().iter().map(Record::release).collect::<Vec<_>>();
        for release in installed.into_iter().chain(releases.half_made().unwrap_or_default()) {
            if Some(&release) != committed.as_ref()
                && Some(&release) != previous.as_ref()
                && let Err(error) = self.edge.releases.remove(&release)
            {
                self.collect = true;
                eprintln!("bumplessd: release {release} cannot be removed: {error}; it is tried again");
            }
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            // Nothing is executed that nobody waits for any more: it may be forbidden by now.
            Done::Verified(planned, _) if !self.edge.is_newest(&planned) => {}
            Done::Verified(planned, Ok(_)) if !self.state.awaits(&planned.worker) => {}
            Done::Verified(planned, binary) => {
                let event = self.edge.launch(planned, binary);
                self.feed_in([event].into());
            }
        }
    }

    // ------------------------------------------------------------------------ the feed, and packages

    fn fed(&mut self, fed: Fed) {
        match fed {
            Fed::Packages(seen) => self.packages_seen(seen),
            Fed::Refreshed(feed, result) => {
                self.bans.learn(feed.trusted());
                self.feed = Some(feed);
                self.comes_home();
                self.refreshed(result);
                self.errand();
            }
            Fed::Opened(opened) => {
                self.comes_home();
                match opened {
                    Ok((feed, notices)) => {
                        trust::tell(notices, &mut self.ledger);
                        self.bans.learn(feed.trusted());
                        self.feed = Some(feed);
                    }
                    Err(error) => self.refreshed(Err((error.trouble(), error.to_string()))),
                }
                self.errand();
            }
            Fed::Folder(opened, asked, result) => {
                self.comes_home();
                if let Some((feed, notices)) = opened {
                    trust::tell(notices, &mut self.ledger);
                    self.bans.learn(feed.trusted());
                    self.feed = Some(feed);
                }
                self.looked_into(*asked, result);
                self.errand();
            }
            Fed::Foreseen(asked, result) => self.foreseen(*asked, result),
            Fed::Progress(acquisition, done, total) => {
                if acquisition == self.acquisition {
                    self.progressed(done, total);
                }
            }
            Fed::Fetched(acquisition, result) if acquisition == self.acquisition => {
                let event = match result {
                    Ok(staged) => {
                        self.staged = Some(staged);
                        Acquired::Fetched
                    }
                    Err(verdict) => Acquired::Failed(verdict),
                };
                self.feed_in([Event::Acquired(event)].into());
            }
            Fed::Installed(acquisition, result) if acquisition == self.acquisition => {
                let event = match result {
                    Ok(()) => Acquired::Installed,
                    Err(verdict) => Acquired::Failed(verdict),
                };
                self.feed_in([Event::Acquired(event)].into());
            }
            Fed::Fetched(..) => {}
            // It was given up when it could not be stopped any more.
            Fed::Installed(..) => {
                self.collect = true;
                self.next_tidy = Instant::now();
            }
        }
    }

    /// Works out anew which of the releases that could be started here must not run.
    fn reckon(&mut self) {
        let committed = self.edge.committed.as_ref().map(|committed| &committed.release);
        let candidate = self.state.attempt().map(|attempt| &attempt.to);
        let committed = committed.map(|release| (release, self.counter(release)));
        let candidate = candidate.map(|release| (release, self.counter(release)));
        self.rules.forbidden = self.bans.forbidden(committed, candidate);
        self.tell_forbidden();
    }

    /// Its place in the order; one that is still to be installed was chosen just now.
    fn counter(&self, release: &Release) -> Option<u64> {
        let chosen = self.choice.as_ref().filter(|choice| choice.release() == *release);
        chosen.map(Choice::counter).or_else(|| self.edge.releases.counter(release))
    }

    /// An alarm, for as long as what is committed must not run.
    fn tell_forbidden(&mut self) {
        let text = self.edge.committed.as_ref().and_then(|committed| {
            let why = self.rules.forbidden.why(&committed.release)?;
            Some(status::forbidden(&self.state, &committed.release, why, self.rules.revoked))
        });
        self.ledger.lasting(Cause::Revoked, text, unix_now());
    }

    fn begin_fetch(&mut self) {
        self.acquisition += 1;
        let (acquisition, fed) = (self.acquisition, self.fed.clone());
        let undecided = |why: String| {
            let _ = fed.send(Fed::Fetched(acquisition, Err(Verdict::Unknown(why))));
        };
        let Some(choice) = self.choice.clone() else { return undecided("nothing is chosen".into()) };
        if let Some(short) = self.no_room(&choice) {
            return undecided(short.to_string());
        }
        match choice.origin() {
            Origin::Index(_) => {}
            Origin::Package => return self.begin_copy(&choice),
        }
        let Some(feed) = self.feed.as_ref() else { return undecided("the feed is busy".into()) };
        let feed = match &self.folder {
            Some(folder) => feed.at(vec![folder.clone()]),
            None => Feed::clone(feed),
        };
        self.acquiring = Some(tokio::task::spawn_local(async move {
            let progress = fed.clone();
            let report = move |done, total| {
                let _ = progress.send(Fed::Progress(acquisition, done, total));
            };
            let result = feed.fetch(&choice, report).await.map_err(|error| of_feed(&error));
            let _ = fed.send(Fed::Fetched(acquisition, result));
        }));
    }

    /// Before anything is fetched: is there room for all of the upgrade, the release and the standby's
    /// state? What the state needs, its holder says; what cannot be found out is found out later.
    fn no_room(&self, choice: &Choice) -> Option<FeedError> {
        let holder = &self.state.serving()?.worker;
        let (beat, _) = self.edge.handles.get(&holder.instance)?.heartbeat.as_ref()?;
        let path = self.edge.paths.state();
        let has = bumpless_os::durable::free_bytes(&path).ok()?;
        let artifact = choice.artifact();
        let release = if same_file_system(&path, &self.edge.paths.staging()) {
            artifact.size.saturating_add(artifact.raw_size)
        } else {
            0
        };
        let needs = beat.standby_room.saturating_add(self.rules.reserve).saturating_add(release);
        (has < needs).then_some(FeedError::NoRoom { path, needs, has })
    }

    fn begin_install(&mut self) {
        let (acquisition, fed) = (self.acquisition, self.fed.clone());
        let (Some(choice), Some(staged)) = (self.choice.clone(), self.staged.take()) else {
            let verdict = Verdict::Unknown("nothing was fetched".into());
            let _ = fed.send(Fed::Installed(acquisition, Err(verdict)));
            return;
        };
        let releases = Rc::clone(&self.edge.releases);
        // Not to be aborted: what is written on a thread of its own goes on, and its end has to be seen.
        self.acquiring = None;
        tokio::task::spawn_local(async move {
            let result =
                releases.install(staged, &choice).await.map(|_| ()).map_err(|error| of_install(&error));
            let _ = fed.send(Fed::Installed(acquisition, result));
        });
    }

    // -------------------------------------------------------------------------------------- the end

    fn conclude(&mut self, attempt: &Attempt, verdict: &Verdict, gap_us: Option<u64>) {
        let now = unix_now();
        self.acquiring = None;
        self.staged = None;
        self.choice = None;
        self.folder = None;
        let words = self.last_words.take().map(|(_, words)| words).unwrap_or_default();
        let rules = &self.edge.config.upgrade;
        let next = self.ledger.conclude(attempt, verdict, gap_us, words, rules, now);
        let went_back = self.going_back.take();
        match next {
            Next::Nothing => {
                self.link_releases(attempt);
                if let (Some(uid), Some(from)) = (went_back, &attempt.from) {
                    let reason = format!("rolled back by the operator (uid {uid})");
                    self.ledger.put_in_quarantine(from, reason, String::new(), now);
                }
            }
            Next::Again(wait) => {
                let due = Instant::now() + wait;
                self.again = Some((attempt.to.sha256, due));
                self.next_check = self.next_check.min(due);
            }
            Next::Quarantine(_) => {}
        }
        // Last: after a power loss in between, the upgrade is concluded once more, and a failed try is not
        // forgotten.
        self.edge.write_journal(Journal::conclude);
        self.reckon();
        self.finish_waiters(attempt, verdict, gap_us, went_back.is_some());
    }

    /// `current` and `previous` are for people and for the way back; `committed` decides.
    fn link_releases(&mut self, attempt: &Attempt) {
        let releases = &self.edge.releases;
        let linked = releases.link_current(&attempt.to).and_then(|()| match &attempt.from {
            Some(from) if *from != attempt.to => releases.link_previous(from),
            Some(_) | None => Ok(()),
        });
        if let Err(error) = linked {
            eprintln!("bumplessd: the links current and previous are not up to date: {error}");
        }
    }

    fn said(&mut self, from: Instance, said: Said) {
        self.feed_in([Event::Said(from, said)].into());
    }
}

/// When the wall clock will show this, if nobody sets it meanwhile.
fn on_the_wall(at: Unix) -> Instant {
    Instant::now() + Duration::from_secs(at.saturating_sub(unix_now())).min(FAR)
}

fn same_file_system(one: &std::path::Path, other: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
    device(one) == device(other)
}

/// The first two hand-overs of a rehearsal, for the history.
fn rehearsed(attempt: &Attempt, cut_us: u64, back_us: Option<u64>) -> Entry {
    let back = back_us.map_or(String::new(), |us| format!(", way back {} ms", gap_ms(us)));
    Entry {
        actor: attempt.by,
        from: attempt.from.clone(),
        to: Some(attempt.to.clone()),
        reason: Some(format!("cut {} ms{back}; every connection moved", gap_ms(cut_us))),
        ..Entry::new(unix_now(), Happening::Rehearsed)
    }
}

/// A feed that is gone, or wrong, says nothing about the release: it is asked again.
fn of_feed(error: &FeedError) -> Verdict {
    match error.trouble() {
        Trouble::Unreachable | Trouble::Local | Trouble::Expired | Trouble::Refused => {
            Verdict::Unknown(error.to_string())
        }
    }
}

/// A blob that is what was signed and yet no release is the publisher's mistake; our disk is not.
fn of_install(error: &InstallError) -> Verdict {
    match error {
        InstallError::Blob(..) => Verdict::Bad(error.to_string()),
        InstallError::File { .. } | InstallError::Helper(_) => Verdict::Unknown(error.to_string()),
    }
}
