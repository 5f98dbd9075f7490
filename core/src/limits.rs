//! Every bound of the log, in one file (law L10). Sizes are bytes unless the name says otherwise; units stand last.
//!
//! The relations between bounds are asserted at compile time, at the end of the file.

/// Longest topic name, in bytes (Kafka's limit).
pub const TOPIC_NAME_BYTES_MAX: usize = 249;
/// Most partitions of one topic.
pub const PARTITIONS_PER_TOPIC_MAX: u32 = 10_000;
/// Most topics of one store.
pub const TOPICS_MAX: usize = 100_000;
/// Most configuration entries of one topic.
pub const CONFIG_ENTRIES_MAX: usize = 32;
/// Longest configuration value.
pub const CONFIG_VALUE_BYTES_MAX: usize = 1_024;

/// Largest record: key, value and headers together. A topic may allow less (`max.message.bytes`), never more.
pub const RECORD_BYTES_MAX: usize = 8 << 20;
/// What a topic allows unless it says otherwise (Kafka's default is 1 MiB too).
pub const RECORD_BYTES_DEFAULT: usize = 1 << 20;
/// Longest line of NDJSON that is read: the largest record in base 64, with room for its headers.
pub const NDJSON_LINE_BYTES_MAX: usize = 16 << 20;
/// Longest record key.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// Most headers of one record.
pub const HEADERS_PER_RECORD_MAX: usize = 128;
/// Longest header key.
pub const HEADER_KEY_BYTES_MAX: usize = 1_024;
/// Largest header value.
pub const HEADER_VALUE_BYTES_MAX: usize = 64 << 10;
/// Earliest record timestamp, in microseconds: 1970-01-01T00:00:00Z.
pub const TIMESTAMP_US_MIN: i64 = 0;
/// Latest record timestamp, in microseconds: 9999-12-31T23:59:59.999999Z.
pub const TIMESTAMP_US_MAX: i64 = 253_402_300_799_999_999;

/// All inline batches of one commit together (R8). Above it a flush becomes a segment.
pub const INLINE_BYTES_MAX: usize = 4 << 10;
/// Raw bytes at which an open batch is sealed, whatever its linger.
pub const SEGMENT_RAW_BYTES: usize = 4 << 20;
/// What a row counts for beside its key, value and headers: timestamp and two views.
pub const ROW_BYTES: usize = 40;
/// What a header counts for beside its key and value: offset and view.
pub const HEADER_BYTES: usize = 20;
/// Raw bytes of the largest record.
pub const RECORD_RAW_BYTES_MAX: usize = RECORD_BYTES_MAX + ROW_BYTES + HEADERS_PER_RECORD_MAX * HEADER_BYTES;
/// Raw bytes one segment may hold at most: an open batch plus one record.
pub const SEGMENT_RAW_BYTES_MAX: usize = SEGMENT_RAW_BYTES + RECORD_RAW_BYTES_MAX;
/// What a slice is counted as beside its rows, inline or in a commit's plan: ids, sums, times.
pub const SLICE_BYTES: usize = 80;
/// Time a batch with an identity is proposed again after retriable errors.
pub const DELIVERY_TIMEOUT_MS_DEFAULT: u64 = 120_000;
/// Largest segment object that a reader accepts.
pub const SEGMENT_BYTES_MAX: usize = 64 << 20;
/// Most rows of one segment.
pub const SEGMENT_ROWS_MAX: usize = 1 << 20;
/// A slice of at least this many raw bytes has a row group of its own.
pub const ROW_GROUP_OWN_BYTES: usize = 64 << 10;
/// Smaller neighbours share a row group of at most this many raw bytes.
pub const ROW_GROUP_SHARED_BYTES_MAX: usize = 256 << 10;
/// Most row groups of one segment.
pub const ROW_GROUPS_MAX: usize = 4_096;
/// Largest Parquet footer of a segment: this much, …
pub const FOOTER_BYTES_MAX: usize = 4 << 10;
/// … and this much for each row group.
pub const FOOTER_BYTES_PER_GROUP_MAX: usize = 4 << 10;

