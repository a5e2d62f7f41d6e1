//! A core of a test's own: the part of the platform's HTTP API that `probe` speaks, over TLS on loopback or without it
//! behind an nginx (`bin/core-service.rs`, which runs in containers).
//!
//! Its data is [`Documents`] and `attachments/USER/EVENT/FILE`, so that a copy of them is the same core elsewhere.
//! Tokens are a process's own. [`Manner`] says in what a core differs from the usual one; each request closes its connection.

use crate::documents::Documents;
use crate::nginx;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// The domain of all cores here.
pub const DOMAIN: &str = "example.test";
/// The message of every refusal; no program should print it.
pub const MESSAGE: &str = "a message with what the account holds";

/// In what a core is odd.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    /// Takes `streamIds` and refuses `streamId`.
    pub only_stream_ids: bool,
    /// Takes `streamId` and refuses `streamIds`.
    pub only_stream_id: bool,
    /// Gives at most so many events at once.
    pub page: Option<usize>,
    /// Gives the first page whatever was to be skipped.
    pub ignores_skip: bool,
    /// Answers this where a request's `METHOD PATH` begins so.
    pub fault: Option<(&'static str, Fault)>,
}

/// An answer that is none.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status, with [`MESSAGE`].
    Status(u16),
    /// Sends on to this address.
    Redirect(String),
    /// Takes the request, and says nothing.
    Silence,
    /// So many bytes of JSON that do not end.
    Endless(u64),
    /// This body, with status 200.
    Body(&'static str),
}

/// What arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// `METHOD PATH`.
    pub line: String,
    head: String,
    body: Vec<u8>,
}

impl Request {
    /// A header's value; empty where there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let value =
            |line: &'_ str| line.split_once(':').is_some_and(|(other, _)| other.eq_ignore_ascii_case(name));
        let line = self.head.lines().find(|line| value(line));
        line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
    }
}

/// A core that runs.
#[derive(Debug, Clone)]
pub struct Core {
    /// Where it listens.
    pub address: SocketAddr,
    documents: Documents,
    attachments: PathBuf,
    manner: Arc<Mutex<Manner>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Core {
    /// Starts a core on the data in `directory`, with this certificate and key; port 0 is any.
    ///
    /// # Panics
    /// Where it can't listen, or the files are none.
    #[must_use]
    pub fn start(directory: &Path, ip: IpAddr, port: u16, chain: &Path, key: &Path) -> Core {
        let listener = TcpListener::bind((ip, port)).expect("the port is free");
        let address = listener.local_addr().expect("it is bound");
        let chain = CertificateDer::pem_file_iter(chain).expect("a file with certificates");
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
        let key = PrivateKeyDer::from_pem_file(key).expect("a private key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the versions that are known")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a key that fits its certificate");
        let core = Core::new(address, Documents::Files(directory.to_owned()), directory.join("attachments"));
        let (serving, config) = (core.clone(), Arc::new(config));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (core, config) = (serving.clone(), Arc::clone(&config));
                thread::spawn(move || core.serve(stream, config));
            }
        });
        core
    }

    fn new(address: SocketAddr, documents: Documents, attachments: PathBuf) -> Core {
        Core { address, documents, attachments, manner: Arc::default(), requests: Arc::default() }
    }

    /// Serves without TLS, also websockets, and says what it was asked on standard output; never ends.
    ///
    /// # Panics
    /// Where the listener has no address.
    pub fn serve_plainly(listener: &TcpListener, documents: Documents, attachments: PathBuf) {
        let address = listener.local_addr().expect("it is bound");
        let core = Core::new(address, documents, attachments);
        for stream in listener.incoming().flatten() {
            let core = core.clone();
            thread::spawn(move || core.serve_one(stream));
        }
    }

    fn serve_one(&self, mut stream: TcpStream) -> Option<()> {
        let request = read_request(&mut stream)?;
        if request.header("upgrade").eq_ignore_ascii_case("websocket") {
            say(&request, 101);
            return nginx::upgrade_and_echo(stream);
        }
        let answer = self.answer(&request, &Manner::default());
        let (status, body) = answer.unwrap_or_else(|status| (status, refusal(status)));
        say(&request, status);
        write_answer(&mut stream, status, "", &body)
    }

    /// Makes an account.
    ///
    /// # Panics
    /// Where its documents can't be written.
    pub fn make_account(&self, user: &str, password: &str) {
        let written = self.documents.write(&format!("{user}/password"), password.as_bytes());
        written.expect("documents of the sandbox");
    }

    /// Lets it be odd.
    pub fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap_or_else(PoisonError::into_inner) = manner;
    }

    /// What it was asked so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nobody looks at a connection's fault here: the test that made it sees what is missing.
    fn serve(&self, stream: TcpStream, config: Arc<ServerConfig>) -> Option<()> {
        let mut stream = StreamOwned::new(ServerConnection::new(config).ok()?, stream);
        let request = read_request(&mut stream)?;
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
        let manner = self.manner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fault = manner.fault.as_ref().filter(|(start, _)| request.line.starts_with(start));
        match fault {
            Some((_, fault)) => fail(&mut stream, fault)?,
            None => {
                let (status, body) =
                    self.answer(&request, &manner).unwrap_or_else(|status| (status, refusal(status)));
                write_answer(&mut stream, status, "", &body)?;
            }
        }
        stream.conn.send_close_notify();
        stream.flush().ok()
    }

    fn answer(&self, request: &Request, manner: &Manner) -> Result<(u16, Vec<u8>), u16> {
        let user = request.header("host").split('.').next().unwrap_or_default();
        let (method, target) = request.line.split_once(' ').ok_or(400_u16)?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let attachments = self.attachments.join(user);
        let account = Account { documents: &self.documents, user, attachments, manner };
        // The same for everybody who logged in to this process.
        let token = format!("token-of-{}-{}", user, std::process::id());
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        if parts == ["auth", "login"] {
            let body: Value = serde_json::from_slice(&request.body).map_err(|_| 400_u16)?;
            let password = account.documents.read(&account.key("password"))?.ok_or(404_u16)?;
            let is_right =
                body["username"] == user && body["password"].as_str().map(str::as_bytes) == Some(&password);
            let is_trusted =
                request.header("origin") == format!("https://sw.{DOMAIN}") && body["appId"].is_string();
            return if is_right && is_trusted {
                Ok(json_answer(200, json!({"token": token})))
            } else {
                Err(401)
            };
        }
        if (method, parts.as_slice()) == ("POST", &["system", "create-user"]) {
            return account.make_user(&request.body);
        }
        if request.header("authorization") != token {
            return Err(401);
        }
        match (method, parts.as_slice()) {
            ("GET", ["streams"]) => Ok(json_answer(200, json!({"streams": account.streams(None)?}))),
            ("POST", ["streams"]) => account.make_stream(&request.body),
            ("GET", ["events"]) => Ok(json_answer(200, json!({"events": account.page(query)?}))),
            ("POST", ["events"]) => account.make_event(request),
            ("GET", ["events", id, "series"]) => {
                let points = account.documents.read(&account.key(&format!("series/{id}.json")))?;
                let points = points.ok_or(404_u16)?;
                Ok(json_answer(200, serde_json::from_slice(&points).map_err(|_| 500_u16)?))
            }
            ("POST", ["events", id, "series"]) => {
                account.documents.write(&account.key(&format!("series/{id}.json")), &request.body)?;
                Ok(json_answer(200, json!({"status": "ok"})))
            }
            ("GET", ["events", id, file]) => {
                fs::read(account.attachments.join(id).join(file)).map(|bytes| (200, bytes)).map_err(|_| 404)
            }
            _ => Err(404),
        }
    }
}

