//! Answers on their way into a data frame.

use super::{DATA, ReadFile, Record, Step, finish_bulk};
use crate::frame::{Frame, HEADER_BYTES};
use crate::limits;
use crate::sparse::is_zero;

/// Collects answers until they are worth a frame.
#[derive(Debug)]
pub struct DataBuilder {
    lane: u8,
    records: Vec<Record>,
    /// The frame to be: room for its header, and the bulk.
    bytes: Vec<u8>,
}

/// Records in one frame, so that many small or unchanged files don't outgrow it.
const RECORDS_PER_FRAME: usize = 2048;
/// Room for the records of large files behind their bytes, so that the frame does not move when it ends.
const RECORDS_RESERVE_BYTES: usize = 1 << 10;

impl DataBuilder {
    /// A builder for one of the sender's threads.
    #[must_use]
    pub fn new(lane: u8) -> DataBuilder {
        DataBuilder { lane, records: Vec::new(), bytes: DataBuilder::begin() }
    }

    fn begin() -> Vec<u8> {
        Frame::begin(limits::DATA_BYTES + RECORDS_RESERVE_BYTES)
    }

    /// Appends a step that has no bytes.
    pub fn step(&mut self, file: u32, step: Step) {
        self.records.push(Record { file, step });
    }

    /// Appends what lacks of a basis, of at most [`DataBuilder::room_bytes`].
    pub fn lacks(&mut self, file: u32, bits: &[u8]) {
        self.bytes.extend_from_slice(bits);
        self.step(file, Step::Lacks { bytes: length_of(bits) });
    }

    /// Appends bytes of a file, at most what [`DataBuilder::room_bytes`] says: as literal ones, or only their number
    /// where all are zeros.
    pub fn literal(&mut self, file: u32, bytes: &[u8]) {
        if is_zero(bytes) {
            return self.step(file, Step::Zeros { bytes: length_of(bytes) });
        }
        self.bytes.extend_from_slice(bytes);
        self.count_literal(file, length_of(bytes));
    }

    /// Appends the bytes that `read` puts behind what the vector has, as [`DataBuilder::literal`] does, and shows them
    /// to `seen`.
    ///
    /// # Errors
    /// `read`'s; then nothing is appended.
    pub fn literal_with<E>(
        &mut self,
        file: u32,
        read: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
        seen: impl FnOnce(&[u8]),
    ) -> Result<(), E> {
        let from = self.append_with(read)?;
        let bytes = &self.bytes[from..];
        seen(bytes);
        let length = length_of(bytes);
        if is_zero(bytes) {
            self.bytes.truncate(from);
            self.step(file, Step::Zeros { bytes: length });
        } else {
            self.count_literal(file, length);
        }
        Ok(())
    }

    /// Appends the whole small file that `read` puts behind what the vector has; `known` tells what was
    /// read, or why it is of no use.
    ///
    /// # Errors
    /// `read`'s and `known`'s; then nothing is appended.
    pub fn small_with<E>(
        &mut self,
        file: u32,
        read: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
        known: impl FnOnce(&[u8]) -> Result<ReadFile, E>,
    ) -> Result<(), E> {
        let from = self.append_with(read)?;
        let content = &self.bytes[from..];
        match known(content) {
            Ok(read) => {
                let bytes = length_of(content);
                self.step(file, Step::Small { bytes, read });
                Ok(())
            }
            Err(error) => {
                self.bytes.truncate(from);
                Err(error)
            }
        }
    }

    /// Where what `read` appended begins.
    fn append_with<E>(&mut self, read: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<usize, E> {
        let from = self.bytes.len();
        match read(&mut self.bytes) {
            Ok(()) => Ok(from),
            Err(error) => {
                self.bytes.truncate(from);
                Err(error)
            }
        }
    }

    fn count_literal(&mut self, file: u32, length: u32) {
        match self.records.last_mut() {
            Some(Record { file: last, step: Step::Literal { bytes: so_far } }) if *last == file => {
                *so_far += length;
            }
            _ => self.step(file, Step::Literal { bytes: length }),
        }
    }

    /// How many literal bytes still fit.
    #[must_use]
    pub fn room_bytes(&self) -> usize {
        limits::DATA_BYTES.saturating_sub(self.bytes.len() - HEADER_BYTES)
    }

    /// Whether it is time for [`DataBuilder::take`].
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.room_bytes() < limits::SMALL_FILE_BYTES as usize || self.records.len() >= RECORDS_PER_FRAME
    }

    /// Whether nothing was appended since the last frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What was collected, as a frame; the builder is empty again.
    pub fn take(&mut self) -> Frame {
        let bytes = std::mem::replace(&mut self.bytes, DataBuilder::begin());
        let frame = finish_bulk(bytes, DATA, &(self.lane, &self.records));
        self.records.clear();
        frame
    }
}

fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
