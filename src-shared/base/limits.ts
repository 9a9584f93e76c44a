import { assert } from "./assert.ts";

/**
 * Every bound of the system: sizes in bytes, durations in milliseconds, counts. Each says why it is what it is;
 * the relations between them are asserted at the end of the file, when it is loaded.
 */

const KiB = 1024;
const MiB = 1024 * KiB;
const GiB = 1024 * MiB;
const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

// ---- Files and chunks -------------------------------------------------------------------------------------------

/** Plaintext bytes of a chunk: small enough to be proven and repeated cheaply, large enough that the 20-byte header is noise. */
export const CHUNK_BYTES = 64 * KiB;
/**
 * Chunk size for files above {@link LARGE_FILE_BYTES}: what is done for each chunk, and not for its bytes, costs a quarter, and the
 * hash tree stays small. Smaller files are cut finer, so that several seeders share them well.
 */
export const CHUNK_BYTES_LARGE = 256 * KiB;
export const LARGE_FILE_BYTES = 128 * MiB;
/** AES-GCM tag that each encrypted chunk carries (NIST SP 800-38D). */
export const CHUNK_TAG_BYTES = 16;
/** 2^24 chunks of 256 KiB = 4 TiB: bounds the leaf list of a hostile manifest at 512 MiB on disk, never in memory at once. */
export const CHUNKS_PER_FILE_MAX = 2 ** 24;
export const FILE_BYTES_MAX = CHUNKS_PER_FILE_MAX * CHUNK_BYTES_LARGE;
/** Leaves that travel, are proven and are stored together: 1,024 x 32 B = 32 KiB a page. */
export const LEAVES_PER_PAGE = 1024;
/** ext4, NTFS and APFS end at 255 bytes or UTF-16 units; room is kept for " (12)" and the part suffix. */
export const FILE_NAME_BYTES_MAX = 230;

/** Files and empty folders in one shared folder: a large source tree. What the chunk worker keeps of each is about 200 bytes. */
export const FOLDER_ENTRIES_MAX = 100_000;
/** Folders in folders; deeper ones run into the path limits of the systems that receive them. */
export const FOLDER_DEPTH_MAX = 64;
/** A path within a shared folder; with the download folder before it, it stays below the 4,096 bytes of Linux. */
export const FOLDER_PATH_BYTES_MAX = 2048;
/** The list of files is held in memory while it is read: 100,000 entries with paths of 120 bytes. */
export const FOLDER_LIST_BYTES_MAX = 16 * MiB;
/** Lists of files that the chunk worker keeps in memory. */
export const FOLDER_LISTS_KEPT = 4;
/** Entries of one folder in one answer to the window; the rest is asked for when somebody scrolls that far. */
export const FOLDER_ENTRIES_PAGE = 500;
/** Ranges of entries in a selection: fits one call from the window, and folders are ranges. */
export const FOLDER_RANGES_MAX = 5000;
/** Files that are read or written in one go, without a turn for others in between, and without staying open. */
export const SMALL_FILE_BYTES = 256 * KiB;
/** Other work gets its turn at least this often while many small files are read or written. */
export const WORK_TURN_MS = 15;
/** So many files of a folder are forced to the disk together with all else on it: 10,000 took 0.1 s so, and 1.4 s one by one. */
export const SYNC_TOGETHER_FILES = 100;
/** Files whose bytes are forced to the disk at once: they share the journal's commits. */
export const SYNCS_AT_ONCE = 8;

// ---- Transfer ---------------------------------------------------------------------------------------------------

/**
 * Chunks that one seeder was asked for and that are not stored yet; with 64 KiB chunks 6 MiB, several times the loopback
 * bandwidth x delay and what a commit takes, and three times that of 333 Mbit/s over 50 ms, see {@link RECEIVE_CREDIT_BYTES}.
 */
export const REQUEST_WINDOW_CHUNKS = 96;
/**
 * The same bound in bytes, for chunks of 256 KiB. It is asked for a quarter at a time, and every request costs a turn of four
 * threads: with 8 MiB instead of 3 a download took a tenth less processor time, and with 14 no less. Must fit the receive credit.
 */
export const REQUEST_WINDOW_BYTES = 8 * MiB;
/**
 * Windows of one download over all its seeders: bounds memory, and is what a killed download asks for once more. Four
 * seeders on the widest links fill it; more of them share it.
 */
export const REQUEST_WINDOWS_MAX = 4;
/** Under way from a seeder whose speed is not known yet: enough for the first round trip, little to wait for if it is slow. */
export const REQUEST_WINDOW_START_BYTES = 1 * MiB;
/** Chunks under way even from the slowest seeder: one that travels and one that waits. */
export const REQUEST_WINDOW_MIN_CHUNKS = 2;
/** A window holds what a seeder delivers in this time, or in two round trips: it survives a pause, and is soon over. */
export const REQUEST_WINDOW_TIME_MS = 400;
/** A seeder's speed is measured over this time: several chunks of a slow one, and soon enough for a short download. */
export const FLOW_SAMPLE_MS = 100;
/** Silence after which others, if they have nothing else to do, are asked for what a seeder owes. */
export const SEEDER_PATIENCE_MS = 500;
/** Seeders that may owe the same chunk at the end of a download: two waste one window at most. */
export const ENDGAME_COPIES_MAX = 2;
/** A seeder that delivers this many times faster than another makes waiting for the other's last chunks useless. */
export const ENDGAME_SPEEDUP = 1.5;
/** Missing chunks that are compared for their rarity before a request: a fraction of a millisecond. */
export const RAREST_SCAN_CHUNKS = 4096;
/**
 * Chunks that a downloader asks a seeder for in a row before it goes on elsewhere, while others fetch the file too: 1 MiB of
 * a small file is one seek for a disk, and little enough for receivers of a few MiB to have something to exchange.
 */
export const SCATTER_STRETCH_CHUNKS = 16;
/** Seeders that one download has sessions with; more would not be faster, and each costs memory on both sides. */
export const SEEDERS_PER_DOWNLOAD_MAX = 32;
/** Timeouts in a row after which a silent seeder is left alone for {@link SEEDER_SILENT_REST_MS}, if there is another. */
export const SEEDER_TIMEOUTS_MAX = 2;
export const SEEDER_SILENT_REST_MS = 1 * MINUTE;
/** Chunks that nobody asked for, from one seeder; an honest one sends none, but a request that crosses its own repeat may. */
export const UNASKED_FRAMES_MAX = 8;
/** Chunks that a seeder said it had and then had not. Its disk may lose some. */
export const FALSE_CLAIMS_MAX = 64;
/** Shares of a limit, and of one seeder's link, that downloads of the three priorities get. */
export const TRANSFER_WEIGHTS = { high: 4, normal: 2, low: 1 } as const;
/** Granted chunks that a download may save up: one that travels and one that is asked for next. */
export const ALLOWANCE_CHUNKS_MAX = 2;
/** What a limit may exceed itself by after a pause. */
export const BANDWIDTH_BURST_MS = 200;
/** Smaller limits would make a chunk take longer than a request waits. */
export const BANDWIDTH_LIMIT_MIN_BYTES = 16 * KiB;
export const BANDWIDTH_LIMIT_MAX_BYTES = 16 * GiB;
/** What a receiver has got is told to others this often at most, and in so many runs of chunks a message. */
export const HAVE_INTERVAL_MS = 250;
export const HAVE_RUNS_MAX = 256;
/** Indices in one request message: keeps the message far below {@link CONTROL_MESSAGE_BYTES_MAX}. */
export const REQUEST_INDICES_MAX = 64;
/** Requests that a seeder queues for one peer, of whom all downloads may come from it; more is answered with `refuse`. */
export const SEEDER_QUEUE_CHUNKS_MAX = 1024;
/** A chunk that was requested and has not arrived is asked for again after this long (then doubling, up to the maximum). */
export const REQUEST_TIMEOUT_MS = 20 * SECOND;
export const REQUEST_TIMEOUT_MAX_MS = 2 * MINUTE;
/** Default of the user's drain timeout: a backstop only, because `stopped` ends the drain exactly. */
export const DRAIN_TIMEOUT_MS = 5 * SECOND;
export const DRAIN_TIMEOUT_MIN_MS = 100;
export const DRAIN_TIMEOUT_MAX_MS = 5 * MINUTE;
/** Chunks in one SQLite transaction of the chunk worker: a batch grows to this while the disk is the slower side. */
export const STORE_BATCH_CHUNKS = 64;
/**
 * A commit waits for this much of chunks, or this long: it writes about five pages of 64 KiB and waits for the disk whatever
 * it holds. A third of a window of small chunks, so that the seeder keeps sending meanwhile; the time is what a slow link notices.
 */
