//! Every byte of a checkpoint file. Pure: bytes in, values out. `docs/STORE_FORMAT.md` has the same drawing.
//!
//! ```text
//!        0       8         10  12       16        32     40         44           48
//! file   | magic | version | 0 | meta_bytes | cluster | node | meta_crc | header_crc | meta | chunk 0 | chunk 1 | ... | table | footer |
//!
//!        0       8         16      24     32                    36                 40
//! meta   | group | replica | index | term | configuration_bytes | descriptor_bytes | configuration | descriptor |
//!
//!        0        4     8
//! table  | length | crc | for each chunk
//!
//!        0       8        16            24          28           32
//! footer | magic | chunks | chunk_bytes | table_crc | footer_crc |
//! ```
//!
//! Numbers are little-endian. `header_crc` covers bytes 0..44, `meta_crc` the meta, `table_crc` the table. `footer_crc` covers
//! `meta_crc` and then bytes 0..28 of the footer; the crc of a chunk covers `meta_crc`, the number of the chunk (8 bytes) and
//! its bytes. So a footer or a chunk of another checkpoint, or from another place in this one, does not pass for its own.
//!
//! The footer is written last, and its numbers give the length of the file to the byte: a file that was not written to its
//! end is never taken for one that was.
//!
//! Left out in this version: compression, encryption.

use bytes::Bytes;
use pontoon_types::limits::{CHECKPOINT_CHUNKS_MAX, CHECKPOINT_META_BYTES_MAX, SNAPSHOT_CHUNK_BYTES_MAX};
use pontoon_types::{ClusterId, GroupId, Index, LogId, NodeId, ReplicaId, SnapshotMeta, Term};

use crate::descriptor_record;

/// The version that is written, and the only one that is read.
pub const FORMAT_VERSION: u16 = 1;

/// How a checkpoint file begins.
pub const MAGIC: [u8; 8] = *b"PONTCKP\0";

/// How its footer begins.
pub const FOOTER_MAGIC: [u8; 8] = *b"PONTCKE\0";

/// Bytes of the header.
pub const HEADER_BYTES: usize = HEADER_CRC_AT + 4;

/// Bytes of the footer.
pub const FOOTER_BYTES: usize = FOOTER_CRC_AT + 4;

/// Bytes of the table for each chunk.
pub const TABLE_ROW_BYTES: usize = 8;

const VERSION_AT: usize = MAGIC.len();
const META_BYTES_AT: usize = VERSION_AT + 2 + 2;
const CLUSTER_AT: usize = META_BYTES_AT + 4;
const NODE_AT: usize = CLUSTER_AT + 16;
const META_CRC_AT: usize = NODE_AT + 8;
const HEADER_CRC_AT: usize = META_CRC_AT + 4;

const META_HEAD_BYTES: usize = 4 * 8 + 2 * 4;

const CHUNKS_AT: usize = FOOTER_MAGIC.len();
const CHUNK_BYTES_AT: usize = CHUNKS_AT + 8;
const TABLE_CRC_AT: usize = CHUNK_BYTES_AT + 8;
const FOOTER_CRC_AT: usize = TABLE_CRC_AT + 4;

/// Whose directory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
}

/// The first bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose it is.
    pub owner: Owner,
    /// Bytes of the meta behind it.
    pub meta_bytes: u32,
    /// The checksum of the meta.
    pub meta_crc: u32,
}

/// The last bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// How many chunks there are.
    pub chunks: u64,
    /// The bytes of all of them.
    pub chunk_bytes: u64,
    /// The checksum of the table before it.
    pub table_crc: u32,
}

/// One line of the table: a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its bytes.
    pub length: u32,
    /// Its checksum; see [`chunk_crc`].
    pub crc: u32,
}

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They are not what was written.
    Damaged(&'static str),
    /// They are whole, and a newer build wrote them.
    Version(u16),
}

impl From<&'static str> for Fault {
    fn from(what: &'static str) -> Fault {
        Fault::Damaged(what)
    }
}

