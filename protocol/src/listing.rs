//! A piece's entries as bytes: each says only what the entry before it did not.
//!
//! The neighbours in a directory are much alike: same owner and mode, often the same second, names that begin alike. What
//! bincode would say of each again is most of what a run that finds nothing to do sends, encodes and decodes. What comes from
//! a peer is checked here as a decoder does (nothing past the input's end, no name that is none, no field left over);
//! whether the values make sense is [`Entry::is_sane`]'s business. Called by [`Piece`]'s encoding.

use crate::attributes::{Attributes, Extra};
use crate::entry::{Entry, Kind, Timestamp};
use crate::limits;
use crate::message::{OwnerNames, Piece};
use crate::path::{Name, RelPath};
use bincode::de::Decoder;
use bincode::de::read::Reader as _;
use bincode::enc::Encoder;
use bincode::enc::write::Writer as _;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};
use std::collections::HashMap;
use std::sync::Arc;

// An entry's first byte: its kind, as `Kind`'s index, and what it has in common.
const KIND: u8 = 0b0000_0111;
const YOUNG: u8 = 0b0000_1000;
/// Mode, owner and group are those of the entry before.
const SAME_OWNER: u8 = 0b0001_0000;
/// The modification time is in the same second.
const SAME_SECOND: u8 = 0b0010_0000;
/// The modification time is a whole second.
const WHOLE_SECOND: u8 = 0b0100_0000;
/// More follows than every entry has.
const EXTRA: u8 = 0b1000_0000;

// What follows then, as the first byte of it says.
const ATTRIBUTES: u8 = 0b0000_0001;

/// What an entry counts against the decoder's limit: more than it takes in memory, whatever its name has in common with
/// the one before. With the limit of a frame that is less than 8,192 entries in one.
const ENTRY_CLAIM_BYTES: usize = 512;
/// About what an entry takes here.
const TYPICAL_BYTES: usize = 24;

impl Encode for Piece {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.list, &self.directory, self.last, self.complete, &self.names).encode(encoder)?;
        let bytes = encode_entries(&self.entries);
        (self.entries.len() as u64, bytes.len() as u64).encode(encoder)?;
        encoder.writer().write(&bytes)
    }
}

impl<Context> Decode<Context> for Piece {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Piece, DecodeError> {
        let (list, directory, last, complete) = <(u32, RelPath, bool, bool)>::decode(decoder)?;
        let names = OwnerNames::decode(decoder)?;
        let (count, length) = <(u64, u64)>::decode(decoder)?;
        let count = usize::try_from(count).ok().filter(|&count| count <= limits::PIECE_ENTRIES);
        let count = count.ok_or(DecodeError::Other("more entries than a piece may have"))?;
        decoder.claim_bytes_read(count * ENTRY_CLAIM_BYTES)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let bytes = decoder.reader().peek_read(length).ok_or(CUT_OFF)?;
        let (entries, attribute_bytes) = decode_entries(bytes, count)?;
        decoder.claim_bytes_read(attribute_bytes)?;
        decoder.reader().consume(length);
        Ok(Piece { list, directory, last, complete, names, entries })
    }
}

bincode::impl_borrow_decode!(Piece);

/// What the next entry is compared with; before the first one everything is zero, and the name empty.
#[derive(Default)]
struct Before<'a> {
    name: &'a [u8],
    owner: (u16, u32, u32),
    secs: i64,
}

fn encode_entries(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * TYPICAL_BYTES);
    let mut before = Before::default();
    let mut sets = HashMap::new();
    for entry in entries {
        encode_entry(entry, &before, &mut bytes);
        if let Some(extra) = &entry.extra {
            encode_extra(extra, &mut sets, &mut bytes);
        }
        let owner = (entry.mode, entry.uid, entry.gid);
        before = Before { name: entry.name.as_bytes(), owner, secs: entry.mtime.secs };
    }
    bytes
}