export const STORE_GATHER_BYTES = 2 * MiB;
export const STORE_GATHER_MS = 10;
/**
 * Bytes handed to the chunk worker and not yet committed; beyond it no receive credit is given. Covers a commit
 * that waits for the disk while the WAL is copied at full speed.
 */
export const STORE_BACKLOG_BYTES_MAX = 32 * MiB;
/** Downloads that run at once; the others wait in the order in which they were started. */
export const TRANSFERS_ACTIVE_MAX = 8;
/** Snapshots of one transfer to the renderer: ten a second look smooth and cost nothing. */
export const PROGRESS_INTERVAL_MS = 100;
/** How long after the last progress of a transfer the delay of the event loop is measured: over the pauses between two. */
export const EVENT_LOOP_WATCH_MS = 10_000;
/** Bytes that the chunk worker reads, hashes or writes in one go: large enough for the disk, small enough that others get their turn. */
export const WORK_BATCH_BYTES = 1 * MiB;
/**
 * Bytes of one write, and of what is decrypted meanwhile: of several writes the next begins only when the thread has a turn, so
 * a larger batch would be written while nothing is decrypted. Linux makes the pages of its cache as large as a write, and large
 * ones are of memory that lay idle, which is dear where it has to be fetched back from a host.
 */
export const WRITE_PIECE_BYTES = 256 * KiB;
/**
 * From this size on a file is read back and hashed in a thread of its own while it is assembled. That saves 0.6 ms a MiB;
 * to start the thread takes 60 ms of processor time and 5 to 14 MiB of memory, from TypeScript sources twice as much.
 */
export const READ_BACK_FILE_BYTES_MIN = 256 * MiB;
/** Files that are hashed for sharing at once; each holds two WORK_BATCH_BYTES. */
export const SHARES_ACTIVE_MAX = 16;
/** A chunk takes little more than one of these. */
export const CHUNKS_PAGE_BYTES = 64 * KiB;
/** What is found out while Weir starts is told after this, when a window is there to show it. */
export const NOTICE_AT_START_MS = 3 * SECOND;
/** The limit on chunks that a person may choose. Less would refuse ordinary files; more than the largest file limits nothing. */
export const CHUNK_STORAGE_MIN_BYTES = 64 * MiB;
export const CHUNK_STORAGE_MAX_BYTES = FILE_BYTES_MAX;
/** Evictions that are remembered, to be shown. */
export const CHUNK_EVICTIONS_KEPT = 50;
/** A row that is read out of a damaged database: the list of a folder with its longest paths, and some. More is damage too. */
export const SALVAGE_ROW_BYTES_MAX = 32 * MiB;
/**
 * A download up to this size stays in the WAL of chunks.db until it is assembled and deleted, and is never copied into the
 * database file: a third less to write. Larger ones are copied while they arrive.
 */
export const WAL_WHOLE_FILE_BYTES = 1 * GiB;
/** Pages of the WAL that wait to be copied: such a file, with its indexes and what every commit adds, 1.5 GiB. */
export const WAL_KEPT_PAGES = 24_576;
/** The same while a larger file arrives, 32 MiB: a pass waits for the disk twice, and holds up commits that want the same disk. */
export const WAL_PASS_PAGES = 512;
/** The writer copies what is left, up to 8 MiB, which takes no longer than a commit under load. */
export const WAL_FINISH_PAGES = 128;
/** While a larger file arrives the WAL begins anew from 64 MiB on: overwriting costs a commit less than a file that grows. */
export const WAL_RESTART_PAGES = 1024;
/**
 * At 2 GiB nothing more is stored before all of it was copied: only a thread that fails, or a very slow disk, lets it come
 * to that. After a kill it is read once at the next start, which takes 1 to 2 s.
 */
export const WAL_PAGES_MAX = 32_768;
/** A WAL that nothing was written to for this long, and at most twice that, is copied and emptied. Assembling is over by then. */
export const WAL_REST_MS = 10 * SECOND;
/** More than this is not copied when the program ends, 64 MiB: it would have to wait for the disk. The next start does it. */
export const WAL_CLOSE_PAGES_MAX = 1024;
/** A served file stays open this long after its last batch; short, because Windows keeps others from deleting it. */
export const SOURCE_FILE_IDLE_MS = 2 * SECOND;
/** Buffers of sent frames that the worker keeps for reuse: those of two busy peers. */
export const FRAME_BUFFERS_KEPT = 4;
/** Batches per peer that a seeder has read or is reading ahead of the link. */
export const SEEDER_READ_AHEAD = 2;
/** A worker that dies this often in the time below is not tried again without the user: the file may be what kills it. */
export const WORKER_LOSSES_MAX = 3;
export const WORKER_LOSSES_WINDOW_MS = 10 * MINUTE;
/** Files that one peer may have open at a seeder at once; more is answered with `busy`. */
export const SEEDER_SESSIONS_PER_PEER_MAX = 32;
/** Pages of leaves that a downloader asks one seeder for before the first has come. */
export const LEAF_REQUESTS_MAX = 2;
/** A seeder that was busy, or cut the session, is asked again after this long. */
export const SEEDER_RETRY_MS = 5 * SECOND;
/** A seeder that has nothing of what is missing is asked again after this long: it may be receiving the file itself. */
export const SEEDER_EMPTY_RETRY_MS = 30 * SECOND;
/** The state of a download that could not be written down (the disk was full) is tried again after this long. */
export const TRANSFER_SAVE_RETRY_MS = 2 * SECOND;
/** " (2)", " (3)" ...: beyond it somebody is filling the folder on purpose. */
export const FILE_NAME_SUFFIX_MAX = 10_000;
/** Time over which the shown speed is averaged. */
export const SPEED_WINDOW_MS = 3 * SECOND;
/** Free space that must remain after a download, so that the databases can still write. */
export const DISK_RESERVE_BYTES = 64 * MiB;
/** File kept in the data folder and released when the disk is full, because even DELETE needs space. */
export const BALLAST_BYTES = 16 * MiB;
/** How often a missing ballast file is tried again: a full disk rarely empties within seconds. */
export const BALLAST_RETRY_MS = 1 * MINUTE;

// ---- Links ------------------------------------------------------------------------------------------------------

/** Bytes queued in the addon for one peer before `send` says "full" (js-libp2p uses the same). */
export const SEND_QUEUED_BYTES_MAX = 2 * MiB;
/** When the queue falls to this, `drained` fires. */
export const SEND_QUEUED_BYTES_LOW = 512 * KiB;
/**
 * Bulk bytes that a peer may send before we give it more credit: what a reader that stalls may be sent, and at most what is
 * under way on a long path. What is granted takes three round trips to arrive, because the library cuts the congestion window of
 * an association that runs dry: at 50 ms 4 MiB came to 230 Mbit/s.
 */
