//! The one place that knows how messages become bytes.
//!
//! bincode 2 in its standard configuration (little endian, variable-length integers). Every decode is
//! limited to a frame's length, so that a declared length can never make the decoder allocate more
//! than was received, and must use up its input. Bulk bytes travel behind the message, outside bincode.

use crate::{ProtocolError, limits};
use bincode::{Decode, Encode, config};

type Config =
    config::Configuration<config::LittleEndian, config::Varint, config::Limit<{ limits::FRAME_BYTES * 4 }>>;

fn configuration() -> Config {
    config::standard().with_limit()
}

/// Appends `message` to `bytes`.
pub(crate) fn encode_into<T: Encode>(message: &T, bytes: &mut Vec<u8>) {
    let result = bincode::encode_into_std_write(message, bytes, configuration());
    result.expect("writing to a vector fails only past the limit, which the sender's bounds exclude");
}

/// Decodes a `what` that starts at the first byte of `bytes`; returns it with the rest.
pub(crate) fn decode<'a, T: Decode<()>>(
    bytes: &'a [u8],
    what: &'static str,
) -> Result<(T, &'a [u8]), ProtocolError> {
    match bincode::decode_from_slice(bytes, configuration()) {
        Ok((message, used)) => Ok((message, &bytes[used..])),
        Err(error) => Err(ProtocolError::Decode { what, why: error.to_string() }),
    }
}

/// Decodes a `what` that is all of `bytes`.
pub(crate) fn decode_all<T: Decode<()>>(bytes: &[u8], what: &'static str) -> Result<T, ProtocolError> {
    let (message, rest) = decode(bytes, what)?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(ProtocolError::Decode { what, why: format!("{} bytes too many", rest.len()) })
    }
}
