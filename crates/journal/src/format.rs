//! The bytes of a segment.
//!
//! ```text
//! segment  = header 64 ‖ records, each aligned to 8 ‖ zeros            (while it is written)
//!          = header 64 ‖ records ‖ footer record ‖ trailer 16          (sealed)
//! header   = "SKJSEG1\0" 8 ‖ journal id 16 ‖ segment id 8 ‖ first sequence 8 ‖ zeros 20
//!            ‖ CRC32C of the 60 bytes before 4
//! record   = "SKR1" 4 ‖ version 1 ‖ kind 1 ‖ meta length 2 ‖ body length 4 ‖ place in batch 4
//!            ‖ segment id 8 ‖ sequence 8 ‖ CRC of body 4 ‖ CRC of head 4 ‖ meta ‖ body ‖ zeros to 8
//! footer   = a record of kind 255: body = (offset 8 ‖ kind 1 ‖ meta length 2 ‖ body length 4 ‖ meta)…
//! trailer  = offset of the footer 8 ‖ "SKJF" 4 ‖ CRC32C of the 12 bytes before 4
//! ```
//! Integers are little-endian. The CRC of the head covers the journal's id, the 36 bytes before it
//! and the meta; so a record of another disk, another segment or an earlier use of the file never
//! passes. `place in batch` counts the records since the last fdatasync: a bad record followed by a
//! good one of a *later* batch was acknowledged once, and is damage; one followed by nothing, or only
//! by records of its own batch, is the torn end.

/// Length of a segment's header.
pub const SEGMENT_HEADER: usize = 64;
/// Length of a record's header.
pub const RECORD_HEADER: usize = 40;
/// Length of the trailer.
pub const TRAILER: usize = 16;
/// Kind of the footer.
pub const FOOTER: u8 = 255;
/// Alignment of records.
pub const ALIGN: u64 = 8;

const SEGMENT_MAGIC: &[u8; 8] = b"SKJSEG1\0";
/// First bytes of each record.
pub const RECORD_MAGIC: &[u8; 4] = b"SKR1";
const TRAILER_MAGIC: &[u8; 4] = b"SKJF";
const VERSION: u8 = 1;

/// A journal's random id.
pub type JournalId = [u8; 16];

fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(b.get(at..at + 2)?.try_into().ok()?))
}
fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?))
}
fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(b.get(at..at + 8)?.try_into().ok()?))
}

/// The header of a segment whose first record has that sequence.
pub fn segment_header(journal: &JournalId, segment: u64, sequence: u64) -> [u8; SEGMENT_HEADER] {
    let mut h = [0; SEGMENT_HEADER];
    h[..8].copy_from_slice(SEGMENT_MAGIC);
    h[8..24].copy_from_slice(journal);
    h[24..32].copy_from_slice(&segment.to_le_bytes());
    h[32..40].copy_from_slice(&sequence.to_le_bytes());
    let crc = crc32c::crc32c(&h[..60]);
    h[60..].copy_from_slice(&crc.to_le_bytes());
    h
}

/// Journal id, segment id and first sequence of a header; `None` when it is none.
pub fn read_segment_header(h: &[u8]) -> Option<(JournalId, u64, u64)> {
    let good = h.len() >= SEGMENT_HEADER && h.starts_with(SEGMENT_MAGIC) && u32_at(h, 60)? == crc32c::crc32c(&h[..60]);
    if good { Some((h[8..24].try_into().ok()?, u64_at(h, 24)?, u64_at(h, 32)?)) } else { None }
}

/// Whether it is a whole header of a version of segments that is not known here.
pub fn is_later_segment(h: &[u8]) -> bool {
    let whole = h.len() >= SEGMENT_HEADER && u32_at(h, 60) == Some(crc32c::crc32c(&h[..60]));
    whole && h.starts_with(&SEGMENT_MAGIC[..6]) && !h.starts_with(SEGMENT_MAGIC)
}

/// A record's header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// Kind.
    pub kind: u8,
    /// Bytes of meta.
    pub meta_len: u16,
    /// Bytes of body.
    pub body_len: u32,
    /// Records before it in its batch.
    pub in_batch: u32,
    /// Segment.
    pub segment: u64,
    /// Number over all segments.
    pub sequence: u64,
    /// CRC32C of the body.
    pub body_crc: u32,
}

