//! The client's conformance: a real supervisor with its real fetcher before a feed that does everything
//! that a feed can do, with the clock where the case wants it.
//!
//! Every case is one look at the feed, and judged whole ([`bench::Bench::look`]): the exit and its reason,
//! what status and history say, every request in its order, what is kept byte for byte, and that the worker
//! serves as before. The cases of a file share a node; a root that rotates every key makes a new start of
//! what is kept.
//!
//! The situations are those of The Update Framework's conformance suite, as far as this format has them,
//! and those of the attacks that the design answers.
//!
//! | File | Subject |
//! |---|---|
//! | [`refreshes`] | news and none, missing files, expiry, the clock, what evolves |
//! | [`roots`] | rotation in every order, gaps, errors, unusable roots |
//! | [`versions`] | rollback, fast-forward and its recovery, mix and match |
//! | [`signatures`] | thresholds, keys, roles, the form of a `.sigs` file |
//! | [`documents`] | types, JSON, names, sizes |
//! | [`transport`] | what servers do |
//! | [`artifacts`] | blobs, builders, what may not run |
//! | [`published`] | feeds as they once were published, first roots, damage |
//! | [`killed`] | kill -9 between any two steps of what is kept |
//! | [`power`] | the same with the power gone |

mod artifacts;
mod bench;
mod documents;
mod killed;
mod power;
mod published;
mod refreshes;
mod roots;
mod signatures;
mod transport;
mod versions;
