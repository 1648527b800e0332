//! One node, whose supervisor looks at a feed that a case has made, and a judge of everything that came of
//! the look.

use std::collections::BTreeMap;
use std::path::Path;

use bumpless_control::history::Event;
use bumpless_control::reply::{Answer as Told, Outcome};
use bumpless_control::request::Request;
use bumpless_control::status::{Status, Worker};
use bumpless_tests::configuration::Settings;
use bumpless_tests::feed_simulator::{Answer, Asked, Forge, Simulator};
use bumpless_tests::files::below;
use bumpless_tests::world::{Result, START, World, release, unix_now};
use bumpless_trust::{Role, Signed};
use bumpless_worker::client::Client;
use bumpless_worker::state::Layout;

/// Nothing looks at the feed, and no upgrade is tried again, but where a case says so.
const NEVER: &str = "[feed]\nretry_after = \"1h\"\n\n[upgrade]\nretry_after = [\"1h\"]\n";

/// What a look has to come to; each with words of the text that an operator gets.
#[derive(Clone, Copy, Debug)]
pub enum Says<'a> {
    /// It went through. Exit 0.
    Well(&'a str),
    /// The feed has something that must not be believed. Exit 5, and an alarm.
    Refused(&'a str),
    /// The feed does not answer as it should: exit 5, in the history, and no alarm.
    Failed(&'a str),
}

/// What is kept of each role, or should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shelf {
    root: Option<(u64, Signed)>,
    timestamp: Option<(u64, Signed)>,
    index: Option<(u64, Signed)>,
}

impl Shelf {
    /// These of each, with their versions.
    pub fn of(root: (u64, &Signed), timestamp: (u64, &Signed), index: (u64, &Signed)) -> Shelf {
        let [root, timestamp, index] =
            [root, timestamp, index].map(|(version, signed)| Some((version, signed.clone())));
        Shelf { root, timestamp, index }
    }

    /// With the newest root of the feed.
    pub fn root(self, forge: &Forge) -> Shelf {
        let version = forge.root.version;
        self.root_at(forge, version)
    }

    /// With this root of the feed.
    pub fn root_at(self, forge: &Forge, version: u64) -> Shelf {
        Shelf { root: Some((version, forge.files[&format!("root/{version}.json")].clone())), ..self }
    }

    /// With the timestamp of the feed.
    pub fn timestamp(self, forge: &Forge) -> Shelf {
        let signed = forge.files["timestamp.json"].clone();
        Shelf { timestamp: Some((forge.timestamp.version, signed)), ..self }
    }

    /// With the newest index of the feed.
    pub fn index(self, forge: &Forge) -> Shelf {
        let version = forge.index.version;
        Shelf { index: Some((version, forge.files[&format!("index/{version}.json")].clone())), ..self }
    }

    /// Without a file of this role.
    pub fn without(self, role: Role) -> Shelf {
        match role {
            Role::Root => Shelf { root: None, ..self },
            Role::Timestamp => Shelf { timestamp: None, ..self },
            Role::Release => Shelf { index: None, ..self },
        }
    }

    /// Path below `trust/`, and bytes.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let roles =
            [(Role::Root, &self.root), (Role::Timestamp, &self.timestamp), (Role::Release, &self.index)];
        for (role, kept) in roles {
            if let Some((version, signed)) = kept {
                let path = path(role, *version);
                files.insert(format!("{path}.sigs"), signed.signatures.clone());
                files.insert(path, signed.bytes.clone());
            }
        }
        files
    }
}

/// Where a file of this role and version is kept, below `trust/`; its signatures lie beside it.
pub fn path(role: Role, version: u64) -> String {
    match role {
        Role::Root => format!("root/{version}.json"),
        Role::Timestamp | Role::Release => format!("{}/stable/{version}.json", role.file()),
    }
}

/// Nothing new is kept.
pub fn same(shelf: Shelf, _: &Forge) -> Shelf {
    shelf
}

