//! Goes through a log that may be damaged, group of records by group of records.
//!
//! Whatever can be read is shown; a range that cannot is shown as [`Step::Lost`] with the numbers of its groups, and the
//! walk goes on at the next group of the same use of the file whose header and directory are intact, there or in the
//! footer. The decision between a torn end and corruption is the one of recovery ([`crate::recover::scan`]).

use super::layout::{Layout, Planned, Role};
use crate::LogError;
use crate::TornTail;
use crate::format::footer::{self, FooterGroup};
use crate::format::group::{Group, GroupHeader, payloads_start};
use crate::format::record::{Record, Run, Runs};
use crate::format::segment_header::Stream;
use crate::format::{BLOCK_BYTES, CONTROL_NAME, Fault, LogEnd, Lsn, SegmentId, Seq, is_zero};
use crate::keeper::footer_place;
use crate::recover::fact_of;
use crate::recover::scan::{Image, headers};
use crate::state::GroupPlace;
use crate::unreadable::{REFUSED, is_hit};

/// A group of records that is known.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) planned: &'a Planned,
    pub(crate) offset: usize,
    pub(crate) header: GroupHeader,
    pub(crate) directory: &'a [u8],
    pub(crate) place: GroupPlace,
    /// The bytes of its segment.
    pub(crate) bytes: &'a [u8],
    /// The blocks of its segment that the disk refuses to read.
    pub(crate) refused: &'a [u64],
    /// What is wrong with the group in its place, when the footer's copy of it is shown.
    pub(crate) fault: Option<Fault>,
    /// Its echoes are all that the group before it said, which is lost.
    pub(crate) repeats_lost: bool,
}

impl<'a> Seen<'a> {
    /// Its runs, in the order of writing.
    pub(crate) fn runs(&self) -> Runs<'a> {
        Runs::new(self.directory)
    }

    /// Where a payload starts in the file.
    pub(crate) fn payload_at(&self, record: &Record) -> usize {
        self.place.payloads_at + record.offset
    }

    /// A payload, if it is what was written.
    pub(crate) fn payload(&self, record: &Record) -> Option<&'a [u8]> {
        let start = self.payload_at(record);
        let payload = self.bytes.get(start..start + record.length)?;
        (crc32fast::hash(payload) == record.crc).then_some(payload)
    }

    /// Where the head of a run stands in the file.
    pub(crate) fn head_at(&self, run: &Run<'_>) -> usize {
        self.place.directory_at + run.at
    }
}

/// Groups of records that are not known.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pub(crate) file: String,
    pub(crate) offset: u64,
    /// Where the next group stands, or the segment ends.
    pub(crate) until: u64,
    pub(crate) role: Role,
    pub(crate) first: Seq,
    /// The last one, if anything tells.
    pub(crate) last: Option<Seq>,
    pub(crate) why: String,
    /// The group behind them repeats all that they said.
    pub(crate) is_repeated: bool,
}

/// The footer of a closed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FooterFound {
    Intact,
    /// Nothing like one stands there: it is written some time after the segment was closed.
    None,
    Damaged(Fault),
}

