import type {
  ContactView,
  FileView,
  FolderEntryView,
  GroupEventView,
  LinkAttemptView,
  LinkReport,
  LinkView,
  MessageView,
  TransferView,
} from "#shared/ipc/views.ts";
import type { FakeState } from "./fake-weir.ts";
import { freshTransferView } from "./transfer-view.ts";

/** A believable week in the life of a Weir user, in every state that the window can show. */
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Friday, 20 November 2026, 16:42 local time. */
export const SAMPLE_NOW_MS = new Date(2026, 10, 20, 16, 42).getTime();

const userId = (seed: string): string => `${seed}kq7x2mzt5hw3bnc4vj6ryedasfgpo`.slice(0, 32).padEnd(32, "a");
export const ME = userId("aa2");
export const BOB = userId("ba2");
export const CAROL = userId("cc2");
export const DMITRI = userId("db2");
export const ELIF = userId("ed2");
export const FATIMA = userId("fe2");
export const GRETE = userId("gg2");
export const HIRO = userId("ha2");

const SERVER_URL = "ws://192.168.178.20:41641";
export const SAFETY_NUMBER = "039172845510264897731059284617330582914470652218936074125563";

const contact = (id: string, name: string, changes: Partial<ContactView> = {}): ContactView => ({
  userId: id,
  name,
  state: "accepted",
  verified: false,
  online: false,
  keyChanged: false,
  safetyWords: null,
  safetyNumber: SAFETY_NUMBER,
  addedAtMs: SAMPLE_NOW_MS - 30 * DAY,
  ...changes,
});

const fileId = (name: string): string =>
  name
    .replace(/[^A-Za-z0-9]/g, "")
    .padEnd(22, "0")
    .slice(0, 22);

const file = (name: string, sizeBytes: number, ownerId: string, changes: Partial<FileView> = {}): FileView => ({
  fileId: fileId(name),
  name,
  sizeBytes,
  sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
  chunkCount: Math.max(1, Math.ceil(sizeBytes / 65_536)),
  ownerId,
  sharedWith: [ME, BOB],
  version: 1,
  seeders: [ownerId],
  access: "granted",
  ...changes,
});

const part = (of: FileView, share: number): Pick<TransferView, "chunksStored" | "bytesStored" | "requestedChunks"> => {
  const chunksStored = Math.floor(of.chunkCount * share);
  return { chunksStored, bytesStored: Math.floor(of.sizeBytes * share), requestedChunks: chunksStored + 32 };
};

export const files = {
  footage: file("harbour-footage-4k.mov", 7_340_032_000, BOB),
  stems: file("Mixdown stems.zip", 812_646_400, CAROL),
  raw: file("IMG_20261118_raw.dng", 67_108_864, BOB),
  scan: file("Survey point cloud.tar.zst", 3_221_225_472, CAROL),
  notes: file("Meeting notes.pdf", 482_113, CAROL),
  proposal: file("Proposal v3.odt", 1_204_118, ME, { seeders: [ME, BOB] }),
  dump: file("field-recordings.flac", 1_932_735_283, CAROL),
  build: file("weir-0.1.0.AppImage", 118_489_088, DMITRI),
  model: file("terrain-model.7z", 5_368_709_120, ELIF),
  backup: file("laptop-backup.img", 64_424_509_440, CAROL),
  trip: file("Lofoten trip", 1_318_912_004, ELIF, { folder: { files: 214 } }),
};

/** What is in the shared folder, as `files.entries` tells it. */
const inFolder = (name: string, first: number, entries: number, sizeBytes: number, kind: "file" | "folder") => ({
  ...{ name, first, entries, sizeBytes, kind },
  files: entries,
});
export const tripEntries: Record<string, FolderEntryView[]> = {
  "": [
    inFolder("Maps", 0, 3, 18_874_368, "folder"),
    inFolder("Photos", 3, 206, 912_680_550, "folder"),
    inFolder("Videos", 209, 3, 387_351_042, "folder"),
    inFolder("itinerary.pdf", 212, 1, 1_204_118, "file"),
    inFolder("packing list.txt", 213, 1, 2_026, "file"),
  ],
  Photos: [inFolder("Raw", 3, 120, 780_140_544, "folder"), inFolder("Selected", 123, 86, 132_540_006, "folder")],
  Maps: [
    inFolder("Moskenes.gpx", 0, 1, 512_000, "file"),
    inFolder("Reine.gpx", 1, 1, 481_280, "file"),
    inFolder("topo.mbtiles", 2, 1, 17_881_088, "file"),
  ],
};

