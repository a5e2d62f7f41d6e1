//! How the content of files gets across.

use super::typed::{Order, amount, flag, no, text, value};
use super::{UsageError, usage};
use clap::{ArgMatches, Command};
use protocol::options::Compression;

pub(crate) fn arguments(command: Command) -> Command {
    command
        .arg(flag("whole-file", Some('W'), "Send changed files whole, without looking for a delta"))
        .arg(no("whole-file", Some('W')))
        .arg(flag("inplace", None, "Patch files in place, through a journal that survives a crash"))
        .arg(flag("partial", None, "Keep what was transferred of a file when interrupted (always done)"))
        .arg(value("block-size", "BYTES", "Block size for deltas [default: by file size]"))
        .arg(
            value("compress", "HOW", "Compress what is sent: zstd[:LEVEL] [-z: zstd:3], none, or auto [default]: zstd while the line is slower than that")
                .short('z')
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("zstd"),
        )
        .arg(no("compress", Some('z')))
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

/// `--block-size`.
pub(crate) fn block_size(matches: &ArgMatches) -> Result<Option<u32>, UsageError> {
    let Some(size) = text(matches, "block-size")? else { return Ok(None) };
    let bytes = amount(&size, 1).and_then(|bytes| u32::try_from(bytes).ok());
    match bytes.filter(|bytes| (512..=16 << 20).contains(bytes)) {
        Some(bytes) => Ok(Some(bytes)),
        None => usage(format!("--block-size: {size:?} is not a number of bytes from 512 to 16M")),
    }
}
