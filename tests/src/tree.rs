//! Trees to copy: fixtures by name, and random ones that a seed alone decides, with random changes to them.
//!
//! Every modification time is set, lies years back or ahead, and no two changes of one entry share a second:
//! what a pass must see does not depend on when a test ran, nor on rsync's comparison by whole seconds.

use crate::requirement::is_root;
use crate::seed::Rng;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT, makedev, mknodat, utimensat,
};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// 2019-01-01: the first of the times that trees get.
const BASE_S: i64 = 1_546_300_800;

/// 2022-03-19: where the times of changes begin.
const CHANGES_BASE_S: i64 = BASE_S + 101_000_000;

/// The names of [`fixture`].
pub const FIXTURES: [&str; 8] = ["empty", "types", "modes", "owners", "times", "names", "sizes", "sparse"];

/// Fills the directory `root` with the fixture of this name, or with `"all"` of them, each below its name.
///
/// What only root can make (devices, owners, unreadable files) is left out where the user is not root.
///
/// # Panics
/// For an unknown name, or where the tree cannot be made.
pub fn fixture(name: &str, root: &Path) {
    let fill: fn(&Path) = match name {
        "empty" => |_| {},
        "types" => types,
        "modes" => modes,
        "owners" => owners,
        "times" => times,
        "names" => names,
        "sizes" => sizes,
        "sparse" => sparse,
        "all" => |root| {
            for name in FIXTURES {
                fs::create_dir(root.join(name)).expect("a new directory");
                fixture(name, &root.join(name));
            }
        },
        unknown => panic!("no fixture {unknown:?}"),
    };
    fill(root);
    // The times of `times` are its point; of `all` every part has its own already.
    match name {
        "times" => set_mtime(root, BASE_S, 0),
        "all" => (0..).zip(FIXTURES).for_each(|(n, name)| set_mtime(&root.join(name), BASE_S + n, 0)),
        _ => settle(root),
    }
    set_mtime(root, BASE_S, 123_456_789);
}

fn types(root: &Path) {
    let at = |name: &str| root.join(name);
    write(&at("file"), b"content\n");
    write(&at("empty-file"), b"");
    fs::create_dir_all(at("directory/nested/deep")).expect("new directories");
    fs::create_dir(at("empty-directory")).expect("a new directory");
    write(&at("directory/inner"), b"inner\n");
    fs::hard_link(at("file"), at("hard-link")).expect("a new link");
    link("file", &at("link-to-file"));
    link("directory", &at("link-to-directory"));
    link("no-such-file", &at("link-dangling"));
    link("/etc/hostname", &at("link-absolute"));
    link("../../outside", &at("directory/link-upward"));
    link("link-loop-b", &at("link-loop-a"));
    link("link-loop-a", &at("link-loop-b"));
    special(&at("fifo"), FileType::Fifo, 0);
    special(&at("socket"), FileType::Socket, 0);
    if is_root() {
        special(&at("char-device"), FileType::CharacterDevice, makedev(1, 3));
        special(&at("block-device"), FileType::BlockDevice, makedev(7, 200));
    }
}

fn modes(root: &Path) {
    let unreadable: &[u32] = if is_root() { &[0o000, 0o200] } else { &[] };
    for &mode in
        [0o400, 0o444, 0o600, 0o644, 0o666, 0o755, 0o1644, 0o2755, 0o4755, 0o6755].iter().chain(unreadable)
    {
        let path = root.join(format!("file-{mode:04o}"));
        write(&path, format!("{mode:o}").as_bytes());
        chmod(&path, mode);
    }
    for mode in [0o700, 0o711, 0o755, 0o775, 0o1777, 0o2775, 0o6750] {
        let path = root.join(format!("directory-{mode:04o}"));
        fs::create_dir(&path).expect("a new directory");
        write(&path.join("inner"), b"");
        chmod(&path, mode);
    }
    if is_root() {
        let path = root.join("directory-0555");
        fs::create_dir(&path).expect("a new directory");
        write(&path.join("inner"), b"");
        chmod(&path, 0o555);
    }
}

