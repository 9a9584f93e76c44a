import * as v from "valibot";
import { ChatIdSchema, FileIdSchema, MessageIdSchema, UserIdSchema } from "../base/ids.ts";
import {
  BANDWIDTH_LIMIT_MAX_BYTES,
  BANDWIDTH_LIMIT_MIN_BYTES,
  CHUNK_STORAGE_MAX_BYTES,
  CHUNK_STORAGE_MIN_BYTES,
  DRAIN_TIMEOUT_MAX_MS,
  DRAIN_TIMEOUT_MIN_MS,
  FOLDER_ENTRIES_MAX,
  FOLDER_RANGES_MAX,
  GROUP_MEMBERS_MAX,
  MESSAGE_TEXT_BYTES_MAX,
  MESSAGES_PAGE_MAX,
  PATH_LENGTH_MAX,
  PROFILE_NAME_LENGTH_MAX,
  SHARE_MEMBERS_MAX,
} from "../base/limits.ts";
import type {
  AccessView,
  ActivityCheckView,
  ActivityHealth,
  ActivityRunView,
  ActivitySummary,
  AvailabilityView,
  ChatView,
  ChunkUsageView,
  ContactNetworkView,
  ContactView,
  FileView,
  FolderEntryView,
  GroupEventView,
  HostView,
  InviteView,
  LinkReport,
  LinkView,
  MessageReceiptView,
  MessageView,
  NoticeView,
  PickedFileView,
  ProfileView,
  SafetyCodeView,
  ServerView,
  SettingsView,
  ShareProgressView,
  TransferDetailsView,
  TransferView,
} from "./views.ts";

/**
 * The one vocabulary between renderer and main, in Electron and headless mode alike. A command takes one input
 * object, which the main process validates, and answers with a `Result`; events are pushed snapshots.
 */
interface Command<Input extends v.GenericSchema, Output> {
  readonly input: Input;
  /** Exists only in the type: outputs come from our own process and are not validated. */
  readonly output?: Output;
}

const command =
  <Output>() =>
  <Input extends v.GenericSchema>(input: Input): Command<Input, Output> => ({ input });

const none = v.strictObject({});
const ofUser = v.strictObject({ userId: UserIdSchema });
const ofFile = v.strictObject({ fileId: FileIdSchema });
const ofFileAndUsers = v.strictObject({
  fileId: FileIdSchema,
  userIds: v.pipe(v.array(UserIdSchema), v.minLength(1), v.maxLength(SHARE_MEMBERS_MAX)),
});
const ofChat = v.strictObject({ chatId: ChatIdSchema });
const bandwidth = v.nullable(
  v.pipe(v.number(), v.integer(), v.minValue(BANDWIDTH_LIMIT_MIN_BYTES), v.maxValue(BANDWIDTH_LIMIT_MAX_BYTES)),
);
const path = v.pipe(v.string(), v.minLength(1), v.maxLength(PATH_LENGTH_MAX));
const index = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(FOLDER_ENTRIES_MAX));
const name = v.pipe(v.string(), v.trim(), v.minLength(1), v.maxLength(PROFILE_NAME_LENGTH_MAX));
/** Bytes, not characters, are what travels; valibot counts them as UTF-8. */
const text = v.pipe(v.string(), v.minLength(1), v.maxBytes(MESSAGE_TEXT_BYTES_MAX));
/** Milliseconds since 1970, within what a Date can hold. */
const time = v.pipe(v.number(), v.minValue(0), v.maxValue(8.64e15));
/** Of a file: until when, and to how many people, it is given. */
const limits = {
  expiresAtMs: v.optional(v.nullable(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(8.64e15)))),
  downloadLimit: v.optional(v.nullable(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(SHARE_MEMBERS_MAX)))),
};
const serverSetting = v.pipe(
  v.string(),
  v.maxLength(512),
  v.regex(/^(embedded|wss?:\/\/[^\s]+)$/, 'must be "embedded" or start with ws:// or wss://'),
);

