//! `proxy`, `register` and `key` where an operator's file could get lost: what they can't do leaves every byte.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use tests::mount::Tmpfs;
use tests::process::{self, Output};
use tests::sandbox::{Sandbox, names_in, write_script};

const NEW: &str = "203.0.113.7";
const SITE: &str = "upstream core_server {\n  server core:3000;\n}\nserver {\n  location / {\n    \
                    proxy_pass http://core_server;\n  }\n}\n";
const DNS: &str = "{\"dns\": {\"domain\": \"example.com\", \"staticDataInDomain\": {\n  \"co1\": {\"ip\": \"192.0.2.1\"},\n  \
                   \"co2\": {\"ip\": \"192.0.2.2\"},\n  \"co3\": {\"ip\": \"192.0.2.3\"}\n}}}\n";

/// A change of one file and its undo.
struct Edit {
    file: &'static str,
    text: &'static str,
    make: &'static [&'static str],
    undo: &'static [&'static str],
}

const EDITS: [Edit; 2] = [
    Edit {
        file: "site-443.conf",
        text: SITE,
        make: &["proxy", "enable", "--to", NEW],
        undo: &["proxy", "disable"],
    },
    Edit {
        file: "dns.json",
        text: DNS,
        make: &["register", "set", "--core", "co1", "--ip", NEW],
        undo: &["register", "undo"],
    },
];

/// Runs a command with `--yes` on that file.
fn on(sandbox: &Sandbox, command: &[&str], file: &Path) -> Output {
    let file = file.to_str().expect("UTF-8");
    sandbox.client([command, &["--yes", "--file", file]].concat())
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("it is there")
}

/// Everything in a directory that is a file.
fn content(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| fs::read(directory.join(&name)).ok().map(|bytes| (name, bytes));
    names_in(directory).into_iter().filter_map(read).collect()
}

#[test]
fn a_full_or_read_only_file_system_changes_nothing() {
    tests::require!("root");
    for Edit { file, text, make, undo } in &EDITS {
        let sandbox = Sandbox::new();
        let directory = sandbox.path().join("small");
        fs::create_dir(&directory).expect("a new directory");
        let small = Tmpfs::mount(&directory, 256 << 10);
        let file = directory.join(file);
        fs::write(&file, text).expect("a new file");
        on(&sandbox, make, &file).success();
        on(&sandbox, undo, &file).success();
        fs::remove_file(directory.join("site-443.conf.before-proxy")).ok();
        let filler = directory.join("filler");
        // As much as there is room for.
        let _ = fs::write(&filler, vec![7; 512 << 10]);
        on(&sandbox, make, &file).expect_code(44);
        assert_eq!(content(&directory).len(), 2, "{:?}", names_in(&directory));
        fs::remove_file(&filler).expect("the file is ours");
        on(&sandbox, make, &file).success();
        let before = content(&directory);
        let mut remount = sandbox.command("/usr/bin/env");
        remount.args(["mount", "-o", "remount,ro"]).arg(small.path());
        process::run(remount).success();
        on(&sandbox, undo, &file).expect_code(11).expect_stderr("Read-only file system");
        assert!(content(&directory) == before);
    }
}

#[test]
fn a_second_undo_and_an_empty_file_are_refused_and_stay() {
    for Edit { file, text, make, undo } in &EDITS {
        let sandbox = Sandbox::new();
        let file = sandbox.path().join(file);
        for (bytes, command) in [(*text, undo), ("", make), ("\u{feff}", make), ("", undo)] {
            fs::write(&file, bytes).expect("a new file");
            on(&sandbox, command, &file).expect_code(46);
            assert_eq!(fs::read(&file).expect("it is there"), bytes.as_bytes());
        }
        fs::write(&file, text).expect("the file is ours");
        on(&sandbox, make, &file).success();
        on(&sandbox, undo, &file).success();
        on(&sandbox, undo, &file).expect_code(46).expect_stderr("nothing to undo");
        assert_eq!(fs::read(&file).expect("it is there"), text.as_bytes());
    }
}

