//! A register host's DNS server: it answers with what `dns.json` said when it was last restarted.
//!
//! What it serves is a copy of the file, which the host's restart command makes; so an edit alone changes no answer.

use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread;

/// The script that restarts it; a line in `history` each time.
pub const RESTART: &str = "cp conf/dns.json served && echo restart >> history\n";

/// A register host with `conf/dns.json` and `restart` below its root.
#[derive(Debug)]
pub struct NameServer {
    /// The host's ROOT.
    pub root: PathBuf,
    /// Where it is asked.
    pub address: SocketAddr,
}

impl NameServer {
    /// Starts it at `socket`, with `names` in its file; it answers for the core `co1`.
    ///
    /// # Panics
    /// Where its files can't be made.
    #[must_use]
    pub fn start(socket: UdpSocket, root: &Path, names: &str) -> NameServer {
        fs::create_dir_all(root.join("conf")).expect("new");
        for (file, text) in [("conf/dns.json", names), ("restart", RESTART), ("served", names)] {
            fs::write(root.join(file), text).expect("new");
        }
        let address = socket.local_addr().expect("it is bound");
        let served = root.join("served");
        thread::spawn(move || serve(&socket, &served));
        NameServer { root: root.to_owned(), address }
    }

    /// What its file says now.
    ///
    /// # Panics
    /// Where it is gone.
    #[must_use]
    pub fn text(&self) -> String {
        fs::read_to_string(self.root.join("conf/dns.json")).expect("it is there")
    }
}

fn serve(socket: &UdpSocket, served: &Path) {
    let mut question = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut question) {
        let names: Value = serde_json::from_slice(&fs::read(served).unwrap_or_default()).unwrap_or_default();
        let ip = names["dns"]["staticDataInDomain"]["co1"]["ip"].as_str().unwrap_or_default();
        let Ok(ip) = ip.parse::<Ipv4Addr>() else { continue };
        // A response, authoritative, with one answer (RFC 1035, section 4.1).
        let mut answer = question[..length].to_vec();
        answer[2] |= 0x84;
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend_from_slice(&ip.octets());
        let _ = socket.send_to(&answer, from);
    }
}