impl Header {
    /// The bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..VERSION_AT].copy_from_slice(&MAGIC);
        bytes[VERSION_AT..VERSION_AT + 2].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[META_BYTES_AT..CLUSTER_AT].copy_from_slice(&self.meta_bytes.to_le_bytes());
        bytes[CLUSTER_AT..NODE_AT].copy_from_slice(&self.owner.cluster.0.to_le_bytes());
        bytes[NODE_AT..META_CRC_AT].copy_from_slice(&self.owner.node.0.to_le_bytes());
        bytes[META_CRC_AT..HEADER_CRC_AT].copy_from_slice(&self.meta_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..HEADER_CRC_AT]);
        bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads what [`Header::encode`] wrote.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, Fault> {
        if bytes[..VERSION_AT] != MAGIC {
            return Err(Fault::Damaged("it does not begin as a checkpoint does"));
        }
        if crc32fast::hash(&bytes[..HEADER_CRC_AT]) != number32(bytes, HEADER_CRC_AT) {
            return Err(Fault::Damaged("the checksum of its header does not match"));
        }
        let version = u16::from_le_bytes([bytes[VERSION_AT], bytes[VERSION_AT + 1]]);
        if version != FORMAT_VERSION {
            return Err(Fault::Version(version));
        }
        let meta_bytes = number32(bytes, META_BYTES_AT);
        if meta_bytes as usize > CHECKPOINT_META_BYTES_MAX {
            return Err(Fault::Damaged("its meta is longer than any can be"));
        }
        let cluster = bytes[CLUSTER_AT..NODE_AT].try_into().map_err(|_| "it is cut short")?;
        let owner = Owner { cluster: ClusterId(u128::from_le_bytes(cluster)), node: NodeId(number64(bytes, NODE_AT)) };
        Ok(Header { owner, meta_bytes, meta_crc: number32(bytes, META_CRC_AT) })
    }
}

/// The bytes of what a checkpoint says of itself.
pub fn encode_meta(meta: &SnapshotMeta) -> Vec<u8> {
    let descriptor = descriptor_record::encode(&meta.descriptor);
    let mut bytes = Vec::with_capacity(META_HEAD_BYTES + meta.configuration.len() + descriptor.len());
    for number in [meta.group.0, meta.replica.0, meta.last.index.0, meta.last.term.0] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for part in [&meta.configuration, &descriptor] {
        bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
    }
    bytes.extend_from_slice(&meta.configuration);
    bytes.extend_from_slice(&descriptor);
    bytes
}

/// Reads what [`encode_meta`] wrote.
pub fn decode_meta(bytes: &[u8]) -> Result<SnapshotMeta, &'static str> {
    let (head, parts) = bytes.split_at_checked(META_HEAD_BYTES).ok_or("its meta is cut short")?;
    let (configuration_bytes, descriptor_bytes) = (number32(head, 32) as usize, number32(head, 36) as usize);
    if configuration_bytes.checked_add(descriptor_bytes) != Some(parts.len()) {
        return Err("the parts of its meta do not fill it");
    }
    let (configuration, descriptor) = parts.split_at(configuration_bytes);
    Ok(SnapshotMeta {
        group: GroupId(number64(head, 0)),
        replica: ReplicaId(number64(head, 8)),
        last: LogId::new(Index(number64(head, 16)), Term(number64(head, 24))),
        configuration: Bytes::copy_from_slice(configuration),
        descriptor: descriptor_record::decode(descriptor).ok_or("its descriptor is unreadable")?,
    })
}

