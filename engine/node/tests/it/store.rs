//! The checkpoints of a node on a real file system: what was finished is there, what was not is gone, and what is damaged is
//! named and never served.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pontoon::ClusterId;
use pontoon::inbox::{Delivery, Inbox};
use pontoon::store::Store;
use pontoon::store::folder::Folder;
use pontoon::store::format::Owner;
use pontoon::store::read::{CheckpointError, StoredCheckpoint};
use pontoon::store::recover::{Checkpoints, Found};
use pontoon::store::worker::Worker;
use pontoon_types::limits::{SNAPSHOT_CHUNK_BYTES_MAX, STORE_ORDERS_MAX, STORE_READS_MAX};
use pontoon_types::{
    ChunkNumber, Descriptor, Generation, GroupId, Index, KeyRange, LogId, Member, NodeId, ReadFailure, ReadNumber,
    ReplicaId, SnapshotMeta, StagingNumber, StoreAnswer, StoreFailure, StoreOrder, Term,
};
use tempfile::TempDir;

pub const OWNER: Owner = Owner { cluster: ClusterId(0xc1), node: NodeId(1) };

pub const GROUP: GroupId = GroupId(2);

pub fn id(index: u64) -> LogId {
    LogId::new(Index(index), Term(3))
}

pub fn meta(group: GroupId, replica: u64, last: u64) -> SnapshotMeta {
    SnapshotMeta {
        group,
        replica: ReplicaId(replica),
        last: id(last),
        configuration: Bytes::from_static(b"the members"),
        descriptor: Descriptor {
            group,
            range: KeyRange { start: Bytes::from_static(b"a"), end: Some(Bytes::from_static(b"b")) },
            members: [Member { node: NodeId(1), replica: ReplicaId(replica) }].into(),
            generation: Generation(7),
        },
    }
}

/// A worker in a directory, and what it has heard.
pub struct Rig {
    pub dir: PathBuf,
    pub worker: Worker,
    next: u64,
    _kept: Option<TempDir>,
}

impl Rig {
    pub fn new() -> Rig {
        let kept = tempfile::tempdir().unwrap();
        Rig { _kept: Some(kept), ..Rig::at(Path::new("")) }.moved()
    }

    fn moved(mut self) -> Rig {
        self.dir = self._kept.as_ref().unwrap().path().to_path_buf();
        self.worker = Worker::new(self.folder());
        self
    }

    pub fn at(dir: &Path) -> Rig {
        Rig { dir: dir.to_path_buf(), worker: Worker::new(Folder::of(dir, OWNER)), next: 1, _kept: None }
    }

    pub fn folder(&self) -> Folder {
        Folder::of(&self.dir, OWNER)
    }

    pub fn path(&self) -> PathBuf {
        self.folder().path(GROUP)
    }

    pub fn begin(&mut self, meta: SnapshotMeta) -> StagingNumber {
        let (group, staging) = (meta.group, StagingNumber(self.next));
        self.next += 1;
        assert_eq!(self.worker.carry_out(StoreOrder::Begin { group, staging, meta }), None);
        staging
    }

    pub fn chunk(&mut self, group: GroupId, staging: StagingNumber, number: u64, bytes: &[u8]) -> StoreAnswer {
        let (number, bytes) = (ChunkNumber(number), Bytes::copy_from_slice(bytes));
        self.worker.carry_out(StoreOrder::Chunk { group, staging, number, bytes }).unwrap()
    }

    pub fn finish(&mut self, group: GroupId, staging: StagingNumber, chunks: u64) -> StoreAnswer {
        self.worker.carry_out(StoreOrder::Finish { group, staging, chunks }).unwrap()
    }

    /// Writes a whole checkpoint: the last answer.
    pub fn write(&mut self, meta: SnapshotMeta, chunks: &[&[u8]]) -> StoreAnswer {
        let (group, last) = (meta.group, meta.last);
        let staging = self.begin(meta);
        for (number, bytes) in (0..).zip(chunks) {
            let answer = self.chunk(group, staging, number, bytes);
            if answer != (StoreAnswer::Taken { group, staging, number: ChunkNumber(number) }) {
                return answer;
            }
        }
        let answer = self.finish(group, staging, chunks.len() as u64);
        if let StoreAnswer::Stored { .. } = answer {
            assert_eq!(answer, StoreAnswer::Stored { group, staging, last });
        }
        answer
    }

