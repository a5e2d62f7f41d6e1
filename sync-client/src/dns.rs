//! One question to one DNS server over UDP: which addresses does it give to a name?
//!
//! The server is asked itself, with no resolver and no cache between, because the question after an edit is whether
//! *this* server has read its file again. simple-dns makes and reads the packets; an answer counts only if it
//! comes from that server (a connected socket), has the question's number, and is about the same name.

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, RCODE, TYPE};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use thiserror::Error;

/// A question is sent so many times within its time: UDP may lose one.
const SENDS: u32 = 3;
/// An alias of an alias of … in one answer.
const MAX_ALIASES: usize = 16;
const PACKET_BYTES: usize = 65_535;

/// Which kind of address is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

impl Family {
    /// That of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    fn record(self) -> TYPE {
        match self {
            Family::V4 => TYPE::A,
            Family::V6 => TYPE::AAAA,
        }
    }
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The addresses, sorted; none where the name has none of that kind.
    pub addresses: Vec<IpAddr>,
    /// How long others may keep this answer, by its shortest-lived record.
    pub ttl_s: Option<u32>,
}

/// Why there is no answer.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum DnsError {
    #[error("{name:?} is no name to ask for: {reason}")]
    Name { name: String, reason: String },
    #[error(
        "{server} did not answer within {seconds:.1} s; is the DNS server running there, and UDP let through?"
    )]
    Silent { server: SocketAddr, seconds: f64 },
    #[error("{server} can't be asked (nothing listens there on UDP?)")]
    Unreachable { server: SocketAddr, source: io::Error },
    #[error("{server} knows no {name}")]
    NoSuchName { server: SocketAddr, name: String },
    #[error("{server} refused the question for {name} ({code})")]
    Refused { server: SocketAddr, name: String, code: String },
    #[error("the answer of {server} is too long for UDP")]
    Truncated { server: SocketAddr },
}

/// Asks `server` itself for the addresses of `name`, at most for `timeout`.
///
/// # Errors
/// No usable answer came; see [`DnsError`].
pub fn ask(server: SocketAddr, name: &str, family: Family, timeout: Duration) -> Result<Answer, DnsError> {
    let unreachable = |source| DnsError::Unreachable { server, source };
    let mut id = [0; 2];
    // A guessable number would only help somebody who can already send as that server.
    let _ = rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty());
    let id = u16::from_ne_bytes(id);
    let question = question(id, name, family)?;
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).map_err(unreachable)?;
    socket.connect(server).map_err(unreachable)?;
    let started = Instant::now();
    let mut buffer = vec![0; PACKET_BYTES];
    for round in 1..=SENDS {
        socket.send(&question).map_err(unreachable)?;
        let until = started + timeout * round / SENDS;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            socket.set_read_timeout(Some(left)).map_err(unreachable)?;
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    if let Some(answer) = understood(&buffer[..length], id, server, name, family) {
                        return answer;
                    }
                }
                Err(error) if is_only_late(&error) => {}
                Err(error) => return Err(unreachable(error)),
            }
        }
    }
    Err(DnsError::Silent { server, seconds: timeout.as_secs_f64() })
}

fn is_only_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn question(id: u16, name: &str, family: Family) -> Result<Vec<u8>, DnsError> {
    let unfit = |error: simple_dns::SimpleDnsError| DnsError::Name {
        name: name.to_owned(),
        reason: error.to_string(),
    };
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let asked = Name::new(name.trim_end_matches('.')).map_err(unfit)?;
    packet.questions.push(Question::new(asked, QTYPE::TYPE(family.record()), CLASS::IN.into(), false));
    packet.build_bytes_vec().map_err(unfit)
}

/// The answer in a packet; none where it is no answer to this question.
fn understood(
    bytes: &[u8],
    id: u16,
    server: SocketAddr,
    name: &str,
    family: Family,
) -> Option<Result<Answer, DnsError>> {
    let packet = Packet::parse(bytes).ok()?;
    let is_ours = packet.id() == id
        && packet.has_flags(PacketFlag::RESPONSE)
        && packet.questions.first().is_none_or(|asked| is_name(&asked.qname, name));
    if !is_ours {
        return None;
    }
    Some(match packet.rcode() {
        _ if packet.has_flags(PacketFlag::TRUNCATION) => Err(DnsError::Truncated { server }),
        RCODE::NoError => Ok(addresses(&packet, name, family)),
        RCODE::NameError => Err(DnsError::NoSuchName { server, name: name.to_owned() }),
        code => Err(DnsError::Refused { server, name: name.to_owned(), code: format!("{code:?}") }),
    })
}

fn is_name(left: &Name<'_>, right: &str) -> bool {
    left.to_string().trim_end_matches('.').eq_ignore_ascii_case(right.trim_end_matches('.'))
}