#[test]
fn no_name_reaches_the_terminal_as_it_is() {
    for Edit { file, text, make, undo } in &EDITS {
        let sandbox = Sandbox::new();
        let directory = sandbox.path().join("a\n\u{1b}[2Jb");
        fs::create_dir(&directory).expect("a new directory");
        let file = directory.join(file);
        fs::write(&file, text).expect("a new file");
        let show = [make[0], "show", "--file", file.to_str().expect("UTF-8")];
        let other = directory.join("other");
        for output in [
            on(&sandbox, make, &file),
            sandbox.client(show),
            on(&sandbox, undo, &file),
            on(&sandbox, undo, &file),
            on(&sandbox, make, &other),
            on(&sandbox, undo, &directory),
        ] {
            let said = output.stdout_text() + &output.stderr_text();
            assert!(!said.contains('\u{1b}') && !said.contains("/a\n"), "{output}");
        }
        assert_eq!(fs::read(&file).expect("it is there"), text.as_bytes());
    }
}

#[test]
fn a_file_with_other_names_is_refused_and_nothing_is_left_beside_it() {
    for Edit { file, text, make, .. } in &EDITS {
        let sandbox = Sandbox::new();
        let directory = sandbox.path().join("conf");
        fs::create_dir(&directory).expect("a new directory");
        let file = directory.join(file);
        fs::write(&file, text).expect("a new file");
        fs::hard_link(&file, directory.join("other")).expect("a new name");
        on(&sandbox, make, &file).expect_code(3).expect_stderr("hard links");
        assert_eq!(names_in(&directory).len(), 2, "{:?}", names_in(&directory));
    }
}

#[test]
fn an_edit_that_is_only_half_there_is_neither_undone_nor_made_again() {
    let sandbox = Sandbox::new();
    let file = sandbox.path().join("site-443.conf");
    fs::write(&file, SITE).expect("a new file");
    let enable = EDITS[0].make;
    on(&sandbox, enable, &file).success();
    let enabled = text(&file);
    let lines: Vec<&str> = enabled.split_inclusive('\n').collect();
    let is_mark = |line: &str| line.contains("# sync-client proxy ");
    let marks: Vec<usize> = (0..lines.len()).filter(|&at| is_mark(lines[at])).collect();
    assert!(marks.len() >= 4, "{enabled}");
    // Any one line of a part gone, or a part, or all behind a place.
    let mut halves: Vec<String> = Vec::new();
    for pair in marks.chunks(2) {
        for gone in pair[0]..=pair[1] {
            halves.push([&lines[..gone], &lines[gone + 1..]].concat().concat());
        }
        halves.push([&lines[..pair[0]], &lines[pair[1] + 1..]].concat().concat());
        halves.push(lines[..pair[1]].concat());
    }
    for half in halves {
        fs::write(&file, &half).expect("the file is ours");
        for command in [enable, EDITS[0].undo] {
            on(&sandbox, command, &file).expect_code(46).expect_stderr("line ");
            assert_eq!(text(&file), half);
        }
    }
}

#[test]
fn an_edit_made_while_the_test_runs_stays_and_the_old_file_is_beside_it() {
    let sandbox = Sandbox::new();
    let directory = sandbox.path().join("conf");
    fs::create_dir(&directory).expect("a new directory");
    let file = directory.join("site-443.conf");
    fs::write(&file, SITE).expect("a new file");
    on(&sandbox, EDITS[0].make, &file).success();
    let enabled = text(&file);
    let script = sandbox.path().join("test");
    write_script(&script, &format!("#!/bin/sh\necho '# theirs' >> {}\nexit 1\n", file.display()));
    let disable = ["proxy", "disable", "--test-command", script.to_str().expect("ASCII")];
    let output = on(&sandbox, &disable, &file);
    output.expect_code(46).expect_stderr("can't be put back").expect_stderr("site-443.conf.before-proxy.1");
    assert_eq!(text(&file), format!("{SITE}# theirs\n"));
    assert_eq!(text(&directory.join("site-443.conf.before-proxy.1")), enabled);
    assert_eq!(names_in(&directory).len(), 3);
}