    #[track_caller]
    pub fn store(&mut self, meta: SnapshotMeta, chunks: &[&[u8]]) {
        let answer = self.write(meta, chunks);
        assert!(matches!(answer, StoreAnswer::Stored { .. }), "{answer:?}");
    }

    pub fn read(&mut self, read: u64, last: u64, number: u64) -> Result<Option<Bytes>, ReadFailure> {
        let (group, read, last, number) = (GROUP, ReadNumber(read), id(last), ChunkNumber(number));
        match self.worker.carry_out(StoreOrder::Read { group, read, last, number }).unwrap() {
            StoreAnswer::Read { group: GROUP, read: of, number: which, result } if of == read && which == number => {
                result
            }
            other => panic!("{other:?}"),
        }
    }

    /// What a start would find.
    pub fn open(&self) -> Result<Option<StoredCheckpoint>, CheckpointError> {
        self.folder().open(GROUP)
    }

    /// Names of all files, of stagings too.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = crate::support::contents(&self.dir)
            .into_iter()
            .map(|(path, _)| path.file_name().unwrap().to_str().unwrap().to_string())
            .collect();
        names.sort();
        names
    }
}

pub fn failed(answer: &StoreAnswer) -> Option<StoreFailure> {
    match answer {
        StoreAnswer::Failed { why, .. } => Some(*why),
        _ => None,
    }
}

fn bytes_of(stored: &StoredCheckpoint) -> Vec<Vec<u8>> {
    (0..stored.chunks()).map(|number| stored.chunk(ChunkNumber(number)).unwrap().unwrap().to_vec()).collect()
}

#[test]
fn a_finished_checkpoint_is_read_chunk_by_chunk_and_the_next_one_takes_its_place() {
    let mut rig = Rig::new();
    let large = vec![7; SNAPSHOT_CHUNK_BYTES_MAX];
    rig.store(meta(GROUP, 1, 10), &[b"one", &large, b""]);
    let stored = rig.open().unwrap().unwrap();
    assert_eq!(*stored.meta(), meta(GROUP, 1, 10));
    assert_eq!(bytes_of(&stored), [b"one".to_vec(), large, Vec::new()]);
    assert_eq!(stored.chunk(ChunkNumber(3)).unwrap(), None);
    assert_eq!(stored.file_bytes(), std::fs::metadata(rig.path()).unwrap().len());
    rig.store(meta(GROUP, 1, 20), &[]);
    let stored = rig.open().unwrap().unwrap();
    assert_eq!((stored.meta().last, stored.chunks()), (id(20), 0), "an empty state has no chunks");
    assert_eq!(rig.names(), ["g2.ckp"]);
}

#[test]
fn what_is_not_finished_does_not_count_and_leaves_nothing() {
    let mut rig = Rig::new();
    rig.store(meta(GROUP, 1, 10), &[b"old"]);
    let abandoned = rig.begin(meta(GROUP, 1, 20));
    rig.chunk(GROUP, abandoned, 0, b"new");
    assert_eq!(rig.names(), ["g2-2.new", "g2.ckp"]);
    // Another begin gives it up, an order to do so as well.
    let second = rig.begin(meta(GROUP, 1, 21));
    assert_eq!(failed(&rig.chunk(GROUP, abandoned, 1, b"new")), Some(StoreFailure::Io));
    rig.worker.carry_out(StoreOrder::Abandon { group: GROUP, staging: abandoned });
    assert_eq!(rig.names(), ["g2-3.new", "g2.ckp"], "an old order does not give up a new staging");
    rig.worker.carry_out(StoreOrder::Abandon { group: GROUP, staging: second });
    assert_eq!(failed(&rig.finish(GROUP, second, 0)), Some(StoreFailure::Io));
    assert_eq!(rig.names(), ["g2.ckp"]);
    assert_eq!(rig.open().unwrap().unwrap().meta().last, id(10));
}

#[test]
fn chunks_out_of_order_or_missing_never_become_a_checkpoint() {
    let mut rig = Rig::new();
    let staging = rig.begin(meta(GROUP, 1, 10));
    rig.chunk(GROUP, staging, 0, b"zero");
    assert_eq!(failed(&rig.chunk(GROUP, staging, 2, b"two")), Some(StoreFailure::Io));
    assert_eq!(failed(&rig.chunk(GROUP, staging, 1, b"one")), Some(StoreFailure::Io), "it is over");
    assert_eq!(failed(&rig.finish(GROUP, staging, 1)), Some(StoreFailure::Io));
    let staging = rig.begin(meta(GROUP, 1, 10));
    rig.chunk(GROUP, staging, 0, b"zero");
    assert_eq!(failed(&rig.finish(GROUP, staging, 2)), Some(StoreFailure::Io));
    assert!(rig.open().unwrap().is_none());
    assert_eq!(rig.names(), [""; 0]);
}