struct Account<'a> {
    documents: &'a Documents,
    user: &'a str,
    attachments: PathBuf,
    manner: &'a Manner,
}

impl Account<'_> {
    fn key(&self, rest: &str) -> String {
        format!("{}/{rest}", self.user)
    }

    /// Documents of a part, by key.
    fn all(&self, part: &str) -> Result<Vec<Value>, u16> {
        self.documents.all(&self.key(&format!("{part}/")))
    }

    fn make_user(&self, body: &[u8]) -> Result<(u16, Vec<u8>), u16> {
        let body: Value = serde_json::from_slice(body).map_err(|_| 400_u16)?;
        let password = body["password"].as_str().ok_or(400_u16)?;
        self.documents.write(&self.key("password"), password.as_bytes())?;
        Ok(json_answer(201, json!({"id": self.user})))
    }

    /// As a tree.
    fn streams(&self, parent: Option<&str>) -> Result<Vec<Value>, u16> {
        let mut streams = self.all("streams")?;
        streams.retain(|stream| stream["parentId"].as_str() == parent);
        for stream in &mut streams {
            let children = self.streams(stream["id"].as_str())?;
            stream["children"] = json!(children);
        }
        Ok(streams)
    }

    fn make_stream(&self, body: &[u8]) -> Result<(u16, Vec<u8>), u16> {
        let stream: Value = serde_json::from_slice(body).map_err(|_| 400_u16)?;
        let key = self.key(&format!("streams/{}.json", stream["id"].as_str().ok_or(400_u16)?));
        if self.documents.read(&key)?.is_some() {
            return Err(409);
        }
        self.documents.write(&key, stream.to_string().as_bytes())?;
        Ok(json_answer(201, json!({"stream": stream})))
    }

    /// Twenty events, as the platform does, or what was asked for.
    fn page(&self, query: &str) -> Result<Vec<Value>, u16> {
        let number = |name: &str| {
            let pair = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
            pair.and_then(|(_, value)| value.parse::<usize>().ok())
        };
        let limit = number("limit").unwrap_or(20).min(self.manner.page.unwrap_or(usize::MAX));
        let skip = if self.manner.ignores_skip { 0 } else { number("skip").unwrap_or(0) };
        let mut events = self.all("events")?;
        if !query.contains("state=all") {
            events.retain(|event| event["trashed"] != true);
        }
        for attachment in events.iter_mut().filter_map(|event| event["attachments"].as_array_mut()).flatten()
        {
            // Made anew for each answer, as it depends on who asks.
            attachment["readToken"] = json!(format!("read-{:?}", std::time::Instant::now()));
        }
        Ok(events.into_iter().skip(skip).take(limit).collect())
    }

    fn make_event(&self, request: &Request) -> Result<(u16, Vec<u8>), u16> {
        let (json, file) = match request.header("content-type").split_once("boundary=") {
            Some((_, boundary)) => {
                let (event, file) = parts(&request.body, boundary).ok_or(400_u16)?;
                (event, Some(file))
            }
            None => (request.body.clone(), None),
        };
        let mut event: Value = serde_json::from_slice(&json).map_err(|_| 400_u16)?;
        let (one, many) = (event["streamId"].is_string(), event["streamIds"].is_array());
        if one == many || (one && self.manner.only_stream_ids) || (many && self.manner.only_stream_id) {
            return Err(400);
        }
        let number = self.all("events")?.len();
        let id = format!("c{number:024}");
        event["id"] = json!(id);
        event["time"] = json!(1_600_000_000.25 + number as f64);
        event["modifiedBy"] = json!("access");
        if let Some(file) = file {
            let directory = self.attachments.join(&id);
            fs::create_dir_all(&directory).map_err(|_| 500_u16)?;
            fs::write(directory.join("file1"), &file).map_err(|_| 500_u16)?;
            event["attachments"] =
                json!([{"id": "file1", "fileName": "file.png", "type": "image/png", "size": file.len()}]);
        }
        self.documents.write(&self.key(&format!("events/{number:06}.json")), event.to_string().as_bytes())?;
        Ok(json_answer(201, json!({"event": event})))
    }
}