/// The addresses of `name`, or of what it is an alias of.
fn addresses(packet: &Packet<'_>, name: &str, family: Family) -> Answer {
    let mut owner = name.to_owned();
    let mut ttls = Vec::new();
    for _ in 0..MAX_ALIASES {
        let alias = packet.answers.iter().find_map(|record| match &record.rdata {
            RData::CNAME(target) if is_name(&record.name, &owner) => Some((target.0.to_string(), record.ttl)),
            _ => None,
        });
        let Some((target, ttl)) = alias else { break };
        owner = target;
        ttls.push(ttl);
    }
    let mut found = Vec::new();
    for record in packet.answers.iter().filter(|record| is_name(&record.name, &owner)) {
        let address: IpAddr = match (&record.rdata, family) {
            (RData::A(a), Family::V4) => Ipv4Addr::from_bits(a.address).into(),
            (RData::AAAA(aaaa), Family::V6) => Ipv6Addr::from_bits(aaaa.address).into(),
            _ => continue,
        };
        found.push(address);
        ttls.push(record.ttl);
    }
    found.sort_unstable();
    found.dedup();
    Answer { addresses: found, ttl_s: ttls.into_iter().min() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, AAAA, CNAME};
    use std::thread;

    const SOON: Duration = Duration::from_secs(20);

    /// A server that answers each question by all that `answers` makes of it, as often as it is asked.
    fn server(answers: impl Fn(u32, Packet<'_>) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            for round in 0.. {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { return };
                for answer in answers(round, Packet::parse(&buffer[..length]).unwrap()) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        address
    }

    fn record<'a>(name: &'a str, ttl: u32, rdata: RData<'a>) -> ResourceRecord<'a> {
        ResourceRecord::new(Name::new_unchecked(name), CLASS::IN, ttl, rdata)
    }

    fn reply(question: Packet<'_>, answers: Vec<ResourceRecord<'static>>) -> Vec<u8> {
        let mut reply = question.into_reply();
        reply.answers = answers;
        reply.build_bytes_vec_compressed().unwrap()
    }

    fn a(name: &'static str, ttl: u32, address: [u8; 4]) -> ResourceRecord<'static> {
        record(name, ttl, RData::A(A { address: u32::from_be_bytes(address) }))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_addresses_and_the_shortest_life_are_told() {
        let server = server(|_, asked| {
            let both = vec![
                a("co1.example.com", 300, [192, 0, 2, 9]),
                a("CO1.example.com", 60, [192, 0, 2, 1]),
                a("other.example.com", 1, [192, 0, 2, 7]),
            ];
            vec![reply(asked, both)]
        });
        let answer = ask(server, "co1.example.com", Family::V4, SOON).unwrap();
        assert_eq!(answer, Answer { addresses: vec![ip("192.0.2.1"), ip("192.0.2.9")], ttl_s: Some(60) });
    }

    #[test]
    fn an_alias_is_followed_and_sixteen_bytes_are_an_address_too() {
        let server = server(|_, asked| {
            let alias = RData::CNAME(CNAME(Name::new_unchecked("co2.example.com")));
            let address = RData::AAAA(AAAA { address: "2001:db8::1".parse::<Ipv6Addr>().unwrap().to_bits() });
            vec![reply(
                asked,
                vec![record("co1.example.com", 5, alias), record("co2.example.com", 9, address)],
            )]
        });
        let answer = ask(server, "co1.example.com.", Family::V6, SOON).unwrap();
        assert_eq!(answer, Answer { addresses: vec![ip("2001:db8::1")], ttl_s: Some(5) });
    }

    #[test]
    fn aliases_in_a_circle_end() {
        let server = server(|_, asked| {
            let alias = RData::CNAME(CNAME(Name::new_unchecked("a.example")));
            vec![reply(asked, vec![record("a.example", 5, alias)])]
        });
        assert!(ask(server, "a.example", Family::V4, SOON).unwrap().addresses.is_empty());
    }

    #[test]
    fn noise_and_answers_to_other_questions_are_passed_over() {
        let server = server(|round, asked| {
            let other = |name, id| {
                let mut packet = question(id, name, Family::V4).unwrap();
                packet[2] |= 0x80;
                packet
            };
            let id = asked.id();
            let wrong = vec![vec![1, 2, 3], other("x.example", id), other("a.example", id.wrapping_add(1))];
            // The first question gets no answer at all, as if that had been lost.
            if round == 0 { wrong } else { vec![reply(asked, vec![a("a.example", 1, [127, 0, 0, 5])])] }
        });
        let answer = ask(server, "a.example", Family::V4, Duration::from_secs(6)).unwrap();
        assert_eq!(answer.addresses, [ip("127.0.0.5")]);
    }

    #[test]
    fn each_way_of_having_no_answer_is_told_apart() {
        let coded = |code: u8| {
            server(move |_, asked| {
                let mut bytes = reply(asked, Vec::new());
                bytes[3] = (bytes[3] & 0xf0) | code;
                vec![bytes]
            })
        };
        let asked = |server| ask(server, "a.example", Family::V4, SOON);
        assert!(matches!(asked(coded(3)), Err(DnsError::NoSuchName { .. })));
        assert!(matches!(asked(coded(5)), Err(DnsError::Refused { .. })));
        assert!(matches!(asked(coded(0)), Ok(Answer { ttl_s: None, .. })));
        let truncated = server(|_, asked| {
            let mut bytes = reply(asked, Vec::new());
            bytes[2] |= 2;
            vec![bytes]
        });
        assert!(matches!(asked(truncated), Err(DnsError::Truncated { .. })));
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = silent.local_addr().unwrap();
        let result = ask(address, "a.example", Family::V4, Duration::from_millis(60));
        assert!(matches!(result, Err(DnsError::Silent { .. })));
        drop(silent);
        assert!(matches!(asked(address), Err(DnsError::Unreachable { .. })));
        assert!(matches!(ask(address, &"x".repeat(64), Family::V4, SOON), Err(DnsError::Name { .. })));
    }
}
