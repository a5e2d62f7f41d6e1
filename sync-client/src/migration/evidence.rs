//! Whether something works on data: open files, `mongod.lock`, containers. What a step believes of a service, it saw here.

use super::host::{Command, Host, HostError};
use super::plan::{Core, DataSet, Kind};
use super::run::{End, Run};
use super::text;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Looking through large trees.
pub(crate) const SEARCH_S: u32 = 900;
/// Processes that are named at most.
const HOLDERS: usize = 10;

/// Prints `limited` where other users' processes can't be seen, then `PID NAME FILE`, tab-separated, for each open file
/// below the directories. Files are told by device and inode: a container knows them by other names.
const HOLDERS_SCRIPT: &str = r#"[ "$(id -u)" -eq 0 ] || echo limited
{
  find -L /proc/[0-9]*/fd -maxdepth 1 -type f -printf '%D:%i\t%p\n' 2>/dev/null
  echo
  while [ $# -gt 0 ]; do [ -d "$2" ] && find "$1" "$2/" -type f -printf '%D:%i\t%p\n' 2>/dev/null; shift 2; done
} | awk -F '\t' '
  !second && $0 == "" { second = 1; next }
  !second { split($2, part, "/"); held[$1] = held[$1] " " part[3]; next }
  $1 in held {
    count = split(held[$1], pids, " ")
    for (at = 1; at <= count; at++) {
      if (seen[pids[at], $1]++) continue
      name = "?"; comm = "/proc/" pids[at] "/comm"
      getline name < comm; close(comm)
      print pids[at] "\t" name "\t" $2
    }
  }'"#;

/// A process that has a file of a data set open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) pid: String,
    pub(crate) name: String,
    pub(crate) file: String,
}

/// Who has files open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Holders {
    pub(crate) processes: Vec<Holder>,
    /// Other users' processes could not be looked at.
    pub(crate) is_limited: bool,
}

/// Looks for processes that hold files below these directories open.
pub(crate) fn holders(host: &dyn Host, places: &[Place]) -> Result<Holders, HostError> {
    let ran = host.run(&Command::script(HOLDERS_SCRIPT, parameters(places)).limited(SEARCH_S))?;
    if !ran.is_success() {
        return Err(host.failed("look for open files below", Path::new("/proc"), &ran.stderr));
    }
    let mut holders = Holders::default();
    for line in ran.lines() {
        if line == b"limited" {
            holders.is_limited = true;
            continue;
        }
        let mut parts = line.splitn(3, |&byte| byte == b'\t').map(text::foreign);
        let mut part = || parts.next().unwrap_or_default();
        if holders.processes.len() < HOLDERS {
            holders.processes.push(Holder { pid: part(), name: part(), file: part() });
        }
    }
    Ok(holders)
}

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) name: String,
    /// The compose service, or the name where there is none.
    pub(crate) service: String,
    pub(crate) image: String,
    pub(crate) status: String,
}

impl Container {
    /// It runs, and neither restarts nor says that it is unhealthy.
    pub(crate) fn is_up(&self) -> bool {
        self.status.starts_with("Up")
            && !["unhealthy", "health: starting", "Restarting", "Paused"]
                .iter()
                .any(|bad| self.status.contains(bad))
    }
}

/// The containers that run on a core's host; none where the plan names no engine.
pub(crate) fn containers(host: &dyn Host, core: &Core) -> Result<Option<Vec<Container>>, HostError> {
    if core.service.docker.is_empty() {
        return Ok(None);
    }
    const FORMAT: &str = r#"{{.Names}}\t{{.Label "com.docker.compose.service"}}\t{{.Image}}\t{{.Status}}"#;
    let ran = host.run(&docker(core, ["ps", "--format", FORMAT]))?;
    if !ran.is_success() {
        return Err(host.failed(
            "list the containers (docker = [] in the plan where there is none) by",
            Path::new(&core.service.docker[0]),
            &ran.stderr,
        ));
    }
    let container = |line: &[u8]| {
        let mut parts = line.split(|&byte| byte == b'\t').map(text::foreign);
        let mut part = || parts.next().unwrap_or_default();
        let (name, service, image, status) = (part(), part(), part(), part());
        let service = if service.is_empty() { name.clone() } else { service };
        Container { name, service, image, status }
    };
    Ok(Some(ran.lines().map(container).collect()))
}

/// The container engine's command with these arguments, in ROOT.
pub(crate) fn docker<'a>(core: &'a Core, arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let words = core.service.docker.iter().map(String::as_str).chain(arguments);
    Command::new(words.map(OsString::from)).within(core.root.as_path())
}

/// A directory to look through as a pass does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) directory: PathBuf,
    /// What links point to is data too.
    pub(crate) follows_links: bool,
}

/// Where the data sets are on one side. Links are followed at the source alone: a copy has none that were.
pub(crate) fn places(run: &Run<'_>, end: End) -> Vec<Place> {
    run.plan.data.iter().map(|set| place(run, set, end)).collect()
}

