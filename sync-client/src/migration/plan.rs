//! The plan: everything that is particular to one migration, as a TOML file.
//!
//! What parses is sound. Every path is either absolute or below its core's ROOT, and has no `..`; names are plain; data sets
//! don't overlap; a MongoDB directory is mirrored whole. Keys that don't exist are refused with the nearest that does, and
//! with their line. No secret is in a plan: passwords are named by file or environment variable.

mod value;

use crate::probe::url::{ApiUrl, is_username};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
pub(crate) use value::{AbsolutePath, Action, HostName, Name, RootedPath, Secret};

/// A plan that can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// It can't be read.
    #[error("cannot read the plan {}; `sync-client check --init > plan.toml` makes one", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// It is not a plan.
    #[error("the plan {} is not understood:\n{message}", path.display())]
    Parse { path: PathBuf, message: String },
    /// Each value is sound, but not beside another.
    #[error("the plan {}: {message}", path.display())]
    Contradiction { path: PathBuf, message: String },
}

/// Where things are by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Layout {
    /// `core/…`, `run-core`, `stop-containers`.
    #[serde(rename = "2019")]
    Of2019,
    /// `pryv/…`, `run-pryv`, `stop-pryv`; configuration comes from a leader.
    #[serde(rename = "2020")]
    Of2020,
}

/// The whole plan.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) layout: Layout,
    /// Where the journal and the index are, on the destination.
    pub(crate) state_dir: AbsolutePath,
    pub(crate) source: Core,
    pub(crate) destination: Core,
    pub(crate) data: Vec<DataSet>,
    /// Writable volumes of the compose files that are not copied on purpose; `*` stands for one name.
    #[serde(default)]
    pub(crate) left: Vec<RootedPath>,
    /// What must be equal on both cores.
    #[serde(default)]
    pub(crate) secrets: Vec<Secret>,
    #[serde(default)]
    pub(crate) certificate: Option<Certificate>,
    #[serde(default)]
    pub(crate) proxy: Option<Proxy>,
    #[serde(default)]
    pub(crate) register: Option<Register>,
    #[serde(default)]
    pub(crate) probe: Option<Probe>,
    #[serde(default)]
    pub(crate) limits: Limits,
}

/// One of the two cores.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Core {
    /// The platform's directory: ROOT.
    pub(crate) root: AbsolutePath,
    /// Where clients reach it: an IP address.
    pub(crate) address: std::net::IpAddr,
    /// How to get there; this machine without it.
    #[serde(default)]
    pub(crate) ssh: Option<Ssh>,
    pub(crate) service: Service,
}

/// How another machine is reached.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ssh {
    pub(crate) host: HostName,
    #[serde(default)]
    pub(crate) user: Option<HostName>,
    #[serde(default)]
    pub(crate) port: Option<u16>,
    #[serde(default)]
    pub(crate) identities: Vec<PathBuf>,
    #[serde(default)]
    pub(crate) known_hosts: Vec<PathBuf>,
    /// `SHA256:…`.
    #[serde(default)]
    pub(crate) host_key: Option<String>,
    #[serde(default)]
    pub(crate) accept_new: bool,
    /// As `-e` of `sync`.
    #[serde(default = "ssh_command")]
    pub(crate) command: String,
    /// The agent at the other side.
    #[serde(default = "agent")]
    pub(crate) agent: String,
    /// Nothing heard for so long ends a pass; also for connecting.
    #[serde(default = "timeout_s")]
    pub(crate) timeout_s: u32,
}

fn ssh_command() -> String {
    "ssh".to_owned()
}

fn agent() -> String {
    "sync-agent".to_owned()
}

fn timeout_s() -> u32 {
    60
}

