//! Whole edits: what becomes of a file, that it can be undone, and what is refused.

use super::*;
use proptest::prelude::*;
use std::path::{Path, PathBuf};

fn target() -> Target {
    Target {
        address: Address::parse("203.0.113.9").expect("an address"),
        upstreams: Vec::new(),
        trusted: Some(TrustedFile::new(TrustedFile::DEFAULT).expect("a path")),
    }
}

/// The lines in force, without comments and indentation.
fn in_force(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.collect::<Vec<_>>().join("\n")
}

/// Enables it, and proves that it can be undone.
#[track_caller]
fn enabled(text: &[u8]) -> Edited {
    let edited = enable(text, &target()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(disable(&edited.bytes).expect("it is enabled").bytes, text);
    edited
}

fn refusal(text: &str) -> String {
    enable(text.as_bytes(), &target()).expect_err(text).to_string()
}

/// A file in which `location` stands.
fn site(location: &str) -> String {
    format!(
        "upstream core_server {{\n  server core:3000;\n}}\nserver {{\n  proxy_set_header Host $http_host;\n{location}\n}}\n"
    )
}

const TLS: &str = "proxy_ssl_server_name on;
proxy_ssl_name $host;
proxy_ssl_session_reuse off;
proxy_ssl_verify on;
proxy_ssl_verify_depth 4;
proxy_ssl_trusted_certificate /etc/ssl/certs/ca-certificates.crt;
";

#[test]
fn an_edit_reads_as_the_written_procedure_says() {
    let text = "upstream core_server {
  server core:3000 max_fails=3;
  server core:3001;
}

server {
  proxy_set_header Host $http_host;

  # The core
  location / {
    proxy_pass http://core_server;
  }
}
";
    let edited = enabled(text.as_bytes());
    let expected = "upstream core_server {
  # sync-client proxy 1/2 to 203.0.113.9:443: 2 lines were, 1 is, check CHECK
#-   server core:3000 max_fails=3;
#-   server core:3001;
  server 203.0.113.9:443;
  # sync-client proxy 1/2 end
}

server {
  proxy_set_header Host $http_host;

  # The core
  location / {
    # sync-client proxy 2/2 to 203.0.113.9:443: 1 line was, 7 are, check CHECK
#-     proxy_pass http://core_server;
    proxy_ssl_server_name on;
    proxy_ssl_name $host;
    proxy_ssl_session_reuse off;
    proxy_ssl_verify on;
    proxy_ssl_verify_depth 4;
    proxy_ssl_trusted_certificate /etc/ssl/certs/ca-certificates.crt;
    proxy_pass https://core_server;
    # sync-client proxy 2/2 end
  }
}
";
    let shown = String::from_utf8(edited.bytes).expect("ASCII");
    let without_checks: Vec<String> = shown
        .lines()
        .map(|line| {
            line.split_once(", check ").map_or(line.to_owned(), |(first, _)| format!("{first}, check CHECK"))
        })
        .collect();
    assert_eq!(without_checks.join("\n") + "\n", expected);
}

#[test]
fn the_destination_gets_the_path_that_the_client_sent() {
    for (location, expected) in [
        ("location /previews/ { proxy_pass http://core_server/; }", "proxy_pass https://core_server; }"),
        (
            "location /auth/login { proxy_pass http://core_server/login; }",
            "proxy_pass https://core_server; }",
        ),
        ("location / { proxy_pass http://core_server$request_uri; }", "proxy_pass https://core_server; }"),
        ("location ~ ^/a/(.*)$ { proxy_pass 'http://core_server/$1'; }", "proxy_pass https://core_server; }"),
        ("location / { proxy_pass HTTPS://core_server; }", "proxy_pass https://core_server; }"),
        (
            "location /a/ { rewrite ^/a/(.*) /b/$1 break; proxy_pass http://core_server; }",
            "proxy_pass https://core_server$request_uri; }",
        ),
        (
            "location = /check { internal; proxy_pass http://core_server/auth; }",
            "proxy_pass https://core_server/auth; }",
        ),
    ] {
        let edited = enabled(site(location).as_bytes());
        assert!(in_force(&edited.bytes).contains(expected), "{location}: {}", in_force(&edited.bytes));
        assert_eq!(edited.passes.len(), 1);
    }
}

