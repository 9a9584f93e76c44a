/**
 * Read models: plain data that the renderer shows. They are snapshots, never deltas, so one that is lost or
 * comes late cannot matter. Names are part of the contract; fields may be added, never changed.
 */

export type TransferPhase = "downloading" | "draining" | "assembling" | "verifying" | "complete" | "failed";
export type PathKind = "lan" | "direct" | "relay" | "server";

export interface ErrorView {
  type: string;
  message: string;
}

export type TransferPriority = "high" | "normal" | "low";

export interface TransferView {
  fileId: string;
  name: string;
  phase: TransferPhase;
  priority: TransferPriority;
  paused: boolean;
  waitingForSeeders: boolean;
  /** While it waits: who may have what is missing, and is not connected. */
  waitingFor: string[];
  chunksStored: number;
  chunkCount: number;
  /** Plaintext bytes of the chunks stored. */
  bytesStored: number;
  sizeBytes: number;
  assembledChunks: number;
  bytesPerSecond: number;
  etaMs: number | null;
  /** Chunks requested and neither stored nor given up. */
  inFlight: number;
  /** `chunks`: what it has sent us and was stored; `held`: how many it has. */
  seeders: { userId: string; path: PathKind; bytesPerSecond: number; chunks: number; held: number }[];
  /** Seeders that are not asked any more: they sent wrong, unasked or no data, or claimed what they lack. */
  dropped: { userId: string; reason: "bad_data" | "unasked_data" | "false_claims" | "silent" }[];
  drain: {
    startedAtMs: number;
    remaining: number;
    endedBy: "idle" | "answered" | "stopped" | "timeout" | null;
  } | null;
  /** Counters since the transfer began, kept over restarts. */
  requestedChunks: number;
  duplicateChunks: number;
  lateChunks: number;
  rejectedChunks: number;
  /** When nothing is outstanding, requestedChunks = chunksStored + duplicateChunks + rejectedChunks + cancelledChunks. */
  cancelledChunks: number;
  error: ErrorView | null;
  /**
   * What is offered to others who may have the file: what has arrived, or the finished file; nothing any more when that was
   * changed, moved or deleted.
   */
  seeding: "none" | "part" | "whole" | "changed";
  savedPath: string | null;
  /** Only of a folder: files that were chosen, and those of them that were there already. */
  folder?: {
    /** Null while the list has not arrived. */
    filesWanted: number | null;
    filesThere: number;
    /** The list is there, or on its way, and nobody has chosen yet. */
    choosing: boolean;
    /** Ranges [first, end) of entries; null for all. */
    selection: [number, number][] | null;
  };
}

/** What lies directly in a folder of a shared folder. Entries [first, first + entries) are it and all that is in it. */
export interface FolderEntryView {
  name: string;
  kind: "file" | "folder";
  sizeBytes: number;
  first: number;
  entries: number;
  files: number;
}

export interface FileView {
  fileId: string;
  name: string;
  /** Of a folder: of all its files. */
  sizeBytes: number;
  /** SHA-256 of the plaintext, hex; of a folder's list. */
  sha256: string;
  /** Only of a folder. */
  folder?: { files: number };
  chunkCount: number;
  ownerId: string;
  sharedWith: string[];
  version: number;
  seeders: string[];
  access: "granted" | "revoked";
  /** With `revoked`: we gave the access up ourselves. */
  hasLeft?: boolean;
  /** Why nobody but its owner gets the file any more; left out while it is given out. */
  closed?: FileClosed;
}

/**
 * `withdrawn` by its owner, `expired` at the time that its owner set, `limit_reached`: fetched as often as its owner allows,
 * `replaced`: its owner shared it anew under another key.
 */
export type FileClosed = "withdrawn" | "expired" | "limit_reached" | "replaced";

/** Who has access to one file, for the panel that shows and changes it. */
export interface AccessView {
  fileId: string;
  ownerId: string;
  version: number;
  /** Without the owner, in the order in which they were added. `holds`: has all of it and serves it. */
  members: {
    userId: string;
    sinceMs: number;
    addedBy: string;
    holds: boolean;
    /** When somebody signed that the key was sent, and this person that the file is there; null without such a receipt. */
    offeredAtMs: number | null;
    completedAtMs: number | null;
  }[];
  /** Whoever has no access any more, but confirmed that they had fetched the file. */
  formerHolders: { userId: string; completedAtMs: number }[];
  /** Whether we may give others access, and take it back. */
  mayAdd: boolean;
  mayRevoke: boolean;
  membersMayAdd: boolean;
  /** From then on nobody is served but the owner; null for never. */
  expiresAtMs: number | null;
  /** After so many confirmed downloads nobody else is served; null for no limit. `downloads`: how many there are. */
  downloadLimit: number | null;
  downloads: number;
  closed: FileClosed | null;
}

