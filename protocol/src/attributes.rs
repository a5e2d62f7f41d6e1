//! What an entry has beyond what every entry has, told only where an option asks for it.
//!
//! Extended attributes and ACLs are one set of names with values, in order of the names' bytes, so that two sets compare by
//! comparing bytes. A set is bounded before anything else looks at it ([`limits::ATTRIBUTES_BYTES`]); an entry
//! with more is copied without them, and reported.

use crate::limits;
use bincode::{Decode, Encode};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What options ask to be told of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Extra {
    /// Its extended attributes and ACLs, shared by those that have the same; none where they are not asked for, or could
    /// not be read: then the destination's stay as they are.
    pub attributes: Option<Arc<Attributes>>,
}

/// Extended attributes by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Attributes(BTreeMap<Vec<u8>, Vec<u8>>);

/// A set that is not carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttributesError {
    /// More than [`limits::ATTRIBUTES_BYTES`].
    #[error("more extended attributes than are carried for one entry")]
    TooLarge,
    /// Linux has no such name.
    #[error("a name of an extended attribute that is empty, too long or has a NUL, or comes twice")]
    Name,
}

/// What an attribute takes beside its bytes.
const ATTRIBUTE_OVERHEAD_BYTES: usize = 64;

impl Attributes {
    /// A set of names with their values.
    ///
    /// # Errors
    /// A name that Linux does not have, or more than is carried.
    pub fn new(all: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Attributes, AttributesError> {
        let mut set = Attributes::default();
        let mut bytes = 0;
        for (name, value) in all {
            if name.is_empty() || name.len() > limits::NAME_BYTES || name.contains(&0) {
                return Err(AttributesError::Name);
            }
            bytes += Attributes::cost_of(&name, &value);
            if bytes > limits::ATTRIBUTES_BYTES {
                return Err(AttributesError::TooLarge);
            }
            if set.0.insert(name, value).is_some() {
                return Err(AttributesError::Name);
            }
        }
        Ok(set)
    }

    /// Names and values, in order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (&name[..], &value[..]))
    }

    /// The value of one.
    #[must_use]
    pub fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those whose names `takes` says yes to.
    #[must_use]
    pub fn only(&self, takes: impl Fn(&[u8]) -> bool) -> Attributes {
        let taken = self.0.iter().filter(|(name, _)| takes(name));
        Attributes(taken.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    /// Puts `value` in the place of a value.
    pub fn replace(&mut self, name: &[u8], value: Vec<u8>) {
        if let Some(place) = self.0.get_mut(name) {
            *place = value;
        }
    }

    /// What it takes, on the wire and in memory.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| Attributes::cost_of(name, value)).sum()
    }

    pub(crate) fn cost_of(name: &[u8], value: &[u8]) -> usize {
        name.len() + value.len() + ATTRIBUTE_OVERHEAD_BYTES
    }
}

impl Encode for Attributes {
    fn encode<E: bincode::enc::Encoder>(&self, encoder: &mut E) -> Result<(), bincode::error::EncodeError> {
        let all: Vec<(&[u8], &[u8])> = self.iter().collect();
        all.encode(encoder)
    }
}

impl<Context> Decode<Context> for Attributes {
    fn decode<D: bincode::de::Decoder<Context = Context>>(
        decoder: &mut D,
    ) -> Result<Attributes, bincode::error::DecodeError> {
        let all = Vec::<(Vec<u8>, Vec<u8>)>::decode(decoder)?;
        Attributes::new(all).map_err(|error| bincode::error::DecodeError::OtherString(error.to_string()))
    }
}

bincode::impl_borrow_decode!(Attributes);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_linux_can_have_and_a_frame_can_carry_is_a_set() {
        let of = |name: &[u8], bytes: usize| Attributes::new([(name.to_vec(), vec![1; bytes])]);
        assert_eq!(of(b"user.a", 64 << 10).map(|set| set.len()), Ok(1));
        assert_eq!(of(b"", 1), Err(AttributesError::Name));
        assert_eq!(of(b"user.\0", 1), Err(AttributesError::Name));
        assert_eq!(of(&[b'a'; 256], 1), Err(AttributesError::Name));
        assert_eq!(of(b"user.a", limits::ATTRIBUTES_BYTES), Err(AttributesError::TooLarge));
        let twice = [(b"user.a".to_vec(), Vec::new()), (b"user.a".to_vec(), Vec::new())];
        assert_eq!(Attributes::new(twice), Err(AttributesError::Name));
    }
}