fn owners(root: &Path) {
    write(&root.join("own"), b"own");
    if !is_root() {
        return;
    }
    for (uid, gid) in [(999, 999), (9999, 9999), (0, 9999), (9999, 0)] {
        let file = root.join(format!("file-{uid}-{gid}"));
        write(&file, b"owned");
        chown(&file, uid, gid);
        chmod(&file, 0o6755);
        let directory = root.join(format!("directory-{uid}-{gid}"));
        fs::create_dir(&directory).expect("a new directory");
        chown(&directory, uid, gid);
        let target = root.join(format!("link-{uid}-{gid}"));
        link("own", &target);
        chown(&target, uid, gid);
    }
}

fn times(root: &Path) {
    let far = [
        ("nanosecond", BASE_S, 1),
        ("last-nanosecond", BASE_S, 999_999_999),
        ("1969", -1_000_000, 500_000_000),
        ("second-before-1970", -1, 999_999_999),
        ("1970", 0, 0),
        ("last-second-of-2038", i64::from(i32::MAX), 1),
        ("second-after-2038", i64::from(i32::MAX) + 1, 2),
        ("2100", 4_102_444_800, 3),
    ];
    for (name, seconds, nanoseconds) in far {
        let directory = root.join(format!("directory-{name}"));
        fs::create_dir(&directory).expect("a new directory");
        write(&root.join(name), name.as_bytes());
        link(name, &root.join(format!("link-{name}")));
        for path in [root.join(name), root.join(format!("link-{name}")), directory] {
            set_mtime(&path, seconds, nanoseconds);
        }
    }
}

fn names(root: &Path) {
    let long = [b'n'; 255];
    let every_byte: Vec<u8> = (1..=255).filter(|&byte| byte != b'/').collect();
    let tricky: [&[u8]; 22] = [
        b"with space",
        b" leading space",
        b"trailing space ",
        b"-dash",
        b"--delete",
        b"new\nline",
        b"carriage\rreturn",
        b"tab\tname",
        b"escape\x1b[31mred",
        b"latin-\xe9",
        b"\xff\xfe",
        "\u{fc}n\u{ef}-\u{1f980}".as_bytes(),
        b"back\\slash",
        b"back\\#012slash",
        b"#hash",
        b"*star?[x]",
        b"'quote\"",
        b"$HOME;`id`",
        b"~",
        b"colon:name",
        b"...",
        &long,
    ];
    for name in tricky {
        write(&below(root, name), name);
    }
    // Not all at once: 254 bytes are one legal name.
    write(&below(root, &every_byte), b"every byte");
    let directory = below(root, b"directory\n\xff");
    fs::create_dir(&directory).expect("a new directory");
    write(&below(&directory, b"inner\x07"), b"inner");
    symlink(OsStr::from_bytes(b"target\n\xff"), below(root, b"link \xff")).expect("a new link");
    let mut deep = root.join("deep");
    for level in 0..30 {
        deep.push(format!("level-{level}"));
    }
    fs::create_dir_all(&deep).expect("new directories");
    write(&deep.join("bottom"), b"bottom");
}

fn sizes(root: &Path) {
    let mut rng = Rng::new(7);
    for len in [
        0,
        1,
        2,
        511,
        512,
        699,
        700,
        701,
        4095,
        4096,
        4097,
        32_768,
        65_535,
        65_536,
        65_537,
        131_072,
        1_000_003,
        3 << 20,
    ] {
        write(&root.join(format!("random-{len}")), &rng.bytes(len));
    }
    write(&root.join("zeros-100000"), &vec![0; 100_000]);
    write(&root.join("text-200000"), &b"the same line again and again\n".repeat(6667)[..200_000]);
}

fn sparse(root: &Path) {
    let mut rng = Rng::new(8);
    let file = File::create(root.join("extents")).expect("a new file");
    file.set_len(16 << 20).expect("a sparse file");
    for offset in [0, 1 << 20, (5 << 20) + 17, (16 << 20) - 4096] {
        file.write_all_at(&rng.bytes(4096), offset).expect("a sparse file");
    }
    File::create(root.join("hole")).and_then(|file| file.set_len(4 << 20)).expect("a sparse file");
}

