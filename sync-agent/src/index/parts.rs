//! Records of some megabytes in tables of the index, a file's in parts, because redb takes a page for each value.
//!
//! | key, 20 bytes | value |
//! |---|---|
//! | the file's key 16, 0 u32 | head: generation u32, and more |
//! | the file's key 16, part from 1 u32 | generation u32; up to 32,000 bytes |

use super::{Key, number};
use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _};
use redb::{Table, TableDefinition};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

type PartKey = [u8; 20];

pub(super) type Definition = TableDefinition<'static, PartKey, &'static [u8]>;

pub(super) const GENERATION_BYTES: usize = 4;
/// The number of the head among the parts.
pub(super) const HEAD: u32 = 0;
/// With the generation less than 32 KiB: one more byte would take a page of twice that.
const PART_BYTES: usize = 32_000;

/// A record to be written.
pub(super) struct Kept<'a> {
    pub(super) key: Key,
    pub(super) generation: u32,
    /// Its head, which begins with the generation; none where it comes later.
    pub(super) head: Option<&'a [u8]>,
    pub(super) bytes: &'a [u8],
}

pub(super) fn key(key: &Key, part: u32) -> PartKey {
    let mut whole = [0; 20];
    whole[..16].copy_from_slice(key);
    whole[16..].copy_from_slice(&part.to_be_bytes());
    whole
}

fn all_parts(of: &Key) -> RangeInclusive<PartKey> {
    key(of, HEAD)..=key(of, u32::MAX)
}

/// A record's head, and its bytes.
type Found = (Vec<u8>, Vec<u8>);

/// A record, if it has a head.
pub(super) fn find(database: &Database, table: Definition, of: &Key) -> Result<Option<Found>, redb::Error> {
    let table = database.begin_read()?.open_table(table)?;
    let (mut head, mut bytes) = (None, Vec::new());
    for entry in table.range(all_parts(of))? {
        let (part, stored) = entry?;
        if part.value() == key(of, HEAD) {
            head = Some(stored.value().to_vec());
        } else {
            bytes.extend_from_slice(stored.value().get(GENERATION_BYTES..).unwrap_or_default());
        }
    }
    Ok(head.map(|head| (head, bytes)))
}

/// Replaces what was kept under the key; the oldest go where there are more than so many parts then.
pub(super) fn write(
    database: &Database,
    table: Definition,
    kept: &Kept<'_>,
    most_parts: u64,
) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::None)?;
    let mut table = transaction.open_table(table)?;
    table.retain_in(all_parts(&kept.key), |_, _| false)?;
    if let Some(head) = kept.head {
        table.insert(key(&kept.key, HEAD), head)?;
    }
    for (part, bytes) in (HEAD + 1..).zip(kept.bytes.chunks(PART_BYTES)) {
        let mut stored = kept.generation.to_le_bytes().to_vec();
        stored.extend_from_slice(bytes);
        table.insert(key(&kept.key, part), stored.as_slice())?;
    }
    if table.len()? > most_parts {
        drop_oldest(&mut table, most_parts / 4 * 3)?;
    }
    drop(table);
    Ok(transaction.commit()?)
}

/// Forgets a record; writes nothing where there is none.
pub(super) fn forget(database: &Database, table: Definition, of: &Key) -> Result<(), redb::Error> {
    if database.begin_read()?.open_table(table)?.range(all_parts(of))?.next().is_none() {
        return Ok(());
    }
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::None)?;
    transaction.open_table(table)?.retain_in(all_parts(of), |_, _| false)?;
    Ok(transaction.commit()?)
}

/// Whole generations go, oldest first, until at most `kept` parts are left; the youngest stays.
fn drop_oldest(table: &mut Table<'_, PartKey, &[u8]>, kept: u64) -> Result<(), redb::Error> {
    let mut counts = BTreeMap::<u32, u64>::new();
    for entry in table.iter()? {
        *counts.entry(number(entry?.1.value())).or_default() += 1;
    }
    let mut left = table.len()?;
    let youngest = counts.last_key_value().map_or(0, |(&generation, _)| generation);
    let mut oldest_kept = 0;
    for (generation, count) in counts {
        if left > kept && generation < youngest {
            left -= count;
            oldest_kept = generation + 1;
        }
    }
    table.retain(|_, stored| number(stored) >= oldest_kept).map_err(Into::into)
}