impl Footer {
    /// The bytes, for the file with this meta.
    pub fn encode(&self, meta_crc: u32) -> [u8; FOOTER_BYTES] {
        let mut bytes = [0; FOOTER_BYTES];
        bytes[..CHUNKS_AT].copy_from_slice(&FOOTER_MAGIC);
        bytes[CHUNKS_AT..CHUNK_BYTES_AT].copy_from_slice(&self.chunks.to_le_bytes());
        bytes[CHUNK_BYTES_AT..TABLE_CRC_AT].copy_from_slice(&self.chunk_bytes.to_le_bytes());
        bytes[TABLE_CRC_AT..FOOTER_CRC_AT].copy_from_slice(&self.table_crc.to_le_bytes());
        let crc = seeded_crc(meta_crc, &[&bytes[..FOOTER_CRC_AT]]);
        bytes[FOOTER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads what [`Footer::encode`] wrote, in the file with this meta.
    pub fn decode(bytes: &[u8; FOOTER_BYTES], meta_crc: u32) -> Result<Footer, &'static str> {
        if bytes[..CHUNKS_AT] != FOOTER_MAGIC {
            return Err("it has no footer: it was not written to its end");
        }
        if seeded_crc(meta_crc, &[&bytes[..FOOTER_CRC_AT]]) != number32(bytes, FOOTER_CRC_AT) {
            return Err("the checksum of its footer does not match");
        }
        let (chunks, chunk_bytes) = (number64(bytes, CHUNKS_AT), number64(bytes, CHUNK_BYTES_AT));
        if chunks > CHECKPOINT_CHUNKS_MAX || chunk_bytes > chunks * SNAPSHOT_CHUNK_BYTES_MAX as u64 {
            return Err("it claims more chunks or bytes than any checkpoint has");
        }
        Ok(Footer { chunks, chunk_bytes, table_crc: number32(bytes, TABLE_CRC_AT) })
    }

    /// Bytes of the table before it.
    pub fn table_bytes(&self) -> u64 {
        self.chunks * TABLE_ROW_BYTES as u64
    }
}

impl Row {
    /// The row of a chunk.
    pub fn of(meta_crc: u32, number: u64, chunk: &[u8]) -> Row {
        Row { length: chunk.len() as u32, crc: chunk_crc(meta_crc, number, chunk) }
    }

    /// The bytes.
    pub fn encode(&self) -> [u8; TABLE_ROW_BYTES] {
        let mut bytes = [0; TABLE_ROW_BYTES];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }
}

/// All rows of a table, which `footer` describes.
pub fn decode_table(bytes: &[u8], footer: &Footer) -> Result<Vec<Row>, &'static str> {
    if crc32fast::hash(bytes) != footer.table_crc {
        return Err("the checksum of its table does not match");
    }
    let row = |bytes: &[u8]| Row { length: number32(bytes, 0), crc: number32(bytes, 4) };
    let rows: Vec<Row> = bytes.chunks_exact(TABLE_ROW_BYTES).map(row).collect();
    let fits = rows.iter().all(|row| row.length as usize <= SNAPSHOT_CHUNK_BYTES_MAX);
    let sum: u64 = rows.iter().map(|row| u64::from(row.length)).sum();
    if !fits || rows.len() as u64 != footer.chunks || sum != footer.chunk_bytes {
        return Err("its table does not fit its footer");
    }
    Ok(rows)
}

/// The checksum of one chunk of the file with this meta.
pub fn chunk_crc(meta_crc: u32, number: u64, chunk: &[u8]) -> u32 {
    seeded_crc(meta_crc, &[&number.to_le_bytes(), chunk])
}

