//! The whole platform on machines of a test's own: two cores, each a compose project on its own Docker Engine behind its own
//! sshd; two register hosts with their DNS servers; and an outside from which clients come.
//!
//! A core is nginx with TLS, `core`, `hfs` and `preview` ([`crate::core`]), and what stands for mongod: `wtload serve`, which
//! holds a real WiredTiger directory, writes to it all the time and keeps the core's documents in it. Scripts, compose file and
//! nginx configuration are in `deployment/`, written after the platform's own. `ensure-permissions-core` also puts the database
//! aside as it was copied, as long as nothing was started on it. The plan is the one that `check --init` prints, with names and addresses put in.

use crate::engine::{Engine, Image};
use crate::machine::Machine;
use crate::nginx::{self, Certificate};
use crate::platform::Register;
use crate::process::{self, Output, Running, until};
use crate::requirement::installed;
use crate::sandbox::{Sandbox, program, write_private};
use crate::sshd::{Agent, Options, Sshd};
use crate::tree::write_at;
use crate::wiredtiger::{Database, loader};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// The account whose data is looked for.
pub const USER: &str = "ann";
/// Its password.
pub const PASSWORD: &str = "correct horse battery staple";
/// The domain that [`crate::core`] trusts.
const DOMAIN: &str = crate::core::DOMAIN;
/// ROOT, as each core's machine knows it.
pub const ROOT: &str = "/srv/pryv";
/// Below ROOT.
pub const DATABASE: &str = "core/mongodb/data";
/// Below ROOT.
pub const ATTACHMENTS: &str = "core/core/data";
/// Below ROOT.
pub const SITE: &str = "core/nginx/conf/site-443.conf";
/// The services of a core, sorted.
pub const SERVICES: [&str; 5] = ["core", "hfs", "mongodb", "preview", "reverse_proxy"];
/// What may take long on a busy machine.
pub const SOON: Duration = Duration::from_secs(300);

/// Collections of the database, beside those of the documents.
const COLLECTIONS: u32 = 2;
const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const DESTINATION: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
const SLAVE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 4);

/// The register's file; the address is that of the source.
pub const NAMES: &str = r#"{
  "dns": {"defaultTTL": 7200, "staticDataInDomain": {
    "mail": {"ip": "192.0.2.1"},
    "co1": {"description": "the core", "ip": "10.77.0.1"}
  }}
}
"#;

/// Scripts without an interpreter's line, or one behind a space, as the platform's are.
const SCRIPTS: [(&str, &str); 3] = [
    ("run-core", " #!/usr/bin/env bash\ntouch ../is-started\ndocker-compose -f core.yml up -d\n"),
    ("stop-containers", "rm -f ../is-started\ndocker stop $(docker ps -q)\n"),
    (
        "ensure-permissions-core",
        "chown -R 9999:9999 core/{core,hfs,influxdb,preview}/{data,log}\nchown -R 999:999 core/mongodb/{data,log}\n\
         [[ -e ../is-started ]] && exit\nrm -rf ../as-copied\ncp -a core/mongodb/data ../as-copied\n",
    ),
];

/// A core: its machine, its engine.
#[derive(Debug)]
pub struct Side {
    /// The engine; dropped before the machine's directories.
    pub engine: Engine,
    /// Where it runs.
    pub machine: Machine,
    sshd: Sshd,
}

/// All of it; ended with all that runs in it when dropped.
#[derive(Debug)]
pub struct Deployment {
    /// The old core: up, with an account.
    pub source: Side,
    /// The new core: deployed, down, with the data of its first start.
    pub destination: Side,
    /// Master and slave.
    pub registers: [Register; 2],
    outside: Machine,
    register_sshd: Sshd,
    certificate: Certificate,
    sandbox: Sandbox,
}