/// What `docker logs` shows.
fn say(request: &Request, status: u16) {
    let _ = writeln!(std::io::stdout(), "{} {status}", request.line);
}

/// The two parts of a form: the one called `event`, and the file.
fn parts(body: &[u8], boundary: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let delimiter = format!("\r\n--{boundary}");
    let body = [b"\r\n", body].concat();
    let mut at: Vec<usize> = find_all(&body, delimiter.as_bytes());
    let end = at.pop()?;
    at.push(end);
    let part = |index: usize| {
        let part = &body[at.get(index)? + delimiter.len()..*at.get(index + 1)?];
        let head = find_all(part, b"\r\n\r\n").first()? + 4;
        Some((String::from_utf8_lossy(&part[..head]).into_owned(), part[head..].to_vec()))
    };
    let ((event_head, event), (file_head, file)) = (part(0)?, part(1)?);
    let is_right = event_head.contains("name=\"event\"") && file_head.contains("filename=\"");
    (is_right && at.len() == 3 && body[end + delimiter.len()..].starts_with(b"--")).then_some((event, file))
}

fn find_all(bytes: &[u8], wanted: &[u8]) -> Vec<usize> {
    bytes
        .windows(wanted.len())
        .enumerate()
        .filter(|(_, window)| *window == wanted)
        .map(|(at, _)| at)
        .collect()
}

fn json_answer(status: u16, mut body: Value) -> (u16, Vec<u8>) {
    body["meta"] = json!({"apiVersion": "1.4", "serverTime": format!("{:?}", std::time::Instant::now())});
    (status, body.to_string().into_bytes())
}

fn refusal(status: u16) -> Vec<u8> {
    json!({"error": {"id": "some-refusal", "message": MESSAGE}})
        .to_string()
        .replace("some-refusal", &format!("refused-as-{}", word(status)))
        .into_bytes()
}

fn word(status: u16) -> &'static str {
    match status {
        401 => "invalid-access",
        403 => "forbidden",
        404 => "unknown-resource",
        409 => "item-already-exists",
        _ => "unexpected",
    }
}

fn read_request(stream: &mut impl Read) -> Option<Request> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let line = head.lines().next()?.split_once(" HTTP/")?.0.to_owned();
    let mut request = Request { line, head, body: Vec::new() };
    let len: usize = request.header("content-length").parse().unwrap_or(0);
    request.body.resize(len, 0);
    stream.read_exact(&mut request.body).ok()?;
    Some(request)
}

fn fail(stream: &mut impl Write, fault: &Fault) -> Option<()> {
    match fault {
        Fault::Status(status) => write_answer(stream, *status, "", &refusal(*status)),
        Fault::Redirect(to) => write_answer(stream, 302, &format!("Location: {to}\r\n"), b""),
        Fault::Silence => {
            thread::park();
            None
        }
        Fault::Endless(bytes) => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n").ok()?;
            let spaces = [b' '; 1 << 16];
            (0..bytes >> 16).try_for_each(|_| stream.write_all(&spaces)).ok()
        }
        Fault::Body(body) => write_answer(stream, 200, "", body.as_bytes()),
    }
}

fn write_answer(stream: &mut impl Write, status: u16, more: &str, body: &[u8]) -> Option<()> {
    let len = body.len();
    write!(stream, "HTTP/1.1 {status} Said\r\nContent-Length: {len}\r\nConnection: close\r\n{more}\r\n")
        .ok()?;
    stream.write_all(body).ok()
}