#[test]
fn settings_and_headers_that_stand_in_the_way_are_replaced_and_missing_ones_added() {
    for (location, expected) in [
        (
            "  location / {\n    proxy_ssl_verify off;\n    proxy_ssl_name x;\n    proxy_pass http://core_server;\n  }",
            format!("location / {{\n{TLS}proxy_pass https://core_server;\n}}"),
        ),
        (
            "  location / {\n    proxy_set_header X-A a;\n    proxy_pass http://core_server;\n  }",
            format!(
                "proxy_set_header X-A a;\n{TLS}proxy_set_header Host $http_host;\nproxy_pass https://core_server;\n}}"
            ),
        ),
        (
            "  location / {\n    if ($x) {\n      proxy_pass http://core_server;\n    }\n  }",
            format!("location / {{\n{TLS}if ($x) {{\nproxy_pass https://core_server;\n}}\n}}"),
        ),
        (
            "  location / {\n    proxy_pass\n      # why\n      http://core_server/x\n  ;\n  }",
            format!("{TLS}proxy_pass\nhttps://core_server\n;"),
        ),
    ] {
        let force = in_force(&enabled(site(location).as_bytes()).bytes);
        assert!(force.contains(&expected), "{location}\n---\n{force}");
    }
}

#[test]
fn headers_of_the_server_come_along_where_host_has_to_be_added() {
    let text =
        site("  location / {\n    proxy_pass http://core_server;\n  }").replace("Host $http_host", "X-A a");
    let force = in_force(&enabled(text.as_bytes()).bytes);
    let expected =
        format!("{TLS}proxy_set_header X-A a;\nproxy_set_header Host $http_host;\nproxy_pass https");
    assert!(force.contains(&expected), "{force}");
}

#[test]
fn what_stays_in_a_location_keeps_its_tls_settings() {
    let location = "  location = / {
    proxy_pass https://app.example.org/web/;
    proxy_set_header Host $my_host;
    limit_except GET {
      proxy_pass http://core_server;
    }
  }";
    let edited = enabled(site(location).as_bytes());
    let expected = format!(
        "location = / {{
proxy_pass https://app.example.org/web/;
proxy_set_header Host $my_host;
limit_except GET {{
proxy_pass https://core_server;
}}
}}
set $sync_client_1 \"$request_method:$uri\";
if ($sync_client_1 ~ \"^(?!(GET|HEAD):)[^:]+:/$\") {{
rewrite ^ /.sync-client/1 last;
}}
location = /.sync-client/1 {{
internal;
proxy_set_header Host $my_host;
{TLS}proxy_pass https://core_server$request_uri;
}}
}}"
    );
    let force = in_force(&edited.bytes);
    assert!(force.contains(&expected), "{force}");
    assert_eq!(edited.left.len(), 1, "{:?}", edited.left);
    assert!(refusal(&site(&location.replace("= /", "/"))).contains("make two locations of it"));
    let nested = "location /a { proxy_pass http://core_server; location /a/b { proxy_pass https://x.org; } }";
    assert!(refusal(&site(nested)).contains("make two locations of it"));
}

#[test]
fn what_can_not_be_edited_with_a_good_result_is_refused_with_its_line() {
    let core = "upstream core_server { server a; }\n";
    let plain = "server { location / { proxy_pass http://core_server; } }";
    for (text, expected) in [
        (
            "server { location / { proxy_pass http://core_server; } }",
            "line 1: requests go to core_server, which",
        ),
        ("upstream other { server a; }", "it defines other. Give"),
        ("include site*.conf;", "it defines none (and includes site*.conf). Give"),
        (&format!("{core}{core}{plain}"), "line 2: a second upstream core_server"),
        (
            &format!("upstream core_server {{ include a; server b; }}{plain}"),
            "line 1: include in upstream core_server",
        ),
        (&format!("upstream core_server {{ }}{plain}"), "upstream core_server has no server"),
        (
            &format!("{core}{plain}server {{\n location / {{ grpc_pass grpc://core_server; }} }}"),
            "line 3: grpc_pass uses",
        ),
        (
            &format!(
                "{core}{plain}server {{\n set $up core_server; location / {{ proxy_pass http://$up; }} }}"
            ),
            "line 3: core_server may get into a variable here",
        ),
        (&format!("{core}{plain}\n}}"), "line 3:1: unexpected \"}\""),
        (&format!("{core}{plain}# {}", "x".repeat(10)), ""),
        (
            &format!("upstream core_server {{ server a; }} # {}\n{plain}", "x".repeat(4100)),
            "line 1 would have to be",
        ),
    ] {
        match enable(text.as_bytes(), &target()) {
            Ok(_) => assert!(expected.is_empty(), "{text}"),
            Err(error) => {
                assert!(!expected.is_empty() && error.to_string().contains(expected), "{text}: {error}");
            }
        }
    }
}

