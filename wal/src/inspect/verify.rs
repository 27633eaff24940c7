//! Reads a whole log from the disk and says what is not what was written, and what is lost by it.
//!
//! Every checksum of every segment that is needed is looked at: headers, directories, payloads, footers, checkpoints and
//! the control file, and the numbers and chain values that hold them together. At last the recovery itself is run, up to
//! the point where it would begin to write.
//!
//! Damage that costs nothing, because the log keeps a second copy of what is damaged, is damage all the same: the disk
//! has changed what was written, and the next time it may be the other copy. What is not needed any more is only noted.

use std::collections::BTreeSet;

use pontoon_types::{GroupId, Index, LogId, Term};

use super::files::Content;
use super::layout::{Layout, Missing, Planned, Role};
use super::walk::{FooterFound, Lost, Seen, Step, range};
use crate::format::record::{KIND_ENTRIES, KIND_GROUP_CREATE, KIND_RESTORED, Record, Run};
use crate::format::{CONTROL_NAME, SegmentId, SegmentKey, Seq};
use crate::recover::recover;
use crate::state::LogState;
use crate::state::runs::end;
use crate::storage::Storage;
use crate::unreadable::is_hit;
use crate::{LogError, TornTail};

/// What is lost by damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: another copy says the same. Which one.
    Nothing(String),
    /// The payload of an entry. Peers give it back.
    Payload(GroupId, LogId),
    /// Entries from an index to another; of which terms is not known any more.
    Entries(GroupId, Index, Index),
    /// What the owner of the log wanted to find again with the group.
    Descriptor(GroupId),
    /// Records that nothing else knows: in words.
    Records(String),
}

/// Something on the disk that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file, or the segment that is missing.
    pub file: String,
    /// Where the damaged part starts.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
    /// What is lost.
    pub loss: Loss,
}

/// What a look at a whole log has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What is not what was written.
    pub damage: Vec<Damage>,
    /// Why the log would not open, if it would not.
    pub refusal: Option<String>,
    /// A write that was torn behind the end; nothing of it was acknowledged.
    pub torn: Option<TornTail>,
    /// What is worth knowing and no fault.
    pub notes: Vec<String>,
    /// Everything up to here is proven durable.
    pub durable_seq: Seq,
    /// The last intact group of records.
    pub end_seq: Seq,
    /// Segments that were read.
    pub segments: u64,
    /// Groups of records in them.
    pub groups: u64,
    /// Bytes that were read.
    pub bytes: u64,
}

impl Verdict {
    /// Whether all is well, up to the end.
    pub fn is_fine(&self) -> bool {
        self.damage.is_empty() && self.refusal.is_none() && self.torn.is_none()
    }

    /// What an earlier look has found as well. The rest may be the trace of a log that was being written.
    pub fn confirmed_by(mut self, earlier: &Verdict) -> Verdict {
        self.damage.retain(|damage| earlier.damage.contains(damage));
        self.torn = self.torn.filter(|torn| earlier.torn.as_ref() == Some(torn));
        self.refusal = self.refusal.filter(|_| earlier.refusal.is_some() && !self.damage.is_empty());
        self
    }

    /// Whether only payloads are rotten, which peers give back while the log is in use.
    pub fn heals_by_itself(&self) -> bool {
        self.refusal.is_none() && self.damage.iter().all(|damage| matches!(damage.loss, Loss::Payload(..)))
    }
}

/// A payload that is not what was written, to be judged when the end of the log is known.
struct Rotten {
    file: String,
    segment: SegmentKey,
    payloads_at: usize,
    offset: usize,
    group: GroupId,
    id: LogId,
    kind: u8,
    what: &'static str,
}

/// Reads the whole log in a directory. Damage of a running log counts only when a second look has found it too
/// ([`Verdict::confirmed_by`]).
pub fn verify(storage: &dyn Storage) -> Result<Verdict, LogError> {
    let layout = Layout::of(storage)?;
    let mut looking = Looking::new(&layout);
    looking.look_at_layout();
    layout.walk(&mut |step| {
        looking.take(step);
        Ok(())
    })?;
    looking.judge_footers();
    looking.judge_payloads();
    looking.judge_covered();
    looking.judge_opening()?;
    Ok(looking.verdict)
}