/// Raw bytes that a merge has in memory at most, and a last segment's: what one merged segment is made of.
pub const MERGE_RAW_BYTES: usize = 32 << 20;
/// What a slice counts there beside its records.
pub const MERGE_SLICE_BYTES: usize = 1 << 10;
/// How many times as large the rows of an unmerged byte are taken to be, where topics are chosen that are merged together.
pub const MERGE_RAW_RATIO: u64 = 4;
/// Merged segments that a merge writes at once…
pub const MERGE_PUTS_AT_ONCE: usize = 8;
/// … and index rows.
pub const MERGE_ROWS_AT_ONCE: usize = 16;
/// Partitions whose index retention looks at at once.
pub const RETENTION_READS_AT_ONCE: usize = 8;
/// Decoded row groups that a merge keeps for slices to come.
pub const MERGE_CACHE_BYTES: u64 = 4 << 20;
/// Times in a row that a merge begins again because somebody else was faster.
pub const MERGE_ATTEMPTS_MAX: u32 = 4;
/// Merged segments hold what was appended within one hour.
pub const HOUR_MS: i64 = 60 * 60 * 1_000;
/// A row group of a merged segment is closed at so many raw bytes…
pub const MERGED_GROUP_RAW_BYTES: usize = 8 << 20;
/// … or rows (DuckDB's row groups, too).
pub const MERGED_GROUP_ROWS: usize = 122_880;
/// Rows that are written at once, and read back at once: so few that they stay in the processor's cache.
pub const MERGED_BATCH_ROWS: usize = 8_192;
/// Rows of one timestamp, on the average, from which a merged segment has a dictionary of timestamps (DuckDB's own files begin
/// there, too). It takes about a byte a row more than differences do at 7, and 0.1 at 16.
pub const MERGED_TIMES_REPEAT: usize = 5;
/// Largest such dictionary of a row group.
pub const MERGED_TIMES_BYTES: usize = MERGED_GROUP_ROWS / MERGED_TIMES_REPEAT * 8;
/// Largest merged segment that a reader accepts.
pub const MERGED_BYTES_MAX: usize = 512 << 20;
/// Largest footer of a merged segment, with its page index.
pub const MERGED_FOOTER_BYTES_MAX: usize = 16 << 20;

/// Slices planned into one commit.
pub const SLICES_PER_COMMIT: usize = 300;
/// Body bytes planned for one commit.
pub const COMMIT_BYTES_PLANNED: usize = 32 << 10;
/// A larger commit is refused before the put (DynamoDB's item limit is 400 KB).
pub const COMMIT_BYTES_MAX: usize = 350_000;
/// Most actions of one commit.
pub const ACTIONS_PER_COMMIT_MAX: usize = 4_096;
/// Most batches of one slice.
pub const BATCHES_PER_SLICE_MAX: usize = 65_536;
/// Sizes and counts of a decoded checkpoint stop here.
pub const CHECKPOINT_BYTES_MAX: usize = 256 << 20;
/// Commits after which a checkpoint is due.
pub const CHECKPOINT_COMMITS: u64 = 1_000;
/// Commit body bytes after which a checkpoint is due.
pub const CHECKPOINT_COMMIT_BYTES: u64 = 512 << 10;
/// Bodies below this size are not worth a strip.
pub const STRIP_BYTES_MIN: usize = 512;
/// Items of one page of a range read.
pub const PAGE_ITEMS: usize = 1_000;
/// Index rows of the first page of a range of them; each further one has eight times as many, up to [`PAGE_ITEMS`].
pub const ROWS_FIRST_PAGE: usize = 16;
/// Bytes of one page of a range read (DynamoDB's page).
pub const PAGE_BYTES: usize = 1 << 20;

/// Longest partition key of the table (DynamoDB's limit).
pub const TABLE_KEY_BYTES_MAX: usize = 2_048;
/// Largest item of the table: keys, id, time, body and hint. DynamoDB takes a little more (400 KiB).
pub const ITEM_BYTES_MAX: usize = 400_000;
/// Largest value that is read from a SQLite row: above it the file is damaged or foreign.
pub const SQLITE_VALUE_BYTES_MAX: usize = 1 << 20;
/// Threads for encoding and decoding, if there are fewer cores: so that a batch is not kept waiting by a merge.
pub const HEAVY_THREADS_MIN: usize = 2;

