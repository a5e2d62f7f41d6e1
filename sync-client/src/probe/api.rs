//! The HTTP API of one account: requests, their limits, and what each failure means.
//!
//! What always holds: every request goes to one address, the one that was named, whatever names say and wherever an answer
//! points (no redirect is followed, no proxy of the environment is used); the certificate is checked for the URL's name. An
//! answer has an end in time and in size before it is read. Neither a token nor a content is in any message: of a refusal only
//! the API's own word for it (`unknown-resource`).

use super::url::ApiUrl;
use crossbeam_channel::Receiver;
use protocol::stats::Exit;
use rustls::{CertificateError, Error as TlsError};
use serde_json::{Value, json};
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use ureq::config::Config;
use ureq::http::{Request, Response, StatusCode, Uri, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, AsSendBody, Body};

/// An answer in JSON that is longer is not read.
const MAX_JSON_BYTES: u64 = 64 << 20;
/// The platform lets attachments have 20 MB.
const MAX_ATTACHMENT_BYTES: u64 = 1 << 30;
/// A whole answer may take so many times what one read may.
const ANSWER_TIMES: u32 = 20;
/// Events asked for at once.
const PAGE: usize = 500;
/// Where distributions keep the certificates of public authorities.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// How a service is asked.
#[derive(Debug)]
pub(crate) struct Way<'a> {
    pub(crate) url: &'a ApiUrl,
    pub(crate) at: SocketAddr,
    pub(crate) origin: String,
    pub(crate) app_id: &'a str,
    /// Instead of the system's authorities.
    pub(crate) ca_file: Option<&'a Path>,
    /// Of the service's certificate.
    pub(crate) verify: bool,
    /// For connecting, and for each read.
    pub(crate) timeout: Duration,
    pub(crate) stop: &'a Receiver<()>,
}

/// A request that did not bring what was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error(
        "{url} is not encrypted and {at} is another machine: the password could be read on its way; write https"
    )]
    Plain { url: String, at: SocketAddr },
    #[error("cannot read the certificates in {} (probe.ca_file in the plan)", path.display())]
    Authorities { path: PathBuf, source: io::Error },
    #[error("no certificate of an authority in {}: probe.ca_file in the plan names a PEM file with one", path.display())]
    NoAuthorities { path: PathBuf },
    #[error("{at} can't be asked; is the service up, and is it there? --at names another address")]
    Connection { at: SocketAddr, source: ureq::Error },
    #[error("{what}: {at} said nothing for too long (probe.timeout_s in the plan)")]
    Timeout { what: String, at: SocketAddr },
    #[error("{at} answers with a certificate that is not good for {url}: {why}")]
    Certificate { at: SocketAddr, url: String, why: String },
    #[error(
        "{username} can't log in at {at} (401{word}): the password, or the origin {origin} or app_id is not one that the core lets in"
    )]
    Login { username: String, at: SocketAddr, origin: String, word: String },
    #[error("{what}: {at} answers {status}{word}; {}", advice(*status))]
    Status { what: String, at: SocketAddr, status: StatusCode, word: String },
    #[error(
        "{what}: {at} sends on to another address ({to}), which is not followed; the url in the plan should be the API itself"
    )]
    Redirect { what: String, at: SocketAddr, to: String },
    #[error("{what}: the answer of {at} is longer than {limit} bytes, and was not read")]
    TooLong { what: String, at: SocketAddr, limit: u64 },
    #[error("{what}: the answer of {at} is not what the API gives ({why}); is another service there?")]
    Malformed { what: String, at: SocketAddr, why: String },
    #[error("stopped by a signal")]
    Interrupted,
}

fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "the token was not taken: log in anew by running this again",
        403 => "this account may not do that: probe accounts need one with all rights",
        404 => "nothing is there: is the url in the plan the API's, and does this core hold the account?",
        400 => "it does not understand the request: is this a version with another API?",
        500..=599 => "the service is in trouble: its log says more",
        _ => "which is not known here",
    }
}

impl ApiError {
    /// The exit status.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            ApiError::Plain { .. } | ApiError::Authorities { .. } | ApiError::NoAuthorities { .. } => {
                Exit::Usage
            }
            ApiError::Connection { .. } => Exit::Connection,
            ApiError::Timeout { .. } => Exit::Timeout,
            ApiError::Certificate { .. } => Exit::HostKey,
            ApiError::Login { .. } => Exit::Authentication,
            ApiError::Status { status, .. } if *status == 401 => Exit::Authentication,
            ApiError::Status { .. } | ApiError::Redirect { .. } => Exit::Refused,
            ApiError::TooLong { .. } | ApiError::Malformed { .. } => Exit::Protocol,
            ApiError::Interrupted => Exit::Interrupted,
        }
    }

    /// The status of an answer that refused.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            ApiError::Status { status, .. } => Some(status.as_u16()),
            _ => None,
        }
    }
}

/// An account that is logged in.
pub(crate) struct Api<'a> {
    way: &'a Way<'a>,
    agent: Agent,
    base: String,
    token: String,
}

