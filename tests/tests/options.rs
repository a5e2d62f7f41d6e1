//! rsync's whole command line: every option is done, holds anyway, or is refused by name; the README says which.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use tests::directions::{ALL, Stage};
use tests::process::{Output, run};
use tests::sandbox::{Sandbox, program, write_script};
use tests::tree::write_at;

/// An option as `rsync --help` lists it: `--name`, `-n`, and whether it takes a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Listed {
    spellings: Vec<String>,
    value: Option<String>,
}

fn options_of_rsync(sandbox: &Sandbox) -> Vec<Listed> {
    let help = tests::rsync::run(sandbox, ["--help"]).stdout_text();
    let listed = help.lines().skip_while(|line| *line != "Options").skip(1);
    // Some have a second line of description.
    listed.take_while(|line| !line.is_empty()).filter(|line| line.starts_with('-')).map(parse).collect()
}

fn parse(line: &str) -> Listed {
    let (spellings, _) = line.split_once("  ").unwrap_or_else(|| panic!("no description: {line}"));
    let mut value = None;
    let mut all = Vec::new();
    for spelling in spellings.split(", ").filter(|spelling| !spelling.starts_with("-h (")) {
        let (name, of_it) = spelling.split_once('=').map_or((spelling, None), |(name, of)| (name, Some(of)));
        value = value.or(of_it.map(str::to_owned));
        all.push(name.to_owned());
    }
    Listed { spellings: all, value }
}

/// The README's table: what it says of each spelling.
fn readme() -> BTreeMap<String, String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = fs::read_to_string(readme).expect("the README");
    let section = text.split("### rsync's options\n").nth(1).expect("the section");
    let rows =
        section.split("\n### ").next().expect("it ends").lines().filter(|line| line.starts_with("| `"));
    let mut said = BTreeMap::new();
    for row in rows {
        let row = row.replace("\\|", "/");
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        for option in cells[1].split(", ") {
            let name = option.trim_matches('`').split('=').next().expect("a name").to_owned();
            let before = said.insert(name, cells[2].to_owned());
            // One letter, two options: rsync's help lists it with both.
            assert!(before.is_none() || option == "`-h`", "two rows: {row}");
        }
    }
    said
}

/// A value that the option can take, as far as that is known.
fn a_value(name: &str) -> &'static str {
    match name {
        "--stderr" => "errors",
        "--outbuf" => "L",
        "--info" | "--debug" => "del",
        "--chmod" => "u+w",
        "--checksum-choice" => "xxh128",
        "--compress-choice" => "zstd",
        "--address" => "127.0.0.1",
        "--port" => "22",
        "--stop-at" => ":59",
        "--block-size" | "-B" => "4096",
        "--max-size" | "--max-alloc" => "1g",
        "--exclude-from" | "--include-from" | "--files-from" => "/dev/null",
        "--filter" | "-f" => "- x",
        _ => "1",
    }
}

#[test]
fn every_option_of_rsync_is_accepted_or_refused_by_name_and_stands_in_the_readme() {
    tests::require!("rsync");
    let sandbox = Sandbox::new();
    write_at(&sandbox.source().join("file"), b"content", 1_500_000_000);
    let (said, options) = (readme(), options_of_rsync(&sandbox));
    assert!(options.len() > 150, "the help was read: {}", options.len());
    let mut listed = Vec::new();
    for option in &options {
        for spelling in &option.spellings {
            listed.push(spelling.clone());
            let status =
                said.get(spelling).unwrap_or_else(|| panic!("{spelling} is not in the README's table"));
            let output = given(&sandbox, spelling, option.value.is_some());
            let words = output.stderr_text();
            assert!(!words.contains("unexpected argument"), "{spelling} is not known\n{output}");
            let is_refused = words.contains("is not done here: ");
            if is_refused {
                output.expect_code(1);
                assert!(words.contains(spelling) && words.contains("nothing was changed"), "{output}");
            }
            assert!(is_refused == (status == "refused"), "{spelling}: {status}\n{output}");
            assert!(matches!(&**status, "same" | "different" | "refused"), "{spelling}: {status}");
        }
    }
    let unknown: Vec<&String> = said.keys().filter(|name| !listed.contains(name)).collect();
    assert!(unknown.is_empty(), "rsync has not: {unknown:?}");
}

fn given(sandbox: &Sandbox, spelling: &str, takes_value: bool) -> Output {
    let spelling = if spelling == "--no-OPTION" { "--no-D" } else { spelling };
    let source = sandbox.source().join("file");
    let mut words = vec!["-n".to_owned(), spelling.to_owned()];
    if takes_value {
        words.push(a_value(spelling).to_owned());
    }
    words.push(source.to_str().expect("ASCII").to_owned());
    words.push(sandbox.destination().to_str().expect("ASCII").to_owned());
    sandbox.sync(words)
}