/// How long a SQLite request waits for another process's lock before it is answered as throttled.
pub const SQLITE_BUSY_MS: u64 = 2_000;
/// Requests that wait for the SQLite threads before callers wait too.
pub const SQLITE_QUEUE: usize = 256;
/// How long whoever closes a folder waits for its connections to be closed.
pub const SQLITE_CLOSE_MS: u64 = 5_000;

/// Bytes at the end of a merged segment in which its footer's metadata is looked for first.
pub const MERGED_TAIL_BYTES: u64 = 64 << 10;
/// Reads of the same bytes until two in a row agree, where no CRC is known.
pub const AGREED_READS_MAX: u32 = 8;
/// Largest body of an index row.
pub const ROW_ITEM_BYTES_MAX: usize = 1_024;
/// Puts that a restore has under way at once.
pub const RESTORE_PUTS: usize = 16;
/// Attempts of a restore at one put, and at ending the old chain, before it has to be run again.
pub const RESTORE_ATTEMPTS_MAX: u32 = 8;
/// Attempts at writing an index row before the next run goes on.
pub const ROW_ATTEMPTS_MAX: u32 = 8;
/// Ranges that one fold has at most: each becomes an index row.
pub const RANGES_PER_FOLD: usize = 300;
/// Ranges of merged segments that one list has at most.
pub const FILE_RANGES_MAX: usize = 1 << 20;
/// Times that a list is made again because the topic was trimmed or rewritten meanwhile.
pub const FILES_ATTEMPTS_MAX: u32 = 5;
/// Unmerged bytes at which the topics with the most slices are merged, however young…
pub const MERGE_DUE_BYTES: u64 = 64 << 20;
/// … or unmerged slices.
pub const MERGE_DUE_SLICES: u64 = 50_000;
/// A topic is merged when its oldest unmerged records are so old…
pub const MERGE_AGE_MS: i64 = 60_000;
/// … if it has so many bytes of them (64 KiB/s); else…
pub const MERGE_AGE_BYTES: u64 = 60 * (64 << 10);
/// … when they are so old.
pub const MERGE_AGE_MS_MAX: i64 = 600_000;
/// A topic may say when, from here…
pub const MERGE_AGE_SET_MS_MIN: usize = 1_000;
/// … up to here.
pub const MERGE_AGE_SET_MS_MAX: usize = 24 * 60 * 60 * 1_000;

/// Merged segments below this are rewritten with their neighbours, into one of at least so many bytes where there is enough…
pub const REWRITE_BYTES: u64 = 64 << 20;
/// … made of so many: it becomes smaller by some footers and page headers, and is not to be rewritten again for that…
pub const REWRITE_BYTES_WANTED: u64 = REWRITE_BYTES / 8 * 9;
/// … and of not more than this.
pub const REWRITE_BYTES_MAX: u64 = 96 << 20;
/// Merged segments that one rewrite replaces at most…
pub const REWRITE_OBJECTS_MAX: usize = 300;
/// … and at least, where they are little and their hour is over.
pub const REWRITE_OBJECTS_MIN: usize = 4;
/// A rewritten segment that is larger is sent in parts of so many bytes while it is made (S3: 5 MiB at least, 10,000 parts at
/// most), so that it is never in memory.
pub const UPLOAD_PART_BYTES: usize = 8 << 20;
/// Bytes of merged segments that a rewrite keeps: row groups that small partitions share are wanted by each.
pub const REWRITE_CACHE_BYTES: u64 = 16 << 20;

/// Inline bodies a process keeps in memory.
pub const INLINE_BODIES_CACHED: usize = 4_096;
/// Views that a fetch looks at, each newer, before what it does not find counts as damage.
pub const FETCH_ATTEMPTS_MAX: u32 = 4;
/// Objects between two words about a listing: a page of S3's.
pub const LIST_TOLD_EVERY: u64 = 1_000;
/// Cold starts in a row before a missing checkpoint counts as damage.
pub const COLD_STARTS_MAX: u32 = 8;

