//! `register`: a core's address in a dns.json, set, put back, shown, and asked for.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::PathBuf;
use std::thread;
use tests::process::Output;
use tests::sandbox::{Sandbox, names_in};

const NEW: &str = "203.0.113.7";

/// A file as operators have them: Windows line ends, a tab, an escape in a name, no newline at its end.
const DNS_JSON: &str = concat!(
    "{\r\n  \"dns\": {\r\n    \"domain\": \"example.com\",\r\n    \"nameserver\": [\r\n",
    "      { \"name\": \"dns1.example.com\", \"ip\": \"192.0.2.1\" }\r\n    ],\r\n",
    "    \"staticDataInDomain\": {\r\n      \"mail\": {\r\n        \"ip\": \"192.0.2.1\"\r\n      },\r\n",
    "      \"c\\u006f1\": {\r\n\t\"description\": \"old core\",\r\n        \"ip\": \"192.0.2.1\"\r\n      }\r\n",
    "    }\r\n  },\r\n  \"redis\": { \"port\": 6379 }\r\n}"
);

struct Host {
    sandbox: Sandbox,
}

impl Host {
    fn new(text: &str) -> Host {
        let host = Host { sandbox: Sandbox::new() };
        fs::create_dir(host.sandbox.path().join("conf")).expect("a new directory");
        fs::write(host.file(), text).expect("a new file");
        host
    }

    fn file(&self) -> PathBuf {
        self.sandbox.path().join("conf/dns.json")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).expect("it is there")
    }

    fn register(&self, command: &str, arguments: &[&str]) -> Output {
        let file = self.file().display().to_string();
        let all = ["register", command, "--file", &file].into_iter().chain(arguments.iter().copied());
        self.sandbox.client(all)
    }

    fn set(&self, arguments: &[&str]) -> Output {
        self.register("set", &[&["--core", "co1", "--ip", NEW], arguments].concat())
    }

    fn names(&self) -> Vec<String> {
        names_in(&self.sandbox.path().join("conf"))
    }
}

/// The objects that `--json` printed.
fn objects(output: &Output) -> Vec<serde_json::Value> {
    output.stdout_text().lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect()
}

fn object(output: &Output, event: &str) -> serde_json::Value {
    objects(output).into_iter().find(|object| object["event"] == event).unwrap_or_default()
}

#[test]
fn set_changes_the_address_alone_and_undo_gives_every_byte_back() {
    let host = Host::new(DNS_JSON);
    let output = host.set(&["--yes"]);
    let diff = output.success().stdout_text();
    assert!(diff.starts_with("--- ") && diff.contains("\n-        \"ip\": \"192.0.2.1\"\r\n"), "{diff}");
    let at = DNS_JSON.rfind("192.0.2.1").expect("it is there");
    let expected = format!("{}{NEW}{}", &DNS_JSON[..at], &DNS_JSON[at + "192.0.2.1".len()..]);
    assert_eq!(host.text(), expected);
    assert_eq!(host.names(), ["dns.json", "dns.json.sync-client-undo"]);
    for said in [
        "dns.json:13:15: co1: 192.0.2.1 -> 203.0.113.7",
        "dns.json:5:43 dns.nameserver[0].ip; left as it is",
        "dns.json:9:15 dns.staticDataInDomain.mail.ip; left as it is",
        "TTL 3600 s (the server's default",
        "restart the DNS server",
    ] {
        output.expect_stderr(said);
    }
    host.register("undo", &["--yes"]).success();
    assert_eq!((host.text().as_str(), host.names()), (DNS_JSON, vec!["dns.json".to_owned()]));
    host.register("undo", &["--yes"]).expect_code(46).expect_stderr("nothing to undo");
}

#[test]
fn a_dry_run_and_a_question_that_nobody_answers_change_nothing() {
    let host = Host::new(DNS_JSON);
    let output = host.set(&["--dry-run"]);
    assert!(output.success().stdout_text().contains("+        \"ip\": \"203.0.113.7\""), "{output}");
    host.set(&[]).expect_code(46).expect_stderr("give --yes");
    assert_eq!((host.text().as_str(), host.names()), (DNS_JSON, vec!["dns.json".to_owned()]));
    host.set(&["--yes"]).success();
    let set = host.text();
    host.register("undo", &["--dry-run"]).success();
    host.register("undo", &[]).expect_code(46).expect_stderr("give --yes");
    assert_eq!(host.text(), set);
}

