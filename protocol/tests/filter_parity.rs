//! The filter rules against the installed rsync, over random trees and random rules.
//!
//! Every case makes a tree, lets `rsync -a` copy it with some rules, and expects exactly the entries to
//! arrive that `FilterRules` does not exclude; the other test deletes with the rules on the receiving side.
//! A failure names the seed of its case. Where rsync is not installed the tests say so and pass.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use protocol::filter::{FilterRules, Side};

const CASES: u64 = 400;

#[test]
fn the_entries_that_arrive_are_those_rsync_sends() {
    let Some(sandbox) = Sandbox::with_rsync("send") else {
        return;
    };
    let mut decided = 0;
    for seed in 0..CASES {
        let random = &mut Random(seed);
        let (source, destination) = sandbox.fresh(seed);
        let tree = random_tree(random, &source);
        let with_slash = random.below(2) == 0;
        let rules = random_rules(random, &tree, &sandbox.root);

        let argument = if with_slash { source.join("") } else { source.clone() };
        run_rsync(seed, &rules, &["-a"], &argument, &destination);

        let prefix = if with_slash { &b""[..] } else { b"source" };
        let mut expected = BTreeSet::new();
        if with_slash || !rules.filter.excludes(b"source", true, Side::Sender) {
            expected.extend((!with_slash).then(|| b"source".to_vec()));
            collect_included(&rules.filter, &source, prefix, &mut expected);
        }
        let arrived = list(&destination, b"");
        assert_same(seed, &rules, &expected, &arrived);
        decided += u64::from(arrived.len() < tree.len());
    }
    assert!(decided > CASES / 3, "only {decided} of {CASES} cases excluded anything");
}

#[test]
fn the_entries_that_survive_a_deletion_are_those_rsync_protects() {
    let Some(sandbox) = Sandbox::with_rsync("delete") else {
        return;
    };
    let mut decided = 0;
    for seed in CASES..CASES + CASES / 2 {
        let random = &mut Random(seed);
        let (empty, destination) = sandbox.fresh(seed);
        let tree = random_tree(random, &destination);
        let rules = random_rules(random, &tree, &sandbox.root);
        let mut expected = BTreeSet::new();
        collect_protected(&rules.filter, &destination, b"", &mut expected);

        run_rsync(seed, &rules, &["-a", "--delete"], &empty.join(""), &destination);

        let survived = list(&destination, b"");
        assert_same(seed, &rules, &expected, &survived);
        decided += u64::from(!survived.is_empty());
    }
    assert!(decided > CASES / 6, "only {decided} cases protected anything");
}

fn collect_included(filter: &FilterRules, dir: &Path, prefix: &[u8], included: &mut BTreeSet<Vec<u8>>) {
    for (path, disk_path, is_dir) in children(dir, prefix) {
        if !filter.excludes(&path, is_dir, Side::Sender) {
            if is_dir {
                collect_included(filter, &disk_path, &path, included);
            }
            included.insert(path);
        }
    }
}

/// A protected entry survives with all it contains, an unprotected directory if something in it does.
fn collect_protected(filter: &FilterRules, dir: &Path, prefix: &[u8], survivors: &mut BTreeSet<Vec<u8>>) {
    for (path, disk_path, is_dir) in children(dir, prefix) {
        let before = survivors.len();
        let is_protected = filter.excludes(&path, is_dir, Side::Receiver);
        if is_dir && is_protected {
            survivors.extend(list(&disk_path, &path));
        } else if is_dir {
            collect_protected(filter, &disk_path, &path, survivors);
        }
        if is_protected || survivors.len() > before {
            survivors.insert(path);
        }
    }
}

fn list(dir: &Path, prefix: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut paths = BTreeSet::new();
    for (path, disk_path, is_dir) in children(dir, prefix) {
        if is_dir {
            paths.extend(list(&disk_path, &path));
        }
        paths.insert(path);
    }
    paths
}

fn children(dir: &Path, prefix: &[u8]) -> Vec<(Vec<u8>, PathBuf, bool)> {
    let entries = fs::read_dir(dir).expect("the sandbox is readable");
    entries
        .map(|entry| {
            let entry = entry.expect("the sandbox is readable");
            let name = entry.file_name().into_vec();
            let path = if prefix.is_empty() { name } else { [prefix, b"/", &name].concat() };
            let is_dir = entry.file_type().expect("the sandbox is readable").is_dir();
            (path, entry.path(), is_dir)
        })
        .collect()
}