/// Batches of one producer in one partition that a duplicate is answered from (Kafka's five). Part of the format:
/// with another number replays would differ.
pub const PRODUCER_WINDOW: usize = 5;
/// Producers of one kind that a ledger remembers, counted by partition, before the oldest expire.
pub const PRODUCERS_MAX: usize = 100_000;
/// Producers and groups silent for this long expire: a week.
pub const EXPIRE_MS: i64 = 7 * 24 * 3_600 * 1_000;
/// Identities of kind `once` expire sooner: 15 minutes. They come one a request, and nobody goes on with one.
pub const ONCE_EXPIRE_MS: i64 = 15 * 60 * 1_000;
/// Leader epochs one partition remembers. Part of the format, too.
pub const LEADER_EPOCHS_KEPT: usize = 5;
/// Partitions taken or let go by one commit.
pub const PARTITIONS_PER_LEAD: usize = 1_000;
/// Longest consumer group name, member name and leader address.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest metadata string stored beside a group offset (Kafka's limit).
pub const GROUP_METADATA_BYTES_MAX: usize = 4_096;
/// Group offsets in one request.
pub const GROUP_OFFSETS_PER_COMMIT_MAX: usize = 1_000;
/// Most consumer groups of one store.
pub const GROUPS_MAX: usize = 100_000;