#[test]
fn owner_and_mode_stay_and_a_link_stays_a_link() {
    let host = Host::new(DNS_JSON);
    fs::set_permissions(host.file(), Permissions::from_mode(0o640)).expect("the file is ours");
    let owner = if tests::requirement::is_root() { 9999 } else { host.file().metadata().unwrap().uid() };
    chown(host.file(), Some(owner), None).expect("root may, others keep their own");
    let real = host.sandbox.path().join("real.json");
    fs::rename(host.file(), &real).expect("one file system");
    std::os::unix::fs::symlink(&real, host.file()).expect("a new link");
    host.set(&["--yes"]).success();
    let kept = |path: &PathBuf| {
        let metadata = fs::metadata(path).expect("it is there");
        (metadata.uid(), metadata.mode() & 0o7777)
    };
    assert_eq!(kept(&real), (owner, 0o640));
    assert_eq!(kept(&host.sandbox.path().join("real.json.sync-client-undo")), (owner, 0o640));
    assert!(fs::symlink_metadata(host.file()).expect("it is there").is_symlink());
    host.register("undo", &["--yes"]).success();
    assert_eq!((host.text().as_str(), kept(&real)), (DNS_JSON, (owner, 0o640)));
}

#[test]
fn the_old_address_is_named_where_else_it_stands() {
    let host = Host::new(DNS_JSON);
    let beside = host.sandbox.path().join("conf/register.json");
    fs::write(beside, "{ \"co1\": \"192.0.2.1\", \"not\": [\"192.0.2.10\", \"1192.0.2.1\"] }")
        .expect("a new file");
    let also = host.sandbox.path().join("hosts");
    fs::write(&also, "# hosts\n192.0.2.1\tco1\n").expect("a new file");
    let output = host.set(&["--yes", "--json", "--also", also.to_str().expect("ASCII")]);
    let found: Vec<String> = objects(output.success())
        .iter()
        .filter(|object| object["event"] == "elsewhere")
        .map(|object| {
            let name = object["file"].as_str().and_then(|file| file.rsplit('/').next()).expect("a path");
            format!("{name}:{}:{}", object["line"], object["column"])
        })
        .collect();
    assert_eq!(found, ["dns.json:5:43", "dns.json:9:15", "hosts:2:1", "register.json:1:11"]);
    let summary = output.summary();
    assert_eq!((&summary["changed"], &summary["old"][0]), (&true.into(), &"192.0.2.1".into()));
}

#[test]
fn undo_after_an_edit_by_hand_takes_back_its_own_value_or_refuses() {
    let host = Host::new(DNS_JSON);
    host.set(&["--yes"]).success();
    let with_more = host.text().replace("6379", "6380");
    fs::write(host.file(), &with_more).expect("the file is ours");
    let output = host.register("undo", &["--yes"]);
    output.success().expect_stderr("changed since by somebody else");
    assert_eq!(host.text(), DNS_JSON.replace("6379", "6380"));
    host.set(&["--yes"]).success();
    let by_hand = host.text().replace(NEW, "198.51.100.1");
    fs::write(host.file(), &by_hand).expect("the file is ours");
    host.register("undo", &["--yes"])
        .expect_code(46)
        .expect_stderr("changed by somebody else since it was set");
    assert_eq!(host.text(), by_hand);
}

#[test]
fn the_same_address_again_writes_nothing_and_a_second_one_keeps_the_first_undo() {
    let host = Host::new(DNS_JSON);
    host.set(&["--yes"]).success();
    let inode = host.file().metadata().expect("it is there").ino();
    let output = host.set(&["--json"]);
    assert_eq!(output.success().summary()["changed"], false);
    assert_eq!(host.file().metadata().expect("it is there").ino(), inode);
    host.register("set", &["--core", "co1", "--ip", "2001:db8::7", "--yes"]).success();
    host.register("set", &["--core", "co2", "--ip", NEW, "--yes"]).success();
    assert!(
        host.text().contains("      \"co2\": {\r\n        \"ip\": \"203.0.113.7\"\r\n      }\r\n"),
        "{}",
        host.text()
    );
    host.register("undo", &["--yes"]).success();
    assert_eq!(host.text(), DNS_JSON);
}

