//! What a file keeps when it is replaced, and what is refused.

use super::*;
use rustix::fs::{XattrFlags, getxattr, setxattr};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::thread;
use tempfile::TempDir;

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("it is there").flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn original(path: &Path) -> Original<'static> {
    Original::read(&ThisMachine, path).expect("it can be read")
}

#[test]
fn a_replaced_file_keeps_mode_owner_and_attributes_and_a_link_to_it_stays_a_link() {
    let place = directory();
    let (file, link) = (place.path().join("file.conf"), place.path().join("link"));
    fs::write(&file, "old").unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&file, Some(9999), Some(9998)).unwrap();
    }
    fs::set_permissions(&file, Permissions::from_mode(0o4751)).unwrap();
    let has_attribute = setxattr(&file, "user.kept", b"yes", XattrFlags::empty()).is_ok();
    let before = fs::metadata(&file).unwrap();
    symlink("file.conf", &link).unwrap();
    original(&link).replace(b"new").unwrap();
    let after = fs::metadata(&file).unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"new");
    assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
    let mut value = [0; 8];
    let is_kept = getxattr(&file, "user.kept", &mut value).is_ok_and(|len| &value[..len] == b"yes");
    assert_eq!(is_kept, has_attribute);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(names(place.path()), ["file.conf", "link"]);
}

#[test]
fn an_edit_made_meanwhile_is_not_lost() {
    let place = directory();
    let file = place.path().join("file");
    fs::write(&file, "old").unwrap();
    let read = original(&file);
    fs::write(&file, "edited").unwrap();
    assert!(matches!(read.replace(b"new"), Err(FileError::Changed { .. })));
    assert!(matches!(ThisMachine.remove(read.path(), b"old"), Err(FileError::Changed { .. })));
    assert_eq!(fs::read(&file).unwrap(), b"edited");
    fs::remove_file(&file).unwrap();
    assert_eq!(read.replace(b"new").unwrap_err().exit(), Exit::Selection);
    ThisMachine.remove(read.path(), b"old").unwrap();
    assert!(names(place.path()).is_empty());
}