/// Bytes that `send` may hold unacknowledged before it waits.
pub const BUFFER_BYTES_DEFAULT: usize = 64 << 20;
/// Largest send buffer.
pub const BUFFER_BYTES_MAX: usize = 1 << 30;
/// Bytes of the buffer that a producer takes in advance for the records to come.
pub const DRAWN_BYTES: usize = 64 << 10;
/// Time a batch waits for company before it is sealed.
pub const LINGER_MS_DEFAULT: u64 = 5;
/// Longest linger that is accepted.
pub const LINGER_MS_MAX: u64 = 60_000;
/// Segment uploads under way at once.
pub const UPLOADS_MAX: usize = 4;
/// Attempts at one object request before its error is passed on.
pub const OBJECT_ATTEMPTS_MAX: u32 = 5;
/// A put is tried again for at least this long: a store that is away for a moment costs writers a wait, and no error.
pub const OBJECT_OUTAGE_MS: u64 = 10_000;
/// The first attempt at an object request that moves no bytes, at most; each further one takes twice that…
pub const OBJECT_TIMEOUT_MS: u64 = 10_000;
/// … where the store is behind a network, where a request that hangs is better given up soon…
pub const OBJECT_TIMEOUT_MS_REMOTE: u64 = 3_000;
/// … up to here.
pub const OBJECT_TIMEOUT_MS_MAX: u64 = 15_000;
/// For each so many bytes an attempt gets a millisecond more: 4 MiB/s.
pub const OBJECT_BYTES_PER_MS: u64 = 4 << 10;
/// No attempt at an object request begins later than this after the first.
pub const OBJECT_DEADLINE_MS: u64 = 60_000;
/// Connecting to a store of objects, at most.
pub const OBJECT_CONNECT_MS: u64 = 2_000;
/// A connection that was idle for so long is not used again: S3 closes them at about that age, and a function that was
/// frozen finds them dead.
pub const OBJECT_IDLE_MS: u64 = 15_000;
/// The pause after a store said that it is busy is at most this long; it doubles with each further time…
pub const OBJECT_THROTTLE_MS: u64 = 400;
/// … up to here.
pub const OBJECT_THROTTLE_MS_MAX: u64 = 6_000;
/// Largest body of a refusal that is read.
pub const OBJECT_ANSWER_BYTES_MAX: usize = 16 << 10;
/// The latest GETs that the time of the second one is estimated from…
pub const HEDGE_SAMPLES: usize = 128;
/// … once there are so many.
pub const HEDGE_SAMPLES_MIN: usize = 20;
/// A GET is not asked twice sooner than this.
pub const HEDGE_MS_MIN: u64 = 5;
/// Share of GETs that may be asked twice, in percent…
pub const HEDGE_SHARE_PERCENT: u32 = 5;
/// … and how many may be so in a row.
pub const HEDGE_BURST: u32 = 10;
/// The pause before the second attempt is at most this long; it doubles with each further one…
pub const OBJECT_BACKOFF_MS: u64 = 50;
/// … up to here.
pub const OBJECT_BACKOFF_MS_MAX: u64 = 1_000;
/// Folders known to be durable that a process remembers, so that it need not sync them again.
pub const SYNCED_FOLDERS_MAX: usize = 1_024;
/// One table request, at most.
pub const TABLE_TIMEOUT_MS: u64 = 5_000;
/// A connection to DynamoDB, at most.
pub const TABLE_CONNECT_MS: u64 = 1_000;
/// One attempt at a DynamoDB request, connecting included.
pub const TABLE_ATTEMPT_MS: u64 = 2_000;
/// Attempts at one read of DynamoDB. A write has one.
pub const TABLE_READ_ATTEMPTS_MAX: u32 = 3;
/// The pause before a second read is less than twice this; the bound doubles with each further one.
pub const TABLE_BACKOFF_MS: u64 = 25;
/// Empty pages that a query of DynamoDB follows.
pub const TABLE_EMPTY_PAGES_MAX: usize = 16;
/// Largest answer of DynamoDB that is read: a page in base 64, with room for names and numbers.
pub const TABLE_ANSWER_BYTES_MAX: usize = 4 << 20;
/// How long `init` waits for a fresh table.
pub const TABLE_CREATE_MS_MAX: u64 = 120_000;
/// How often it looks.
pub const TABLE_CREATE_POLL_MS: u64 = 500;
/// How long region and credentials are looked for.
pub const CREDENTIALS_MS_MAX: u64 = 5_000;
/// Longest prefix of a store's objects in S3: its own names and S3's limit of 1,024 leave room for it.
pub const S3_PREFIX_BYTES_MAX: usize = 512;
/// Bytes of an error of S3 that are read.
pub const S3_ERROR_BYTES_MAX: usize = 16 << 10;
/// Credentials are fetched again this long before they expire.
pub const CREDENTIALS_EARLY_MS: i64 = 5 * 60 * 1_000;
/// How long a commit is looked for before its callers are told `Unknown`; it goes on being settled.
pub const SETTLE_MS_MAX: u64 = 15_000;
/// Evidence of the head younger than this saves the tail read before a put.
pub const HEAD_EVIDENCE_MS: u64 = 10;
/// A writer whose own commits were the latest so many is taken for alone, and saves that read, too. After two, one of eight
/// writers at random would be right one time in eight, and lose a put.
pub const LONE_COMMITS: u32 = 3;
/// An empty fetch needs a tail read at most this old (L4).
pub const EMPTY_FETCH_AGE_MS: u64 = 1_000;
/// Tail polls start here…
pub const POLL_MS_MIN: u64 = 50;
/// … and double up to here.
pub const POLL_MS_MAX: u64 = 1_000;
/// … once this long has passed without a commit.
pub const POLL_QUIET_MS: u64 = 2_000;
/// A clock further than this from the store's refuses to append.
pub const CLOCK_SKEW_MS_MAX: i64 = 300_000;
/// Silence of a leader after which it may be replaced.
pub const LEADER_SILENCE_MS: u64 = 10_000;
/// Age an object must have before it can be swept.
pub const SWEEP_LAG_MS: u64 = 15 * 60 * 1_000;
/// How long an object is kept that a commit let go: queries may hold an older view.
pub const READ_LAG_MS: u64 = 60 * 60 * 1_000;
/// How often the first of the processes that lead runs upkeep, ms, on average.
pub const KEEP_EVERY_MS: u64 = 20_000;
/// Such a run begins nothing more after so long, ms: what is due meanwhile does not wait for a look at all there is.
pub const KEEP_RUN_MS: u64 = 60_000;
/// A process that runs upkeep again and again sweeps so often what commits let go, …
pub const SWEEP_EVERY_MS: i64 = 15 * 60 * 1_000;
/// … looks at all there is, a request for a thousand objects, for the first time after so long …
pub const WHOLE_SWEEP_FIRST_MS: i64 = HOUR_MS;
/// … and then so often.
pub const WHOLE_SWEEP_EVERY_MS: i64 = 24 * HOUR_MS;
/// Objects that one listing request brings (S3's most): between two of them a sweep that has little time asks for it.
pub const LIST_PAGE: u64 = 1_000;
/// Objects one sweep deletes at most; the next goes on.
pub const SWEEP_OBJECTS_MAX: usize = 100_000;
/// Objects one request deletes at most (S3: `DeleteObjects`).
pub const DELETES_PER_REQUEST: usize = 1_000;
/// Log starts that one commit moves at most.
pub const TRIMS_PER_COMMIT: usize = 300;
/// Time that leaps by more than this between two commits, or between the newest and now, may be a clock's mistake.
pub const LEAP_MS: i64 = 24 * 60 * 60 * 1_000;
/// … and then a large trim waits this long after it was announced.
pub const BRAKE_MS: i64 = 60 * 60 * 1_000;

