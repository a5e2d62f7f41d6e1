//! An nginx of a test's own, in front of nothing but loopback, and certificates that a test makes.

use crate::process::{self, Output, Running, until};
use crate::requirement::installed;
use crate::sandbox::Sandbox;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// What all requests of a test may take at most.
const LIMIT: Duration = Duration::from_secs(20);

/// Writes `DIRECTORY/nginx.conf`, which has the includes and settings of `http` given here.
///
/// # Panics
/// Where it can't be written.
#[must_use]
pub fn write_configuration(directory: &Path, http: &str) -> PathBuf {
    fs::create_dir_all(directory).expect("a directory of the sandbox");
    let at = directory.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {at}/{kind};\n"))
        .collect();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log info;\n\
         events {{ worker_connections 64; }}\nhttp {{\n  access_log off;\n{temporary}{http}\n}}\n"
    );
    let path = directory.join("nginx.conf");
    fs::write(&path, text).expect("a file of the sandbox");
    path
}

fn command(sandbox: &Sandbox, configuration: &Path) -> Command {
    let mut command = sandbox.command(installed("nginx"));
    command.arg("-p").arg(sandbox.path()).arg("-e").arg("stderr").arg("-c").arg(configuration);
    command
}

/// `nginx -t`.
#[must_use]
pub fn test(sandbox: &Sandbox, configuration: &Path) -> Output {
    let mut command = command(sandbox, configuration);
    command.arg("-t");
    process::run(command)
}

/// Starts nginx and waits until it listens.
///
/// # Panics
/// Where it does not, with what it printed.
#[must_use]
pub fn start(sandbox: &Sandbox, configuration: &Path, port: u16) -> Running {
    let running = Running::start(command(sandbox, configuration));
    until(LIMIT, &format!("nginx on port {port}"), || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
    running
}

/// Sends a request as it stands and gives all that comes back.
///
/// # Panics
/// Where no connection can be made, or no answer ends within the limit.
#[must_use]
pub fn ask(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a socket option");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers and closes");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request without body to `name`, over a connection that is closed after it.
#[must_use]
pub fn request(method: &str, path: &str, name: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
}

/// A service that takes every request to become a websocket, then sends back what it gets; returns its port.
///
/// # Panics
/// Where no port is free.
#[must_use]
pub fn websocket_echo() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || echo(stream));
        }
    });
    port
}

/// Nobody looks at a connection's fault here: the test that made it sees what is missing.
fn echo(mut stream: TcpStream) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let wants_upgrade = String::from_utf8_lossy(&head).to_ascii_lowercase().contains("upgrade: websocket");
    if !wants_upgrade {
        return stream.write_all(b"HTTP/1.1 400 No upgrade\r\nContent-Length: 0\r\n\r\n").ok();
    }
    upgrade_and_echo(stream)
}

/// Takes the request that was read to become a websocket, and sends back the first four bytes it gets.
pub(crate) fn upgrade_and_echo(mut stream: TcpStream) -> Option<()> {
    stream
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        .ok()?;
    let mut message = [0; 4];
    stream.read_exact(&mut message).ok()?;
    stream.write_all(&message).ok()
}

/// A certificate of a test's own authority, with two intermediate ones as public ones have.
#[derive(Debug)]
pub struct Certificate {
    /// The certificate with the intermediate ones.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority.
    pub root: PathBuf,
}

/// Makes a certificate for `*.DOMAIN`.
///
/// # Panics
/// Where `openssl` fails.
#[must_use]
pub fn certificate(sandbox: &Sandbox, domain: &str) -> Certificate {
    let directory = sandbox.path().join(format!("certificates-{domain}"));
    fs::create_dir(&directory).expect("a new directory");
    let file = |name: &str| directory.join(name);
    let mut chain = Vec::new();
    let names = ["root", "first", "second", "leaf"];
    for (number, name) in names.iter().enumerate() {
        let is_leaf = *name == "leaf";
        let constraints = format!("basicConstraints=critical,CA:{}", if is_leaf { "FALSE" } else { "TRUE" });
        let mut command = new_certificate(sandbox);
        command.args(["-subj", &format!("/CN={name} of {domain}"), "-addext", &constraints]);
        if is_leaf {
            command.args(["-addext", &format!("subjectAltName=DNS:*.{domain}")]);
        }
        command
            .arg("-keyout")
            .arg(file(&format!("{name}.key")))
            .arg("-out")
            .arg(file(&format!("{name}.crt")));
        if let Some(issuer) = number.checked_sub(1).map(|above| names[above]) {
            command
                .arg("-CA")
                .arg(file(&format!("{issuer}.crt")))
                .arg("-CAkey")
                .arg(file(&format!("{issuer}.key")));
        }
        process::run(command).success();
        if number > 0 {
            let text = fs::read(file(&format!("{name}.crt"))).expect("it was made");
            // What is issued comes before its issuer.
            chain.splice(0..0, text);
        }
    }
    fs::write(file("chain.crt"), chain).expect("a file of the sandbox");
    Certificate { chain: file("chain.crt"), key: file("leaf.key"), root: file("root.crt") }
}

/// `openssl req` for a new key and a certificate of two days, to which its names and files are to be added.
#[must_use]
pub fn new_certificate(sandbox: &Sandbox) -> Command {
    let mut command = sandbox.command(installed("openssl"));
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    command.args(["-days", "2"]);
    command
}
