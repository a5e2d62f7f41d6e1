//! Metadata beyond what `-a` keeps, beside the installed rsync: the same trees, the same lines, the same exit status, in every
//! direction.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use tests::beside::{Case, contents_of, in_every_direction, text};
use tests::directions::Direction;
use tests::extras::{access_times, attributes, link_groups, set_attribute};
use tests::process::{self, Output};
use tests::sandbox::Sandbox;
use tests::snapshot::{NOTHING, assert_same, snapshot};
use tests::tree::{set_mtime, write_at};

const LONG_AGO_S: i64 = 1_500_000_000;

/// A file, directory, link, FIFO and locked file, all of the same age.
fn some_of_each(root: &Path) {
    write_at(&root.join("file"), b"some content", LONG_AGO_S);
    write_at(&root.join("locked"), b"read only", LONG_AGO_S);
    fs::set_permissions(root.join("locked"), fs::Permissions::from_mode(0o444)).expect("it is ours");
    fs::create_dir(root.join("directory")).expect("a new directory");
    write_at(&root.join("directory/inner"), &[7; 40_000], LONG_AGO_S);
    symlink("file", root.join("link")).expect("a new link");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), rustix::fs::FileType::Fifo, mode, 0)
        .expect("a new FIFO");
    for name in ["directory", "link", "fifo", ""] {
        set_mtime(&root.join(name), LONG_AGO_S, 0);
    }
}

#[test]
fn extended_attributes_come_change_and_go_as_with_rsync() {
    tests::require!("rsync", "sshd", "root");
    in_every_direction("xattrs", |case| {
        let source = case.source();
        some_of_each(&source);
        set_attribute(&source.join("file"), "user.a", b"1");
        set_attribute(&source.join("file"), "user.empty", b"");
        set_attribute(&source.join("file"), "trusted.t", &[0, 255, 10]);
        set_attribute(&source.join("locked"), "user.a", b"1");
        set_attribute(&source.join("directory"), "user.large", &[5; 3000]);
        set_attribute(&source.join("directory/inner"), "user.a", b"1");
        set_attribute(&source.join("link"), "trusted.l", b"of the link");
        set_attribute(&source.join("fifo"), "trusted.f", b"of the fifo");
        set_attribute(&source, "user.root", b"of the root");
        case.compare_all(&["-aXi"]);
        assert_eq!(attributes(&source), attributes(&case.ours()));
        case.compare_all(&["-aXi"]);

        set_attribute(&source.join("file"), "user.a", b"2");
        set_attribute(&source.join("locked"), "user.b", b"2");
        set_attribute(&source.join("link"), "trusted.l", b"changed");
        set_attribute(&source.join("fifo"), "trusted.f", b"changed");
        set_attribute(&source, "user.root", b"changed");
        rustix::fs::removexattr(source.join("directory"), "user.large").expect("it was there");
        write_at(&source.join("directory/inner"), &[8; 50_000], LONG_AGO_S + 9);
        case.at_both(|copy| set_attribute(&copy.join("directory/inner"), "user.extraneous", b"3"));
        // What is not asked for is not looked at.
        case.compare_all(&["-ain"]);
        case.compare_all(&["-aXin"]);
        case.compare_all(&["-aXi"]);
        assert_eq!(attributes(&source), attributes(&case.ours()));
        case.compare_all(&["-aXi"]);
    });
}

/// An ACL as Linux keeps it: tag, permissions and user or group of each entry.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let entry = |&(tag, permissions, id): &(u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [vec![2, 0, 0, 0], entries.iter().flat_map(entry).collect()].concat()
}

const NOBODY: u32 = u32::MAX;

