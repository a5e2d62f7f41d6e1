//! rsync's options that this program does not do, with the reason for each, and those that ask for what it does anyway.
//!
//! An option of rsync's is never ignored in silence: it is done, it holds without being given, or it is refused by
//! name before anything is touched. The README's table says which; a test compares all three with `rsync --help`.

use clap::builder::OsStringValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

/// An option as rsync spells it, with its letter; `=` at the end of the name marks one that takes a value.
type Spelling = (&'static str, Option<char>);

/// What is refused, and why.
pub(crate) const REFUSED: &[(Spelling, &str)] = &[
    (
        ("protocol=", None),
        "it chooses among versions of rsync's protocol; this program speaks its own, and both ends are of one release",
    ),
    (
        ("old-args", None),
        "no shell at the other side splits names here: write one argument for each source, and choose with \
         --include and --exclude",
    ),
    (
        ("write-batch=", None),
        "a batch is written in rsync's protocol; use sync --dry-run --json and --apply-plan, or rsync itself",
    ),
    (
        ("only-write-batch=", None),
        "a batch is written in rsync's protocol; use sync --dry-run --json and --apply-plan, or rsync itself",
    ),
    (("read-batch=", None), "a batch is written in rsync's protocol; read it with rsync itself"),
    (("daemon", None), "there is no daemon; sync-agent serve is an SSH server of its own"),
    (("config=", None), "there is no daemon; sync-agent serve is configured by its own options"),
    (("password-file=", None), "it is for rsync's daemon; SSH keys let in here (--identity)"),
    (("early-input=", None), "it is for rsync's daemon, which is not spoken to"),
    (("sockopts=", None), "it is for sockets to rsync's daemon; connections here are SSH's"),
    (("iconv=", None), "names are bytes here, and stay what they are; convert them at one side (convmv)"),
    (("copy-as=", None), "log in as that user (USER@HOST:), or start with sudo -u USER"),
    (
        ("checksum-seed=", None),
        "no checksum here has a seed: BLAKE3 decides, and a peer can't choose collisions of it",
    ),
    (("confine-root=", None), "hold the agent to a directory with --agent-path='sync-agent --root DIR'"),
    (("write-devices", None), "what is written to a device can be neither staged nor taken back"),
    (
        ("crtimes", Some('N')),
        "Linux has no call that sets when a file was created; rsync refuses it on Linux too",
    ),
    (("drop-D", None), "give --no-D: what is not copied is not made"),
    (("sender", None), "it is what rsync tells its own other half"),
];

/// What holds without being given, and why.
pub(crate) const HELD_ANYWAY: &[(Spelling, &str)] = &[
    (("secluded-args", Some('s')), "arguments always travel inside the protocol, no shell reads them"),
    (("protect-args", None), "the same, by its old name"),
    (("inc-recursive", None), "trees are always listed piece by piece"),
    (
        ("no-inc-recursive", None),
        "trees are listed piece by piece, and deletions wait for the end of it anyway",
    ),
    (("i-r", None), "the same as --inc-recursive"),
    (("no-i-r", None), "the same as --no-inc-recursive"),
    (("fsync", None), "exit status 0 always means: on disk"),
    (
        ("trust-sender", None),
        "whatever the other side says is always checked; that costs nothing worth saving",
    ),
    (("max-alloc=", None), "every length that a peer names is bounded"),
    (("blocking-io", None), "threads wait for their pipes"),
    (("skip-compress=", None), "what does not shrink is sent as it is, whatever its name"),
    (("compress-threads=", None), "each frame is compressed by the thread that made it"),
    (("zt=", None), "the same as --compress-threads"),
    (("no-motd", None), "there is no daemon that would print one"),
    (("insecure-links", None), "a path that the operator types is followed as typed; nothing below it is"),
];

/// Adds both kinds to `command`, hidden from its help.
pub(crate) fn arguments(mut command: Command) -> Command {
    for ((name, letter), _) in REFUSED {
        command = command.arg(hidden(name, *letter, "refused:"));
    }
    for ((name, letter), _) in HELD_ANYWAY {
        command = command.arg(hidden(name, *letter, "held:"));
    }
    command
}

fn hidden(spelling: &'static str, letter: Option<char>, prefix: &str) -> Arg {
    let name = spelling.trim_end_matches('=');
    let id: &'static str = Box::leak(format!("{prefix}{name}").into_boxed_str());
    let arg = Arg::new(id).long(name).hide(true).overrides_with(id);
    let arg = letter.into_iter().fold(arg, Arg::short);
    if spelling.ends_with('=') {
        arg.action(ArgAction::Set).value_parser(OsStringValueParser::new()).allow_hyphen_values(true)
    } else {
        arg.action(ArgAction::SetTrue)
    }
}

/// Why the first refused option that was given is refused.
pub(crate) fn refusal(matches: &ArgMatches) -> Option<String> {
    let given =
        |name: &str| matches.value_source(&format!("refused:{name}")) == Some(ValueSource::CommandLine);
    let named = REFUSED.iter().map(|((name, letter), why)| (name.trim_end_matches('='), letter, why));
    let (name, letter, why) = named.into_iter().find(|(name, ..)| given(name))?;
    let letter = letter.map(|letter| format!("-{letter}, ")).unwrap_or_default();
    Some(format!("{letter}--{name} is not done here: {why}; nothing was changed"))
}

/// rsync's options that have a `--no-` form, with its short one; those that have theirs already are left alone.
///
/// # Source
/// rsync 3.5.0: each of its options was given to it with `--no-` before it.
const NEGATABLE: &[(&str, Option<char>)] = &[
    ("8-bit-output", Some('8')),
    ("acls", Some('A')),
    ("append", None),
    ("atimes", Some('U')),
    ("backup", None),
    ("blocking-io", None),
    ("bwlimit", None),
    ("checksum", Some('c')),
    ("compress", Some('z')),
    ("contimeout", None),
    ("crtimes", Some('N')),
    ("delay-updates", None),
    ("dirs", Some('d')),
    ("drop-D", None),
    ("force", None),
    ("from0", None),
    ("fuzzy", Some('y')),
    ("hard-links", Some('H')),
    ("iconv", None),
    ("ignore-errors", None),
    ("inplace", None),
    ("insecure-links", None),
    ("itemize-changes", Some('i')),
    ("mkpath", None),
    ("munge-links", None),
    ("numeric-ids", None),
    ("old-args", None),
    ("omit-dir-times", Some('O')),
    ("omit-link-times", Some('J')),
    ("one-file-system", Some('x')),
    ("open-noatime", None),
    ("partial", None),
    ("prune-empty-dirs", Some('m')),
    ("protect-args", None),
    ("relative", Some('R')),
    ("secluded-args", Some('s')),
    ("sparse", Some('S')),
    ("super", None),
    ("timeout", None),
    ("verbose", Some('v')),
    ("write-devices", None),
    ("xattrs", Some('X')),
];

/// Adds the `--no-` forms that are not there yet: whichever of both stands last counts.
pub(crate) fn with_negations(mut command: Command) -> Command {
    for &(name, letter) in NEGATABLE {
        let no: &'static str = Box::leak(format!("no-{name}").into_boxed_str());
        let has = |command: &Command, long: &str| {
            command.get_arguments().any(|arg| {
                arg.get_long() == Some(long) || arg.get_all_aliases().is_some_and(|all| all.contains(&long))
            })
        };
        if has(&command, no) {
            continue;
        }
        let mut negation = Arg::new(no).long(no).action(ArgAction::SetTrue).overrides_with(no).hide(true);
        if let Some(letter) = letter {
            let alias: &'static str = Box::leak(format!("no-{letter}").into_boxed_str());
            if !has(&command, alias) {
                negation = negation.alias(alias);
            }
        }
        let negated = [name.to_owned(), format!("refused:{name}"), format!("held:{name}")];
        for id in negated {
            if command.get_arguments().any(|arg| arg.get_id() == id.as_str()) {
                let id: &'static str = Box::leak(id.into_boxed_str());
                negation = negation.overrides_with(id);
                command = command.mut_arg(id, |arg| arg.overrides_with(no));
            }
        }
        command = command.arg(negation);
    }
    command
}