#[test]
fn a_read_keeps_what_it_has_begun_with_until_it_is_closed() {
    let mut rig = Rig::new();
    rig.store(meta(GROUP, 1, 10), &[b"old 0", b"old 1"]);
    assert_eq!(rig.read(1, 10, 0), Ok(Some(Bytes::from_static(b"old 0"))));
    rig.store(meta(GROUP, 1, 20), &[b"new 0"]);
    assert_eq!(rig.read(1, 10, 1), Ok(Some(Bytes::from_static(b"old 1"))));
    assert_eq!(rig.read(1, 10, 2), Ok(None));
    assert_eq!(rig.read(2, 10, 0), Err(ReadFailure::Gone), "another one comes too late");
    assert_eq!(rig.read(2, 20, 0), Ok(Some(Bytes::from_static(b"new 0"))));
    assert_eq!(rig.read(1, 20, 0), Err(ReadFailure::Gone), "a read is of one checkpoint");
    rig.worker.carry_out(StoreOrder::Close { group: GROUP, read: ReadNumber(1) });
    assert_eq!(rig.read(1, 10, 1), Err(ReadFailure::Gone));
    assert_eq!(rig.read(3, 5, 0), Err(ReadFailure::Gone));
}

#[test]
fn reads_that_nobody_closes_are_bounded() {
    let mut rig = Rig::new();
    rig.store(meta(GROUP, 1, 10), &[b"state"]);
    for read in 0..STORE_READS_MAX as u64 {
        assert!(rig.read(read, 10, 0).is_ok());
    }
    assert_eq!(rig.read(STORE_READS_MAX as u64, 10, 0), Err(ReadFailure::Gone));
    rig.worker.carry_out(StoreOrder::Close { group: GROUP, read: ReadNumber(0) });
    assert!(rig.read(STORE_READS_MAX as u64, 10, 0).is_ok());
}

#[test]
fn a_destroyed_replica_takes_its_checkpoint_along_and_not_that_of_a_later_one() {
    let mut rig = Rig::new();
    rig.store(meta(GROUP, 5, 10), &[b"state"]);
    rig.worker.carry_out(StoreOrder::Remove { group: GROUP, replica: ReplicaId(4) });
    assert!(rig.open().unwrap().is_some());
    let staging = rig.begin(meta(GROUP, 6, 20));
    assert!(rig.read(1, 10, 0).is_ok());
    rig.worker.carry_out(StoreOrder::Remove { group: GROUP, replica: ReplicaId(5) });
    assert!(rig.open().unwrap().is_none());
    assert_eq!(rig.read(1, 10, 0), Err(ReadFailure::Gone), "its reads end too");
    rig.chunk(GROUP, staging, 0, b"of the later one");
    assert!(matches!(rig.finish(GROUP, staging, 1), StoreAnswer::Stored { .. }));
    assert_eq!(rig.open().unwrap().unwrap().meta().replica, ReplicaId(6));
}

/// Changes one byte of the checkpoint.
fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[test]
fn each_flipped_byte_is_found_and_what_it_hits_is_not_served() {
    let mut rig = Rig::new();
    rig.store(meta(GROUP, 1, 10), &[b"first chunk", b"second"]);
    let length = std::fs::metadata(rig.path()).unwrap().len();
    let (mut refused, mut rotten) = (0, 0);
    for at in 0..length {
        flip(&rig.path(), at);
        match rig.open() {
            Err(CheckpointError::Damaged { path, .. }) => {
                assert_eq!(path, rig.path());
                refused += 1;
                assert_eq!(rig.read(at, 10, 0), Err(ReadFailure::Rotten));
            }
            Ok(Some(stored)) => {
                let [first, second] = [0, 1].map(|number| stored.chunk(ChunkNumber(number)));
                let why = [&first, &second].into_iter().find_map(|read| read.as_ref().err()).unwrap().to_string();
                assert!(why.contains("is rotten") && why.contains("g2.ckp"), "{why}");
                assert!(first.is_ok() || second.is_ok(), "the other chunk is whole");
                rotten += 1;
                assert!(rig.read(at, 10, 0).is_err() || rig.read(at, 10, 1).is_err());
                rig.worker.carry_out(StoreOrder::Close { group: GROUP, read: ReadNumber(at) });
            }
            other => panic!("byte {at}: {other:?}"),
        }
        flip(&rig.path(), at);
    }
    assert_eq!((refused + rotten, rotten), (length, 17));
    assert!(rig.open().unwrap().is_some());
}