impl Side {
    /// ROOT, from outside its machine.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.machine.srv().join("pryv")
    }

    /// Runs a script of ROOT by hand.
    pub fn script(&self, name: &str) {
        let mut command = self.machine.command("sh");
        command.args(["-c", &format!("cd {ROOT} && bash {name}")]);
        process::run(command).success();
    }

    fn deploy(&self, certificate: &Certificate) {
        let root = self.root();
        for service in ["core", "hfs", "mongodb", "preview", "nginx", "influxdb"] {
            for part in ["conf", "data", "log"] {
                fs::create_dir_all(root.join("core").join(service).join(part)).expect("new");
            }
        }
        fs::create_dir_all(root.join("core/nginx/conf/secret")).expect("new");
        for (name, text) in SCRIPTS.into_iter().chain([
            ("core.yml", include_str!("deployment/core.yml")),
            ("core/nginx/conf/nginx.conf", include_str!("deployment/nginx.conf")),
            (SITE, include_str!("deployment/site-443.conf")),
            (
                "core/core/conf/core.json",
                r#"{"auth": {"adminAccessKey": "s3cret", "filesReadTokenSecret": "t0ken"}}"#,
            ),
        ]) {
            fs::write(root.join(name), text).expect("new");
        }
        for (file, name) in
            [(&certificate.chain, "bundle.crt"), (&certificate.key, "key.pem"), (&certificate.root, "ca.crt")]
        {
            fs::copy(file, root.join("core/nginx/conf/secret").join(name)).expect("new");
        }
    }

    /// Whether something that a step began still goes on here.
    fn is_at_work(&self) -> bool {
        ["timeout", "docker-compose", "sync-agent"].iter().any(|name| self.machine.runs(name))
    }
}

impl Deployment {
    /// The source is up with an account and data; the destination is deployed and down.
    ///
    /// # Panics
    /// Where something does not come up.
    #[must_use]
    pub fn start() -> Deployment {
        let sandbox = Sandbox::new();
        let certificate = nginx::certificate(&sandbox, DOMAIN);
        let machine =
            |name: &str, address| Machine::start(&sandbox.path().join("machines").join(name), name, address);
        let outside = machine("outside", OUTSIDE);
        let cores = [machine("source", SOURCE), machine("destination", DESTINATION)];
        outside.switch(&[&cores[0], &cores[1]], &[SLAVE]);
        let [source, destination] = cores.map(|machine| side(&sandbox, machine));
        let registers = [("master", OUTSIDE), ("slave", SLAVE)].map(|(name, address)| {
            let socket = outside.in_network(|| UdpSocket::bind((address, 53)).expect("its own port"));
            Register::at(socket, outside.srv().join(name), NAMES, None)
        });
        let register_sshd = sshd(&sandbox, &outside);
        let mut platform =
            Deployment { source, destination, registers, outside, register_sshd, certificate, sandbox };
        platform.import_images();
        platform.fill();
        platform.write_plan();
        platform
    }

    fn import_images(&mut self) {
        let below = self.sandbox.path();
        let service = below.join("core-service");
        let mut strip = Command::new(installed("strip"));
        strip.arg("-o").arg(&service).arg(program_of_tests("core-service"));
        process::run(strip).success();
        let snappy = Path::new("/usr/lib/x86_64-linux-gnu/libwiredtiger_snappy.so");
        let nginx = installed("nginx");
        let images = [
            (
                "registry.example.test/nginx:1.3.38",
                Image::of(below, &[(&nginx, "/usr/sbin/nginx")], &["var/lib/nginx", "var/log/nginx"]),
            ),
            (
                "registry.example.test/core:1.4.9",
                Image::of(below, &[(&service, "/usr/bin/core-service")], &["app"]),
            ),
            (
                "registry.example.test/mongodb:1.3.38",
                Image::of(
                    below,
                    &[(loader(), "/usr/bin/mongod"), (snappy, snappy.to_str().expect("ASCII"))],
                    &["app"],
                ),
            ),
        ];
        for side in [&mut self.source, &mut self.destination] {
            side.engine.wait();
            images.iter().for_each(|(name, image)| side.engine.import(image, name));
        }
    }