/// What the walk comes by.
pub(crate) enum Step<'a> {
    Group(Seen<'a>),
    Lost(Lost),
    /// The footer of a closed segment of the log, after its groups.
    Footer(&'a Planned, FooterFound),
    /// Blocks that the disk refuses to read.
    Unreadable(&'a Planned, Vec<u64>),
    /// The end of the log, and what was torn behind it.
    End(LogEnd, Option<TornTail>),
}

/// Is shown every step.
pub(crate) type See<'s> = &'s mut dyn FnMut(Step<'_>) -> Result<(), LogError>;

impl Layout<'_> {
    /// Goes through all segments that are needed, by their ids. What a newer version wrote ends the walk.
    pub(crate) fn walk(&self, see: See<'_>) -> Result<(), LogError> {
        let mut buffer = self.buffer();
        let mut end = self.from;
        let mut proven = self.proven;
        let (mut is_first, mut torn) = (true, None);
        for planned in &self.planned {
            let unreadable = self.load(&planned.name, &mut buffer)?;
            if !unreadable.is_empty() {
                see(Step::Unreadable(planned, unreadable.clone()))?;
            }
            let on_chain = matches!(planned.role, Role::Open | Role::Covered);
            let before = (!planned.rebuilt).then_some(planned.header.previous);
            let start = if on_chain {
                // Without a checkpoint the log begins where its first segment says.
                if !is_first || self.from != LogEnd::default() || before.is_none_or(|end| end.place != Lsn::default()) {
                    self.check_link(&end, before.as_ref(), planned, see)?;
                }
                is_first = false;
                before.or(Some(end))
            } else {
                before
            };
            let mut walk = SegmentWalk::new(planned, (buffer.bytes(), &unreadable), start, proven);
            let reached = walk.run(see)?;
            if on_chain {
                (end, proven) = (reached, walk.proven);
            }
            if planned.is_tail && !walk.is_cut {
                torn = walk.torn(&end);
            }
        }
        self.finish(end, proven, torn, see)
    }

    /// Shows what lies between the end of one segment of the chain and the beginning of the next.
    fn check_link(
        &self,
        end: &LogEnd,
        before: Option<&LogEnd>,
        planned: &Planned,
        see: See<'_>,
    ) -> Result<(), LogError> {
        let Some(before) = before.filter(|before| before.seq > end.seq) else { return Ok(()) };
        let missing = self.missing.iter().find(|missing| missing.segment == before.place.segment);
        let file = missing.map_or(planned.name.clone(), |missing| format!("segment {}", missing.segment));
        let why = match missing {
            Some(_) => "the segment is missing".to_string(),
            None => "the segment does not follow the one before it".to_string(),
        };
        let (first, last) = (Seq(end.seq.0.saturating_add(1)), Some(before.seq));
        see(Step::Lost(Lost { file, offset: 0, until: 0, role: planned.role, first, last, why, is_repeated: false }))
    }

    /// The end of the log: what is proven to have been behind it is lost.
    fn finish(&self, end: LogEnd, proven: Seq, torn: Option<TornTail>, see: See<'_>) -> Result<(), LogError> {
        let tail = self.planned.iter().find(|planned| planned.is_tail).map_or(SegmentId(0), |tail| tail.header.segment);
        let missing = self.missing.iter().find(|missing| !missing.spare && missing.segment > tail);
        // Without a control file nothing says that what looks torn was not durable.
        let is_unsure = self.is_control_lost() && torn.is_some();
        if missing.is_some() || proven > end.seq || is_unsure {
            let file = missing.map_or(CONTROL_NAME.to_string(), |missing| format!("segment {}", missing.segment));
            let first = Seq(end.seq.0.saturating_add(1));
            let why = match proven > end.seq {
                true => format!("the log ends with group {}, and was durable up to {proven} at least", end.seq),
                false => format!("the log ends with group {}, and nothing says that this was all", end.seq),
            };
            let last = (proven > end.seq).then_some(proven);
            see(Step::Lost(Lost {
                file,
                offset: 0,
                until: 0,
                role: Role::Open,
                first,
                last,
                why,
                is_repeated: false,
            }))?;
        }
        see(Step::End(end, torn))
    }
}

/// One segment on the way.
struct SegmentWalk<'a> {
    planned: &'a Planned,
    image: Image<'a>,
    footer: Vec<FooterGroup<'a>>,
    footer_found: FooterFound,
    /// The end so far; none while nothing tells what the first group must follow.
    end: Option<LogEnd>,
    proven: Seq,
    repeats_lost: bool,
    /// Where nothing more was found, and why.
    gap: Option<(usize, Fault)>,
    /// Groups that were durable are lost at the end.
    is_cut: bool,
}

/// A group that was found, in its place or in the footer.
struct Found<'a> {
    header: GroupHeader,
    chain: u32,
    directory: &'a [u8],
    directory_at: usize,
    fault: Option<Fault>,
}

