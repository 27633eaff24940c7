//! Reads one checkpoint back from its segments.

use bytes::Bytes;

use crate::format::control::CheckpointRef;
use crate::format::group::Group;
use crate::format::segment_header::{SegmentHeader, Stream};
use crate::format::{BLOCK_BYTES, LogEnd, Lsn, SegmentId, SegmentKey};
use crate::state::checkpoint::{Decoder, Loaded, Unreadable};

/// One segment of the checkpoint stream.
pub(crate) struct CheckpointImage {
    pub(crate) header: SegmentHeader,
    pub(crate) bytes: Bytes,
}

/// Reads the checkpoint that `reference` names and says which segments it stands in. `image` finds a segment of the
/// checkpoint stream. The error says why it is none.
pub(crate) fn read(
    reference: &CheckpointRef,
    image: &mut dyn FnMut(SegmentId) -> Result<CheckpointImage, String>,
) -> Result<(Loaded, Vec<SegmentKey>), Unreadable> {
    let mut images = vec![image(reference.end.place.segment)?];
    loop {
        let oldest = &images[images.len() - 1].header;
        if oldest.stream != Stream::Checkpoint {
            return Err(format!("segment {} is none of the checkpoint stream", oldest.segment).into());
        }
        if oldest.previous == reference.start || oldest.segment == reference.start.place.segment {
            break;
        }
        if oldest.previous.place.segment >= oldest.segment {
            return Err(format!("segment {} follows a newer one", oldest.segment).into());
        }
        let previous = oldest.previous.place.segment;
        images.push(image(previous)?);
    }
    images.reverse();
    let mut decoder = Decoder::default();
    let mut end = reference.start;
    for (position, image) in images.iter().enumerate() {
        let until = images.get(position + 1).map_or(reference.end, |next| next.header.previous);
        end = read_segment(image, end, &until, &mut decoder)?;
    }
    let files = images.iter().map(|image| image.header.segment.key()).collect();
    Ok((decoder.finish()?, files))
}

fn read_segment(
    image: &CheckpointImage,
    mut end: LogEnd,
    until: &LogEnd,
    decoder: &mut Decoder,
) -> Result<LogEnd, Unreadable> {
    let header = &image.header;
    if end.place.segment != header.segment {
        end.place.segment = header.segment;
        end.place.offset = BLOCK_BYTES as u64;
    }
    while end.place.offset < until.place.offset {
        let at = end.place.offset as usize;
        let unreadable = |why: String| format!("the group at {at} of segment {} is unreadable: {why}", header.segment);
        let place = Lsn { segment: header.segment, offset: at as u64 };
        let group = Group::check(&image.bytes, header.identity.log, at)
            .map_err(|fault| Unreadable::of(fault, place, |fault| unreadable(fault.to_string())))?;
        let follows = group.header.segment == header.segment
            && group.header.salt == header.salt
            && Some(group.header.seq.0) == end.seq.0.checked_add(1)
            && group.header.prev_chain == end.chain;
        if !follows {
            return Err(unreadable("it does not follow the one before it".to_string()).into());
        }
        decoder.take(header.segment, &group)?;
        end.place.offset += group.header.group_len() as u64;
        end.seq = group.header.seq;
        end.chain = group.chain;
    }
    if end == *until { Ok(end) } else { Err(format!("segment {} ends elsewhere", header.segment).into()) }
}