#[test]
fn acls_come_change_and_go_as_with_rsync() {
    tests::require!("rsync", "sshd", "root");
    let of_user = |user, permissions| {
        acl(&[(1, 6, NOBODY), (2, permissions, user), (4, 4, NOBODY), (16, 7, NOBODY), (32, 0, NOBODY)])
    };
    in_every_direction("acls", |case| {
        let source = case.source();
        some_of_each(&source);
        // User 1 has a name, 54321 has none.
        set_attribute(&source.join("file"), "system.posix_acl_access", &of_user(1, 7));
        set_attribute(&source.join("directory"), "system.posix_acl_default", &of_user(54_321, 5));
        set_attribute(&source.join("directory/inner"), "system.posix_acl_access", &of_user(54_321, 4));
        case.compare_all(&["-aAi"]);
        assert_eq!(attributes(&source), attributes(&case.ours()));
        case.compare_all(&["-aAi"]);
        set_attribute(&source.join("file"), "system.posix_acl_access", &of_user(2, 6));
        rustix::fs::removexattr(source.join("directory/inner"), "system.posix_acl_access")
            .expect("it was there");
        rustix::fs::removexattr(source.join("directory"), "system.posix_acl_default").expect("it was there");
        case.compare_all(&["-aAin"]);
        case.compare_all(&["-aAi"]);
        assert_eq!(attributes(&source), attributes(&case.ours()));
        case.compare_all(&["-rltAXi"]);
    });
}

#[test]
fn access_times_are_those_of_the_source() {
    tests::require!("rsync", "sshd", "root");
    in_every_direction("atimes", |case| {
        let source = case.source();
        some_of_each(&source);
        let touch = |name: &str, seconds: i64| {
            let time = |seconds| rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times =
                rustix::fs::Timestamps { last_access: time(seconds), last_modification: time(LONG_AGO_S) };
            rustix::fs::utimensat(
                rustix::fs::CWD,
                source.join(name),
                &times,
                rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
            )
            .expect("times can be set");
        };
        // Later than the content, so that reading does not change it where atime is relative.
        let now_s = 4_000_000_000;
        ["file", "locked", "fifo", "directory", "directory/inner"].iter().for_each(|name| touch(name, now_s));
        case.compare_all(&["-aUi"]);
        assert_eq!(access_times(&source), access_times(&case.ours()));
        touch("file", now_s + 1);
        touch("directory", now_s + 1);
        case.compare_all(&["-aUi"]);
        assert_eq!(access_times(&source), access_times(&case.ours()));
        case.compare_all(&["-aUi"]);
    });
}

#[test]
fn times_and_modes_are_left_out_by_kind() {
    tests::require!("rsync", "sshd", "root");
    in_every_direction("omitted", |case| {
        let source = case.source();
        some_of_each(&source);
        write_at(&source.join("program"), b"#!", LONG_AGO_S);
        fs::set_permissions(source.join("program"), fs::Permissions::from_mode(0o755)).expect("it is ours");
        let aged = |copy: &Path| {
            ["directory", "link", ""].iter().for_each(|name| set_mtime(&copy.join(name), LONG_AGO_S, 0));
        };
        for options in [&["-aOi"][..], &["-aJi"], &["-aOJi"], &["-rltEi"], &["-rltpEi"]] {
            eprintln!("{options:?}");
            case.run(&["-a"]);
            set_mtime(&source.join("directory"), LONG_AGO_S + 60, 0);
            set_mtime(&source.join("link"), LONG_AGO_S + 60, 0);
            case.at_both(|copy| {
                aged(copy);
                let set = |name: &str, mode| {
                    fs::set_permissions(copy.join(name), fs::Permissions::from_mode(mode))
                        .expect("it is ours");
                };
                set("program", 0o640);
                set("file", 0o711);
            });
            case.compare_all(options);
            case.compare_all(options);
        }
    });
}

/// Which names are linked is the same, and in what order of changes; which of them came first is our own choice.
fn compare_links(case: &Case<'_>, options: &[&str]) {
    let (theirs, ours) = case.run(options);
    assert_same(&snapshot(&case.theirs()), &snapshot(&case.ours()), &NOTHING);
    case.compare_attributes();
    assert_eq!(link_groups(&case.theirs()), link_groups(&case.ours()), "{theirs}\n{ours}");
}

