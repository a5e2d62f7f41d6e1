//! Two cores with scripts, containers and data of their own, sshd between them, and a plan.
//!
//! What stands in: `docker` is a script that answers from files in ROOT (`tests/whole.rs` has the engine), the service is a process that
//! holds a file of the database open.

use crate::process::{self, Output, Running, until};
use crate::sandbox::{Sandbox, write_script};
use crate::sshd::Sshd;
use crate::tree::write_at;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where a core's data is, below its ROOT.
pub const DATABASE: &str = "core/mongodb/data";
/// Beside it.
pub const ATTACHMENTS: &str = "core/core/data";

/// A compose file in short.
pub const COMPOSE: &str = r#"version: '3'
services:
  core:
    image: "registry/core:1.4"
    volumes:
      - ./core/core/conf/:/app/conf/:ro
      - ./core/core/data/:/app/data/
      - ./core/core/log/:/app/log/
  mongodb:
    image: "registry/mongodb:3.6"
    volumes:
      - ./core/mongodb/data/:/app/data/
"#;

/// No interpreter's line, or one behind a space, as the platform's scripts have it; all fail outside ROOT.
pub const RUN: &str = r#" #!/usr/bin/env bash
[[ -e core.yml ]] || exit 9
[[ -e pid ]] && kill -0 "$(cat pid)" && exit 0
echo 1 > core/mongodb/data/mongod.lock
setsid bash -c 'exec 3>>core/mongodb/data/WiredTiger.lock; exec sleep 1000' >/dev/null 2>&1 </dev/null &
echo $! > pid
printf 'c_core_1\tcore\tregistry/core:1.4\tUp 2 seconds\nc_mongodb_1\tmongodb\tregistry/mongodb:3.6\tUp 2 seconds\n' > containers
echo run >> history
"#;

/// Its counterpart.
pub const STOP: &str = r#"[[ -e core.yml ]] || exit 9
[[ -e pid ]] && kill -9 "$(cat pid)"
rm -f pid containers
: > core/mongodb/data/mongod.lock
echo stop >> history
"#;

/// Answers `ps` and `logs` from files of the directory it runs in.
const DOCKER: &str = "#!/bin/sh\ncase $1 in\nps) cat containers 2>/dev/null; exit 0 ;;\nlogs) cat logs 2>/dev/null; exit 0 ;;\nesac\nexit 64\n";

/// Two cores, the way between them, and a plan. What was started in them ends with it.
#[derive(Debug)]
pub struct Cores {
    /// Where all of it is.
    pub sandbox: Sandbox,
    /// In front of the source.
    pub sshd: Sshd,
}

#[allow(clippy::missing_panics_doc, clippy::new_without_default, reason = "for tests, which end by a panic")]
impl Cores {
    /// The source is up; the destination is deployed and down, with data of its own first start.
    #[must_use]
    pub fn new() -> Cores {
        let sandbox = Sandbox::new();
        let sshd = Sshd::start(&sandbox);
        let cores = Cores { sandbox, sshd };
        write_script(&cores.docker(), DOCKER);
        for root in [cores.source(), cores.destination()] {
            for directory in ["core/core/conf", DATABASE, "core/core/data/attachments/u1/e1"] {
                fs::create_dir_all(root.join(directory)).expect("new directories");
            }
            for (name, text) in [
                ("core.yml", COMPOSE),
                ("run-core", RUN),
                ("stop-containers", STOP),
                ("ensure-permissions-core", "[[ -e core.yml ]] || exit 9\necho permissions >> history\n"),
                ("core/core/conf/core.json", r#"{"auth": {"adminAccessKey": "s3cret"}}"#),
            ] {
                fs::write(root.join(name), text).expect("a new file");
            }
        }
        let (source, destination) = (cores.source(), cores.destination());
        for (file, content) in [
            ("core/mongodb/data/WiredTiger", "WiredTiger 3.2.1"),
            ("core/mongodb/data/WiredTiger.turtle", "turtle"),
            ("core/mongodb/data/WiredTiger.lock", ""),
            ("core/mongodb/data/collection-1.wt", "documents"),
            ("core/core/data/attachments/u1/e1/f1", "an image"),
        ] {
            write_at(&source.join(file), content.as_bytes(), 1_600_000_000);
        }
        for file in
            ["WiredTiger", "collection-of-the-first-start.wt", "WiredTigerLog.0000000099", "mongod.lock"]
        {
            fs::write(destination.join(DATABASE).join(file), "").expect("a new file");
        }
        cores.write_plan(|plan| plan);
        cores.script("source", "run-core");
        cores
    }

    /// ROOT of the source.
    #[must_use]
    pub fn source(&self) -> PathBuf {
        self.sandbox.source().join("it's the old ROOT")
    }

    /// ROOT of the destination.
    #[must_use]
    pub fn destination(&self) -> PathBuf {
        self.sandbox.destination().join("new $ROOT")
    }

    /// What stands for the engine's command.
    #[must_use]
    pub fn docker(&self) -> PathBuf {
        self.sandbox.path().join("docker")
    }

    /// The plan's state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.sandbox.path().join("state")
    }