#[test]
fn a_file_cut_anywhere_or_longer_than_it_says_is_none() {
    let mut rig = Rig::new();
    rig.store(meta(GROUP, 1, 10), &[b"first chunk", b"second"]);
    let whole = std::fs::read(rig.path()).unwrap();
    for length in 0..whole.len() {
        std::fs::write(rig.path(), &whole[..length]).unwrap();
        assert!(matches!(rig.open(), Err(CheckpointError::Damaged { .. })), "cut at {length}");
    }
    std::fs::write(rig.path(), [&whole[..], &[0]].concat()).unwrap();
    assert!(matches!(rig.open(), Err(CheckpointError::Damaged { .. })));
    // The checkpoint of another group under this one's name, and a chunk of another checkpoint in the place of its own.
    rig.store(meta(GroupId(258), 1, 10), &[b"first chunk", b"second"]);
    std::fs::copy(rig.folder().path(GroupId(258)), rig.path()).unwrap();
    assert!(rig.open().unwrap_err().to_string().contains("it is the checkpoint of g258"));
}

#[test]
fn a_later_version_and_another_node_refuse_and_stay_as_they_are() {
    let mut rig = Rig::new();
    rig.store(meta(GROUP, 1, 10), &[b"state"]);
    let mut bytes = std::fs::read(rig.path()).unwrap();
    bytes[8] = 2;
    let crc = crc32fast::hash(&bytes[..44]);
    bytes[44..48].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(rig.path(), &bytes).unwrap();
    let checkpoints = Checkpoints::look(rig.folder()).unwrap();
    let error = checkpoints.restore(GROUP, ReplicaId(1)).unwrap_err();
    assert!(matches!(error, CheckpointError::Version { version: 2, .. }), "{error}");
    assert_eq!(std::fs::read(rig.path()).unwrap(), bytes);

    rig.store(meta(GROUP, 1, 10), &[b"state"]);
    let other = Folder::of(&rig.dir, Owner { node: NodeId(2), ..OWNER });
    let error = Checkpoints::look(other).unwrap().restore(GROUP, ReplicaId(1)).unwrap_err();
    assert!(error.to_string().contains("belongs to node n1"), "{error}");
}