/// How a core's service is handled.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    pub(crate) start: Action,
    pub(crate) stop: Action,
    /// Succeeds when the service answers; without it the containers must be up.
    #[serde(default)]
    pub(crate) health: Option<Action>,
    /// Run at the destination between the copy and the start.
    #[serde(default)]
    pub(crate) ensure_permissions: Option<Action>,
    #[serde(default)]
    pub(crate) compose_files: Vec<RootedPath>,
    /// The container engine's command; empty where there is none.
    #[serde(default = "docker")]
    pub(crate) docker: Vec<String>,
    /// Compose services that must be up when the service is.
    #[serde(default)]
    pub(crate) containers: Vec<String>,
    /// Compose services whose log lines with errors are shown after the start.
    #[serde(default)]
    pub(crate) logs: Vec<String>,
    #[serde(default = "action_s")]
    pub(crate) start_s: u32,
    #[serde(default = "action_s")]
    pub(crate) stop_s: u32,
    #[serde(default = "action_s")]
    pub(crate) health_s: u32,
}

fn docker() -> Vec<String> {
    vec!["docker".to_owned()]
}

fn action_s() -> u32 {
    300
}

/// What kind of data a set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A WiredTiger directory: an exact mirror, copied for good only after a clean stop.
    Mongodb,
    /// Files.
    Files,
}

/// A directory to copy: its contents become those of the destination's.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataSet {
    pub(crate) name: Name,
    pub(crate) kind: Kind,
    pub(crate) path: RootedPath,
    /// Where it goes, if not to the same path below the other ROOT.
    #[serde(default)]
    pub(crate) destination_path: Option<RootedPath>,
    /// What must be there at the source, so that an empty or unmounted directory is not taken for the data.
    #[serde(default)]
    pub(crate) sentinels: Vec<RootedPath>,
    #[serde(default)]
    pub(crate) exclude: Vec<String>,
    #[serde(default)]
    pub(crate) copy_links: bool,
    /// Extended attributes (`user.*`) are data too; `false` leaves them behind by choice.
    #[serde(default = "yes")]
    pub(crate) xattrs: bool,
    #[serde(default = "yes")]
    pub(crate) numeric_ids: bool,
    #[serde(default = "yes")]
    pub(crate) delete: bool,
}

fn yes() -> bool {
    true
}

/// The certificate that the destination answers with.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Certificate {
    /// On the destination.
    pub(crate) file: RootedPath,
    /// A name it must hold for.
    pub(crate) name: HostName,
}

/// The source's NGINX, which sends clients on while names spread.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Proxy {
    pub(crate) file: RootedPath,
    pub(crate) upstreams: Vec<String>,
    /// Certificates that sign the destination's, as NGINX sees the file.
    #[serde(default)]
    pub(crate) trusted_certificate: Option<PathBuf>,
    #[serde(default = "yes")]
    pub(crate) verify: bool,
    /// Where the destination serves TLS.
    #[serde(default = "https")]
    pub(crate) port: u16,
    /// Succeeds when NGINX can read its files; run on the source while the edited file is in place, before it goes live.
    pub(crate) test: Action,
    /// Starts NGINX alone, or lets it read its files anew; without it that is done by hand.
    #[serde(default)]
    pub(crate) start: Option<Action>,
    /// Stops NGINX alone; `proxy disable` starts it on the old file where there is none.
    #[serde(default)]
    pub(crate) stop: Option<Action>,
    /// Run on the destination: succeeds when what the source's address answers comes from the destination.
    #[serde(default)]
    pub(crate) check: Option<Action>,
    /// How long the check may take to succeed.
    #[serde(default = "check_s")]
    pub(crate) check_s: u32,
}

fn https() -> u16 {
    443
}

fn check_s() -> u32 {
    60
}

/// The hosts that answer for names.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Register {
    /// The core's name below the domain.
    pub(crate) core: HostName,
    pub(crate) domain: HostName,
    pub(crate) hosts: Vec<RegisterHost>,
    /// How long a restarted DNS server may take to answer with the new address.
    #[serde(default = "check_s")]
    pub(crate) answer_s: u32,
}

