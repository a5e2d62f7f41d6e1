//! A picture to attach: a PNG that any program shows, the same bytes each time, larger than one packet.
//!
//! # Source
//! PNG (W3C, third edition) 11.2 for the chunks; RFC 1950 and RFC 1951 for the data, which is stored, not compressed.

/// Pixels a side; a row is a filter byte and three bytes a pixel, and all rows fit one stored block (65,535 bytes).
const SIDE: u8 = 96;

/// The file.
pub(crate) fn png() -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let side = u32::from(SIDE).to_be_bytes();
    // Eight bits a channel, red, green and blue, nothing interlaced.
    let header = [&side[..], &side, &[8, 2, 0, 0, 0]].concat();
    chunk(&mut file, b"IHDR", &header);
    chunk(&mut file, b"IDAT", &stored(&pixels()));
    chunk(&mut file, b"IEND", &[]);
    file
}

fn pixels() -> Vec<u8> {
    let row = |y: u8| {
        let pixel = move |x: u8| [x.wrapping_mul(2), y.wrapping_mul(2), x ^ y];
        std::iter::once(0).chain((0..SIDE).flat_map(pixel))
    };
    (0..SIDE).flat_map(row).collect()
}

fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    file.extend((data.len() as u32).to_be_bytes());
    let body = [kind, data].concat();
    file.extend(&body);
    file.extend(crc32(&body).to_be_bytes());
}

/// A zlib stream of one block that is stored.
fn stored(data: &[u8]) -> Vec<u8> {
    let len = data.len() as u16;
    let mut stream = vec![0x78, 0x01, 1];
    stream.extend(len.to_le_bytes());
    stream.extend((!len).to_le_bytes());
    stream.extend(data);
    stream.extend(adler32(data).to_be_bytes());
    stream
}

fn crc32(data: &[u8]) -> u32 {
    let remainder = data.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 })
    });
    !remainder
}

fn adler32(data: &[u8]) -> u32 {
    let (low, high) = data.iter().fold((1u32, 0u32), |(low, high), &byte| {
        let low = (low + u32::from(byte)) % 65_521;
        (low, (high + low) % 65_521)
    });
    high << 16 | low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_standards() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(adler32(b"Wikipedia"), 0x11E6_0398);
    }

    #[test]
    fn it_is_one_stored_block_and_always_the_same() {
        assert!(u16::try_from(pixels().len()).is_ok());
        assert_eq!(png(), png());
        assert!(png().ends_with(b"IEND\xae\x42\x60\x82"));
    }
}
