//! Any tree, any of the options for metadata together: what rsync makes of it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use tests::beside::Case;
use tests::directions::{ALL, Direction, Stage};
use tests::extras::{access_times, attributes, link_groups, set_attribute};
use tests::sandbox::Sandbox;
use tests::seed::{Rng, seeds};
use tests::snapshot::{Ignore, NOTHING, assert_same, snapshot};
use tests::tree::{random_changes, random_tree};
use walkdir::WalkDir;

/// An access time that reading a file does not change.
const AHEAD_S: i64 = 4_000_000_000;

/// Everything below `root` that is of this kind, in order.
fn all(root: &Path, is_meant: impl Fn(&fs::Metadata) -> bool) -> Vec<PathBuf> {
    let entries = WalkDir::new(root).min_depth(1).sort_by_file_name().into_iter();
    let paths = entries.map(|entry| entry.expect("root reads everything").into_path());
    paths.filter(|path| is_meant(&path.symlink_metadata().expect("it is there"))).collect()
}

/// Gives a tree attributes, ACLs, further names and access times; directories keep their own times.
fn enrich(rng: &mut Rng, root: &Path, round: u64) {
    let directories = all(root, fs::Metadata::is_dir);
    let times: Vec<_> = directories.iter().map(|path| mtime(path)).chain([mtime(root)]).collect();
    let files = all(root, fs::Metadata::is_file);
    for path in files.iter().chain(&directories) {
        if rng.chance(25) {
            let name = *rng.pick(&["user.a", "user.b", "trusted.t"]);
            let length = rng.index(300);
            set_attribute(path, name, &rng.bytes(length));
        }
        if rng.chance(20) {
            set_attribute(path, "system.posix_acl_access", &random_acl(rng));
        }
        if path.is_dir() && rng.chance(20) {
            set_attribute(path, "system.posix_acl_default", &random_acl(rng));
        }
    }
    for number in 0..3 {
        if let Some(file) = (!files.is_empty()).then(|| rng.pick(&files)) {
            let directory = rng
                .pick(&directories.iter().map(PathBuf::as_path).chain([root]).collect::<Vec<_>>())
                .to_owned();
            fs::hard_link(file, directory.join(format!("another-{round}-{number}"))).expect("a free name");
        }
    }
    // Nodes too: rsync compares whole seconds, and both copies are made in the same.
    for path in all(root, |stat| !stat.is_dir() && !stat.is_symlink()) {
        let ahead = AHEAD_S + i64::try_from(rng.below(1000)).expect("it is small");
        set_times(&path, Some(ahead), mtime(&path));
    }
    let with_root = directories.iter().map(PathBuf::as_path).chain([root]);
    with_root.zip(times).for_each(|(path, time)| set_times(path, None, time));
}

fn mtime(path: &Path) -> (i64, i64) {
    let stat = path.symlink_metadata().expect("it is there");
    (stat.mtime(), stat.mtime_nsec())
}

fn set_times(path: &Path, atime_s: Option<i64>, (seconds, nanoseconds): (i64, i64)) {
    let time = |tv_sec, tv_nsec| rustix::fs::Timespec { tv_sec, tv_nsec };
    let last_access = atime_s.map_or(time(0, rustix::fs::UTIME_OMIT), |seconds| time(seconds, 0));
    let times = rustix::fs::Timestamps { last_access, last_modification: time(seconds, nanoseconds) };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .expect("times can be set");
}