export const RECEIVE_CREDIT_BYTES = 12 * MiB;
/** Credit is renewed when this much was consumed: few messages, and the sender never waits a round trip. */
export const RECEIVE_CREDIT_STEP_BYTES = 3 * MiB;
/** One WebRTC message: a 256 KiB chunk with tag and header must fit; larger ones arrive cut, so we announce and check it. */
export const LINK_MESSAGE_BYTES_MAX = 512 * KiB;
/** The bitmap of a `have`, for 2^20 chunks; a seeder of a larger file says "all", or serves nothing until it has all. */
export const HAVE_BITMAP_BYTES_MAX = 128 * KiB;
/** A control message: a page of envelopes or indices, never bulk data. */
export const CONTROL_MESSAGE_BYTES_MAX = 192 * KiB;
/**
 * What one peer may send on its control channel at once, and how fast that comes back. Control messages have no credit,
 * and the addon keeps them without limit, so a peer beyond this is cut off. A transfer at 200 MB/s asks for 3,200 chunks
 * a second, an outbox keeps to its window: an honest peer stays far below.
 */
export const CONTROL_BURST_MESSAGES = 20_000;
export const CONTROL_MESSAGES_PER_SECOND = 10_000;
export const CONTROL_BURST_BYTES = 32 * MiB;
export const CONTROL_BYTES_PER_SECOND = 16 * MiB;
/**
 * Control bytes queued in the addon for one peer. Whoever does not read them for that long is not served any better by
 * more of them: the link is given up, and what must arrive is sent again over the next one. A full window of the
 * largest envelopes (6 MiB) fits.
 */
export const CONTROL_QUEUED_BYTES_MAX = 8 * MiB;
/** SCTP buffers: 1 MiB caps 100 ms paths at 38 Mbit/s, 4 MiB gave 118 (measured). */
export const SCTP_BUFFER_BYTES = 4 * MiB;
/** Peers linked at once; a link costs about 1 MiB of native memory. */
export const LINKS_MAX = 64;
/**
 * Connections that the signals of one peer make us open, at once and again: each costs a millisecond, and the library
 * keeps about 12 KiB of every one for good. Backoff keeps honest peers far below.
 */
export const ATTEMPTS_BURST = 64;
export const ATTEMPTS_PER_SECOND = 0.5;
/** Candidates kept while the description is missing: a host has at most a few dozen. */
export const EARLY_CANDIDATES_MAX = 64;
/** Offers whose candidates wait at once: that of the link, of a second attempt, and one that is on its way. */
export const EARLY_OFFERS_MAX = 3;
/**
 * So long the dialer's ICE checks have to succeed before the answerer's begin. It sends one each 50 ms, so this is enough
 * for the addresses of a usual machine; a firewall that lets only the answerer's through costs it.
 */
export const ICE_HEAD_START_MS = 400;
/** A direct path stands within a second or two where there is one; after this long the server's relay is tried beside it. */
export const RELAY_AFTER_MS = 2 * SECOND;
/** A relayed link looks for a direct path at once, then ever more rarely: most networks that allow none never will. */
export const LINK_UPGRADE_FIRST_MS = 500;
export const LINK_UPGRADE_BASE_MS = 15 * SECOND;
export const LINK_UPGRADE_MAX_MS = 10 * MINUTE;
/**
 * Bytes of a packet between two programs on one machine. Loopback interfaces carry 16 KiB and more, but the library's
 * buffers are of 4,096: nothing larger arrives. Twice as fast as its default of 1,280, which passes every network.
 */
export const LOCAL_MTU_BYTES = 4096;
/** Within one machine only a packet that is lost for being too large takes this long to be answered. */
export const LOCAL_HANDSHAKE_TIMEOUT_MS = 3 * SECOND;
/** A hello that proves a path for larger packets; as large as those of any network card. */
export const LINK_HELLO_PADDING_MAX = 64 * KiB;
/** Connections with larger packets that are tried until something changes: one can fail because the machine is busy. */
export const LARGE_PACKET_TRIES_MAX = 2;
/**
 * Associations of one link that carry bulk frames besides its own. At 50 ms with 1 % loss one carries 2.4 Mbit/s and eight 20; more would
 * take from everybody else on the way. The first step is large, because each takes seconds to be judged.
 */
export const STRIPES_MAX = 8;
export const STRIPES_FIRST = 4;
/** Round trips below this are limited by the processor, and one association uses it well. */
export const STRIPE_RTT_MIN_MS = 10;
/** More are opened only while they make the link this much faster. */
export const STRIPE_GAIN_MIN = 1.25;
/** How often the gain is looked at: several round trips. */
export const STRIPE_TICK_MS = 500;
/** One that is not open by then is not missed; frames wait for the first ones. */
export const STRIPE_OPEN_TIMEOUT_MS = 5 * SECOND;
/** One on which nothing moves for this long is broken: the library repeats a packet after 10 s at the latest. */
export const STRIPE_STALL_MS = 12 * SECOND;
/** What arrived on each is told in steps of this: fresh enough to share frames out, and few messages. */
export const STRIPE_ACK_DELAY_MS = 20;
/**
 * Bytes under way on one association: at first, and at least. In between it follows its speed. 128 KiB keep the 2.4 Mbit/s of
 * 50 ms with 1 % loss busy, and hold up a message behind them for less than half a second.
 */
export const STRIPE_LIMIT_FIRST_BYTES = 256 * KiB;
export const STRIPE_LIMIT_MIN_BYTES = 128 * KiB;
/** Offers of stripes that a peer may make on one link, at once and again: like attempts, each costs some memory for good. */
export const STRIPE_OFFERS_BURST = 2 * STRIPES_MAX;
export const STRIPE_OFFERS_PER_SECOND = 0.1;
/** Connections of one peer that say goodbye at the same time; the oldest is cut when there are more. */
export const LINKS_LEAVING_MAX = 4;
/** Messages of a lossy kind that wait for their turn; the newest say everything that the older ones did. */
export const RECEIVE_QUEUE_ITEMS = 16;
/** Reliable messages of one link that wait for their turn: a whole control burst, and the receive credit in frames of 1 KiB. */
export const RECEIVE_LANE_ITEMS = CONTROL_BURST_MESSAGES + RECEIVE_CREDIT_BYTES / KiB;
/** Messages of one link that are handled in a row before every other one has its turn. */
export const RECEIVE_TURN_ITEMS = 64;
/** How often the set of network interfaces is compared; the system gives no event for it. */
export const NETWORK_POLL_MS = 2 * SECOND;
/** A poll that is this late was not delayed by load: the machine slept. */
export const SLEEP_NOTICED_MS = 10 * SECOND;
/** A test of a connection ends with what is known by then; every pair of people has some path sooner. */
export const LINK_TEST_TIMEOUT_MS = 15 * SECOND;
/** How long a link waits for the list of STUN and TURN servers: it starts without them sooner than late. */
export const ICE_SERVERS_WAIT_MS = 1 * SECOND;
/** STUN servers that are silent for this long count as unreachable; the test of a connection takes longer anyhow. */
export const NAT_PROBE_TIMEOUT_MS = 1500;
/** A packet or two can be lost. */
export const NAT_PROBE_RESEND_MS = 400;
/** Attempts of one link that its history keeps: a bad hour of backoffs. */
export const LINK_HISTORY_MAX = 32;
/** Steps of link machines that a report holds: a connection takes about thirty, and somebody reads the report. */
export const LINK_RECORDING_STEPS_MAX = 500;
/** From the first signal to a proven channel; a relayed path over two slow networks needs seconds, not a minute. */
export const LINK_CONNECT_TIMEOUT_MS = 20 * SECOND;
export const HANDSHAKE_TIMEOUT_MS = 10 * SECOND;
/** The library notices a dead peer after 13-29 s; two lost pings of 2 s do it in under 6 s. */
export const PING_INTERVAL_MS = 2 * SECOND;
export const PING_TIMEOUT_MS = 5 * SECOND;
/** Wait for `finAck` before channels are closed anyway. */
export const FIN_TIMEOUT_MS = 2 * SECOND;
/** The same at the end of the program, which is to be over in 3 s with all the rest, also on a busy machine. */
export const QUIT_FIN_TIMEOUT_MS = 1500;
/** A connection that was replaced by a better one may take this long to deliver what is on its way, while it moves. */
export const FIN_DRAIN_MAX_MS = 30 * SECOND;
export const RECONNECT_BASE_MS = 500;
export const RECONNECT_MAX_MS = 30 * SECOND;
/** A peer that the server calls offline: its presence will be told, so asking again is only a backstop. */
export const LINK_OFFLINE_RETRY_MAX_MS = 10 * MINUTE;
/** A request to dial that is older than our offer was sent before it arrived; after this long it means a restarted peer. */
export const DIAL_GRACE_MS = 3 * SECOND;
/** Both channels of a link are negotiated; a peer that opens more than a few others is hostile. */
export const UNEXPECTED_CHANNELS_MAX = 8;
/** Closed connections are released natively within milliseconds; the library is shut down anyway after this. */
export const RTC_CLEANUP_TIMEOUT_MS = 3 * SECOND;