export interface ContactView {
  userId: string;
  name: string;
  state: "outgoing" | "incoming" | "accepted" | "blocked";
  verified: boolean;
  online: boolean;
  /** The contact's identity key is another one than before; sending is blocked until it is accepted. */
  keyChanged: boolean;
  /** Words that both people see and compare after pairing by code; null until known. */
  safetyWords: string[] | null;
  /** 60 digits (libsignal fingerprint) to compare on both sides; null before there is a session. */
  safetyNumber: string | null;
  addedAtMs: number;
}

export interface SafetyCodeView {
  /** The safety number for a QR code: libsignal's scannable fingerprint, base64url. The other side's has the halves swapped. */
  scannable: string;
}

export type MessageState = "queued" | "sent" | "delivered" | "read" | "failed";

export interface MessageView {
  messageId: string;
  chatId: string;
  senderId: string;
  sentAtMs: number;
  text: string;
  state: MessageState;
  file: FileView | null;
  /** In a group, of somebody else's message. */
  senderName?: string;
  /** In a group, of an own message: how many members it has reached. `state` is what it has reached with all of them. */
  received?: { delivered: number; read: number; of: number };
}

/** How far an own message has come with one person. */
export interface MessageReceiptView {
  userId: string;
  name: string;
  state: Exclude<MessageState, "failed">;
  /** When this device heard of it; null for not yet, and where it is not known. */
  deliveredAtMs: number | null;
  readAtMs: number | null;
}

export type GroupRoleView = "owner" | "admin" | "member";

export interface GroupView {
  ownerId: string;
  /** Our own; null when we are not in the group any more. */
  role: GroupRoleView | null;
  /** Ourselves among them, with an empty name. */
  members: { userId: string; name: string; role: GroupRoleView; sinceMs: number }[];
  /** How often it was changed: with another number `chats.history` says something else. */
  changes: number;
}

/** Something that was done to a group, for a line among its messages. */
export interface GroupEventView {
  eventId: string;
  /** The message after which it came here; null before the first one. */
  afterId: string | null;
  atMs: number;
  kind: "create" | "rename" | "add" | "remove" | "leave" | "admin" | "member";
  /** Ourselves with an empty name, as everywhere in it. */
  actor: { userId: string; name: string };
  /** Whom it is about; of `create` who was in it from the beginning, besides the actor. */
  people: { userId: string; name: string }[];
  /** The group's name, of `create` and `rename`. */
  name: string | null;
}

export interface ChatView {
  chatId: string;
  name: string;
  lastMessage: MessageView | null;
  unreadCount: number;
  typing: boolean;
  /** Why nothing can be sent at the moment, in words; null when it can. */
  sendBlocked: ErrorView | null;
  /** Only of a group. */
  group?: GroupView;
}

export type LinkState = "disconnected" | "discovering" | "connecting" | "handshaking" | "connected" | "failed";

export interface LinkView {
  peerId: string;
  state: LinkState;
  generation: number;
  path: "lan" | "direct" | "relay" | null;
  /** Which one, where the path is a relay. */
  relay?: "turn" | "server";
  rttMs: number | null;
  reason: string | null;
  staleEvents: number;
}

/**
 * Which ways a link to one contact may take. Nothing leaves before the contact is accepted, whatever the policy.
 *
 *   direct       any way: the contact learns our network address
 *   afterAccept  like `relay` until we accept the contact ourselves (`contacts.accept`), then like `direct`
 *   relay        over the server only: the contact never learns our address
 *   lan          within the local network only
 */
export type NetworkPolicy = "direct" | "afterAccept" | "relay" | "lan";

export interface ContactNetworkView {
  userId: string;
  policy: NetworkPolicy;
  acceptedByMe: boolean;
}

