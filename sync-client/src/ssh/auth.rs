//! Proving who we are: key files and ssh-agent.
//!
//! Order: with explicit identities those first, then the agent; without, the agent, then the default key
//! files. A key that others can read, or that belongs to somebody else, is never used. Explicit identities
//! are read before the connection is made, so a wrong path fails at once and a passphrase is asked for
//! while no deadline runs; time spent at the prompt is given back to the deadline later on, too.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg};
use tokio::net::UnixStream;

use super::{Deadline, Handler, SshError, SshOptions};

/// Keys ready to be tried, and what became of those that are not.
pub(crate) struct Identities {
    explicit: Vec<(PathBuf, Arc<PrivateKey>)>,
}

impl Identities {
    /// Reads the explicit identities.
    ///
    /// # Errors
    /// [`SshError::Identity`] for the first one that can't be used.
    pub(crate) fn load(options: &SshOptions) -> Result<Identities, SshError> {
        let load = |path: &PathBuf| match key_file(path, options) {
            Ok(key) => Ok((path.clone(), Arc::new(key))),
            Err(reason) => Err(SshError::Identity { path: path.clone(), reason }),
        };
        Ok(Identities { explicit: options.identities.iter().map(load).collect::<Result<_, _>>()? })
    }
}

/// Tries every key in order until the server takes one.
pub(crate) async fn authenticate(
    handle: &mut Handle<Handler>,
    user: &str,
    identities: &Identities,
    options: &SshOptions,
    deadline: &mut Deadline,
) -> Result<(), SshError> {
    let mut login = Login { handle, user, tried: Vec::new(), deadline, options };
    for (path, key) in &identities.explicit {
        if login.key(&path.display().to_string(), key).await? {
            return Ok(());
        }
    }
    let agent_wanted = identities.explicit.is_empty() || !options.identities_only;
    if agent_wanted && login.agent().await? {
        return Ok(());
    }
    if identities.explicit.is_empty() && login.default_files().await? {
        return Ok(());
    }
    Err(login.failed())
}

struct Login<'a> {
    handle: &'a mut Handle<Handler>,
    user: &'a str,
    /// One phrase for each key and what came of it.
    tried: Vec<String>,
    deadline: &'a mut Deadline,
    options: &'a SshOptions,
}