// ---- Engine process -----------------------------------------------------------------------------------------------

/** Node and the addon load in well under a second; a machine that is very busy takes longer. */
export const ENGINE_START_TIMEOUT_MS = 10 * SECOND;
/** A call of the library that never returns is noticed after five of these, like ten seconds without an answer. */
export const ENGINE_PING_INTERVAL_MS = 2 * SECOND;
export const ENGINE_PINGS_UNANSWERED_MAX = 5;
/** Rest after it died once, twice, ...: the first time none, or the links would wait for longer than their own backoff. */
export const ENGINE_RESTS_MS: readonly number[] = [0, 1 * SECOND, 5 * SECOND, 30 * SECOND];
/** After this long the crash before is no longer counted. */
export const ENGINE_ALIVE_MS = 1 * MINUTE;
/** Connections and chunks.db are closed before it is told to end; then it is killed. The whole end has SHUTDOWN_TIMEOUT_MS. */
export const ENGINE_END_TIMEOUT_MS = 3 * SECOND;
/** Facts of a connection (its pair, its bytes) are looked up this often: twice within a ping of the link. */
export const ENGINE_FACTS_INTERVAL_MS = 1 * SECOND;
/**
 * What a connection may hold in the engine because the main process does not get to it: twice the receive credit, whose
 * renewal can overtake the chunks that it is for, and as much in control messages as a sender queues.
 */
export const ENGINE_WAITING_BYTES_MAX = 32 * MiB;
/**
 * What an event costs besides its bytes while it waits between the two processes: a message of 60 bytes took 1.7 KB as a
 * queued write in one and 0.9 KB as an object in the other (measured, Node 24).
 */
export const ENGINE_EVENT_BYTES = 2 * KiB;
/** The main process tells what it has handled in steps of this, which are few messages. */
export const ENGINE_SEEN_STEP_BYTES = 256 * KiB;
/** Signals of one peer that wait for their turn; more are dropped and counted. */
export const SIGNAL_QUEUE_MAX = 128;

// ---- Discovery on the local network -----------------------------------------------------------------------------------

/** How long one name and its tags are used: shorter costs packets, longer lets somebody follow a computer around. */
export const LAN_EPOCH_MS = 15 * MINUTE;
/** 100 random bits: names never meet by chance. */
export const LAN_INSTANCE_BYTES = 13;
/** 64 bits: with 93 tags and 93 contacts, a stranger's tag fits one of ours once in 10^15 records. */
export const LAN_TAG_BYTES = 8;
/** As many as one TXT string of 255 bytes holds. */
export const LAN_TAGS_PER_STRING = 31;
/** Contacts that an announcement is for: three strings, so that a packet stays below 1,000 bytes and is never split. */
export const LAN_TAGS_MAX = 3 * LAN_TAGS_PER_STRING;
/** RFC 6762 proposes 2 minutes for records that depend on an address. */
export const LAN_RECORD_TTL_MS = 2 * MINUTE;
/** A lifetime that somebody else claims counts no longer than this. */
export const LAN_TTL_MAX_MS = 5 * MINUTE;
/** Answers of one packet that are looked at; ours has 3. */
export const LAN_RECORDS_MAX = 32;
/** At most one announcement a second (RFC 6762, 6), and after a pause by chance, so that many do not answer at once. */
export const LAN_ANNOUNCE_INTERVAL_MS = 1 * SECOND;
export const LAN_ANSWER_DELAY_MIN_MS = 20;
export const LAN_ANSWER_DELAY_MAX_MS = 120;
/** Questions: often at first, then rarely, because everybody announces by itself. */
export const LAN_QUERY_BASE_MS = 1 * SECOND;
export const LAN_QUERY_MAX_MS = 60 * SECOND;
/** Weirs on one network that are kept in mind; of strangers the oldest gives way. */
export const LAN_HEARD_MAX = 256;
/** Addresses of one person: a computer on a cable and on radio, twice. */
export const LAN_HINTS_PER_PEER_MAX = 4;
/** Records of names not heard before that are compared with our contacts, a minute: the work that a flood can cause. */
export const LAN_COMPARISONS_PER_MINUTE = 120;
/** Packets looked at a second; a busy office network has tens. */
export const LAN_PACKETS_PER_SECOND = 200;
/** Interfaces that discovery runs on: cable, radio, a few virtual ones. */
export const LAN_INTERFACES_MAX = 8;

// ---- Messages ---------------------------------------------------------------------------------------------------

/** Text of a message; longer texts are better sent as a file. */
export const MESSAGE_TEXT_BYTES_MAX = 32 * KiB;
export const PROFILE_NAME_LENGTH_MAX = 64;
export const MESSAGES_PAGE_MAX = 200;
/** Plaintext is padded to a multiple of this before it is sealed, so that sizes say little. */
export const CONTENT_PADDING_BYTES = 160;
/** One sealed envelope at the mailbox: a padded message of maximum size in base64 with headroom. */
export const ENVELOPE_BYTES_MAX = 64 * KiB;
/** Unsent messages to one contact; a person who hits it is told. */
export const OUTBOX_PER_PEER_MAX = 10_000;
/** Messages that arrived before an earlier one of the same sender; they are shown in order or when the gap is given up. */
export const EARLY_MESSAGES_MAX = 256;
export const EARLY_MESSAGE_WAIT_MS = 60 * SECOND;
/** Sealed envelopes on a link that the peer has not acknowledged: hides the round trip, and far below CONTROL_BURST_MESSAGES. */
export const LINK_ENVELOPES_IN_FLIGHT_MAX = 32;
/** An envelope that the peer of a live link did not acknowledge by then (its disk was full, say) is sent again. */
export const LINK_ACK_TIMEOUT_MS = 15 * SECOND;
/** What libsignal adds to a padded content at most: headers, keys and the Kyber ciphertext of a prekey message (1.8 KB measured). */
export const SEAL_OVERHEAD_BYTES_MAX = 4 * KiB;
export const OUTBOX_RETRY_BASE_MS = 1 * SECOND;
/** A contact whose mailbox is full is tried again once a minute, not forgotten. */
export const OUTBOX_RETRY_MAX_MS = 60 * SECOND;
/**
 * Contents that the outboxes look up, or seal, in one turn of the event loop; a large group needs hundreds at once. One takes
 * 0.3 to 1.5 ms (measured), and no turn is to take more than about 20 ms.
 */