/** One attempt at a link, for the connection report. Candidate types are `host`, `srflx`, `prflx` and `relay`; never addresses. */
export interface LinkAttemptView {
  generation: number;
  via: "rtc" | "relay";
  startedAtMs: number;
  localCandidates: string[];
  remoteCandidates: string[];
  /** How many STUN and TURN servers the rendezvous server named for it; null when it was to ask none, or did not come to it. */
  servers: { stun: number; turn: number } | null;
  /** `lost` and `closed` had worked before; `replaced` made way for another attempt. */
  result: "trying" | "connected" | "failed" | "given_up" | "replaced" | "lost" | "closed";
  path: LinkView["path"];
  reason: string | null;
  /** From its start until it worked or was given up; null while it is under way. */
  ms: number | null;
}

/** What the connection report shows of one contact. */
export interface LinkReport {
  link: LinkView;
  policy: NetworkPolicy;
  /** Whether direct paths and the server's relay may be used at the moment, under the policy and with this server. */
  directAllowed: boolean;
  relayAllowed: boolean;
  /** The candidate types of the pair in use. */
  selected: { local: string; remote: string } | null;
  /**
   * How the address translator on our side maps ports: `none` there is none, `same` for every peer alike, `varies` (a
   * direct path is unlikely if the other side is alike), `unknown` when too few servers told.
   */
  nat: "none" | "same" | "varies" | "unknown";
  /** Of the newest test on this network: how many STUN servers were asked, and how many answered. Null before one. */
  stun: { asked: number; answered: number } | null;
  /** Messages of a lossy kind that were dropped because newer ones came faster than they were handled. */
  droppedMessages: number;
  /** Oldest first. */
  attempts: LinkAttemptView[];
}

export interface ServerView {
  state: "disconnected" | "connecting" | "connected";
  url: string;
  error: ErrorView | null;
}

export interface ProfileView {
  userId: string;
  name: string;
  /** Full SHA3-512 of the account public key, hex. */
  fingerprint: string;
  server: ServerView;
  /** What protects the data key on this machine: the OS keystore, a passphrase, a key file, or (told to the user) a weak fallback. */
  keyProtection: "keystore" | "passphrase" | "file" | "weak";
}

/** What unfinished downloads take up. Finished files are not part of it. */
export interface ChunkUsageView {
  limitBytes: number | null;
  /** Chunks that are stored; of these, those of failed downloads, which are deleted when room is needed. */
  usedBytes: number;
  evictableBytes: number;
  /** What running and waiting downloads are still going to store. */
  expectedBytes: number;
  /** Since the program started, the newest first: what was deleted to keep to the limit, and for what. */
  evictions: ChunkEvictionView[];
}

export interface ChunkEvictionView {
  name: string;
  bytes: number;
  atMs: number;
  /** The file that needed the room; null when the limit was lowered. */
  forName: string | null;
}

export type ThemeSetting = "system" | "light" | "dark";

export interface SettingsView {
  downloadDirectory: string;
  drainTimeoutMs: number;
  /** Limits on files, over everybody; null is none. Messages are never held back. */
  downloadBytesPerSecond: number | null;
  uploadBytesPerSecond: number | null;
  /** The most that chunks of unfinished downloads may take; null is no limit. */
  chunkStorageBytes: number | null;
  theme: ThemeSetting;
  /** "embedded" or a ws:// or wss:// URL. */
  server: string;
  readReceipts: boolean;
  typingIndicators: boolean;
  /** Contacts on the same local network may find this computer, and it looks for them. Off until it is chosen. */
  lanDiscovery: boolean;
  /** What protects the sums of the activity page; each is on unless it was switched off. */
  activityGuards: ActivityGuardsView;
}

/** What moved in one span of time; milliseconds of links and presence count when they end. */
export interface ActivityCounts {
  bytesReceived: number;
  bytesSent: number;
  messagesReceived: number;
  messagesSent: number;
}

export interface ActivityDay extends ActivityCounts {
  /** In local time, as 2026-11-21. */
  day: string;
}

export interface ActivityContact extends ActivityCounts {
  /** Of a contact; of a group, the id of its chat, for which its messages count, whoever wrote them. */
  userId: string;
  linkUps: number;
  linkDowns: number;
  linkFailures: number;
  linkMs: number;
  onlineMs: number;
  /** For each hour of the day, how much of the time that we were running the contact was online; null where we never were. */
  onlineByHour: (number | null)[];
}

