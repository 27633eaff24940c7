//! Damage to a disk while nobody uses it: a rotten bit, a sector of zeros, a write that was lost or went elsewhere, a
//! file that is gone.
//!
//! It hits only what is proven durable. A log cannot tell the rot of its very last, still unproven group from a torn
//! write, and does not claim to; everything before that it must notice. One damage at a time: two copies of one fact
//! that rot together are beyond any log. A payload may rot besides: there is no second copy of it on one disk.
//!
//! Damage can be undone, as when an operator puts a good copy of the file back. A log that refused to open has promised
//! that it changed nothing, so after that it must open as if nothing had been.

use pontoon_wal::memory::{LostFile, MemoryDisk, SECTOR_BYTES, Sector};

use crate::random::Random;

/// Sectors of one block, which is what a log reads and writes at once.
const BLOCK_SECTORS: usize = 8;

/// One sector that was changed.
#[derive(Debug)]
struct Spot {
    file: String,
    sector: usize,
    /// The sync that had made it durable: while that is so, nobody has written it since.
    since: u64,
    intact: Sector,
}

/// Something that went wrong on a disk.
#[derive(Debug)]
pub struct Damage {
    what: String,
    spots: Vec<Spot>,
    gone: Option<(String, LostFile)>,
}

/// A file and its sectors that are proven durable.
struct Candidate {
    file: String,
    sectors: Vec<usize>,
}

impl Damage {
    /// Does some damage to what had become durable by the sync numbered `proven`; none if nothing had.
    pub fn inflict(medium: &MemoryDisk, proven: u64, random: &mut Random) -> Option<Damage> {
        let files = candidates(medium, proven);
        let file = (!files.is_empty()).then(|| random.pick(&files))?;
        let sector = *random.pick(&file.sectors);
        let mut damage = Damage { what: String::new(), spots: Vec::new(), gone: None };
        damage.what = match random.below(6) {
            0 | 1 => {
                let bit = random.below(SECTOR_BYTES as u64 * 8) as usize;
                damage.change(medium, &file.file, sector, |content, _| content[bit / 8] ^= 1 << (bit % 8));
                format!("bit {bit} of sector {sector} of {} is flipped", file.file)
            }
            2 => {
                damage.change(medium, &file.file, sector, |content, before| *content = *before);
                format!("the last write of sector {sector} of {} is lost", file.file)
            }
            3 => {
                let block = sector / BLOCK_SECTORS;
                for sector in file.sectors.iter().filter(|sector| **sector / BLOCK_SECTORS == block) {
                    damage.change(medium, &file.file, *sector, |content, _| *content = [0; SECTOR_BYTES]);
                }
                format!("block {block} of {} is zeroed", file.file)
            }
            4 => {
                let other = random.pick(&files);
                let target = *random.pick(&other.sectors);
                let mut misdirected = [0; SECTOR_BYTES];
                damage.change(medium, &file.file, sector, |content, before| {
                    misdirected = std::mem::replace(content, *before);
                });
                damage.change(medium, &other.file, target, |content, _| *content = misdirected);
                format!("sector {sector} of {} was written to sector {target} of {}", file.file, other.file)
            }
            _ => damage.take_away(medium, proven, random)?,
        };
        Some(damage)
    }

    /// Flips a bit of a payload wherever it is proven durable; none if it is so nowhere.
    pub fn rot(medium: &MemoryDisk, proven: u64, payload: &[u8], random: &mut Random) -> Option<Damage> {
        let mut damage = Damage { what: String::new(), spots: Vec::new(), gone: None };
        for file in candidates(medium, proven).into_iter().filter(|file| file.file.ends_with(".seg")) {
            let content = medium.content(&file.file).unwrap_or_default();
            for start in places(&content, &file.sectors, payload) {
                let at = start + random.below(payload.len() as u64) as usize;
                let (sector, byte) = (at / SECTOR_BYTES, at % SECTOR_BYTES);
                if file.sectors.contains(&sector) {
                    damage.change(medium, &file.file, sector, |content, _| content[byte] ^= 1);
                    damage.what.push_str(&format!(" {}:{at}", file.file));
                }
            }
        }
        (!damage.spots.is_empty()).then_some(damage)
    }

    /// What happened, for the trace.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The log has opened without it: a file that is gone stays so, as its name may mean another one by now.
    pub fn settle(&mut self) {
        self.gone = None;
    }

    /// Puts everything back that nobody has overwritten since.
    pub fn undo(self, medium: &MemoryDisk) {
        if let Some((name, file)) = self.gone {
            medium.give_back(&name, file);
        }
        for spot in self.spots.into_iter().rev() {
            if since(medium, &spot.file, spot.sector) == Some(spot.since) {
                medium.damage(&spot.file, spot.sector, |content, _| *content = spot.intact);
            }
        }
    }

    fn change(&mut self, medium: &MemoryDisk, file: &str, sector: usize, how: impl FnOnce(&mut Sector, &Sector)) {
        let since = since(medium, file, sector).expect("law: only what is durable is damaged");
        let intact = medium.damage(file, sector, how);
        self.spots.push(Spot { file: file.to_string(), sector, since, intact });
    }

    /// A whole file goes, but not the newest segment: that it was ever there is proven with its second group only.
    fn take_away(&mut self, medium: &MemoryDisk, proven: u64, random: &mut Random) -> Option<String> {
        let newest_of = |name: &String| medium.durable_sectors(name).iter().map(|sector| sector.since).max();
        let mut names = medium.file_names();
        let newest = names.iter().filter(|name| name.ends_with(".seg")).max_by_key(|name| newest_of(name)).cloned();
        names.retain(|name| Some(name) != newest.as_ref() && newest_of(name).is_some_and(|since| since <= proven));
        let name = (!names.is_empty()).then(|| random.pick(&names).clone())?;
        self.gone = medium.lose(&name).map(|file| (name.clone(), file));
        Some(format!("{name} is gone"))
    }
}

/// Where a payload stands that begins in one of these sectors of a file.
fn places(content: &[u8], sectors: &[usize], payload: &[u8]) -> Vec<usize> {
    // Most of what is compared are zeros, so a byte that is not zero tells soonest.
    let Some((pivot, telling)) = payload.iter().copied().enumerate().find(|(_, byte)| *byte != 0) else {
        return Vec::new();
    };
    let mut starts = Vec::new();
    for sector in sectors {
        let first = sector * SECTOR_BYTES + pivot;
        let end = content.len().min(first + SECTOR_BYTES);
        let near = content.get(first..end).unwrap_or_default().iter().enumerate();
        let starts_here = near.filter(|(_, byte)| **byte == telling).map(|(offset, _)| first - pivot + offset);
        starts.extend(starts_here.filter(|start| content[*start..].starts_with(payload)));
    }
    starts
}

/// Which sync made a sector durable.
fn since(medium: &MemoryDisk, file: &str, sector: usize) -> Option<u64> {
    medium.durable_sectors(file).iter().find(|durable| durable.sector == sector).map(|durable| durable.since)
}

fn candidates(medium: &MemoryDisk, proven: u64) -> Vec<Candidate> {
    let mut files = Vec::new();
    for file in medium.file_names() {
        let durable = medium.durable_sectors(&file);
        let sectors: Vec<usize> = durable.iter().filter(|it| it.since <= proven).map(|it| it.sector).collect();
        if !sectors.is_empty() {
            files.push(Candidate { file, sectors });
        }
    }
    files
}
