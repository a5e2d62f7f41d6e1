//! The cases as a table: what is copied, from which state, over what, and how fast it must be.

/// What is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// A WiredTiger directory of 1.23 GB; its new version has 1 % of the documents changed.
    Database,
    /// 100,000 attachments in 51,000 directories, 0.75 GB.
    SmallFiles,
    /// 1,000,000 empty files in 1,000 directories.
    ManyFiles,
    /// One random file of 512 MiB; its new version has one more line at its front.
    LineInserted,
    /// One random file of 512 MiB; its new version is another random file.
    Replaced,
    /// [`Data::SmallFiles`] and [`Data::Database`] in one root: what a migration moves.
    Server,
}

impl Data {
    /// Whether it is one large file rather than a tree.
    #[must_use]
    pub fn is_large_file(self) -> bool {
        matches!(self, Data::LineInserted | Data::Replaced)
    }
}

/// What the destination holds before each run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Nothing: it does not exist.
    Nothing,
    /// What the source holds.
    Same,
    /// The source's old version; no index from a pass before.
    Old,
    /// The source's old version, brought there by passes of ours that kept their index; for rsync a plain copy.
    Series,
}

/// Which side the client is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The source is remote.
    Pull,
    /// The destination is remote.
    Push,
    /// Neither is.
    Local,
}

/// One comparison.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// What is copied.
    pub data: Data,
    /// What is there before.
    pub before: Before,
    /// Which side the client is on.
    pub flow: Flow,
    /// Over a link of [`WAN_RTT_MS`] and [`WAN_MBIT`] rather than plain loopback.
    pub is_wan: bool,
    /// With `--checksum`.
    pub is_checksum: bool,
    /// Most that our wall time may be of rsync's.
    pub bar: f64,
    /// Most that our bytes on the wire may be of `rsync -z`'s.
    pub wire_bar: Option<f64>,
}

/// Round trip of the slow link.
pub const WAN_RTT_MS: u64 = 100;
/// Bandwidth of the slow link, each way.
pub const WAN_MBIT: u64 = 1000;
/// Most that our wall time may be of `cp -a`'s, of a local mirror.
pub const COPY_BAR: f64 = 2.0;

const WIRE_BAR: f64 = 0.85;
const TREE_MEMORY_BYTES: u64 = 64 << 20;
const LARGE_FILE_MEMORY_BYTES: u64 = 96 << 20;

/// Every case, in the order in which they run.
pub const CASES: [Case; 19] = [
    Case::new("D1", "initial copy, WiredTiger directory of 1.23 GB", Data::Database, Before::Nothing, 0.50),
    Case::new("D2", "initial copy, 100,000 small files of 0.75 GB", Data::SmallFiles, Before::Nothing, 0.50),
    Case::new("D3", "nothing changed, 151,000 entries", Data::SmallFiles, Before::Same, 0.45),
    Case::new("D4", "nothing changed, 1,000,000 files", Data::ManyFiles, Before::Same, 0.40),
    Case::new("D5", "1 % of a database changed, no index", Data::Database, Before::Old, 0.45).with_wire_bar(),
    Case::new("D6", "1 % of a database changed, pass of a series", Data::Database, Before::Series, 0.25)
        .with_wire_bar(),
    Case::new("D7", "a line inserted at the front of 512 MiB", Data::LineInserted, Before::Old, 0.90),
    Case::new("D8", "512 MiB wholly replaced", Data::Replaced, Before::Old, 0.30),
    Case::new("D9", "--checksum, nothing changed, second time", Data::Database, Before::Same, 0.20)
        .checksum(),
    Case::new("L1", "local mirror, WiredTiger directory", Data::Database, Before::Nothing, 0.50).local(),
    Case::new("L2", "local mirror, small files", Data::SmallFiles, Before::Nothing, 0.50).local(),
    Case::new("W1", "D1 over the slow link", Data::Database, Before::Nothing, 0.25).wan(),
    Case::new("W2", "D2 over the slow link", Data::SmallFiles, Before::Nothing, 0.30).wan(),
    Case::new("W3", "D3 over the slow link", Data::SmallFiles, Before::Same, 0.15).wan(),
    Case::new("W4", "D6 over the slow link", Data::Database, Before::Series, 0.25).wan(),
    Case::new("W5", "cold pass: W3 and W4 in one root", Data::Server, Before::Series, 0.17).wan(),
    Case::new("P1", "D1 as a push", Data::Database, Before::Nothing, 0.50).push(),
    Case::new("P2", "W1 as a push", Data::Database, Before::Nothing, 0.25).wan().push(),
    Case::new("P3", "W4 as a push", Data::Database, Before::Series, 0.25).wan().push(),
];

