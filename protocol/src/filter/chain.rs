//! The rules that directories have of their own, as they count in one of them.

use super::parse::Reader;
use super::{FilterError, FilterRules, Item, PerDirectory, RuleFiles};
use crate::path::escaped;
use std::sync::Arc;

/// What was read of each per-directory file, in one directory and above it.
///
/// Made for each directory from its parent's by [`Chain::enter`]; what both have in common they share.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Those of the list, then those that were named in files; an item's number is a position here.
    files: Vec<PerDirectory>,
    /// For each of them what its files say, the deepest first.
    read: Vec<Vec<Arc<[Item]>>>,
    /// How many of them have been looked for above the transfer.
    started: usize,
}

impl Chain {
    /// The chain of a directory: that of its parent, or none for the first directory of a transfer, and its own files.
    /// None if it is the parent's. `directory` is an absolute path, without the slash before it.
    ///
    /// # Errors
    /// A file can't be read, or a rule in it is malformed: what it would leave out is not known.
    pub fn enter(
        rules: &FilterRules,
        parent: Option<&Chain>,
        directory: &[u8],
        files: &mut dyn RuleFiles,
    ) -> Result<Option<Chain>, FilterError> {
        let first =
            || Chain { files: rules.files.clone(), read: vec![Vec::new(); rules.files.len()], started: 0 };
        let mut chain = parent.cloned().unwrap_or_else(first);
        let mut is_new = parent.is_none();
        let mut number = 0;
        // A file that is read may add to them.
        while number < chain.files.len() {
            is_new |= chain.forget_local(number);
            if chain.started == number {
                chain.started += 1;
                for above in between(chain.files[number].start(), directory) {
                    is_new |= chain.take_in(rules, number, &above, directory, files)?;
                    chain.forget_local(number);
                }
            }
            is_new |= chain.take_in(rules, number, directory, directory, files)?;
            number += 1;
        }
        Ok(is_new.then_some(chain))
    }

    /// What the files of this number say, the deepest first.
    pub(super) fn read(&self, number: usize) -> Option<&[Arc<[Item]>]> {
        self.read.get(number).map(Vec::as_slice)
    }

    /// Rules that count in one directory alone are over in the next; whether there were any.
    fn forget_local(&mut self, number: usize) -> bool {
        let ends = self.files[number].is_local && !self.read[number].is_empty();
        if ends {
            self.read[number].clear();
        }
        ends
    }

    /// Reads a file in `place`, which is `directory` or above it; whether it is there.
    fn take_in(
        &mut self,
        rules: &FilterRules,
        number: usize,
        place: &[u8],
        directory: &[u8],
        files: &mut dyn RuleFiles,
    ) -> Result<bool, FilterError> {
        let file = &self.files[number];
        let slash = if place.is_empty() { &b""[..] } else { b"/" };
        let shown = || escaped(&[b"/", place, slash, file.name()].concat());
        let content = files.in_directory(place, file.name());
        let content = content.map_err(|why| FilterError::File { name: shown(), why })?;
        let Some(content) = content else { return Ok(false) };
        let mut reader = Reader::of_directory(rules, &self.files, files, place);
        let result = reader.content(&content, &file.defaults);
        let (items, mut new_files, is_cleared) = reader.finish();
        result.map_err(|source| FilterError::Within { file: shown(), source: Box::new(source) })?;
        if is_cleared {
            self.read[number].clear();
        }
        self.read[number].insert(0, items.into());
        if place != directory {
            // What is named above the transfer is looked for from there on.
            new_files.iter_mut().filter(|file| !file.source.starts_with(b"/")).for_each(|file| {
                file.source = [b"/", place, b"/", &file.source].concat().into();
            });
        }
        self.read.resize(self.read.len() + new_files.len(), Vec::new());
        self.files.append(&mut new_files);
        Ok(true)
    }
}

/// The directories from `start` on that are above `directory`, which `start` is relative to; none if it is not among them.
fn between(start: Option<&[u8]>, directory: &[u8]) -> Vec<Vec<u8>> {
    let Some(start) = start else { return Vec::new() };
    let start = path_from(directory, start);
    let Some(below) = directory.strip_prefix(&start[..]) else { return Vec::new() };
    if !(start.is_empty() || below.is_empty() || below.starts_with(b"/")) {
        return Vec::new();
    }
    let (mut all, mut place) = (Vec::new(), start);
    for part in below.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
        all.push(place.clone());
        if !place.is_empty() {
            place.push(b'/');
        }
        place.extend_from_slice(part);
    }
    all
}

/// Where `path` leads from `directory`: an absolute path without the slash before it, without empty parts and dots; `..`
/// takes away what is before it.
#[must_use]
pub fn path_from(directory: &[u8], path: &[u8]) -> Vec<u8> {
    let whole = if path.starts_with(b"/") { path } else { &[directory, b"/", path].concat() };
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in whole.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}
