//! `probe` against a core on loopback that speaks the platform's API over TLS, and keeps its data in files that `sync` copies.

use serde_json::Value;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tests::core::{Core, DOMAIN, Fault, MESSAGE, Manner};
use tests::nginx::{self, Certificate, certificate, new_certificate};
use tests::process::{self, Output};
use tests::require;
use tests::sandbox::{Sandbox, write_private};

const PASSWORD: &str = "correct horse battery staple";
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Also loopback: the other core, on the same port.
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A core at the source with one account, and a plan.
struct Probe {
    sandbox: Sandbox,
    certificate: Certificate,
    source: Core,
}

impl Probe {
    fn new() -> Probe {
        let sandbox = Sandbox::new();
        let certificate = certificate(&sandbox, DOMAIN);
        let source = Core::start(&sandbox.source(), HERE, 0, &certificate.chain, &certificate.key);
        source.make_account("ann", PASSWORD);
        let probe = Probe { sandbox, certificate, source };
        write_private(&probe.password_file(), &format!("{PASSWORD}\n"));
        probe.write_plan(|plan| plan);
        probe
    }

    fn password_file(&self) -> PathBuf {
        self.sandbox.home().join("password")
    }

    fn state(&self) -> PathBuf {
        self.sandbox.path().join("state")
    }

    fn write_plan(&self, change: impl FnOnce(String) -> String) {
        let service =
            "[SIDE.service]\nstart = \"run-core\"\nstop = \"stop-containers\"\nhealth = \"is-well\"\n";
        let side = |side: &str, address: IpAddr| {
            let service = service.replace("SIDE", side);
            format!("[{side}]\nroot = \"/nowhere/{side}\"\naddress = \"{address}\"\n{service}")
        };
        let plan = format!(
            "layout = \"2019\"\nstate_dir = {:?}\n{}{}[[data]]\nname = \"mongodb\"\nkind = \"mongodb\"\npath = \"data\"\n\
             [probe]\nurl = \"https://{{username}}.{DOMAIN}:{}\"\nca_file = {:?}\ntimeout_s = 2\n\
             accounts = [{{ username = \"ann\", password_file = {:?} }}]\n",
            self.state(),
            side("source", HERE),
            side("destination", THERE),
            self.source.address.port(),
            self.certificate.root,
            self.password_file(),
        );
        fs::write(self.sandbox.home().join("plan.toml"), change(plan)).expect("a file of the sandbox");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let output = self.sandbox.client([&["probe"], arguments].concat());
        let printed = format!("{}{}", output.stdout_text(), output.stderr_text());
        for secret in [PASSWORD, "token-of-", "read-Instant", MESSAGE, "70.25"] {
            assert!(!printed.contains(secret), "{secret:?} was printed\n{output}");
        }
        output
    }

    fn create(&self) {
        self.run(&["create"]).success();
    }

    /// Copies the source's data, and starts a core on it.
    fn migrate(&self) -> Core {
        let from = format!("{}/", self.sandbox.source().display());
        let destination = self.sandbox.destination();
        self.sandbox.sync(["-a", "--delete", &from, &format!("{}/", destination.display())]).success();
        let port = self.source.address.port();
        Core::start(&destination, THERE, port, &self.certificate.chain, &self.certificate.key)
    }

    fn destination_file(&self, file: &str) -> PathBuf {
        self.sandbox.destination().join(file)
    }
}

fn has_line(output: &Output, line: &str) {
    assert!(output.stdout_text().lines().any(|other| other == line), "no line {line:?}\n{output}");
}

fn change(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).expect("it is there");
    assert!(text.contains(from), "no {from:?} in {text}");
    fs::write(path, text.replacen(from, to, 1)).expect("a file of the sandbox");
}