impl<'a> SegmentWalk<'a> {
    fn new(
        planned: &'a Planned,
        (bytes, refused): (&'a [u8], &'a [u64]),
        start: Option<LogEnd>,
        proven: Seq,
    ) -> SegmentWalk<'a> {
        let image = Image { name: &planned.name, header: planned.header, bytes, refused };
        let (footer, footer_found) = read_footer(planned, bytes, refused);
        let end = start.map(|before| {
            let place = Lsn { segment: planned.header.segment, offset: BLOCK_BYTES as u64 };
            LogEnd { place, ..before }
        });
        SegmentWalk { planned, image, footer, footer_found, end, proven, repeats_lost: false, gap: None, is_cut: false }
    }

    /// What was torn behind the end of the newest segment.
    fn torn(&self, end: &LogEnd) -> Option<TornTail> {
        let offset = end.place.offset as usize;
        let is_clear = is_zero(self.image.bytes.get(offset..).unwrap_or_default());
        let is_readable = self.image.refuse_if_refused(offset, end.seq).is_ok();
        let is_torn = is_readable && self.image.is_torn(offset, is_clear);
        is_torn.then(|| TornTail { file: self.planned.name.clone(), offset: offset as u64 })
    }

    fn run(&mut self, see: See<'_>) -> Result<LogEnd, LogError> {
        let limit = self.planned.limit.map_or(self.image.bytes.len(), |limit| limit as usize);
        let mut offset = BLOCK_BYTES;
        while offset < limit {
            match self.find(offset) {
                Ok(found) => {
                    see(Step::Group(self.seen(offset, &found)))?;
                    offset = self.advance(offset, &found);
                }
                Err(fault) if fault.is_unknown() => {
                    let (file, what) = (self.planned.name.clone(), fault.to_string());
                    return Err(LogError::UnknownFormat { file, offset: offset as u64, what });
                }
                Err(fault) => match self.skip(offset, limit, fault, see)? {
                    Some(next) => offset = next,
                    None => break,
                },
            }
        }
        if let Some(pinned) = self.planned.pinned {
            self.reach(&pinned, see)?;
        }
        if self.planned.limit.is_some() && self.planned.header.stream == Stream::Log {
            see(Step::Footer(self.planned, self.footer_found))?;
        }
        let place = Lsn { segment: self.planned.header.segment, offset: offset as u64 };
        Ok(self.end.unwrap_or(LogEnd { place, ..LogEnd::default() }))
    }

    fn next_seq(&self) -> Seq {
        Seq(self.end.map_or(self.planned.header.base_seq.0, |end| end.seq.0.saturating_add(1)))
    }

    /// The group at `offset`, if it is known and comes next.
    fn find(&self, offset: usize) -> Result<Found<'a>, Fault> {
        let found = self.known(offset)?;
        let follows = match self.end {
            Some(end) => Some(found.header.seq.0) == end.seq.0.checked_add(1) && found.header.prev_chain == end.chain,
            None => true,
        };
        if !follows {
            return Err(Fault::Bad("the group does not follow the one before it"));
        }
        if self.planned.is_tail && !self.image.is_proven(found.header.seq, offset as u64, self.proven) {
            // Then a rotten payload cannot be told from a torn write.
            let group = Group::identify(self.image.bytes, self.image.header.identity.log, offset)?;
            group.check_payloads()?;
        }
        Ok(found)
    }

    /// The group at `offset`, whatever it follows.
    fn known(&self, offset: usize) -> Result<Found<'a>, Fault> {
        let fault = match self.own(offset) {
            Ok(group) => {
                let Group { header, chain, directory, .. } = group;
                let directory_at = GroupPlace::of(header.segment.key(), offset, directory.len()).directory_at;
                return Ok(Found { header, chain, directory, directory_at, fault: None });
            }
            Err(fault) => fault,
        };
        let copy = self.footer.iter().find(|group| group.offset == offset).ok_or(fault)?;
        let footer_at = self.planned.limit.unwrap_or_default() as usize;
        let FooterGroup { header, chain, directory, directory_at, .. } = *copy;
        Ok(Found { header, chain, directory, directory_at: footer_at + directory_at, fault: Some(fault) })
    }

    fn own(&self, offset: usize) -> Result<Group<'a>, Fault> {
        let is_refused = is_hit(self.image.refused, offset..offset + 1);
        let group = Group::identify(self.image.bytes, self.image.header.identity.log, offset)
            .map_err(|fault| if is_refused { Fault::Bad(REFUSED) } else { fault })?;
        let is_lawful = group.header.durable_seq < group.header.seq;
        if self.image.is_own(&group.header) && is_lawful {
            Ok(group)
        } else {
            Err(Fault::Bad("the group is of an earlier use of the file"))
        }
    }

    fn seen(&mut self, offset: usize, found: &Found<'a>) -> Seen<'a> {
        let Found { header, directory, directory_at, fault, .. } = *found;
        let place = GroupPlace {
            segment: self.planned.header.segment.key(),
            directory_at,
            payloads_at: offset + payloads_start(directory.len()),
        };
        let repeats_lost = std::mem::take(&mut self.repeats_lost);
        let Image { bytes, refused, .. } = self.image;
        Seen { planned: self.planned, offset, header, directory, place, bytes, refused, fault, repeats_lost }
    }

    fn advance(&mut self, offset: usize, found: &Found<'a>) -> usize {
        let behind = offset + found.header.group_len();
        if matches!(self.planned.role, Role::Open | Role::Covered) {
            self.proven = self.proven.max(found.header.durable_seq);
        }
        let place = Lsn { segment: self.planned.header.segment, offset: behind as u64 };
        self.end = Some(LogEnd { place, seq: found.header.seq, chain: found.chain });
        behind
    }

    /// Shows what cannot be read at `offset`, and says where the next group stands. None at the end.
    fn skip(&mut self, offset: usize, limit: usize, fault: Fault, see: See<'_>) -> Result<Option<usize>, LogError> {
        let lost = self.next_seq();
        if self.planned.is_tail && !self.image.is_proven(lost, offset as u64, self.proven) {
            return Ok(None);
        }
        let log = self.image.header.identity.log;
        let in_footer = self.footer.iter().map(|group| group.offset);
        let in_place = headers(self.image.bytes, log, offset).map(|(at, _)| at);
        let is_later = |at: &usize| {
            let found = (offset..limit).contains(at).then(|| self.known(*at).ok()).flatten();
            found.is_some_and(|found| self.end.is_none_or(|end| found.header.seq > end.seq))
        };
        let next = in_footer.chain(in_place).filter(is_later).min();
        let Some(at) = next else {
            self.gap = Some((offset, fault));
            self.is_cut = true;
            // What follows, if anything does, says how much is lost.
            if self.planned.limit.is_none() && !self.planned.is_tail || self.planned.pinned.is_some() {
                return Ok(None);
            }
            let last = (self.planned.is_tail && self.proven >= lost).then_some(self.proven);
            self.show_lost((offset, limit), (lost, last), fault, false, see)?;
            if let (Some(end), Some(last)) = (&mut self.end, last) {
                end.seq = last;
            }
            return Ok(None);
        };
        let Ok(found) = self.known(at) else { return Ok(None) };
        let last = Seq(found.header.seq.0 - 1);
        let is_repeated = last == lost && found.header.is_echo_whole();
        self.show_lost((offset, at), (lost, Some(last)), fault, is_repeated, see)?;
        self.repeats_lost = is_repeated;
        let place = Lsn { segment: self.planned.header.segment, offset: at as u64 };
        self.end = Some(LogEnd { place, seq: last, chain: found.header.prev_chain });
        Ok(Some(at))
    }

    /// Shows what is lost between the last group that was found and the end that the next segment names.
    fn reach(&mut self, pinned: &LogEnd, see: See<'_>) -> Result<(), LogError> {
        let end = self.end.unwrap_or_default();
        if (end.seq, end.chain) != (pinned.seq, pinned.chain) {
            let ends_elsewhere = Fault::Bad("the segment does not end as the next one says");
            let (at, fault) = self.gap.unwrap_or((end.place.offset as usize, ends_elsewhere));
            let until = pinned.place.offset as usize;
            self.show_lost((at, until), (self.next_seq(), Some(pinned.seq)), fault, false, see)?;
        }
        self.end = Some(*pinned);
        Ok(())
    }

    fn show_lost(
        &self,
        (offset, until): (usize, usize),
        (first, last): (Seq, Option<Seq>),
        fault: Fault,
        is_repeated: bool,
        see: See<'_>,
    ) -> Result<(), LogError> {
        let (file, why) = (self.planned.name.clone(), fault.to_string());
        let (offset, until, role) = (offset as u64, until as u64, self.planned.role);
        see(Step::Lost(Lost { file, offset, until, role, first, last, why, is_repeated }))
    }
}