impl Login<'_> {
    async fn key(&mut self, name: &str, key: &Arc<PrivateKey>) -> Result<bool, SshError> {
        let Some(hash) = self.hash(name, &key.algorithm()).await? else { return Ok(false) };
        let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
        let trying = self.handle.authenticate_publickey(self.user, key);
        match self.deadline.limit("authentication", trying).await? {
            Ok(result) => self.result(name, result),
            Err(error) => Err(self.broken(&error)),
        }
    }

    async fn agent(&mut self) -> Result<bool, SshError> {
        let Some(socket) = &self.options.agent_socket else { return Ok(false) };
        let asking = async {
            let mut agent = AgentClient::connect(UnixStream::connect(socket).await?);
            let identities = agent.request_identities().await?;
            Ok::<_, russh::keys::Error>((agent, identities))
        };
        let (mut agent, identities) = match self.deadline.limit("ssh-agent", asking).await? {
            Ok(found) => found,
            Err(error) => {
                self.tried.push(format!("ssh-agent at {} ({error})", socket.display()));
                return Ok(false);
            }
        };
        if identities.is_empty() {
            self.tried.push("ssh-agent (holds no keys)".to_owned());
        }
        for identity in identities {
            let AgentIdentity::PublicKey { key, comment } = identity else { continue };
            let name = format!("ssh-agent's {}", comment.escape_debug());
            let Some(hash) = self.hash(&name, &key.algorithm()).await? else { continue };
            let trying = self.handle.authenticate_publickey_with(self.user, key, hash, &mut agent);
            let accepted = match self.deadline.limit("authentication", trying).await? {
                Ok(result) => self.result(&name, result)?,
                Err(_) if self.handle.is_closed() => return Err(self.closed()),
                Err(error) => {
                    self.tried.push(format!("{name} (the agent did not sign: {error})"));
                    false
                }
            };
            if accepted {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn default_files(&mut self) -> Result<bool, SshError> {
        for path in &self.options.default_identities {
            if !path.exists() {
                continue;
            }
            let name = path.display().to_string();
            let options = self.options;
            match self.deadline.stopped(|| key_file(path, options)) {
                Ok(key) => {
                    if self.key(&name, &Arc::new(key)).await? {
                        return Ok(true);
                    }
                }
                Err(reason) => self.tried.push(format!("{name} ({reason})")),
            }
        }
        Ok(false)
    }

    /// The hash to sign with; the outer none when the key can't be used with this server.
    async fn hash(&mut self, name: &str, algorithm: &Algorithm) -> Result<Option<Option<HashAlg>>, SshError> {
        match algorithm {
            Algorithm::Rsa { .. } => {}
            Algorithm::Dsa => {
                self.tried.push(format!("{name} (DSA keys are no longer safe)"));
                return Ok(None);
            }
            _ => return Ok(Some(None)),
        }
        let asking = self.handle.best_supported_rsa_hash();
        match self.deadline.limit("authentication", asking).await? {
            Ok(Some(Some(hash))) => Ok(Some(Some(hash))),
            Ok(None) => Ok(Some(Some(HashAlg::Sha512))),
            Ok(Some(None)) => {
                self.tried.push(format!("{name} (the server takes RSA only with SHA-1)"));
                Ok(None)
            }
            Err(error) => Err(self.broken(&error)),
        }
    }

    fn result(&mut self, name: &str, result: AuthResult) -> Result<bool, SshError> {
        match result {
            AuthResult::Success => Ok(true),
            AuthResult::Failure { partial_success: true, remaining_methods } => {
                let methods: Vec<String> =
                    remaining_methods.iter().map(|method| format!("{method:?}")).collect();
                self.tried.push(format!(
                    "{name} (accepted, but the server also wants {}: use --ssh=system)",
                    methods.join(" or ")
                ));
                Err(self.failed())
            }
            AuthResult::Failure { .. } if self.handle.is_closed() => Err(self.closed()),
            AuthResult::Failure { .. } => {
                self.tried.push(format!("{name} (not accepted)"));
                Ok(false)
            }
        }
    }

    fn broken(&mut self, error: &russh::Error) -> SshError {
        if self.tried.is_empty() {
            return self.dropped(error.to_string());
        }
        self.tried.push(format!("then the connection ended: {error}"));
        self.failed()
    }

    fn closed(&mut self) -> SshError {
        if self.tried.is_empty() {
            return self.dropped(
                "the server closed it; it may be too busy or may not let this address in".to_owned(),
            );
        }
        let hint =
            "then the server closed the connection; if it allows few attempts, name one key with --identity";
        self.tried.push(hint.to_owned());
        self.failed()
    }

    /// The end of a connection that had not refused any key yet says nothing about our keys.
    fn dropped(&self, reason: String) -> SshError {
        let reason = format!("ended during authentication: {reason}");
        SshError::Connection { host: self.options.host.clone(), reason }
    }

    fn failed(&mut self) -> SshError {
        let tried = if self.tried.is_empty() {
            "there was no key to try: name one with --identity or load one into ssh-agent".to_owned()
        } else {
            format!("tried {}", self.tried.join(", "))
        };
        SshError::Authentication { user: self.user.to_owned(), host: self.options.host.clone(), tried }
    }
}

/// Reads a private key, asking for its passphrase when it has one.
fn key_file(path: &Path, options: &SshOptions) -> Result<PrivateKey, String> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => error.to_string(),
    })?;
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err("belongs to another user; a key file must be your own".to_owned());
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(format!("others can read it; run: chmod 600 {}", path.display()));
    }
    if metadata.len() > 1 << 20 {
        return Err("is too big for a key file".to_owned());
    }
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => "is not a private key file".to_owned(),
        _ => error.to_string(),
    })?;
    match decode(&text, None) {
        Ok(key) => Ok(key),
        Err(_) if is_encrypted(&text) => unlock(&text, path, options),
        Err(reason) => Err(reason),
    }
}

fn decode(text: &str, passphrase: Option<&str>) -> Result<PrivateKey, String> {
    let key = russh::keys::decode_secret_key(text, passphrase)
        .map_err(|error| format!("can't be read: {error}"))?;
    if key.is_encrypted() { Err("is encrypted".to_owned()) } else { Ok(key) }
}

fn is_encrypted(text: &str) -> bool {
    text.contains("ENCRYPTED") || PrivateKey::from_openssh(text).is_ok_and(|key| key.is_encrypted())
}

fn unlock(text: &str, path: &Path, options: &SshOptions) -> Result<PrivateKey, String> {
    const ATTEMPTS: usize = 3;
    for _ in 0..ATTEMPTS {
        let Some(passphrase) = (options.ask)(path) else {
            return Err(
                "has a passphrase and there is no terminal to ask for it; load it into ssh-agent".to_owned()
            );
        };
        if let Ok(key) = decode(text, Some(&passphrase)) {
            return Ok(key);
        }
    }
    Err(format!(
        "the passphrase is wrong (or the format an old one: ssh-keygen -p -f {} writes it anew)",
        path.display()
    ))
}
