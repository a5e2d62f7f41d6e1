//! Configuration files of a migration's machine: [`Place`] over [`Host`], so that this machine and one behind SSH are one code.
//!
//! Each call is one script of the POSIX shell and GNU coreutils. It first goes *into* the file's directory, without a
//! symbolic link on the way, and works on plain names there: a directory that is swapped meanwhile leads nowhere else.
//! A new content is staged beside the file, synced, then renamed, then the directory is synced; owner, mode and
//! attributes are those of the old file and compared before the rename. What is replaced is compared with what was read
//! right before that. Runs take turns by the lock on the file, where there is `flock`.
//!
//! Called by the steps that edit files: `proxy`, `register`, and `rollback` for both.

use super::host::{Command, Host, HostError};
use crate::place::{Access, FileError, LIMIT_BYTES, Place};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// Exit statuses of the scripts, each with one meaning.
const ABSENT: u32 = 66;
const NO_FILE: u32 = 65;
const SWAPPED: u32 = 67;
const LOCKED: u32 = 68;
const EXISTS: u32 = 69;
const LINKED: u32 = 70;
const CHANGED: u32 = 71;
const INCOMPLETE: u32 = 72;
const TOO_BIG: u32 = 73;

/// Goes into directory `$1`, which must be where it says; `$2` is the name there.
const ENTER: &str = r#"set -e
[ -d "$1" ] || exit 66
cd -P -- "$1"
[ "$(pwd -P)" = "$1" ] || exit 67
name=./$2
"#;
/// The name must be a regular file with no other name.
const ALONE: &str = r#"[ -L "$name" ] && exit 65
[ -e "$name" ] || exit 66
[ -f "$name" ] || exit 65
[ "$(stat -c %h -- "$name")" = 1 ] || exit 70
"#;
/// Takes standard input, `$3` bytes of a new content and `$4` of the old one, into files that don't outlive the script.
const TAKE: &str = r#"both=$(mktemp ./.sync-client-XXXXXXXX)
made=$(mktemp ./.sync-client-XXXXXXXX)
trap 'rm -f -- "$both" "$made"' EXIT
trap 'exit 1' HUP INT TERM
cat > "$both"
[ "$(wc -c < "$both")" -eq "$(($3 + $4))" ] || exit 72
head -c "$3" "$both" > "$made"
is_old() { tail -c "+$(($3 + 1))" "$both" | cmp -s - "$name"; }
owned() { stat -c %u:%g:%a -- "$1"; }
"#;
const LOCK: &str = r#"if command -v flock > /dev/null; then
  exec 9< "$name"
  flock -w 5 9 || exit 68
fi
"#;

/// The files of one machine.
pub(crate) struct Files<'h> {
    host: &'h dyn Host,
}

impl<'h> Files<'h> {
    pub(crate) fn of(host: &'h dyn Host) -> Files<'h> {
        Files { host }
    }

    fn run(
        &self,
        operation: &'static str,
        path: &Path,
        script: &str,
        more: &[OsString],
        input: &[u8],
    ) -> Result<Vec<u8>, FileError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(unusable(path, "is not a regular file"));
        };
        let parameters = [parent.as_os_str(), name].into_iter().chain(more.iter().map(OsString::as_os_str));
        let command = Command::script(&format!("{ENTER}{script}"), parameters).fed(input).awaited();
        self.ended(operation, path, &command)
    }

    fn ended(&self, operation: &'static str, path: &Path, command: &Command) -> Result<Vec<u8>, FileError> {
        let failed = |source: io::Error| FileError::Io { operation, path: path.to_owned(), source };
        let ran = self.host.run(command).map_err(|error| failed(io::Error::other(error)))?;
        let host_says = || self.host.failed(operation, path, &ran.stderr);
        match ran.status {
            Some(0) => Ok(ran.stdout),
            Some(ABSENT) => Err(failed(io::ErrorKind::NotFound.into())),
            Some(NO_FILE) => Err(unusable(path, "is not a regular file")),
            Some(SWAPPED) => Err(unusable(path, "is in a directory that was swapped for a link")),
            Some(LOCKED) => Err(unusable(path, "is kept locked by another program; run this again")),
            Some(EXISTS) => Err(FileError::Exists { path: path.to_owned() }),
            Some(LINKED) => Err(unusable(
                path,
                "has other names (hard links) that would keep the old content; make it a file of its own",
            )),
            Some(TOO_BIG) => Err(unusable(path, "is too big (over 4 MiB) for a configuration file")),
            Some(CHANGED) => Err(FileError::Changed { path: path.to_owned() }),
            Some(INCOMPLETE) => Err(failed(io::Error::other("not all of it arrived; nothing was written"))),
            _ => Err(failed(io::Error::other(host_says()))),
        }
    }
}

fn unusable(path: &Path, reason: &'static str) -> FileError {
    FileError::Unusable { path: path.to_owned(), reason }
}

fn number(value: usize) -> OsString {
    value.to_string().into()
}

