//! How the content of files gets across.

use super::typed::{Order, amount, flag, no, text, value};
use super::{UsageError, usage};
use clap::{ArgMatches, Command, value_parser};
use protocol::options::{Compression, Reading, Room};

pub(crate) fn arguments(command: Command) -> Command {
    command
        .arg(flag("whole-file", Some('W'), "Send changed files whole, without looking for a delta"))
        .arg(no("whole-file", Some('W')))
        .arg(flag("sparse", Some('S'), "Make holes of zeros, and do not read holes"))
        .arg(flag("preallocate", None, "Reserve all of a file's room before writing it"))
        .arg(flag("copy-devices", None, "Copy what is on a device, as a file"))
        .arg(flag("open-noatime", None, "Leave the access times of what is read as they are"))
        .arg(flag("inplace", None, "Patch files in place, through a journal that survives a crash"))
        .arg(flag("partial", None, "Keep what was transferred of a file when interrupted (always done)"))
        .arg(value("block-size", "BYTES", "Block size for deltas [default: by file size]").short('B'))
        .arg(
            value("compress", "HOW", "Compress what is sent: zstd[:LEVEL] [-z: zstd:3], none, or auto [default]: zstd while the line is slower than that")
                .short('z')
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("zstd"),
        )
        .arg(no("compress", Some('z')))
        .arg(value("compress-choice", "NAME", "rsync's names: zstd, none; the others mean zstd here").alias("zc"))
        .arg(value("compress-level", "N", "Level of --compress, 1 to 19").alias("zl").value_parser(value_parser!(i32)))
        .arg(flag("old-compress", None, "Same as --compress").alias("new-compress").hide(true))
        .arg(value("checksum-choice", "NAME", "rsync's names are taken; BLAKE3 is used").alias("cc"))
        .arg(value("state-dir", "DIR", "Where to keep what speeds up later runs"))
        .arg(flag("no-index", None, "Neither use nor keep an index of earlier runs"))
}

pub(crate) fn whole_file(matches: &ArgMatches, is_local: bool) -> bool {
    let order = Order(matches);
    match (order.last("whole-file"), order.last("no-whole-file")) {
        // Between two disks of one machine looking for a delta costs more than it saves.
        (None, None) => is_local,
        (on, off) => on > off,
    }
}

pub(crate) fn compression(matches: &ArgMatches) -> Result<Compression, UsageError> {
    let order = Order(matches);
    let by_rsync_s_names = ["compress-choice", "compress-level", "old-compress"];
    let off = order.last("no-compress");
    if by_rsync_s_names.into_iter().any(|name| order.last(name).is_some_and(|given| Some(given) > off)) {
        return chosen(matches);
    }
    let Some(how) = text(matches, "compress")?.filter(|_| order.last("compress") > order.last("no-compress"))
    else {
        let is_off = order.last("no-compress").is_some();
        return Ok(if is_off { Compression::None } else { Compression::Auto });
    };
    match how.as_str() {
        "none" => Ok(Compression::None),
        "auto" => Ok(Compression::Auto),
        "zstd" => Ok(Compression::Zstd { level: 3 }),
        other => match other.strip_prefix("zstd:").and_then(|level| level.parse().ok()) {
            Some(level @ 1..=19) => Ok(Compression::Zstd { level }),
            _ => usage(format!("--compress: {other:?} is not one of auto, zstd, zstd:1 to zstd:19, none")),
        },
    }
}

/// What rsync's own options for compression come to, with `-z` or without.
fn chosen(matches: &ArgMatches) -> Result<Compression, UsageError> {
    let level = matches.get_one::<i32>("compress-level").copied();
    let default = match text(matches, "compress-choice")?.as_deref() {
        None | Some("auto" | "zstd" | "zlib" | "zlibx") => 3,
        // What is asked for is the quickest.
        Some("lz4") => 1,
        Some("none") => return Ok(Compression::None),
        Some(other) => {
            return usage(format!(
                "--compress-choice: {other:?} is not one of zstd, lz4, zlibx, zlib, none, auto"
            ));
        }
    };
    // rsync takes 0 and numbers out of range for the default and the nearest level.
    let level = level.filter(|&level| level != 0).unwrap_or(default).clamp(1, 19);
    Ok(Compression::Zstd { level: u8::try_from(level).unwrap_or(3) })
}

/// Looks at `--checksum-choice`: whatever it says, BLAKE3 decides; only `none` is something else.
pub(crate) fn check_checksum_choice(matches: &ArgMatches) -> Result<(), UsageError> {
    let Some(choice) = text(matches, "checksum-choice")? else { return Ok(()) };
    for name in choice.split(',') {
        match name {
            "auto" | "xxh128" | "xxh3" | "xxh64" | "xxhash" | "md5" | "md4" | "sha1" => {}
            "none" => {
                return usage(
                    "--checksum-choice=none is not done here: every file is verified before it gets its name",
                );
            }
            other => return usage(format!("--checksum-choice: rsync has no checksum {other:?}")),
        }
    }
    Ok(())
}

/// `--sparse`, `--preallocate`.
pub(crate) fn room(matches: &ArgMatches) -> Room {
    Room { sparse: matches.get_flag("sparse"), reserved: matches.get_flag("preallocate") }
}

/// `--copy-devices`, `--open-noatime`.
pub(crate) fn reading(matches: &ArgMatches) -> Reading {
    Reading { devices: matches.get_flag("copy-devices"), noatime: matches.get_flag("open-noatime") }
}

/// `--block-size`.
pub(crate) fn block_size(matches: &ArgMatches) -> Result<Option<u32>, UsageError> {
    let Some(size) = text(matches, "block-size")? else { return Ok(None) };
    let bytes = amount(&size, 1).and_then(|bytes| u32::try_from(bytes).ok());
    match bytes.filter(|bytes| (512..=16 << 20).contains(bytes)) {
        Some(bytes) => Ok(Some(bytes)),
        None => usage(format!("--block-size: {size:?} is not a number of bytes from 512 to 16M")),
    }
}