struct Rules {
    arguments: Vec<OsString>,
    /// The arguments with the content of the files they name.
    shown: Vec<String>,
    filter: FilterRules,
}

/// Rules as options and as files, in both spellings of their kind.
fn random_rules(random: &mut Random, tree: &[Vec<u8>], root: &Path) -> Rules {
    let mut rules = Rules { arguments: Vec::new(), shown: Vec::new(), filter: FilterRules::default() };
    for index in 0..=random.below(5) {
        let exclude = random.below(10) < 7;
        let in_file = random.below(3) == 0;
        let mut text = Vec::new();
        for _ in 0..if in_file { random.below(5) } else { 1 } {
            text.extend_from_slice(random.pick::<&[u8]>(&[b"", b"", b"", b"", b"- ", b"+ "]));
            text.extend_from_slice(&random_pattern(random, tree));
            if in_file {
                text.extend_from_slice(random.pick::<&[u8]>(&[
                    b"\n", b"\n", b"\n", b"\n\n", b"\r\n", b"\n# *\n", b"\n;*\n", b"\n \n", b"\n!\n",
                ]));
            }
        }
        let option = if exclude { "--exclude" } else { "--include" };
        let mut argument = OsString::from(option);
        if in_file {
            let file = root.join(format!("rules-{index}"));
            fs::write(&file, &text).expect("the sandbox is writable");
            argument.push("-from=");
            argument.push(file);
        } else {
            argument.push("=");
            argument.push(OsStr::from_bytes(&text));
        }
        rules.arguments.push(argument);
        rules.shown.push(format!("{option}{} {}", if in_file { "-from" } else { "" }, text.escape_ascii()));
        let filter = &mut rules.filter;
        match (exclude, in_file) {
            (true, false) => filter.push_exclude(&text),
            (false, false) => filter.push_include(&text),
            (true, true) => filter.push_exclude_file(&text),
            (false, true) => filter.push_include_file(&text),
        }
        .expect("the random rules are well-formed");
    }
    rules
}

/// Half of the patterns are built from pieces, half are paths of the tree with some parts made wild.
fn random_pattern(random: &mut Random, tree: &[Vec<u8>]) -> Vec<u8> {
    const PIECES: [&[u8]; 42] = [
        b"a",
        b"b",
        b"ab",
        b"foo",
        b"foo.o",
        b".o",
        b"x",
        b"-",
        b"]",
        b"!",
        b" ",
        b"\xff",
        b"/",
        b"/",
        b"/",
        b"*",
        b"*",
        b"*",
        b"**",
        b"**",
        b"***",
        b"?",
        b"?",
        b"[ab]",
        b"[!a]",
        b"[^b-z]",
        b"[]a]",
        b"[a-]",
        b"[--b]",
        b"[z-a]",
        b"[a/]",
        b"[[:alpha:]]",
        b"[[:digit:][:punct:]]",
        b"[![:alnum:]x]",
        b"[[:bad:]]",
        b"[[:]",
        b"[\\]a]",
        b"[a",
        b"\\",
        b"\\*",
        b"\\[",
        b"\\a",
    ];
    const ENDS: [&[u8]; 9] = [b"", b"", b"", b"", b"/", b"/", b"/*", b"/**", b"/***"];
    let mut pattern = Vec::new();
    if random.below(4) == 0 {
        pattern.push(b'/');
    }
    if random.below(2) == 0 || tree.is_empty() {
        for _ in 0..=random.below(4) {
            pattern.extend_from_slice(random.pick::<&[u8]>(&PIECES));
        }
    } else {
        let path = random.pick(tree).clone();
        let skipped = random.below(2 * path.len() as u64) as usize % path.len();
        let start = if random.below(2) == 0 { 0 } else { skipped };
        let wildness = *random.pick(&[0, 0, 2, 5]);
        for &byte in &path[start..] {
            match (random.below(20) < wildness, byte) {
                (true, _) => pattern.extend_from_slice(
                    random.pick::<&[u8]>(&[b"*", b"*", b"**", b"?", b"[a-o]", b"[!q]", b"", b"\\*", b"*/"]),
                ),
                (false, b'*' | b'?' | b'[' | b'\\') if random.below(2) == 0 => {
                    pattern.extend_from_slice(&[b'\\', byte]);
                }
                (false, byte) => pattern.push(byte),
            }
        }
    }
    pattern.extend_from_slice(random.pick::<&[u8]>(&ENDS));
    if matches!(pattern[..], [] | [b'-', b' ']) {
        pattern = b"a".to_vec();
    }
    pattern
}