#[test]
fn names_of_one_file_stay_names_of_one_file() {
    tests::require!("rsync", "sshd", "root");
    in_every_direction("links", |case| {
        let source = case.source();
        some_of_each(&source);
        let link =
            |old: &str, new: &str| fs::hard_link(source.join(old), source.join(new)).expect("a new link");
        link("file", "file-2");
        link("file", "directory/file-3");
        link("directory/inner", "a-inner");
        link("link", "link-2");
        link("fifo", "directory/fifo-2");
        write_at(&source.join("empty"), b"", LONG_AGO_S);
        link("empty", "empty-2");
        // rsync compares whole seconds: what is changed below must not be as young as that.
        ["directory", ""].iter().for_each(|name| set_mtime(&source.join(name), LONG_AGO_S, 0));
        compare_links(case, &["-aHin"]);
        compare_links(case, &["-aHi"]);
        assert_eq!(link_groups(&source), link_groups(&case.ours()));
        case.compare_all(&["-aHi"]);

        // Metadata of one is metadata of all; a broken link is made again; one that is too much goes.
        fs::set_permissions(source.join("file"), fs::Permissions::from_mode(0o600)).expect("it is ours");
        case.at_both(|copy| {
            fs::remove_file(copy.join("directory/file-3")).expect("it is there");
            write_at(&copy.join("directory/file-3"), b"another content", LONG_AGO_S);
            fs::hard_link(copy.join("file-2"), copy.join("file-9")).expect("a new link");
        });
        compare_links(case, &["-aHi", "--delete"]);
        assert_eq!(link_groups(&source), link_groups(&case.ours()));

        // New content, for all of its names; and a name in the place of a directory.
        write_at(&source.join("directory/inner"), &[9; 70_000], LONG_AGO_S + 5);
        case.at_both(|copy| {
            fs::remove_file(copy.join("empty-2")).expect("it is there");
            fs::create_dir(copy.join("empty-2")).expect("a new directory");
        });
        compare_links(case, &["-aHi", "--delete"]);
        assert_eq!(link_groups(&source), link_groups(&case.ours()));
        case.compare_all(&["-aHi", "--delete"]);

        // Separate again at the source: what differs is separate again.
        fs::remove_file(source.join("file-2")).expect("it is there");
        write_at(&source.join("file-2"), b"of its own", LONG_AGO_S + 7);
        set_mtime(&source, LONG_AGO_S, 0);
        compare_links(case, &["-aHi", "--delete"]);
        assert_eq!(link_groups(&source), link_groups(&case.ours()));
    });
}

#[test]
fn the_first_name_is_said_of_every_other_one() {
    let sandbox = Sandbox::new();
    let source = sandbox.source();
    for name in ["b", "c"] {
        write_at(&source.join(name), b"x", LONG_AGO_S);
        fs::hard_link(source.join(name), source.join(format!("{name}{name}"))).expect("a new link");
    }
    let line = [format!("{}/", source.display()), sandbox.destination().display().to_string()];
    let output = sandbox.sync(["-aHi"].into_iter().map(String::from).chain(line.clone()));
    let links: Vec<String> =
        output.success().itemized().into_iter().filter(|line| line.starts_with('h')).collect();
    assert_eq!(links, ["hf+++++++++ bb => b", "hf+++++++++ cc => c"]);
    // Linked anew, with nothing else to change.
    fs::remove_file(sandbox.destination().join("bb")).expect("it is there");
    fs::copy(sandbox.destination().join("b"), sandbox.destination().join("bb")).expect("a copy");
    set_mtime(&sandbox.destination().join("bb"), LONG_AGO_S, 0);
    set_mtime(&sandbox.destination(), LONG_AGO_S, 0);
    set_mtime(&source, LONG_AGO_S, 0);
    let output = sandbox.sync(["-aHi"].into_iter().map(String::from).chain(line));
    assert_eq!(output.success().itemized(), ["hf          bb => b"]);
}

/// Entries of several owners, of which user and group 54321 have no name.
fn owned(root: &Path) {
    some_of_each(root);
    let own = |name: &str, user, group| {
        std::os::unix::fs::lchown(root.join(name), Some(user), Some(group)).expect("as root");
    };
    own("file", 1, 2);
    own("directory", 54_321, 54_322);
    own("directory/inner", 2, 1);
    own("link", 3, 3);
    set_mtime(&root.join("link"), LONG_AGO_S, 0);
}

