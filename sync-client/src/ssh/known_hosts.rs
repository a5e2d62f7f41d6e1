//! What `known_hosts` files say about one host.
//!
//! The files are read once for each connection, for one host and port, into the keys that are known and
//! those that are revoked. The decision is then pure: known, unknown, changed or revoked. A line we can't
//! read says nothing (as with OpenSSH); `@cert-authority` lines are passed over, for we accept no
//! certificates.
//!
//! # Source
//! sshd(8), SSH_KNOWN_HOSTS FILE FORMAT.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use russh::keys::ssh_key::known_hosts::HostPatterns;
use russh::keys::{Algorithm, HashAlg, PublicKey};
use sha1::Sha1;
use sync_agent::serve::wildcard_matches;

/// A key and the line that names it.
#[derive(Debug, Clone)]
pub struct KnownKey {
    /// The key.
    pub key: PublicKey,
    /// The file that names it.
    pub file: PathBuf,
    /// The line there, counted from 1.
    pub line: usize,
}

/// All that the files say about one host.
#[derive(Debug, Default)]
pub(crate) struct HostKeys {
    known: Vec<KnownKey>,
    revoked: Vec<KnownKey>,
}

/// What to make of an offered key.
#[derive(Debug)]
pub(crate) enum Verdict {
    Known,
    /// The host has no entry at all.
    Unknown,
    /// The host is known by other keys only; the one to name is of the offered type where there is one.
    Changed(KnownKey),
    Revoked(KnownKey),
}

impl HostKeys {
    /// Reads `files` for `host`; files that don't exist say nothing.
    ///
    /// # Errors
    /// With the path of a file that exists but can't be read.
    pub(crate) fn read(files: &[PathBuf], host: &str, port: u16) -> Result<HostKeys, (PathBuf, io::Error)> {
        let mut keys = HostKeys::default();
        for file in files {
            match fs::read(file) {
                Ok(bytes) => keys.take(&String::from_utf8_lossy(&bytes), file, &host_name(host, port)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err((file.clone(), error)),
            }
        }
        Ok(keys)
    }

    pub(crate) fn check(&self, offered: &PublicKey) -> Verdict {
        let same = |known: &&KnownKey| known.key.key_data() == offered.key_data();
        if let Some(revoked) = self.revoked.iter().find(same) {
            return Verdict::Revoked(revoked.clone());
        }
        if self.known.iter().any(|known| same(&known)) {
            return Verdict::Known;
        }
        let same_type = self.known.iter().find(|known| known.key.algorithm() == offered.algorithm());
        same_type.or(self.known.first()).map_or(Verdict::Unknown, |known| Verdict::Changed(known.clone()))
    }

    /// Puts the types that are known for this host first, so that the server shows a key we can check.
    pub(crate) fn prefer(&self, algorithms: &[Algorithm]) -> Vec<Algorithm> {
        let known = |algorithm: &&Algorithm| self.known.iter().any(|known| same_type(&known.key, algorithm));
        let (mut first, rest): (Vec<_>, Vec<_>) = algorithms.iter().partition(known);
        first.extend(rest);
        first.into_iter().cloned().collect()
    }

    fn take(&mut self, text: &str, file: &Path, name: &str) {
        for (index, line) in text.lines().enumerate() {
            let Some((marker, key)) = parse_line(line, name) else { continue };
            let entry = KnownKey { key, file: file.to_owned(), line: index + 1 };
            match marker {
                Marker::None => self.known.push(entry),
                Marker::Revoked => self.revoked.push(entry),
            }
        }
    }
}

/// The name a host goes by in the files: `host`, or `[host]:port` when the port is not 22.
pub(crate) fn host_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

/// The line that makes `key` known, without newline.
pub(crate) fn line(host: &str, port: u16, key: &PublicKey) -> String {
    let mut key = key.clone();
    key.set_comment("");
    format!("{} {}", host_name(host, port), key.to_openssh().unwrap_or_default().trim_end())
}

/// The SHA256 fingerprint as ssh-keygen prints it.
pub(crate) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// Adds `line` to `file` so that it survives a power cut; makes the file (0600) and its directory (0700).
pub(crate) fn append(file: &Path, line: &str) -> io::Result<()> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !directory.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let mut known_hosts = File::options().read(true).append(true).create(true).mode(0o600).open(file)?;
    let mut text = format!("{line}\n");
    if known_hosts.seek(SeekFrom::End(0))? > 0 {
        known_hosts.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        known_hosts.read_exact(&mut last)?;
        if last != *b"\n" {
            text.insert(0, '\n');
        }
    }
    known_hosts.write_all(text.as_bytes())?;
    known_hosts.sync_all()?;
    File::open(directory)?.sync_all()
}