export const OUTBOX_STEPS_PER_TURN = 12;
/** Receipts wait this long for company: one envelope then answers a burst of messages. */
export const RECEIPT_DELAY_MS = 100;
/** Message ids in one receipt: 500 x 25 bytes of JSON stay far below an envelope. */
export const RECEIPT_MESSAGES_MAX = 500;
/** Envelopes of a contact whose key changed, kept sealed until the user decides; more stay at the server. */
export const HELD_ENVELOPES_MAX = 256;
/** Envelopes of one peer that wait to be opened; more are not acknowledged, so the peer sends them again. */
export const INBOX_PENDING_MAX = 512;
/** Ids of opened envelopes outlive every copy that the mailbox could still hold. */
export const SEEN_ENVELOPE_TTL_MS = 37 * DAY;
/** "… is typing" disappears after this, and is repeated while the person types. */
export const TYPING_TTL_MS = 6 * SECOND;
export const TYPING_REPEAT_MS = 3 * SECOND;

// ---- Groups -------------------------------------------------------------------------------------------------------

/** People in one group. Each message is sealed once for everybody and put into as many envelopes: 200 take about a second. */
export const GROUP_MEMBERS_MAX = 200;
/** The name under which somebody is put into a group; so an operation that names everybody fits one envelope. */
export const GROUP_PERSON_NAME_BYTES_MAX = 64;
/** Groups that one profile keeps: what it holds of each while it runs is some 100 KiB. */
export const GROUPS_MAX = 500;
/**
 * Members that are told of a change of a group in one turn of the event loop, and one transaction: what names 200 people takes
 * 0.5 ms for each of them (measured), so 10 ms.
 */
export const GROUP_TOLD_PER_TURN = 20;
/**
 * Members into whose outboxes a message to a group comes in one turn of the event loop, and one transaction: 0.2 ms for each
 * of them, 0.9 ms with a new key (measured on a busy machine), so 11 ms at most.
 */
export const GROUP_POSTED_PER_TURN = 12;
/** Changes of one group. With as many people a change a week for years; each is checked against those before it. */
export const GROUP_OPERATIONS_MAX = 2000;
/** Newest operations that one names: as many people would have to act at the very same time. */
export const GROUP_PARENTS_MAX = 16;
/** Operations in one envelope, by their size in JSON; one that names everybody is 30 KiB at most. */
export const GROUP_PAGE_BYTES = 40 * KiB;
/** Whoever left and forgot a group tries for so long to tell its members; the mailbox keeps nothing for longer either. */
export const GROUP_GOODBYE_MS = 30 * DAY;
/**
 * What arrived from one member of a group and waits for the log or for its turn, and from one person for all groups together
 * that are not known; more is dropped, and told.
 */
export const GROUP_ARRIVALS_MAX = 1000;
/** Sender keys of one member of a group that are kept: the newest, and the one before for what comes late. */
export const GROUP_SENDER_KEYS_KEPT = 2;
/** Messages that one request says could not be read, and how often one member may ask while the program runs. */
export const GROUP_UNREAD_MAX = 50;
export const GROUP_REPAIRS_MAX = 20;

// ---- Signal protocol (values of Signal Desktop where it has them) -------------------------------------------------

export const PREKEY_BATCH = 100;
export const PREKEY_REFILL_BELOW = 10;
export const SIGNED_PREKEY_ROTATE_MS = 36 * HOUR;
export const SIGNED_PREKEYS_KEPT = 5;
/** Unused one-time private keys younger than this, or among the newest {@link PREKEYS_KEPT}, are never deleted (Signal Desktop: 90 days, 200). */
export const PREKEY_ARCHIVE_MS = 90 * DAY;
export const PREKEYS_KEPT = 2 * PREKEY_BATCH;
/** Unused one-time private keys of one kind in all: a server that never confirms a batch must not fill the disk (4.8 KB each). */
export const PREKEYS_UNUSED_MAX = 20 * PREKEY_BATCH;
/**
 * Requests for a fresh session to one peer in SESSION_RESET_WINDOW_MS: each takes one-time keys of theirs. A session
 * breaks once in years; a few more leave room for a backup that is restored twice. Whoever sends garbage gets no more.
 */
export const SESSION_RESETS_MAX = 4;
export const SESSION_RESET_WINDOW_MS = HOUR;
/** Requests of one peer that are answered in the window, each by sealing the outbox again; twice what an honest one sends. */
export const SESSION_RESETS_ANSWERED_MAX = 2 * SESSION_RESETS_MAX;
/** Session operations that wait for one address. */
export const SESSION_QUEUE_MAX = 4096;

// ---- Pairing ----------------------------------------------------------------------------------------------------

export const INVITE_CODE_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
export const INVITE_CODE_LENGTH = 6;
export const INVITE_TTL_MS = 10 * MINUTE;
/** Invitations that one person may have open at once. */
export const INVITES_OPEN_MAX = 16;
/** Codes of others that were resolved and are kept for a repeat; a person types a few in ten minutes. */
export const CODES_KEPT_MAX = 64;
/** Link in a QR code that a cheap camera can read. */
export const INVITE_LINK_LENGTH_MAX = 400;
export const CONTACTS_MAX = 5000;
export const CONTACT_REQUESTS_PENDING_MAX = 100;

// ---- Rendezvous server --------------------------------------------------------------------------------------------

/** One socket.io message; the largest is a full key upload. */
export const SERVER_MESSAGE_BYTES_MAX = 512 * KiB;
export const MAILBOX_TTL_MS = 30 * DAY;
export const MAILBOX_ENVELOPES_MAX = 10_000;
export const MAILBOX_BYTES_MAX = 64 * MiB;
/** The share of one sender: a stranger must not be able to close a mailbox to everybody else. A friend's outbox waits. */
export const MAILBOX_ENVELOPES_PER_SENDER_MAX = MAILBOX_ENVELOPES_MAX / 4;
export const MAILBOX_BYTES_PER_SENDER_MAX = MAILBOX_BYTES_MAX / 4;
/** Envelopes pushed before the first is acknowledged. */
export const MAILBOX_PUSH_WINDOW = 64;
/** Senders whose mail a device does not want just now: each is one whose envelopes it cannot take in, so there are few. */
export const MAILBOX_DEFERRED_MAX = 1000;
/** Mail that could not be taken in is asked for again after this; doubled up to the maximum, because each try moves a window of it. */
export const ENVELOPE_RETRY_BASE_MS = 2 * SECOND;
export const ENVELOPE_RETRY_MAX_MS = 10 * MINUTE;
export const LOGIN_TIMEOUT_MS = 10 * SECOND;
export const SERVER_REQUEST_TIMEOUT_MS = 10 * SECOND;
export const SERVER_RECONNECT_MAX_MS = 15 * SECOND;
/** Sockets that have not logged in yet, per server: a flood of half-open ones must not use up memory. */
export const SERVER_PENDING_LOGINS_MAX = 512;
/**
 * The same from one address, so that a single machine cannot refuse everybody's login. A login takes milliseconds, so
 * an office of hundreds behind one address gets through; who is refused comes back with a backoff.
 */