export interface ActivityPath {
  path: string;
  bytesReceived: number;
  bytesSent: number;
  linkMs: number;
}

export interface ActivityTransfer {
  fileId: string;
  startedAtMs: number;
  endedAtMs: number | null;
  outcome: "completed" | "failed" | "cancelled" | null;
  bytes: number;
}

/** Sums of the days from `fromDay` to `toDay`; with a contact or a group asked for, of it alone. */
export interface ActivitySummary extends ActivityCounts {
  fromDay: string;
  toDay: string;
  messagesDelivered: number;
  messagesFailed: number;
  transfersCompleted: number;
  transfersFailed: number;
  errors: number;
  byDay: ActivityDay[];
  byContact: ActivityContact[];
  byFile: { fileId: string; bytesReceived: number; bytesSent: number }[];
  byPath: ActivityPath[];
  /** How many downloads drained in up to so many milliseconds; null for longer than all the others. Always of everybody. */
  drains: { upToMs: number | null; count: number }[];
  /** Newest first; at most 100. */
  transfers: ActivityTransfer[];
}

export interface ActivityGuardsView {
  lock: boolean;
  batches: boolean;
  sequence: boolean;
}

export interface ActivityHealth {
  /** Result of the newest check: the sums are what a replay of the events gives. */
  consistent: boolean;
  checkedAtMs: number | null;
  lastRunAtMs: number | null;
  lastRunMs: number | null;
  lastRunEvents: number;
  lastError: string | null;
  /** Events that no run has taken up yet. */
  backlog: number;
  /** Events that are kept for the check, and those of a kind that this version does not know. */
  events: number;
  aside: number;
  /** How often numbers were missing from the log. */
  gaps: number;
  /** Locks of dead runs taken away, gaps and repairs. */
  recoveries: number;
  /** Events that could not be written for so long that they were given up; since the program started. */
  dropped: number;
  running: boolean;
  guards: ActivityGuardsView;
}

/** A run of the aggregator: a refusal is a value, not an error. */
export type ActivityRunView =
  | { success: true; processedEvents: number }
  | {
      success: false;
      reason: "already_processing" | "timeout" | "fenced" | "failed" | "stopped";
      processedEvents: number;
    };

export interface ActivityCheckView {
  consistent: boolean;
  /** Events that were replayed, and sums that were not what they say. */
  events: number;
  differences: number;
}

/** One run of a download, from its start until it ended; a retry is another run. */
export interface TransferRunView {
  startedAtMs: number;
  endedAtMs: number | null;
  outcome: "completed" | "failed" | "cancelled" | null;
  error: string | null;
  bytes: number;
  sizeBytes: number;
  /** What happened, with how long what was before it took. */
  steps: { atMs: number; what: string; ms: number | null }[];
  samples: { atMs: number; bytesPerSecond: number }[];
  shares: { userId: string; path: PathKind; bytes: number; chunks: number }[];
  drain: { ms: number; endedBy: string } | null;
  counters: { requested: number; duplicate: number; late: number; rejected: number } | null;
}

export interface TransferDetailsView {
  fileId: string;
  /** Newest first. */
  runs: TransferRunView[];
}

/** When a contact is usually online, in local hours; `hours` null while too little is known. */
export interface AvailabilityView {
  userId: string;
  /** From `from` o'clock up to `to` o'clock; past midnight when `to` is not after `from`. */
  hours: { from: number; to: number } | null;
  lastOnlineMs: number | null;
}

export interface InviteView {
  link: string;
  code: string;
  expiresAtMs: number;
}

export interface HostView {
  kind: "electron" | "headless";
  platform: string;
  version: string;
  /** Whether files can be chosen by the system's own dialog, opened, and shown in their folder. */
  canPick: boolean;
  canOpen: boolean;
  /** Where messages and keys are kept, to show it to the person; left out where the host does not say. */
  dataDirectory?: string;
}

export interface PickedFileView {
  /** What `files.share` takes as `path`: an opaque handle in Electron, a path in headless mode. */
  path: string;
  name: string;
  sizeBytes: number;
}

/** A file of ours is being read and hashed before it can be offered. */
export interface ShareProgressView {
  chatId: string;
  fileId: string;
  name: string;
  sizeBytes: number;
  bytesHashed: number;
}

export interface NoticeView {
  level: "info" | "warning" | "error";
  type: string;
  message: string;
  atMs: number;
}
