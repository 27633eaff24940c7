//! Every limit, with its unit and its reason. What is above a limit is refused with the limit's name; nothing grows
//! without one.

/// Longest key, bytes. Keys are held in memory by routers and indexes, so they stay small.
pub const KEY_BYTES_MAX: usize = 4 << 10;

/// Longest value, bytes. A larger one would hold a core's turn and a peer link for too long.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// Most bytes of keys and values in one batch. One batch is one entry.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// Most operations in one batch. Bounds the time that one apply takes.
pub const BATCH_OPERATIONS_MAX: usize = 4096;

/// Most bytes of one encoded command, which is one entry's payload: a full batch and its framing.
pub const COMMAND_BYTES_MAX: usize = BATCH_BYTES_MAX + KEY_BYTES_MAX + (256 << 10);

/// Most pairs that one scan returns. A scan runs inside a turn, so it must end soon.
pub const SCAN_PAIRS_MAX: usize = 1_000;

/// Most bytes that one scan returns; it stops early and says where to go on.
pub const SCAN_BYTES_MAX: usize = 1 << 20;

/// Most bytes of one frame on any link. A reader refuses a longer length before it allocates. The largest frame is a
/// routing table: 131,072 ranges with three members each, or 80,000 with nine, fit into it.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// A frame to a peer is closed at about this many bytes; larger writes gain nothing on a socket.
pub const PEER_FRAME_BYTES: usize = 64 << 10;

/// Most bytes of entries in one Append message.
pub const APPEND_BYTES_MAX: usize = 64 << 10;

/// Most entries in one Append message. Bounds the work of one step.
pub const APPEND_ENTRIES_MAX: usize = 1024;

/// Most Append messages without an answer, for each peer of a group.
pub const INFLIGHT_MESSAGES_MAX: usize = 64;

/// Most bytes of entries without an answer, for each peer of a group.
pub const INFLIGHT_BYTES_MAX: usize = 4 << 20;

/// Most committed entries that a core's machines have not applied yet, above which writes are answered Busy. A start and
/// a state that is read back leave some; what is proposed meanwhile must not add to them for ever.
pub const APPLY_BACKLOG_ENTRIES_MAX: u64 = 16 << 10;

/// Most bytes of proposed and not yet committed entries of a group; above it the answer is Busy.
pub const UNCOMMITTED_BYTES_MAX: usize = 16 << 20;

/// How many times what a core's leaders have proposed and not committed goes into its log; above that the answer is Busy. What
/// is not committed cannot be given up. It is on fewer than half of at most nine replicas, so that at this number it is half of
/// all logs, taken together, and the other half is left for what else a log holds.
pub const LOG_PER_UNCOMMITTED: u64 = 8;

/// Bytes of a group's newest entries that stay in memory, each counted with what the memory takes for it. They serve the
/// machine, and the peers as long as they are not far behind: as much as one peer may have in flight.
pub const WINDOW_BYTES_MAX: usize = INFLIGHT_BYTES_MAX;

/// Bytes of the newest entries of all groups of a core that stay in memory; above it groups let go of what nothing holds
/// there, one after the other. Half a minute of a busy core's writes, and a small part of the memory of a machine.
pub const CORE_WINDOW_BYTES_MAX: usize = 128 << 20;

/// Groups that are looked at in one turn for entries that may leave memory. Bounds the turn's time.
pub const SHED_GROUPS_PER_TURN: usize = 256;

/// Most payload bytes of entries that one fetch reads back from the log: four Append messages.
pub const FETCH_BYTES_MAX: usize = 4 * APPEND_BYTES_MAX;

/// Most entries of one fetch. Bounds the work of the step that takes them in.
pub const FETCH_ENTRIES_MAX: usize = APPEND_ENTRIES_MAX;

/// Fetches that a core serves in one turn; the others wait for the next. Bounds a turn's time.
pub const FETCHES_PER_TURN: usize = 64;

/// Bytes of entries that a core reads back from its log in one turn. Bounds a turn's time and memory.
pub const FETCH_BYTES_PER_TURN: usize = 1 << 20;

/// Most orders of a log to bring cold bytes in from the disk that are under way. Each is up to 256 KiB of page cache, and
/// they are carried out one after the other.
pub const COLD_ORDERS_MAX: usize = 16;

/// Most requests of all clients waiting on one core; above it the answer is Busy.
pub const CORE_REQUESTS_MAX: usize = 16 << 10;

/// Most sessions that a group remembers; the one used least recently makes room. As many clients as write to one group at
/// a time, with some room. It is a part of what a group's log means: the same on all nodes.
pub const SESSIONS_MAX: usize = 1024;

/// Most outcomes that a group remembers of one session; above it the oldest is forgotten. A client can have as many
/// requests in flight at one core. A part of what a group's log means.
pub const SESSION_OUTCOMES_MAX: usize = CORE_REQUESTS_MAX;

/// Most bytes of one remembered outcome; of a longer one only its being is remembered. A part of what a group's log means.
pub const SESSION_OUTCOME_BYTES_MAX: usize = 64 << 10;