    /// Data at the source, its first start, an account; what a first start leaves at the destination.
    fn fill(&self) {
        for side in [&self.source, &self.destination] {
            side.deploy(&self.certificate);
        }
        let (source, destination) = (self.source.root(), self.destination.root());
        fs::remove_dir(source.join(DATABASE)).expect("it is empty");
        let _ = Database::create(&source.join(DATABASE), COLLECTIONS, 2000, 7);
        for (file, content) in [
            ("core/core/data/attachments/u1/e1/f1", "an image".repeat(1000)),
            ("core/core/data/attachments/u1/e2/f1", "another".repeat(20_000)),
            ("core/core/data/previews/u1/e1", "made anew".to_owned()),
            ("core/influxdb/data/meta/meta.db", "points".repeat(100)),
            ("core/hfs/data/state", "x".to_owned()),
        ] {
            let path = source.join(file);
            fs::create_dir_all(path.parent().expect("below ROOT")).expect("new");
            write_at(&path, content.as_bytes(), 1_600_000_000);
        }
        for file in ["WiredTiger", "collection-of-the-first-start.wt", "WiredTigerLog.0000000099"] {
            fs::write(destination.join(DATABASE).join(file), "").expect("new");
        }
        self.source.script("ensure-permissions-core");
        self.source.script("run-core");
        let body = format!(r#"{{"username": "{USER}", "password": "{PASSWORD}"}}"#);
        let request = format!(
            "POST /system/create-user HTTP/1.1\r\nHost: {USER}.{DOMAIN}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        until(SOON, "an account at the source", || {
            self.try_ask(self.source.machine.address(), &request)?.contains(" 201 ").then_some(())
        });
    }

    fn write_plan(&self) {
        let home = self.destination.machine.home();
        let (key, known_hosts) = (home.join("migration"), home.join("known_hosts"));
        write_private(&key, &fs::read_to_string(self.sandbox.key()).expect("its key"));
        let trusted = |address: Ipv4Addr, sshd: &Sshd| {
            sshd.host_keys()
                .iter()
                .map(|key| format!("[{address}]:{} {key}\n", sshd.port()))
                .collect::<String>()
        };
        let hosts = trusted(SOURCE, &self.source.sshd) + &trusted(OUTSIDE, &self.register_sshd);
        write_private(&known_hosts, &hosts);
        write_private(&home.join("password"), PASSWORD);
        let made = self.step(&["check", "--init", "--layout", "2019"]).success().stdout_text();
        let register_ssh = format!(
            "ssh = {{ host = \"{OUTSIDE}\", port = {}, user = \"root\", identities = [{key:?}], known_hosts = [{known_hosts:?}] }}",
            self.register_sshd.port()
        );
        let host = |name: &str, address: Ipv4Addr| {
            format!(
                "[[register.hosts]]\nname = \"{name}\"\nroot = \"/srv/{name}\"\n{register_ssh}\n\
                 dns_file = \"conf/dns.json\"\nrestart = \"restart\"\ndns = \"{address}:53\"\n\n"
            )
        };
        let probe = format!(
            "[probe]\nurl = \"https://{{username}}.{DOMAIN}\"\norigin = \"https://sw.{DOMAIN}\"\nca_file = {:?}\n\
             accounts = [{{ username = \"{USER}\", password_file = {:?} }}]\n",
            self.certificate.root,
            home.join("password"),
        );
        let (before, _) = made.split_once("[[register.hosts]]").expect("the preset has register hosts");
        let mut plan = format!("{before}{}{}{probe}", host("master", OUTSIDE), host("slave", SLAVE));
        let (port, state) = (self.source.sshd.port(), home.join("state"));
        for (preset, here) in [
            ("\"/var/lib/sync-client/migration\"", format!("{state:?}")),
            ("\"/var/pryv\" ", format!("{ROOT:?} ")),
            ("\"/var/pryv\"\n", format!("{ROOT:?}\n")),
            ("192.0.2.10", SOURCE.to_string()),
            ("192.0.2.20", DESTINATION.to_string()),
            ("old-core.example.com", SOURCE.to_string()),
            ("port = 22\n", format!("port = {port}\n")),
            ("\"~/.ssh/migration\"", format!("{key:?}")),
            ("\"~/.ssh/known_hosts\"", format!("{known_hosts:?}")),
            ("example.com", DOMAIN.to_owned()),
            (
                "# trusted_certificate = \"/etc/ssl/certs/ca-certificates.crt\"",
                "trusted_certificate = \"/app/conf/secret/ca.crt\"".to_owned(),
            ),
        ] {
            assert!(plan.contains(preset), "the preset has no {preset}");
            plan = plan.replace(preset, &here);
        }
        fs::write(home.join("plan.toml"), plan).expect("its home");
    }