/// An ACL with a user or group of a name, of none, or both.
fn random_acl(rng: &mut Rng) -> Vec<u8> {
    let mut bits = || rng.below(8) as u16;
    let (owner, user, group, other_group, mask, others) = (bits(), bits(), bits(), bits(), bits(), bits());
    let nobody = u32::MAX;
    let mut entries = vec![(1_u16, owner, nobody)];
    if rng.chance(70) {
        entries.push((2, user, *rng.pick(&[1, 2, 54_321])));
    }
    entries.push((4, group, nobody));
    if rng.chance(50) {
        entries.push((8, other_group, *rng.pick(&[1, 999, 54_321])));
    }
    entries.extend([(16, mask, nobody), (32, others, nobody)]);
    let bytes = |(tag, permissions, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [vec![2, 0, 0, 0], entries.into_iter().flat_map(bytes).collect()].concat()
}

/// Some of the options, in any combination.
fn random_options(rng: &mut Rng) -> Vec<&'static str> {
    let mut options = vec!["-rlD", "--delete"];
    let each = [
        ("-p", 70),
        ("-o", 70),
        ("-g", 70),
        ("-t", 80),
        ("-E", 20),
        ("-A", 40),
        ("-X", 50),
        ("-H", 50),
        ("-U", 40),
        ("-O", 20),
        ("-J", 20),
        ("--numeric-ids", 30),
    ];
    options.extend(each.into_iter().filter(|&(_, percent)| rng.chance(percent)).map(|(option, _)| option));
    if options.contains(&"-X") && !options.contains(&"-p") {
        // rsync would give a new directory with an attribute the source's set-id bits.
        options.push("-p");
    }
    if options.contains(&"-H") {
        // Which of the names is the first is each program's own choice; what is not kept is that one's.
        options.push("-pog");
    }
    let values: [(u64, &[&str]); 2] = [
        (30, &["--chmod=go-w", "--chmod=D2755,F644", "--chmod=u=rwX,g=u,o=", "--chmod=Fa-x,Dg+s"]),
        (
            50,
            &[
                "--usermap=1:2",
                "--usermap=*:999",
                "--usermap=:5,daemon:7",
                "--usermap=0-99:12345",
                "--chown=1:2",
                "--chown=:999",
            ],
        ),
    ];
    for (percent, choices) in values {
        if rng.chance(percent) {
            options.push(*rng.pick::<&str>(choices));
        }
    }
    let maps_groups = options.iter().any(|option| option.starts_with("--chown") && option.contains(":"));
    if !maps_groups && rng.chance(30) {
        options.push(*rng.pick(&["--groupmap=1:2,*:3", "--groupmap=:7", "--groupmap=999:0,?*:1"]));
    }
    options
}

/// Attributes, with the entries of each ACL in one order: it is no part of what they say.
fn comparable(root: &Path) -> BTreeSet<String> {
    let sorted = |line: String| {
        let Some((name, value)) = line.rsplit_once(' ').filter(|(name, _)| name.contains("posix_acl")) else {
            return line;
        };
        let mut entries: Vec<&[u8]> = value.as_bytes()[8..].chunks(16).collect();
        entries.sort_unstable();
        let entries = entries.into_iter().map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ");
        format!("{name} {entries}")
    };
    attributes(root).into_iter().map(sorted).collect()
}

fn compare(case: &Case<'_>, options: &[&str]) {
    case.run(options);
    let on = |option: &str| options.contains(&option);
    let ignore = Ignore { mtime: !on("-t"), directory_mtime: on("-O"), ..NOTHING };
    let (mut theirs, mut ours) = (snapshot(&case.theirs()), snapshot(&case.ours()));
    if on("-J") {
        for node in theirs.values_mut().chain(ours.values_mut()) {
            if matches!(node.kind, tests::snapshot::Kind::Symlink { .. }) {
                node.mtime_ns = 0;
            }
        }
    }
    assert_same(&theirs, &ours, &ignore);
    assert_eq!(comparable(&case.theirs()), comparable(&case.ours()));
    assert_eq!(link_groups(&case.theirs()), link_groups(&case.ours()));
    if on("-U") {
        assert_eq!(access_times(&case.theirs()), access_times(&case.ours()));
    }
    if on("-t") {
        expect_nothing_left(case, options);
    }
}

fn expect_nothing_left(case: &Case<'_>, options: &[&str]) {
    let again = case.sync(&[options, &["-i"]].concat());
    again.success();
    assert_eq!(again.itemized(), [""; 0], "a further run\n{again}");
}

#[test]
fn any_options_for_metadata_make_of_any_tree_what_rsync_makes_of_it() {
    tests::require!("rsync", "sshd", "root");
    let sandbox = Sandbox::on_disk();
    let stage = Stage::start(&sandbox);
    for seed in seeds(9) {
        let mut rng = Rng::new(seed ^ 0x6d65_7461);
        let direction = ALL[usize::try_from(seed).expect("it is small") % 3];
        let case = Case::make(&sandbox, &stage, direction, &format!("seed-{seed}"));
        let mut options = random_options(&mut rng);
        if options.contains(&"-A") && matches!(direction, Direction::Pull(_)) {
            // In this direction alone rsync changes an ACL's owner's group as well, where it equals the mask.
            options.retain(|option| !option.starts_with("--chmod"));
        }
        eprintln!("seed {seed}, {direction:?}: {options:?}");
        random_tree(seed, &case.source());
        enrich(&mut rng, &case.source(), 0);
        compare(&case, &options);
        random_changes(seed, &case.source());
        enrich(&mut rng, &case.source(), 1);
        compare(&case, &options);
        fs::remove_dir_all(&case.directory).expect("the case is ours");
    }
}