#[test]
fn owners_and_groups_become_others_as_with_rsync() {
    tests::require!("rsync", "sshd", "root");
    in_every_direction("mapped", |case| {
        owned(&case.source());
        for options in [
            &["-rltDi", "--usermap=1:sys"][..],
            &["-ai", "--usermap=daemon:sys,*:games", "--groupmap=2:3,54322:bin,:sys"],
            &["-ai", "--usermap=:sys", "--no-g"],
            &["-ai", "--usermap=0:sys"],
            &["-ai", "--usermap=root:sys,1-2:7"],
            &["-ai", "--usermap=d*:12345,[st]ys:4"],
            &["-ai", "--usermap=2-1:5", "--groupmap=?*:4"],
            &["-ai", "--usermap=daemon:3", "--numeric-ids"],
            &["-ai", "--usermap=:3", "--groupmap=*:8", "--numeric-ids"],
            &["-rlti", "--no-o", "--usermap=*:2", "--chown=:4"],
            &["-rlti", "--chown=5:", "--chown=:6"],
            &["-ai", "--chown=:"],
        ] {
            eprintln!("{options:?}");
            case.compare_all(options);
            case.compare_all(options);
        }
    });
}

#[test]
fn maps_that_say_nothing_or_two_things_are_refused() {
    tests::require!("rsync", "root");
    let sandbox = Sandbox::new();
    let stage_paths =
        [format!("{}/", sandbox.source().display()), sandbox.destination().display().to_string()];
    owned(&sandbox.source());
    for options in [
        &["--usermap=foo"][..],
        &["--usermap=1-:2"],
        &["--groupmap=1x:2"],
        &["--usermap=1:2,"],
        &["--usermap=1:99999999999"],
        &["--usermap=1:2", "--chown=3"],
        &["--chown=:3", "--groupmap=1:2"],
        &["--usermap=1:2", "--usermap=2:3"],
        &["--chown=1", "--chown=2"],
        &["-N"],
        &["--crtimes"],
    ] {
        let line = |first: &str| {
            [first]
                .iter()
                .chain(options)
                .map(|&option| option.to_owned())
                .chain(stage_paths.clone())
                .collect::<Vec<_>>()
        };
        let theirs = tests::rsync::run(&sandbox, line("-a"));
        let ours = sandbox.sync(line("-a"));
        eprintln!("{options:?}\n{ours}");
        ours.expect_code(theirs.code());
        ours.expect_code(1);
    }
    // rsync goes on without the pair, and exits with 0.
    let line = [&["-a".to_owned(), "--usermap=*:no-such-user".to_owned()][..], &stage_paths].concat();
    let ours = sandbox.sync(line);
    ours.expect_code(1);
    assert!(ours.stderr_text().contains("no-such-user"), "{ours}");
    assert_eq!(tests::sandbox::names_in(&sandbox.destination()), [""; 0]);
}