/// A register host.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegisterHost {
    pub(crate) name: Name,
    pub(crate) root: AbsolutePath,
    #[serde(default)]
    pub(crate) ssh: Option<Ssh>,
    pub(crate) dns_file: RootedPath,
    /// Changed as well where it has an entry for the core.
    #[serde(default)]
    pub(crate) register_file: Option<RootedPath>,
    pub(crate) restart: Action,
    /// Where its DNS server answers.
    #[serde(default)]
    pub(crate) dns: Option<std::net::SocketAddr>,
}

/// Test data by the HTTP API.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Probe {
    /// The API, with `{username}` where an account's name goes.
    pub(crate) url: ApiUrl,
    pub(crate) accounts: Vec<Account>,
    /// Where a login says it comes from; `https://sw.DOMAIN` without it.
    #[serde(default)]
    pub(crate) origin: Option<String>,
    #[serde(default = "app_id")]
    pub(crate) app_id: String,
    /// The stream that is made, and how the descriptions of its events begin.
    #[serde(default = "marker")]
    pub(crate) marker: String,
    /// Whether a high-frequency series is made.
    #[serde(default = "yes")]
    pub(crate) series: bool,
    /// Authorities that signed the cores' certificates, instead of the system's.
    #[serde(default)]
    pub(crate) ca_file: Option<AbsolutePath>,
    /// Whether certificates are looked at.
    #[serde(default = "yes")]
    pub(crate) verify: bool,
    #[serde(default = "probe_s")]
    pub(crate) timeout_s: u32,
}

fn app_id() -> String {
    "sync-client".to_owned()
}

fn marker() -> String {
    "sync-probe".to_owned()
}

fn probe_s() -> u32 {
    30
}

/// An account of [`Probe`]; exactly one of the two says where its password is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Account {
    pub(crate) username: String,
    #[serde(default)]
    pub(crate) password_file: Option<AbsolutePath>,
    #[serde(default)]
    pub(crate) password_env: Option<String>,
}

/// How far a step may go.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// `bulk` is done when the cold pass is forecast to be this short.
    pub(crate) max_downtime_s: u32,
    /// A pass that would remove more entries of a data set than this removes none.
    pub(crate) max_delete: u64,
    /// Passes of one `bulk`.
    pub(crate) max_passes: u32,
    /// For bulk passes; 0 is none. The cold pass has no limit.
    pub(crate) bulk_bytes_per_s: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_downtime_s: 300, max_delete: 1000, max_passes: 8, bulk_bytes_per_s: 0 }
    }
}

