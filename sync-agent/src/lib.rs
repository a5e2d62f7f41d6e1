//! An endpoint next to a tree, as a source or as a destination, whichever end of the connection it is.
//!
//! [`source::SourceEnd`] and [`destination::DestinationEnd`] run a session over a [`link::Link`]; they are
//! the same code in the agent that sshd starts and inside the client. Around them: [`agent`] answers a
//! client, [`serve`] is an SSH server of its own, [`bench`](mod@bench) measures. Everything that touches the
//! file system goes through [`tree`].

pub mod agent;
mod attributes;
mod bases;
mod basis;
pub mod bench;
pub mod clock;
mod commit;
mod delete;
pub mod destination;
pub mod error;
mod hard_links;
mod holes;
pub mod index;
mod inherited;
pub mod join;
mod journal;
pub mod link;
pub mod listed;
mod merge;
mod metadata;
pub mod monitor;
mod origin;
mod owners;
mod packer;
mod partial;
pub mod pipe;
mod planned;
mod prune;
mod receiver;
mod recognition;
mod removal;
mod retire;
mod rules;
mod run;
pub mod scan;
mod sender;
pub mod serve;
mod sides;
pub mod signals;
mod sink;
pub mod source;
pub mod sources;
mod staging;
mod stored;
pub mod stripe;
pub mod trash;
pub mod tree;
mod workers;
