//! What is said: `-v`, `-q`, `--info`, `--debug`, `--stats`, `--progress`, and how they work together.
//!
//! As in rsync, a flag that is named overrides what `-v` would set, wherever the two stand on the line.

use super::{UsageError, usage};

/// What this program may say something about, by rsync's names for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "`INFO` has the words")]
pub enum Topic {
    Backup,
    Copy,
    Del,
    Flist,
    Misc,
    Mount,
    Name,
    Nonreg,
    Progress,
    Remove,
    Skip,
    Stats,
    Symsafe,
}

/// Each topic's name, from how many `-v` on it is said, and what it is.
const INFO: [(&str, Topic, &str); 13] = [
    ("BACKUP", Topic::Backup, "files backed up"),
    ("COPY", Topic::Copy, "files copied at the destination"),
    ("DEL", Topic::Del, "deletions"),
    ("FLIST", Topic::Flist, "that the trees are being listed"),
    ("MISC", Topic::Misc, "anything else"),
    ("MOUNT", Topic::Mount, "mount points"),
    ("NAME", Topic::Name, "1: what is updated, 2: what is up to date too"),
    ("NONREG", Topic::Nonreg, "non-regular files that are left out (on; 0 silences)"),
    ("PROGRESS", Topic::Progress, "1: each file as it is done, 2: the whole run"),
    ("REMOVE", Topic::Remove, "files removed at the source"),
    ("SKIP", Topic::Skip, "files that an option leaves alone"),
    ("STATS", Topic::Stats, "1: totals, 2: statistics, 3: more of them"),
    ("SYMSAFE", Topic::Symsafe, "symbolic links that are unsafe"),
];

/// rsync's debugging flags. They ask for what goes on inside rsync: nothing is said about them here.
const DEBUG: [&str; 24] = [
    "ACL", "BACKUP", "BIND", "CHDIR", "CONNECT", "CMD", "DEL", "DELTASUM", "DUP", "EXIT", "FILTER", "FLIST",
    "FUZZY", "GENR", "HASH", "HLINK", "ICONV", "IO", "NSTR", "OWN", "PROTO", "RECV", "SEND", "TIME",
];

/// From 0, silent, on.
type Level = u8;
/// rsync knows no higher one.
const HIGHEST: Level = 9;

/// What is said about each topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verbosity([Level; INFO.len()]);

impl Verbosity {
    /// What `-v`, so many times, sets.
    ///
    /// # Source
    /// `rsync --info=help`, 3.5.0.
    #[must_use]
    pub fn of(verbose: u8) -> Verbosity {
        let mut said = Verbosity::default();
        said.set(Topic::Nonreg, 1);
        if verbose >= 1 {
            for topic in [Topic::Copy, Topic::Del, Topic::Flist, Topic::Misc] {
                said.set(topic, 1);
            }
            for topic in [Topic::Name, Topic::Stats, Topic::Symsafe] {
                said.set(topic, 1);
            }
        }
        if verbose >= 2 {
            for topic in [Topic::Backup, Topic::Mount, Topic::Remove, Topic::Skip] {
                said.set(topic, 1);
            }
            said.set(Topic::Misc, 2);
            said.set(Topic::Name, 2);
        }
        said
    }

    /// What is said about `topic`.
    #[must_use]
    pub fn level(&self, topic: Topic) -> Level {
        self.0[topic as usize]
    }

    /// Whether anything is said about `topic`.
    #[must_use]
    pub fn says(&self, topic: Topic) -> bool {
        self.level(topic) > 0
    }

    /// From now on so much is said about `topic`.
    pub fn set(&mut self, topic: Topic, level: Level) {
        self.0[topic as usize] = level;
    }

    /// At least so much is said about `topic`.
    pub fn raise(&mut self, topic: Topic, level: Level) {
        self.set(topic, self.level(topic).max(level));
    }