#[test]
fn what_is_beside_a_file_and_not_its_undo_is_neither_read_nor_written_over() {
    let sandbox = Sandbox::new();
    let directory = sandbox.path().join("conf");
    fs::create_dir(&directory).expect("a new directory");
    let (file, beside) = (directory.join("dns.json"), directory.join("dns.json.sync-client-undo"));
    fs::write(&file, DNS).expect("a new file");
    let precious = sandbox.path().join("precious");
    fs::write(&precious, "precious").expect("a new file");
    symlink(&precious, &beside).expect("a new link");
    for command in [EDITS[1].make, EDITS[1].undo] {
        on(&sandbox, command, &file).expect_code(3).expect_stderr("is not a regular file");
    }
    fs::remove_file(&beside).expect("the link is ours");
    fs::write(&beside, "{}").expect("a new file");
    for command in [EDITS[1].make, EDITS[1].undo] {
        on(&sandbox, command, &file).expect_code(46).expect_stderr("move that file away");
    }
    fs::remove_file(&beside).expect("the file is ours");
    // That of another file, which has other addresses.
    let other = sandbox.path().join("dns.json");
    fs::write(&other, DNS.replace("192.0.2.1", "198.51.100.1").replace("co2", "co9")).expect("a new file");
    on(&sandbox, EDITS[1].make, &other).success();
    on(&sandbox, &["register", "set", "--core", "co9", "--ip", NEW], &other).success();
    fs::copy(sandbox.path().join("dns.json.sync-client-undo"), &beside).expect("a copy");
    let foreign = fs::read(&beside).expect("it is there");
    on(&sandbox, EDITS[1].undo, &file).expect_code(46);
    on(&sandbox, EDITS[1].make, &file).expect_code(46);
    assert_eq!((text(&file).as_str(), text(&precious).as_str()), (DNS, "precious"));
    assert_eq!(fs::read(&beside).expect("it is there"), foreign);
}

#[test]
fn of_several_runs_at_once_each_counts_and_undo_takes_all_of_them_back() {
    let sandbox = Sandbox::new();
    let file = sandbox.path().join("dns.json");
    fs::write(&file, DNS).expect("a new file");
    thread::scope(|scope| {
        for core in ["co1", "co2", "co3"] {
            let (sandbox, file) = (&sandbox, &file);
            scope.spawn(move || {
                let set = ["register", "set", "--core", core, "--ip", NEW];
                let again = |output: &Output| {
                    output.code() == 46 && output.stderr_text().contains("changed by somebody else meanwhile")
                };
                while let output = on(sandbox, &set, file)
                    && output.code() != 0
                {
                    assert!(again(&output), "{output}");
                }
            });
        }
    });
    assert_eq!(text(&file).matches(NEW).count(), 3, "{}", text(&file));
    on(&sandbox, EDITS[1].undo, &file).success();
    assert_eq!(text(&file), DNS);
}

#[test]
fn a_key_with_another_name_or_a_strange_public_half_is_not_half_removed() {
    let sandbox = Sandbox::new();
    let (key, copy) = (sandbox.path().join("key"), sandbox.path().join("copy"));
    sandbox.client(["key", "new", "--file", key.to_str().expect("ASCII")]).success();
    let public = PathBuf::from(format!("{}.pub", key.display()));
    fs::hard_link(&key, &copy).expect("a new name");
    on(&sandbox, &["key", "remove"], &key).expect_code(3).expect_stderr("hard links");
    assert!(key.exists() && public.exists());
    fs::remove_file(&copy).expect("the file is ours");
    // A FIFO would be waited for.
    fs::remove_file(&public).expect("the file is ours");
    rustix::fs::mknodat(rustix::fs::CWD, &public, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .expect("a new FIFO");
    sandbox.client(["key", "show", "--root", "/srv", "--file", key.to_str().expect("ASCII")]).success();
    on(&sandbox, &["key", "remove"], &key).success();
    assert!(!key.exists() && public.exists());
    let odd = sandbox.path().join("odd");
    fs::write(&odd, [0xff, 0]).expect("a new file");
    fs::set_permissions(&odd, fs::Permissions::from_mode(0o600)).expect("the file is ours");
    on(&sandbox, &["key", "remove"], &odd).expect_code(3).expect_stderr("is not an SSH key");
    assert!(odd.exists());
}
