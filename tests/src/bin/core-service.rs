//! The program in the containers of a test's platform: `core-service core DOCUMENTS` keeps its documents at `HOST:PORT`
//! and attachments in `/app/data/attachments`; `core-service preview` says which preview it was asked for.
//!
//! Ends at once when the engine asks, as the first process of a container has to by itself.

use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;
use std::env::args;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use tests::core::Core;
use tests::documents::Documents;

/// Where all of them listen, each in its container.
const PORT: u16 = 3000;

fn main() -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM])?;
    thread::spawn(move || signals.forever().next().map(|_| std::process::exit(0)));
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    let arguments: Vec<String> = args().skip(1).collect();
    writeln!(io::stdout(), "{} listens", arguments.join(" "))?;
    match arguments.as_slice() {
        [core, server] if core == "core" => Core::serve_plainly(
            &listener,
            Documents::Server(server.clone()),
            PathBuf::from("/app/data/attachments"),
        ),
        [preview] if preview == "preview" => listener.incoming().flatten().for_each(|stream| {
            // Whoever goes away needs no answer.
            let _ = preview_of(stream);
        }),
        _ => return Err(io::Error::other("usage: core-service core HOST:PORT | preview")),
    }
    Ok(())
}

fn preview_of(stream: TcpStream) -> io::Result<()> {
    let mut line = String::new();
    let mut reader = BufReader::new(stream);
    reader.read_line(&mut line)?;
    while let mut header = String::new()
        && reader.read_line(&mut header)? > 2
    {}
    writeln!(io::stdout(), "{}", line.trim_end())?;
    let body = format!("preview of {}\n", line.split(' ').nth(1).unwrap_or_default());
    write!(
        reader.into_inner(),
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