export const SERVER_PENDING_LOGINS_PER_ADDRESS_MAX = 128;
/** One request's idempotency key is remembered this long; retries happen within seconds. */
export const IDEMPOTENCY_TTL_MS = 10 * MINUTE;
/** Per account: requests in a burst and the rate at which they come back (Signal: 60, then 1/s, for messages alone). */
export const RATE_REQUESTS_BURST = 600;
export const RATE_REQUESTS_PER_SECOND = 60;
/** Wrong or unknown invite codes per account: 30 bits of code at 5 tries in 10 min cannot be guessed. */
export const RATE_CODE_TRIES = 5;
export const RATE_CODE_WINDOW_MS = 10 * MINUTE;
/** Bundles of one person that one account may fetch: 6, then one per 10 min (Signal-Server), against prekey depletion. */
export const RATE_BUNDLE_FETCHES = 6;
export const RATE_BUNDLE_WINDOW_MS = 10 * MINUTE;
export const PRESENCE_WATCH_MAX = CONTACTS_MAX;
export const FILES_PER_OWNER_MAX = 100_000;
export const SHARE_MEMBERS_MAX = 1000;
/** Operations in the list of one file. Nobody changes one that often by hand, and a client replays it in a second. */
export const SHARE_OPERATIONS_MAX = 10_000;
/** Nobody is added above this version: whatever members do, the owner can still take every access back. */
export const SHARE_ADDS_VERSION_MAX = SHARE_OPERATIONS_MAX - 2 * SHARE_MEMBERS_MAX;
/** A list that could not be fetched or changed over a connection that stands is tried again after this long. */
export const SHARE_RETRY_MS = 3 * SECOND;
/** Changes of share lists wait this long for more, so that several in a row are one notice to each person. */
export const SHARE_NOTICE_DELAY_MS = 500;
/** Lists that one notice names; more go into the next one. */
export const SHARE_NOTICE_FILES_MAX = 200;
/** Requests for a file's key that wait for the newest list, and keys that we have asked for; beyond it the oldest is dropped. */
export const SHARE_KEY_REQUESTS_MAX = 1000;
/** How long the end of a file's time may be late here after the clock was changed or the computer slept. */
export const SHARE_EXPIRY_CHECK_MS = MINUTE;
/** Receipts of one file: two for each person, and a list names a few thousand people at most. */
export const SHARE_RECEIPTS_MAX = 10_000;
/** Operations, or receipts, in one request or answer: each has three binary fields, see SERVER_MESSAGE_ATTACHMENTS_MAX. */
export const SHARE_OPERATIONS_PAGE = 64;
/** The same bound in bytes: an operation that names everybody is 40 KiB. */
export const SHARE_PAGE_BYTES = 256 * KiB;
/** Binary fields of one message; a full key upload has 6 + PREKEY_BATCH + 2 x PREKEY_BATCH. socket.io's default is 10. */
export const SERVER_MESSAGE_ATTACHMENTS_MAX = 320;
/** Sockets in all; each costs about 50 KiB of memory. */
export const SERVER_CONNECTIONS_MAX = 20_000;
/** Logins from one address in LOGINS_WINDOW_MS: an office behind one address comes back at once after an outage. */
export const RATE_LOGINS_PER_ADDRESS = 600;
export const RATE_LOGINS_WINDOW_MS = MINUTE;
/** Wrong codes per remote address: several people share one, and accounts cost nothing, so the account alone is no bound. */
export const RATE_CODE_TRIES_PER_ADDRESS = 20;
/** Requests of one connection that are being worked on; a client keeps SERVER_REQUESTS_IN_FLIGHT at most. */
export const SERVER_REQUESTS_IN_PROGRESS_MAX = 256;
/** Packets that wait for a client that does not read; beyond it the client is disconnected. Nothing durable is lost by that. */
export const SERVER_SEND_QUEUE_MAX = 1024;
/** A client acknowledges a signal as soon as it has it, before it looks inside. */
export const SIGNAL_ACK_TIMEOUT_MS = 5 * SECOND;
/** Signals without an acknowledgement per connection: 64 x 64 KiB = 4 MiB. */
export const SIGNALS_UNACKNOWLEDGED_MAX = 64;
/** Answers that are kept in memory for repeats of requests that store nothing (signals): a few bytes each. */
export const ANSWERS_REMEMBERED_MAX = 16_384;
/** One-time keys of one kind that a device may have at the server: ten uploads whose answers were lost. */
export const PREKEYS_STORED_MAX = 10 * PREKEY_BATCH;
/** Expired rows are removed this often, in transactions of at most this many rows, so that requests never wait long. */
export const SERVER_SWEEP_INTERVAL_MS = MINUTE;
export const SERVER_SWEEP_ROWS = 500;
/** At its end the server waits this long for clients to close; one that does not answer is cut off. */
export const SERVER_CLOSE_GRACE_MS = 1 * SECOND;
/** A database that has not answered a health check by then counts as broken. */
export const HEALTH_TIMEOUT_MS = 2 * SECOND;
/** Connections of one server to PostgreSQL, which allows 100 by default: three nodes and an operator. */
export const SERVER_DATABASE_CONNECTIONS = 24;
export const SERVER_DATABASE_CONNECT_TIMEOUT_MS = 5 * SECOND;
/** PostgreSQL ends what takes longer, and whoever holds locks and does nothing: a frozen node must not stop the others. */
export const SERVER_DATABASE_STATEMENT_TIMEOUT_MS = 8 * SECOND;
/** A server that starts waits this long for a PostgreSQL that is recovering. */
export const SERVER_DATABASE_START_MS = 30 * SECOND;
/** How long a transaction is repeated while PostgreSQL restarts; the client waits for SERVER_REQUEST_TIMEOUT_MS. */
export const SERVER_DATABASE_RETRY_MS = 6 * SECOND;
/** The nodes of a server say this often that they are alive; one that was silent for the second time counts as dead. */
export const CLUSTER_HEARTBEAT_MS = 2 * SECOND;
export const CLUSTER_NODE_TTL_MS = 8 * SECOND;
/** `presence.watch` is answered when all nodes know, as on a single server; a slow node holds nobody up for longer. */
export const CLUSTER_CONFIRM_MS = 1 * SECOND;
/** A node that begins waits for the sessions of the others. */
export const CLUSTER_START_TIMEOUT_MS = 5 * SECOND;
/** Those who ask for a snapshot within this time get one together. */
export const CLUSTER_SNAPSHOT_DELAY_MS = 50;
/** Sessions in one part of a snapshot: with 1,000 watched people each, 3 MiB. */
export const CLUSTER_SNAPSHOT_SESSIONS = 100;
/** Events that Redis keeps; a node that is further behind asks for snapshots. A login is three events of a few KiB. */
export const CLUSTER_LOG_EVENTS = 20_000;
/** Another node answers for its client within this. */
export const CLUSTER_CALL_TIMEOUT_MS = SIGNAL_ACK_TIMEOUT_MS + SECOND;
/** Attempts to reach Redis again: at once, then slower. */
export const CLUSTER_RECONNECT_BASE_MS = 50;
export const CLUSTER_RECONNECT_MAX_MS = 1 * SECOND;
/** Requests of a client that are on their way; the others wait in order. */
export const SERVER_REQUESTS_IN_FLIGHT = 32;
/** Requests of a client that wait; enough for a whole outbox of one contact. */
export const SERVER_REQUESTS_WAITING_MAX = 10_000;

// ---- Relay, directory and TURN --------------------------------------------------------------------------------------

