//! A long, narrow, or breaking link on loopback: `tools/wanproxy.py`.

use crate::process::Running;
use crate::requirement::{installed, tool};
use crate::serve::listening_port;
use std::process::Command;
use std::time::Duration;

const READY_LIMIT: Duration = Duration::from_secs(20);

/// A running relay; ended when dropped.
#[derive(Debug)]
pub struct Proxy {
    running: Running,
    port: u16,
}

impl Proxy {
    /// Relays to `to_port` of 127.0.0.1; `mbit` 0 is no limit, `cut_after` and `stall_after` 0 is never.
    /// Each connection counts its own bytes, both ways together.
    ///
    /// # Panics
    /// Where it does not come up.
    #[must_use]
    pub fn start(to_port: u16, rtt_ms: u64, mbit: u64, cut_after: u64, stall_after: u64) -> Proxy {
        let mut command = Command::new(installed("python3"));
        command.arg(tool("wanproxy.py")).args([
            "--listen",
            "127.0.0.1:0",
            "--to",
            &format!("127.0.0.1:{to_port}"),
        ]);
        let numbers = [
            ("--rtt-ms", rtt_ms),
            ("--mbit", mbit),
            ("--cut-after-bytes", cut_after),
            ("--stall-after-bytes", stall_after),
        ];
        for (name, value) in numbers {
            command.args([name, &value.to_string()]);
        }
        let running = Running::start(command);
        let port = running.wait_for(READY_LIMIT, "where it listens", listening_port);
        Proxy { running, port }
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits until a connection has gone silent.
    ///
    /// # Panics
    /// When none does within `limit`.
    pub fn wait_for_stall(&self, limit: Duration) {
        self.running
            .wait_for(limit, "that it stalls", |text| text.contains("\nstalled after ").then_some(()));
    }

    /// Waits until a connection was cut.
    ///
    /// # Panics
    /// When none is within `limit`.
    pub fn wait_for_cut(&self, limit: Duration) {
        self.running.wait_for(limit, "that it cuts", |text| text.contains("\ncut after ").then_some(()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::thread;

    /// A server that sends back what it gets, for one connection.
    fn echo() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the proxy connects");
            let mut back = stream.try_clone().expect("a socket can be cloned");
            let _ = std::io::copy(&mut stream, &mut back);
        });
        port
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).expect("the proxy listens")
    }

    #[test]
    fn it_delays_by_the_round_trip() {
        crate::require!("python3");
        let proxy = Proxy::start(echo(), 200, 0, 0, 0);
        let mut stream = connect(&proxy);
        let started = std::time::Instant::now();
        stream.write_all(b"ping").expect("it is open");
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).expect("it is open");
        assert_eq!(&answer, b"ping");
        assert!(started.elapsed() >= Duration::from_millis(195), "{:?}", started.elapsed());
    }

    #[test]
    fn it_cuts() {
        crate::require!("python3");
        let proxy = Proxy::start(echo(), 0, 0, 1000, 0);
        let mut stream = connect(&proxy);
        stream.write_all(&[1; 2000]).expect("it is open");
        // A reset or an end, whichever comes first; either way it comes.
        let _ = stream.read_to_end(&mut Vec::new());
        proxy.wait_for_cut(Duration::from_secs(10));
    }

    #[test]
    fn it_stalls_without_closing() {
        crate::require!("python3");
        let proxy = Proxy::start(echo(), 0, 0, 0, 1000);
        let mut stream = connect(&proxy);
        stream.write_all(&[1; 2000]).expect("it is open");
        proxy.wait_for_stall(Duration::from_secs(10));
        stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket has a timeout");
        let read = stream.read(&mut [0; 10]).expect_err("nothing comes");
        assert_eq!(read.kind(), ErrorKind::WouldBlock);
    }
}