impl Plan {
    /// Reads the plan.
    ///
    /// # Errors
    /// Says what is wrong and in which line.
    pub(crate) fn read(path: &Path) -> Result<Plan, PlanError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| PlanError::Read { path: path.to_owned(), source })?;
        Plan::parse(&text, path)
    }

    /// Parses what was read from `path`.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Plan, PlanError> {
        let parsed: Result<Plan, toml::de::Error> = toml::from_str(text);
        let plan = parsed
            .map_err(|error| PlanError::Parse { path: path.to_owned(), message: with_suggestion(&error) })?;
        match plan.contradiction() {
            Some(message) => Err(PlanError::Contradiction { path: path.to_owned(), message }),
            None => Ok(plan),
        }
    }

    fn contradiction(&self) -> Option<String> {
        if self.destination.ssh.is_some() {
            return Some(
                "destination.ssh: the steps run on the destination; start sync-client there".to_owned(),
            );
        }
        if self.source.ssh.is_none() && self.source.root == self.destination.root {
            return Some(
                "source and destination are the same directory of this machine; source.ssh is missing"
                    .to_owned(),
            );
        }
        if self.data.is_empty() {
            return Some("there is no [[data]]: nothing to copy".to_owned());
        }
        let mut names = BTreeSet::new();
        if let Some(set) = self.data.iter().find(|set| !names.insert(set.name.as_str())) {
            return Some(format!("two data sets are called {:?}", set.name.as_str()));
        }
        for set in &self.data {
            if set.kind == Kind::Mongodb && (!set.delete || !set.exclude.is_empty()) {
                return Some(format!(
                    "data set {:?}: a MongoDB directory is an exact mirror or no database; it takes neither exclude nor delete = false",
                    set.name.as_str()
                ));
            }
        }
        self.blindness()
            .or_else(|| self.overlap())
            .or_else(|| self.probe.as_ref().and_then(Probe::contradiction))
    }

    /// What could not be seen when it counts: whether the destination is well, and who answers behind the proxy.
    fn blindness(&self) -> Option<String> {
        let service = &self.destination.service;
        if service.health.is_none() && (service.docker.is_empty() || service.containers.is_empty()) {
            return Some(
                "destination.service: nothing says when it is healthy: give health, or docker and containers"
                    .to_owned(),
            );
        }
        let is_blind = |proxy: &Proxy| proxy.check.is_none() && self.certificate.is_none();
        self.proxy.as_ref().filter(|proxy| is_blind(proxy)).map(|_| {
            "proxy: nothing says how to see who answers: give proxy.check, or the name in [certificate]"
                .to_owned()
        })
    }

    /// Directories inside one another are copied twice and deleted by each other's passes.
    fn overlap(&self) -> Option<String> {
        for (at, set) in self.data.iter().enumerate() {
            let (source, destination) = (self.source_path(set), self.destination_path(set));
            let state_dir = self.state_dir.as_path();
            if state_dir.starts_with(&destination) || destination.starts_with(state_dir) {
                return Some(format!(
                    "state_dir and data set {:?} are inside one another; the journal must outlive a copy",
                    set.name.as_str()
                ));
            }
            if self.source.ssh.is_none()
                && (source.starts_with(&destination) || destination.starts_with(&source))
            {
                return Some(format!("data set {:?} would be copied into itself", set.name.as_str()));
            }
            for other in &self.data[at + 1..] {
                let pairs =
                    [(&source, self.source_path(other)), (&destination, self.destination_path(other))];
                if pairs.iter().any(|(one, other)| one.starts_with(other) || other.starts_with(one)) {
                    return Some(format!(
                        "data sets {:?} and {:?} are inside one another; copy the outer one, or exclude nothing but name both apart",
                        set.name.as_str(),
                        other.name.as_str()
                    ));
                }
            }
        }
        None
    }

    /// Where a data set is at the source.
    pub(crate) fn source_path(&self, set: &DataSet) -> PathBuf {
        set.path.below(&self.source.root)
    }

    /// Where a data set goes.
    pub(crate) fn destination_path(&self, set: &DataSet) -> PathBuf {
        set.destination_path.as_ref().unwrap_or(&set.path).below(&self.destination.root)
    }

    /// What the copy of each data set is made of, as a journal remembers it.
    pub(crate) fn made_of(&self) -> BTreeMap<String, Value> {
        let made_of = |set: &DataSet| {
            let (from, to) = (self.source_path(set), self.destination_path(set));
            json!({"from": from.display().to_string(), "to": to.display().to_string(), "exclude": set.exclude,
                "copy_links": set.copy_links, "xattrs": set.xattrs, "numeric_ids": set.numeric_ids, "delete": set.delete})
        };
        self.data.iter().map(|set| (set.name.to_string(), made_of(set))).collect()
    }

    /// The pair of cores, as a journal remembers it.
    pub(crate) fn identity(&self) -> String {
        let of = |core: &Core| {
            let host = core.ssh.as_ref().map_or("this machine", |ssh| ssh.host.as_str());
            format!("{host}:{}", core.root.as_path().display())
        };
        format!("{} to {}", of(&self.source), of(&self.destination))
    }
}