/** Sealed bytes of one relayed frame: a chunk with all its headers and tags fits one; what is larger is cut. */
export const RELAY_FRAME_BYTES_MAX = 64 * KiB + 256;
/** What a frame counts besides its size, because each costs work and memory however small it is. */
export const RELAY_FRAME_COST_BYTES = 512;
/** Bytes of one direction that the reader has not acknowledged: the server holds at most twice this for a pair, 1 MiB. */
export const RELAY_WINDOW_BYTES = 512 * KiB;
/** Credit and acknowledgements move in steps of this: few messages, and the sender does not run dry meanwhile. */
export const RELAY_CREDIT_STEP_BYTES = 128 * KiB;
/** What one device may send over the relays of a server, in a second; the relay is the last resort and other people's bandwidth. */
export const RELAY_BYTES_PER_SECOND = 2 * MiB;
/** The same of all devices together: accounts cost nothing, so each one's share bounds nothing. A gigabit. */
export const RELAY_TOTAL_BYTES_PER_SECOND = 128 * MiB;
/** Relays of one device at once; transfers share them, and a friend behind a firewall is the exception. */
export const RELAYS_PER_DEVICE_MAX = 16;
/** Relays of a server at once: with every reader stalled they hold 1 GiB. */
export const RELAYS_MAX = 1000;
/** A relay that the other side has not accepted by then is closed; its attempt has LINK_CONNECT_TIMEOUT_MS. */
export const RELAY_PENDING_MS = 30 * SECOND;
/** Relayed bytes of one account that a kill of the server may forget to count. */
export const RELAY_USAGE_STEP_BYTES = 4 * MiB;
/** Counts of relayed bytes are kept for the longest month and some. */
export const RELAY_USAGE_KEPT_MS = 62 * DAY;
/** Credentials for a TURN server: long enough for any link, short enough that a leaked one is worth little. */
export const TURN_CREDENTIAL_TTL_MS = 12 * HOUR;
/** New ones are fetched when the old ones have less than this left, so that no link starts with ones that are about to end. */
export const TURN_REFRESH_BEFORE_MS = 1 * HOUR;
/** Fetched once per start and twice a day; more is a client that lost its mind, or somebody who collects credentials. */
export const RATE_TURN_FETCHES = 20;
export const RATE_TURN_WINDOW_MS = 10 * MINUTE;
/** A list without credentials is asked for again after this, in case the operator added a TURN server. */
export const ICE_SERVERS_KEPT_MS = 1 * HOUR;
/** STUN and TURN servers that are named to clients; each is asked by every link attempt. */
export const ICE_SERVERS_MAX = 8;
/** A sealed list of candidates: a few dozen of about 100 bytes each. */
export const DIRECTORY_VALUE_BYTES_MAX = 4 * KiB;
/** Addresses of people who move are soon wrong. */
export const DIRECTORY_TTL_MS = 1 * HOUR;
/** How far two people's clocks may be apart for the day of a directory key. */
export const DIRECTORY_CLOCK_SKEW_MS = 10 * MINUTE;
/** Signals that are left at once: a description and what leads to one person. All must fit one value. */
export const LEFT_SIGNALS_MAX = 24;
/** Candidates are found one after the other; a description waits so long for them before it is left. */
export const LEFT_GATHER_MS = 250;
/** How long, and how often, to look for what a contact left after a live signal did not reach it: 20 requests. */
export const LEFT_WATCH_MS = 1 * MINUTE;
export const LEFT_LOOK_MS = 3 * SECOND;
/** Contacts that are looked for at once: 3 requests a second. */
export const LEFT_WATCHES_MAX = 8;
/** Entries of one device, one for each contact that it hopes to meet again soon: 4 MiB. */
export const DIRECTORY_ENTRIES_PER_DEVICE_MAX = 1000;

// ---- Upkeep -------------------------------------------------------------------------------------------------------

/** Our keys at the server are looked after this often besides every login, so that a rotation is not missed. */
export const KEY_CHECK_INTERVAL_MS = HOUR;
/** What failed towards the server is tried again after this long; a login comes sooner most of the time. */
export const UPKEEP_RETRY_MS = 15 * SECOND;

/** Lines of the log that `diagnostics.export` shows: the last minutes of trouble. */
export const RECENT_LOG_ENTRIES = 500;

// ---- IPC ----------------------------------------------------------------------------------------------------------

/** One JSON message from a renderer to the main process. */
export const IPC_MESSAGE_BYTES_MAX = 256 * KiB;
export const IPC_CALLS_PENDING_MAX = 256;
/** Snapshots that wait for the next tick of the publisher; beyond it they are delivered at once instead. */
export const PUBLISHER_PENDING_MAX = 1024;
/** Bytes queued for a window that does not read; its socket is closed then, and it asks for the lists when it is back. */
export const IPC_SEND_QUEUED_BYTES_MAX = 16 * MiB;
/** Windows (browser tabs) on one headless profile. */
export const IPC_SOCKETS_MAX = 16;
/** Uploads through the headless bridge that run at once; each costs a file descriptor and a buffer. */
export const UPLOADS_ACTIVE_MAX = 8;
/** An upload that was not shared is removed at a start after this long: no upload takes a day, and nobody comes back to it. */
export const UPLOAD_KEPT_MS = 1 * DAY;
/** A temporary file of a download that this profile never heard of may be another profile's, and in use, for this long. */
export const LEFTOVER_KEPT_MS = 1 * DAY;
/** Paths that the person picked or dropped and that the window may still name; the oldest is forgotten. */
export const PATH_GRANTS_MAX = 4096;
export const PATH_LENGTH_MAX = 4096;

/** How long an orderly end may take before the process ends anyway; everything is safe to kill. */
export const SHUTDOWN_TIMEOUT_MS = 10 * SECOND;

// ---- Relations ----------------------------------------------------------------------------------------------------

// ---- Activity ---------------------------------------------------------------------------------------------------------

/** Events of one transaction of the aggregator, and distinct sums that end it earlier: some 10 ms of the main process. */
export const ACTIVITY_BATCH_EVENTS = 1000;
export const ACTIVITY_BATCH_SUMS = 500;
/** A run that takes longer is ended; the next one goes on where its last transaction got to. */
export const ACTIVITY_RUN_MS = 5 * MINUTE;
/** How often new events are taken up by themselves. */
export const ACTIVITY_INTERVAL_MS = MINUTE;
/** Events stay this long after they were taken up, so that the sums can be checked against them... */
export const ACTIVITY_RETENTION_MS = 30 * DAY;
/** ...but no more of them than this: some 60 MB. */
export const ACTIVITY_EVENTS_MAX = 500_000;
/** Events without a row of their own wait this long, or until they are this many, for a common transaction. */
export const ACTIVITY_GATHER_MS = SECOND;
export const ACTIVITY_GATHER_EVENTS = 256;
/** While nothing can be written: then the oldest are dropped and counted. */
export const ACTIVITY_UNWRITTEN_MAX = 10_000;
/** Progress of a download is logged this often at most; a longer one is logged a hundredth of its age apart. */
export const ACTIVITY_PROGRESS_MIN_MS = SECOND;
export const ACTIVITY_PROGRESS_MAX_MS = 5 * MINUTE;
/** Points of the plot of one download, and entries of its timeline. */
export const ACTIVITY_SAMPLES_MAX = 120;
export const ACTIVITY_STEPS_MAX = 60;
/** A longer span is a wrong clock, not a link. */
export const ACTIVITY_SPAN_MAX_MS = 31 * DAY;
/** Finished downloads, links and times of presence that are kept for the lists: some 20 MB. */
export const ACTIVITY_SESSIONS_MAX = 20_000;
/** The newest events in a report for bug hunting: some minutes of a busy time. */
export const ACTIVITY_REPORT_EVENTS = 500;
/** Health checks by itself as long as a replay takes a moment only. */
export const ACTIVITY_QUICK_CHECK_EVENTS = 20_000;

