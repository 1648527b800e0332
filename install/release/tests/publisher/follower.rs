//! A machine that follows a feed's folder and keeps what it verified.
use std::path::Path;

use bumpless_trust::document::Channel;
use bumpless_trust::{Answer, Keep, Refresh, Refused, Role, Signed, Stored, Trusted};

#[derive(Clone, Default)]
pub struct Follower {
    channel: Channel,
    kept: Vec<(Role, u64, Signed)>,
}

impl Follower {
    pub fn of(channel: Channel) -> Follower {
        Follower { channel, kept: Vec::new() }
    }

    fn keep(&mut self, change: Keep) {
        match change {
            Keep::Put(role, version, signed) => {
                self.kept.retain(|(r, v, _)| (*r, *v) != (role, version));
                self.kept.push((role, version, signed));
            }
            Keep::Forget(role) => self.kept.retain(|(r, _, _)| *r != role),
            Keep::DropOlder(role, version) => self.kept.retain(|(r, v, _)| *r != role || *v >= version),
            Keep::DropOthers(role, version) => {
                self.kept.retain(|(r, v, _)| *r != role || Some(*v) == version);
            }
        }
    }

    /// One look at the feed, from what was kept; the first time from its first root.
    pub fn look(&mut self, feed: &Path, now: u64) -> Result<Trusted, Refused> {
        let file = |name: &Path| {
            let bytes = std::fs::read(feed.join(name)).ok()?;
            let sigs = std::fs::read(feed.join(format!("{}.sigs", name.display()))).unwrap_or_default();
            Some(Signed { bytes, signatures: sigs })
        };
        let of = |role| self.kept.iter().filter(|(r, _, _)| *r == role).map(|(_, _, s)| s.clone()).collect();
        let stored =
            Stored { roots: of(Role::Root), timestamps: of(Role::Timestamp), indexes: of(Role::Release) };
        let anchor = if self.kept.is_empty() { file(Path::new("root/1.json")) } else { None };
        let (trusted, keep, damage) = Trusted::load(anchor, stored, self.channel.clone())?;
        assert_eq!(damage, []);
        keep.into_iter().for_each(|change| self.keep(change));
        let mut refresh = Refresh::begin(trusted, now, 0)?;
        while let Some((name, _)) = refresh.file() {
            let answer = file(&name).map_or(Answer::Missing, Answer::Found);
            refresh.answer(answer)?.into_iter().for_each(|change| self.keep(change));
        }
        Ok(refresh.trusted().clone())
    }
}