    /// Writes the plan, after a change to its text.
    pub fn write_plan(&self, change: impl FnOnce(String) -> String) {
        let (key, known_hosts) = (self.sandbox.key(), self.sandbox.known_hosts());
        let service = format!(
            "start = \"run-core\"\nstop = \"stop-containers\"\ncompose_files = [\"core.yml\"]\ndocker = [{:?}]\n\
             containers = [\"core\", \"mongodb\"]\nlogs = [\"core\"]\nhealth_s = 5\nstop_s = 20\nstart_s = 20\n",
            self.docker()
        );
        let plan = format!(
            "layout = \"2019\"\nstate_dir = {:?}\nleft = [\"core/*/log\"]\n\
             secrets = [\"core/core/conf/core.json#auth.adminAccessKey\"]\n\
             [source]\nroot = {:?}\naddress = \"127.0.0.1\"\n\
             [source.ssh]\nhost = \"127.0.0.1\"\nport = {}\nidentities = [{key:?}]\nknown_hosts = [{known_hosts:?}]\n\
             [source.service]\n{service}\
             [destination]\nroot = {:?}\naddress = \"127.0.0.1\"\n\
             [destination.service]\n{service}ensure_permissions = \"ensure-permissions-core\"\n\
             [[data]]\nname = \"mongodb\"\nkind = \"mongodb\"\npath = \"{DATABASE}\"\nsentinels = [\"WiredTiger\"]\n\
             [[data]]\nname = \"attachments\"\nkind = \"files\"\npath = \"{ATTACHMENTS}\"\nsentinels = [\"attachments\"]\n\
             [limits]\nmax_delete = 20\n",
            self.state(),
            self.source(),
            self.sshd.port(),
            self.destination(),
        );
        fs::write(self.sandbox.home().join("plan.toml"), change(plan)).expect("a file of the sandbox");
    }

    /// Edits the plan as it is.
    pub fn edit_plan(&self, change: impl FnOnce(String) -> String) {
        let path = self.sandbox.home().join("plan.toml");
        let plan = fs::read_to_string(&path).expect("it was written");
        fs::write(path, change(plan)).expect("a file of the sandbox");
    }

    /// Runs a script of one core by hand.
    pub fn script(&self, core: &str, script: &str) {
        let root = if core == "source" { self.source() } else { self.destination() };
        let mut command = Command::new("bash");
        command.arg(script).current_dir(root);
        process::run(command).success();
    }

    /// Runs `sync-client`.
    #[must_use]
    pub fn step(&self, arguments: &[&str]) -> Output {
        self.sandbox.client(arguments)
    }

    /// Starts `sync-client`, and waits until something it runs has made the file `mark`.
    #[must_use]
    pub fn start_until(&self, arguments: &[&str], mark: &Path) -> Running {
        let mut running = Running::start(self.sandbox.client_command(arguments));
        until(process::deadline(), "a file that marks the moment", || {
            (mark.exists() || running.ended_within(Duration::ZERO)).then_some(())
        });
        running
    }

    /// The whole records of the journal.
    #[must_use]
    pub fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.state().join("journal.jsonl")).unwrap_or_default();
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).expect("a record is JSON"))
            .collect()
    }

    /// Adds a record to the journal, as a step would.
    pub fn append_record(&self, step: &str, action: &str, state: &str) {
        let record = json!({"seq": self.records().len(), "time_ms": 1, "step": step, "action": action, "state": state});
        let journal = fs::File::options().append(true).open(self.state().join("journal.jsonl"));
        let mut journal = journal.expect("a journal");
        journal.write_all(format!("{record}\n").as_bytes()).expect("written");
    }

    /// What `status` says.
    #[must_use]
    pub fn status(&self) -> Value {
        let text = self.step(&["status", "--json"]).success().stdout_text();
        serde_json::from_str(text.lines().next().expect("a line")).expect("JSON")
    }

    /// What the scripts of a core did.
    #[must_use]
    pub fn history(&self, root: &Path) -> Vec<String> {
        let text = fs::read_to_string(root.join("history")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Whether a core's service is up.
    #[must_use]
    pub fn is_up(&self, root: &Path) -> bool {
        root.join("containers").exists()
    }

    /// What a check says of one thing.
    #[must_use]
    pub fn verdict(&self, output: &Output, what: &str) -> String {
        let text = output.stdout_text();
        let rows: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let row = rows
            .iter()
            .find(|row| row["what"] == what)
            .unwrap_or_else(|| panic!("no row {what:?}\n{output}"));
        format!(
            "{}: {}",
            row["verdict"].as_str().unwrap_or_default(),
            row["detail"].as_str().unwrap_or_default()
        )
    }
}

impl Drop for Cores {
    fn drop(&mut self) {
        for root in [self.source(), self.destination()] {
            for file in ["pid", "late-pid"] {
                let id = fs::read_to_string(root.join(file)).ok().and_then(|text| text.trim().parse().ok());
                if let Some(id) = id.and_then(Pid::from_raw) {
                    let _ = kill_process(id, Signal::KILL);
                }
            }
        }
    }
}