const seeder = (userIdOf: string, path: "lan" | "direct" | "relay", bytesPerSecond: number, chunks: number) => ({
  userId: userIdOf,
  path,
  bytesPerSecond,
  chunks,
  held: 112_001,
});

export const transfersByPhase = {
  downloading: freshTransferView(files.footage, {
    ...part(files.footage, 0.374),
    bytesPerSecond: 48_300_000,
    etaMs: 95_000,
    inFlight: 32,
    duplicateChunks: 3,
    seeders: [seeder(BOB, "lan", 48_300_000, 41_888)],
  }),
  draining: freshTransferView(files.stems, {
    ...part(files.stems, 1),
    phase: "draining",
    inFlight: 3,
    drain: { startedAtMs: SAMPLE_NOW_MS - 40, remaining: 3, endedBy: null },
    seeders: [seeder(CAROL, "direct", 11_000_000, 12_400)],
  }),
  assembling: freshTransferView(files.scan, { ...part(files.scan, 1), phase: "assembling", assembledChunks: 31_204 }),
  verifying: freshTransferView(files.dump, {
    ...part(files.dump, 1),
    phase: "verifying",
    assembledChunks: files.dump.chunkCount,
  }),
  complete: freshTransferView(files.raw, {
    ...part(files.raw, 1),
    phase: "complete",
    assembledChunks: files.raw.chunkCount,
    savedPath: "/home/alice/Downloads/IMG_20261118_raw.dng",
  }),
  failed: freshTransferView(files.build, {
    ...part(files.build, 0.62),
    phase: "failed",
    rejectedChunks: 2,
    error: { type: "disk_full", message: "The disk is full. Free 46 MB in Downloads and retry; what arrived is kept." },
  }),
  waiting: freshTransferView(files.model, { ...part(files.model, 0.18), waitingForSeeders: true }),
  paused: freshTransferView(files.backup, { ...part(files.backup, 0.52), paused: true }),
};

let lastMessage = 0;
const message = (
  chatId: string,
  senderId: string,
  agoMs: number,
  text: string,
  changes: Partial<MessageView> = {},
): MessageView => {
  lastMessage += 1;
  return {
    messageId: `sample${String(lastMessage).padStart(16, "0")}`,
    chatId,
    senderId,
    sentAtMs: SAMPLE_NOW_MS - agoMs,
    text,
    state: senderId === ME ? "read" : "delivered",
    file: null,
    ...changes,
  };
};

/** Old small talk, so that there is something to scroll through. */
const history = (): MessageView[] =>
  Array.from({ length: 150 }, (_, index) =>
    message(
      BOB,
      index % 3 === 0 ? ME : BOB,
      6 * DAY - index * 20 * MINUTE,
      ["Sounds good.", "Let me check the tapes first.", "The second take is better, I think. Listen from minute four."][
        index % 3
      ] ?? "",
    ),
  );

const bobChat = (): MessageView[] => [
  ...history(),
  message(BOB, BOB, DAY + 3 * HOUR, "Back from the harbour. The light was unreal this morning."),
  message(BOB, BOB, DAY + 3 * HOUR - MINUTE, "I will send you the raw file of the best one, see for yourself."),
  message(BOB, BOB, DAY + 3 * HOUR - 2 * MINUTE, "", { file: files.raw }),
  message(BOB, ME, DAY + 2 * HOUR, "Wow. That reflection! Can we use it for the cover?"),
  message(BOB, BOB, DAY + 2 * HOUR - 3 * MINUTE, "Of course 🙂"),
  message(BOB, ME, 2 * HOUR, "Here is the proposal. Page 4 still needs your numbers, the rest is final I hope."),
  message(BOB, ME, 2 * HOUR - MINUTE, "", { file: files.proposal }),
  message(
    BOB,
    BOB,
    96 * MINUTE,
    "Thanks, reading it now. The format is explained at https://www.w3.org/TR/png-3/ if anyone asks.",
  ),
  message(BOB, BOB, 24 * MINUTE, "And the footage from today, all of it. Take your time."),
  message(BOB, BOB, 23 * MINUTE, "", { file: files.footage }),
  message(BOB, ME, 4 * MINUTE, "Already coming in, at almost 50 MB/s. I remember when we posted hard disks."),
  message(BOB, ME, 3 * MINUTE, "Call you when I have seen it.", { state: "delivered" }),
];