enum Marker {
    None,
    Revoked,
}

/// The line's marker and key when it speaks of `name`.
fn parse_line(line: &str, name: &str) -> Option<(Marker, PublicKey)> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let mut words = line.split_whitespace();
    let mut patterns = words.next()?;
    let mut marker = Marker::None;
    if patterns.starts_with('@') {
        if patterns != "@revoked" {
            return None;
        }
        marker = Marker::Revoked;
        patterns = words.next()?;
    }
    if !names(patterns, name) {
        return None;
    }
    let (kind, data) = (words.next()?, words.next()?);
    let key = PublicKey::from_openssh(&format!("{kind} {data}")).ok()?;
    Some((marker, key))
}

fn names(patterns: &str, name: &str) -> bool {
    if patterns.starts_with('|') {
        return hashed_name_matches(patterns, name);
    }
    let mut matched = false;
    for pattern in patterns.split(',') {
        let (negated, pattern) = pattern.strip_prefix('!').map_or((false, pattern), |rest| (true, rest));
        if wildcard_matches(pattern.to_ascii_lowercase().as_bytes(), name.as_bytes()) {
            if negated {
                return false;
            }
            matched = true;
        }
    }
    matched
}

/// `|1|salt|hash`: the hash is HMAC-SHA1 of the name under the salt. Hides names, protects nothing.
fn hashed_name_matches(pattern: &str, name: &str) -> bool {
    let Ok(HostPatterns::HashedName { salt, hash }) = pattern.parse::<HostPatterns>() else { return false };
    let Ok(mut mac) = <Hmac<Sha1> as KeyInit>::new_from_slice(&salt) else { return false };
    mac.update(name.as_bytes());
    mac.verify_slice(&hash).is_ok()
}

