//! Local runs through the client's library, without a process for each.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;
use sync_agent::monitor::{Monitor, Progress};
use sync_client::endpoint::{Environment, Outcome, Watch, sync};
use sync_client::{args, job};

/// Hears nothing and goes on, so that printing is not measured.
struct Silent;

impl Monitor for Silent {
    fn item(&self, _: protocol::itemize::Item) {}
    fn problem(&self, problem: protocol::stats::Problem) {
        panic!("{problem:?}");
    }
    fn made_root(&self, _: &[u8]) {}
    fn note(&self, _: &str) {}
}

/// `sync-client sync OPTIONS SOURCE/ DESTINATION`, without an index.
pub(crate) fn run(options: &[&str], source: &Path, destination: &Path) -> Outcome {
    let mut contents = source.as_os_str().to_owned();
    contents.push("/");
    let mut line: Vec<OsString> = ["sync-client", "sync"].iter().chain(options).map(OsString::from).collect();
    line.extend([contents.as_os_str(), destination.as_os_str()].map(OsStr::to_owned));
    let matches = args::command().try_get_matches_from(line).expect("a correct line");
    let (_, matches) = matches.subcommand().expect("the line has a command");
    let job = job::sync(matches, &job::Given::umask(0o022)).expect("a correct line");
    let progress = Progress::default();
    let watch = Watch { monitor: &Silent, progress: &progress, stop: crossbeam_channel::never() };
    sync(&job, &environment(), &watch).expect("a local copy")
}

fn environment() -> Environment {
    Environment {
        home: None,
        user: String::new(),
        agent_socket: None,
        ask: Arc::new(|_| None),
        state_dir: None,
        umask: 0o022,
    }
}