#[test]
fn golden_bytes_of_version_1_are_written_and_read() {
    let mut rig = Rig::new();
    rig.store(meta(GROUP, 1, 10), &[b"first chunk", b"second"]);
    let bytes = std::fs::read(rig.path()).unwrap();
    let hex: String = bytes
        .chunks(16)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ") + "\n")
        .collect();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/checkpoint_v1.txt");
    if std::env::var_os("PONTOON_REGENERATE").is_some() {
        std::fs::write(&path, &hex).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap();
    assert!(stored == hex, "the golden bytes must not change; written now:\n{hex}");
    let golden: Vec<u8> = stored.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    std::fs::write(rig.path(), golden).unwrap();
    let read = rig.open().unwrap().unwrap();
    assert_eq!(*read.meta(), meta(GROUP, 1, 10));
    assert_eq!(bytes_of(&read), [b"first chunk".to_vec(), b"second".to_vec()]);
}

#[test]
fn a_start_removes_what_means_nothing_and_leaves_the_rest() {
    let mut rig = Rig::new();
    let here = [GROUP, GroupId(3)].into();
    for group in [2, 3, 4] {
        rig.store(meta(GroupId(group), 9, 10), &[]);
    }
    // As a killed process leaves it.
    let staging = rig.begin(meta(GROUP, 9, 20));
    rig.chunk(GROUP, staging, 0, b"never finished");
    let left = rig.folder().staged_path(GROUP, staging);
    let copy = std::fs::read(&left).unwrap();
    rig.worker.carry_out(StoreOrder::Abandon { group: GROUP, staging });
    std::fs::write(&left, copy).unwrap();
    std::fs::write(rig.dir.join("store/02/notes.txt"), "somebody's").unwrap();
    std::fs::write(rig.dir.join("store/02/g3.ckp"), "in another group's directory").unwrap();

    let before = rig.names();
    let checkpoints = Checkpoints::look(rig.folder()).unwrap();
    assert!(matches!(checkpoints.restore(GROUP, ReplicaId(9)).unwrap(), Found::Whole(_)));
    assert!(matches!(checkpoints.restore(GroupId(3), ReplicaId(8)).unwrap(), Found::OfAnother));
    assert!(matches!(checkpoints.restore(GroupId(7), ReplicaId(1)).unwrap(), Found::Nothing));
    assert_eq!(rig.names(), before, "a start that is refused has changed nothing");
    checkpoints.sweep(&here, &[GroupId(3)]);
    assert_eq!(rig.names(), ["g2.ckp", "g3.ckp", "notes.txt"]);
    assert!(rig.folder().open(GroupId(3)).unwrap().is_none(), "what is left of that name is not a checkpoint");
    let empty = tempfile::tempdir().unwrap();
    assert!(Checkpoints::look(Folder::of(empty.path(), OWNER)).is_ok(), "a node without a store");
}

#[test]
fn many_groups_cost_a_start_only_their_files() {
    let rig = Rig::new();
    let mut worker = Rig::at(&rig.dir);
    for group in 2..502 {
        worker.store(meta(GroupId(group), 1, group), &[]);
    }
    let longest = std::fs::read_dir(rig.dir.join("store"))
        .unwrap()
        .map(|directory| std::fs::read_dir(directory.unwrap().path()).unwrap().count())
        .max();
    assert_eq!(longest, Some(2), "they are spread over 256 directories");
    let listing = rig.folder().list().unwrap();
    assert_eq!(listing.groups.len(), 500);
    assert!((2..502).all(|group| listing.groups.contains(&GroupId(group))));
}

/// Takes what comes in until there is nothing for a moment, or `enough`.
fn answers(inbox: &Inbox<Delivery>, enough: usize) -> Vec<StoreAnswer> {
    let (mut answers, until) = (Vec::new(), Instant::now() + Duration::from_secs(20));
    while answers.len() < enough && Instant::now() < until {
        match inbox.pop() {
            Some(Delivery::Store(answer)) => answers.push(answer),
            Some(other) => panic!("{other:?}"),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    answers
}

#[test]
fn the_threads_answer_in_order_through_a_small_inbox_and_orders_wait_for_room() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::start(&Folder::of(dir.path(), OWNER)).unwrap();
    let inbox = Arc::new(Inbox::new(2).unwrap());
    let mut door = store.door(inbox.clone());
    let (staging, chunks) = (StagingNumber(1), 3 * STORE_ORDERS_MAX as u64);
    let mut orders = vec![StoreOrder::Begin { group: GROUP, staging, meta: meta(GROUP, 1, 10) }];
    orders.extend((0..chunks).map(|number| StoreOrder::Chunk {
        group: GROUP,
        staging,
        number: ChunkNumber(number),
        bytes: Bytes::from(number.to_string()),
    }));
    orders.push(StoreOrder::Finish { group: GROUP, staging, chunks });
    door.order(&mut orders);
    assert!(orders.is_empty() && door.hand_on().is_empty());
    assert!(door.is_waiting(), "nobody takes the answers, so the thread takes no more orders");
    let mut heard = Vec::new();
    while heard.len() < chunks as usize + 1 {
        let more = answers(&inbox, 1);
        assert!(!more.is_empty(), "{} answers", heard.len());
        heard.extend(more);
        assert!(door.hand_on().is_empty());
    }
    let taken = (0..chunks).map(|number| StoreAnswer::Taken { group: GROUP, staging, number: ChunkNumber(number) });
    let mut expected: Vec<StoreAnswer> = taken.collect();
    expected.push(StoreAnswer::Stored { group: GROUP, staging, last: id(10) });
    assert_eq!(heard, expected);
    // A core that has ended takes no answers, and holds nobody up.
    door.order(&mut vec![StoreOrder::Begin { group: GROUP, staging, meta: meta(GROUP, 1, 20) }]);
    door.order(&mut (0..10).map(|_| StoreOrder::Finish { group: GROUP, staging, chunks: 7 }).collect());
    inbox.close();
    door.hand_on();
    let began = Instant::now();
    drop(store);
    assert!(began.elapsed() < Duration::from_secs(4));
    // Threads that are gone are told to the core.
    let number = ChunkNumber(0);
    door.order(&mut vec![StoreOrder::Chunk { group: GROUP, staging, number, bytes: Bytes::new() }]);
    assert_eq!(door.hand_on(), [StoreAnswer::Failed { group: GROUP, staging, why: StoreFailure::Io }]);
}
