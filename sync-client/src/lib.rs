//! The operator's program: arguments, connections, progress and reports around the engine in `sync-agent`.
//!
//! [`args`] and [`job`] turn the command line into a [`job::Job`], [`endpoint::sync`] carries it out,
//! [`console`] says what happens; [`bench`](mod@bench) measures instead. [`proxy`] edits what [`nginx`] reads,
//! [`register`] a `dns.json`, both through a [`place`]; [`probe`] looks at accounts by HTTP;
//! [`migration`] puts all of it in order. The library reads neither
//! terminal nor environment: `main` does.

mod accepted;
pub mod args;
pub mod bench;
pub mod child;
mod chmod;
mod clearing;
pub mod console;
pub mod demo;
pub mod dns;
pub mod endpoint;
pub mod generated;
pub mod job;
pub mod key;
pub mod location;
pub mod migration;
pub mod nginx;
pub mod options;
mod owner_map;
pub mod place;
pub mod planned;
pub mod probe;
pub mod prompts;
pub mod proxy;
pub mod register;
pub mod ssh;
pub mod trash;
pub mod version;
