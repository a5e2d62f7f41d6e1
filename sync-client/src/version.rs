//! `--version`: which options are understood, and by what.
//!
//! Scripts read the number behind `rsync  version` to know which options they may give: started by the name `rsync` it is
//! that of the rsync whose options are understood. Everything else says whose program this is.

use protocol::message::VERSION;
use serde_json::json;

/// The rsync whose command line is understood.
const RSYNC: &str = "3.5.0";
const OWN: &str = env!("CARGO_PKG_VERSION");

/// For people; `as_rsync`: the program was started by that name.
#[must_use]
pub fn text(as_rsync: bool) -> String {
    let first = if as_rsync {
        format!("rsync  version {RSYNC}  by sync-client {OWN}  protocol of sync-agent {VERSION}")
    } else {
        format!("sync-client  version {OWN}  protocol of sync-agent {VERSION}")
    };
    format!(
        "{first}\n\
         Takes the options of rsync {RSYNC}; speaks with sync-agent over SSH, not with rsync.\n\
         Capabilities:\n    \
         64-bit files, 64-bit inums, 64-bit timestamps, symlinks, symtimes, IPv6, inplace,\n    \
         secluded-args, stop-at, no batchfiles, no iconv\n\
         Checksum list:\n    blake3\nCompress list:\n    zstd none\n\
         License: {}\n",
        env!("CARGO_PKG_LICENSE")
    )
}

/// For programs.
#[must_use]
pub fn object(as_rsync: bool) -> String {
    let (program, version) = if as_rsync { ("rsync", RSYNC) } else { ("sync-client", OWN) };
    let object = json!({
        "program": program,
        "version": version,
        "protocol": VERSION,
        "implementation": format!("sync-client {OWN}"),
        "options_of": format!("rsync {RSYNC}"),
        "capabilities": {
            "file_bits": 64, "inum_bits": 64, "timestamp_bits": 64, "symlinks": true, "symtimes": true,
            "IPv6": true, "batchfiles": false, "inplace": true, "secluded_args": "always", "iconv": false,
            "stop_at": true,
        },
        "checksum_list": ["blake3"],
        "compress_list": ["zstd", "none"],
        "license": env!("CARGO_PKG_LICENSE"),
    });
    format!("{object:#}\n")
}