impl Case {
    const fn new(name: &'static str, title: &'static str, data: Data, before: Before, bar: f64) -> Case {
        let (flow, is_wan, is_checksum, wire_bar) = (Flow::Pull, false, false, None);
        Case { name, title, data, before, flow, is_wan, is_checksum, bar, wire_bar }
    }

    const fn with_wire_bar(self) -> Case {
        Case { wire_bar: Some(WIRE_BAR), ..self }
    }

    const fn checksum(self) -> Case {
        Case { is_checksum: true, ..self }
    }

    const fn local(self) -> Case {
        Case { flow: Flow::Local, ..self }
    }

    const fn push(self) -> Case {
        Case { flow: Flow::Push, ..self }
    }

    const fn wan(self) -> Case {
        Case { is_wan: true, ..self }
    }

    /// The options that rsync and our client both get.
    #[must_use]
    pub fn options(&self) -> Vec<&'static str> {
        let mut options = vec!["-a"];
        if matches!(self.before, Before::Old | Before::Series) {
            options.push("--delete");
        }
        if self.is_checksum {
            options.push("--checksum");
        }
        options
    }

    /// Whether an old version is changed into the new one where it stands: ours does so with `--inplace`, and rsync
    /// runs with and without it.
    #[must_use]
    pub fn patches(&self) -> bool {
        matches!(self.before, Before::Old | Before::Series) && !self.data.is_large_file()
    }

    /// Whether our programs have an index of a pass before when they are timed.
    #[must_use]
    pub fn keeps_index(&self) -> bool {
        self.before == Before::Series || self.is_checksum
    }

    /// Most that one of our processes may hold.
    #[must_use]
    pub fn memory_bar_bytes(&self) -> u64 {
        if self.data.is_large_file() { LARGE_FILE_MEMORY_BYTES } else { TREE_MEMORY_BYTES }
    }
}

/// The cases of these names, in the table's order; all of them if none is named.
///
/// # Errors
/// Names what is no case.
pub fn select(names: &[String]) -> Result<Vec<&'static Case>, String> {
    let is_called = |case: &Case, name: &str| case.name.eq_ignore_ascii_case(name);
    if let Some(unknown) = names.iter().find(|name| !CASES.iter().any(|case| is_called(case, name))) {
        return Err(format!("there is no case {unknown:?}; --list shows them"));
    }
    let is_wanted = |case: &&Case| names.is_empty() || names.iter().any(|name| is_called(case, name));
    Ok(CASES.iter().filter(is_wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_found_by_name_in_the_order_of_the_table() {
        let found = select(&["d8".to_owned(), "D1".to_owned()]).expect("they exist");
        assert_eq!(found.iter().map(|case| case.name).collect::<Vec<_>>(), ["D1", "D8"]);
        assert_eq!(select(&[]).expect("all").len(), CASES.len());
        assert!(select(&["D0".to_owned()]).is_err());
    }

    #[test]
    fn deltas_delete_and_copies_do_not() {
        let options = |name: &str| select(&[name.to_owned()]).expect("it exists")[0].options();
        assert_eq!(options("D1"), ["-a"]);
        assert_eq!(options("D6"), ["-a", "--delete"]);
        assert_eq!(options("D9"), ["-a", "--checksum"]);
        let patches = |name: &str| select(&[name.to_owned()]).expect("it exists")[0].patches();
        assert!(patches("D5") && patches("W5") && !patches("D1") && !patches("D7"));
    }
}