#[test]
fn the_no_form_of_everything_that_rsync_takes_it_for_is_taken() {
    tests::require!("rsync");
    let sandbox = Sandbox::new();
    write_at(&sandbox.source().join("file"), b"content", 1_500_000_000);
    let letters = options_of_rsync(&sandbox);
    let names = letters.iter().flat_map(|option| &option.spellings);
    let mut count = 0;
    for name in names.map(|name| name.trim_start_matches('-')).filter(|name| !name.starts_with("no-")) {
        let no = format!("--no-{name}");
        let theirs = tests::rsync::run(&sandbox, ["-n", &no]);
        if theirs.stderr_text().contains("unknown option") {
            continue;
        }
        count += 1;
        let (source, destination) = (sandbox.source().join("file"), sandbox.destination());
        let line = ["-n".as_ref(), no.as_ref(), source.as_os_str(), destination.as_os_str()];
        sandbox.sync(line).success();
    }
    assert!(count > 60, "{count}");
}

/// A program that stands for a remote shell and writes down its words.
fn witness(sandbox: &Sandbox) -> (String, impl Fn() -> Vec<String>) {
    let (script, words) = (sandbox.path().join("witness"), sandbox.path().join("words"));
    write_script(&script, &format!("#!/bin/sh\nprintf '%s\\n' \"$@\" > '{}'\nexit 9\n", words.display()));
    let read = move || {
        let text = fs::read_to_string(&words).expect("it was started");
        text.lines().map(str::to_owned).collect()
    };
    (script.to_str().expect("ASCII").to_owned(), read)
}

#[test]
fn a_remote_shell_gets_the_words_that_rsync_gives_it() {
    tests::require!("rsync");
    let sandbox = Sandbox::new();
    let (shell, words) = witness(&sandbox);
    // Its name decides whether it gets -4 and -6.
    let as_ssh = sandbox.path().join("bin");
    fs::create_dir(&as_ssh).expect("a new directory");
    symlink(&shell, as_ssh.join("ssh")).expect("a new link");
    let ssh = as_ssh.join("ssh").to_str().expect("ASCII").to_owned();
    for (command, options, source) in [
        (shell.clone(), &[][..], "host:/x"),
        (shell.clone(), &[], "me@host:/x"),
        (shell.clone(), &["-4"], "me@host:/x"),
        (format!("{shell} -x \"a b\"  c''d 'it''s' \"q\"\"q\" a'b c'd"), &[], "me@host:/x"),
        (ssh.clone(), &["-4"], "me@host:/x"),
        (ssh.clone(), &["-6"], "host:/x"),
        (format!("{ssh} -l you"), &[], "me@host:/x"),
        (shell.clone(), &["--rsync-path", "sudo -n agent"], "host:/x"),
    ] {
        let destination = sandbox.destination();
        let line = |first: &str| -> Vec<String> {
            let own = [first, &command].into_iter().chain(options.iter().copied()).chain([source]);
            own.map(str::to_owned).chain([destination.to_str().expect("ASCII").to_owned()]).collect()
        };
        assert_ne!(tests::rsync::run(&sandbox, line("-e")).code(), 0);
        let theirs = words();
        assert_ne!(sandbox.sync(line("-e")).code(), 0);
        let ours = words();
        let of_rsync = theirs.iter().position(|word| word == "--server").expect("rsync's own words");
        let expected: Vec<String> =
            theirs[..of_rsync].iter().map(|word| word.replace("rsync", "sync-agent")).collect();
        assert_eq!(ours[..ours.len() - 1], expected, "-e {command:?} {options:?}");
        assert_eq!(ours.last().map(String::as_str), Some("--stdio"), "-e {command:?} {options:?}");
    }
}

#[test]
fn the_remote_shell_of_the_environment_is_started_unless_the_line_names_one() {
    let sandbox = Sandbox::new();
    let (shell, words) = witness(&sandbox);
    let run_with = |line: &[&str]| {
        let mut command = sandbox.sync_command(line);
        command.env("RSYNC_RSH", format!("{shell} --from-environment"));
        run(command)
    };
    assert_ne!(run_with(&["host:/x", "/nowhere"]).code(), 0);
    assert_eq!(words(), ["--from-environment", "host", "sync-agent", "--stdio"]);
    assert_ne!(run_with(&["-e", &format!("{shell} --typed"), "host:/x", "/nowhere"]).code(), 0);
    assert_eq!(words(), ["--typed", "host", "sync-agent", "--stdio"]);
}