/// The newest root.
pub fn root(shelf: Shelf, forge: &Forge) -> Shelf {
    shelf.root(forge)
}

/// The timestamp, and no index.
pub fn timestamp(shelf: Shelf, forge: &Forge) -> Shelf {
    shelf.timestamp(forge)
}

/// Timestamp and index.
pub fn news(shelf: Shelf, forge: &Forge) -> Shelf {
    shelf.timestamp(forge).index(forge)
}

/// All three.
pub fn all(shelf: Shelf, forge: &Forge) -> Shelf {
    news(shelf.root(forge), forge)
}

/// The node, its feed, and what is known to be right so far.
pub struct Bench {
    pub world: World,
    pub simulator: Simulator,
    /// The publisher. What it has put on the feed is served at the next look.
    pub forge: Forge,
    /// What has to be kept.
    pub shelf: Shelf,
    /// A supervisor is killed while it keeps something, so that signatures may be left of what was dropped.
    pub cut_off: bool,
    subject: &'static str,
    cases: usize,
    client: Client,
    serving: Worker,
    /// Why the last look did not go through.
    error: Option<String>,
    /// How far the supervisor's clock is ahead of the machine's, seconds.
    ahead: i64,
    scripted: Vec<(String, Answer)>,
}

impl Bench {
    /// Release 1.0.0 serves, installed from a feed of the forge's.
    pub async fn start(subject: &'static str) -> Result<Bench> {
        Bench::start_with(subject, "").await
    }

    /// The same with more in the configuration.
    pub async fn start_with(subject: &'static str, more: &str) -> Result<Bench> {
        let settings = Settings { more: format!("{NEVER}{more}"), ..Settings::default() };
        let mut world = World::prepare(settings).await?;
        world.publish(&release("1.0.0", Layout::ByName)?)?;
        let running = world.publisher().index().releases[0].clone();
        let blob = running.artifacts[0].path();
        let simulator = Simulator::start().await?;
        simulator.answer(&blob.display().to_string(), Answer::File(std::fs::read(world.feed().join(&blob))?));
        let forge = Forge::new(unix_now(), running);
        simulator.offer(&forge.files);
        let anchor = world.folder().join("root.json");
        write_signed(&anchor, &forge.files["root/1.json"])?;
        world.places().root = anchor;
        world.places().feed = simulator.url();
        world.configure()?;
        world.start_supervisor()?;
        let status = world.first_install().await?;
        let serving = status.serving.ok_or("nobody serves")?;
        let client = world.client().await?;
        client.ping().await?;
        let shelf = all(Shelf::default(), &forge);
        let (cut_off, cases, error, ahead, scripted) = (false, 0, None, 0, vec![]);
        let mut bench = Bench {
            world,
            simulator,
            forge,
            shelf,
            cut_off,
            subject,
            cases,
            client,
            serving,
            error,
            ahead,
            scripted,
        };
        bench
            .look(
                "the feed that was installed from",
                Says::Well("nothing newer than 1.0.0"),
                "root/+1 timestamp*",
                same,
            )
            .await?;
        Ok(bench)
    }

    /// At the next look, and at no later one, this path is answered so.
    pub fn answer_once(&mut self, path: &str, answer: Answer) {
        self.scripted.push((path.to_owned(), answer));
    }

    /// Has the supervisor look at the feed as it is now, and judges: what it says, what it asked the feed
    /// for, what is kept then, and that the worker serves as before.
    ///
    /// The requests are words. `timestamp`, `index/2`, `root/7` stand for that file, a `*` behind it for its
    /// `.sigs` as well; `root/+1` is the root after the one that was kept before.
    pub async fn look(
        &mut self,
        case: &str,
        says: Says<'_>,
        asked: &str,
        keeps: impl FnOnce(Shelf, &Forge) -> Shelf,
    ) -> Result<()> {
        self.set_the_stage();
        let outcome = self.world.control().ask(&Request::Check, |_, _| ()).await?;
        let (code, text) = match &outcome {
            Outcome::Done { answer: Told::Checked(checked) } => (outcome.exit_code(), checked.text.clone()),
            Outcome::Failed { reason } => (outcome.exit_code(), reason.clone()),
            other => panic!("{case}: {other:?}"),
        };
        let exit = match says {
            Says::Well(_) => 0,
            Says::Refused(_) | Says::Failed(_) => 5,
        };
        assert_eq!(code, exit, "{case}: {text}");
        self.judge(case, says, &text, asked, keeps).await
    }