const phasesChat = (): MessageView[] => [
  message(CAROL, CAROL, 3 * HOUR, "Everything from the field trip, as promised:"),
  message(CAROL, CAROL, 3 * HOUR - MINUTE, "", { file: files.stems }),
  message(CAROL, CAROL, 3 * HOUR - 2 * MINUTE, "", { file: files.scan }),
  message(CAROL, CAROL, 3 * HOUR - 3 * MINUTE, "", { file: files.dump }),
  message(CAROL, CAROL, 2 * HOUR, "", { file: files.backup }),
  message(CAROL, CAROL, HOUR, "", { file: files.notes }),
  message(CAROL, CAROL, 41 * MINUTE, "The last one is small, the rest can wait until you are home."),
];

const link = (peerId: string, changes: Partial<LinkView>): LinkView => ({
  peerId,
  state: "connected",
  generation: 3,
  path: "direct",
  rttMs: 18,
  reason: null,
  staleEvents: 0,
  ...changes,
});

const attempt = (generation: number, agoMs: number, changes: Partial<LinkAttemptView>): LinkAttemptView => ({
  generation,
  via: "rtc",
  startedAtMs: SAMPLE_NOW_MS - agoMs,
  localCandidates: ["host", "srflx"],
  remoteCandidates: ["host", "srflx"],
  servers: { stun: 2, turn: 1 },
  result: "connected",
  path: null,
  reason: null,
  ms: null,
  ...changes,
});

/** No STUN server answers, and there is no TURN server. */
const blocked: Partial<LinkAttemptView> = {
  ...{ localCandidates: ["host"], servers: { stun: 1, turn: 0 } },
  ...{ result: "failed", reason: "unreachable", ms: 20_000 },
};

/** What the page of a connection shows when both sides meet at the server's relay only, because UDP is blocked here. */
export const relayedReport = (): Partial<Omit<LinkReport, "link">> => ({
  ...{ selected: { local: "relay", remote: "relay" }, nat: "unknown", stun: { asked: 1, answered: 0 } },
  attempts: [
    attempt(4, 12 * MINUTE, { ...blocked, result: "given_up", reason: "relay_was_faster", ms: 2100 }),
    attempt(5, 12 * MINUTE - 2000, { via: "relay", path: "relay", servers: null, ms: 290 }),
    attempt(6, 4 * MINUTE, { ...blocked }),
  ],
});

export const emptyState = (): FakeState => ({
  profile: {
    userId: ME,
    name: "Alice Moreau",
    fingerprint: "ab".repeat(64),
    server: { state: "connected", url: SERVER_URL, error: null },
    keyProtection: "keystore",
  },
  settings: {
    downloadDirectory: "/home/alice/Downloads",
    drainTimeoutMs: 5000,
    downloadBytesPerSecond: null,
    uploadBytesPerSecond: null,
    chunkStorageBytes: null,
    theme: "system",
    server: "embedded",
    readReceipts: true,
    typingIndicators: true,
    lanDiscovery: false,
    activityGuards: { lock: true, batches: true, sequence: true },
  },
  chunkUsage: {
    limitBytes: null,
    usedBytes: 1_500_000_000,
    expectedBytes: 4_200_000_000,
    evictableBytes: 300_000_000,
    evictions: [{ name: "old.iso", bytes: 700_000_000, atMs: 1, forName: "film.mkv" }],
  },
  host: {
    kind: "electron",
    platform: "linux",
    version: "0.1.0",
    canPick: true,
    canOpen: true,
    dataDirectory: "/home/alice/.local/share/weir",
  },
  contacts: [],
  chats: [],
  messages: [],
  files: [],
  entries: {},
  transfers: [],
  links: [],
  reports: {},
  networks: {},
  formerHolders: {},
  groupEvents: {},
  receipts: {},
  limits: {},
  invitations: {
    QRS234: contact(HIRO, "Hiro Tanaka", {
      state: "outgoing",
      safetyWords: ["lantern", "orbit", "velvet", "harbour"],
      safetyNumber: null,
    }),
    ABC234: {
      type: "unknown_code",
      message: "This code is unknown or used up. Ask for a new one; codes last 10 minutes.",
    },
  },
  nowMs: SAMPLE_NOW_MS,
});