/// Knows one address, and no names. `ureq::unversioned` may change in a minor release, so Cargo.toml holds it to one.
#[derive(Debug)]
struct At(SocketAddr);

impl Resolver for At {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}

impl<'a> Api<'a> {
    /// Logs in.
    pub(crate) fn log_in(way: &'a Way<'a>, username: &str, password: &str) -> Result<Api<'a>, ApiError> {
        let base = way.url.of(username);
        if way.url.is_plain() && !way.at.ip().is_loopback() {
            return Err(ApiError::Plain { url: base, at: way.at });
        }
        let mut api = Api { way, agent: agent(way)?, base, token: String::new() };
        let body = json!({"username": username, "password": password, "appId": way.app_id});
        let answer = api.post("/auth/login", &body).map_err(|error| match error {
            ApiError::Status { at, status, word, .. } if status == 401 => {
                ApiError::Login { username: username.to_owned(), at, origin: way.origin.clone(), word }
            }
            error => error,
        })?;
        let token = answer["token"].as_str().filter(|token| is_id(token));
        api.token = token.ok_or_else(|| api.malformed("POST /auth/login", "no token"))?.to_owned();
        Ok(api)
    }

    /// `GET` of JSON; `path` is below the account.
    pub(crate) fn get(&self, path: &str) -> Result<Value, ApiError> {
        let what = format!("GET {path}");
        let response = self.answer(&what, self.request("GET", path), ())?;
        self.json(&what, response)
    }

    /// `POST` of JSON.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.post_bytes(path, "application/json", body.to_string().into_bytes())
    }

    /// `POST` of an event with one file, as a form.
    pub(crate) fn post_file(
        &self,
        event: &Value,
        name: &str,
        kind: &str,
        file: &[u8],
    ) -> Result<Value, ApiError> {
        // Longer than chance, and in neither part: the event is ours, and so is the file.
        const BOUNDARY: &str = "sync-client-5c0f0f6e6a1d4b0b9a55";
        let mut body = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\n{event}\r\n\
             --{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: {kind}\r\n\r\n"
        )
        .into_bytes();
        body.extend(file);
        body.extend(format!("\r\n--{BOUNDARY}--\r\n").bytes());
        self.post_bytes("/events", &format!("multipart/form-data; boundary={BOUNDARY}"), body)
    }

    fn post_bytes(&self, path: &str, kind: &str, body: Vec<u8>) -> Result<Value, ApiError> {
        let what = format!("POST {path}");
        let request = self.request("POST", path).header(header::CONTENT_TYPE, kind);
        let response = self.answer(&what, request, body)?;
        self.json(&what, response)
    }

    /// Every event of the account, trashed ones too, page by page.
    pub(crate) fn events(
        &self,
        mut each: impl FnMut(&str, Value) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        let mut seen = std::collections::BTreeSet::new();
        loop {
            // A service may give fewer than were asked for: only an empty page is the last.
            let path = format!("/events?state=all&sortAscending=true&limit={PAGE}&skip={}", seen.len());
            let mut answer = self.get(&path)?;
            let Value::Array(page) = answer["events"].take() else {
                return Err(self.malformed("GET /events", "no list of events"));
            };
            if page.is_empty() {
                return Ok(());
            }
            for event in page {
                let id = self.id("GET /events", &event)?;
                if !seen.insert(id.clone()) {
                    let why = "the same event on two pages: it doesn't know `skip`, or somebody writes to the account";
                    return Err(self.malformed("GET /events", why));
                }
                each(&id, event)?;
            }
        }
    }

    /// The length and the hash of a file; none where the service doesn't have it.
    pub(crate) fn attachment(
        &self,
        event: &str,
        file: &str,
    ) -> Result<Option<(u64, blake3::Hash)>, ApiError> {
        let path = format!("/events/{event}/{file}");
        let what = format!("GET {path}");
        let response = match self.answer(&what, self.request("GET", &path), ()) {
            // A core whose disk lacks the file says one or the other.
            Err(error) if matches!(error.status(), Some(404 | 500)) => return Ok(None),
            response => response?,
        };
        let mut reader = response.into_body().into_with_config().limit(MAX_ATTACHMENT_BYTES).reader();
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 64 << 10];
        let mut bytes = 0;
        loop {
            let len = reader.read(&mut buffer).map_err(|error| self.broken(&what, error.into()))?;
            if len == 0 {
                return Ok(Some((bytes, hasher.finalize())));
            }
            hasher.update(&buffer[..len]);
            bytes += len as u64;
            self.go_on()?;
        }
    }

    /// The id of an event, stream or file: it becomes part of a path.
    pub(crate) fn id(&self, what: &str, object: &Value) -> Result<String, ApiError> {
        let id = object["id"].as_str().filter(|id| is_id(id));
        id.map(str::to_owned).ok_or_else(|| self.malformed(what, "an id that is none"))
    }

    pub(crate) fn malformed(&self, what: &str, why: &str) -> ApiError {
        ApiError::Malformed { what: what.to_owned(), at: self.way.at, why: why.to_owned() }
    }

    fn go_on(&self) -> Result<(), ApiError> {
        match self.way.stop.try_recv() {
            Err(crossbeam_channel::TryRecvError::Empty) => Ok(()),
            _ => Err(ApiError::Interrupted),
        }
    }

    fn request(&self, method: &str, path: &str) -> ureq::http::request::Builder {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if self.token.is_empty() {
            return request.header(header::ORIGIN, &self.way.origin);
        }
        request.header(header::AUTHORIZATION, &self.token)
    }

    /// Sends a request; what comes back is an answer that gives what was asked for.
    fn answer(
        &self,
        what: &str,
        request: ureq::http::request::Builder,
        body: impl AsSendBody,
    ) -> Result<Response<Body>, ApiError> {
        self.go_on()?;
        let request = request.body(body).map_err(|error| self.malformed(what, &error.to_string()))?;
        let response = self.agent.run(request).map_err(|error| self.broken(what, error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let (what, at) = (what.to_owned(), self.way.at);
        if status.is_redirection() {
            let to = response.headers().get(header::LOCATION).map_or(&b""[..], |to| to.as_bytes());
            // What follows the path may be a token.
            let end = to.iter().position(|byte| b"?#".contains(byte)).unwrap_or(to.len()).min(200);
            return Err(ApiError::Redirect { what, at, to: protocol::path::escaped(&to[..end]) });
        }
        Err(ApiError::Status { what, at, status, word: word(response) })
    }

    fn json(&self, what: &str, response: Response<Body>) -> Result<Value, ApiError> {
        let body = response.into_body().into_with_config().limit(MAX_JSON_BYTES).read_to_vec();
        let body = body.map_err(|error| self.broken(what, error))?;
        serde_json::from_slice::<Value>(&body)
            .ok()
            .filter(Value::is_object)
            .ok_or_else(|| self.malformed(what, "no JSON object"))
    }

    /// What a failure below HTTP means.
    fn broken(&self, what: &str, error: ureq::Error) -> ApiError {
        let (what, at) = (what.to_owned(), self.way.at);
        match error {
            ureq::Error::Timeout(_) => ApiError::Timeout { what, at },
            ureq::Error::BodyExceedsLimit(limit) => ApiError::TooLong { what, at, limit },
            ureq::Error::LargeResponseHeader(_, limit) => ApiError::TooLong { what, at, limit: limit as u64 },
            ureq::Error::Protocol(error) => ApiError::Malformed { what, at, why: error.to_string() },
            error => match tls_error(&error) {
                Some(TlsError::InvalidCertificate(fault)) => {
                    ApiError::Certificate { at, url: self.base.clone(), why: fault_of(fault) }
                }
                Some(fault) => ApiError::Malformed { what, at, why: format!("TLS: {fault}") },
                None => ApiError::Connection { at, source: error },
            },
        }
    }
}

/// The TLS library's own error, wherever it is wrapped.
fn tls_error(error: &ureq::Error) -> Option<&TlsError> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

fn fault_of(fault: &CertificateError) -> String {
    match fault {
        CertificateError::UnknownIssuer => {
            "no known authority signed it; probe.ca_file names the one that did".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "it is an authority's own, used by a server; `verify = false` in [probe] takes it unseen"
                .to_owned()
        }
        fault => fault.to_string(),
    }
}

/// The API's word for a refusal, which holds nothing of the account.
fn word(response: Response<Body>) -> String {
    let body = response.into_body().into_with_config().limit(64 << 10).read_to_vec().unwrap_or_default();
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let is_word =
        |word: &&str| word.len() <= 60 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    answer["error"]["id"].as_str().filter(is_word).map_or_else(String::new, |word| format!(", {word}"))
}

fn is_id(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    !text.is_empty() && text.len() <= 200 && !text.starts_with('.') && text.bytes().all(is_plain)
}

fn agent(way: &Way<'_>) -> Result<Agent, ApiError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = if way.verify && !way.url.is_plain() { authorities(way.ca_file)? } else { Vec::new() };
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(provider)
        .root_certs(RootCerts::from(roots))
        .disable_verification(!way.verify)
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .proxy(None)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent("sync-client")
        .timeout_connect(Some(way.timeout))
        .timeout_per_read(Some(way.timeout))
        .timeout_per_write(Some(way.timeout))
        .timeout_recv_response(Some(way.timeout))
        .timeout_global(Some(way.timeout * ANSWER_TIMES))
        .build();
    Ok(Agent::with_parts(config, DefaultConnector::default(), At(way.at)))
}

fn authorities(ca_file: Option<&Path>) -> Result<Vec<Certificate<'static>>, ApiError> {
    let system =
        || AUTHORITIES.iter().map(Path::new).find(|path| path.exists()).unwrap_or(Path::new(AUTHORITIES[0]));
    let path = ca_file.unwrap_or_else(system);
    let pem =
        std::fs::read(path).map_err(|source| ApiError::Authorities { path: path.to_owned(), source })?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(ApiError::NoAuthorities { path: path.to_owned() });
    }
    Ok(certificates)
}