    /// Both clocks go on by so many seconds, to a moment at which what is kept has expired: the supervisor
    /// then looks by itself, and that look is judged.
    pub async fn time_passes(
        &mut self,
        case: &str,
        seconds: u64,
        change: impl FnOnce(&mut Forge),
        says: Says<'_>,
        asked: &str,
        keeps: impl FnOnce(Shelf, &Forge) -> Shelf,
    ) -> Result<()> {
        self.forge.now += seconds;
        change(&mut self.forge);
        self.set_the_stage();
        self.ahead += seconds as i64;
        self.set_clock(0)?;
        let refused = |status: &Status| status.feed.as_ref().is_some_and(|feed| feed.error.is_some());
        let status = self.world.control().until("a look at the feed", START, refused).await?;
        let text = status.feed.and_then(|feed| feed.error).unwrap_or_default();
        self.judge(case, says, &text, asked, keeps).await
    }

    /// Kills the supervisor, starts another one, and judges the look that this takes by itself.
    pub async fn restart(
        &mut self,
        case: &str,
        says: Says<'_>,
        asked: &str,
        keeps: impl FnOnce(Shelf, &Forge) -> Shelf,
    ) -> Result<()> {
        self.world.kill_supervisor()?;
        self.start_again(case, says, asked, keeps).await
    }

    /// The same where it has been killed.
    pub async fn start_again(
        &mut self,
        case: &str,
        says: Says<'_>,
        asked: &str,
        keeps: impl FnOnce(Shelf, &Forge) -> Shelf,
    ) -> Result<()> {
        self.set_the_stage();
        self.error = None;
        self.world.start_supervisor()?;
        let looked = |status: &Status| {
            let feed = status.feed.as_ref();
            status.serving.is_some()
                && feed.is_some_and(|feed| feed.checked_at.is_some() || feed.error.is_some())
        };
        let status = self.world.control().until("a look at the feed", START, looked).await?;
        let text = status.feed.and_then(|feed| feed.error).unwrap_or_default();
        match says {
            Says::Well(_) => assert_eq!(text, "", "{case}"),
            Says::Refused(_) | Says::Failed(_) => assert_ne!(text, "", "{case}"),
        }
        self.judge(case, says, &text, asked, keeps).await
    }

    fn set_the_stage(&mut self) {
        self.simulator.offer(&self.forge.files);
        for (path, answer) in self.scripted.drain(..) {
            self.simulator.answer(&path, answer);
        }
        self.simulator.take_asked();
    }

    async fn judge(
        &mut self,
        case: &str,
        says: Says<'_>,
        text: &str,
        asked: &str,
        keeps: impl FnOnce(Shelf, &Forge) -> Shelf,
    ) -> Result<()> {
        self.cases += 1;
        let case = format!("{}, {case}", self.subject);
        let status = self.world.control().status().await?;
        let (Says::Well(words) | Says::Refused(words) | Says::Failed(words)) = says;
        assert!(text.contains(words), "{case}: {words:?} is not in: {text}");
        self.is_told(&case, says, text, &status).await?;

        let was = self.shelf.root.as_ref().map_or(0, |(version, _)| *version);
        let requests = self.simulator.take_asked();
        let paths: Vec<&str> = requests.iter().map(|asked| asked.path.as_str()).collect();
        assert_eq!(paths, names(asked, was), "{case}: the requests");
        requests.iter().for_each(|asked| is_plain(&case, asked));

        self.shelf = keeps(std::mem::take(&mut self.shelf), &self.forge);
        self.is_kept(&case)?;
        self.is_undisturbed(&case, &status).await
    }