const CHAT_NAMES: readonly (readonly [string, string])[] = [
  [BOB, "Bob Lindqvist"],
  [CAROL, "Carol Okafor"],
  [DMITRI, "Dmitri Petrov"],
  [ELIF, "Elif Yıldız"],
];

export const sampleState = (): FakeState => {
  const messages = [
    ...bobChat(),
    ...phasesChat(),
    message(DMITRI, DMITRI, 5 * HOUR, "Build is green again, sending you the image.", {}),
    message(DMITRI, DMITRI, 5 * HOUR - MINUTE, "", { file: files.build }),
    message(ELIF, ME, 2 * DAY, "Is the terrain model with you or still at the office?"),
    message(ELIF, ELIF, 2 * DAY - HOUR, "", { file: files.model }),
    message(ELIF, ELIF, 2 * DAY - HOUR - MINUTE, "", { file: files.trip }),
  ];
  const lastOf = (chatId: string): MessageView | null => messages.findLast((one) => one.chatId === chatId) ?? null;
  return {
    ...emptyState(),
    formerHolders: { [files.proposal.fileId]: [{ userId: ELIF, completedAtMs: SAMPLE_NOW_MS - 26 * HOUR }] },
    contacts: [
      contact(BOB, "Bob Lindqvist", {
        online: true,
        verified: true,
        safetyWords: ["copper", "meadow", "signal", "north"],
      }),
      contact(CAROL, "Carol Okafor", { online: true }),
      contact(DMITRI, "Dmitri Petrov", { keyChanged: true, verified: false }),
      contact(ELIF, "Elif Yıldız"),
      contact(FATIMA, "Fatima Zahra", {
        state: "incoming",
        safetyNumber: null,
        safetyWords: ["amber", "falcon", "tunnel", "olive"],
        addedAtMs: SAMPLE_NOW_MS - 2 * MINUTE,
      }),
      contact(GRETE, "Grete Winkelmann", {
        state: "outgoing",
        safetyNumber: null,
        safetyWords: ["winter", "pepper", "castle", "drum"],
        addedAtMs: SAMPLE_NOW_MS - 26 * HOUR,
      }),
    ],
    chats: CHAT_NAMES.map(([chatId, name]) => ({
      chatId,
      name,
      lastMessage: lastOf(chatId),
      unreadCount: chatId === CAROL ? 3 : 0,
      typing: false,
      sendBlocked:
        chatId === DMITRI
          ? { type: "key_changed", message: "Accept Dmitri's new safety number before you write." }
          : null,
    })),
    messages,
    files: Object.values(files),
    entries: tripEntries,
    transfers: Object.values(transfersByPhase),
    links: [
      link(BOB, { path: "lan", rttMs: 0.8 }),
      link(CAROL, { path: "direct", rttMs: 24 }),
      link(DMITRI, { state: "connecting", path: null, rttMs: null }),
      link(ELIF, { state: "failed", path: null, rttMs: null, reason: "unreachable", staleEvents: 2 }),
    ],
    reports: {
      [BOB]: {
        ...{ selected: { local: "host", remote: "host" }, nat: "same", stun: { asked: 2, answered: 2 } },
        attempts: [
          attempt(1, 3 * HOUR, { result: "lost", path: "direct", reason: "peer_silent", ms: 640 }),
          attempt(2, 51 * MINUTE, { via: "relay", result: "replaced", path: "relay", servers: null, ms: 320 }),
          attempt(3, 50 * MINUTE, { path: "lan", ms: 180 }),
        ],
      },
      [CAROL]: {
        ...{ selected: { local: "srflx", remote: "srflx" }, nat: "same", stun: { asked: 2, answered: 2 } },
        attempts: [attempt(3, 2 * HOUR, { path: "direct", ms: 410 })],
      },
      [ELIF]: {
        stun: { asked: 1, answered: 0 },
        attempts: [
          attempt(1, 9 * MINUTE, blocked),
          attempt(2, 6 * MINUTE, { via: "relay", result: "failed", servers: null, reason: "peer_no_relay", ms: 90 }),
          attempt(3, 2 * MINUTE, blocked),
        ],
      },
    },
  };
};