#[test]
fn what_was_made_at_the_source_is_found_at_the_destination() {
    require!("openssl");
    let probe = Probe::new();
    let made = probe.run(&["create"]);
    made.success();
    assert!(
        made.stdout_text().starts_with(
            "ann: 5 made that were not there; it holds 1 stream, 4 events, 1 attachment, 1 series\n"
        ),
        "{made}"
    );
    let _destination = probe.migrate();
    let found = probe.run(&["check"]);
    found.success();
    assert!(
        found.stdout_text().starts_with("ann: identical: 1 stream, 4 events, 1 attachment, 1 series, as of "),
        "{found}"
    );
    let status = probe.sandbox.client(["status"]);
    assert!(status.stdout_text().contains("probe create, probe check"), "{status}");
}

#[test]
fn making_it_twice_makes_it_once_and_what_was_cut_off_is_completed() {
    require!("openssl");
    let probe = Probe::new();
    probe.create();
    let again = probe.run(&["create", "--json"]);
    let first: Value =
        serde_json::from_str(again.stdout_text().lines().next().expect("a line")).expect("JSON");
    assert_eq!((&first["made"], &first["events"]), (&Value::from(0), &Value::from(4)), "{again}");
    assert_eq!(again.summary_number("exit_code"), 0);
    fs::remove_dir_all(probe.sandbox.source().join("ann/series")).expect("it is there");
    fs::create_dir(probe.sandbox.source().join("ann/series")).expect("it was removed");
    let completed = probe.run(&["create"]);
    assert!(completed.stdout_text().starts_with("ann: 1 made"), "{completed}");
    assert_eq!(fs::read_dir(probe.sandbox.source().join("ann/series")).expect("it is there").count(), 1);
}

#[test]
fn the_snapshot_is_private_and_holds_hashes_alone() {
    require!("openssl");
    let probe = Probe::new();
    probe.create();
    let path = probe.state().join("probe.json");
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
    let written = fs::read_to_string(&path).expect("text")
        + &fs::read_to_string(probe.state().join("journal.jsonl")).expect("text");
    for secret in
        [PASSWORD, "token-of-", "read-", "readToken", "70.25", "Made to be looked for", "sync-client.png"]
    {
        assert!(!written.contains(secret), "{secret:?} is in {written}");
    }
}

#[test]
fn either_form_of_a_stream_is_found_out() {
    require!("openssl");
    for manner in [
        Manner { only_stream_ids: true, ..Manner::default() },
        Manner { only_stream_id: true, ..Manner::default() },
    ] {
        let probe = Probe::new();
        probe.source.behave(manner);
        probe.create();
        let again = probe.run(&["create"]);
        assert!(again.stdout_text().starts_with("ann: 0 made"), "{again}");
    }
}

#[test]
fn the_picture_arrives_as_it_was_made() {
    require!("openssl");
    let probe = Probe::new();
    probe.create();
    let file = probe.sandbox.source().join("attachments/ann/c000000000000000000000002/file1");
    let bytes = fs::read(file).expect("it was attached");
    assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes.ends_with(b"IEND\xae\x42\x60\x82"));
    assert!(bytes.len() > 20_000, "{}", bytes.len());
}

