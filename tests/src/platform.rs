//! Cores with a real nginx and TLS in front of each, and two register hosts: what `proxy` and `register` work with.
//!
//! What stands in: nginx is started by a script of ROOT instead of a container engine; a DNS server is a thread that answers
//! with what its host's file said when the server was last restarted.

use crate::cores::Cores;
use crate::nginx;
use crate::process::Running;
use crate::requirement::installed;
use crate::sshd::{Sshd, free_port};
use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::thread;

const USER: &str = "ann.example.test";
/// Below ROOT of the source.
pub const SITE: &str = "core/nginx/conf/site-443.conf";
/// What both register hosts' files say at first.
pub const NAMES: &str = r#"{"dns": {"defaultTTL": 7200, "staticDataInDomain": {
  "mail": {"ip": "192.0.2.1"}, "co1": {"description": "a core", "ip": "127.0.0.1"}
}}}"#;

/// Cores with nginx in front of each, and two register hosts.
#[derive(Debug)]
pub struct Platform {
    /// The two cores and the plan.
    pub cores: Cores,
    /// Master and slave.
    pub registers: [Register; 2],
    _destination: Running,
}

/// A register host whose DNS server answers with what the file said when it was last restarted.
#[derive(Debug)]
pub struct Register {
    /// Its ROOT.
    pub root: PathBuf,
    /// Its DNS server.
    pub server: SocketAddr,
    /// In front of it, where it is another machine.
    pub sshd: Option<Sshd>,
}

#[allow(clippy::missing_panics_doc, reason = "for tests, which end by a panic")]
impl Register {
    fn start(root: PathBuf, sshd: Option<Sshd>) -> Register {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        Register::at(socket, root, NAMES, sshd)
    }

    /// One whose DNS server is asked at this socket, with its names.
    #[must_use]
    pub fn at(socket: UdpSocket, root: PathBuf, names: &str, sshd: Option<Sshd>) -> Register {
        fs::create_dir_all(root.join("conf")).expect("new");
        fs::write(root.join("conf/dns.json"), names).expect("new");
        fs::write(root.join("restart"), "cp conf/dns.json served && echo restart >> history\n").expect("new");
        fs::write(root.join("served"), names).expect("new");
        let server = socket.local_addr().expect("it is bound");
        let served = root.join("served");
        thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                let names: Value =
                    serde_json::from_slice(&fs::read(&served).unwrap_or_default()).unwrap_or_default();
                let ip = &names["dns"]["staticDataInDomain"]["co1"]["ip"];
                let ips = ip.as_array().map_or(std::slice::from_ref(ip), Vec::as_slice);
                let ips: Vec<Ipv4Addr> = ips.iter().filter_map(|ip| ip.as_str()?.parse().ok()).collect();
                // A response, authoritative, with an answer for each address (RFC 1035, section 4.1).
                let mut answer = question[..length].to_vec();
                answer[2] |= 0x84;
                answer[7] = u8::try_from(ips.len()).expect("a few");
                for ip in ips {
                    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                    answer.extend_from_slice(&ip.octets());
                }
                let _ = socket.send_to(&answer, from);
            }
        });
        Register { root, server, sshd }
    }

    /// The DNS server's file.
    #[must_use]
    pub fn text(&self) -> String {
        fs::read_to_string(self.root.join("conf/dns.json")).expect("it is there")
    }
}

#[allow(clippy::missing_panics_doc, clippy::new_without_default, reason = "for tests, which end by a panic")]
impl Platform {
    /// Register hosts that are this machine.
    #[must_use]
    pub fn new() -> Platform {
        Platform::with(|_| None)
    }

    /// Register hosts behind an sshd each, at ports of their own.
    #[must_use]
    pub fn with_register_hosts_behind_ssh() -> Platform {
        Platform::with(|cores| Some(Sshd::start(&cores.sandbox)))
    }