fn encode_entry(entry: &Entry, before: &Before<'_>, bytes: &mut Vec<u8>) {
    let set = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let flags = kind_index(&entry.kind)
        | set(entry.young, YOUNG)
        | set((entry.mode, entry.uid, entry.gid) == before.owner, SAME_OWNER)
        | set(entry.mtime.secs == before.secs, SAME_SECOND)
        | set(entry.mtime.nanos == 0, WHOLE_SECOND)
        | set(entry.extra.is_some(), EXTRA);
    let name = entry.name.as_bytes();
    let shared = name.iter().zip(before.name).take_while(|(a, b)| a == b).count();
    let rest = &name[shared..];
    // A name has at most 255 bytes.
    bytes.extend_from_slice(&[flags, shared as u8, rest.len() as u8]);
    bytes.extend_from_slice(rest);
    if flags & SAME_OWNER == 0 {
        push_number(bytes, u64::from(entry.mode));
        push_number(bytes, u64::from(entry.uid));
        push_number(bytes, u64::from(entry.gid));
    }
    if flags & SAME_SECOND == 0 {
        push_number(bytes, zigzag(entry.mtime.secs.wrapping_sub(before.secs)));
    }
    if flags & WHOLE_SECOND == 0 {
        bytes.extend_from_slice(&entry.mtime.nanos.to_le_bytes());
    }
    match &entry.kind {
        Kind::File { size_bytes } => push_number(bytes, *size_bytes),
        Kind::Symlink { target } => {
            push_number(bytes, target.len() as u64);
            bytes.extend_from_slice(target);
        }
        Kind::CharDevice { device: (major, minor) } | Kind::BlockDevice { device: (major, minor) } => {
            push_number(bytes, u64::from(*major));
            push_number(bytes, u64::from(*minor));
        }
        Kind::Directory | Kind::Fifo | Kind::Socket => {}
    }
}

/// A set of attributes goes by its number in the piece, and stands where it is first needed.
fn encode_extra<'a>(extra: &'a Extra, sets: &mut HashMap<&'a Attributes, u64>, bytes: &mut Vec<u8>) {
    bytes.push(if extra.attributes.is_some() { ATTRIBUTES } else { 0 });
    if let Some(attributes) = &extra.attributes {
        let next = sets.len() as u64;
        let number = *sets.entry(attributes).or_insert(next);
        push_number(bytes, number);
        if number == next {
            encode_attributes(attributes, bytes);
        }
    }
}

fn encode_attributes(attributes: &Attributes, bytes: &mut Vec<u8>) {
    push_number(bytes, attributes.len() as u64);
    for (name, value) in attributes.iter() {
        // A name has at most 255 bytes.
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name);
        push_number(bytes, value.len() as u64);
        bytes.extend_from_slice(value);
    }
}

fn kind_index(kind: &Kind) -> u8 {
    match kind {
        Kind::File { .. } => 0,
        Kind::Directory => 1,
        Kind::Symlink { .. } => 2,
        Kind::Fifo => 3,
        Kind::Socket => 4,
        Kind::CharDevice { .. } => 5,
        Kind::BlockDevice { .. } => 6,
    }
}

const CUT_OFF: DecodeError = DecodeError::Other("the entries end too early");
const OUT_OF_RANGE: DecodeError = DecodeError::Other("a number of an entry is out of range");

/// The entries, and what their attributes take in memory.
fn decode_entries(bytes: &[u8], count: usize) -> Result<(Vec<Entry>, usize), DecodeError> {
    let mut rest = Rest { bytes, sets: Sets::default() };
    let mut entries = Vec::with_capacity(count);
    let mut name = Vec::with_capacity(2 * limits::NAME_BYTES);
    let mut owner = (0, 0, 0);
    let mut secs = 0;
    for _ in 0..count {
        let entry = rest.entry(&mut name, owner, secs)?;
        owner = (entry.mode, entry.uid, entry.gid);
        secs = entry.mtime.secs;
        entries.push(entry);
    }
    if rest.bytes.is_empty() {
        Ok((entries, rest.sets.bytes))
    } else {
        Err(DecodeError::Other("bytes behind the last entry"))
    }
}

/// What of the input was not read yet.
struct Rest<'a> {
    bytes: &'a [u8],
    sets: Sets,
}

/// The sets of attributes that came so far.
#[derive(Default)]
struct Sets {
    all: Vec<Arc<Attributes>>,
    bytes: usize,
}

impl<'a> Rest<'a> {
    /// `name` is that of the entry before, and then this one's.
    fn entry(
        &mut self,
        name: &mut Vec<u8>,
        (mut mode, mut uid, mut gid): (u16, u32, u32),
        mut secs: i64,
    ) -> Result<Entry, DecodeError> {
        let &[flags, shared, own] = self.array()?;
        if usize::from(shared) > name.len() {
            return Err(DecodeError::Other("a name has more in common than there is"));
        }
        name.truncate(usize::from(shared));
        name.extend_from_slice(self.take(usize::from(own))?);
        let this = Name::new(&name[..]).map_err(|error| DecodeError::OtherString(error.to_string()))?;
        if flags & SAME_OWNER == 0 {
            (mode, uid, gid) = (self.number_as()?, self.number_as()?, self.number_as()?);
        }
        if flags & SAME_SECOND == 0 {
            secs = secs.wrapping_add(unzigzag(self.number()?));
        }
        let nanos = if flags & WHOLE_SECOND == 0 { u32::from_le_bytes(*self.array()?) } else { 0 };
        let kind = self.kind(flags & KIND)?;
        let extra = if flags & EXTRA == 0 { None } else { Some(Box::new(self.extra()?)) };
        let mtime = Timestamp { secs, nanos };
        Ok(Entry { name: this, kind, mode, uid, gid, mtime, young: flags & YOUNG != 0, extra })
    }

