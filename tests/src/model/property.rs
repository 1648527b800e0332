//! What must hold in every state.

use bumpless_worker::state::Role;

use super::world::World;

/// At most one worker holds authority.
pub const HOLDERS: &str = "at most one worker holds";
/// Terms only rise, and each has one writer.
pub const TERMS: &str = "terms only rise and each has one writer";
/// Every acknowledged write is readable at whoever serves.
pub const READABLE: &str = "whoever holds has every acknowledged write";
/// Every acknowledged write would survive a power loss now.
pub const DURABLE: &str = "no acknowledged write is lost by a power loss at any moment";
/// No write is applied twice.
pub const ONCE: &str = "nothing is applied twice, nor as another record";
/// The committed pair is complete.
pub const COMPLETE: &str = "committed names a complete pair";
/// Nothing is removed that somebody needs.
pub const REMOVED: &str = "nothing is removed that somebody needs";
/// Nobody resumes beside a living peer.
pub const ALONE: &str = "nobody resumes beside a living peer";
/// A living worker's connections are not ended by another.
pub const TAGS: &str = "no living worker's tag is answered for";
/// Sockets are not bound while somebody has them.
pub const SOCKETS: &str = "sockets are not bound while somebody has them";
/// Who gave authority up for good does not hold again.
pub const FORGONE: &str = "who yielded for good or is retired does not hold again by itself";
/// What the publisher has revoked is not committed.
pub const REVOKED: &str = "what is revoked is not begun to be committed";
/// Without more faults it ends well.
pub const STEADY: &str = "without further faults it ends steady, with one worker and nothing left over";

/// Each.
pub const ALL: [&str; 13] = [
    HOLDERS, TERMS, READABLE, DURABLE, ONCE, COMPLETE, REMOVED, ALONE, TAGS, SOCKETS, FORGONE, REVOKED,
    STEADY,
];

/// Whether one holds in a state, except for the last, which needs a look at what follows.
pub fn holds(property: &'static str, world: &World) -> Result<(), String> {
    if let Some((broken, how)) = &world.past.broken
        && *broken == property
    {
        return Err(how.clone());
    }
    match property {
        HOLDERS => {
            let holders: Vec<_> = world.holders().map(|process| process.worker.instance).collect();
            match holders.len() {
                0 | 1 => Ok(()),
                _ => Err(format!("workers {holders:?} hold")),
            }
        }
        READABLE => {
            for process in world.holders() {
                if !matches!(process.role, Some(Role::Holding { .. })) {
                    continue;
                }
                let generation = process.worker.generation;
                let Some(database) = world.disk.generations.get(&generation) else {
                    return Err(format!("generation {generation} is gone, and its worker holds"));
                };
                for (write, sequence) in &world.past.acked {
                    if database.reads.sequence_of(*write) != Some(*sequence) {
                        let who = process.worker.instance;
                        return Err(format!(
                            "worker {who} holds and lacks write {write} (record {sequence})"
                        ));
                    }
                }
            }
            Ok(())
        }
        DURABLE => match world.disk.would_lose(&world.past.acked) {
            Some(how) => Err(how),
            None => Ok(()),
        },
        COMPLETE => {
            for committed in
                [&world.disk.committed.reads, &world.disk.committed.durable].into_iter().flatten()
            {
                if !world.disk.generations.contains_key(&committed.generation) {
                    return Err(format!("generation {} is not there", committed.generation));
                }
            }
            Ok(())
        }
        TAGS => {
            for process in world.workers.values() {
                for other in world.workers.values() {
                    let served = matches!(other.role, Some(Role::Holding { .. } | Role::Frozen { .. }));
                    if served
                        && other.worker.instance != process.worker.instance
                        && process.adopted.contains(&other.worker.tag)
                    {
                        return Err(format!(
                            "worker {} answers for worker {}",
                            process.worker.instance, other.worker.instance
                        ));
                    }
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}