fn seeded_crc(seed: u32, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

fn number32(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn number64(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use pontoon_types::{Descriptor, Generation, KeyRange, Member};

    use super::*;

    fn owner() -> Owner {
        Owner { cluster: ClusterId(0x1112_1314), node: NodeId(0x21) }
    }

    fn meta() -> SnapshotMeta {
        SnapshotMeta {
            group: GroupId(2),
            replica: ReplicaId(3),
            last: LogId::new(Index(0x41), Term(5)),
            configuration: Bytes::from_static(b"members"),
            descriptor: Descriptor {
                group: GroupId(2),
                range: KeyRange { start: Bytes::from_static(b"a"), end: None },
                members: [Member { node: NodeId(1), replica: ReplicaId(3) }].into(),
                generation: Generation(4),
            },
        }
    }

    #[test]
    fn the_layout_is_frozen() {
        let meta = encode_meta(&meta());
        let descriptor = descriptor_record::encode(&super::tests::meta().descriptor);
        let expected = [
            &[2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0][..],
            &[0x41, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0],
            &[7, 0, 0, 0, 47, 0, 0, 0],
            b"members",
            &descriptor,
        ]
        .concat();
        assert_eq!(meta, expected);
        let header = Header { owner: owner(), meta_bytes: meta.len() as u32, meta_crc: 0x6162_6364 }.encode();
        let expected = [
            &b"PONTCKP\0"[..],
            &[1, 0, 0, 0],
            &[94, 0, 0, 0],
            &[0x14, 0x13, 0x12, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x21, 0, 0, 0, 0, 0, 0, 0],
            &[0x64, 0x63, 0x62, 0x61],
        ]
        .concat();
        assert_eq!(header[..44], expected);
        assert_eq!(number32(&header, 44), crc32fast::hash(&expected));
        let footer = Footer { chunks: 2, chunk_bytes: 0x1234, table_crc: 0x7172_7374 }.encode(0x6162_6364);
        let expected =
            [&b"PONTCKE\0"[..], &[2, 0, 0, 0, 0, 0, 0, 0], &[0x34, 0x12, 0, 0, 0, 0, 0, 0], &[0x74, 0x73, 0x72, 0x71]]
                .concat();
        assert_eq!(footer[..28], expected);
        let sealed = [&[0x64, 0x63, 0x62, 0x61][..], &expected].concat();
        assert_eq!(number32(&footer, 28), crc32fast::hash(&sealed));
        let row = Row::of(0x6162_6364, 7, b"abc");
        let summed = [&[0x64, 0x63, 0x62, 0x61, 7, 0, 0, 0, 0, 0, 0, 0][..], b"abc"].concat();
        assert_eq!(row, Row { length: 3, crc: crc32fast::hash(&summed) });
        assert_eq!(row.encode()[..4], [3, 0, 0, 0]);
        assert_eq!(number32(&row.encode(), 4), row.crc);
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(decode_meta(&encode_meta(&meta())), Ok(meta()));
        let header = Header { owner: owner(), meta_bytes: 52, meta_crc: 9 };
        assert_eq!(Header::decode(&header.encode()), Ok(header));
        let table = [Row::of(9, 0, b"abc").encode(), Row::of(9, 1, b"").encode()].concat();
        let footer = Footer { chunks: 2, chunk_bytes: 3, table_crc: crc32fast::hash(&table) };
        assert_eq!(Footer::decode(&footer.encode(9), 9), Ok(footer));
        assert_eq!(decode_table(&table, &footer).unwrap()[0].length, 3);
    }

    #[test]
    fn each_flipped_bit_is_seen() {
        let header = Header { owner: owner(), meta_bytes: 52, meta_crc: 9 }.encode();
        for bit in 0..header.len() * 8 {
            let mut bytes = header;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Header::decode(&bytes), Err(Fault::Damaged(_))), "bit {bit}");
        }
        let footer = Footer { chunks: 2, chunk_bytes: 3, table_crc: 4 }.encode(9);
        for bit in 0..footer.len() * 8 {
            let mut bytes = footer;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Footer::decode(&bytes, 9).is_err(), "bit {bit}");
        }
        assert!(Footer::decode(&footer, 8).is_err(), "a footer of another checkpoint");
    }

    /// A header with other fields, and the checksum that goes with them.
    fn forged(change: impl FnOnce(&mut [u8])) -> [u8; HEADER_BYTES] {
        let mut bytes = Header { owner: owner(), meta_bytes: 52, meta_crc: 9 }.encode();
        change(&mut bytes);
        let crc = crc32fast::hash(&bytes[..HEADER_CRC_AT]);
        bytes[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn an_unknown_version_is_told_from_damage_and_lengths_are_bounded() {
        assert_eq!(Header::decode(&forged(|bytes| bytes[VERSION_AT] = 2)), Err(Fault::Version(2)));
        let long = forged(|bytes| bytes[META_BYTES_AT + 3] = 1);
        assert_eq!(Header::decode(&long), Err(Fault::Damaged("its meta is longer than any can be")));
        let huge = Footer { chunks: CHECKPOINT_CHUNKS_MAX + 1, chunk_bytes: 0, table_crc: 0 };
        assert!(Footer::decode(&huge.encode(9), 9).is_err());
        let many = Footer { chunks: 1, chunk_bytes: SNAPSHOT_CHUNK_BYTES_MAX as u64 + 1, table_crc: 0 };
        assert!(Footer::decode(&many.encode(9), 9).is_err());
        let mut short = encode_meta(&meta());
        short.pop();
        assert!(decode_meta(&short).is_err() && decode_meta(&short[..20]).is_err());
        let table = Row { length: SNAPSHOT_CHUNK_BYTES_MAX as u32 + 1, crc: 0 }.encode();
        let footer = Footer { chunks: 1, chunk_bytes: 5, table_crc: crc32fast::hash(&table) };
        assert!(decode_table(&table, &footer).is_err());
        assert!(decode_table(&[], &Footer { table_crc: crc32fast::hash(&[]), ..footer }).is_err());
    }
}