    /// The status and the history say the same as the answer.
    async fn is_told(&mut self, case: &str, says: Says<'_>, text: &str, status: &Status) -> Result<()> {
        let shown = status.feed.as_ref().and_then(|feed| feed.error.clone());
        let (error, event) = match says {
            Says::Well(_) => (None, Event::FeedWell),
            Says::Refused(_) => (Some(text.to_owned()), Event::Alarm),
            Says::Failed(_) => (Some(text.to_owned()), Event::FeedFailed),
        };
        assert_eq!(shown, error, "{case}: the status");
        let alarmed = |words: &str| status.alarms.iter().any(|alarm| alarm.text.contains(words));
        // What expired first is told of, once, whatever else has expired meanwhile.
        let told = |words| if str::contains(words, " expired on") { " expired on " } else { words };
        match says {
            Says::Refused(words) => assert!(alarmed(told(words)), "{case}: {:?}", status.alarms),
            Says::Failed(_) => assert!(!alarmed(text), "{case}: {:?}", status.alarms),
            // What was refused before is over.
            Says::Well(_) => {
                let over = self.error.as_ref().is_none_or(|error| !alarmed(error));
                assert!(over, "{case}: {:?}", status.alarms);
            }
        }
        // The same thing is not told twice.
        if error != self.error {
            let entries = self.world.control().history(8).await?;
            let about_feeds = [Event::FeedWell, Event::FeedFailed, Event::Alarm];
            let newest = entries.into_iter().rev().find(|entry| about_feeds.contains(&entry.event));
            let newest = newest.ok_or("the history has nothing about the feed")?;
            let reason = newest.reason.unwrap_or_default();
            match says {
                // Where what is kept has expired as well, that is told, in words of its own.
                Says::Refused(words) => {
                    assert!(reason.contains(told(words)), "{case}: the history: {reason}");
                }
                Says::Well(_) | Says::Failed(_) => {
                    assert_eq!(reason, error.clone().unwrap_or_default(), "{case}: the history");
                }
            }
            assert_eq!(newest.event, event, "{case}: the history");
        }
        self.error = error;
        Ok(())
    }