/** A group that a test adds to the week; `code` for `Window.fake`. */
export const HIKERS = "ghikers".padEnd(33, "a");
export const addGroup = (ownRole: "owner" | "member" | null): string => {
  const sinceMs = SAMPLE_NOW_MS - 9 * DAY;
  const member = (id: string, name: string, role: "owner" | "admin" | "member") => ({
    ...{ userId: id, name, role, sinceMs },
  });
  const others = [
    member(BOB, "Bob Lindqvist", ownRole === "owner" ? "admin" : "owner"),
    member(CAROL, "Carol Okafor", "member"),
    member(HIRO, "Hiro Tanaka", "member"),
  ];
  const members = ownRole === null ? others : [...others, member(ME, "", ownRole)];
  // Made here and not in the page, which has given the same numbers to others.
  const idsFrom = lastMessage;
  const said = (senderId: string, agoMs: number, text: string, more: Partial<MessageView> = {}): MessageView => ({
    ...message(HIKERS, senderId, agoMs, text, more),
    messageId: `hikers${String(lastMessage - idsFrom).padStart(16, "0")}`,
    ...(senderId === ME ? {} : { senderName: others.find(({ userId: id }) => id === senderId)?.name ?? "Somebody" }),
  });
  const messages = [
    said(BOB, 5 * HOUR, "The hut is booked for the 12th, six beds. Bring your own sleeping bag."),
    said(HIRO, 4 * HOUR, "I can take the rope and the stove."),
    said(HIRO, 4 * HOUR - MINUTE, "Does anybody have a map of the northern side?"),
    said(CAROL, 50 * MINUTE, "", { file: files.notes }),
    said(ME, 12 * MINUTE, "Thanks! Train at 7:12, platform 4. Do not be late this time.", {
      ...{ state: "sent", received: { delivered: 2, read: 1, of: 3 } },
    }),
  ];
  const chat = {
    ...{ chatId: HIKERS, name: "Autumn hike", lastMessage: messages.at(-1), unreadCount: 0, typing: false },
    sendBlocked: ownRole === null ? { type: "not_in_group", message: "You are not in this group any more." } : null,
    group: { ownerId: ownRole === "owner" ? ME : BOB, role: ownRole, members, changes: 4 },
  };
  const owner = ownRole === "owner" ? { userId: ME, name: "" } : { userId: BOB, name: "Bob Lindqvist" };
  const happened = (after: MessageView | undefined, agoMs: number, event: Partial<GroupEventView>): GroupEventView => ({
    ...{ eventId: `event ${agoMs}`, afterId: after?.messageId ?? null, atMs: SAMPLE_NOW_MS - agoMs },
    ...{ kind: "add", actor: owner, people: [], name: null, ...event },
  });
  const [bob, carol, hiro] = others;
  const people = [ownRole === "owner" ? bob : { userId: ME, name: "" }, carol].filter((person) => person !== undefined);
  const events = [
    happened(undefined, 6 * HOUR, { kind: "create", people, name: "Hike" }),
    happened(messages[0], 5 * HOUR - 9 * MINUTE, { kind: "rename", name: "Autumn hike" }),
    happened(messages[0], 5 * HOUR - 10 * MINUTE, { people: hiro === undefined ? [] : [hiro] }),
    happened(messages[3], 40 * MINUTE, {
      kind: "admin",
      people: ownRole === "owner" && bob !== undefined ? [bob] : people.slice(0, 1),
    }),
  ];
  return `
    fake.state.messages.push(...${JSON.stringify(messages)});
    fake.state.groupEvents["${HIKERS}"] = ${JSON.stringify(events)};
    fake.chat("${HIKERS}", ${JSON.stringify(chat)});`;
};