/// Fills the directory `root` with some 40 to 120 entries.
///
/// # Panics
/// Where they cannot be made.
pub fn random_tree(seed: u64, root: &Path) {
    let mut rng = Rng::new(seed);
    let mut directories = vec![root.to_owned()];
    for number in 0..40 + rng.below(80) {
        let parent = rng.pick(&directories).clone();
        let path = below(&parent, &random_name(&mut rng, number));
        match rng.below(100) {
            0..20 => {
                fs::create_dir(&path).expect("a new directory");
                directories.push(path.clone());
            }
            20..30 => link_to(&mut rng, &path),
            30..33 => special(&path, *rng.pick(&[FileType::Fifo, FileType::Socket]), 0),
            _ => write(&path, &random_content(&mut rng)),
        }
        random_metadata(&mut rng, &path);
    }
    settle(root);
}

/// Changes a tree in 5 to 30 ways: create, rewrite, append, truncate, insert at the front, rename, remove, turn into
/// another type, chmod, touch, chown (as root). The same seed and tree give the same changes.
///
/// # Panics
/// Where they cannot be made.
pub fn random_changes(seed: u64, root: &Path) {
    let mut rng = Rng::new(seed ^ 0xc4a9_6e5d);
    let before = directory_times(root);
    for number in 0..5 + rng.below(25) {
        let entries = entries(root);
        let Some(path) = (!entries.is_empty()).then(|| rng.pick(&entries).clone()) else {
            write(&below(root, &random_name(&mut rng, 1000 + number)), &random_content(&mut rng));
            continue;
        };
        let time_s = CHANGES_BASE_S + (seed as i64 & 0xffff) * 100 + number as i64;
        if let Some(changed) = change(&mut rng, root, &path, number)
            && changed.symlink_metadata().is_ok()
        {
            set_mtime(&changed, time_s, rng.below(1_000_000_000) as i64);
        }
    }
    settle_changed_directories(root, &before, seed);
}

/// Makes one change at `path`; gives the path whose time must change with it.
fn change(rng: &mut Rng, root: &Path, path: &Path, number: u64) -> Option<PathBuf> {
    let kind = path.symlink_metadata().expect("it is in the tree").file_type();
    match rng.below(100) {
        0..10 => Some(create_beside(rng, path, number)),
        10..20 => rename(rng, root, path, number),
        20..30 => {
            remove(path);
            None
        }
        30..40 => {
            remove(path);
            become_another_type(rng, path);
            Some(path.to_owned())
        }
        40..50 if !kind.is_symlink() => {
            chmod(path, random_mode(rng, kind.is_dir()));
            None
        }
        50..55 if is_root() => {
            let (uid, gid) = random_owner(rng);
            chown(path, uid, gid);
            None
        }
        55..65 => Some(path.to_owned()),
        _ if kind.is_file() => {
            change_content(rng, path);
            Some(path.to_owned())
        }
        _ if kind.is_dir() => {
            let inner = below(path, &random_name(rng, 2000 + number));
            write(&inner, &random_content(rng));
            Some(inner)
        }
        _ if kind.is_symlink() => {
            remove(path);
            link_to(rng, path);
            Some(path.to_owned())
        }
        _ => None,
    }
}

fn create_beside(rng: &mut Rng, path: &Path, number: u64) -> PathBuf {
    let new = below(path.parent().expect("it is below the root"), &random_name(rng, 3000 + number));
    write(&new, &random_content(rng));
    new
}

fn rename(rng: &mut Rng, root: &Path, path: &Path, number: u64) -> Option<PathBuf> {
    let mut directories: Vec<PathBuf> =
        entries(root).into_iter().filter(|entry| is_directory(entry)).collect();
    directories.push(root.to_owned());
    let parent = rng.pick(&directories).clone();
    let to = below(&parent, &random_name(rng, 4000 + number));
    if !parent.starts_with(path) {
        fs::rename(path, to).expect("both are in the tree");
    }
    None
}

fn become_another_type(rng: &mut Rng, path: &Path) {
    match rng.below(3) {
        0 => write(path, &random_content(rng)),
        1 => link_to(rng, path),
        _ => {
            fs::create_dir(path).expect("the name is free");
            write(&path.join("inner"), &random_content(rng));
            set_mtime(&path.join("inner"), CHANGES_BASE_S - 1, 0);
        }
    }
}

