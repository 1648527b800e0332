//! Whole processes: what the demo and the tests share.
//!
//! A [`world`] is one node in a temporary folder: a publisher and its feed behind a [`tap`], a
//! [`supervisor`] with the workers that it starts, an [`operator`] and clients. [`load`] asks it for
//! things at a steady rate and remembers in an [`oracle`] what was acknowledged and in another what was
//! appended ([`appends`]); [`latency`] says how long answers took, [`authority`] whether there were ever
//! two holders, [`picture`] draws it.
//!
//! What goes wrong is part of a release's stamp, held back by a [`gate`], found on a [`small_disk`] in a
//! [`namespace`] of its own, served by a [`feed_simulator`], or [`injected`].
//!
//! [`model`] runs no process at all: it explores every state that a node can come to.
//!
//! The programs come from one nested build ([`binaries`]); what a world has started is ended with it
//! ([`leftovers`]).

pub mod appends;
pub mod authority;
pub mod binaries;
pub mod chaos;
pub mod configuration;
pub mod content;
pub mod control;
pub mod demo;
pub mod display;
pub mod feed_simulator;
pub mod files;
pub mod gate;
pub mod handover;
pub mod injected;
pub mod latency;
pub mod left_out;
pub mod leftovers;
pub mod levers;
pub mod load;
pub mod model;
pub mod namespace;
pub mod operator;
pub mod oracle;
pub mod picture;
pub mod process;
pub mod small_disk;
pub mod supervisor;
pub mod tap;
pub mod world;