fn place(run: &Run<'_>, set: &DataSet, end: End) -> Place {
    Place { directory: directory(run, set, end), follows_links: set.copy_links && end == End::Source }
}

/// Places for a script: for each an option of `find`, and the directory.
pub(crate) fn parameters(places: &[Place]) -> Vec<OsString> {
    let pair = |place: &Place| {
        let option = if place.follows_links { "-L" } else { "-P" };
        [OsString::from(option), place.directory.clone().into()]
    };
    places.iter().flat_map(pair).collect()
}

/// Where a data set is on one side.
pub(crate) fn directory(run: &Run<'_>, set: &DataSet, end: End) -> PathBuf {
    match end {
        End::Source => run.plan.source_path(set),
        End::Destination => run.plan.destination_path(set),
    }
}

/// What a MongoDB directory's `mongod.lock` says: a mongod runs, or was killed.
pub(crate) fn locked(run: &Run<'_>, end: End) -> Result<Vec<PathBuf>, HostError> {
    let mut locked = Vec::new();
    for set in run.plan.data.iter().filter(|set| set.kind == Kind::Mongodb) {
        let lock = directory(run, set, end).join("mongod.lock");
        if run.host(end).stat(&lock)?.is_some_and(|stat| stat.len > 0) {
            locked.push(lock);
        }
    }
    Ok(locked)
}

/// What speaks for a running service on one side: containers of the plan, open files.
pub(crate) fn running(run: &Run<'_>, end: End) -> Result<Vec<String>, HostError> {
    let (host, core) = (run.host(end), run.core(end));
    let mut signs = Vec::new();
    for container in containers(host, core)?.unwrap_or_default() {
        if core.service.containers.contains(&container.service) {
            signs.push(format!("container {} ({}): {}", container.name, container.service, container.status));
        }
    }
    signs.extend(open_files(host, &places(run, end))?);
    Ok(signs)
}

/// What speaks for a service that works again, and not for a backup that reads: who has a database open. Without a database,
/// who has any file of a data set open.
pub(crate) fn working(run: &Run<'_>, end: End) -> Result<Vec<String>, HostError> {
    let databases = run.plan.data.iter().filter(|set| set.kind == Kind::Mongodb);
    let databases: Vec<Place> = databases.map(|set| place(run, set, end)).collect();
    let places = if databases.is_empty() { places(run, end) } else { databases };
    open_files(run.host(end), &places)
}

fn open_files(host: &dyn Host, places: &[Place]) -> Result<Vec<String>, HostError> {
    let sign = |holder: Holder| format!("process {} ({}) has {} open", holder.pid, holder.name, holder.file);
    Ok(holders(host, places)?.processes.into_iter().map(sign).collect())
}

#[cfg(test)]
mod tests {
    use super::super::host::Machine;
    use super::*;
    use std::fs::{self, File};

    #[test]
    fn who_has_a_file_open_is_named_by_inode_also_under_another_name() {
        let place = tempfile::tempdir().unwrap();
        let (data, other) = (place.path().join("it's data"), place.path().join("other"));
        fs::create_dir_all(data.join("deep")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(data.join("deep/a.wt"), "x").unwrap();
        fs::hard_link(data.join("deep/a.wt"), other.join("b")).unwrap();
        let here = Machine::here("here", &crossbeam_channel::never());
        let place_of = |directory: &Path| Place { directory: directory.to_owned(), follows_links: false };
        assert_eq!(holders(&here, &[place_of(&data)]).unwrap().processes, []);
        let held = File::open(other.join("b")).unwrap();
        let both = [place_of(&place.path().join("absent")), place_of(&data)];
        let found = holders(&here, &both).unwrap().processes;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].pid, std::process::id().to_string());
        assert!(found[0].file.ends_with("deep/a.wt"));
        drop(held);
        assert_eq!(holders(&here, &both).unwrap().processes, []);
        std::os::unix::fs::symlink(&other, data.join("link")).unwrap();
        fs::write(other.join("c"), "x").unwrap();
        let _held = File::open(other.join("c")).unwrap();
        assert_eq!(holders(&here, &both).unwrap().processes, []);
        let followed = Place { directory: data, follows_links: true };
        assert_eq!(holders(&here, &[followed]).unwrap().processes.len(), 1);
    }

    #[test]
    fn only_a_container_that_is_well_is_up() {
        for (status, is_up) in [
            ("Up 3 minutes", true),
            ("Up 3 minutes (healthy)", true),
            ("Up 2 seconds (health: starting)", false),
            ("Up 3 minutes (unhealthy)", false),
            ("Up 1 second (Paused)", false),
            ("Restarting (1) 5 seconds ago", false),
            ("Exited (0) 5 seconds ago", false),
        ] {
            let text = String::new;
            let container =
                Container { name: text(), service: text(), image: text(), status: status.to_owned() };
            assert_eq!(container.is_up(), is_up, "{status}");
        }
    }
}