    /// Takes over one `--info=FLAGS`.
    pub(crate) fn apply(&mut self, flags: &str) -> Result<(), UsageError> {
        for flag in flags.split(',').filter(|flag| !flag.is_empty()) {
            let (name, level) = split_level(flag);
            match (
                INFO.iter().find(|(known, ..)| name.eq_ignore_ascii_case(known)),
                &*name.to_ascii_lowercase(),
            ) {
                (Some(&(_, topic, _)), _) => self.set(topic, level),
                (None, "all") => self.0 = [level; INFO.len()],
                (None, "none") => self.0 = [0; INFO.len()],
                _ => {
                    return usage(format!("--info: there is no flag {flag:?}; --info=help lists them"));
                }
            }
        }
        Ok(())
    }
}

/// Looks whether rsync has these `--debug` flags.
pub(crate) fn check_debug(flags: &str) -> Result<(), UsageError> {
    let is_known = |flag: &&str| {
        let (name, _) = split_level(flag);
        DEBUG.iter().chain(&["ALL", "NONE", "HELP"]).any(|known| name.eq_ignore_ascii_case(known))
    };
    match flags.split(',').find(|flag| !flag.is_empty() && !is_known(flag)) {
        Some(unknown) => usage(format!("--debug: rsync has no flag {unknown:?}; --debug=help lists them")),
        None => Ok(()),
    }
}

/// A flag and its level, 1 if it says none.
fn split_level(flag: &str) -> (&str, Level) {
    let digits = flag.trim_end_matches(|letter: char| letter.is_ascii_digit()).len();
    let level = match &flag[digits..] {
        "" => 1,
        number => number.parse().unwrap_or(HIGHEST).min(HIGHEST),
    };
    (&flag[..digits], level)
}

/// The text of `--info=help`.
#[must_use]
pub(crate) fn info_help() -> String {
    let mut text =
        "FLAG says it, FLAG2 says more, FLAG0 silences it; several are separated by commas.\n\n".to_owned();
    for (name, _, what) in INFO {
        text.push_str(&format!("{name:10} {what}\n"));
    }
    text.push_str("ALL        every flag (all0 silences all)\nNONE       silences all\n\n");
    text.push_str("Without -v: NONREG. With -v: COPY,DEL,FLIST,MISC,NAME,STATS,SYMSAFE.\n");
    text.push_str("With -vv: BACKUP,MISC2,MOUNT,NAME2,REMOVE,SKIP too.\n");
    text
}

/// The text of `--debug=help`.
#[must_use]
pub(crate) fn debug_help() -> String {
    format!(
        "rsync's flags are accepted, and say nothing: they ask for what goes on inside rsync.\n{}\n\
         --stats shows where the time went at both ends; --json the same for programs.\n",
        DEBUG.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_override_what_v_sets() {
        for (verbose, flags, topic, level) in [
            (0, "", Topic::Nonreg, 1),
            (0, "", Topic::Name, 0),
            (1, "", Topic::Name, 1),
            (2, "", Topic::Name, 2),
            (2, "name0", Topic::Name, 0),
            (0, "progress2", Topic::Progress, 2),
            (0, "STATS,del2", Topic::Del, 2),
            (1, "none", Topic::Nonreg, 0),
            (0, "all3,skip0", Topic::Skip, 0),
            (0, "all3,skip0", Topic::Mount, 3),
            (0, "name999", Topic::Name, 9),
        ] {
            let mut said = Verbosity::of(verbose);
            said.apply(flags).unwrap();
            assert_eq!(said.level(topic), level, "-v {verbose} --info={flags} {topic:?}");
        }
        for flags in ["foo", "name-1", "1"] {
            assert!(Verbosity::of(0).apply(flags).is_err(), "{flags}");
        }
    }

    #[test]
    fn every_topic_stands_at_its_own_place() {
        for (at, (name, topic, _)) in INFO.iter().enumerate() {
            assert_eq!(*topic as usize, at, "{name}");
        }
    }

    #[test]
    fn rsync_s_debugging_flags_are_known() {
        for flags in ["all", "none", "del2,acl", "IO", ""] {
            assert!(check_debug(flags).is_ok(), "{flags}");
        }
        assert!(check_debug("del,foo").is_err());
    }
}
