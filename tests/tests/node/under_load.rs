//! What most tests need: a world with a load on it, and at the end the question whether the promise
//! was kept.

use std::sync::Arc;
use std::time::Duration;

use bumpless_control::reply::Outcome;
use bumpless_control::request::Request;
use bumpless_control::status::{Last, Status, Worker};
use bumpless_shared::release::Release;
use bumpless_tests::authority::two_holders;
use bumpless_tests::configuration::Settings;
use bumpless_tests::load::{Load, Plan, Seen, read_back};
use bumpless_tests::oracle::Oracle;
use bumpless_tests::world::{Result, World, release};
use bumpless_worker::stamp::Stamp;
use bumpless_worker::state::Layout;

/// A steady trickle: enough that something is always under way.
pub const PLAN: Plan = Plan {
    rate: 100,
    connections: 8,
    fresh: 5,
    puts_permille: 400,
    appends_permille: 100,
    pings: 20,
    deadline: Duration::from_secs(15),
};

/// Longest that an upgrade of a test may take, whatever becomes of it.
pub const UPGRADE: Duration = Duration::from_secs(60);

/// A world with a load on it.
pub struct UnderLoad {
    pub world: World,
    pub load: Load,
}

/// What the clients may have seen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// Every request was answered rightly, and no connection was dropped.
    NoticedNothing,
    /// Every request was answered rightly, if need be on a new connection.
    WereServed,
    /// A release that refuses what it should answer was let loose on them.
    WereRefused,
}

impl UnderLoad {
    /// Release 1.0.0 serves, and the load is on.
    pub async fn start(settings: Settings) -> Result<UnderLoad> {
        UnderLoad::start_with(settings, &release("1.0.0", Layout::ByName)?, PLAN).await
    }

    /// This release serves, and this load is on.
    pub async fn start_with(settings: Settings, first: &Stamp, plan: Plan) -> Result<UnderLoad> {
        UnderLoad::of(World::start_with(settings, first).await?, plan).await
    }

    /// This world, whose first release serves, and this load is on.
    pub async fn of(world: World, plan: Plan) -> Result<UnderLoad> {
        let load = Load::start(world.target()?, plan, Arc::new(Oracle::new(rand::random()))).await?;
        let under_load = UnderLoad { world, load };
        under_load.more_writes(20).await?;
        Ok(under_load)
    }

    /// Publishes a release and has it upgraded to, to the end of everything that belongs to it.
    pub async fn upgrade(&mut self, stamp: &Stamp) -> Result<(Release, Outcome)> {
        let release = self.world.publish(stamp)?;
        let outcome = self.upgrade_to(&release).await?;
        Ok((release, outcome))
    }

    /// The same with a release that is published already.
    pub async fn upgrade_to(&mut self, release: &Release) -> Result<Outcome> {
        let request =
            Request::Upgrade { version: Some(release.version.clone()), wait: true, rehearse: false };
        let control = self.world.control();
        let asked = tokio::time::timeout(UPGRADE, control.ask(&request, |_, _| ())).await;
        let outcome =
            asked.map_err(|_| format!("no outcome of the upgrade to {release} within {UPGRADE:?}"))??;
        self.world.serving().await?;
        Ok(outcome)
    }

    /// Publishes a release and asks for it, and does not wait for what comes of it.
    pub async fn begin(&mut self, stamp: &Stamp) -> Result<Release> {
        let release = self.world.publish(stamp)?;
        let request =
            Request::Upgrade { version: Some(release.version.clone()), wait: false, rehearse: false };
        self.world.control().ask(&request, |_, _| ()).await?;
        Ok(release)
    }

    /// Waits until the upgrade under way has ended, and returns how.
    pub async fn ended(&mut self, release: &Release) -> Result<Last> {
        let of_it = |status: &Status| {
            let last = status.last.as_ref().filter(|last| last.to == release.version);
            last.filter(|_| status.upgrade.is_none() && status.draining.is_none()).cloned()
        };
        let control = self.world.control();
        let status =
            control.until("the end of the upgrade", UPGRADE, |status| of_it(status).is_some()).await?;
        Ok(of_it(&status).ok_or("no end")?)
    }

    /// Upgrades to a sound release, which has to work whatever happened before.
    pub async fn upgrade_well(&mut self, version: &str) -> Result<()> {
        let (_, outcome) = self.upgrade(&release(version, Layout::ByKind)?).await?;
        assert!(matches!(outcome, Outcome::Done { .. }), "the upgrade after it: {outcome:?}");
        assert_eq!(self.serving().await?.release.as_str(), version);
        Ok(())
    }

    /// The status.
    pub async fn status(&self) -> Result<Status> {
        Ok(self.world.control().status().await?)
    }

    /// The worker that holds.
    pub async fn serving(&self) -> Result<Worker> {
        Ok(self.status().await?.serving.ok_or("nobody serves")?)
    }

    /// Waits until so many more writes were acknowledged: the node serves.
    pub async fn more_writes(&self, count: u64) -> Result<()> {
        let target = self.load.oracle().count() + count;
        let mut look = tokio::time::interval(Duration::from_millis(10));
        let waited = tokio::time::timeout(Duration::from_secs(30), async {
            while self.load.oracle().count() < target {
                look.tick().await;
            }
        });
        waited.await.map_err(|_| "the node acknowledges no writes any more")?;
        Ok(())
    }

    /// Ends the load and asks: is every acknowledged write there, every append exactly once, was there ever more than one holder,
    /// and did the clients notice no more than they may?
    pub async fn finish(self, clients: Clients) -> Result<(World, Seen)> {
        let UnderLoad { world, load } = self;
        let (oracle, appends) = (Arc::clone(load.oracle()), Arc::clone(load.appends()));
        let seen = load.stop().await;
        assert_eq!(two_holders(&seen.sightings), None, "two holders");
        let lost = read_back(&world.client().await?, &oracle).await;
        assert!(
            lost.is_empty(),
            "{} of {} acknowledged writes lost: {:?}",
            lost.len(),
            oracle.count(),
            &lost[..lost.len().min(5)]
        );
        if appends.begun() > 0 {
            let wrong = appends.check(&world.client().await?).await;
            assert!(wrong.is_empty(), "of {} appends: {:#?}", appends.count(), &wrong[..wrong.len().min(5)]);
        }
        match clients {
            Clients::WereRefused => {}
            Clients::WereServed => assert_eq!(seen.failed(), 0, "{:#?}", seen.failures),
            Clients::NoticedNothing => {
                assert_eq!(seen.failed(), 0, "{:#?}", seen.failures);
                assert!(seen.drops.is_empty(), "{:#?}", seen.drops);
            }
        }
        Ok((world, seen))
    }
}