#[test]
fn upstreams_can_be_named_and_the_others_stay() {
    let text = "upstream core_server { server a; }\nupstream mail { server b; }\nupstream follower_server { server c; }\n
        server { location / { proxy_pass http://core_server; } location /m { proxy_pass http://mail/x; }
        location /n { proxy_pass http://follower_server; } }";
    let edited = enabled(text.as_bytes());
    let left: Vec<&str> = edited.left.iter().map(|left| &left.what[..]).collect();
    let expected = [
        "upstream mail",
        "upstream follower_server",
        "proxy_pass http://mail/x",
        "proxy_pass http://follower_server",
    ];
    assert_eq!(left, expected);
    let named = |names: &[&str]| {
        let upstreams = names.iter().map(|name| (*name).to_owned()).collect();
        enable(text.as_bytes(), &Target { upstreams, ..target() })
    };
    let moved = named(&["mail"]).expect("it is there").moved;
    assert_eq!(moved.iter().map(|moved| &moved.name[..]).collect::<Vec<_>>(), ["mail"]);
    assert!(
        named(&["mall"])
            .expect_err("a typing error")
            .to_string()
            .contains("defines no upstream mall: it defines core_server, mail")
    );
}

#[test]
fn a_whole_nginx_conf_is_edited_as_well_and_what_stays_is_said_with_its_reason() {
    let text = "user nginx;
events { }
stream { upstream core_server { server z:1; } server { listen 5; proxy_pass core_server; } }
http {
  include mime.types;
  map $a $b { default x; }
  upstream core_server { least_conn; server a; check interval=3; keepalive 8; }
  server {
    location / { proxy_set_header Host fixed.example.org; proxy_pass http://core_server; }
    location /v { proxy_pass http://$b; }
    location /e { proxy_pass https://e.org; }
    location /l { content_by_lua_block { ngx.say('}') } }
  }
}
";
    let edited = enabled(text.as_bytes());
    let shown = |remarks: &[Remark]| {
        remarks
            .iter()
            .map(|remark| format!("{} {}: {}", remark.line, remark.what, remark.why))
            .collect::<Vec<_>>()
    };
    let left = [
        "10 proxy_pass http://$b: a variable says where it goes",
        "11 proxy_pass https://e.org: it goes elsewhere",
    ];
    assert_eq!(shown(&edited.left), left);
    let notes = shown(&edited.notes);
    for (note, expected) in
        notes.iter().zip(["5 include mime.types", "7 check: kept", "9 proxy_set_header Host fixed"])
    {
        assert!(note.starts_with(expected), "{notes:?}");
    }
    assert_eq!(notes.len(), 3);
    let force = in_force(&edited.bytes);
    assert!(
        force.contains("server z:1") && force.contains("least_conn; server 203.0.113.9:443; check"),
        "{force}"
    );
}

#[test]
fn enabling_again_changes_nothing_and_another_address_replaces_the_first() {
    let text = site("location / { proxy_pass http://core_server; }");
    let once = enabled(text.as_bytes()).bytes;
    assert_eq!(enable(&once, &target()).expect("it is enabled").bytes, once);
    let other = Target { address: Address::parse("[2001:db8::1]:8443").expect("an address"), ..target() };
    let twice = enable(&once, &other).expect("it is enabled").bytes;
    assert_eq!(twice, enable(text.as_bytes(), &other).expect("it can be").bytes);
    assert_eq!(show(&twice).expect("it is right").to.as_deref(), Some("[2001:db8::1]:8443"));
    assert_eq!(disable(&twice).expect("it is enabled").bytes, text.as_bytes());
}

#[test]
fn what_changed_elsewhere_is_kept_and_what_changed_inside_is_refused() {
    let text = site("  location / {\n    proxy_pass http://core_server;\n  }");
    let edited = String::from_utf8(enabled(text.as_bytes()).bytes).expect("ASCII");
    let around =
        format!("# first\n{}# last", edited.replace("proxy_set_header Host $http_host;", "expires 1d;"));
    let restored = String::from_utf8(disable(around.as_bytes()).expect("outside").bytes).expect("ASCII");
    assert_eq!(
        restored,
        format!("# first\n{}# last", text.replace("proxy_set_header Host $http_host;", "expires 1d;"))
    );

    let lines: Vec<&str> = edited.split_inclusive('\n').collect();
    let mut refused = 0;
    let mut is_inside = false;
    for at in 0..lines.len() {
        let is_first = lines[at].contains(", check ");
        is_inside |= is_first;
        for changed in ["", "# other\n"] {
            let mut other = lines.clone();
            other[at] = changed;
            match disable(other.concat().as_bytes()) {
                Ok(_) => assert!(!is_inside, "line {} became {changed:?}", at + 1),
                Err(error) => {
                    assert!(is_inside && error.to_string().starts_with("line "), "{error}");
                    refused += 1;
                }
            }
        }
        is_inside &= !lines[at].ends_with(" end\n");
    }
    assert!(refused >= 20, "{refused}");
    let part = edited.find("  # sync-client proxy 1").expect("a mark")
        ..edited.find("1/2 end\n").expect("a mark") + 8;
    let without_one = [&edited[..part.start], &edited[part.end..]].concat();
    assert!(matches!(disable(without_one.as_bytes()), Err(NginxError::Damaged { .. })));
    assert!(matches!(enable(without_one.as_bytes(), &target()), Err(NginxError::Damaged { .. })));
    assert_eq!(disable(text.as_bytes()), Err(NginxError::NotEnabled));
}

#[test]
fn line_ends_are_kept_also_where_the_last_is_missing() {
    let text = site("  location / {\n    proxy_pass http://core_server;\n  }");
    let one_line = site("location / { proxy_pass http://core_server; }").replace('\n', " ");
    for text in [
        text.replace('\n', "\r\n"),
        text.trim_end().to_owned(),
        text.replace('\n', "\r\n").trim_end().to_owned(),
        one_line.trim_end().to_owned(),
        text.replace('\n', "\r"),
        format!("{}\r", one_line.trim_end()),
    ] {
        let edited = enabled(text.as_bytes());
        assert_eq!(show(&edited.bytes).expect("it is right").upstreams[0].servers, ["203.0.113.9:443"]);
    }
    // What is added behind a last line without line feed stays a line of its own.
    let edited = enabled(one_line.trim_end().as_bytes());
    let restored = disable(&[&edited.bytes[..], b"# more\n"].concat()).expect("it was changed elsewhere");
    assert_eq!(restored.bytes, format!("{}\n# more\n", one_line.trim_end()).as_bytes());
}

/// The platform's files: in `SYNC_SAMPLES`, or beside the project.
fn samples() -> Vec<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/samples");
    let directory = std::env::var_os("SYNC_SAMPLES").map_or(beside, PathBuf::from).join("nginx");
    let Ok(entries) = std::fs::read_dir(&directory) else {
        eprintln!("no samples in {}: only this project's own files were tried", directory.display());
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[test]
fn the_platforms_files_are_edited_and_restored() {
    for path in samples() {
        let name = path.display();
        let text = std::fs::read(&path).expect("a sample can be read");
        if !path.to_string_lossy().contains("core-site") {
            assert!(matches!(enable(&text, &target()), Err(NginxError::NothingToMove { .. })), "{name}");
            show(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            continue;
        }
        let edited = enabled(&text);
        let moving: Vec<&str> = edited.moved.iter().map(|moved| &moved.name[..]).collect();
        let force = in_force(&edited.bytes);
        for name in &moving {
            assert!(!force.contains(&format!("http://{name}")), "{path:?}: {name}\n{force}");
        }
        assert_eq!(force.matches("server 203.0.113.9:443;").count(), moving.len(), "{name}");
        let external = |text: &str| {
            text.lines().filter(|line| line.contains("proxy_pass https://") && line.contains('.')).count()
        };
        assert_eq!(external(&force), 1, "{name}");
        assert_eq!(
            force.contains("server config-follower:6000"),
            name.to_string().contains("2020"),
            "{name}"
        );
    }
}

/// Pieces of a configuration, whole ones and such as to break it.
fn pieces() -> impl Strategy<Value = String> {
    let value = prop::sample::select(vec![
        "a",
        "'b;{}#c'",
        "\"d\\\"}\"",
        "${e}f",
        "$g",
        "h#i",
        "j}k",
        "\\;l",
        "\\\n",
        "'m\nn'",
        "/.sync",
        "\"\"",
        "ö",
    ]);
    let blank = prop::sample::select(vec![" ", "\n", "\r\n", "\t", " # c ; } {\n", "\n\n  "]);
    let pass = prop::sample::select(vec![
        "http://core_server",
        "http://core_server/",
        "'http://core_server/x'",
        "https://x.org",
        "http://hfs_server$uri",
        "http://other",
        "http://$v",
        "https://core_server?a",
    ]);
    let simple = (blank.clone(), value.clone(), blank.clone(), value)
        .prop_map(|(space, one, between, two)| format!("{space}set{between} {one}{between} {two};{space}"));
    let pass = (blank.clone(), pass, blank)
        .prop_map(|(space, url, after)| format!("{space}proxy_pass{after} {url}{after};"));
    let other = prop::sample::select(vec![
        "rewrite ^ /x break;",
        "proxy_set_header Host x;",
        "proxy_ssl_name y;",
        "internal;",
        "# sync\n",
        "include a;",
        "access_by_lua_block { s = '}' -- }\n }",
        "limit_except GET { proxy_pass http://core_server; }",
        " ",
        "\n",
        "# sync-client proxy 1/1 end\n",
        "if ($a) { proxy_pass http://hfs_server; }",
        "}",
        "{",
        "lone",
        "\"",
    ]);
    prop_oneof![3 => simple, 4 => pass, 2 => other.prop_map(str::to_owned)]
}

fn configurations() -> impl Strategy<Value = String> {
    let location = prop::collection::vec(pieces(), 0..4)
        .prop_map(|inside| format!("location /x {{{}}}", inside.concat()));
    let servers = prop::collection::vec(
        prop::sample::select(vec![
            "server a:1;",
            "\n  server b:2 weight=2;",
            " server\n c;",
            "ip_hash;",
            "# s\n",
            "\r\n",
        ]),
        1..5,
    );
    let part = prop_oneof![6 => location, 1 => pieces()];
    (
        servers.clone(),
        servers,
        prop::collection::vec(part, 1..4),
        prop::sample::select(vec!["", "\n", "\r\n", "\r"]),
    )
        .prop_map(|(core, hfs, parts, end)| {
            let (core, hfs) = (core.concat(), hfs.concat());
            format!(
                "upstream core_server {{{core}}}\nupstream hfs_server {{ {hfs} }} server {{ {} }}{end}",
                parts.concat()
            )
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_enabled_is_undone_byte_by_byte(text in configurations()) {
        if let Ok(edited) = enable(text.as_bytes(), &target()) {
            let undone = disable(&edited.bytes).expect("it is enabled");
            prop_assert_eq!(String::from_utf8_lossy(&undone.bytes), text.as_str());
            let shown = show(&edited.bytes).expect("the result can be read");
            for moved in &edited.moved {
                let upstream = shown.upstreams.iter().find(|upstream| upstream.name == moved.name).expect("it is there");
                prop_assert_eq!(&upstream.servers, &["203.0.113.9:443"]);
                prop_assert!(upstream.passes.iter().all(|(_, url)| url.starts_with("https://")));
            }
            prop_assert_eq!(&enable(&edited.bytes, &target()).expect("again").bytes, &edited.bytes);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(prop_oneof![
        Just(b'{'), Just(b'}'), Just(b';'), Just(b'\n'), Just(b'\\'), Just(b'"'), Just(b'#'), Just(b'$'), Just(b' '), any::<u8>(),
    ], 0..200)) {
        let _ = enable(&bytes, &target());
        let _ = disable(&bytes);
        let _ = show(&bytes);
    }

    #[test]
    fn no_damage_to_an_edited_file_makes_it_panic(at in 0usize..4000, byte in any::<u8>(), cut in any::<bool>()) {
        let edited = enable(site("location / { proxy_pass http://core_server; }").as_bytes(), &target()).expect("it can be");
        let mut bytes = edited.bytes;
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        let _ = enable(&bytes, &target());
        let _ = disable(&bytes);
    }
}

#[test]
fn most_generated_configurations_are_edited() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let texts = (0..500).map(|_| configurations().new_tree(&mut runner).expect("a value").current());
    let edited = texts.filter(|text| enable(text.as_bytes(), &target()).is_ok()).count();
    assert!(edited > 100, "{edited} of 500");
}