/// A directory with a link of the name `rsync`.
fn link(sandbox: &Sandbox) -> std::path::PathBuf {
    let directory = sandbox.path().join("as-rsync");
    fs::create_dir(&directory).expect("a new directory");
    let link = directory.join("rsync");
    symlink(program("sync-client"), &link).expect("a new link");
    link
}

#[test]
fn a_program_named_rsync_takes_rsync_s_lines() {
    tests::require!("rsync", "sshd");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    let rsync = link(&sandbox);
    let as_rsync = |line: &[String]| {
        let mut command = sandbox.command(&rsync);
        command.args(line);
        run(command)
    };
    write_at(&sandbox.source().join("file"), b"content", 1_500_000_000);
    let source = format!("{}/", sandbox.source().display());
    for direction in &ALL[..3] {
        let destination = sandbox.path().join(format!("{direction:?}").replace(['(', ')'], "-"));
        let line = stage.line(*direction, &source, destination.to_str().expect("ASCII"));
        let output = as_rsync(&line.with(&["-azP", "--delete", "--no-i-r"]));
        output.success();
        assert_eq!(fs::read(destination.join("file")).expect("it was copied"), b"content");
    }
    let words = |line: &[&str]| as_rsync(&line.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
    assert!(words(&["--version"]).success().stdout_text().starts_with("rsync  version 3.5.0"));
    let object: serde_json::Value = serde_json::from_slice(&words(&["-VV"]).stdout).expect("JSON");
    assert_eq!((&object["program"], &object["version"]), (&"rsync".into(), &"3.5.0".into()));
    assert!(words(&["-h"]).success().stdout_text().contains("--archive"));
    words(&[]).expect_code(1).expect_stderr("a source and a destination are needed");
    words(&["-a", "host::module/x", "/tmp/x"]).expect_code(5).expect_stderr("write [USER@]HOST:PATH");
    words(&["rsync://host/module", "/tmp/x"]).expect_code(5).expect_stderr("not spoken to");
    for more in ["--sender", "--log-format=%i"] {
        words(&["--server", more, "-logDtpre.iLsfxCIvu", ".", "/x"]).expect_code(5).expect_stderr("an rsync");
    }
    words(&["-a", "--protocol=30", "a", "b"]).expect_code(1).expect_stderr("--protocol is not done here");
}

#[test]
fn a_stock_rsync_at_the_other_side_is_named() {
    tests::require!("rsync", "sshd");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    write_at(&sandbox.source().join("file"), b"content", 1_500_000_000);
    let (source, destination) = (sandbox.source(), sandbox.destination());
    for direction in &ALL[1..3] {
        let line =
            stage.line(*direction, source.to_str().expect("ASCII"), destination.to_str().expect("ASCII"));
        let output = sandbox.sync(line.with(&["-a", "--rsync-path=rsync"]));
        output.expect_code(5).expect_stderr("has rsync, not sync-agent").expect_stderr("--agent-path");
    }
}

#[test]
fn options_that_hold_anyway_change_nothing() {
    let sandbox = Sandbox::new();
    write_at(&sandbox.source().join("file"), b"content", 1_500_000_000);
    let source = format!("{}/", sandbox.source().display());
    let line = "-a -s --fsync --trust-sender --blocking-io --max-alloc=2g --skip-compress=gz/jpg --zt=2 --i-r \
                --no-motd --cc=xxh3,md5 --zc=lz4 --zl=-5 --insecure-links --no-iconv --debug=all9 --outbuf=b";
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    words.extend([source, sandbox.destination().display().to_string()]);
    sandbox.sync(words).success();
    assert_eq!(fs::read(sandbox.destination().join("file")).expect("copied"), b"content");
}

#[test]
fn a_connection_comes_from_where_it_is_told_to() {
    tests::require!("sshd");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    write_at(&sandbox.source().join("file"), b"content", 1_500_000_000);
    let (source, destination) = (sandbox.source(), sandbox.destination());
    let line = stage.line(ALL[1], source.to_str().expect("ASCII"), destination.to_str().expect("ASCII"));
    sandbox.sync(line.with(&["-a", "--address=127.0.0.1", "-4", "--contimeout=20"])).success();
    sandbox.sync(line.with(&["-a", "--address=192.0.2.1"])).expect_code(10).expect_stderr("can't connect");
    sandbox.sync(line.with(&["-a", "-6"])).expect_code(10).expect_stderr("no such address");
}