fn change_content(rng: &mut Rng, path: &Path) {
    let mut content = fs::read(path).unwrap_or_default();
    let new = random_content(rng);
    match rng.below(5) {
        0 => content.extend(new),
        1 => content.truncate(rng.index(content.len() + 1)),
        2 => content = [new, content].concat(),
        3 => content = new,
        _ => {
            let from = rng.index(content.len() + 1);
            let len = new.len().min(content.len() - from);
            content[from..from + len].copy_from_slice(&new[..len]);
        }
    }
    // In place, which keeps the mode and the owner.
    let mut file = OpenOptions::new().write(true).open(path).expect("the tree is ours");
    file.set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| file.write_all(&content))
        .expect("the tree is ours");
}

fn random_name(rng: &mut Rng, number: u64) -> Vec<u8> {
    let stems: [&[u8]; 10] = [
        b"plain",
        b"plain",
        b"file.with.dots",
        b"with space",
        b"-dash",
        b".hidden",
        b"new\nline",
        b"esc\x1b",
        b"\xff\xfe",
        b"back\\slash",
    ];
    [*rng.pick(&stems), b"-", number.to_string().as_bytes()].concat()
}

fn random_content(rng: &mut Rng) -> Vec<u8> {
    let len = rng.log_len(200_000);
    if rng.chance(20) {
        b"a line that compresses\n".iter().copied().cycle().take(len).collect()
    } else {
        rng.bytes(len)
    }
}

fn random_mode(rng: &mut Rng, is_directory: bool) -> u32 {
    // Without root, what cannot be read cannot be copied or removed.
    let always = match (is_root(), is_directory) {
        (true, _) => 0,
        (false, true) => 0o700,
        (false, false) => 0o600,
    };
    let set_ids = if rng.chance(15) { (rng.below(8) as u32) << 9 } else { 0 };
    rng.below(0o1000) as u32 | set_ids | always
}

fn random_owner(rng: &mut Rng) -> (u32, u32) {
    (*rng.pick(&[0, 1, 999, 9999]), *rng.pick(&[0, 1, 999, 9999]))
}

fn random_metadata(rng: &mut Rng, path: &Path) {
    let kind = path.symlink_metadata().expect("it was just made").file_type();
    if is_root() && rng.chance(20) {
        let (uid, gid) = random_owner(rng);
        chown(path, uid, gid);
    }
    if !kind.is_symlink() && rng.chance(40) {
        chmod(path, random_mode(rng, kind.is_dir()));
    }
}

fn link_to(rng: &mut Rng, path: &Path) {
    let targets = ["plain-1", ".", "..", "/etc/hostname", "no such file", "plain-2/below"];
    link(targets[rng.index(targets.len())], path);
}

/// All below the root, in order of names.
fn entries(root: &Path) -> Vec<PathBuf> {
    let walk = WalkDir::new(root).min_depth(1).sort_by_file_name();
    walk.into_iter().map(|entry| entry.expect("the tree is ours").into_path()).collect()
}

/// Gives every entry and the root a time that its place in the order of names decides.
fn settle(root: &Path) {
    for (number, path) in entries(root).into_iter().enumerate() {
        let number = number as i64;
        // Odd steps, so that seconds and nanoseconds both vary and no two entries share them.
        set_mtime(&path, BASE_S + number * 7919 % 31_536_000, number * 1_234_577 % 1_000_000_000);
    }
    set_mtime(root, BASE_S, 0);
}

type Times = BTreeMap<(u64, u64), (i64, i64)>;

fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

fn directories(root: &Path) -> impl Iterator<Item = (PathBuf, fs::Metadata)> {
    let all = entries(root).into_iter().chain([root.to_owned()]);
    all.filter_map(|path| Some((path.symlink_metadata().ok().filter(fs::Metadata::is_dir)?, path)))
        .map(|(metadata, path)| (path, metadata))
}

fn directory_times(root: &Path) -> Times {
    directories(root).map(|(_, m)| ((m.dev(), m.ino()), (m.mtime(), m.mtime_nsec()))).collect()
}

