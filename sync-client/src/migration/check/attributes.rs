//! Extended attributes of the data, and whether they are copied. A preview's mark of what it was made from is one; without
//! it, it is made anew.
//!
//! Read by `getfattr`, or by Python where that is missing: neither the shell nor `find` can tell. Only `user.*` counts; what
//! else there is (`security.*`, `trusted.*`) is the machine's.

use super::{Table, Verdict};
use crate::migration::engine;
use crate::migration::evidence;
use crate::migration::host::{CAPTURED_BYTES, Command};
use crate::migration::plan::DataSet;
use crate::migration::run::End;
use crate::migration::step::StepError;
use crate::migration::text;
use protocol::filter::{FilterRules, Side};

/// Prints the names below directory `$1` that have such attributes, `$2` is `-L` where links are followed, else `-h`.
const SCRIPT: &str = r#"[ -d "$1" ] || exit 0
cd "$1" || exit 1
if command -v getfattr >/dev/null; then
  getfattr -R "$2" -m '^user[.]' -- . 2>/dev/null | sed -n 's/^# file: /.\//p'
elif command -v python3 >/dev/null; then
  python3 - "$2" <<'END'
import os, sys
follows = sys.argv[1] == "-L"
def has(path):
    try: return any(name.startswith("user.") for name in os.listxattr(path, follow_symlinks=follows))
    except OSError: return False
for parent, directories, files in os.walk(".", followlinks=follows):
    for path in (os.path.join(parent, name) for name in files + directories):
        if has(path): sys.stdout.buffer.write(os.fsencode(path).replace(b"\n", b"\\012") + b"\n")
END
else exit 65
fi"#;

/// A row for each data set that has some.
pub(super) fn look(table: &mut Table<'_, '_>) -> Result<(), StepError> {
    let plan = table.run.plan;
    for set in &plan.data {
        let what = format!("attributes {}", set.name);
        if let Some((verdict, detail)) = of_set(table, set)? {
            table.row(verdict, &what, detail);
        }
    }
    Ok(())
}

fn of_set(table: &Table<'_, '_>, set: &DataSet) -> Result<Option<(Verdict, String)>, StepError> {
    let (host, directory) = (table.run.host(End::Source), table.run.plan.source_path(set));
    let follow = if set.copy_links { "-L" } else { "-h" };
    let parameters = [directory.as_os_str(), follow.as_ref()];
    let ran = host.run(&Command::script(SCRIPT, parameters).limited(evidence::SEARCH_S))?;
    match ran.status {
        Some(0) => {}
        Some(65) => {
            let detail = "nobody looked whether files have extended attributes (user.*): install attr (getfattr) there";
            return Ok(Some((Verdict::Warn, detail.to_owned())));
        }
        _ => return Err(host.failed("look for extended attributes below", &directory, &ran.stderr).into()),
    }
    let filter = engine::exclusions(set)?;
    let copied: Vec<&[u8]> = ran.lines().map(relative).filter(|path| is_copied(&filter, path)).collect();
    let Some(first) = copied.first() else {
        let is_cut = ran.stdout.len() >= CAPTURED_BYTES;
        let detail = "there are so many files with extended attributes that not all were looked at";
        return Ok(is_cut.then(|| (Verdict::Warn, detail.to_owned())));
    };
    let files = format!("{} with extended attributes, {} for one", copied.len(), text::foreign(first));
    let fate = if set.xattrs { "copied with them" } else { "left behind by choice (xattrs = false)" };
    Ok(Some((Verdict::Pass, format!("{files}: {fate}"))))
}

/// Below the data set, as patterns see it.
fn relative(line: &[u8]) -> &[u8] {
    let path = line.strip_prefix(b"./").unwrap_or(line);
    path.strip_prefix(b"./").unwrap_or(path)
}

/// Neither it nor a directory above it is excluded. The last part is a file's or a directory's: patterns for either count.
fn is_copied(filter: &FilterRules, path: &[u8]) -> bool {
    let above = path.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(at, _)| &path[..at]);
    let excluded = |path: &[u8], is_dir| filter.excludes(path, is_dir, Side::Sender);
    !above.into_iter().any(|directory| excluded(directory, true)) && !excluded(path, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_excluded_or_below_it_is_not_copied() {
        let mut filter = FilterRules::default();
        filter.push_exclude(b"/previews").unwrap();
        filter.push_exclude(b"*.tmp").unwrap();
        for (path, expected) in [
            (&b"attachments/u1/f"[..], true),
            (b"previews", false),
            (b"previews/u1/f", false),
            (b"attachments/previews/f", true),
            (b"attachments/a.tmp", false),
        ] {
            assert_eq!(is_copied(&filter, path), expected, "{}", String::from_utf8_lossy(path));
        }
        assert_eq!(relative(b"././a/b"), b"a/b");
    }
}