/// Up to forty entries, at most four levels deep, under `dir`; returns their paths.
fn random_tree(random: &mut Random, dir: &Path) -> Vec<Vec<u8>> {
    const NAMES: [&[u8]; 22] = [
        b"a",
        b"b",
        b"ab",
        b"aab",
        b"ba",
        b"foo",
        b"foo.o",
        b"foo.c",
        b"x.o",
        b"o",
        b"a*",
        b"a?b",
        b"[ab]",
        b"\\",
        b"a\\*",
        b"-",
        b"]",
        b"! x",
        b" a ",
        b"\xff\xfe",
        b"caf\xc3\xa9",
        b"7",
    ];
    let mut tree = Vec::new();
    let mut dirs = vec![(Vec::new(), 0)];
    for _ in 0..10 + random.below(30) {
        let (parent, depth) = random.pick(&dirs).clone();
        let name = *random.pick::<&[u8]>(&NAMES);
        let path: Vec<u8> =
            if parent.is_empty() { name.to_vec() } else { [&parent, &b"/"[..], name].concat() };
        if tree.contains(&path) {
            continue;
        }
        let disk_path = dir.join(OsStr::from_bytes(&path));
        match random.below(20) {
            0..12 if depth < 3 => {
                fs::create_dir(&disk_path).expect("the sandbox is writable");
                dirs.push((path.clone(), depth + 1));
            }
            12 => std::os::unix::fs::symlink(".", &disk_path).expect("the sandbox is writable"),
            _ => fs::write(&disk_path, b"").expect("the sandbox is writable"),
        }
        tree.push(path);
    }
    tree
}

fn run_rsync(seed: u64, rules: &Rules, options: &[&str], source: &Path, destination: &Path) {
    let output = Command::new("rsync")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("LC_ALL", "C")
        .args(options)
        .args(&rules.arguments)
        .arg(source)
        .arg(destination.join(""))
        .output()
        .expect("rsync was found before");
    assert!(output.status.success(), "seed {seed}, rules {:#?}: {output:?}", rules.shown);
}

fn assert_same(seed: u64, rules: &Rules, ours: &BTreeSet<Vec<u8>>, theirs: &BTreeSet<Vec<u8>>) {
    let show = |paths: Vec<&Vec<u8>>| -> Vec<String> {
        paths.into_iter().map(|path| path.escape_ascii().to_string()).collect()
    };
    assert!(
        ours == theirs,
        "seed {seed}, rules {:#?}\nkept by us alone: {:?}\nkept by rsync alone: {:?}",
        rules.shown,
        show(ours.difference(theirs).collect()),
        show(theirs.difference(ours).collect()),
    );
}

/// A directory of this test, removed when it ends.
struct Sandbox {
    root: PathBuf,
}

impl Sandbox {
    fn with_rsync(test: &str) -> Option<Self> {
        if let Err(error) = Command::new("rsync").arg("--version").output() {
            eprintln!("not compared with rsync: it can't be run here ({error}); install the rsync package");
            return None;
        }
        let root = std::env::temp_dir().join(format!("filter-parity-{test}-{}", std::process::id()));
        fs::create_dir(&root).expect("the directory for temporary files is writable");
        Some(Self { root })
    }

    /// An empty source and an empty destination.
    fn fresh(&self, seed: u64) -> (PathBuf, PathBuf) {
        let case = self.root.join(seed.to_string());
        let (source, destination) = (case.join("source"), case.join("destination"));
        fs::create_dir_all(&source).expect("the sandbox is writable");
        fs::create_dir(&destination).expect("the sandbox is writable");
        (source, destination)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // What is left behind by a failure here lies in the directory for temporary files.
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// SplitMix64: the same cases from the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}