impl Head {
    /// Bytes of header, meta and body (never none).
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        RECORD_HEADER as u64 + u64::from(self.meta_len) + u64::from(self.body_len)
    }

    /// Bytes up to the next record.
    pub fn stride(&self) -> u64 {
        self.len().next_multiple_of(ALIGN)
    }

    fn crc(journal: &JournalId, first: &[u8], meta: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(journal), first), meta)
    }

    /// Appends header and meta to a buffer.
    pub fn write(&self, journal: &JournalId, meta: &[u8], out: &mut Vec<u8>) {
        let mut h = [0u8; RECORD_HEADER];
        h[..4].copy_from_slice(RECORD_MAGIC);
        h[4] = VERSION;
        h[5] = self.kind;
        h[6..8].copy_from_slice(&self.meta_len.to_le_bytes());
        h[8..12].copy_from_slice(&self.body_len.to_le_bytes());
        h[12..16].copy_from_slice(&self.in_batch.to_le_bytes());
        h[16..24].copy_from_slice(&self.segment.to_le_bytes());
        h[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        h[32..36].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = Self::crc(journal, &h[..36], meta);
        h[36..].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&h);
        out.extend_from_slice(meta);
    }

    /// Reads a header alone, unchecked but for magic, version and segment. Its lengths are a guess
    /// until [`Head::verify`].
    pub fn peek(h: &[u8], segment: u64) -> Option<Head> {
        Self::peek_any(h, segment).filter(|_| Self::is_known(h))
    }

    /// Whether a header is of the version that is read here.
    pub fn is_known(h: &[u8]) -> bool {
        h.get(4) == Some(&VERSION)
    }

    /// [`Head::peek`] for all versions, of which those to come keep magic, version, lengths and CRC of the head where
    /// they are.
    pub fn peek_any(h: &[u8], segment: u64) -> Option<Head> {
        let head = Head {
            kind: *h.get(5)?,
            meta_len: u16_at(h, 6)?,
            body_len: u32_at(h, 8)?,
            in_batch: u32_at(h, 12)?,
            segment: u64_at(h, 16)?,
            sequence: u64_at(h, 24)?,
            body_crc: u32_at(h, 32)?,
        };
        (h.starts_with(RECORD_MAGIC) && head.segment == segment && h.len() >= RECORD_HEADER).then_some(head)
    }

    /// Whether header and meta (as many bytes as the header says) are what was written.
    pub fn verify(journal: &JournalId, header: &[u8], meta: &[u8]) -> bool {
        match (header.get(..36), u32_at(header, 36)) {
            (Some(first), Some(crc)) => crc == Self::crc(journal, first, meta),
            _ => false,
        }
    }
}

/// One record, as a footer lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Offset in the segment.
    pub offset: u64,
    /// Kind.
    pub kind: u8,
    /// Bytes of body.
    pub body_len: u32,
    /// Meta.
    pub meta: Vec<u8>,
}

impl Listed {
    /// Appends to a footer's body.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.push(self.kind);
        out.extend_from_slice(&(self.meta.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.body_len.to_le_bytes());
        out.extend_from_slice(&self.meta);
    }

    /// Reads a footer's body; `None` when it is none.
    pub fn read_all(mut body: &[u8]) -> Option<Vec<Listed>> {
        let mut all = Vec::new();
        while !body.is_empty() {
            let meta_len = u16_at(body, 9)? as usize;
            let meta = body.get(15..15 + meta_len)?.to_vec();
            all.push(Listed { offset: u64_at(body, 0)?, kind: *body.get(8)?, body_len: u32_at(body, 11)?, meta });
            body = body.get(15 + meta_len..)?;
        }
        Some(all)
    }
}

/// The trailer that points to a footer.
pub fn trailer(footer: u64) -> [u8; TRAILER] {
    let mut t = [0; TRAILER];
    t[..8].copy_from_slice(&footer.to_le_bytes());
    t[8..12].copy_from_slice(TRAILER_MAGIC);
    let crc = crc32c::crc32c(&t[..12]);
    t[12..].copy_from_slice(&crc.to_le_bytes());
    t
}

/// Where the footer is; `None` when these bytes are no trailer.
pub fn read_trailer(t: &[u8]) -> Option<u64> {
    let good = t.len() == TRAILER && t.get(8..12)? == TRAILER_MAGIC && u32_at(t, 12)? == crc32c::crc32c(&t[..12]);
    if good { u64_at(t, 0) } else { None }
}
