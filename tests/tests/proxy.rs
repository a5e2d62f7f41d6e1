//! `proxy`: the edited configuration in a real nginx, in front of another one that stands for the destination.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tests::nginx::{self, Certificate, ask, request};
use tests::process::{self, Output, Running};
use tests::requirement::installed;
use tests::sandbox::{Sandbox, names_in, write_script};
use tests::seed::{Rng, seeds};
use tests::sshd::free_port;

const DOMAIN: &str = "example.test";
const USER: &str = "ann.example.test";

/// A source whose own servers are gone, as after `stop-containers`.
const SITE: &str = r#"upstream core_server {
  server 127.0.0.1:1;
  server 127.0.0.1:2;
}
upstream preview_server { server 127.0.0.1:3; }
upstream websocket_server {
  ip_hash;
  server 127.0.0.1:4; server 127.0.0.1:5;
}
upstream mfa_server { server 127.0.0.1:6; }
server {
  listen 127.0.0.1:SOURCE;
  server_name *.example.test;
  proxy_http_version 1.1;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Connection "upgrade";
  set $my_host $http_host;
  proxy_set_header Host $my_host;
  location / {
    proxy_pass http://core_server;
  }
  location /previews/ { proxy_pass http://preview_server/; }
  location /auth/login { proxy_pass http://mfa_server/login; }
  location ~* ^/short/(.*)$ {
    rewrite ^/short/(.*)$ /long/$1 break;
    proxy_pass http://core_server;
  }
  location /both {
    if ($arg_x) { proxy_pass http://core_server; }
    limit_except GET { proxy_pass http://mfa_server; }
    proxy_pass http://preview_server;
  }
  location /socket.io/ {
    proxy_pass http://websocket_server;
  }
  location = / {
    if ($request_method = GET) {
      set $my_host 'app.other.test';
    }
    proxy_pass https://127.0.0.1:OTHER/web/;
    proxy_set_header Host $my_host;
    limit_except GET {
      proxy_pass http://core_server;
    }
  }
}
"#;

/// Two machines on loopback: the source as an nginx without TLS, the destination with it.
struct Stage {
    sandbox: Sandbox,
    site: PathBuf,
    configuration: PathBuf,
    certificate: Certificate,
    source: u16,
    destination: u16,
    _destination: Running,
}

impl Stage {
    fn start() -> Stage {
        let sandbox = Sandbox::new();
        let certificate = nginx::certificate(&sandbox, DOMAIN);
        let other = nginx::certificate(&sandbox, "other.test");
        let (source, destination, other_port, preview) = (free_port(), free_port(), free_port(), free_port());
        let says = |who: &str| {
            format!(
                "return 200 \"{who} sni=$ssl_server_name host=$http_host $request_method $request_uri\\n\";"
            )
        };
        let (core, web) = (says("core"), says("web"));
        let tls = |certificate: &Certificate| {
            let (chain, key) = (certificate.chain.display(), certificate.key.display());
            format!("ssl_certificate {chain}; ssl_certificate_key {key};")
        };
        let http = format!(
            "upstream preview {{ server 127.0.0.1:{preview}; }}
             server {{ listen 127.0.0.1:{preview}; return 200 \"preview $request_uri\\n\"; }}
             server {{ listen 127.0.0.1:{other_port} ssl; {} {web} }}
             server {{ listen 127.0.0.1:{destination} ssl; server_name *.other.test; {} {core} }}
             server {{ listen 127.0.0.1:{destination} ssl; {}
               server_name *.{DOMAIN};
               location / {{ {core} }}
               location /previews/ {{ proxy_pass http://preview/; }}
               location /socket.io/ {{ proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
                 proxy_set_header Connection upgrade; proxy_pass http://127.0.0.1:{}; }} }}",
            tls(&other),
            tls(&other),
            tls(&certificate),
            nginx::websocket_echo(),
        );
        let configuration = nginx::write_configuration(&sandbox.path().join("new"), &http);
        let running = nginx::start(&sandbox, &configuration, destination);
        let site = sandbox.path().join("site-443.conf");
        let text = SITE.replace("SOURCE", &source.to_string()).replace("OTHER", &other_port.to_string());
        fs::write(&site, text).expect("a file of the sandbox");
        let include = format!("include {}/site*.conf;", sandbox.path().display());
        let configuration = nginx::write_configuration(&sandbox.path().join("old"), &include);
        Stage { sandbox, site, configuration, certificate, source, destination, _destination: running }
    }

    fn proxy(&self, arguments: &[&str]) -> Output {
        let (command, options) = arguments.split_first().expect("a command");
        let site = self.site.to_str().expect("ASCII");
        self.sandbox.client([&["proxy", command, "--file", site][..], options].concat())
    }

    /// `proxy enable` to the destination, tested by nginx.
    fn enable(&self, options: &[&str]) -> Output {
        let to = format!("127.0.0.1:{}", self.destination);
        self.proxy(
            &[&["enable", "--to", &to, "--yes", "--test-command", &self.test_command()][..], options]
                .concat(),
        )
    }

    fn enable_verified(&self) -> Output {
        self.enable(&["--trusted-certificate", self.certificate.root.to_str().expect("ASCII")])
    }

    fn test_command(&self) -> String {
        format!("nginx -e stderr -t -c {}", self.configuration.display())
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.site).expect("the site")
    }

    fn run_source(&self) -> Running {
        nginx::start(&self.sandbox, &self.configuration, self.source)
    }

    fn ask(&self, method: &str, path: &str) -> String {
        ask(self.source, &request(method, path, USER))
    }
}

#[test]
fn clients_of_two_names_get_each_their_own_also_over_resumed_tls_sessions() {
    tests::require!("nginx", "openssl");
    let stage = Stage::start();
    let other = stage.sandbox.path().join("certificates-other.test/root.crt");
    let roots = stage.sandbox.path().join("roots.crt");
    let both = [&stage.certificate.root, &other].map(|root| fs::read(root).expect("it was made")).concat();
    fs::write(&roots, both).expect("a new file");
    stage.enable(&["--trusted-certificate", roots.to_str().expect("ASCII")]).success();
    let _source = stage.run_source();
    for name in [USER, "bob.example.test", "bob.other.test", USER, "bob.other.test"] {
        let answer = ask(stage.source, &request("GET", "/events", name));
        assert!(body(&answer).contains(&format!("sni={name} host={name} ")), "{name}: {answer}");
    }
}

/// The end of what came back.
fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim_end())
}

#[test]
fn the_destination_answers_as_the_source_did_with_path_name_and_websockets() {
    tests::require!("nginx", "openssl");
    let stage = Stage::start();
    let before = stage.text();
    stage.enable_verified().success();
    let source = stage.run_source();
    for (method, path, expected) in [
        ("GET", "/events?a=%20b", "core sni=ann.example.test host=ann.example.test GET /events?a=%20b"),
        ("GET", "/previews/e1/x", "preview /e1/x"),
        ("POST", "/auth/login", "core sni=ann.example.test host=ann.example.test POST /auth/login"),
        ("GET", "/short/a%2Fb?c", "core sni=ann.example.test host=ann.example.test GET /short/a%2Fb?c"),
        ("GET", "/both", "core sni=ann.example.test host=ann.example.test GET /both"),
        ("GET", "/both?x=1", "core sni=ann.example.test host=ann.example.test GET /both?x=1"),
        ("POST", "/both", "core sni=ann.example.test host=ann.example.test POST /both"),
        // The one that stays gets no name in TLS and is not verified, as before.
        ("GET", "/", "web sni= host=app.other.test GET /web/"),
        ("POST", "/", "core sni=ann.example.test host=ann.example.test POST /"),
        ("OPTIONS", "/?x=1", "core sni=ann.example.test host=ann.example.test OPTIONS /?x=1"),
    ] {
        let answer = stage.ask(method, path);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{method} {path}: {answer}\n{}", source.printed());
        assert!(body(&answer).contains(expected), "{method} {path}: {answer}");
    }
    assert_eq!(websocket(stage.source), "ping");
    drop(source);
    stage.proxy(&["disable", "--yes", "--test-command", &stage.test_command()]).success();
    assert_eq!(stage.text(), before);
}

/// Upgrades a connection, sends four bytes, and gives what comes back.
fn websocket(port: u16) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket option");
    write!(
        stream,
        "GET /socket.io/ HTTP/1.1\r\nHost: {USER}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    )
    .expect("it reads");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream
            .read_exact(&mut byte)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&head)));
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream.write_all(b"ping").expect("it reads");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("it echoes");
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn the_written_procedure_to_the_letter_does_what_the_hazards_say() {
    tests::require!("nginx", "openssl");
    let stage = Stage::start();
    let to = format!("server 127.0.0.1:{};", stage.destination);
    // Only the servers are replaced, and `https` is written for two of the four.
    let mut text = stage.text();
    for server in [
        "server 127.0.0.1:1;\n  server 127.0.0.1:2;",
        "server 127.0.0.1:3;",
        "server 127.0.0.1:4; server 127.0.0.1:5;",
    ] {
        assert!(text.contains(server), "{server}");
        text = text.replace(server, &to);
    }
    let text = text.replace("http://core", "https://core").replace("http://preview", "https://preview");
    fs::write(&stage.site, text).expect("the site");
    let _source = stage.run_source();
    let websocket = stage.ask("GET", "/socket.io/");
    assert!(
        websocket.contains(" 400 ") && websocket.contains("plain HTTP request was sent to HTTPS port"),
        "{websocket}"
    );
    assert_eq!(body(&stage.ask("GET", "/previews/e1/x")).split(' ').next(), Some("core"));
    assert!(body(&stage.ask("GET", "/events")).contains("sni= "));
}

#[test]
fn a_destination_that_can_not_be_verified_gets_no_request_unless_told_so() {
    tests::require!("nginx", "openssl");
    let stage = Stage::start();
    let stranger = stage.sandbox.path().join("certificates-other.test/root.crt");
    for (options, status) in [
        (&["--trusted-certificate", stranger.to_str().expect("ASCII")][..], " 502 "),
        (&["--no-verify"], " 200 "),
    ] {
        stage.enable(options).success();
        let _source = stage.run_source();
        let answer = stage.ask("GET", "/events");
        assert!(answer.starts_with(&format!("HTTP/1.1{status}")), "{options:?}: {answer}");
    }
}

#[test]
fn a_test_that_fails_puts_the_old_file_back() {
    tests::require!("nginx", "openssl");
    let stage = Stage::start();
    let before = stage.text();
    let refused = stage.enable(&["--trusted-certificate", "/nowhere/ca.pem"]);
    refused
        .expect_code(46)
        .expect_stderr("/nowhere/ca.pem")
        .expect_stderr("the old file is in its place again");
    assert_eq!(stage.text(), before);
    // A test that is stopped is one that failed.
    let marker = stage.sandbox.path().join("testing");
    let script = stage.sandbox.path().join("slow");
    write_script(&script, &format!("#!/bin/sh\n: > {}\nsleep 1000\n", marker.display()));
    let to = format!("127.0.0.1:{}", stage.destination);
    let arguments = ["proxy", "enable", "--yes", "--to", &to, "--file"].map(str::to_owned);
    let mut command = stage.sandbox.client_command(arguments);
    command.arg(&stage.site).arg("--test-command").arg(&script);
    let mut running = Running::start(command);
    process::until(Duration::from_secs(20), "the test's beginning", || marker.exists().then_some(()));
    assert_ne!(stage.text(), before);
    running.signal(process::Signal::TERM);
    running.wait().expect_code(20);
    assert_eq!(stage.text(), before);
}

#[test]
fn the_file_keeps_its_link_mode_owner_and_attributes_and_nothing_else_is_loaded() {
    let sandbox = Sandbox::new();
    let (directory, links) = (sandbox.path().join("available"), sandbox.path().join("enabled"));
    fs::create_dir_all(&directory).expect("a new directory");
    fs::create_dir_all(&links).expect("a new directory");
    let (file, link) = (directory.join("site-443.conf"), links.join("site-443.conf"));
    fs::write(&file, SITE).expect("a new file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("it is ours");
    symlink("../available/site-443.conf", &link).expect("a new link");
    let has_attribute =
        rustix::fs::setxattr(&file, "user.kept", b"yes", rustix::fs::XattrFlags::empty()).is_ok();
    let before = fs::metadata(&file).expect("it is there");
    let proxy = |command: &str, options: &[&str]| {
        let file = link.to_str().expect("ASCII");
        sandbox.client([&["proxy", command, "--yes", "--file", file][..], options].concat())
    };
    for command in ["enable", "disable"] {
        let options: &[&str] = if command == "enable" { &["--to", "203.0.113.9"] } else { &[] };
        proxy(command, options).success();
        assert!(fs::symlink_metadata(&link).expect("the link").is_symlink());
        let after = fs::metadata(&file).expect("it is there");
        assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
        let mut value = [0; 8];
        let kept =
            rustix::fs::getxattr(&file, "user.kept", &mut value).is_ok_and(|len| &value[..len] == b"yes");
        assert_eq!(kept, has_attribute);
        let names = names_in(&directory);
        assert_eq!(names, ["site-443.conf", "site-443.conf.before-proxy"]);
        assert_eq!(names_in(&links), ["site-443.conf"]);
    }
    assert_eq!(fs::read_to_string(&file).expect("it is there"), SITE);
    assert_eq!(fs::read_to_string(directory.join("site-443.conf.before-proxy")).expect("a backup"), SITE);
    // Where `include *` may load all that is not hidden, the backup is.
    let bare = directory.join("site");
    fs::write(&bare, SITE).expect("a new file");
    let arguments =
        ["proxy", "enable", "--yes", "--to", "203.0.113.9", "--file", bare.to_str().expect("ASCII")];
    sandbox.client(arguments).success();
    assert!(directory.join(".site.before-proxy").exists());
}

#[test]
fn an_edit_that_is_there_already_is_tested_all_the_same() {
    let sandbox = Sandbox::new();
    let file = sandbox.path().join("site-443.conf");
    fs::write(&file, SITE).expect("a new file");
    let run = |test: &[&str]| {
        let name = file.to_str().expect("ASCII");
        let enable = ["proxy", "enable", "--to", "203.0.113.9", "--file", name, "--yes"];
        sandbox.client([&enable[..], test].concat())
    };
    // As after a kill while the test ran.
    run(&[]).success();
    let edited = fs::read(&file).expect("it is there");
    run(&["--test-command", "false"]).expect_code(46).expect_stderr("proxy disable takes the edit out");
    assert_eq!(fs::read(&file).expect("it is there"), edited);
    run(&["--test-command", "false", "--dry-run"]).success();
    let tested = run(&["--test-command", "true"]);
    let said = tested.success().stdout_text() + &tested.stderr_text();
    assert!(said.contains("it is so already, and tested"), "{tested}");
}

#[test]
fn nothing_is_changed_without_a_yes_and_a_dry_run_prints_what_patch_takes() {
    tests::require!("patch");
    let sandbox = Sandbox::new();
    let file = sandbox.path().join("site-443.conf");
    fs::write(&file, SITE.trim_end()).expect("a new file");
    let name = file.to_str().expect("ASCII");
    let enable = ["proxy", "enable", "--to", "203.0.113.9", "--file", name];
    let unasked = sandbox.client(enable);
    unasked.expect_code(46).expect_stderr("--yes");
    let dry = sandbox.client([&enable[..], &["--dry-run"]].concat());
    dry.success();
    assert_eq!(names_in(sandbox.path()).iter().filter(|name| name.starts_with("site")).count(), 1);
    assert_eq!(fs::read_to_string(&file).expect("it is there"), SITE.trim_end());
    let (patched, change) = (sandbox.path().join("patched"), sandbox.path().join("change"));
    fs::copy(&file, &patched).expect("a copy");
    fs::write(&change, &dry.stdout).expect("a new file");
    let mut patch = sandbox.command(installed("patch"));
    patch.arg("--quiet").arg(&patched).arg(&change);
    process::run(patch).success();
    sandbox.client([&enable[..], &["--yes"]].concat()).success();
    assert_eq!(fs::read(&patched).expect("it is there"), fs::read(&file).expect("it is there"));

    let json = sandbox.client(["proxy", "disable", "--yes", "--json", "--file", name]);
    assert_eq!(json.success().summary()["changed"], true);
    assert_eq!(fs::read_to_string(&file).expect("it is there"), SITE.trim_end());
}

#[test]
fn what_can_not_be_edited_is_refused_with_its_reason() {
    let sandbox = Sandbox::new();
    let write = |name: &str, text: &str| {
        let path = sandbox.path().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a new directory");
        fs::write(&path, text).expect("a new file");
        path
    };
    let broken = write("broken.conf", "server {\n  listen 80;\n");
    let generated = write("root/pryv/nginx/site-443.conf", SITE);
    write("root/config-follower/config.json", "{}");
    let leaders = write("root/config-leader/data/site-443.conf", SITE);
    let site = write("site.conf", SITE);
    let huge = write("huge.conf", "");
    fs::File::options().write(true).open(&huge).and_then(|file| file.set_len(17 << 20)).expect("it is ours");
    let fifo = sandbox.path().join("fifo.conf");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .expect("a new FIFO");
    let absent = sandbox.path().join("absent.conf");
    for (path, to, code, message) in [
        (&broken, "203.0.113.9", 46, "line 1:8: a \"{\" that nothing closes"),
        (&generated, "203.0.113.9", 46, "edit the leader's copy"),
        (&leaders, "203.0.113.9", 0, ""),
        (&site, "203.0.113.9; }", 1, "ADDRESS[:PORT]"),
        (&absent, "203.0.113.9", 3, "No such file"),
        (&huge, "203.0.113.9", 3, "16 MiB"),
        (&fifo, "203.0.113.9", 3, "is not a regular file"),
    ] {
        let path = path.to_str().expect("ASCII");
        let output = sandbox.client(["proxy", "enable", "--yes", "--file", path, "--to", to]);
        output.expect_code(code).expect_stderr(message);
    }
    let site = site.to_str().expect("ASCII");
    sandbox.client(["proxy", "enable", "--yes", "--file", site, "--to", "203.0.113.9"]).success();
    let changed = fs::read_to_string(site).expect("it is there").replacen("server 203", "server  203", 1);
    fs::write(site, changed).expect("it is ours");
    let refused = sandbox.client(["proxy", "disable", "--yes", "--file", site]);
    refused.expect_code(46).expect_stderr("line 2: the edit made by `proxy enable` was changed here");
}

/// The platform's files: in `SYNC_SAMPLES`, or beside the project.
fn samples() -> Vec<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/samples");
    let directory = std::env::var_os("SYNC_SAMPLES").map_or(beside, PathBuf::from).join("nginx");
    let Ok(entries) = fs::read_dir(&directory) else {
        eprintln!("no samples in {}: only this project's own files were tried", directory.display());
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains("core-site"))
        .collect()
}

#[test]
fn nginx_takes_the_platforms_files_as_edited() {
    tests::require!("nginx", "openssl");
    let sandbox = Sandbox::new();
    let certificate = nginx::certificate(&sandbox, DOMAIN);
    for sample in samples() {
        let name = sample.file_name().expect("a name").to_string_lossy().into_owned();
        let directory = sandbox.path().join(&name);
        let text = fs::read_to_string(&sample).expect("a sample can be read");
        let site = directory.join("site-443.conf");
        let (chain, key) = (certificate.chain.display(), certificate.key.display());
        let http = format!(
            "ssl_certificate {chain}; ssl_certificate_key {key}; include {}/site*.conf;",
            directory.display()
        );
        let configuration = nginx::write_configuration(&directory, &http);
        fs::write(&site, at_hand(&text, &directory)).expect("a new file");
        nginx::test(&sandbox, &configuration).success();
        let file = site.to_str().expect("ASCII");
        let root = certificate.root.to_str().expect("ASCII");
        let before = fs::read(&site).expect("it is there");
        let arguments =
            ["proxy", "enable", "--yes", "--to", "127.0.0.1", "--trusted-certificate", root, "--file", file];
        sandbox.client(arguments).success();
        nginx::test(&sandbox, &configuration).success();
        sandbox.client(["proxy", "disable", "--yes", "--file", file]).success();
        assert!(fs::read(&site).expect("it is there") == before, "{name}");
    }
}

/// The same with names that resolve, a port that may be used, and a log that may be written.
fn at_hand(text: &str, directory: &Path) -> String {
    let mut result = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let line = match words[..] {
            ["server", host, ..] if host != "{" => {
                let host = host.trim_end_matches(';');
                line.replace(host, &format!("127.0.0.1:{}", host.rsplit(':').next().unwrap_or("80")))
            }
            ["listen", ..] => line.replace("443", &format!("127.0.0.1:{}", free_port())),
            ["access_log", ..] => line.replace("/app/log", &directory.display().to_string()),
            ["server_name", ..] => "  server_name *.example.test;".to_owned(),
            ["proxy_pass", url] if url.starts_with("https://") => {
                let host = url.split('/').nth(2).unwrap_or_default();
                line.replace(host.trim_end_matches(';'), "127.0.0.1:1")
            }
            _ => line.to_owned(),
        };
        let _ = writeln!(result, "{line}");
    }
    result
}

#[test]
fn what_is_read_here_is_what_nginx_reads() {
    tests::require!("nginx");
    const PIECES: [&str; 24] = [
        " ", "\n", "\r\n", "\t", ";", ";\n", "a", "b", "\"", "'", "\\", "$", "${", "}", "#", " #", ")", "(",
        "x y;", " 'c' ", " \"d\" ", "\\\n", "e;", "\\\"",
    ];
    let sandbox = Sandbox::new();
    let mut accepted = 0;
    for seed in seeds(200) {
        let mut random = Rng::new(seed);
        // Inside `types`, nginx takes any words; the list ends with a whole one, so that half of them do.
        let count = 1 + random.index(9);
        let soup: String = (0..count).map(|_| PIECES[random.index(PIECES.len())]).collect();
        let http = format!("types {{ z w;\n{soup}\n v u; }}");
        let configuration = nginx::write_configuration(&sandbox.path().join("soup"), &http);
        let theirs = nginx::test(&sandbox, &configuration);
        let ours = sandbox.client(["proxy", "show", "--file", configuration.to_str().expect("ASCII")]);
        assert_eq!(ours.code() == 0, theirs.code() == 0, "seed {seed}: {soup:?}\n{theirs}\n{ours}");
        accepted += usize::from(ours.code() == 0);
    }
    assert!((40..180).contains(&accepted), "{accepted} of 200 accepted");
}