    /// Byte for byte what should be kept, and no other file.
    pub fn is_kept(&self, case: &str) -> Result<()> {
        let mut kept = below(&self.trust())?;
        if self.cut_off {
            let all = kept.clone();
            kept.retain(|name, _| name.strip_suffix(".sigs").is_none_or(|of| all.contains_key(of)));
        }
        let should = self.shelf.files();
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&kept), names(&should), "{case}: what is kept");
        for (name, bytes) in &should {
            let shown = String::from_utf8_lossy(&kept[name]);
            assert!(kept[name] == *bytes, "{case}: {name} is kept as {shown}");
        }
        Ok(())
    }

    async fn is_undisturbed(&self, case: &str, status: &Status) -> Result<()> {
        let serving = status.serving.as_ref().ok_or("nobody serves")?;
        let who = |worker: &Worker| (worker.pid, worker.instance, worker.term, worker.release.clone());
        assert_eq!(who(serving), who(&self.serving), "{case}: who serves");
        assert_eq!((&status.upgrade, &status.standby), (&None, &None), "{case}");
        self.client.ping().await?;
        let drops = self.client.take_drops();
        assert!(drops.is_empty(), "{case}: {drops:?}");
        Ok(())
    }

    /// A case that was no look, and left the worker alone.
    pub async fn one_more_case(&mut self, case: &str) -> Result<()> {
        self.cases += 1;
        let status = self.world.control().status().await?;
        self.is_undisturbed(case, &status).await
    }

    /// The folder of what is verified.
    pub fn trust(&self) -> std::path::PathBuf {
        self.world.state_dir().join("trust")
    }

    /// A new life: every key is rotated, and what was kept of timestamp and index is forgotten with them.
    pub async fn fresh(&mut self) -> Result<()> {
        self.forge.renew();
        let asked = "root/+1* root/+2 timestamp* index/1*";
        self.look("every key is a new one", Says::Well("nothing newer than 1.0.0"), asked, all).await
    }

    /// The supervisor's clock is off by so many seconds.
    pub fn set_clock(&self, off: i64) -> Result<()> {
        Ok(self.world.injected().step_clock(self.ahead + off)?)
    }

    /// Says how many cases there were.
    pub fn finish(self) -> Result<()> {
        eprintln!("conformance, {}: {} cases", self.subject, self.cases);
        Ok(())
    }

    /// Asks for the newest release, which cannot be had from this feed for a reason with these words: exit
    /// 5, those requests, nothing of it is left, and the worker serves as before.
    pub async fn upgrade_fails(&mut self, case: &str, words: &str, asked: &str) -> Result<()> {
        self.set_the_stage();
        let request = Request::Upgrade { version: None, wait: true, rehearse: false };
        let outcome = self.world.control().ask(&request, |_, _| ()).await?;
        let Outcome::Failed { reason } = &outcome else { panic!("{case}: {outcome:?}") };
        assert_eq!(outcome.exit_code(), 5);
        assert!(reason.contains(words), "{case}: {words:?} is not in: {reason}");
        self.cases += 1;
        let case = format!("{}, {case}", self.subject);
        let requests = self.simulator.take_asked();
        let paths: Vec<&str> = requests.iter().map(|asked| asked.path.as_str()).collect();
        let was = self.shelf.root.as_ref().map_or(0, |(version, _)| *version);
        assert_eq!(paths, names(asked, was), "{case}: the requests");
        self.shelf = news(std::mem::take(&mut self.shelf), &self.forge);
        self.error = None;
        self.is_kept(&case)?;
        let status = self.world.serving().await?;
        let last = status.last.as_ref().ok_or("there was no upgrade")?;
        assert_eq!(last.reason.as_ref(), Some(reason), "{case}");
        let installed = std::fs::read_dir(self.world.state_dir().join("releases"))?.count();
        assert_eq!(installed, 1, "{case}: releases");
        self.is_undisturbed(&case, &status).await
    }
}

/// The paths that the words stand for.
fn names(words: &str, root: u64) -> Vec<String> {
    let mut names = Vec::new();
    for word in words.split_whitespace() {
        let (word, with_signatures) = match word.strip_suffix('*') {
            Some(word) => (word, true),
            None => (word, false),
        };
        let name = match word.split_once('/') {
            Some(("root", version)) => match version.strip_prefix('+').map(str::parse::<u64>) {
                Some(Ok(more)) => format!("root/{}.json", root + more),
                Some(Err(_)) | None => format!("root/{version}.json"),
            },
            Some(("index", version)) => format!("index/{version}.json"),
            Some(_) => word.to_owned(),
            None => format!("{word}.json"),
        };
        names.push(name.clone());
        if with_signatures {
            names.push(format!("{name}.sigs"));
        }
    }
    names
}

/// A request that says nothing about the machine, and asks for the bytes as they are.
fn is_plain(case: &str, asked: &Asked) {
    assert_eq!(asked.method, "GET", "{case}: {asked:?}");
    let known = ["accept: */*", "host: ", "user-agent: bumpless-fetch/", "range: bytes="];
    for line in &asked.lines {
        assert!(known.iter().any(|known| line.starts_with(known)), "{case}: {line:?} of {asked:?}");
    }
}

/// A file and its `.sigs`.
pub fn write_signed(path: &Path, signed: &Signed) -> Result<()> {
    std::fs::write(path, &signed.bytes)?;
    std::fs::write(format!("{}.sigs", path.display()), &signed.signatures)?;
    Ok(())
}