    fn extra(&mut self) -> Result<Extra, DecodeError> {
        let &[flags] = self.array()?;
        if flags & !ATTRIBUTES != 0 {
            return Err(DecodeError::Other("an unknown flag of an entry"));
        }
        let attributes = if flags & ATTRIBUTES == 0 { None } else { Some(self.set()?) };
        Ok(Extra { attributes })
    }

    fn set(&mut self) -> Result<Arc<Attributes>, DecodeError> {
        let number: usize = self.number_as()?;
        if number == self.sets.all.len() {
            let set = self.new_set()?;
            self.sets.bytes += set.cost_bytes();
            self.sets.all.push(Arc::new(set));
        }
        self.sets.all.get(number).cloned().ok_or(OUT_OF_RANGE)
    }

    fn new_set(&mut self) -> Result<Attributes, DecodeError> {
        let count: usize = self.number_as()?;
        let left = limits::PIECE_ATTRIBUTES_BYTES.saturating_sub(self.sets.bytes);
        let mut bytes = 0;
        let mut all = Vec::new();
        for _ in 0..count {
            let &[length] = self.array()?;
            let name = self.take(usize::from(length))?.to_vec();
            let length = self.number_as()?;
            let value = self.take(length)?.to_vec();
            bytes += Attributes::cost_of(&name, &value);
            if bytes > left.min(limits::ATTRIBUTES_BYTES) {
                return Err(DecodeError::Other("more attributes than an entry or a piece may have"));
            }
            all.push((name, value));
        }
        Attributes::new(all).map_err(|error| DecodeError::OtherString(error.to_string()))
    }

    fn kind(&mut self, index: u8) -> Result<Kind, DecodeError> {
        Ok(match index {
            0 => Kind::File { size_bytes: self.number()? },
            1 => Kind::Directory,
            2 => {
                let length = self.number_as()?;
                if length > limits::TARGET_BYTES {
                    return Err(OUT_OF_RANGE);
                }
                Kind::Symlink { target: self.take(length)?.to_vec() }
            }
            3 => Kind::Fifo,
            4 => Kind::Socket,
            5 => Kind::CharDevice { device: (self.number_as()?, self.number_as()?) },
            6 => Kind::BlockDevice { device: (self.number_as()?, self.number_as()?) },
            _ => return Err(DecodeError::Other("an unknown kind of entry")),
        })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(CUT_OFF)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<&'a [u8; LENGTH], DecodeError> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(CUT_OFF)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn number_as<T: TryFrom<u64>>(&mut self) -> Result<T, DecodeError> {
        T::try_from(self.number()?).map_err(|_| OUT_OF_RANGE)
    }

    /// Seven bits a byte, the lowest first; the highest bit says that more follow.
    fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let &[byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(OUT_OF_RANGE);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(OUT_OF_RANGE)
    }
}

fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use proptest::prelude::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![
            any::<u64>().prop_map(|size_bytes| Kind::File { size_bytes }),
            Just(Kind::Directory),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(|target| Kind::Symlink { target }),
            Just(Kind::Fifo),
            Just(Kind::Socket),
            any::<(u32, u32)>().prop_map(|device| Kind::CharDevice { device }),
            any::<(u32, u32)>().prop_map(|device| Kind::BlockDevice { device }),
        ]
    }

    prop_compose! {
        fn extras()(
            attributes in prop::option::of(prop::collection::btree_map("[a-c]{1,2}", prop::collection::vec(any::<u8>(), 0..9), 0..3)),
        ) -> Extra {
            let set = |all: std::collections::BTreeMap<String, Vec<u8>>| {
                Arc::new(Attributes::new(all.into_iter().map(|(name, value)| (name.into(), value))).unwrap())
            };
            Extra { attributes: attributes.map(set) }
        }
    }

    prop_compose! {
        fn entries()(
            name in "[ab]{1,3}[a-z]{0,252}",
            kind in kinds(),
            (mode, uid, gid) in prop_oneof![Just((0o644, 0, 0)), any::<(u16, u32, u32)>()],
            secs in prop_oneof![Just(0), Just(1_600_000_000), any::<i64>()],
            nanos in prop_oneof![Just(0), any::<u32>()],
            young in any::<bool>(),
            extra in prop::option::of(extras()),
        ) -> Entry {
            let name = Name::new(name).unwrap();
            Entry { name, kind, mode, uid, gid, mtime: Timestamp { secs, nanos }, young, extra: extra.map(Box::new) }
        }
    }

    fn piece(entries: Vec<Entry>) -> Piece {
        let directory = RelPath::new(*b"a/b").unwrap();
        Piece { list: 300, directory, last: true, complete: false, names: OwnerNames::default(), entries }
    }

    proptest! {
        #[test]
        fn entries_in_any_order_come_out_as_they_went_in(entries in prop::collection::vec(entries(), 0..40)) {
            let mut wire = Vec::new();
            codec::encode_into(&piece(entries.clone()), &mut wire);
            prop_assert_eq!(codec::decode_all::<Piece>(&wire, "piece").unwrap(), piece(entries));
            for cut in 0..wire.len() {
                prop_assert!(codec::decode_all::<Piece>(&wire[..cut], "piece").is_err());
            }
        }

        #[test]
        fn any_bytes_decode_to_entries_or_to_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            count in 0..20usize,
        ) {
            if let Ok((entries, _)) = decode_entries(&bytes, count) {
                prop_assert_eq!(entries.len(), count);
                prop_assert_eq!(decode_entries(&encode_entries(&entries), count).unwrap().0, entries);
            }
        }
    }

    #[test]
    fn what_no_encoder_writes_is_refused() {
        let entry = |bytes: &[u8]| decode_entries(bytes, 1).map_err(|error| format!("{error:?}"));
        let plain = SAME_OWNER | SAME_SECOND | WHOLE_SECOND;
        assert!(entry(&[plain | 1, 0, 1, b'a']).is_ok());
        for (bytes, expected) in [
            (&[plain | 1 | EXTRA, 0, 1, b'a', 0x80][..], "unknown flag"),
            (&[plain | 1 | EXTRA, 0, 1, b'a', ATTRIBUTES, 1], "out of range"),
            (&[plain | 1 | EXTRA, 0, 1, b'a', ATTRIBUTES, 0, 1, 0, 0], "empty"),
            (&[plain | 1 | EXTRA, 0, 1, b'a', ATTRIBUTES, 0, 1, 9], "too early"),
            (&[plain | 7, 0, 1, b'a'], "unknown kind"),
            (&[plain | 1, 1, 1, b'a'], "more in common"),
            (&[plain | 1, 0, 0], "an empty name"),
            (&[plain | 1, 0, 2, b'.', b'.'], "'.' or '..'"),
            (&[plain | 1, 0, 1, b'/'], "a slash"),
            (&[plain | 1, 0, 2, b'a'], "too early"),
            (&[plain | 1, 0, 1, b'a', 0], "behind the last"),
            (&[plain | 2, 0, 1, b'a', 0x81, 0x20], "out of range"),
            (&[plain & !SAME_OWNER | 1, 0, 1, b'a', 0x80, 0x80, 4, 0, 0], "out of range"),
            (&[plain, 0, 1, b'a', 255, 255, 255, 255, 255, 255, 255, 255, 255, 2], "out of range"),
            (&[plain, 0, 1, b'a', 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 0], "out of range"),
        ] {
            let error = entry(bytes).unwrap_err();
            assert!(error.contains(expected), "{bytes:?}: {error}");
        }
        let two = [&[plain | 1, 0, 255][..], &[b'a'; 255], &[plain | 1, 255, 1, b'a']].concat();
        assert!(decode_entries(&two, 2).is_err(), "a name of 256 bytes");
    }

    #[test]
    fn a_small_frame_cannot_claim_much_memory() {
        let long = Entry {
            name: Name::new([b'a'; limits::NAME_BYTES]).unwrap(),
            kind: Kind::Directory,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            young: false,
            extra: None,
        };
        let full = piece(vec![long; limits::PIECE_ENTRIES]);
        let pieces = |count: usize| {
            let mut wire = Vec::new();
            codec::encode_into(&vec![full.clone(); count], &mut wire);
            assert!(wire.len() < limits::FRAME_BYTES / 8);
            codec::decode_all::<Vec<Piece>>(&wire, "listing")
        };
        assert!(pieces(7).is_ok());
        assert!(pieces(8).is_err());
        let mut wire = Vec::new();
        let mut oversized = piece(Vec::new());
        oversized.entries = vec![full.entries[0].clone(); limits::PIECE_ENTRIES + 1];
        codec::encode_into(&oversized, &mut wire);
        assert!(codec::decode_all::<Piece>(&wire, "piece").is_err());
    }
}
