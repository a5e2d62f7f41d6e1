//! Trees: what a source has, what a destination holds.

use super::*;

/// What becomes of a source file between its listing and its reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Sound,
    Vanishes,
    Unreadable,
    /// It changes under the first so many readings.
    Changes(u8),
}

impl Fate {
    pub(crate) fn arrives(self) -> bool {
        matches!(self, Fate::Sound) || matches!(self, Fate::Changes(times) if times <= limits::CHANGE_RETRIES)
    }
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Directory,
    Link(Vec<u8>),
    File { content: Vec<u8>, fate: Fate, young: bool },
}

pub(crate) type SourceTree = BTreeMap<RelPath, BTreeMap<Name, What>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Directory,
    Link(Vec<u8>),
    File(Vec<u8>),
}

pub(crate) type Tree = BTreeMap<RelPath, Node>;

/// The first path at which two trees differ.
pub(crate) fn first_difference(ours: &Tree, expected: &Tree) -> Option<String> {
    let mut paths = ours.keys().chain(expected.keys());
    let differing = paths.find(|path| ours.get(path) != expected.get(path))?;
    let shown = |tree: &Tree| match tree.get(differing) {
        Some(Node::File(content)) => format!("a file of {} bytes", content.len()),
        other => format!("{other:?}"),
    };
    Some(format!("{differing}: {} instead of {}", shown(ours), shown(expected)))
}

pub(crate) fn random_name(random: &mut Random, number: usize) -> Name {
    const ODD: [u8; 12] = *b"ab.-\n\xff\x1b \\*z~";
    let odd: Vec<u8> = (0..random.below(5)).map(|_| ODD[random.below(ODD.len())]).collect();
    Name::new([&odd[..], number.to_string().as_bytes()].concat()).unwrap()
}

pub(crate) fn random_fate(random: &mut Random, variant: &Variant) -> Fate {
    if !random.chance(variant.failing_percent) {
        return Fate::Sound;
    }
    match random.below(4) {
        0 => Fate::Vanishes,
        1 => Fate::Unreadable,
        2 => Fate::Changes(1 + random.below(2) as u8),
        _ => Fate::Changes(limits::CHANGE_RETRIES + 1),
    }
}

pub(crate) fn random_content(random: &mut Random, variant: &Variant) -> Vec<u8> {
    let length = match random.below(20) {
        _ if variant.entries > 10_000 => random.below(3),
        0..=2 => 17_000 + random.below(20_000),
        3..=11 if variant.huge_bases => 17_000 + random.below(20_000),
        3..=8 => random.below(4_000),
        9 => 0,
        _ => random.below(200),
    };
    random.bytes(length)
}

pub(crate) fn random_source(random: &mut Random, variant: &Variant) -> SourceTree {
    let mut tree = SourceTree::from([(RelPath::root(), BTreeMap::new())]);
    let mut directories = vec![RelPath::root()];
    for number in 0..variant.entries {
        let at = match random.below(3) {
            0 => directories.len() - 1,
            1 => 0,
            _ => random.below(directories.len()),
        };
        let parent = directories[at].clone();
        let name = random_name(random, number);
        let what = if number < variant.first_directories || random.chance(variant.directories_percent) {
            let path = parent.join(&name);
            tree.insert(path.clone(), BTreeMap::new());
            directories.push(path);
            What::Directory
        } else if random.chance(5) {
            What::Link(random.bytes(4).iter().map(|byte| byte | 1).collect())
        } else {
            let fate = random_fate(random, variant);
            What::File { content: random_content(random, variant), fate, young: random.chance(10) }
        };
        tree.get_mut(&parent).unwrap().insert(name, what);
    }
    tree
}

/// A destination that has some of the source's tree, some of it older.
pub(crate) fn random_destination(random: &mut Random, variant: &Variant, source: &SourceTree) -> Tree {
    let mut tree = Tree::from([(RelPath::root(), Node::Directory)]);
    for (directory, entries) in source {
        if !tree.contains_key(directory) {
            continue;
        }
        for (name, what) in entries {
            let kept = random.chance(variant.kept_percent);
            let node = match what {
                What::Directory if kept || random.chance(50) => Node::Directory,
                What::Link(target) if kept => Node::Link(target.clone()),
                What::File { content, .. } if kept => Node::File(content.clone()),
                What::File { content, .. } if random.chance(40) => Node::File(older(random, content)),
                _ => continue,
            };
            tree.insert(directory.join(name), node);
        }
    }
    tree
}

pub(crate) fn older(random: &mut Random, content: &[u8]) -> Vec<u8> {
    let mut old = content.to_vec();
    for _ in 0..1 + random.below(3) {
        let at = random.below(old.len() + 1);
        match random.below(3) {
            0 => {
                old.splice(at..at, *b"inserted");
            }
            1 => old.truncate(at.max(old.len() / 2)),
            _ if at < old.len() => old[at] ^= 0x55,
            _ => old.push(7),
        }
    }
    old
}

/// The modification time stands for the content, so that the quick check is right.
pub(crate) fn entry(name: &Name, node: &Node, young: bool) -> Entry {
    let (kind, content) = match node {
        Node::Directory => (Kind::Directory, &b""[..]),
        Node::Link(target) => (Kind::Symlink { target: target.clone() }, &b""[..]),
        Node::File(content) => (Kind::File { size_bytes: content.len() as u64 }, &content[..]),
    };
    let hash = blake3::hash(content);
    let secs = i64::from_le_bytes(*hash.as_bytes().first_chunk::<8>().unwrap());
    let mtime = Timestamp { secs, nanos: 0 };
    Entry { name: name.clone(), kind, mode: 0o644, uid: 0, gid: 0, mtime, young, extra: None }
}

pub(crate) fn node_of(what: &What) -> Node {
    match what {
        What::Directory => Node::Directory,
        What::Link(target) => Node::Link(target.clone()),
        What::File { content, .. } => Node::File(content.clone()),
    }
}

pub(crate) fn is_below(path: &RelPath, directory: &RelPath) -> bool {
    let (path, directory) = (path.as_bytes(), directory.as_bytes());
    directory.is_empty() && !path.is_empty()
        || path.strip_prefix(directory).is_some_and(|rest| rest.first() == Some(&b'/'))
}