impl Probe {
    fn contradiction(&self) -> Option<String> {
        if !is_username(&self.marker) {
            return Some(format!(
                "probe.marker {:?}: write lower-case letters, digits and dashes",
                self.marker
            ));
        }
        let texts = [self.origin.as_deref().unwrap_or("https://"), &self.app_id];
        if let Some(text) = texts.iter().find(|text| !text.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Some(format!("probe.origin or app_id {text:?}: a header or name can't hold that"));
        }
        if self.accounts.is_empty() {
            return Some("probe.accounts is empty: name an account".to_owned());
        }
        if let Some(account) = self.accounts.iter().find(|account| !is_username(&account.username)) {
            return Some(format!("probe account {:?} is no name of an account", account.username));
        }
        let mut names = BTreeSet::new();
        if let Some(account) = self.accounts.iter().find(|account| !names.insert(&account.username)) {
            return Some(format!("probe account {:?} is named twice", account.username));
        }
        let is_wrong = |account: &&Account| account.password_file.is_some() == account.password_env.is_some();
        let account = self.accounts.iter().find(is_wrong)?;
        Some(format!("probe account {:?}: give either password_file or password_env", account.username))
    }
}

/// The parser's message with its line; for an unknown key, the nearest that exists.
fn with_suggestion(error: &toml::de::Error) -> String {
    let message = error.to_string().trim_end().to_owned();
    // serde's words: unknown field `x`, expected one of `a`, `b`
    let words: Vec<&str> = error.message().split('`').skip(1).step_by(2).collect();
    let Some((unknown, known)) = words.split_first().filter(|_| error.message().starts_with("unknown field"))
    else {
        return message;
    };
    let nearest = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
        .min_by_key(|&(distance, _)| distance)
        .filter(|(distance, known)| *distance <= known.len().div_ceil(2));
    match nearest {
        Some((_, known)) => format!("{message}\ndo you mean `{known}`?"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::super::init;
    use super::*;

    fn parse(text: &str) -> Result<Plan, String> {
        Plan::parse(text, Path::new("plan.toml")).map_err(|error| error.to_string())
    }

    fn changed(from: &str, to: &str) -> Result<Plan, String> {
        let text = init::plan(Layout::Of2019);
        assert!(text.contains(from), "{from:?} is not in the preset");
        parse(&text.replacen(from, to, 1))
    }

    #[test]
    fn what_init_prints_is_a_plan_of_its_layout() {
        for (layout, stop) in [(Layout::Of2019, "bash stop-containers"), (Layout::Of2020, "bash stop-pryv")] {
            let plan = parse(&init::plan(layout)).unwrap();
            assert_eq!((plan.layout, plan.source.service.stop.to_string().as_str()), (layout, stop));
            assert_eq!(plan.limits, Limits::default());
        }
    }

    #[test]
    fn the_readme_s_plan_is_one_and_every_preset_s_key_of_its_layout_is_in_it() {
        let readme = include_str!("../../../README.md");
        let text = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let (ours, preset) = (parse(text).unwrap(), parse(&init::plan(Layout::Of2019)).unwrap());
        assert_eq!((&ours.data, &ours.limits), (&preset.data, &preset.limits));
        assert_eq!((&ours.secrets, &ours.certificate), (&preset.secrets, &preset.certificate));
        let proxy = |plan: &Plan| {
            let proxy = plan.proxy.clone().unwrap();
            (proxy.file, proxy.upstreams, proxy.test, proxy.start, proxy.stop)
        };
        assert_eq!(proxy(&ours), proxy(&preset));
        assert_eq!(ours.register.unwrap().hosts.len(), 2);
        assert_eq!(ours.probe.unwrap().accounts.len(), 1);
    }

    #[test]
    fn every_path_of_the_written_procedure_is_a_value() {
        let plan = parse(&init::plan(Layout::Of2019)).unwrap();
        let path = |name: &str| {
            let set = plan.data.iter().find(|set| set.name.as_str() == name).unwrap();
            (plan.source_path(set), plan.destination_path(set))
        };
        let both = |path: &str| (PathBuf::from(path), PathBuf::from(path));
        assert_eq!(path("mongodb"), both("/var/pryv/core/mongodb/data"));
        assert_eq!(path("attachments"), both("/var/pryv/core/core/data"));
        assert_eq!(plan.source.service.start.to_string(), "bash run-core");
        let proxy = plan.proxy.unwrap();
        assert_eq!(proxy.file.as_path(), Path::new("core/nginx/conf/site-443.conf"));
        assert_eq!(proxy.upstreams, ["core_server", "websocket_server", "hfs_server", "preview_server"]);
        assert_eq!(plan.register.unwrap().core.as_str(), "co1");
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest_one_and_their_line() {
        for (from, to, wanted) in [
            ("max_downtime_s", "max_downtme_s", "`max_downtime_s`"),
            ("state_dir", "statedir", "`state_dir`"),
            ("sentinels", "sentinel", "`sentinels`"),
            ("host = ", "hots = ", "`host`"),
        ] {
            let error = changed(from, to).unwrap_err();
            assert!(error.contains(&format!("do you mean {wanted}?")), "{error}");
            assert!(error.contains("line "), "{error}");
        }
        let error = changed("max_downtime_s", "qqqqqqqqqqqq").unwrap_err();
        assert!(!error.contains("do you mean"), "{error}");
    }

    #[test]
    fn values_that_lead_astray_are_refused_where_they_stand() {
        for (from, to, why) in [
            ("\"core/mongodb/data\"", "\"../mongodb\"", "leads elsewhere"),
            ("\"core/mongodb/data\"", "\"core/../x\"", "leads elsewhere"),
            ("\"core/mongodb/data\"", "\"\"", "empty path"),
            ("\"core/mongodb/data\"", "\".\"", "ROOT itself"),
            ("root = \"/var/pryv\"", "root = \"var/pryv\"", "not absolute"),
            ("name = \"mongodb\"", "name = \"Mongo DB\"", "is no name"),
            ("kind = \"mongodb\"", "kind = \"mongo\"", "unknown variant"),
            ("start = \"run-core\"", "start = \"run-'core\"", "do not close"),
            ("start = \"run-core\"", "start = \"\"", "nothing to run"),
            ("start = \"run-core\"", "start = 7", "either a script"),
            ("host = \"old", "host = \"-oProxyCommand=x", "is no name"),
            ("address = \"192.0.2.10\"", "address = \"old\"", "IP address"),
        ] {
            let error = changed(from, to).unwrap_err();
            assert!(error.contains(why) && error.contains("line "), "{to}: {error}");
        }
    }

    #[test]
    fn values_that_contradict_each_other_are_refused() {
        for (from, to, why) in [
            ("path = \"core/core/data\"", "path = \"core/mongodb/data/x\"", "inside one another"),
            ("name = \"attachments\"", "name = \"mongodb\"", "are called"),
            ("/var/lib/sync-client", "/var/pryv/core/mongodb/data/state", "must outlive"),
            ("sentinels = [\"WiredTiger\"]", "sentinels = [\"WiredTiger\"]\ndelete = false", "exact mirror"),
        ] {
            let error = changed(from, to).unwrap_err();
            assert!(error.contains(why), "{to}: {error}");
        }
    }

    #[test]
    fn what_could_not_be_seen_when_it_counts_is_refused_beforehand() {
        let text = init::plan(Layout::Of2019);
        let (source, destination) = text.split_once("[destination.service]\n").unwrap();
        let blind = destination.replacen("containers = [", "containers = []\n# [", 1);
        let certificate = text.find("[certificate]").unwrap()..text.find("[proxy]").unwrap();
        let mut unseen = text.clone();
        unseen.replace_range(certificate, "");
        for (text, why) in [
            (format!("{source}[destination.service]\n{blind}"), "when it is healthy"),
            (unseen.clone(), "who answers"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        assert!(parse(&unseen.replace("# check = [\"curl\", …]", "check = [\"true\"] ")).is_ok());
        assert!(parse(&format!("{source}[destination.service]\nhealth = [\"true\"]\n{blind}")).is_ok());
    }

    #[test]
    fn a_program_with_arguments_may_stand_for_a_script() {
        let plan = changed(
            "stop = \"stop-containers\"",
            "stop = [\"docker-compose\", \"-f\", \"core.yml\", \"stop\"]",
        );
        assert_eq!(plan.unwrap().source.service.stop.to_string(), "docker-compose -f core.yml stop");
    }
}