#[test]
fn somebody_who_writes_all_the_time_loses_nothing() {
    let place = directory();
    let file = place.path().join("file");
    fs::write(&file, "0").unwrap();
    let file = fs::canonicalize(&file).unwrap();
    // Two of them each add one to a number, by this same way: every success must count.
    let add = || {
        let mut done = 0;
        while done < 300 {
            let old = ThisMachine.read(&file).unwrap();
            let number: u32 = String::from_utf8(old.clone()).unwrap().parse().unwrap();
            match ThisMachine.replace(&file, &old, (number + 1).to_string().as_bytes()) {
                Ok(()) => done += 1,
                Err(FileError::Changed { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(add);
        scope.spawn(add);
    });
    assert_eq!(fs::read_to_string(&file).unwrap(), "600");
    assert_eq!(names(place.path()), ["file"]);
}

#[test]
fn a_file_that_is_locked_is_waited_for() {
    let place = directory();
    let file = place.path().join("file");
    fs::write(&file, "old").unwrap();
    let read = original(&file);
    let held = fs::File::open(&file).unwrap();
    held.lock().unwrap();
    thread::scope(|scope| {
        let replaced = scope.spawn(|| ThisMachine.replace(read.path(), b"old", b"new"));
        thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(fs::read(&file).unwrap(), b"old");
        drop(held);
        replaced.join().unwrap().unwrap();
    });
    assert_eq!(fs::read(&file).unwrap(), b"new");
}

#[test]
fn what_is_no_single_regular_file_is_refused() {
    let place = directory();
    let (file, other) = (place.path().join("file"), place.path().join("other"));
    let unusable =
        |path: &Path| matches!(Original::read(&ThisMachine, path), Err(FileError::Unusable { .. }));
    assert!(unusable(place.path()) && unusable(Path::new("/dev/null")) && unusable(Path::new("/")));
    rustix::fs::mknodat(rustix::fs::CWD, &other, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(unusable(&other));
    fs::remove_file(&other).unwrap();
    fs::File::create(&file).unwrap().set_len(LIMIT_BYTES).unwrap();
    assert_eq!(original(&file).bytes().len() as u64, LIMIT_BYTES);
    fs::File::create(&file).unwrap().set_len(LIMIT_BYTES + 1).unwrap();
    assert!(unusable(&file));
    fs::write(&file, "old").unwrap();
    fs::hard_link(&file, &other).unwrap();
    assert!(matches!(original(&file).replace(b"new"), Err(FileError::Unusable { .. })));
    let path = ThisMachine.find(&file).unwrap();
    assert!(matches!(ThisMachine.remove(&path, b"old"), Err(FileError::Unusable { .. })));
    assert_eq!((fs::read(&file).unwrap(), names(place.path()).len()), (b"old".to_vec(), 2));
}

#[test]
fn a_name_or_directory_swapped_for_a_link_leads_nowhere_else() {
    let place = directory();
    let (ours, theirs) = (place.path().join("ours"), place.path().join("theirs"));
    for directory in [&ours, &theirs] {
        fs::create_dir(directory).unwrap();
        fs::write(directory.join("file"), "old").unwrap();
    }
    let read = original(&ours.join("file"));
    fs::rename(&ours, place.path().join("aside")).unwrap();
    symlink(&theirs, &ours).unwrap();
    assert!(read.replace(b"new").is_err() && read.back_up(".kept").is_err());
    assert!(read.sidecar(".undo").change(None, Some(b"new")).is_err());
    fs::remove_file(&ours).unwrap();
    fs::rename(place.path().join("aside"), &ours).unwrap();
    fs::remove_file(ours.join("file")).unwrap();
    symlink(theirs.join("file"), ours.join("file")).unwrap();
    assert!(read.replace(b"new").is_err());
    assert_eq!(
        (fs::read(theirs.join("file")).unwrap(), names(&theirs)),
        (b"old".to_vec(), vec!["file".into()])
    );
}

#[test]
fn a_new_file_never_takes_the_place_of_another() {
    let place = directory();
    let file = ThisMachine.find(&place.path().join("file")).unwrap();
    let create = |bytes| ThisMachine.create(&file, bytes, Access::Mode(0o600));
    create(b"first").unwrap();
    assert!(matches!(create(b"second"), Err(FileError::Exists { .. })));
    assert_eq!(fs::read(&file).unwrap(), b"first");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    fs::remove_file(&file).unwrap();
    symlink("nowhere", &file).unwrap();
    assert!(matches!(create(b"third"), Err(FileError::Exists { .. })));
    assert_eq!(names(place.path()), ["file"]);
}

#[test]
fn a_backup_is_never_written_over_and_made_once() {
    let place = directory();
    for (name, backup) in [("site.conf", "site.conf.kept"), ("site", ".site.kept")] {
        let path = place.path().join(name);
        let backup = place.path().join(backup);
        let back_up = |bytes: &str| {
            fs::write(&path, bytes).unwrap();
            let read = original(&path);
            let made = read.back_up(".kept").unwrap();
            (made.path().to_owned(), made.is_new)
        };
        let second = with_suffix(&backup, ".1");
        assert_eq!(back_up("one"), (backup.clone(), true));
        assert_eq!(back_up("one"), (backup.clone(), false));
        assert_eq!(back_up("two"), (second.clone(), true));
        assert_eq!(back_up("one"), (backup.clone(), false));
        assert_eq!(
            (fs::read(backup).unwrap(), fs::read(second).unwrap()),
            (b"one".to_vec(), b"two".to_vec())
        );
    }
}

#[test]
fn a_sidecar_is_changed_only_from_what_was_read() {
    let place = directory();
    let path = place.path().join("file");
    fs::write(&path, "file").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let read = original(&path);
    let sidecar = read.sidecar(".undo");
    assert_eq!(sidecar.read().unwrap(), None);
    sidecar.change(None, Some(b"one")).unwrap();
    assert_eq!(fs::metadata(sidecar.path()).unwrap().mode() & 0o7777, 0o640);
    assert!(matches!(sidecar.change(None, Some(b"two")), Err(FileError::Changed { .. })));
    assert!(matches!(sidecar.change(Some(b"zero"), Some(b"two")), Err(FileError::Changed { .. })));
    sidecar.change(Some(b"one"), Some(b"two")).unwrap();
    assert_eq!(sidecar.read().unwrap().as_deref(), Some(&b"two"[..]));
    sidecar.change(Some(b"two"), None).unwrap();
    assert_eq!(names(place.path()), ["file"]);
}