    fn with(sshd: impl Fn(&Cores) -> Option<Sshd>) -> Platform {
        let cores = Cores::new();
        let certificate = nginx::certificate(&cores.sandbox, "example.test");
        let (port, destination_port) = (free_port(), free_port());
        let tls = format!(
            "ssl_certificate {}; ssl_certificate_key {};",
            certificate.chain.display(),
            certificate.key.display()
        );
        let http = format!(
            "server {{ listen 127.0.0.1:{destination_port} ssl; listen 127.0.0.2:{destination_port} ssl; {tls} location / {{ return 200 \"destination $request_uri\\n\"; }} }}"
        );
        let directory = cores.sandbox.path().join("new-nginx");
        let destination =
            nginx::start(&cores.sandbox, &nginx::write_configuration(&directory, &http), destination_port);
        let source = cores.source();
        fs::create_dir_all(source.join("core/nginx/conf")).expect("new");
        let site = format!(
            "upstream core_server {{ server 127.0.0.1:1; }}\nserver {{\n  listen 127.0.0.1:{port} ssl; {tls}\n  \
             location / {{\n    proxy_pass http://core_server;\n  }}\n}}\n"
        );
        fs::write(source.join(SITE), site).expect("new");
        // nginx takes no path with a quote in it: ROOT by another name.
        let plain = cores.sandbox.path().join("plain");
        symlink(&source, &plain).expect("new");
        let configuration = nginx::write_configuration(
            &cores.sandbox.path().join("old-nginx"),
            &format!("include {}/core/nginx/conf/site*.conf;", plain.display()),
        );
        let run = format!(
            "{} -p {} -e stderr -c {}",
            installed("nginx").display(),
            cores.sandbox.path().display(),
            configuration.display()
        );
        // Not nginx's own file, which `nginx -t` makes as well.
        let stop = "p=$(cat nginx-pid 2> /dev/null) || exit 0\nkill $p\nwhile [ -e /proc/$p/exe ]; do sleep 0.05; done\nrm nginx-pid\n";
        for (name, text) in [
            ("nginx-test", format!("{run} -t\n")),
            ("nginx-stop", stop.to_owned()),
            (
                "nginx-start",
                format!(
                    "echo nginx >> history\nbash nginx-stop\nsetsid {run} > /dev/null 2>&1 < /dev/null &\necho $! > nginx-pid\n"
                ),
            ),
        ] {
            fs::write(source.join(name), text).expect("new");
        }
        let registers =
            ["master", "slave"].map(|name| Register::start(cores.sandbox.path().join(name), sshd(&cores)));
        let check = format!(
            "check = [\"sh\", \"-c\", \"curl -s --cacert {} --resolve {USER}:{port}:127.0.0.1 https://{USER}:{port}/x | grep -q destination\"]\n",
            certificate.root.display()
        );
        let proxy = format!(
            "[proxy]\nfile = \"{SITE}\"\nupstreams = [\"core_server\"]\nport = {destination_port}\ntest = \"nginx-test\"\n\
             start = \"nginx-start\"\nstop = \"nginx-stop\"\ncheck_s = 5\ntrusted_certificate = {:?}\n{check}",
            certificate.root
        );
        let hosts: String = registers
            .iter()
            .zip(["master", "slave"])
            .map(|(register, name)| {
                let ssh = register.sshd.as_ref().map(|sshd| way(&cores, sshd)).unwrap_or_default();
                format!(
                    "[[register.hosts]]\nname = {name:?}\nroot = {:?}\n{ssh}dns_file = \"conf/dns.json\"\nrestart = \"restart\"\ndns = \"{}\"\n",
                    register.root, register.server
                )
            })
            .collect();
        let platform = Platform { cores, registers, _destination: destination };
        platform.cores.write_plan(|plan| {
            let plan = plan.replacen(
                "address = \"127.0.0.1\"\n[destination.service]",
                "address = \"127.0.0.2\"\n[destination.service]",
                1,
            );
            plan + &proxy + "[register]\ncore = \"co1\"\ndomain = \"example.com\"\nanswer_s = 3\n" + &hosts
        });
        platform
    }

    /// The source's NGINX configuration.
    #[must_use]
    pub fn site(&self) -> String {
        fs::read_to_string(self.cores.source().join(SITE)).expect("it is there")
    }

    /// Ends at the cold pass: both ends as `proxy enable` finds them.
    pub fn until_cold(&self) {
        for step in [&["bulk"][..], &["cold", "--yes"]] {
            self.cores.step(step).success();
        }
    }

    /// Ends the source's NGINX.
    pub fn stop(&self) {
        self.cores.script("source", "nginx-stop");
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The plan's way to a host.
fn way(cores: &Cores, sshd: &Sshd) -> String {
    format!(
        "ssh = {{ host = \"127.0.0.1\", port = {}, identities = [{:?}], known_hosts = [{:?}] }}\n",
        sshd.port(),
        cores.sandbox.key(),
        cores.sandbox.known_hosts()
    )
}
