//! Makes and recognises the connection ids of [`bumpless_shared::cid`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bumpless_shared::cid::{COVERED, LENGTH, SLOTS, Tag};
use quinn::{ConnectionId, ConnectionIdGenerator};
use quinn_proto::InvalidCid;
use ring::hmac;

/// Resets for connections of the own tag that this process does not know, in one [`BUDGET_TIME`].
/// Such connections are those of an earlier owner of the tag: all clients of a node that started
/// cold come within their keep-alive of half a second. A reset is smaller than what caused it, and the
/// MAC keeps strangers out, so the bound is there for replayed packets alone.
const BUDGET: u32 = 1000;
const BUDGET_TIME: Duration = Duration::from_secs(1);

/// Which tags belong to workers that are dead, and whose clients are therefore told so.
#[derive(Debug, Default)]
pub struct Dead([AtomicBool; SLOTS]);

impl Dead {
    /// Marks a tag or clears its mark.
    pub fn set(&self, tag: Tag, dead: bool) {
        self.0[tag.index()].store(dead, Ordering::Release);
    }

    /// Whether the tag is marked.
    pub fn has(&self, tag: Tag) -> bool {
        self.0[tag.index()].load(Ordering::Acquire)
    }
}

/// The generator of one worker.
pub struct Ids {
    tag: Tag,
    key: hmac::Key,
    dead: Arc<Dead>,
    /// When the present budget began, and what is used of it.
    used: Mutex<(Instant, u32)>,
}

impl Ids {
    /// For the worker with this tag.
    pub fn new(tag: Tag, key: hmac::Key, dead: Arc<Dead>) -> Ids {
        Ids { tag, key, dead, used: Mutex::new((Instant::now(), 0)) }
    }

    /// The whole id: the covered bytes and the first bytes of their MAC.
    fn signed(&self, covered: [u8; COVERED]) -> [u8; LENGTH] {
        let mac = hmac::sign(&self.key, &covered);
        let mut id = [0; LENGTH];
        for (place, byte) in id.iter_mut().zip(covered.iter().chain(mac.as_ref())) {
            *place = *byte;
        }
        id
    }

    fn within_budget(&self) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.0.elapsed() > BUDGET_TIME {
            *used = (Instant::now(), 0);
        }
        used.1 += 1;
        used.1 <= BUDGET
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut covered: [u8; COVERED] = rand::random();
        covered[0] = self.tag.number();
        ConnectionId::new(&self.signed(covered))
    }

    /// Asked before a packet of an unknown connection is answered with a reset, and only then. A reset
    /// for a connection that the living other worker has would kill it, hence the tag.
    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let covered: &[u8; COVERED] = id.first_chunk().ok_or(InvalidCid)?;
        if self.signed(*covered) != **id {
            return Err(InvalidCid);
        }
        match Tag::new(covered[0]) {
            Some(tag) if self.dead.has(tag) => Ok(()),
            Some(tag) if tag == self.tag && self.within_budget() => Ok(()),
            Some(_) | None => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ids(tag: u8, key: u8, dead: &Arc<Dead>) -> Ids {
        Ids::new(Tag::new(tag).unwrap(), hmac::Key::new(hmac::HMAC_SHA256, &[key; 32]), dead.clone())
    }

    #[test]
    fn an_id_is_valid_for_its_own_worker_and_for_others_only_while_that_one_is_dead() {
        let dead = Arc::new(Dead::default());
        let id = ids(1, 7, &Arc::default()).generate_cid();
        assert_eq!(id[0], 1);
        assert!(ids(1, 7, &dead).validate(&id).is_ok());
        let other = ids(2, 7, &dead);
        assert!(other.validate(&id).is_err(), "alive");
        dead.set(Tag::new(1).unwrap(), true);
        assert!(other.validate(&id).is_ok(), "dead");
        dead.set(Tag::new(1).unwrap(), false);
        assert!(other.validate(&id).is_err(), "the tag has a new owner");
    }

    #[test]
    fn an_id_that_was_not_made_here_or_was_altered_is_invalid() {
        let mine = ids(1, 7, &Arc::default());
        assert!(mine.validate(&ids(1, 8, &Arc::default()).generate_cid()).is_err());
        let good = ids(1, 7, &Arc::default()).generate_cid();
        for byte in 0..LENGTH {
            let mut bad = [0; LENGTH];
            bad.copy_from_slice(&good);
            bad[byte] ^= 1;
            assert!(mine.validate(&ConnectionId::new(&bad)).is_err(), "byte {byte}");
        }
        assert!(mine.validate(&ConnectionId::new(&good[..11])).is_err());
        assert!(mine.validate(&ConnectionId::new(&[])).is_err());
    }

    #[test]
    fn resets_for_the_own_tag_are_bounded_and_those_for_a_dead_worker_are_not() {
        let dead = Arc::new(Dead::default());
        let worker = ids(1, 7, &dead);
        let own = ids(1, 7, &dead).generate_cid();
        let lost = ids(2, 7, &dead).generate_cid();
        dead.set(Tag::new(2).unwrap(), true);
        let allowed = |id| (0..2 * BUDGET).filter(|_| worker.validate(id).is_ok()).count() as u32;
        assert_eq!(allowed(&lost), 2 * BUDGET);
        assert!((BUDGET..2 * BUDGET).contains(&allowed(&own)));
    }
}
