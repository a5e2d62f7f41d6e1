//! Where a tree is, as it is typed on the command line: rsync's forms and `ssh://`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

/// A source or destination argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// On this machine.
    Local(Vec<u8>),
    /// On another one, behind SSH.
    Remote {
        /// Which.
        host: Host,
        /// The path there; relative to the login directory unless it starts with a slash.
        path: Vec<u8>,
    },
}

/// A machine and who logs in there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// User name, if one was given.
    pub user: Option<String>,
    /// Name or address, without brackets.
    pub name: String,
    /// Port, if one was given.
    pub port: Option<u16>,
}

/// Why an argument is not a location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// `host::module` and `rsync://`.
    #[error(
        "{0:?} names a module of an rsync daemon, which is not spoken to here: where that machine has sshd and sync-agent, write [USER@]HOST:PATH; else run /usr/bin/rsync"
    )]
    Daemon(String),
    /// Anything else.
    #[error(
        "{argument:?} is not a location: {why}; write [USER@]HOST:PATH, ssh://[USER@]HOST[:PORT]/PATH or a local path"
    )]
    Malformed {
        /// As typed.
        argument: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Location {
    /// Parses an argument.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(argument: &OsStr) -> Result<Location, LocationError> {
        let bytes = argument.as_bytes();
        let malformed =
            |why| LocationError::Malformed { argument: argument.to_string_lossy().into_owned(), why };
        if bytes.starts_with(b"rsync://") {
            return Err(LocationError::Daemon(argument.to_string_lossy().into_owned()));
        }
        if let Some(url) = bytes.strip_prefix(b"ssh://") {
            return parse_url(url).map_err(malformed);
        }
        let Some(colon) = host_end(bytes) else {
            return if bytes.is_empty() {
                Err(malformed("it is empty"))
            } else {
                Ok(Location::Local(bytes.to_vec()))
            };
        };
        if bytes[colon + 1..].starts_with(b":") {
            return Err(LocationError::Daemon(argument.to_string_lossy().into_owned()));
        }
        let (user, name) = parse_user_and_name(&bytes[..colon]).map_err(malformed)?;
        let path = &bytes[colon + 1..];
        let path = from_login_directory(path).map_err(malformed)?;
        Ok(Location::Remote { host: Host { user, name, port: None }, path })
    }
}

/// The path as the agent takes it, which starts in the login directory; rsync leaves `~` to the shell there.
fn from_login_directory(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    let rest = match path.strip_prefix(b"~") {
        None => path,
        Some(b"") => b"",
        Some(rest) if rest.starts_with(b"/") => {
            let first = rest.iter().position(|&byte| byte != b'/').unwrap_or(rest.len());
            &rest[first..]
        }
        Some(_) => return Err("another user's home directory has to be written out"),
    };
    Ok(if rest.is_empty() { b".".to_vec() } else { rest.to_vec() })
}

/// The position of the colon after a host: one that comes before any slash, and after any brackets.
fn host_end(bytes: &[u8]) -> Option<usize> {
    let from = match bytes.iter().position(|&byte| byte == b'[') {
        Some(open) if open == 0 || bytes[open - 1] == b'@' => {
            open + bytes[open..].iter().position(|&byte| byte == b']')?
        }
        _ => 0,
    };
    let colon = from + bytes[from..].iter().position(|&byte| byte == b':')?;
    (!bytes[..colon].contains(&b'/') && colon > 0).then_some(colon)
}

fn parse_url(url: &[u8]) -> Result<Location, &'static str> {
    let slash = url.iter().position(|&byte| byte == b'/').ok_or("it has no path")?;
    let (authority, path) = url.split_at(slash);
    let is_port = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let colon =
        authority.iter().rposition(|&byte| byte == b':').filter(|&at| !authority[at..].contains(&b']'));
    let (host, port) = match colon {
        None => (authority, None),
        Some(at) if is_port(&authority[at + 1..]) => {
            let text = String::from_utf8_lossy(&authority[at + 1..]);
            (&authority[..at], Some(text.parse().map_err(|_| "its port is no port number")?))
        }
        Some(_) => return Err("its port is no port number"),
    };
    let (user, name) = parse_user_and_name(host)?;
    // As in other tools' ssh URLs, /~/ is the login directory.
    let path = path.strip_prefix(b"/~/").map_or(path, |rest| if rest.is_empty() { b"." } else { rest });
    Ok(Location::Remote { host: Host { user, name, port }, path: path.to_vec() })
}

fn parse_user_and_name(bytes: &[u8]) -> Result<(Option<String>, String), &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "its host is not text")?;
    let (user, name) = match text.rsplit_once('@') {
        Some((user, name)) => (Some(user.to_owned()), name),
        None => (None, text),
    };
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    match (&user, name) {
        (_, "") => Err("it has no host"),
        (Some(user), _) if user.is_empty() => Err("its user is empty"),
        // What ssh would take for an option.
        (Some(user), _) if user.starts_with('-') => Err("its user starts with a dash"),
        (_, name) if name.starts_with('-') => Err("its host starts with a dash"),
        _ => Ok((user, name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(user: Option<&str>, name: &str, port: Option<u16>, path: &str) -> Location {
        let host = Host { user: user.map(str::to_owned), name: name.to_owned(), port };
        Location::Remote { host, path: path.into() }
    }

    #[test]
    fn rsync_s_forms_and_urls_are_understood() {
        for (argument, expected) in [
            ("dir/", Location::Local("dir/".into())),
            ("/a:b", Location::Local("/a:b".into())),
            ("./a:b", Location::Local("./a:b".into())),
            (":a", Location::Local(":a".into())),
            ("host:dir/", remote(None, "host", None, "dir/")),
            ("me@host:", remote(Some("me"), "host", None, ".")),
            ("host:~", remote(None, "host", None, ".")),
            ("host:~/", remote(None, "host", None, ".")),
            ("host:~/a b/", remote(None, "host", None, "a b/")),
            ("host:a~", remote(None, "host", None, "a~")),
            ("me@[::1]:/x", remote(Some("me"), "::1", None, "/x")),
            ("[fe80::1%eth0]:x", remote(None, "fe80::1%eth0", None, "x")),
            ("ssh://me@host:2222/a b/", remote(Some("me"), "host", Some(2222), "/a b/")),
            ("ssh://[::1]:22/x", remote(None, "::1", Some(22), "/x")),
            ("ssh://host/~/x", remote(None, "host", None, "x")),
        ] {
            assert_eq!(Location::parse(OsStr::new(argument)), Ok(expected), "{argument}");
        }
    }

    #[test]
    fn what_is_no_location_is_refused_with_the_reason() {
        for argument in [
            "",
            "host::module/x",
            "host:~other/x",
            "rsync://host/module",
            "ssh://host",
            "ssh:///x",
            "ssh://h:99999/x",
            "ssh://h:x/y",
            "-oProxyCommand=x:y",
            "ssh://-x/y",
            "@host:x",
        ] {
            assert!(Location::parse(OsStr::new(argument)).is_err(), "{argument}");
        }
    }
}