#[test]
fn bad_input_is_refused_with_its_place_and_nothing_is_written() {
    let cases = [
        ("{\n \"dns\": ${DNS}\n}", 46, "dns.json:2:9: not JSON"),
        ("{\"dns\": 1}", 46, "dns.json:1:9: dns is not an object"),
        (
            "{\"dns\": {\"staticDataInDomain\": {\"co1\": {\"ip\": 5}}}}",
            46,
            "holds something that is no string",
        ),
        ("{\"dns\": {\"staticDataInDomain\": {\"co1\": {\"alias\": []}}}}", 46, "is an alias"),
    ];
    for (text, code, said) in cases {
        let host = Host::new(text);
        host.set(&["--yes"]).expect_code(code).expect_stderr(said);
        assert_eq!((host.text().as_str(), host.names()), (text, vec!["dns.json".to_owned()]));
    }
    let host = Host::new(DNS_JSON);
    for arguments in
        [["co1", "203.0.113"], ["co1", "203.0.113.256"], ["co1.example.com", NEW], ["co\n1", NEW]]
    {
        host.register("set", &["--core", arguments[0], "--ip", arguments[1], "--yes"]).expect_code(1);
    }
    host.set(&["--yes", "--old", "192.0.2.9"]).expect_code(46).expect_stderr("has 192.0.2.1, not 192.0.2.9");
    fs::remove_file(host.file()).expect("the file is ours");
    host.set(&["--yes"]).expect_code(3).expect_stderr("No such file");
}

#[test]
fn a_file_that_a_config_follower_writes_is_refused_with_the_right_place() {
    let host = Host::new(DNS_JSON);
    fs::create_dir(host.sandbox.path().join("config-follower")).expect("a new directory");
    host.set(&["--yes"]).expect_code(46).expect_stderr("platform.yml");
    assert_eq!(host.text(), DNS_JSON);
    host.set(&["--yes", "--even-generated"]).success();
}

#[test]
fn show_lists_entries_and_how_long_the_proxy_must_stay() {
    let host = Host::new(&DNS_JSON.replace("\"domain\"", "\"defaultTTL\": 5400, \"domain\"").replacen(
        "192.0.2.1",
        "REG\\u001bIP",
        2,
    ));
    let text = host.register("show", &[]).success().stdout_text();
    for said in [
        "co1          192.0.2.1  (11:7)",
        "mail         REG\\#033IP (not an address",
        "TTL 5400 s",
        "1 h 30 min",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "no terminal obeys a name");
    let output = host.register("show", &["--core", "co1", "--json"]);
    assert_eq!(object(&output, "entry")["addresses"][0], "192.0.2.1");
    assert_eq!(object(&output, "ttl")["ttl_s"], 5400);
    host.register("show", &["--core", "co9"]).expect_code(3).expect_stderr("it has mail, co1");
}

/// A DNS server that gives every name this address; a question that is not for `name` gets none.
fn dns_server(name: &'static str, address: Ipv4Addr) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let place = socket.local_addr().expect("it is bound");
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let mut answer = question[..length].to_vec();
            let mut asked = Vec::new();
            for label in name.split('.') {
                asked.push(label.len() as u8);
                asked.extend_from_slice(label.as_bytes());
            }
            let is_known = answer[12..].starts_with(&asked);
            // A response, authoritative; the question stays, an answer follows (RFC 1035, section 4.1).
            answer[2] |= 0x84;
            answer[3] = if is_known { 0 } else { 3 };
            answer[7] = u8::from(is_known);
            if is_known {
                answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend_from_slice(&address.octets());
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    place
}

#[test]
fn a_running_server_is_asked_whether_it_has_read_the_file() {
    let host = Host::new(DNS_JSON);
    let server = dns_server("co1.example.com", Ipv4Addr::new(203, 0, 113, 7)).to_string();
    let ask =
        |more: &[&str]| host.register("show", &[&["--core", "co1", "--ask", server.as_str()], more].concat());
    ask(&[])
        .expect_code(45)
        .expect_stderr("answers co1.example.com with 203.0.113.7, the file says 192.0.2.1");
    host.set(&["--yes"]).success();
    let text = ask(&[]).success().stdout_text();
    assert!(text.contains("with 203.0.113.7, as the file says, TTL 60 s"), "{text}");
    assert_eq!(object(&ask(&["--json"]), "answer")["matches"], true);
    ask(&["--domain", "example.org"]).expect_code(45).expect_stderr("knows no co1.example.org");
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let nobody = silent.local_addr().expect("it is bound").to_string();
    host.register("show", &["--core", "co1", "--ask", &nobody, "--timeout", "1"]).expect_code(30);
    drop(silent);
    host.register("show", &["--core", "co1", "--ask", &nobody]).expect_code(10);
    host.register("show", &["--core", "co1", "--ask", "no such host"]).expect_code(1);
}