/// Devices, attributes and ACLs of several owners.
fn privileged(root: &Path) {
    owned(root);
    for (name, kind, device) in [
        ("character", rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        ("block", rustix::fs::FileType::BlockDevice, rustix::fs::makedev(7, 200)),
        ("socket", rustix::fs::FileType::Socket, 0),
    ] {
        let mode = rustix::fs::Mode::from_raw_mode(0o640);
        rustix::fs::mknodat(rustix::fs::CWD, root.join(name), kind, mode, device).expect("as root");
        set_mtime(&root.join(name), LONG_AGO_S, 0);
    }
    let mode = |name: &str, mode| {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    mode("file", 0o6755);
    mode("directory", 0o3777);
    mode("directory/inner", 0o007);
    set_attribute(&root.join("file"), "trusted.t", &[0, 255, 10]);
    set_attribute(&root.join("locked"), "user.a", b"1");
    let named = |group| {
        acl(&[
            (1, 6, NOBODY),
            (2, 7, 1),
            (2, 5, 54_321),
            (4, group, NOBODY),
            (8, 4, 2),
            (16, 7, NOBODY),
            (32, 4, NOBODY),
        ])
    };
    set_attribute(&root.join("locked"), "system.posix_acl_access", &named(5));
    set_attribute(&root.join("directory"), "system.posix_acl_default", &named(7));
    ["", "directory"].iter().for_each(|name| set_mtime(&root.join(name), LONG_AGO_S, 0));
}

/// The options by which one end alone keeps in attributes what only root may set.
fn stored_at(direction: Direction, is_source: bool) -> &'static [&'static str] {
    match (direction, is_source) {
        (Direction::Push(_), true) | (Direction::Pull(_), false) => &["--fake-super"],
        (Direction::Local, true) => &["--fake-super", "-M--super"],
        (Direction::Push(_), false) | (Direction::Pull(_), true) | (Direction::Local, false) => {
            &["-M--fake-super"]
        }
    }
}

#[test]
fn what_only_root_may_set_is_kept_in_attributes_as_rsync_keeps_it() {
    tests::require!("rsync", "sshd", "root");
    in_every_direction("stored", |case| {
        let source = case.source();
        privileged(&source);
        let there = |options: &[&'static str]| [options, stored_at(case.direction, false)].concat();
        case.compare_all(&there(&["-aAXi"]));
        case.compare_all(&there(&["-aAXi"]));

        std::os::unix::fs::lchown(source.join("link"), Some(9), Some(9)).expect("as root");
        std::os::unix::fs::lchown(source.join("block"), Some(9), Some(9)).expect("as root");
        fs::set_permissions(source.join("character"), fs::Permissions::from_mode(0o600)).expect("it is ours");
        fs::remove_file(source.join("socket")).expect("it is there");
        symlink("elsewhere", source.join("socket")).expect("a new link");
        set_mtime(&source.join("socket"), LONG_AGO_S + 3, 0);
        set_mtime(&source, LONG_AGO_S, 0);
        set_attribute(&source.join("file"), "trusted.t", b"changed");
        rustix::fs::removexattr(source.join("directory"), "system.posix_acl_default").expect("it was there");
        case.compare_all(&there(&["-aAXi", "--delete"]));
        case.compare_all(&there(&["-aAXHi", "--usermap=1:4,*:9", "--groupmap=*:7"]));
        case.compare_all(&there(&["-aAXHi", "--usermap=1:4,*:9", "--groupmap=*:7"]));
        // Not ACLs: rsync keeps the mask of before, which the mode says better.
        case.compare_all(&there(&["-aXi", "--chmod=F0600"]));
        case.compare_all(&there(&["-aXi", "--chmod=F0600"]));
    });
}

#[test]
fn a_tree_that_keeps_it_in_attributes_becomes_the_tree_that_it_was() {
    tests::require!("rsync", "sshd", "root");
    in_every_direction("restored", |case| {
        let original = case.directory.join("original");
        fs::create_dir(&original).expect("a new directory");
        privileged(&original);
        let (original_text, source) = (contents_of(&original), contents_of(&case.source()));
        tests::rsync::run(case.sandbox, ["-aAX", "-M--fake-super", &original_text, &source]).success();
        let options = [&["-aAXi"][..], stored_at(case.direction, true)].concat();
        case.compare_all(&options);
        assert_same(&snapshot(&original), &snapshot(&case.ours()), &NOTHING);
        assert_eq!(attributes(&original), attributes(&case.ours()));
        case.compare_all(&options);
    });
}

#[test]
fn who_is_not_root_keeps_a_tree_that_root_gets_back() {
    tests::require!("root", "setpriv");
    const SOMEBODY: u32 = 12_345;
    let sandbox = Sandbox::on_disk();
    let (source, stored) = (sandbox.source(), sandbox.path().join("stored"));
    privileged(&source);
    // Somebody reads all of it.
    fs::set_permissions(source.join("directory/inner"), fs::Permissions::from_mode(0o4705))
        .expect("it is ours");
    rustix::fs::removexattr(source.join("file"), "trusted.t").expect("it was there");
    fs::create_dir(&stored).expect("a new directory");
    std::os::unix::fs::chown(&stored, Some(SOMEBODY), Some(SOMEBODY)).expect("as root");
    for path in [sandbox.path(), &source] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
    }
    set_mtime(&source, LONG_AGO_S, 0);
    std::os::unix::fs::chown(sandbox.home(), Some(SOMEBODY), Some(SOMEBODY)).expect("as root");
    let line = ["-aAX", "-M--fake-super", &contents_of(&source), &text(&stored)].map(str::to_owned);
    as_somebody(&sandbox, SOMEBODY, &line).success();
    let owner = |name: &str| stored.join(name).symlink_metadata().expect("it is there").uid();
    assert_eq!([owner("file"), owner("block"), owner("link")], [SOMEBODY; 3]);
    assert!(stored.join("block").is_file() && !stored.join("link").is_symlink());
    let restored = sandbox.destination();
    sandbox.sync(["-aAX", "--fake-super", "-M--super", &contents_of(&stored), &text(&restored)]).success();
    assert_same(&snapshot(&source), &snapshot(&restored), &NOTHING);
    assert_eq!(attributes(&source), attributes(&restored));
}

/// Runs `sync` as a user who is not root.
fn as_somebody(sandbox: &Sandbox, user: u32, line: &[String]) -> Output {
    let ours = sandbox.sync_command(line);
    let mut command = sandbox.command("setpriv");
    let id = user.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    command.arg(ours.get_program()).args(ours.get_args()).current_dir(sandbox.home());
    process::run(command)
}

#[test]
fn owners_of_who_is_not_root_are_as_with_rsync() {
    tests::require!("rsync", "root", "setpriv");
    const SOMEBODY: u32 = 12_345;
    let sandbox = Sandbox::on_disk();
    privileged(&sandbox.source());
    for path in [sandbox.path().to_owned(), sandbox.source()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
    }
    fs::set_permissions(sandbox.source().join("directory/inner"), fs::Permissions::from_mode(0o644))
        .expect("it is ours");
    std::os::unix::fs::chown(sandbox.home(), Some(SOMEBODY), Some(SOMEBODY)).expect("as root");
    for options in [
        &["-a"][..],
        &["-rlt", "--usermap=*:3", "--groupmap=*:12345"],
        &["-a", "--super"],
        &["-a", "--no-super"],
        &["-a", "--fake-super"],
        &["-a", "--fake-super", "--no-super"],
    ] {
        let copies = ["ours", "theirs"].map(|name| sandbox.path().join(name));
        for copy in &copies {
            let _ = fs::remove_dir_all(copy);
            fs::create_dir(copy).expect("a new directory");
            std::os::unix::fs::chown(copy, Some(SOMEBODY), Some(SOMEBODY)).expect("as root");
        }
        let line = |copy: &Path| {
            let paths = [contents_of(&sandbox.source()), text(copy)];
            options.iter().map(|&option| option.to_owned()).chain(paths).collect::<Vec<_>>()
        };
        let ours = as_somebody(&sandbox, SOMEBODY, &line(&copies[0]));
        let mut command = sandbox.command("setpriv");
        command.args(["--reuid", "12345", "--regid", "12345", "--clear-groups", "rsync"]);
        let theirs = process::run({
            command.args(line(&copies[1]));
            command
        });
        eprintln!("{options:?}\n{theirs}\n{ours}");
        ours.expect_code(theirs.code());
        // Whoever claims what is not given to him is left with what came as far as that.
        if !options.contains(&"--super") {
            assert_same(&snapshot(&copies[1]), &snapshot(&copies[0]), &NOTHING);
            assert_eq!(attributes(&copies[1]), attributes(&copies[0]));
        }
    }
}

#[test]
fn root_does_without_being_root_as_with_rsync() {
    tests::require!("rsync", "sshd", "root");
    in_every_direction("waived", |case| {
        privileged(&case.source());
        let there = match case.direction {
            Direction::Push(_) => "-M--no-super",
            Direction::Pull(_) | Direction::Local => "--no-super",
        };
        case.compare_all(&["-aXi", there]);
        case.compare_all(&["-aXi", there]);
    });
}

#[test]
fn what_is_kept_badly_is_reported_and_other_options_of_the_other_end_are_refused() {
    let sandbox = Sandbox::on_disk();
    write_at(&sandbox.source().join("good"), b"good", LONG_AGO_S);
    write_at(&sandbox.source().join("bad"), b"bad", LONG_AGO_S);
    set_attribute(&sandbox.source().join("bad"), "user.rsync.%stat", b"junk");
    let paths = [contents_of(&sandbox.source()), text(&sandbox.destination())];
    let line = |options: &[&str]| {
        options.iter().map(|&option| option.to_owned()).chain(paths.clone()).collect::<Vec<_>>()
    };
    let ours = sandbox.sync(line(&["-a", "--delete", "--fake-super"]));
    ours.expect_code(23);
    assert!(ours.stderr_text().contains("bad"), "{ours}");
    assert_eq!(tests::sandbox::names_in(&sandbox.destination()), ["good"]);
    for option in ["-M--log-file=x", "--remote-option=--delete"] {
        let refused = sandbox.sync(line(&["-a", option]));
        refused.expect_code(1);
        assert!(refused.stderr_text().contains("--agent-path"), "{refused}");
    }
}

#[test]
fn verify_compares_what_the_options_of_the_copy_keep() {
    tests::require!("root");
    let sandbox = Sandbox::on_disk();
    let (source, copy) = (sandbox.source(), sandbox.destination());
    privileged(&source);
    for name in ["one", "two", "alone", "same"] {
        write_at(&source.join(name), b"the same", LONG_AGO_S);
    }
    fs::hard_link(source.join("one"), source.join("one-more")).expect("a new link");
    set_mtime(&source, LONG_AGO_S, 0);
    let kept = ["-aAXH", "--usermap=1:4", "--chmod=F-w"];
    let line = |options: &[&str]| {
        let paths = [contents_of(&source), text(&copy)];
        options.iter().map(|&option| option.to_owned()).chain(paths).collect::<Vec<_>>()
    };
    sandbox.sync(line(&kept)).success();
    let verify = |options: &[&str]| sandbox.client([vec!["verify".to_owned()], line(options)].concat());
    let differences = |options: &[&str], expected: &[&str]| {
        let verified = verify(options);
        verified.expect_code(if expected.is_empty() { 0 } else { 45 });
        assert_eq!(verified.itemized(), expected, "{verified}");
    };
    differences(&kept, &[]);
    // Without what was changed on the way it is a difference.
    assert!(verify(&["-AXH"]).code() == 45);
    let age = |name: &str| set_mtime(&copy.join(name), LONG_AGO_S, 0);
    set_attribute(&copy.join("locked"), "user.a", b"2");
    differences(&kept, &[".f........x locked"]);
    differences(&["-aAH", "--usermap=1:4", "--chmod=F-w"], &[]);
    set_attribute(&copy.join("locked"), "user.a", b"1");
    let kept_default = attribute(&copy.join("directory"));
    let other = acl(&[(1, 7, NOBODY), (2, 1, 9), (4, 7, NOBODY), (16, 7, NOBODY), (32, 7, NOBODY)]);
    set_attribute(&copy.join("directory"), "system.posix_acl_default", &other);
    differences(&kept, &[".d.......a. directory/"]);
    rustix::fs::removexattr(copy.join("directory"), "system.posix_acl_default").expect("it was there");
    differences(&kept, &[".d.......a. directory/"]);
    set_attribute(&copy.join("directory"), "system.posix_acl_default", &kept_default);
    differences(&kept, &[]);

    // A name that is a file of its own, and one that is not.
    fs::remove_file(copy.join("one-more")).expect("it is there");
    fs::copy(copy.join("one"), copy.join("one-more")).expect("a copy");
    age("one-more");
    age("");
    differences(&kept, &["hf          one-more => one"]);
    differences(&["-aAX", "--usermap=1:4", "--chmod=F-w"], &[]);
    fs::remove_file(copy.join("one-more")).expect("it is there");
    fs::hard_link(copy.join("one"), copy.join("one-more")).expect("a new link");
    fs::remove_file(copy.join("same")).expect("it is there");
    fs::hard_link(copy.join("alone"), copy.join("same")).expect("a new link");
    age("");
    differences(&kept, &[">f......... same"]);
    differences(&["-aAX", "--usermap=1:4", "--chmod=F-w"], &[]);
}

fn attribute(path: &Path) -> Vec<u8> {
    let mut value = vec![0; 4096];
    let length = rustix::fs::getxattr(path, "system.posix_acl_default", &mut value[..]).expect("it is there");
    value.truncate(length);
    value
}