export const commands = {
  "profile.get": command<ProfileView>()(none),
  "profile.update": command<ProfileView>()(v.strictObject({ name })),

  "invites.create": command<InviteView>()(none),
  "invites.accept": command<{ contact: ContactView }>()(
    v.strictObject({ invite: v.pipe(v.string(), v.trim(), v.minLength(1), v.maxLength(2048)) }),
  ),

  "contacts.list": command<ContactView[]>()(none),
  /** Accepts an incoming request; on a contact whose key changed, accepts the new key. */
  "contacts.accept": command<ContactView>()(ofUser),
  "contacts.verify": command<ContactView>()(
    v.strictObject({ userId: UserIdSchema, verified: v.optional(v.boolean(), true) }),
  ),
  /** Takes thousands of hashes, so it is asked for when it is shown. */
  "contacts.safetyCode": command<SafetyCodeView>()(ofUser),
  "contacts.block": command<ContactView>()(ofUser),
  "contacts.unblock": command<ContactView>()(ofUser),
  /** Without `policy` it only tells. Another policy takes effect at once: what it forbids ends. */
  "contacts.network": command<ContactNetworkView>()(
    v.strictObject({
      userId: UserIdSchema,
      policy: v.optional(v.picklist(["direct", "afterAccept", "relay", "lan"])),
    }),
  ),
  "contacts.remove": command<{ removed: boolean }>()(ofUser),

  "chats.list": command<ChatView[]>()(none),
  /** Only contacts can be put into a group; they need not know each other. */
  "chats.createGroup": command<ChatView>()(
    v.strictObject({ name, userIds: v.pipe(v.array(UserIdSchema), v.maxLength(GROUP_MEMBERS_MAX)) }),
  ),
  "chats.addMembers": command<ChatView>()(
    v.strictObject({
      chatId: ChatIdSchema,
      userIds: v.pipe(v.array(UserIdSchema), v.minLength(1), v.maxLength(GROUP_MEMBERS_MAX)),
    }),
  ),
  "chats.removeMember": command<ChatView>()(v.strictObject({ chatId: ChatIdSchema, userId: UserIdSchema })),
  /** Leaves a group; one that was left before goes with all that was written there. */
  "chats.leave": command<{ removed: boolean }>()(ofChat),
  /** A group's name, and who is an admin. What is left out stays as it is. */
  "chats.settings": command<ChatView>()(
    v.strictObject({
      chatId: ChatIdSchema,
      name: v.optional(name),
      role: v.optional(v.strictObject({ userId: UserIdSchema, role: v.picklist(["admin", "member"]) })),
    }),
  ),
  /** What became of a group since we are in it, oldest first. Error `unknown_chat` for everything that is no group. */
  "chats.history": command<GroupEventView[]>()(ofChat),
  "chats.markRead": command<ChatView>()(ofChat),
  "chats.typing": command<{ sent: boolean }>()(v.strictObject({ chatId: ChatIdSchema, typing: v.boolean() })),

  "messages.send": command<MessageView>()(v.strictObject({ chatId: ChatIdSchema, text })),
  /** How far an own message has come with the other person, or with each member of a group. */
  "messages.receipts": command<MessageReceiptView[]>()(
    v.strictObject({ chatId: ChatIdSchema, messageId: MessageIdSchema }),
  ),
  "messages.list": command<MessageView[]>()(
    v.strictObject({
      chatId: ChatIdSchema,
      limit: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(MESSAGES_PAGE_MAX)), 50),
      beforeId: v.optional(MessageIdSchema),
    }),
  ),

  "files.share": command<FileView>()(v.strictObject({ chatId: ChatIdSchema, path, ...limits })),
  /**
   * Stops preparing a file that `files.share` was asked for, which then answers `cancelled`; nothing of it stays. Its id
   * comes with `share.progress`. Error `unknown_file` when it is not being prepared any more.
   */
  "files.cancelShare": command<{ fileId: string }>()(ofFile),
  "files.get": command<FileView>()(ofFile),
  "files.list": command<FileView[]>()(none),
  "files.access": command<AccessView>()(ofFile),
  /** Every signed operation and receipt of a file, as the text of a file that can be checked without Weir's server. */
  "files.receipts": command<{ fileName: string; json: string }>()(ofFile),
  /** The owner's rules. What is left out stays as it is. */
  "files.terms": command<AccessView>()(
    v.strictObject({
      fileId: FileIdSchema,
      membersMayAdd: v.optional(v.boolean()),
      ...limits,
    }),
  ),
  /** The owner takes a file back from everybody, for good. What was saved by then stays saved. */
  "files.withdraw": command<FileView>()(ofFile),
  /** Gives contacts access; the key goes to them in a message. Error `share_not_allowed` where the owner's terms forbid it. */
  "files.grant": command<FileView>()(ofFileAndUsers),
  /**
   * The owner takes access back. What was saved by then stays saved. With `rekey` the file is then shared anew under another
   * key with those who remain and have not fetched it: they go on with what they have; the answer is that file.
   */
  "files.revoke": command<FileView>()(
    v.strictObject({ ...ofFileAndUsers.entries, rekey: v.optional(v.boolean(), false) }),
  ),
  /** Gives up the own access to a file of somebody else. */
  "files.leave": command<FileView>()(ofFile),
  /** What lies in a folder ("" is the shared one itself) of a shared folder, some at a time. `list_missing` until its list is here. */
  "files.entries": command<{ entries: FolderEntryView[]; total: number }>()(
    v.strictObject({
      fileId: FileIdSchema,
      path: v.pipe(v.string(), v.maxLength(PATH_LENGTH_MAX)),
      offset: v.optional(index, 0),
    }),
  ),

  /** `files` of a folder: ranges [first, end) of its entries, or `choose` to fetch only its list, which then rests until ranges come. */
  "transfers.start": command<TransferView>()(
    v.strictObject({
      fileId: FileIdSchema,
      directory: v.optional(path),
      files: v.optional(
        v.union([v.literal("choose"), v.pipe(v.array(v.tuple([index, index])), v.maxLength(FOLDER_RANGES_MAX))]),
      ),
    }),
  ),
  "transfers.pause": command<TransferView>()(ofFile),
  "transfers.resume": command<TransferView>()(ofFile),
  "transfers.cancel": command<TransferView>()(ofFile),
  "transfers.retry": command<TransferView>()(ofFile),
  "transfers.prioritize": command<TransferView>()(
    v.strictObject({ fileId: FileIdSchema, priority: v.picklist(["high", "normal", "low"]) }),
  ),
  "transfers.list": command<TransferView[]>()(none),

  "links.list": command<LinkView[]>()(none),
  "links.enable": command<LinkView[]>()(none),
  "links.disable": command<LinkView[]>()(none),
  "links.reconnect": command<LinkView>()(v.strictObject({ peerId: UserIdSchema })),
  /** What was tried to reach one contact, or each of them, and what became of it. */
  "links.report": command<LinkReport[]>()(v.strictObject({ peerId: v.optional(UserIdSchema) })),
  /** Makes a fresh connection beside the link, if there is one, and answers when it is known what became of it. */
  "links.test": command<LinkReport>()(v.strictObject({ peerId: UserIdSchema })),

  /** Without times everything that was ever counted; `toMs` is included. Takes up what was logged before it answers. */
  "activity.summary": command<ActivitySummary>()(
    v.strictObject({ fromMs: v.optional(time), toMs: v.optional(time), userId: v.optional(ChatIdSchema) }),
  ),
  "activity.health": command<ActivityHealth>()(none),
  "activity.run": command<ActivityRunView>()(none),
  /** Replays the events that are kept and compares; `repair` puts right what differs. */
  "activity.check": command<ActivityCheckView>()(v.strictObject({ repair: v.optional(v.boolean(), false) })),
  "activity.transfer": command<TransferDetailsView>()(ofFile),
  "activity.availability": command<AvailabilityView>()(ofUser),
  /** Forgets all events and sums; what is under way is counted from now on. */
  "activity.deleteHistory": command<ActivityHealth>()(none),

  "settings.get": command<SettingsView>()(none),
  "settings.set": command<SettingsView>()(
    v.partial(
      v.strictObject({
        downloadDirectory: path,
        downloadBytesPerSecond: bandwidth,
        uploadBytesPerSecond: bandwidth,
        chunkStorageBytes: v.nullable(
          v.pipe(v.number(), v.integer(), v.minValue(CHUNK_STORAGE_MIN_BYTES), v.maxValue(CHUNK_STORAGE_MAX_BYTES)),
        ),
        drainTimeoutMs: v.pipe(
          v.number(),
          v.integer(),
          v.minValue(DRAIN_TIMEOUT_MIN_MS),
          v.maxValue(DRAIN_TIMEOUT_MAX_MS),
        ),
        theme: v.picklist(["system", "light", "dark"]),
        server: serverSetting,
        readReceipts: v.boolean(),
        typingIndicators: v.boolean(),
        lanDiscovery: v.boolean(),
        activityGuards: v.strictObject({ lock: v.boolean(), batches: v.boolean(), sequence: v.boolean() }),
      }),
    ),
  ),

  /** What the chunks of unfinished downloads take, and what was deleted of them to keep to the limit. */
  "storage.usage": command<ChunkUsageView>()(none),

  /** Counters, states and the recent log, without names, texts, keys or addresses. */
  "diagnostics.export": command<Record<string, unknown>>()(none),

  // What only the window's surroundings can do. Headless mode answers `not_available_here` where it cannot.
  "host.info": command<HostView>()(none),
  "host.pickFiles": command<PickedFileView[]>()(none),
  "host.pickDirectory": command<{ path: string | null; name?: string }>()(none),
  "host.open": command<{ opened: boolean }>()(ofFile),
  "host.showInFolder": command<{ shown: boolean }>()(ofFile),
} as const;

