//! The control file and the first blocks of the slot files, readable or not.

use std::io;

use super::disk;
use crate::LogError;
use crate::format::control::{CONTROL_BYTES, Control};
use crate::format::segment_header::SegmentHeader;
use crate::format::{BLOCK_BYTES, CONTROL_NAME, Fault, SegmentId, Seq, slot_of};
use crate::storage::{Access, AlignedBuffer, Storage};
use crate::unreadable::REFUSED;

/// The newest block of the control file that can be read, and the faults of the others by their offsets.
pub(crate) type ControlRead = (Option<Control>, Vec<(u64, Fault)>);

/// What a slot file is, by its first block.
pub(crate) enum Content {
    Unused,
    Segment(SegmentHeader),
    Unreadable(Fault),
}

/// One slot file.
pub(crate) struct SlotFile {
    pub(crate) name: String,
    pub(crate) slot: u32,
    pub(crate) bytes: u64,
    pub(crate) content: Content,
}

/// The newest block of the control file, and the faults of the blocks that cannot be read.
pub(crate) fn read_control(storage: &dyn Storage) -> Result<ControlRead, LogError> {
    let not_a_log = || LogError::NotALog { place: storage.place() };
    let file = match storage.open(CONTROL_NAME, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_a_log()),
        Err(error) => return Err(LogError::io("opening ctl")(error)),
    };
    if file.bytes() < CONTROL_BYTES as u64 {
        return Err(not_a_log());
    }
    let mut buffer = AlignedBuffer::new(CONTROL_BYTES);
    let refused = disk::load(file.as_ref(), 0, buffer.bytes_mut())?;
    let (mut newest, mut faults) = (None, Vec::new());
    for (number, block) in buffer.bytes().chunks(BLOCK_BYTES).enumerate() {
        let offset = (number * BLOCK_BYTES) as u64;
        let found = if refused.contains(&offset) { Err(Fault::Bad(REFUSED)) } else { Control::decode(block) };
        match found {
            Ok(control) if newest.is_none_or(|best: Control| best.generation < control.generation) => {
                newest = Some(control);
            }
            Ok(_) => {}
            Err(fault) if fault.is_unknown() => {
                let (file, what) = (CONTROL_NAME.to_string(), fault.to_string());
                return Err(LogError::UnknownFormat { file, offset, what });
            }
            Err(fault) => faults.push((offset, fault)),
        }
    }
    Ok((newest, faults))
}

pub(crate) fn read_slots(storage: &dyn Storage) -> Result<Vec<SlotFile>, LogError> {
    let mut names = storage.names().map_err(LogError::io("listing the files of the log"))?;
    names.sort();
    let mut block = AlignedBuffer::new(BLOCK_BYTES);
    let mut slots = Vec::new();
    for name in names {
        let Some(slot) = slot_of(&name, ".seg") else { continue };
        let file = disk::open(storage, &name)?;
        let refused = disk::load(file.as_ref(), 0, block.bytes_mut())?;
        let content = match SegmentHeader::decode(block.bytes()) {
            _ if !refused.is_empty() => Content::Unreadable(Fault::Bad(REFUSED)),
            Ok(header) => Content::Segment(header),
            Err(Fault::Unwritten) => Content::Unused,
            Err(fault) if fault.is_unknown() => {
                return Err(LogError::UnknownFormat { file: name, offset: 0, what: fault.to_string() });
            }
            Err(fault) => Content::Unreadable(fault),
        };
        slots.push(SlotFile { name, slot, bytes: file.bytes(), content });
    }
    Ok(slots)
}

/// What the segments say when the control file says nothing.
pub(crate) fn control_of(slots: &[SlotFile], faults: &[(u64, Fault)]) -> Result<Control, LogError> {
    let headers: Vec<&SegmentHeader> = slots
        .iter()
        .filter_map(|file| match &file.content {
            Content::Segment(header) => Some(header),
            Content::Unused | Content::Unreadable(_) => None,
        })
        .collect();
    let newest = headers.iter().max_by_key(|header| header.segment);
    let Some(newest) = newest else {
        let (offset, why) = faults.first().map_or((0, String::new()), |(offset, fault)| (*offset, fault.to_string()));
        let why = format!("{why}, and no segment says whose log it is");
        return Err(LogError::Corruption { file: CONTROL_NAME.to_string(), offset, why });
    };
    Ok(Control {
        identity: newest.identity,
        generation: 0,
        incarnation: headers.iter().map(|header| header.incarnation).max().unwrap_or_default(),
        durable_seq: Seq(0),
        newest_segment: SegmentId(0),
        segment_bytes: newest.segment_bytes,
        clean_end: None,
        checkpoints: [None, None],
    })
}