fn same_type(key: &PublicKey, algorithm: &Algorithm) -> bool {
    match (key.algorithm(), algorithm) {
        (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
        (key, algorithm) => key == *algorithm,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const ED2: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBERERERERERERERERERERERERERERERERERERERERER";
    const EC: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHwf2HMM5TRXvo2SQJjsNkiDD5KqiiNjrGVv3UUh+mMT5RHxiRtOnlqvjhQtBq0VpmpCV/PwUdhOig4vkbqAcEc=";

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(text).expect("a literal key")
    }

    fn verdict(text: &str, host: &str, port: u16, offered: &str) -> String {
        let mut keys = HostKeys::default();
        keys.take(text, Path::new("kh"), &host_name(host, port));
        match keys.check(&key(offered)) {
            Verdict::Known => "known".to_owned(),
            Verdict::Unknown => "unknown".to_owned(),
            Verdict::Changed(known) => format!("changed {}", known.line),
            Verdict::Revoked(known) => format!("revoked {}", known.line),
        }
    }

    fn hashed(name: &str) -> String {
        let salt = b"0123456789abcdef0123".to_vec();
        let mut mac = <Hmac<Sha1> as KeyInit>::new_from_slice(&salt).expect("any length");
        mac.update(name.as_bytes());
        let hash = mac.finalize().into_bytes().into();
        HostPatterns::HashedName { salt, hash }.to_string()
    }

    #[test]
    fn the_files_decide_as_openssh_does() {
        let hashed_a = hashed("a.example");
        let hashed_port = hashed("[a.example]:2222");
        let cases: Vec<(String, &str, u16, &str, &str)> = vec![
            (String::new(), "a.example", 22, ED, "unknown"),
            (format!("a.example {ED}"), "a.example", 22, ED, "known"),
            (format!("a.example {ED} comment here"), "A.Example", 22, ED, "known"),
            (format!("A.EXAMPLE {ED}"), "a.example", 22, ED, "known"),
            (format!("  \t a.example\t{ED}"), "a.example", 22, ED, "known"),
            (format!("b.example,a.example,10.0.0.1 {ED}"), "10.0.0.1", 22, ED, "known"),
            (format!("a.example {ED2}"), "a.example", 22, ED, "changed 1"),
            (format!("# c\n\na.example {EC}"), "a.example", 22, ED, "changed 3"),
            (format!("a.example {EC}\na.example {ED2}"), "a.example", 22, ED, "changed 2"),
            (format!("a.example {EC}\na.example {ED}"), "a.example", 22, ED, "known"),
            (format!("a.example {ED2}\na.example {ED}"), "a.example", 22, ED, "known"),
            (format!("a.example {ED}"), "a.example", 2222, ED, "unknown"),
            (format!("[a.example]:2222 {ED}"), "a.example", 2222, ED, "known"),
            (format!("[a.example]:2222 {ED}"), "a.example", 22, ED, "unknown"),
            (format!("[::1]:2222 {ED}"), "::1", 2222, ED, "known"),
            (format!("::1 {ED}"), "::1", 22, ED, "known"),
            (format!("*.example {ED}"), "a.example", 22, ED, "known"),
            (format!("*.example {ED}"), "a.example", 2222, ED, "unknown"),
            (format!("[*.example]:* {ED}"), "a.example", 2222, ED, "known"),
            (format!("*.example,!a.example {ED}"), "a.example", 22, ED, "unknown"),
            (format!("!a.example,*.example {ED}"), "a.example", 22, ED, "unknown"),
            (format!("!b.example {ED}"), "a.example", 22, ED, "unknown"),
            (format!("?.example {ED2}"), "a.example", 22, ED, "changed 1"),
            (format!("{hashed_a} {ED}"), "a.example", 22, ED, "known"),
            (format!("{hashed_a} {ED}"), "b.example", 22, ED, "unknown"),
            (format!("{hashed_a} {ED2}"), "a.example", 22, ED, "changed 1"),
            (format!("{hashed_port} {ED}"), "a.example", 2222, ED, "known"),
            (format!("|1|broken {ED}"), "a.example", 22, ED, "unknown"),
            (format!("@revoked * {ED}"), "a.example", 22, ED, "revoked 1"),
            (format!("a.example {ED}\n@revoked a.example {ED}"), "a.example", 22, ED, "revoked 2"),
            (format!("@revoked b.example {ED}"), "a.example", 22, ED, "unknown"),
            (format!("@revoked * {ED2}"), "a.example", 22, ED, "unknown"),
            (format!("@cert-authority * {ED2}"), "a.example", 22, ED, "unknown"),
            (format!("@nonsense a.example {ED}"), "a.example", 22, ED, "unknown"),
            ("a.example ssh-ed25519 notbase64".to_owned(), "a.example", 22, ED, "unknown"),
            ("a.example 1024 35 1234567".to_owned(), "a.example", 22, ED, "unknown"),
        ];
        for (text, host, port, offered, expected) in cases {
            assert_eq!(verdict(&text, host, port, offered), expected, "{text} for {host}:{port}");
        }
    }

    #[test]
    fn known_types_are_preferred() {
        let mut keys = HostKeys::default();
        keys.take(&format!("h {EC}"), Path::new("kh"), "h");
        let ecdsa = key(EC).algorithm();
        let order = keys.prefer(&[Algorithm::Ed25519, ecdsa.clone()]);
        assert_eq!(order, [ecdsa, Algorithm::Ed25519]);
    }

    #[test]
    fn an_added_line_stands_alone_in_a_private_file() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("new/.ssh/known_hosts");
        append(&file, &line("h", 2200, &key(ED))).expect("made");
        let text = fs::read_to_string(&file).expect("readable");
        assert_eq!(text, format!("[h]:2200 {ED}\n"));
        fs::write(&file, "no newline").expect("writable");
        append(&file, "x y z").expect("added");
        assert_eq!(fs::read_to_string(&file).expect("readable"), "no newline\nx y z\n");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().expect("has one"))), (0o600, 0o700));
    }
}