/// Bytes one fetch returns at most, unless its first record alone is larger.
pub const FETCH_BYTES_DEFAULT: usize = 8 << 20;
/// Records one fetch returns at most.
pub const FETCH_RECORDS_DEFAULT: usize = 100_000;
/// Fetches of one consumer under way at once.
pub const FETCHES_MAX: usize = 8;
/// Slices one fetch reads at most.
pub const SLICES_PER_FETCH: usize = 1_024;
/// Commits whose inline bodies one query brings at most.
pub const INLINE_READ_SLOTS: u64 = 256;
/// Objects up to this size are read whole.
pub const WHOLE_OBJECT_BYTES: u64 = 1 << 20;
/// One GET brings what the partitions of a consumer want of one object, up to so many bytes.
pub const SHARED_READ_BYTES: u64 = 8 << 20;
/// Bytes of verified segments kept by a reader.
pub const CACHE_BYTES_DEFAULT: u64 = 64 << 20;

/// Bytes of an HTTP request's body as it comes, before it is unpacked (Lambda's limit on an event).
pub const HTTP_BODY_BYTES_MAX: usize = 6 << 20;
/// Bytes of a body after it is unpacked, where the memory allows as much.
pub const HTTP_UNPACKED_BYTES_MAX: usize = 16 << 20;
/// The largest zstd window that is accepted, as a power of two (RFC 9659: 8 MiB).
pub const HTTP_ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Records of one HTTP request.
pub const HTTP_RECORDS_MAX: usize = 50_000;
/// Longest query string of an HTTP request.
pub const HTTP_QUERY_BYTES_MAX: usize = 16 << 10;
/// Bytes of an HTTP answer's body: in base 64 with its headers it fits into what Lambda lets out, which is 6 MiB.
pub const HTTP_ANSWER_BYTES_MAX: usize = 4_400 << 10;
/// All of an answer as Lambda takes it: the body escaped or in base 64, and the headers.
pub const HTTP_PAYLOAD_BYTES_MAX: usize = (6 << 20) - (16 << 10);
/// Longest message of one error; what is above it is cut off.
pub const HTTP_MESSAGE_BYTES_MAX: usize = 512;
/// Names of one page of a list.
pub const HTTP_PAGE_NAMES_MAX: usize = 1_000;
/// Longest long poll.
pub const HTTP_WAIT_MS_MAX: u64 = 20_000;
/// An invocation with less time left than this begins no commit: it would end before its outcome is known.
pub const HTTP_COMMIT_MS: u64 = 1_500;
/// What is kept of an invocation's time for its answer.
pub const HTTP_ANSWER_MS: u64 = 300;
/// How long an answer waits for what is under way behind it: a checkpoint, a put that was not answered.
pub const HTTP_SETTLE_MS_MAX: u64 = 5_000;
/// Seconds that a client is asked to wait before it tries again.
pub const HTTP_RETRY_AFTER_S: u32 = 1;
/// Longest `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