/// The machine's own error, where that is why a file could not be read or written.
pub(crate) fn host_error(error: &FileError) -> Option<&HostError> {
    let FileError::Io { source, .. } = error else { return None };
    source.get_ref()?.downcast_ref()
}

impl Place for Files<'_> {
    fn find(&self, path: &Path) -> Result<PathBuf, FileError> {
        const SCRIPT: &str = r#"path=$(readlink -f -- "$1" && printf x) || exit 66
printf %s "${path%?x}""#;
        let found = self.ended("find", path, &Command::script(SCRIPT, [path.as_os_str()]))?;
        Ok(PathBuf::from(OsString::from_vec(found)))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, FileError> {
        const SCRIPT: &str = r#"[ -L "$name" ] && exit 65
[ -e "$name" ] || exit 66
[ -f "$name" ] || exit 65
[ "$(stat -c %s -- "$name")" -le "$3" ] || exit 73
head -c "$3" -- "$name""#;
        // What is captured of a command is bounded as well, and lower.
        let limit = LIMIT_BYTES.min(super::host::FILE_BYTES);
        self.run("read", path, SCRIPT, &[limit.to_string().into()], b"")
    }

    fn create(&self, path: &Path, bytes: &[u8], access: Access<'_>) -> Result<(), FileError> {
        const SCRIPT: &str = r#"if [ -n "$5" ]; then
  [ -f "./$5" ] || exit 66
  cp --attributes-only --preserve=mode,ownership,xattr -- "./$5" "$made"
  [ "$(owned "./$5")" = "$(owned "$made")" ] || { echo 'owner and mode cannot be kept' >&2; exit 1; }
else
  chmod -- "$6" "$made"
fi
sync -- "$made"
ln -T -- "$made" "$name" 2> /dev/null || { [ -e "$name" ] || [ -L "$name" ] && exit 69; ln -T -- "$made" "$name"; }
rm -f -- "$made"
sync -- ."#;
        let (model, mode) = match access {
            Access::Mode(mode) => (OsString::new(), OsString::from(format!("{mode:o}"))),
            Access::Of(model) if model.parent() == path.parent() => {
                (model.file_name().unwrap_or_default().to_owned(), OsString::new())
            }
            Access::Of(_) => return Err(unusable(path, "would get its owner from another directory")),
        };
        let more = [number(bytes.len()), number(0), model, mode];
        self.run("create", path, &format!("{TAKE}{SCRIPT}"), &more, bytes).map(drop)
    }

    fn replace(&self, path: &Path, old: &[u8], new: &[u8]) -> Result<(), FileError> {
        const SCRIPT: &str = r#"cp --attributes-only --preserve=mode,ownership,xattr -- "$name" "$made"
[ "$(owned "$name")" = "$(owned "$made")" ] || { echo 'owner and mode cannot be kept' >&2; exit 1; }
sync -- "$made"
is_old "$@" || exit 71
mv -fT -- "$made" "$name"
sync -- ."#;
        let more = [number(new.len()), number(old.len())];
        self.run("replace", path, &[ALONE, TAKE, LOCK, SCRIPT].concat(), &more, &[new, old].concat())
            .map(drop)
    }

    fn remove(&self, path: &Path, old: &[u8]) -> Result<(), FileError> {
        const ABSENT_IS_WELL: &str = "[ -e \"$name\" ] || [ -L \"$name\" ] || exit 0\n";
        const SCRIPT: &str = "is_old \"$@\" || exit 71\nrm -f -- \"$name\"\nsync -- .";
        let more = [number(0), number(old.len())];
        self.run("remove", path, &[ABSENT_IS_WELL, ALONE, TAKE, LOCK, SCRIPT].concat(), &more, old).map(drop)
    }

    fn exists(&self, path: &Path) -> Result<bool, FileError> {
        const SCRIPT: &str = r#"if [ -e "$1" ] || [ -L "$1" ]; then echo yes; fi"#;
        let said = self.ended("look at", path, &Command::script(SCRIPT, [path.as_os_str()]))?;
        Ok(!said.is_empty())
    }

    fn neighbours(&self, path: &Path) -> Result<Vec<PathBuf>, FileError> {
        let said = self.run(
            "list the directory of",
            path,
            "find . -mindepth 1 -maxdepth 1 -printf '%f\\0'",
            &[],
            b"",
        )?;
        let names = said.split(|&byte| byte == 0).filter(|name| !name.is_empty());
        let mut paths: Vec<PathBuf> =
            names.map(|name| path.with_file_name(OsStr::from_bytes(name))).collect();
        paths.sort();
        Ok(paths)
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::Machine;
    use super::*;
    use crate::place::{Original, ThisMachine};
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    fn here() -> Machine {
        Machine::here("here", &crossbeam_channel::never())
    }

    /// Does the same by the shell and by system calls, each in a directory of its own.
    fn everywhere(test: impl Fn(&dyn Place, &Path)) {
        let machine = here();
        let files = Files::of(&machine);
        for place in [&files as &dyn Place, &ThisMachine] {
            let directory = tempfile::Builder::new().prefix("it's a ").tempdir().unwrap();
            let path = fs::canonicalize(directory.path()).unwrap();
            test(place, &path);
            let left = place.neighbours(&path.join("x")).unwrap();
            assert!(left.iter().all(|path| !path.to_string_lossy().contains("sync-client")), "{left:?}");
        }
    }

    #[test]
    fn a_replaced_file_keeps_mode_and_owner_and_a_link_to_it_stays_a_link() {
        everywhere(|place, directory| {
            let (file, link) = (directory.join("site.conf"), directory.join("link"));
            fs::write(&file, "old").unwrap();
            if rustix::process::geteuid().is_root() {
                std::os::unix::fs::chown(&file, Some(9999), Some(9998)).unwrap();
            }
            fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
            symlink("site.conf", &link).unwrap();
            let before = fs::metadata(&file).unwrap();
            let content = b"new \0 bytes\r\n, no last newline".repeat(5000);
            let original = Original::read(place, &link).unwrap();
            original.replace(&content).unwrap();
            assert_eq!(place.read(&file).unwrap(), content);
            let after = fs::metadata(&file).unwrap();
            let kept = |of: &fs::Metadata| (of.uid(), of.gid(), of.mode());
            assert_eq!(kept(&after), kept(&before));
            assert!(after.ino() != before.ino() && fs::symlink_metadata(&link).unwrap().is_symlink());
            original.put_back(&content).unwrap();
            assert_eq!(fs::read(&file).unwrap(), b"old");
        });
    }

    #[test]
    fn what_is_not_as_it_was_read_is_neither_replaced_nor_removed() {
        everywhere(|place, directory| {
            let file = directory.join("file");
            fs::write(&file, "theirs").unwrap();
            assert!(matches!(place.replace(&file, b"old", b"new"), Err(FileError::Changed { .. })));
            assert!(matches!(place.remove(&file, b"old"), Err(FileError::Changed { .. })));
            let mode = Access::Mode(0o600);
            assert!(matches!(place.create(&file, b"new", mode), Err(FileError::Exists { .. })));
            fs::hard_link(&file, directory.join("other")).unwrap();
            assert!(matches!(place.replace(&file, b"theirs", b"new"), Err(FileError::Unusable { .. })));
            assert_eq!(fs::read(&file).unwrap(), b"theirs");
            fs::remove_file(directory.join("other")).unwrap();
            place.remove(&file, b"theirs").unwrap();
            place.remove(&file, b"theirs").unwrap();
            assert!(!place.exists(&file).unwrap());
        });
    }

    #[test]
    fn a_new_file_has_the_owner_and_mode_of_its_model_or_the_mode_asked_for() {
        everywhere(|place, directory| {
            let (model, beside, alone) =
                (directory.join("model"), directory.join("model.undo"), directory.join("alone"));
            fs::write(&model, "").unwrap();
            fs::set_permissions(&model, Permissions::from_mode(0o604)).unwrap();
            place.create(&beside, b"kept", Access::Of(&model)).unwrap();
            place.create(&alone, b"", Access::Mode(0o644)).unwrap();
            let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
            assert_eq!(
                (mode(&beside), mode(&alone), place.read(&beside).unwrap()),
                (0o604, 0o644, b"kept".to_vec())
            );
            assert_eq!(place.neighbours(&model).unwrap(), [alone, model.clone(), beside]);
        });
    }

    #[test]
    fn nothing_is_followed_and_what_is_no_file_is_refused() {
        everywhere(|place, directory| {
            let (real, swapped) = (directory.join("real"), directory.join("swapped"));
            fs::create_dir(&real).unwrap();
            fs::write(real.join("file"), "x").unwrap();
            symlink(&real, &swapped).unwrap();
            symlink(real.join("file"), directory.join("link")).unwrap();
            for path in [swapped.join("file"), directory.join("link"), real.clone()] {
                assert!(place.read(&path).is_err() && place.replace(&path, b"x", b"y").is_err(), "{path:?}");
            }
            assert_eq!(fs::read(real.join("file")).unwrap(), b"x");
            assert_eq!(place.find(&swapped.join("file")).unwrap(), real.join("file"));
            let absent = place.read(&directory.join("absent")).unwrap_err();
            assert!(
                matches!(absent, FileError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
            );
        });
    }

    #[test]
    fn of_many_runs_at_once_each_finds_a_whole_file_and_one_wins() {
        everywhere(|place, directory| {
            let file = directory.join("file");
            fs::write(&file, "old").unwrap();
            let wins: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|number| {
                        let file = &file;
                        scope.spawn(move || {
                            place.replace(file, b"old", format!("new {number}").as_bytes()).is_ok()
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
            });
            assert_eq!(wins, 1);
            assert!(fs::read_to_string(&file).unwrap().starts_with("new "));
        });
    }
}