    /// `sync-client ARGUMENTS` on the destination, not yet started.
    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = self.destination.machine.command(program("sync-client"));
        // What curl trusts, where the system does not know the authority.
        command.args(arguments).env("CURL_CA_BUNDLE", &self.certificate.root);
        command
    }

    /// Runs `sync-client` on the destination.
    #[must_use]
    pub fn step(&self, arguments: &[&str]) -> Output {
        process::run(self.client(arguments))
    }

    /// Starts `sync-client` on the destination.
    #[must_use]
    pub fn start_step(&self, arguments: &[&str]) -> Running {
        Running::start(self.client(arguments))
    }

    /// Waits until nothing that a killed step began goes on at either core.
    pub fn wait_for_stillness(&self) {
        until(SOON, "stillness", || {
            let sides = [&self.source, &self.destination];
            sides.iter().all(|side| !side.is_at_work()).then_some(())
        });
    }

    /// The whole records of the journal.
    #[must_use]
    pub fn records(&self) -> Vec<Value> {
        let journal = self.destination.machine.home().join("state/journal.jsonl");
        let text = fs::read_to_string(journal).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).expect("a record is JSON")).collect()
    }

    /// What `status` says.
    #[must_use]
    pub fn status(&self) -> Value {
        let text = self.step(&["status", "--json"]).success().stdout_text();
        serde_json::from_str(text.lines().next().expect("a line")).expect("JSON")
    }

    /// The digest of a copy of a database that nothing writes to, with the core's documents.
    #[must_use]
    pub fn digest(&self, path: &Path) -> String {
        Database::at(path, COLLECTIONS + 1).digest(&self.sandbox)
    }

    /// Sends a request from outside to an address, and gives all that comes back.
    ///
    /// # Panics
    /// Where nobody answers.
    #[must_use]
    pub fn ask(&self, address: Ipv4Addr, path: &str) -> String {
        let request = nginx::request("GET", path, &format!("{USER}.{DOMAIN}"));
        self.try_ask(address, &request).expect("somebody answers")
    }

    fn try_ask(&self, address: Ipv4Addr, request: &str) -> Option<String> {
        let mut stream = self.connect(address)?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        // nginx may end a connection without a word of TLS.
        let _ = stream.read_to_end(&mut answer);
        Some(String::from_utf8_lossy(&answer).into_owned())
    }

    /// What comes back through a websocket for `word`, four bytes long; none where there is no upgrade.
    #[must_use]
    pub fn websocket(&self, address: Ipv4Addr, word: &str) -> Option<String> {
        let mut stream = self.connect(address)?;
        let request = format!(
            "GET /socket.io/1/ HTTP/1.1\r\nHost: {USER}.{DOMAIN}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        String::from_utf8_lossy(&head).starts_with("HTTP/1.1 101 ").then_some(())?;
        stream.write_all(word.as_bytes()).ok()?;
        let mut echo = [0; 4];
        stream.read_exact(&mut echo).ok()?;
        Some(String::from_utf8_lossy(&echo).into_owned())
    }

    /// TLS with a core's nginx, which must have the certificate of the user's name.
    fn connect(&self, address: Ipv4Addr) -> Option<StreamOwned<ClientConnection, TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(&self.certificate.root).expect("it was made"))
            .expect("it is one");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the versions that are known")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(format!("{USER}.{DOMAIN}")).expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a configuration that fits");
        let stream = self.outside.in_network(|| TcpStream::connect((address, 443))).ok()?;
        stream.set_read_timeout(Some(SOON)).expect("a socket option");
        Some(StreamOwned::new(connection, stream))
    }
}

fn side(sandbox: &Sandbox, machine: Machine) -> Side {
    let data = sandbox.path().join(format!("docker-{}", machine.name()));
    let engine = Engine::start(&machine, &data);
    let sshd = sshd(sandbox, &machine);
    Side { engine, machine, sshd }
}

fn sshd(sandbox: &Sandbox, machine: &Machine) -> Sshd {
    let options = Options { agent: Agent::Built, machine: Some(machine.clone()), ..Options::default() };
    Sshd::start_with(sandbox, &options)
}

/// A program of this package, built with the tests.
fn program_of_tests(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    let profile = test.parent().and_then(Path::parent).expect("cargo puts tests in target/PROFILE/deps");
    let program = profile.join(name);
    assert!(program.is_file(), "{} is not built: run the tests by cargo", program.display());
    program
}
