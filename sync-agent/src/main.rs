//! `sync-agent`: started by sshd next to a tree, or an SSH server of its own.

use clap::{Args, Parser, Subcommand};
use protocol::stats::Exit;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use sync_agent::agent::{self, Permissions};
use sync_agent::join::{Forwarder, Opening};
use sync_agent::link::Further;
use sync_agent::serve::{ServeOptions, Server};
use sync_agent::signals;
use sync_agent::tree::Dir;

/// The agent of sync-client: copy it to the other machine and let sshd start it.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Speak with a client over standard input and output (what sshd starts).
    #[arg(long)]
    stdio: bool,
    #[command(flatten)]
    limits: Limits,
}

#[derive(Args, Clone)]
struct Limits {
    /// Touch nothing outside this directory; paths that the client gives are relative to it.
    #[arg(long, value_name = "DIR", global = true)]
    root: Option<PathBuf>,
    /// Be a source only: never write.
    #[arg(long, global = true)]
    read_only: bool,
    /// Where to keep what speeds up later runs [default: ~/.local/state/sync-agent; none with --root or
    /// --read-only].
    #[arg(long, value_name = "DIR", global = true)]
    state_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Be an SSH server of its own, for machines without sshd.
    Serve {
        /// Address and port to listen on; port 0 takes a free one and prints it.
        #[arg(long, default_value = "127.0.0.1:2222")]
        listen: SocketAddr,
        /// Host key; an ed25519 key is made when the file is missing.
        #[arg(long, value_name = "FILE")]
        host_key: PathBuf,
        /// Public keys that may connect, in OpenSSH's format.
        #[arg(long, value_name = "FILE")]
        authorized_keys: PathBuf,
        /// Sessions at the same time.
        #[arg(long, default_value_t = 64)]
        max_sessions: usize,
    },
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let is_help = !error.use_stderr();
            let _ = error.print();
            return ExitCode::from(if is_help { 0 } else { Exit::Usage.code() });
        }
    };
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    let permissions = match permissions(&cli.limits, umask.as_raw_mode() as u16 & 0o777) {
        Ok(permissions) => permissions,
        Err(message) => return fail(&message, Exit::StartUp),
    };
    match cli.command {
        Some(Command::Serve { listen, host_key, authorized_keys, max_sessions }) => {
            let mut options = ServeOptions::new(listen, host_key, authorized_keys);
            options.max_sessions = max_sessions;
            options.log = Arc::new(|line| eprintln!("sync-agent: {line}"));
            serve(&options, permissions)
        }
        None if cli.stdio => stdio(&permissions),
        None => fail("give --stdio (sshd does), or serve; see --help", Exit::Usage),
    }
}

fn permissions(limits: &Limits, umask: u16) -> Result<Permissions, String> {
    let open = |path: &PathBuf| {
        let opened = Dir::open(Path::new(path));
        opened
            .map(Arc::new)
            .map_err(|error| format!("cannot open --root {}: {}", path.display(), io::Error::from(error)))
    };
    let root = limits.root.as_ref().map(open).transpose()?;
    let is_free = limits.root.is_none() && !limits.read_only;
    let state_dir = limits.state_dir.clone().or_else(|| is_free.then(default_state_dir).flatten());
    Ok(Permissions { root, read_only: limits.read_only, umask, state_dir })
}

fn default_state_dir() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    state.or_else(home).map(|state| state.join("sync-agent"))
}

fn stdio(permissions: &Permissions) -> ExitCode {
    let streams = own_stream(0).and_then(|input| Ok((input, own_stream(1)?)));
    let (input, output) = match streams {
        Ok(streams) => streams,
        Err(error) => return fail(&error.to_string(), Exit::StartUp),
    };
    let input = match opening(input) {
        Ok(Opening::Session(input)) => input,
        Ok(Opening::Join(forwarder)) => return join(forwarder, output),
        Err(exit) => return ExitCode::from(exit.code()),
    };
    // Only a session has something to end in order.
    let stop = match signals::stop_on_signals() {
        Ok(stop) => stop,
        Err(error) => return fail(&error.to_string(), Exit::StartUp),
    };
    match agent::answer(input, Box::new(output), Further::Reading, permissions, stop) {
        Ok(exit) => ExitCode::from(exit.code()),
        // The client was told; standard error is for when it could not be.
        Err(error) => ExitCode::from(error.exit().code()),
    }
}

/// What the client wants of this process, which it must say in time.
fn opening(input: File) -> Result<Opening, Exit> {
    let (said, hearing) = crossbeam_channel::bounded(1);
    std::thread::spawn(move || {
        let _ = said.send(Opening::read(input));
    });
    match hearing.recv_timeout(agent::START_DEADLINE) {
        Ok(Ok(opening)) => Ok(opening),
        Ok(Err(_)) => Err(Exit::Connection),
        Err(_) => Err(Exit::Timeout),
    }
}

/// A failure says nothing: the client's session goes on without this channel.
fn join(forwarder: Forwarder, output: File) -> ExitCode {
    match forwarder.serve(output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(Exit::Connection.code()),
    }
}

/// Standard input or output without the buffer and lock that Rust puts around it.
fn own_stream(number: i32) -> io::Result<File> {
    let fd = if number == 0 {
        rustix::io::dup(rustix::stdio::stdin())
    } else {
        rustix::io::dup(rustix::stdio::stdout())
    };
    Ok(File::from(fd?))
}

fn serve(options: &ServeOptions, permissions: Permissions) -> ExitCode {
    let server = match Server::bind(options) {
        Ok(server) => server,
        Err(error) => return fail(&chain(&error), Exit::StartUp),
    };
    let mut out = io::stdout();
    let _ = writeln!(out, "listening on {}", server.local_addr());
    let _ = writeln!(out, "{}", server.public_key_line());
    let _ = writeln!(out, "{}", server.fingerprint());
    let _ = out.flush();
    let session = Arc::new(move |reader: Box<dyn Read + Send>, writer: Box<dyn Write + Send>| {
        let stop = crossbeam_channel::never();
        match agent::answer(reader, writer, Further::Never, &permissions, stop) {
            Ok(exit) => u32::from(exit.code()),
            Err(error) => u32::from(error.exit().code()),
        }
    });
    match server.run(session) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&chain(&error), Exit::StartUp),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn fail(message: &str, exit: Exit) -> ExitCode {
    let _ = writeln!(io::stderr(), "sync-agent: {message}");
    ExitCode::from(exit.code())
}