export type CommandName = keyof typeof commands;
/** What a caller passes (defaults may be left out). */
export type CommandInput<Name extends CommandName> = v.InferInput<(typeof commands)[Name]["input"]>;
/** What a handler receives (validated, defaults filled in, ids branded). */
export type CommandValue<Name extends CommandName> = v.InferOutput<(typeof commands)[Name]["input"]>;
export type CommandOutput<Name extends CommandName> = NonNullable<(typeof commands)[Name]["output"]>;

export interface ContractEvents {
  "contact.changed": ContactView | { userId: string; removed: true };
  "chat.changed": ChatView;
  "message.changed": MessageView;
  "file.changed": FileView;
  "transfer.changed": TransferView;
  "link.changed": LinkView;
  "server.changed": ServerView;
  notice: NoticeView;
  /** The first one of a file has bytesHashed = 0, the last one bytesHashed = sizeBytes; then `files.share` answers. */
  "share.progress": ShareProgressView;
  /** A weir:// link was opened outside: fill it into the pairing dialog. It holds a secret, so it is shown nowhere else. */
  "invite.opened": { link: string };
}
export type EventName = keyof ContractEvents;

export const eventNames = [
  "contact.changed",
  "chat.changed",
  "message.changed",
  "file.changed",
  "transfer.changed",
  "link.changed",
  "server.changed",
  "notice",
  "share.progress",
  "invite.opened",
] as const satisfies readonly EventName[];

export const isCommandName = (text: string): text is CommandName => Object.hasOwn(commands, text);
export const isEventName = (text: string): text is EventName => (eventNames as readonly string[]).includes(text);