assert(CHUNK_BYTES_LARGE + CHUNK_TAG_BYTES + 64 <= LINK_MESSAGE_BYTES_MAX, "a large chunk must fit one message");
assert(REQUEST_WINDOW_BYTES + LINK_MESSAGE_BYTES_MAX <= RECEIVE_CREDIT_BYTES, "a window must fit the receive credit");
assert(REQUEST_WINDOW_CHUNKS * CHUNK_BYTES <= REQUEST_WINDOW_BYTES, "both window bounds must agree for small chunks");
assert(
  REQUEST_WINDOW_MIN_CHUNKS * CHUNK_BYTES_LARGE <= REQUEST_WINDOW_START_BYTES &&
    REQUEST_WINDOW_START_BYTES <= REQUEST_WINDOW_BYTES,
  "a window starts within its bounds",
);
assert(
  STORE_GATHER_BYTES * 2 <= REQUEST_WINDOW_CHUNKS * CHUNK_BYTES,
  "half of a window must be on its way while a commit gathers",
);
assert(
  TRANSFERS_ACTIVE_MAX * REQUEST_WINDOW_CHUNKS <= SEEDER_QUEUE_CHUNKS_MAX,
  "a seeder must accept the windows of all that one downloader fetches",
);
assert(
  WAL_FINISH_PAGES < WAL_PASS_PAGES && WAL_PASS_PAGES < WAL_RESTART_PAGES && WAL_KEPT_PAGES < WAL_PAGES_MAX,
  "the writer copies least, and the limit is last",
);
assert(
  WAL_WHOLE_FILE_BYTES * 1.4 < WAL_KEPT_PAGES * CHUNKS_PAGE_BYTES,
  "a whole file fits the WAL with what is added to it",
);
assert(WORK_BATCH_BYTES >= CHUNK_BYTES_LARGE, "a batch holds a chunk");
assert(WRITE_PIECE_BYTES % CHUNK_BYTES_LARGE === 0, "a write is of whole chunks");
assert(SEEDER_READ_AHEAD * WORK_BATCH_BYTES <= RECEIVE_CREDIT_BYTES, "reading ahead of the credit is useless");
assert(REQUEST_INDICES_MAX >= REQUEST_WINDOW_CHUNKS / 4, "a quarter of a window fits one request");
assert(LEAVES_PER_PAGE * 32 + 2048 <= LINK_MESSAGE_BYTES_MAX, "a page of leaves with its proof must fit one message");
assert(RECEIVE_CREDIT_STEP_BYTES * 2 <= RECEIVE_CREDIT_BYTES, "credit must be renewed before it runs out");
assert(
  2 * RECEIVE_CREDIT_BYTES + CONTROL_QUEUED_BYTES_MAX <= ENGINE_WAITING_BYTES_MAX,
  "what flow control allows must not end a connection",
);
assert(ENGINE_END_TIMEOUT_MS < SHUTDOWN_TIMEOUT_MS, "an engine that does not end is killed within an orderly end");
assert(SEND_QUEUED_BYTES_LOW < SEND_QUEUED_BYTES_MAX, "low mark below high mark");
assert(MESSAGE_TEXT_BYTES_MAX + 4 * KiB <= ENVELOPE_BYTES_MAX, "a message must fit an envelope");
assert(GROUP_PAGE_BYTES + 16 * KiB <= ENVELOPE_BYTES_MAX, "a page of a group's operations must fit an envelope");
assert(GROUP_MEMBERS_MAX <= SHARE_MEMBERS_MAX, "a file can be shared with everybody in a group");
assert(SEEN_ENVELOPE_TTL_MS > MAILBOX_TTL_MS, "an id must be known for as long as its envelope can come again");
assert(
  LINK_ENVELOPES_IN_FLIGHT_MAX * CONTROL_MESSAGE_BYTES_MAX < CONTROL_QUEUED_BYTES_MAX,
  "a window of envelopes must fit the control queue",
);
assert(LINK_ENVELOPES_IN_FLIGHT_MAX * 2 <= INBOX_PENDING_MAX, "an honest window always fits the inbox");
assert(SHARE_PAGE_BYTES + 64 * KiB <= SERVER_MESSAGE_BYTES_MAX, "a page of operations must fit one message");
assert(3 * SHARE_OPERATIONS_PAGE + 2 <= SERVER_MESSAGE_ATTACHMENTS_MAX, "a page of operations must fit one message");
assert(RECEIPT_MESSAGES_MAX <= SHARE_MEMBERS_MAX, "a receipt must pass its own schema");
assert(
  (ENVELOPE_BYTES_MAX * 4) / 3 + KiB <= CONTROL_MESSAGE_BYTES_MAX,
  "an envelope must fit a control message in base64",
);
assert(
  (HAVE_BITMAP_BYTES_MAX * 4) / 3 + KiB <= CONTROL_MESSAGE_BYTES_MAX,
  "a `have` must fit a control message in base64",
);
assert(
  PREKEYS_KEPT + PREKEY_BATCH <= PREKEYS_STORED_MAX,
  "a new batch must fit beside the one-time keys that are kept",
);
assert(PING_TIMEOUT_MS < 6 * SECOND && PING_INTERVAL_MS * 2 < PING_TIMEOUT_MS, "a dead peer is found in under 6 s");
assert(
  DRAIN_TIMEOUT_MIN_MS <= DRAIN_TIMEOUT_MS && DRAIN_TIMEOUT_MS <= DRAIN_TIMEOUT_MAX_MS,
  "drain default within its range",
);
assert(
  MESSAGES_PAGE_MAX * MESSAGE_TEXT_BYTES_MAX < IPC_SEND_QUEUED_BYTES_MAX,
  "the largest answer fits the queue of a window",
);
assert(MESSAGE_TEXT_BYTES_MAX * 6 + KiB <= IPC_MESSAGE_BYTES_MAX, "the longest text fits one call, escaped as JSON");
assert(6 + 3 * PREKEY_BATCH <= SERVER_MESSAGE_ATTACHMENTS_MAX, "a full key upload must fit one message");
assert(
  SERVER_REQUESTS_IN_FLIGHT <= SERVER_REQUESTS_IN_PROGRESS_MAX,
  "the server must take what a client sends at once",
);
assert(SERVER_REQUESTS_IN_FLIGHT <= RATE_REQUESTS_BURST, "a burst must cover what a client sends at once");
assert(CLUSTER_CALL_TIMEOUT_MS < SERVER_REQUEST_TIMEOUT_MS, "the sender of a signal must hear that nobody took it");
assert(2 * CLUSTER_HEARTBEAT_MS < CLUSTER_NODE_TTL_MS, "one late sign of life is no death");
assert(SERVER_DATABASE_RETRY_MS < SERVER_REQUEST_TIMEOUT_MS, "a client must hear that the database does not come back");
assert(SIGNAL_ACK_TIMEOUT_MS < SERVER_REQUEST_TIMEOUT_MS, "the sender of a signal must hear that nobody took it");
assert(CHUNK_BYTES + CHUNK_TAG_BYTES + 64 <= RELAY_FRAME_BYTES_MAX, "a small chunk must fit one relayed frame");
assert(RELAY_FRAME_BYTES_MAX + KiB <= SERVER_MESSAGE_BYTES_MAX, "a relayed frame must fit one message to the server");
assert(
  RELAY_FRAME_BYTES_MAX + RELAY_FRAME_COST_BYTES <= RELAY_CREDIT_STEP_BYTES &&
    3 * RELAY_CREDIT_STEP_BYTES <= RELAY_WINDOW_BYTES,
  "with one step unacknowledged and one ungranted there must be room for a frame",
);
assert(LINK_CONNECT_TIMEOUT_MS < RELAY_PENDING_MS, "an attempt ends before its relay expires");
assert(TURN_REFRESH_BEFORE_MS < TURN_CREDENTIAL_TTL_MS, "fresh credentials must count as fresh");
assert(ENVELOPE_BYTES_MAX + 4 * KiB <= SERVER_MESSAGE_BYTES_MAX, "an envelope must fit one message to the server");