/// The groups that the footer of a closed segment knows.
fn read_footer<'a>(planned: &Planned, bytes: &'a [u8], refused: &[u64]) -> (Vec<FooterGroup<'a>>, FooterFound) {
    let Some(limit) = planned.limit else { return (Vec::new(), FooterFound::None) };
    let place = footer_place(&fact_of(&planned.header, limit), planned.header.identity.log);
    let start = bytes.get(limit as usize..).unwrap_or_default();
    match footer::decode(start, place) {
        Ok(groups) => (groups, FooterFound::Intact),
        Err(_) if is_hit(refused, limit as usize..bytes.len()) => {
            (Vec::new(), FooterFound::Damaged(Fault::Bad(REFUSED)))
        }
        Err(fault) if footer::is_like(start, place) => (Vec::new(), FooterFound::Damaged(fault)),
        Err(_) => (Vec::new(), FooterFound::None),
    }
}

/// The names of the groups of records `first..=last`.
pub(crate) fn range(first: Seq, last: Option<Seq>) -> String {
    match last {
        Some(last) if last == first => format!("group of records {first}"),
        Some(last) if last > first => format!("groups of records {first} to {last}"),
        Some(_) => format!("what stands before group of records {first}"),
        None => format!("groups of records from {first} on"),
    }
}