/// A directory whose entries changed has the time of that moment; it gets one that the seed decides.
fn settle_changed_directories(root: &Path, before: &Times, seed: u64) {
    for (number, (path, m)) in directories(root).enumerate() {
        if before.get(&(m.dev(), m.ino())) != Some(&(m.mtime(), m.mtime_nsec())) {
            set_mtime(&path, CHANGES_BASE_S + (seed as i64 & 0xffff) * 100 + 50, number as i64);
        }
    }
}

/// Sets the modification time of the entry itself, a symbolic link's too.
///
/// # Panics
/// Where that fails.
pub fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let last_modification = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access, last_modification };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Writes a file with a settled time.
///
/// # Panics
/// Where it cannot be written.
pub fn write_at(path: &Path, content: &[u8], mtime_s: i64) {
    write(path, content);
    set_mtime(path, mtime_s, 0);
}

/// `count` small files of 1 to 999 bytes, a thousand to a directory, with settled times.
///
/// # Panics
/// Where they cannot be made.
pub fn many_files(root: &Path, count: u64) {
    let mut rng = Rng::new(count);
    for number in 0..count {
        let directory = root.join(format!("{:05}", number / 1000));
        if number % 1000 == 0 {
            fs::create_dir(&directory).expect("a new directory");
        }
        let len = 1 + rng.index(999);
        write_at(&directory.join(format!("file-{number:07}")), &rng.bytes(len), BASE_S + number as i64);
    }
    for entry in entries(root).iter().filter(|path| is_directory(path)) {
        set_mtime(entry, BASE_S, 0);
    }
    set_mtime(root, BASE_S, 0);
}

fn below(directory: &Path, name: &[u8]) -> PathBuf {
    directory.join(OsString::from_vec(name.to_vec()))
}

fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn link(target: &str, path: &Path) {
    symlink(target, path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn special(path: &Path, kind: FileType, device: u64) {
    let mode = Mode::from_raw_mode(0o640);
    mknodat(CWD, path, kind, mode, device).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Keeps the mode: the kernel takes set-id bits away where the owner changes.
fn chown(path: &Path, uid: u32, gid: u32) {
    let metadata = path.symlink_metadata().expect("it is in the tree");
    lchown(path, Some(uid), Some(gid)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if !metadata.is_symlink() {
        chmod(path, metadata.mode() & 0o7777);
    }
}

fn remove(path: &Path) {
    let removed = if is_directory(path) { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Sandbox;
    use crate::snapshot::{NOTHING, assert_same, differences, snapshot};

    #[test]
    fn fixtures_are_the_same_each_time() {
        let sandbox = Sandbox::new();
        fixture("all", &sandbox.source());
        fixture("all", &sandbox.destination());
        let tree = snapshot(&sandbox.source());
        assert_same(&tree, &snapshot(&sandbox.destination()), &NOTHING);
        assert!(tree.len() > 150, "{}", tree.len());
    }

    #[test]
    fn a_seed_decides_the_tree_and_its_changes() {
        for seed in 1..=10 {
            let sandbox = Sandbox::new();
            let (a, b) = (sandbox.source(), sandbox.destination());
            random_tree(seed, &a);
            random_tree(seed, &b);
            let before = snapshot(&a);
            assert_same(&before, &snapshot(&b), &NOTHING);
            random_changes(seed, &a);
            random_changes(seed, &b);
            let after = snapshot(&a);
            assert_same(&after, &snapshot(&b), &NOTHING);
            assert!(differences(&before, &after, &NOTHING).len() >= 3, "seed {seed} changes little");
            random_changes(seed + 1, &a);
            random_changes(seed + 1, &b);
            assert_same(&snapshot(&a), &snapshot(&b), &NOTHING);
        }
    }

    #[test]
    fn no_time_is_young() {
        let sandbox = Sandbox::new();
        random_tree(3, &sandbox.source());
        random_changes(3, &sandbox.source());
        for (name, node) in snapshot(&sandbox.source()) {
            assert!(node.mtime_ns < 1_700_000_000_000_000_000, "{}", name.escape_ascii());
        }
    }
}
