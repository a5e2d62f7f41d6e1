//! What a bench writes: in the staging directory of the place, which no run ever copies or lists.
//!
//! While it is there the place is locked as by a run, so neither removes what is the other's. A bench that was
//! killed leaves at most this; the next run removes it.

use super::{Budget, Ended, Place, elapsed_ns, failed, noise};
use crate::staging;
use crate::tree::{Dir, Handle as _, Info, STAGING_NAME};
use crossbeam_channel::Receiver;
use protocol::path::Name;
use protocol::probe::{ProbeResult, Work};
use rustix::fs::{Advice, fadvise};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::time::Instant;

/// Written between two syncs: what a slow disk may take longer than it should.
const STEP_BYTES: u64 = 32 << 20;
const BUFFER_BYTES: usize = 1 << 20;
/// The part of the free space that may be used.
const FREE_PART: u64 = 10;
/// Length of a small file: that of many attachments and of a database page.
const SMALL_BYTES: usize = 4 << 10;

/// A private directory, with the files that were made in it.
struct Scratch {
    home: Dir,
    dir: Dir,
    /// The place's attributes before and after the directory was made in it, if it was.
    made: Option<(Info, Info)>,
    names: Vec<String>,
    /// The share in the locks of the directories above.
    _locks: Vec<Dir>,
}

impl Scratch {
    fn open(place: &Place) -> Result<Scratch, Ended> {
        if let Some(why) = place.read_only {
            return Err(Ended::Failed(why.to_owned()));
        }
        let home = place.dir()?;
        let locks = home.lock().map_err(|error| match error {
            Errno::WOULDBLOCK => Ended::Failed(format!("another run is working on {}", place.shown)),
            error => failed(&format!("lock {}", place.shown), error),
        })?;
        let make = |error| failed(&format!("write in {}", place.shown), error);
        if let Some(why) = staging::obstacle(&home) {
            return Err(Ended::Failed(format!("{} {why}", place.shown)));
        }
        let before = home.own_info().map_err(make)?;
        let is_new = match home.make_dir(STAGING_NAME) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(make(error)),
        };
        let name = Name::new(STAGING_NAME).map_err(|_| make(Errno::INVAL))?;
        let (dir, after) = home.dir(&name).and_then(|dir| Ok((dir, home.own_info()?))).map_err(|error| {
            let _ = is_new.then(|| home.remove_dir(STAGING_NAME));
            make(error)
        })?;
        let made = is_new.then_some((before, after));
        Ok(Scratch { home, dir, made, names: Vec::new(), _locks: locks })
    }

    fn create(&mut self) -> Result<File, Errno> {
        let name = format!("bench-{}", self.names.len());
        // A bench that was killed left it: the lock says that none is at work.
        let _ = self.dir.remove_file(name.as_bytes());
        let file = self.dir.create_file(name.as_bytes())?;
        self.names.push(name);
        Ok(file)
    }

    fn rename_all(&mut self) -> Result<(), Errno> {
        for name in &mut self.names {
            let placed = format!("{name}.placed");
            self.dir.rename(name.as_bytes(), &self.dir, placed.as_bytes())?;
            *name = placed;
        }
        Ok(())
    }

    fn room_bytes(&self) -> Result<u64, Ended> {
        let free_bytes = self.home.free_bytes().map_err(|error| failed("ask for free space", error))?;
        Ok(free_bytes / FREE_PART)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = self.dir.remove_file(name.as_bytes());
        }
        let Some((before, after)) = self.made else { return };
        let is_untouched = self.home.own_info().is_ok_and(|now| now.mtime == after.mtime);
        let is_removed = self.home.remove_dir(STAGING_NAME).is_ok();
        // As if nothing had been, unless somebody else changed the directory meanwhile.
        if is_removed && is_untouched {
            let _ = self.home.hold_self().and_then(|held| held.set_mtime(before.mtime));
        }
    }
}

/// Writes a file, syncs it, and reads it back from the disk.
pub(super) fn disk(
    place: &Place,
    bytes: u64,
    limit_ms: u32,
    stop: &Receiver<()>,
) -> Result<ProbeResult, Ended> {
    let mut scratch = Scratch::open(place)?;
    let bytes = bytes.min(scratch.room_bytes()?);
    if bytes < BUFFER_BYTES as u64 {
        return Err(Ended::Failed(format!("there is too little free space at {}", place.shown)));
    }
    let mut file = scratch.create().map_err(|error| failed("create a file", error))?;
    let write = write(&mut file, bytes, &Budget::new(limit_ms, stop))?;
    let read = read(&mut file, &Budget::new(limit_ms, stop))?;
    Ok(ProbeResult::Disk { write, read })
}

fn write(file: &mut File, bytes: u64, budget: &Budget<'_>) -> Result<Work, Ended> {
    let data = noise(BUFFER_BYTES);
    let (started, mut written) = (Instant::now(), 0);
    while written < bytes {
        let length = usize::try_from(bytes - written).unwrap_or(usize::MAX).min(data.len());
        file.write_all(&data[..length]).map_err(|error| failed("write", error))?;
        written += length as u64;
        if written % STEP_BYTES == 0 {
            file.sync_data().map_err(|error| failed("sync", error))?;
        }
        if budget.is_over() {
            break;
        }
    }
    if budget.is_stopped() {
        return Err(Ended::Stopped);
    }
    file.sync_data().map_err(|error| failed("sync", error))?;
    Ok(Work { files: 0, bytes: written, elapsed_ns: elapsed_ns(started) })
}

/// The file's own pages are dropped first; a file system in memory has no others.
fn read(file: &mut File, budget: &Budget<'_>) -> Result<Work, Ended> {
    fadvise(&*file, 0, None, Advice::DontNeed).map_err(|error| failed("drop what is cached", error))?;
    file.seek(SeekFrom::Start(0)).map_err(|error| failed("read", error))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let (started, mut bytes) = (Instant::now(), 0);
    loop {
        let count = file.read(&mut buffer).map_err(|error| failed("read", error))?;
        bytes += count as u64;
        if count == 0 || budget.is_over() {
            return Ok(Work { files: 0, bytes, elapsed_ns: elapsed_ns(started) });
        }
    }
}

/// Creates small files as a run does: written, synced together, renamed.
pub(super) fn create(place: &Place, files: u32, budget: &Budget<'_>) -> Result<ProbeResult, Ended> {
    let mut scratch = Scratch::open(place)?;
    let room = scratch.room_bytes()? / SMALL_BYTES as u64;
    let content = noise(SMALL_BYTES);
    let started = Instant::now();
    for _ in 0..u64::from(files).min(room) {
        let written = scratch.create().map_err(Into::into).and_then(|mut file| file.write_all(&content));
        written.map_err(|error: std::io::Error| failed("create a file", error))?;
        if budget.is_over() {
            break;
        }
    }
    if budget.is_stopped() {
        return Err(Ended::Stopped);
    }
    scratch.dir.sync_file_system().map_err(|error| failed("sync the file system", error))?;
    scratch.rename_all().map_err(|error| failed("rename a file", error))?;
    let (elapsed_ns, files) = (elapsed_ns(started), scratch.names.len() as u64);
    if files == 0 {
        return Err(Ended::Failed(format!("there is too little free space at {}", place.shown)));
    }
    Ok(ProbeResult::Work(Work { files, bytes: files * SMALL_BYTES as u64, elapsed_ns }))
}