struct Looking<'a> {
    layout: &'a Layout<'a>,
    state: LogState,
    /// Not everything that happened went into the state.
    is_state_sure: bool,
    rotten: Vec<Rotten>,
    lost_in_covered: Vec<Lost>,
    footers: Vec<(SegmentId, String, u64, FooterFound)>,
    verdict: Verdict,
}

impl<'a> Looking<'a> {
    fn new(layout: &'a Layout<'a>) -> Looking<'a> {
        let verdict = Verdict {
            damage: Vec::new(),
            refusal: None,
            torn: None,
            notes: Vec::new(),
            durable_seq: layout.proven,
            end_seq: Seq(0),
            segments: layout.planned.len() as u64,
            groups: 0,
            bytes: layout.planned.len() as u64 * layout.control.segment_bytes,
        };
        let (state, _) = layout.begin();
        let (rotten, lost_in_covered, footers) = (Vec::new(), Vec::new(), Vec::new());
        Looking { layout, state, is_state_sure: true, rotten, lost_in_covered, footers, verdict }
    }

    fn damage(&mut self, file: &str, offset: u64, what: impl Into<String>, loss: Loss) {
        let damage = Damage { file: file.to_string(), offset, what: what.into(), loss };
        if !self.verdict.damage.contains(&damage) {
            self.verdict.damage.push(damage);
        }
    }

    /// The control file, the checkpoints and the headers of segments.
    fn look_at_layout(&mut self) {
        let layout = self.layout;
        for (offset, fault) in &layout.control_faults {
            let loss = if layout.is_control_lost() {
                Loss::Records("whose log it is, how far it was durable, and where its checkpoints are".to_string())
            } else {
                Loss::Nothing("the other block of the control file".to_string())
            };
            self.damage(CONTROL_NAME, *offset, fault.to_string(), loss);
        }
        let has_base = layout.base().is_some();
        for named in &layout.checkpoints {
            let Err(why) = &named.loaded else { continue };
            let segment = layout.segment(named.reference.end.place.segment.key());
            let file = segment.map_or("a missing segment".to_string(), |segment| segment.name.clone());
            let loss = if has_base {
                Loss::Nothing("the other checkpoint".to_string())
            } else if layout.checkpoints.len() == 1 {
                Loss::Nothing("the log from its beginning".to_string())
            } else {
                Loss::Records("the states of the Raft groups up to the checkpoints".to_string())
            };
            self.damage(&file, named.reference.start.place.offset, format!("checkpoint: {why}"), loss);
        }
        for planned in layout.planned.iter().filter(|planned| planned.rebuilt) {
            let content = layout.slots.iter().find(|file| file.name == planned.name).map(|file| &file.content);
            let what = match content {
                Some(Content::Unreadable(fault)) => fault.to_string(),
                _ => "the segment header is gone".to_string(),
            };
            let loss = Loss::Records("the header; the groups of records behind it are read nevertheless".to_string());
            self.damage(&planned.name, 0, what, loss);
        }
        for file in &layout.slots {
            if file.bytes != layout.control.segment_bytes {
                let what = format!("the file has {} bytes, a segment has {}", file.bytes, layout.control.segment_bytes);
                self.damage(&file.name, file.bytes, what, Loss::Records("what stood there".to_string()));
            }
        }
        for Missing { segment, needed_by, spare } in &layout.missing {
            let loss = if *spare {
                Loss::Nothing("the newest checkpoint, which does not need it".to_string())
            } else {
                Loss::Records("all groups of records in it".to_string())
            };
            self.damage(&format!("segment {segment}"), 0, format!("missing, and {needed_by} needs it"), loss);
        }
    }

    fn take(&mut self, step: Step<'_>) {
        match step {
            Step::Group(seen) => self.take_group(&seen),
            Step::Lost(lost) if matches!(lost.role, Role::Covered | Role::Kept) => self.lost_in_covered.push(lost),
            // Each checkpoint is judged as a whole.
            Step::Lost(lost) if lost.role == Role::Checkpoint => {}
            Step::Lost(lost) => {
                let what = format!("{} cannot be read: {}", range(lost.first, lost.last), lost.why);
                let loss = if lost.is_repeated {
                    Loss::Nothing("the group of records behind it, which repeats it".to_string())
                } else {
                    self.is_state_sure = false;
                    Loss::Records(format!("all of {}", range(lost.first, lost.last)))
                };
                self.damage(&lost.file, lost.offset, what, loss);
            }
            Step::Footer(planned, found) => {
                let limit = planned.limit.unwrap_or_default();
                self.footers.push((planned.header.segment, planned.name.clone(), limit, found));
            }
            Step::Unreadable(planned, blocks) => self.take_unreadable(planned, &blocks),
            Step::End(end, torn) => (self.verdict.end_seq, self.verdict.torn) = (end.seq, torn),
        }
    }

    fn take_group(&mut self, seen: &Seen<'_>) {
        self.verdict.groups += 1;
        if matches!(seen.planned.role, Role::Open | Role::Covered) {
            self.verdict.durable_seq = self.verdict.durable_seq.max(seen.header.durable_seq);
        }
        if let Some(fault) = seen.fault {
            let what = format!("group of records {}: {fault}", seen.header.seq);
            let loss = Loss::Nothing("the footer of the segment".to_string());
            self.damage(&seen.planned.name, seen.offset as u64, what, loss);
        }
        if seen.planned.role == Role::Checkpoint {
            return;
        }
        if seen.planned.role == Role::Open {
            self.is_state_sure &= self.state.apply(seen.directory, seen.place).is_ok();
        }
        for run in seen.runs() {
            for (position, record) in run.records().enumerate() {
                if seen.payload(&record).is_none() {
                    self.rotten.push(rotten(seen, &run, position, &record));
                }
            }
        }
    }

    fn take_unreadable(&mut self, planned: &Planned, blocks: &[u64]) {
        // What is lost by it shows in the checksums; where nothing stands, nothing is.
        for at in blocks {
            let note = format!("{} at {at}: the disk refuses to read the block", planned.name);
            self.verdict.notes.push(note);
        }
    }

    /// Footers are written in order, each durable before the next: one that others follow was there.
    fn judge_footers(&mut self) {
        let later =
            self.footers.iter().filter(|(.., found)| *found == FooterFound::Intact).map(|(segment, ..)| *segment);
        let newest = later.max().unwrap_or_default();
        let covered = self.layout.base().map_or(SegmentId(0), |base| base.head.covered.place.segment);
        for (segment, file, offset, found) in std::mem::take(&mut self.footers) {
            let was_there = segment < newest || segment <= covered;
            match found {
                FooterFound::Damaged(fault) if was_there => {
                    let loss = Loss::Nothing("the groups of records themselves".to_string());
                    self.damage(&file, offset, fault.to_string(), loss);
                }
                FooterFound::Damaged(_) | FooterFound::None => {
                    self.verdict.notes.push(format!("{file} has no footer; it is written some time after the segment"));
                }
                FooterFound::Intact => {}
            }
        }
    }

    fn judge_payloads(&mut self) {
        for found in std::mem::take(&mut self.rotten) {
            let Rotten { file, offset, group, id, kind, what, .. } = &found;
            let loss = match *kind {
                KIND_ENTRIES | KIND_RESTORED if self.is_needed(&found) => Loss::Payload(*group, *id),
                KIND_GROUP_CREATE if self.is_descriptor(&found) => Loss::Descriptor(*group),
                _ => {
                    self.verdict
                        .notes
                        .push(format!("{file} at {offset}: a rotten payload that is not needed any more"));
                    continue;
                }
            };
            self.damage(file, *offset as u64, *what, loss);
        }
    }

    /// Whether the log of the group still refers to this payload.
    fn is_needed(&self, found: &Rotten) -> bool {
        if !self.is_state_sure {
            return true;
        }
        let Some(of) = self.state.group(found.group) else { return false };
        let Some(position) = of.runs.find(found.id.index) else { return false };
        let run = of.runs.as_slice()[position];
        run.segment == found.segment && run.payloads_at as usize == found.payloads_at
    }

    fn is_descriptor(&self, found: &Rotten) -> bool {
        let Some(of) = self.state.group(found.group) else { return !self.is_state_sure };
        of.descriptor.segment == found.segment && of.descriptor.offset as usize == found.offset
    }

    /// What a checkpoint covers is lost only as far as it holds entries that are still needed.
    fn judge_covered(&mut self) {
        let mut blamed = BTreeSet::new();
        for lost in std::mem::take(&mut self.lost_in_covered) {
            let planned = self.layout.planned.iter().find(|planned| planned.name == lost.file);
            let key = planned.map(|planned| planned.header.segment.key());
            let what = format!("{} cannot be read: {}", range(lost.first, lost.last), lost.why);
            let mut is_needed = false;
            for group in self.state.ids() {
                let Some(of) = self.state.group(group) else { continue };
                let inside = |at: u32| (lost.offset..lost.until).contains(&u64::from(at));
                for run in of.runs.as_slice().iter().filter(|run| Some(run.segment) == key) {
                    if inside(run.payloads_at) && blamed.insert((group, run.first)) {
                        is_needed = true;
                        let loss = Loss::Entries(group, run.first, end(run).previous());
                        let damage = Damage { file: lost.file.clone(), offset: lost.offset, what: what.clone(), loss };
                        self.verdict.damage.push(damage);
                    }
                }
            }
            if !is_needed {
                let loss = Loss::Nothing("the checkpoint, which knows all that is still needed of it".to_string());
                self.damage(&lost.file, lost.offset, what, loss);
            }
        }
    }

    /// Whether the log would open. A recovery changes nothing before it has succeeded.
    fn judge_opening(&mut self) -> Result<(), LogError> {
        let layout = self.layout;
        if layout.is_control_lost() {
            self.verdict.refusal = Some("no block of the control file can be read".to_string());
            return Ok(());
        }
        match recover(layout.storage, layout.identity(), layout.control) {
            // After a clean stop nothing was being written.
            Ok(_) if layout.control.clean_end.is_some() => self.verdict.torn = None,
            Ok(found) => self.verdict.torn = found.torn.or(found.rest.torn),
            Err(error @ LogError::UnknownFormat { .. }) => return Err(error),
            Err(error @ LogError::Io { .. }) if self.verdict.damage.is_empty() => return Err(error),
            Err(error) => {
                if self.verdict.damage.is_empty() {
                    let (file, offset) = match &error {
                        LogError::Corruption { file, offset, .. } => (file.clone(), *offset),
                        LogError::OtherLog { file, .. } => (file.clone(), 0),
                        LogError::MissingSegment { segment, .. } => (format!("segment {segment}"), 0),
                        _ => (CONTROL_NAME.to_string(), 0),
                    };
                    let loss = Loss::Records("what stands there and behind it".to_string());
                    self.damage(&file, offset, error.to_string(), loss);
                }
                self.verdict.refusal = Some(error.to_string());
            }
        }
        Ok(())
    }
}

fn rotten(seen: &Seen<'_>, run: &Run<'_>, position: usize, record: &Record) -> Rotten {
    let offset = seen.payload_at(record);
    let is_refused = is_hit(seen.refused, offset..offset + record.length);
    let what = if is_refused { "the disk refuses to read a payload" } else { "the checksum of a payload is wrong" };
    Rotten {
        file: seen.planned.name.clone(),
        segment: seen.place.segment,
        payloads_at: seen.place.payloads_at,
        offset,
        group: run.head.group,
        id: LogId::new(Index(run.head.index + position as u64), Term(run.head.term)),
        kind: run.head.kind,
        what,
    }
}