/// What happens to a file of the destination.
enum Damage {
    Replaced(&'static str, &'static str),
    Flipped(usize),
    Removed,
    Made(&'static str),
}

impl Damage {
    fn happen(&self, path: &Path) {
        match self {
            Damage::Replaced(from, to) => change(path, from, to),
            Damage::Flipped(at) => {
                let mut bytes = fs::read(path).expect("it is there");
                bytes[*at] ^= 1;
                fs::write(path, bytes).expect("a file of the sandbox");
            }
            Damage::Removed => fs::remove_file(path).expect("it is there"),
            Damage::Made(text) => fs::write(path, text).expect("a file of the sandbox"),
        }
    }
}

#[test]
fn every_difference_is_named() {
    require!("openssl");
    let probe = Probe::new();
    probe.create();
    let _destination = probe.migrate();
    let picture = "attachments/ann/c000000000000000000000002/file1";
    let stream = "ann/streams/sync-probe.json";
    let series = "ann/series/c000000000000000000000003.json";
    for (file, damage, line) in [
        (picture, Damage::Flipped(9000), "attachment c000000000000000000000002/file1 differs"),
        (picture, Damage::Removed, "attachment c000000000000000000000002/file1 is missing"),
        (
            "ann/events/000000.json",
            Damage::Replaced("looked for", "forgotten"),
            "event c000000000000000000000000 differs in content",
        ),
        (
            "ann/events/000001.json",
            Damage::Replaced("{", "{\"trashed\": true, "),
            "event c000000000000000000000001 differs in trashed",
        ),
        ("ann/events/000001.json", Damage::Removed, "event c000000000000000000000001 is missing"),
        (
            "ann/events/000009.json",
            Damage::Made(r#"{"id": "later", "trashed": true}"#),
            "event later was not there before",
        ),
        (stream, Damage::Replaced("\"name\":\"sync", "\"name\":\"x"), "stream sync-probe differs in name"),
        (series, Damage::Replaced("[0,", "[0.5,"), "series c000000000000000000000003 differs"),
        (series, Damage::Removed, "series c000000000000000000000003 is missing"),
    ] {
        let path = probe.destination_file(file);
        let before = fs::read(&path).ok();
        damage.happen(&path);
        let output = probe.run(&["check"]);
        output.expect_code(45);
        has_line(&output, &format!("ann: {line}"));
        assert!(output.stdout_text().contains("ann: 1 difference since "), "{output}");
        match before {
            Some(bytes) => fs::write(&path, bytes).expect("a file of the sandbox"),
            None => fs::remove_file(&path).expect("it was made"),
        }
        probe.run(&["check"]).success();
    }
}

#[test]
fn through_the_sources_nginx_it_is_the_destination_that_answers() {
    require!("openssl", "nginx");
    let probe = Probe::new();
    probe.create();
    let destination = probe.migrate();
    let before = probe.source.requests().len();
    let port = TcpListener::bind((HERE, 0)).expect("a free port").local_addr().expect("it is bound").port();
    let directory = probe.sandbox.path().join("nginx");
    let (chain, key) = (probe.certificate.chain.display(), probe.certificate.key.display());
    let site = directory.join("site-443.conf");
    let configuration = nginx::write_configuration(&directory, &format!("include {};", site.display()));
    let text = format!(
        "upstream core_server {{\n  server {};\n}}\nserver {{\n  listen 127.0.0.1:{port} ssl;\n  ssl_certificate {chain};\n  \
         ssl_certificate_key {key};\n  location / {{\n    proxy_set_header Host $http_host;\n    proxy_pass http://core_server;\n  }}\n}}\n",
        probe.source.address
    );
    fs::write(&site, text).expect("a file of the sandbox");
    let (file, to) = (site.display().to_string(), destination.address.to_string());
    let root = probe.certificate.root.display().to_string();
    let enable = ["proxy", "enable", "--file", &file, "--to", &to, "--trusted-certificate", &root, "--yes"];
    probe.sandbox.client(enable).success();
    let _nginx = nginx::start(&probe.sandbox, &configuration, port);
    let output = probe.run(&["check", "--at", &format!("127.0.0.1:{port}")]);
    output.success();
    assert_eq!(probe.source.requests().len(), before, "the source was asked itself");
    assert!(destination.requests().len() > 5);
}

#[test]
fn differences_are_objects_for_programs() {
    require!("openssl");
    let probe = Probe::new();
    probe.create();
    let _destination = probe.migrate();
    change(&probe.destination_file("ann/events/000000.json"), "looked for", "forgotten");
    let output = probe.run(&["check", "--json"]);
    output.expect_code(45);
    let objects: Vec<Value> = output
        .stdout_text()
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect();
    assert_eq!(objects[0]["event"], "difference");
    assert_eq!((&objects[0]["kind"], &objects[0]["how"]), (&Value::from("event"), &Value::from("changed")));
    assert_eq!(objects[0]["fields"], serde_json::json!(["content"]));
    assert_eq!(objects[1]["differences"], 1);
    assert_eq!(output.summary()["command"], "probe check");
    let status = probe.sandbox.client(["status"]);
    assert!(status.stdout_text().contains("\nprobe check  1 difference, "), "{status}");
}

#[test]
fn all_pages_are_read_however_small_the_service_makes_them() {
    require!("openssl");
    let probe = Probe::new();
    for part in ["events", "streams"] {
        fs::create_dir_all(probe.sandbox.source().join("ann").join(part))
            .expect("a directory of the sandbox");
    }
    for number in 100..131 {
        let event =
            serde_json::json!({"id": format!("old{number}"), "streamId": "old", "trashed": number % 2 == 0});
        let path = probe.sandbox.source().join(format!("ann/events/{number:06}.json"));
        fs::write(path, event.to_string()).expect("a file of the sandbox");
    }
    for (id, parent) in [("old", None), ("below", Some("old")), ("deep", Some("below"))] {
        let stream = serde_json::json!({"id": id, "name": id, "parentId": parent});
        let path = probe.sandbox.source().join(format!("ann/streams/{id}.json"));
        fs::write(path, stream.to_string()).expect("a file of the sandbox");
    }
    probe.source.behave(Manner { page: Some(4), ..Manner::default() });
    let output = probe.run(&["create"]);
    assert!(output.stdout_text().contains("holds 4 streams, 35 events, "), "{output}");
    probe.source.behave(Manner { page: Some(4), ignores_skip: true, ..Manner::default() });
    probe.run(&["create"]).expect_code(12).expect_stderr("on two pages");
}

#[test]
fn each_failure_of_the_service_has_its_message_and_status() {
    require!("openssl");
    let probe = Probe::new();
    probe.create();
    let elsewhere = TcpListener::bind((HERE, 0)).expect("a free port");
    elsewhere.set_nonblocking(true).expect("a socket option");
    let to = format!(
        "https://elsewhere.test:{}/?auth=secret",
        elsewhere.local_addr().expect("it is bound").port()
    );
    for (line, fault, code, message) in [
        (
            "GET /streams",
            Fault::Status(401),
            42,
            "401 Unauthorized, refused-as-invalid-access; the token was not taken",
        ),
        ("GET /streams", Fault::Status(403), 46, "403 Forbidden, refused-as-forbidden; this account may not"),
        (
            "GET /events?",
            Fault::Status(404),
            46,
            "404 Not Found, refused-as-unknown-resource; nothing is there",
        ),
        ("POST /auth", Fault::Status(401), 42, "ann can't log in at"),
        (
            "POST /auth",
            Fault::Status(502),
            46,
            "502 Bad Gateway, refused-as-unexpected; the service is in trouble",
        ),
        ("GET /events/c", Fault::Status(403), 46, "403 Forbidden"),
        ("GET /streams", Fault::Redirect(to), 46, "sends on to another address (https://elsewhere.test"),
        ("GET /events?", Fault::Silence, 30, "said nothing for too long"),
        ("GET /events/c", Fault::Silence, 30, "said nothing for too long"),
        ("GET /events?", Fault::Endless(80 << 20), 12, "is longer than"),
        ("GET /events?", Fault::Body("<html>hello</html>"), 12, "no JSON object"),
        ("GET /events?", Fault::Body("{\"events\": 7}"), 12, "no list of events"),
        ("GET /events?", Fault::Body("{\"events\": [{\"id\": \"../../x\"}]}"), 12, "an id that is none"),
        ("POST /auth", Fault::Body("{}"), 12, "no token"),
        ("POST /auth", Fault::Body("{\"token\": \"a\\r\\nb\"}"), 12, "no token"),
    ] {
        probe.source.behave(Manner { fault: Some((line, fault)), ..Manner::default() });
        let output = probe.run(&["check", "--at", "source"]);
        output.expect_code(code).expect_stderr(message);
        assert!(!output.stderr_text().contains("auth=secret"), "{output}");
    }
    assert!(elsewhere.accept().is_err(), "a redirect was followed");
    probe.source.behave(Manner::default());
    probe.run(&["check", "--at", "source"]).success();
}

#[test]
fn a_wrong_password_is_a_refused_login() {
    require!("openssl");
    let probe = Probe::new();
    write_private(&probe.password_file(), "a guess");
    probe.run(&["create"]).expect_code(42).expect_stderr("ann can't log in at 127.0.0.1");
    assert!(!probe.state().join("probe.json").exists());
}

#[test]
fn what_fails_below_http_is_told_apart() {
    require!("openssl");
    let probe = Probe::new();
    probe.create();
    let silent = TcpListener::bind((HERE, 0)).expect("a free port");
    let closed = TcpListener::bind((HERE, 0)).expect("a free port").local_addr().expect("it is bound");
    let at = |address: SocketAddr| address.to_string();
    let silent = at(silent.local_addr().expect("it is bound"));
    probe.run(&["check", "--at", &at(closed)]).expect_code(10).expect_stderr("is the service up");
    probe.run(&["check", "--at", &silent]).expect_code(30).expect_stderr("said nothing for too long");

    let other = certificate(&probe.sandbox, "other.test");
    let core = Core::start(&probe.sandbox.source(), HERE, 0, &other.chain, &other.key);
    probe.run(&["check", "--at", &at(core.address)]).expect_code(41).expect_stderr("no known authority");
    let root = probe.certificate.root.display().to_string();
    let other_root = other.root.display().to_string();
    probe.write_plan(|plan| plan.replace(&root, &other_root));
    probe.run(&["check", "--at", &at(core.address)]).expect_code(41).expect_stderr("it is for another name");
    assert!(core.requests().is_empty(), "something was sent to a machine that is not the core");
    probe.write_plan(|plan| plan.replace("ca_file", "verify = false\nca_file"));
    probe.run(&["check", "--at", &at(core.address)]).success();
}

#[test]
fn a_certificate_that_signed_itself_is_taken_where_the_plan_names_it() {
    require!("openssl");
    let probe = Probe::new();
    probe.create();
    let file = |name: &str| probe.sandbox.path().join(name);
    for (constraints, code, message) in [("CA:FALSE", 0, ""), ("CA:TRUE", 41, "`verify = false`")] {
        let mut command = new_certificate(&probe.sandbox);
        command.args(["-subj", "/CN=self", "-addext", &format!("subjectAltName=DNS:*.{DOMAIN}")]);
        command.args(["-addext", &format!("basicConstraints=critical,{constraints}")]);
        command.arg("-keyout").arg(file("self.key")).arg("-out").arg(file("self.crt"));
        process::run(command).success();
        let core = Core::start(&probe.sandbox.source(), HERE, 0, &file("self.crt"), &file("self.key"));
        let root = probe.certificate.root.display().to_string();
        let own = file("self.crt").display().to_string();
        probe.write_plan(|plan| plan.replace(&root, &own));
        let output = probe.run(&["check", "--at", &core.address.to_string()]);
        output.expect_code(code).expect_stderr(message);
    }
}

#[test]
fn passwords_come_from_a_private_file_or_a_variable() {
    require!("openssl");
    let probe = Probe::new();
    fs::set_permissions(probe.password_file(), fs::Permissions::from_mode(0o640)).expect("the file is ours");
    probe.run(&["create"]).expect_code(42).expect_stderr("chmod 600");
    fs::remove_file(probe.password_file()).expect("it is there");
    probe.run(&["create"]).expect_code(42).expect_stderr("cannot read the password");
    let file = format!("password_file = {:?}", probe.password_file());
    probe.write_plan(|plan| plan.replace(&file, "password_env = \"PROBE_PASSWORD\""));
    probe.run(&["create"]).expect_code(1).expect_stderr("PROBE_PASSWORD that the plan names is not set");
    let mut command = probe.sandbox.client_command(["probe", "create"]);
    command.env("PROBE_PASSWORD", PASSWORD);
    process::run(command).success();
}

#[test]
fn nothing_is_sent_in_clear_to_another_machine() {
    require!("openssl");
    let probe = Probe::new();
    probe.write_plan(|plan| plan.replace("https://", "http://"));
    probe.run(&["create", "--at", "192.0.2.1"]).expect_code(1).expect_stderr("write https");
}

#[test]
fn a_rehearsal_asks_nobody_and_writes_nothing() {
    require!("openssl");
    let probe = Probe::new();
    fs::remove_file(probe.password_file()).expect("it is there");
    let output = probe.run(&["create", "--dry-run"]);
    output.success();
    assert!(
        output.stdout_text().starts_with("would make the stream sync-probe in the account ann at 127.0.0.1:"),
        "{output}"
    );
    assert!(probe.source.requests().is_empty() && !probe.state().exists());
}

#[test]
fn what_can_no_longer_be_compared_is_refused() {
    require!("openssl");
    let probe = Probe::new();
    probe
        .run(&["check", "--at", "source"])
        .expect_code(46)
        .expect_stderr("run `sync-client probe create` before");
    probe.create();
    probe.source.make_account("bob", PASSWORD);
    let bob = format!("{{ username = \"bob\", password_file = {:?} }}, ", probe.password_file());
    probe.write_plan(|plan| plan.replace("accounts = [", &format!("accounts = [{bob}")));
    probe
        .run(&["check", "--at", "source"])
        .expect_code(46)
        .expect_stderr("bob is in the plan and not in the snapshot");
    probe.create();
    probe.write_plan(|plan| plan);
    probe
        .run(&["check", "--at", "source"])
        .expect_code(46)
        .expect_stderr("bob is in the snapshot and not in the plan");
}

#[test]
fn nothing_is_made_once_the_source_was_stopped() {
    require!("openssl");
    let probe = Probe::new();
    probe.create();
    let before = fs::read(probe.state().join("probe.json")).expect("it was written");
    let journal = probe.state().join("journal.jsonl");
    let mut text = fs::read_to_string(&journal).expect("text");
    let seq = text.lines().count();
    text.push_str(&format!(
        "{{\"seq\":{seq},\"time_ms\":1,\"step\":\"cold\",\"action\":\"stop source\",\"state\":\"begun\",\"data\":null}}\n"
    ));
    fs::write(journal, text).expect("a file of the sandbox");
    let asked = probe.source.requests().len();
    probe.run(&["create"]).expect_code(46).expect_stderr("the source was stopped");
    assert_eq!(probe.source.requests().len(), asked);
    assert_eq!(fs::read(probe.state().join("probe.json")).expect("it is there"), before);
}

#[test]
fn a_plan_that_names_no_account_is_refused_with_what_to_write() {
    require!("openssl");
    let probe = Probe::new();
    for (from, to, message) in [
        ("{username}", "ann", "place for the account's name"),
        ("username = \"ann\"", "username = \"ann.evil.test/\"", "is no name of an account"),
        ("timeout_s = 2", "marker = \"a b\"", "probe.marker"),
    ] {
        probe.write_plan(|plan| plan.replace(from, to));
        probe.run(&["create"]).expect_code(1).expect_stderr(message);
    }
    probe.write_plan(|plan| plan.split("[probe]").next().unwrap_or_default().to_owned());
    probe.run(&["create"]).expect_code(1).expect_stderr("the plan has no [probe]");
    probe.run(&["check", "--at", "old-core"]).expect_code(1).expect_stderr("write `source`, `destination`");
}
