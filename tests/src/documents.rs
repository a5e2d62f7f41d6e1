//! Where a test's core keeps its documents: files below a directory, or the program that stands for mongod
//! (`wtload serve`, which has the protocol in its head).
//!
//! A key is `USER/password`, `USER/streams/ID.json`, `USER/events/NUMBER.json` or `USER/series/EVENT.json`.

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

/// The status of an answer where the documents can't be reached.
const BROKEN: u16 = 500;

/// Documents by key.
#[derive(Debug, Clone)]
pub enum Documents {
    /// A file each, below this directory.
    Files(PathBuf),
    /// At `HOST:PORT`.
    Server(String),
}

impl Documents {
    /// A document's bytes.
    ///
    /// # Errors
    /// The status to answer with.
    pub fn read(&self, key: &str) -> Result<Option<Vec<u8>>, u16> {
        match self {
            Documents::Files(directory) => Ok(fs::read(directory.join(key)).ok()),
            Documents::Server(server) => value(&mut ask(server, &format!("GET {key}\n"), b"")?),
        }
    }

    /// Keeps a document, in place of what the key had.
    ///
    /// # Errors
    /// The status to answer with.
    pub fn write(&self, key: &str, bytes: &[u8]) -> Result<(), u16> {
        match self {
            Documents::Files(directory) => {
                let path = directory.join(key);
                path.parent().map_or(Ok(()), fs::create_dir_all).map_err(|_| BROKEN)?;
                fs::write(path, bytes).map_err(|_| BROKEN)
            }
            Documents::Server(server) => {
                let mut answer = ask(server, &format!("PUT {key} {}\n", bytes.len()), bytes)?;
                if line(&mut answer)? == "OK" { Ok(()) } else { Err(BROKEN) }
            }
        }
    }

    /// The JSON documents whose keys begin so, by key.
    ///
    /// # Errors
    /// The status to answer with.
    pub fn all(&self, prefix: &str) -> Result<Vec<Value>, u16> {
        let documents: Vec<Vec<u8>> = match self {
            Documents::Files(directory) => {
                let entries = fs::read_dir(directory.join(prefix)).into_iter().flatten().flatten();
                let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
                paths.sort();
                paths.iter().filter_map(|path| fs::read(path).ok()).collect()
            }
            Documents::Server(server) => {
                let mut answer = ask(server, &format!("LIST {prefix}\n"), b"")?;
                let mut documents = Vec::new();
                while let Some(document) = value(&mut answer)? {
                    documents.push(document);
                }
                documents
            }
        };
        Ok(documents.iter().filter_map(|document| serde_json::from_slice(document).ok()).collect())
    }
}

fn ask(server: &str, question: &str, more: &[u8]) -> Result<BufReader<TcpStream>, u16> {
    let ask = || {
        let mut stream = TcpStream::connect(server)?;
        stream.write_all(&[question.as_bytes(), more].concat())?;
        Ok(BufReader::new(stream))
    };
    ask().map_err(|_: std::io::Error| BROKEN)
}

fn line(answer: &mut BufReader<TcpStream>) -> Result<String, u16> {
    let mut line = String::new();
    answer.read_line(&mut line).map_err(|_| BROKEN)?;
    line.pop().filter(|&end| end == '\n').map(|_| line).ok_or(BROKEN)
}

/// `LENGTH` and so many bytes; -1 is no document.
fn value(answer: &mut BufReader<TcpStream>) -> Result<Option<Vec<u8>>, u16> {
    let len: i64 = line(answer)?.parse().map_err(|_| BROKEN)?;
    let Ok(len) = usize::try_from(len) else { return Ok(None) };
    let mut bytes = vec![0; len];
    answer.read_exact(&mut bytes).map_err(|_| BROKEN)?;
    Ok(Some(bytes))
}
