//! A small file system of a test's own. Only root can mount one.

use crate::process::run;
use crate::requirement::installed;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted tmpfs; unmounted when dropped.
#[derive(Debug)]
pub struct Tmpfs {
    path: PathBuf,
}

impl Tmpfs {
    /// Mounts one of that size over the directory `path`.
    ///
    /// # Panics
    /// Where that fails.
    #[must_use]
    pub fn mount(path: &Path, size_bytes: u64) -> Tmpfs {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size_bytes}"), "tmpfs"]).arg(path);
        run(command).success();
        Tmpfs { path: path.to_owned() }
    }

    /// Mounts the directory `from` once more, over the directory `path`.
    ///
    /// # Panics
    /// Where that fails.
    #[must_use]
    pub fn bind(from: &Path, path: &Path) -> Tmpfs {
        let mut command = Command::new("mount");
        command.arg("--bind").arg(from).arg(path);
        run(command).success();
        Tmpfs { path: path.to_owned() }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        // Lazily: a failed test may still have a program in it.
        command.arg("-l").arg(&self.path);
        let _ = run(command);
    }
}

/// A file system in a file, mounted; unmounted when dropped.
#[derive(Debug)]
pub struct Image {
    file: PathBuf,
    mounted: PathBuf,
}

impl Image {
    /// Makes an ext4 of that size in `directory` and mounts it there.
    ///
    /// # Panics
    /// Where that fails.
    #[must_use]
    pub fn create(directory: &Path, size_bytes: u64) -> Image {
        Image::make(directory, size_bytes, "mkfs.ext4", &["-q", "-F"])
    }

    /// Makes an XFS, where files can share blocks; it takes at least 300 MiB.
    ///
    /// # Panics
    /// Where that fails.
    #[must_use]
    pub fn create_xfs(directory: &Path, size_bytes: u64) -> Image {
        Image::make(directory, size_bytes, "mkfs.xfs", &["-q", "-m", "reflink=1"])
    }

    fn make(directory: &Path, size_bytes: u64, program: &str, options: &[&str]) -> Image {
        let file = directory.join("image");
        File::create(&file).and_then(|file| file.set_len(size_bytes)).expect("room for an image");
        let mut command = Command::new(installed(program));
        command.args(options).arg(&file);
        run(command).success();
        Image::mount(file, directory.join("mounted"))
    }

    fn mount(file: PathBuf, mounted: PathBuf) -> Image {
        fs::create_dir(&mounted).expect("a new directory");
        let mut command = Command::new("mount");
        command.args(["-o", "loop"]).arg(&file).arg(&mounted);
        run(command).success();
        Image { file, mounted }
    }

    /// What is on the disk at this moment, as after a power cut: its blocks are copied without a sync, and the copy
    /// is mounted in `directory`. Nobody may write to it meanwhile. A copy takes time, and what the kernel writes in
    /// that time may be in it without what it wrote before; so it is made until it is that of one moment.
    ///
    /// # Panics
    /// Where that fails.
    #[must_use]
    pub fn after_power_cut(&self, directory: &Path) -> Image {
        fs::create_dir(directory).expect("a new directory");
        let file = directory.join("image");
        let read = || fs::read(&self.file).expect("it is there");
        let mut content = read();
        while let again = read()
            && again != content
        {
            content = again;
        }
        fs::write(&file, content).expect("room for a copy");
        Image::mount(file, directory.join("mounted"))
    }

    /// Changes bytes on the disk behind the file system's back, as a failing disk does: wherever `what` stands.
    ///
    /// # Panics
    /// Where that fails, or they are nowhere.
    pub fn damage(&self, what: &[u8], into: &[u8]) {
        self.unmount(&[]);
        let mut content = fs::read(&self.file).expect("it is there");
        let at = content.windows(what.len()).position(|window| window == what).expect("it is on the disk");
        content[at..at + into.len()].copy_from_slice(into);
        fs::write(&self.file, content).expect("room for the same");
        let mut command = Command::new("mount");
        command.args(["-o", "loop"]).arg(&self.file).arg(&self.mounted);
        run(command).success();
    }

    fn unmount(&self, options: &[&str]) {
        let mut command = Command::new("umount");
        command.args(options).arg(&self.mounted);
        run(command).success();
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mounted
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        command.arg("-l").arg(&self.mounted);
        let _ = run(command);
    }
}