/// Most memory that the outcomes of all sessions of a group take, bytes; above it the session used least recently makes
/// room. A part of what a group's log means.
pub const SESSIONS_BYTES_MAX: usize = 4 << 20;

/// Most bytes waiting to be sent to one peer; above it the link is dropped and the groups probe when it is back.
pub const LINK_BYTES_MAX: usize = 64 << 20;

/// Most bytes of replies waiting for one client; above it nothing more is received from it, and if it takes none of them
/// for a while, it is closed.
pub const CLIENT_REPLY_BYTES_MAX: usize = 32 << 20;

/// Most connections of clients to one core. Each costs a descriptor and two buffers.
pub const CORE_CLIENTS_MAX: usize = 4096;

/// Most groups on one core.
pub const CORE_GROUPS_MAX: usize = 1 << 20;

/// Most replicas of one group, counting voters, learners and those that leave.
pub const MEMBERS_MAX: usize = 9;

/// Most entries that a replica may lack to which the leadership is handed over. It has to get them within an election
/// timeout, and proposals wait meanwhile.
pub const TRANSFER_LAG_ENTRIES_MAX: u64 = 4096;

/// Most ReadIndex rounds of one core without a quorum of answers; later reads gather for the next round.
pub const READ_ROUNDS_MAX: usize = 64;

/// Most groups in one page of the list of what a core leads. A page is sent to a peer that asks for it; it shares the
/// link with everything else.
pub const BEACON_PAGE_GROUPS: usize = 512;

/// Most changes in one beacon; the rest waits for the next one.
pub const BEACON_CHANGES_MAX: usize = 4096;

/// Bytes of commands that one group proposes in one turn; above it the answer is Busy. They are one write of one
/// replica, which must fit into a segment.
pub const PROPOSAL_BYTES_PER_TURN: usize = 4 << 20;

/// Bytes of values that one turn serves to readers; the rest waits for the next turn. Bounds a turn's time and memory.
pub const READ_BYTES_PER_TURN: usize = 8 << 20;

/// Bytes of status and route reports after which a turn makes no more of them; above it the answer is Busy.
pub const REPORT_BYTES_PER_TURN: usize = 4 << 20;

/// Most bytes of one chunk of a checkpoint. A peer link and a store thread carry one at a time among everything else, so
/// it is a few frames' worth; a larger one would save nothing.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = 256 << 10;

/// Chunks of one staging that the store has not taken yet. Bounds the memory between a core and its store.
pub const STAGED_CHUNKS_MAX: usize = 4;

/// Checkpoints that one core writes at once. Each walks a state while its group goes on; more would not be done sooner.
pub const CORE_CHECKPOINTS_MAX: usize = 2;

/// Bytes of entries that a group applies before it makes a checkpoint, unless its state is larger than twice that. What a
/// restart has to apply again, and small beside what a log holds.
pub const CHECKPOINT_LOG_BYTES: usize = 16 << 20;

/// Bytes of values and keys that one checkpoint keeps beside the state because they were overwritten while it was being
/// written; above it the checkpoint is given up and tried again.
pub const CHECKPOINT_BEFORE_BYTES_MAX: usize = 64 << 20;

/// Chunks of snapshots that one core lets its peers send before it has taken them: 4 MiB. One budget for all groups, so
/// that many replicas that come at once share it.
pub const SNAPSHOT_CREDIT_CHUNKS: usize = 16;

/// Chunks that one snapshot may have under way: two round trips of a fast link.
pub const SNAPSHOT_WINDOW_CHUNKS: usize = 4;

/// Snapshots that one core receives at once. The others wait for their turn, repairs before new replicas.
pub const CORE_SNAPSHOTS_MAX: usize = 8;

/// Most bytes of what a checkpoint says of itself: the members twice over while they change, and a range with the longest
/// keys.
pub const CHECKPOINT_META_BYTES_MAX: usize = 64 << 10;

/// Most chunks of one checkpoint: 256 GiB. Its table is in memory while the checkpoint is written or read, 8 MiB at most.
pub const CHECKPOINT_CHUNKS_MAX: u64 = 1 << 20;

/// Threads that write and read the checkpoints of a node. A group keeps to one of them; while that one waits for the disk
/// the others go on.
pub const STORE_THREADS: usize = 2;

/// Most orders that wait for one store thread, 16 MiB of chunks; above it they wait at their core, which has only so many
/// under way.
pub const STORE_ORDERS_MAX: usize = 64;

/// Most reads of checkpoints that one store thread has open. Each holds a descriptor of the process and a table.
pub const STORE_READS_MAX: usize = 256;

/// Most groups of which a core hears at once that their old entries hold the log. It hears of the others when these have
/// made their checkpoints.
pub const LOG_PRESSURE_GROUPS_MAX: usize = 4096;

/// How far a recovery after the loss of a quorum jumps ahead with terms, replicas and generations. The lost nodes may have
/// counted on without a word to a survivor, one for each election or change: so far they did not get in the life of a
/// cluster.
pub const RECOVERY_JUMP: u64 = 1_000_000;