const _: () = {
    assert!(RECORD_BYTES_DEFAULT <= RECORD_BYTES_MAX);
    assert!(KEY_BYTES_MAX <= RECORD_BYTES_MAX);
    assert!(SEGMENT_RAW_BYTES_MAX < SEGMENT_BYTES_MAX, "a raw segment fits its own limit");
    assert!(SEGMENT_BYTES_MAX <= i32::MAX as usize, "positions are u32, offsets in memory i32");
    assert!(SEGMENT_RAW_BYTES_MAX / ROW_BYTES <= SEGMENT_ROWS_MAX, "the byte limit bounds the rows");
    // Two neighbours that did not fit into one shared group, or a slice with its own group beside a small one.
    assert!(
        SEGMENT_RAW_BYTES_MAX / (ROW_GROUP_OWN_BYTES / 2) <= ROW_GROUPS_MAX,
        "the byte limit bounds the groups"
    );
    assert!(ROW_GROUP_OWN_BYTES <= ROW_GROUP_SHARED_BYTES_MAX);
    assert!(MERGE_RAW_BYTES + SEGMENT_RAW_BYTES_MAX < SEGMENT_BYTES_MAX, "a merged segment fits even raw");
    assert!(
        MERGED_GROUP_RAW_BYTES + RECORD_RAW_BYTES_MAX < SEGMENT_BYTES_MAX
            && SEGMENT_BYTES_MAX < MERGED_BYTES_MAX
    );
    assert!(INLINE_BYTES_MAX < COMMIT_BYTES_PLANNED);
    assert!(COMMIT_BYTES_PLANNED * 2 < COMMIT_BYTES_MAX, "one group commit may overshoot its plan");
    assert!(COMMIT_BYTES_MAX + TABLE_KEY_BYTES_MAX < ITEM_BYTES_MAX, "a commit with its hint is an item");
    assert!(ITEM_BYTES_MAX <= 400 << 10, "DynamoDB's item limit");
    assert!(ITEM_BYTES_MAX <= PAGE_BYTES && ITEM_BYTES_MAX <= SQLITE_VALUE_BYTES_MAX);
    assert!(SQLITE_BUSY_MS < TABLE_TIMEOUT_MS, "a lock is reported as throttled before the caller gives up");
    assert!(TABLE_CONNECT_MS < TABLE_ATTEMPT_MS && TABLE_ATTEMPT_MS * 2 < TABLE_TIMEOUT_MS, "two reads fit");
    assert!(
        TABLE_ANSWER_BYTES_MAX > (PAGE_BYTES + ITEM_BYTES_MAX) / 3 * 4 + PAGE_ITEMS * 256,
        "a page in base 64"
    );
    assert!(CHECKPOINT_COMMIT_BYTES <= PAGE_BYTES as u64, "the tail after a checkpoint is one page");
    assert!(CHECKPOINT_COMMITS <= PAGE_ITEMS as u64);
    assert!(POLL_MS_MIN < POLL_MS_MAX && POLL_MS_MAX <= EMPTY_FETCH_AGE_MS);
    assert!(HEAD_EVIDENCE_MS < POLL_MS_MIN);
    assert!(TABLE_TIMEOUT_MS * 2 < SETTLE_MS_MAX, "one look and one repeat fit before Unknown");
    assert!(OBJECT_TIMEOUT_MS_REMOTE < OBJECT_TIMEOUT_MS && OBJECT_TIMEOUT_MS < OBJECT_TIMEOUT_MS_MAX);
    assert!(
        OBJECT_DEADLINE_MS + OBJECT_TIMEOUT_MS_MAX < DELIVERY_TIMEOUT_MS_DEFAULT,
        "an upload fails before its batch"
    );
    assert!(OBJECT_BACKOFF_MS_MAX < OBJECT_OUTAGE_MS && OBJECT_OUTAGE_MS < OBJECT_DEADLINE_MS);
    assert!(OBJECT_CONNECT_MS < OBJECT_TIMEOUT_MS_REMOTE && OBJECT_THROTTLE_MS < OBJECT_THROTTLE_MS_MAX);
    assert!(HEDGE_SAMPLES_MIN <= HEDGE_SAMPLES && HEDGE_SHARE_PERCENT <= 10);
    assert!(BUFFER_BYTES_DEFAULT >= UPLOADS_MAX * SEGMENT_RAW_BYTES);
    assert!(RECORD_BYTES_MAX <= BUFFER_BYTES_DEFAULT);
    assert!(BUFFER_BYTES_MAX <= u32::MAX as usize, "the buffer's semaphore counts in u32");
    assert!(
        DRAWN_BYTES < RECORD_BYTES_DEFAULT,
        "what is drawn in advance is a small part of the least buffer"
    );
    assert!(ONCE_EXPIRE_MS <= EXPIRE_MS);
    assert!(HTTP_ANSWER_BYTES_MAX.div_ceil(3) * 4 <= HTTP_PAYLOAD_BYTES_MAX, "an answer fits in base 64");
    assert!(HTTP_BODY_BYTES_MAX <= HTTP_UNPACKED_BYTES_MAX);
    assert!(HTTP_ANSWER_MS < HTTP_COMMIT_MS);
};
