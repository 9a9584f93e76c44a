import type { Result } from "#shared/base/result.ts";
import type { CommandInput, CommandName, CommandOutput, ContractEvents, EventName } from "#shared/ipc/contract.ts";
import type {
  AccessView,
  ChatView,
  ChunkUsageView,
  ContactNetworkView,
  ContactView,
  FileView,
  FolderEntryView,
  GroupEventView,
  HostView,
  LinkReport,
  LinkView,
  MessageReceiptView,
  MessageView,
  ProfileView,
  SettingsView,
  TransferView,
} from "#shared/ipc/views.ts";
import { emptySummary, sampleDetails, sampleHealth, sampleSummary } from "./fake-activity.ts";
import { fakeGroups, fakeReceipts } from "./fake-groups.ts";
import { freshTransferView } from "./transfer-view.ts";

/**
 * The contract in memory, for looking at the window and driving it without a main process. It keeps the contract's
 * promises (snapshots, newest first, typed errors), and moves a transfer through its phases when it is told to.
 */
export interface FakeState {
  profile: ProfileView;
  settings: SettingsView;
  chunkUsage: ChunkUsageView;
  host: HostView;
  contacts: ContactView[];
  chats: ChatView[];
  messages: MessageView[];
  files: FileView[];
  /** What lies in the folders of a shared folder, by path. */
  entries: Record<string, FolderEntryView[]>;
  transfers: TransferView[];
  links: LinkView[];
  /** What is known of a link besides its view; every contact has a plain report without an entry here. */
  reports: Record<string, Partial<Omit<LinkReport, "link">>>;
  networks: Record<string, Omit<ContactNetworkView, "userId">>;
  /** What `invites.accept` answers with, by what was entered; anything else is an invalid invitation. */
  invitations: Record<string, ContactView | { type: string; message: string }>;
  /** By file: people who lost their access after they had fetched it. */
  formerHolders: Record<string, AccessView["formerHolders"]>;
  /** By file: what its owner has set. */
  limits: Record<string, Partial<Pick<AccessView, "membersMayAdd" | "expiresAtMs" | "downloadLimit">>>;
  /** By chat: what became of the group. */
  groupEvents: Record<string, GroupEventView[]>;
  /** By message, where the state of the message does not say it. */
  receipts: Record<string, MessageReceiptView[]>;
  /** The clock of everything that the fake makes. */
  nowMs: number;
}

type Handlers = { [Name in CommandName]: (input: CommandInput<Name>) => Result<CommandOutput<Name>> };
type Listener = (payload: never) => void;

const ok = <T>(value: T): { ok: true; value: T } => ({ ok: true, value });
const fail = (type: string, message: string): { ok: false; error: { type: string; message: string } } => ({
  ok: false,
  error: { type, message },
});

export class FakeWeir {
  readonly state: FakeState;
  /** Every call so far, for tests that ask what the window did. */
  readonly calls: { name: CommandName; input: unknown }[] = [];
  readonly #listeners = new Map<EventName, Set<Listener>>();
  readonly #handlers: Handlers;
  #lastId = 0;

  constructor(state: FakeState) {
    this.state = state;
    this.#handlers = this.#makeHandlers();
  }

  /** What the preload script would expose. */
  readonly weir = {
    call: async <Name extends CommandName>(
      name: Name,
      input: CommandInput<Name>,
    ): Promise<Result<CommandOutput<Name>>> => {
      this.calls.push({ name, input });
      await Promise.resolve();
      // Copies, as over a process border: the window must not share objects with the fake.
      return structuredClone(this.#handlers[name](input));
    },
    on: <Name extends EventName>(event: Name, listener: (payload: ContractEvents[Name]) => void): (() => void) => {
      const listeners = this.#listeners.get(event) ?? new Set<Listener>();
      this.#listeners.set(event, listeners.add(listener));
      return () => listeners.delete(listener);
    },
    pathOf: (file: { name: string; size: number }): Promise<string> =>
      Promise.resolve(`handle:${file.size}:${file.name}`),
  };

  emit<Name extends EventName>(event: Name, payload: ContractEvents[Name]): void {
    for (const listener of this.#listeners.get(event) ?? []) {
      (listener as (payload: ContractEvents[Name]) => void)(structuredClone(payload));
    }
  }

  /** Changes a transfer and publishes it. */
  transfer(fileId: string, changes: Partial<TransferView>): TransferView {
    const transfer = { ...this.#transferOf(fileId), ...changes };
    this.state.transfers = [...this.state.transfers.filter((known) => known.fileId !== fileId), transfer];
    this.emit("transfer.changed", transfer);
    return transfer;
  }

  /** Changes a contact and publishes it; a new one needs all fields. */
  contact(userId: string, changes: Partial<ContactView>): ContactView {
    const known = this.state.contacts.find((contact) => contact.userId === userId);
    const contact: ContactView = {
      userId,
      name: "Somebody",
      state: "accepted",
      verified: false,
      online: false,
      keyChanged: false,
      safetyWords: null,
      safetyNumber: null,
      addedAtMs: this.state.nowMs,
      ...known,
      ...changes,
    };
    this.state.contacts = [...this.state.contacts.filter((other) => other.userId !== userId), contact];
    this.emit("contact.changed", contact);
    return contact;
  }

  /** Changes a link and what its report tells, and publishes it. */
  link(peerId: string, changes: Partial<LinkView>, report: Partial<Omit<LinkReport, "link">> = {}): void {
    const link = { ...this.#report(peerId).link, ...changes };
    this.state.links = [...this.state.links.filter((known) => known.peerId !== peerId), link];
    this.state.reports[peerId] = { ...this.state.reports[peerId], ...report };
    this.emit("link.changed", link);
  }

  #report(peerId: string): LinkReport {
    const { links, reports, networks } = this.state;
    const idle = { generation: 0, path: null, rttMs: null, reason: null, staleEvents: 0 };
    return {
      ...{ link: links.find((link) => link.peerId === peerId) ?? { peerId, state: "disconnected", ...idle } },
      ...{ policy: networks[peerId]?.policy ?? "direct", directAllowed: true, relayAllowed: true },
      ...{ selected: null, nat: "unknown", stun: null, droppedMessages: 0, attempts: [] },
      ...reports[peerId],
    };
  }

  chat(chatId: string, changes: Partial<ChatView>): ChatView {
    const chat = { ...this.#chatOf(chatId), ...changes };
    this.state.chats = [...this.state.chats.filter((known) => known.chatId !== chatId), chat];
    this.emit("chat.changed", chat);
    return chat;
  }

  server(changes: Partial<ProfileView["server"]>): void {
    this.state.profile.server = { ...this.state.profile.server, ...changes };
    this.emit("server.changed", this.state.profile.server);
  }

  /** A message that arrives. */
  receive(chatId: string, text: string): MessageView {
    const message = this.#message(chatId, chatId, text, "delivered", null);
    this.#publishMessage(message);
    return message;
  }

  messageState(messageId: string, state: MessageView["state"]): void {
    const known = this.state.messages.find((message) => message.messageId === messageId);
    if (known) this.#publishMessage({ ...known, state });
  }

  /** What the other people have of an own message to a group. */
  receipts(messageId: string, receipts: MessageReceiptView[]): void {
    this.state.receipts[messageId] = receipts;
    const known = this.state.messages.find((message) => message.messageId === messageId);
    const read = receipts.filter(({ state }) => state === "read").length;
    const delivered = read + receipts.filter(({ state }) => state === "delivered").length;
    if (known) this.#publishMessage({ ...known, received: { delivered, read, of: receipts.length } });
  }

  #id(): string {
    this.#lastId += 1;
    return `fake${String(this.#lastId).padStart(18, "0")}`;
  }

  #message(
    chatId: string,
    senderId: string,
    text: string,
    state: MessageView["state"],
    file: FileView | null,
  ): MessageView {
    this.state.nowMs += 1000;
    return { messageId: this.#id(), chatId, senderId, sentAtMs: this.state.nowMs, text, state, file };
  }

  #publishMessage(message: MessageView): void {
    const { chatId, senderId } = message;
    const index = this.state.messages.findIndex((known) => known.messageId === message.messageId);
    if (index === -1) this.state.messages.push(message);
    else this.state.messages[index] = message;
    this.emit("message.changed", message);
    const chat = this.#chatOf(chatId);
    const arrived = index === -1 && senderId !== this.state.profile.userId ? 1 : 0;
    this.chat(chatId, { lastMessage: message, unreadCount: chat.unreadCount + arrived });
  }

  #chatOf(chatId: string): ChatView {
    const known = this.state.chats.find((chat) => chat.chatId === chatId);
    const name = this.state.contacts.find((contact) => contact.userId === chatId)?.name ?? "Somebody";
    return known ?? { chatId, name, lastMessage: null, unreadCount: 0, typing: false, sendBlocked: null };
  }

  #transferOf(fileId: string): TransferView {
    const known = this.state.transfers.find((transfer) => transfer.fileId === fileId);
    const file = this.state.files.find((candidate) => candidate.fileId === fileId);
    return (
      known ??
      freshTransferView({
        fileId,
        name: file?.name ?? "file",
        chunkCount: file?.chunkCount ?? 1,
        sizeBytes: file?.sizeBytes ?? 0,
      })
    );
  }

  #makeHandlers(): Handlers {
    const { state } = this;
    const groups = fakeGroups(this);
    const notFound = fail("not_found", "This is no longer here.");
    const changeContact = (userId: string, changes: Partial<ContactView>): Result<ContactView> =>
      state.contacts.some((contact) => contact.userId === userId) ? ok(this.contact(userId, changes)) : notFound;
    const accessOf = (fileId: string): Result<AccessView> => {
      const file = state.files.find((known) => known.fileId === fileId);
      if (file === undefined) return notFound;
      const isMine = file.ownerId === state.profile.userId;
      const members = file.sharedWith
        .filter((userId) => userId !== file.ownerId)
        .map((userId) => ({
          ...{ userId, sinceMs: state.nowMs - 3_600_000, addedBy: file.ownerId },
          ...{ holds: file.seeders.includes(userId), offeredAtMs: state.nowMs - 3_590_000 },
          completedAtMs: file.seeders.includes(userId) ? state.nowMs - 1_200_000 : null,
        }));
      const formerHolders = isMine ? (state.formerHolders[fileId] ?? []) : [];
      const { ownerId, version } = file;
      return ok({
        fileId,
        ownerId,
        version,
        members,
        formerHolders,
        mayAdd: true,
        mayRevoke: isMine,
        membersMayAdd: true,
        ...{ expiresAtMs: null, downloadLimit: null, downloads: file.seeders.length - 1 },
        ...state.limits[fileId],
        closed: file.closed ?? null,
      });
    };
    const changeAccess = (fileId: string, change: (members: string[]) => string[]) => {
      const file = state.files.find((known) => known.fileId === fileId);
      if (file === undefined) return notFound;
      Object.assign(file, { sharedWith: change(file.sharedWith), version: file.version + 1 });
      return ok(file);
    };
    const changeTransfer = (fileId: string, changes: Partial<TransferView>): Result<TransferView> =>
      state.transfers.some((transfer) => transfer.fileId === fileId) ? ok(this.transfer(fileId, changes)) : notFound;
    return {
      "profile.get": () => ok(state.profile),
      "profile.update": ({ name }) => ok(Object.assign(state.profile, { name })),
      "invites.create": () =>
        ok({
          link: `weir://invite/${"AQxPZc3Jt0wq8Lk2".repeat(12)}`,
          code: "K7MQ4X",
          expiresAtMs: state.nowMs + 10 * 60 * 1000 - 13_000,
        }),
      "invites.accept": ({ invite }) => {
        const found = state.invitations[invite];
        if (found === undefined) {
          return fail(
            "invalid_invite",
            "This is not a Weir invitation. Copy the whole link, or type the 6-character code.",
          );
        }
        return "type" in found ? { ok: false, error: found } : ok({ contact: this.contact(found.userId, found) });
      },
      "contacts.list": () => ok(state.contacts),
      "contacts.accept": ({ userId }) => {
        state.networks[userId] = { policy: state.networks[userId]?.policy ?? "direct", acceptedByMe: true };
        return changeContact(userId, { state: "accepted", keyChanged: false });
      },
      "contacts.verify": ({ userId, verified }) => changeContact(userId, { verified: verified ?? true }),
      "contacts.safetyCode": ({ userId }) =>
        state.contacts.some((contact) => contact.userId === userId && contact.safetyNumber !== null)
          ? ok({ scannable: "CAISIgog".repeat(12) })
          : fail("no_session", "The safety number is known as soon as both of you are connected."),
      "contacts.block": ({ userId }) => changeContact(userId, { state: "blocked" }),
      "contacts.unblock": ({ userId }) => changeContact(userId, { state: "accepted" }),
      "contacts.network": ({ userId, policy }) => {
        const network = state.networks[userId] ?? { policy: "direct", acceptedByMe: true };
        state.networks[userId] = { ...network, policy: policy ?? network.policy };
        return ok({ userId, ...state.networks[userId] });
      },
      "contacts.remove": ({ userId }) => {
        state.contacts = state.contacts.filter((contact) => contact.userId !== userId);
        this.emit("contact.changed", { userId, removed: true });
        return ok({ removed: true });
      },
      "chats.list": () => ok(state.chats),
      "chats.createGroup": ({ name, userIds }) => groups.create(name, userIds),
      "chats.addMembers": ({ chatId, userIds }) => groups.add(chatId, userIds),
      "chats.removeMember": ({ chatId, userId }) => groups.remove(chatId, userId),
      "chats.settings": ({ chatId, name, role }) => groups.settings(chatId, name, role),
      "chats.leave": ({ chatId }) => groups.leave(chatId),
      "chats.history": ({ chatId }) => ok(state.groupEvents[chatId] ?? []),
      "messages.receipts": ({ chatId, messageId }) => fakeReceipts(state, chatId, messageId),
      "chats.markRead": ({ chatId }) => ok(this.chat(chatId, { unreadCount: 0 })),
      "chats.typing": () => ok({ sent: true }),
      "messages.send": ({ chatId, text }) => {
        const message = this.#message(chatId, state.profile.userId, text, "queued", null);
        this.#publishMessage(message);
        return ok(message);
      },
      "messages.list": ({ chatId, limit = 50, beforeId }) => {
        const all = state.messages.filter((message) => message.chatId === chatId);
        const before = beforeId === undefined ? all.length : all.findIndex((message) => message.messageId === beforeId);
        return ok(all.slice(Math.max(0, before - limit), Math.max(0, before)).reverse());
      },
      "files.share": ({ chatId, path }) => {
        const name = path.split(/[/:]/).at(-1) ?? "file";
        const file: FileView = {
          fileId: this.#id(),
          name,
          sizeBytes: 1_500_000,
          sha256: "5f".repeat(32),
          chunkCount: 23,
          ownerId: state.profile.userId,
          sharedWith: [state.profile.userId, chatId],
          version: 1,
          seeders: [state.profile.userId],
          access: "granted",
        };
        state.files.push(file);
        this.#publishMessage(this.#message(chatId, state.profile.userId, "", "sent", file));
        return ok(file);
      },
      "files.cancelShare": () => notFound,
      "files.get": ({ fileId }) => {
        const file = state.files.find((known) => known.fileId === fileId);
        return file ? ok(file) : notFound;
      },
      "files.list": () => ok(state.files),
      "files.access": ({ fileId }) => accessOf(fileId),
      "files.receipts": ({ fileId }) => {
        const file = state.files.find((known) => known.fileId === fileId);
        return file ? ok({ fileName: `${file.name}.receipts.json`, json: '{"weirReceipts":1}' }) : notFound;
      },
      "files.terms": ({ fileId, ...terms }) => {
        const known = Object.entries(terms).filter(([, value]) => value !== undefined);
        state.limits[fileId] = { ...state.limits[fileId], ...Object.fromEntries(known) };
        return accessOf(fileId);
      },
      "files.withdraw": ({ fileId }) => {
        const file = state.files.find((known) => known.fileId === fileId);
        if (file === undefined) return notFound;
        Object.assign(file, { sharedWith: [], version: file.version + 1, closed: "withdrawn" });
        return ok(file);
      },
      "files.entries": ({ fileId, path }) => {
        const entries = state.entries[path];
        const isFetched = state.transfers.some((transfer) => transfer.fileId === fileId);
        return entries !== undefined && isFetched
          ? ok({ entries, total: entries.length })
          : fail("list_missing", "The list of this folder has not arrived yet.");
      },
      "files.grant": ({ fileId, userIds }) => changeAccess(fileId, (members) => [...new Set([...members, ...userIds])]),
      "files.revoke": ({ fileId, userIds }) =>
        changeAccess(fileId, (members) => members.filter((id) => !userIds.includes(id))),
      "files.leave": ({ fileId }) =>
        changeAccess(fileId, (members) => members.filter((id) => id !== state.profile.userId)),
      "transfers.start": ({ fileId, files }) => {
        const isFolder = state.files.some((file) => file.fileId === fileId && file.folder !== undefined);
        const choosing = files === "choose";
        const selection = files === undefined || choosing ? null : files;
        const folder = { filesWanted: null, filesThere: 0, choosing, selection };
        const changes = { phase: "downloading", paused: choosing, error: null } as const;
        return ok(this.transfer(fileId, isFolder ? { ...changes, folder } : changes));
      },
      "transfers.pause": ({ fileId }) => changeTransfer(fileId, { paused: true, bytesPerSecond: 0, etaMs: null }),
      "transfers.resume": ({ fileId }) => changeTransfer(fileId, { paused: false }),
      "transfers.cancel": ({ fileId }) =>
        changeTransfer(fileId, {
          phase: "failed",
          error: { type: "cancelled", message: "You cancelled the download." },
        }),
      "transfers.retry": ({ fileId }) => changeTransfer(fileId, { phase: "downloading", error: null }),
      "transfers.prioritize": ({ fileId, priority }) => changeTransfer(fileId, { priority }),
      "transfers.list": () => ok(state.transfers),
      "links.list": () => ok(state.links),
      "links.enable": () => ok(state.links),
      "links.disable": () => ok(state.links),
      "links.report": ({ peerId }) =>
        ok((peerId === undefined ? state.links.map((link) => link.peerId) : [peerId]).map((id) => this.#report(id))),
      "links.test": ({ peerId }) => {
        const { link, attempts } = this.#report(peerId);
        if (link.state !== "connected") return ok(this.#report(peerId));
        const generation = link.generation + 1;
        const attempt: LinkReport["attempts"][number] = {
          ...{
            generation,
            via: "rtc",
            startedAtMs: state.nowMs,
            localCandidates: ["host"],
            remoteCandidates: ["host"],
          },
          ...{ servers: { stun: 2, turn: 1 }, result: "connected", path: link.path, reason: null, ms: 210 },
        };
        this.link(peerId, { generation }, { attempts: [...attempts, attempt], stun: { asked: 2, answered: 2 } });
        return ok(this.#report(peerId));
      },
      "links.reconnect": ({ peerId }) => {
        const link = state.links.find((known) => known.peerId === peerId);
        return link ? ok(link) : notFound;
      },
      "activity.summary": ({ userId }) => {
        if (state.contacts.length === 0) return ok(emptySummary(state.nowMs));
        const people = state.contacts.filter((contact) => contact.state === "accepted").map((each) => each.userId);
        const summary = sampleSummary(state.nowMs, people, state.files);
        const own = summary.byContact.find((contact) => contact.userId === userId);
        return ok(own === undefined ? summary : { ...summary, ...own, byContact: [own] });
      },
      "activity.health": () => ok(sampleHealth(state.nowMs)),
      "activity.run": () => ok({ success: true, processedEvents: 4 }),
      "activity.check": () => ok({ consistent: true, events: 8123, differences: 0 }),
      "activity.transfer": ({ fileId }) => {
        const file = state.files.find((known) => known.fileId === fileId);
        return ok(
          file === undefined ? { fileId, runs: [] } : sampleDetails(fileId, state.nowMs, file.sizeBytes, file.ownerId),
        );
      },
      "activity.availability": ({ userId }) => ok({ userId, hours: { from: 18, to: 23 }, lastOnlineMs: state.nowMs }),
      "activity.deleteHistory": () => ok({ ...sampleHealth(state.nowMs), events: 2, backlog: 2 }),
      "settings.get": () => ok(state.settings),
      "settings.set": (changes) => {
        Object.assign(state.settings, changes);
        if (changes.server !== undefined) this.server({ url: changes.server, state: "connected", error: null });
        return ok(state.settings);
      },
      "storage.usage": () => ok(state.chunkUsage),
      "diagnostics.export": () => ok({ version: state.host.version, links: state.links.length, transfers: 3 }),
      "host.info": () => ok(state.host),
      "host.pickFiles": () => ok([{ path: "handle:1:notes.pdf", name: "notes.pdf", sizeBytes: 81_234 }]),
      "host.pickDirectory": () => ok({ path: "/home/alice/Elsewhere" }),
      "host.open": () => ok({ opened: true }),
      "host.showInFolder": () => ok({ shown: true }),
    };
  }
}
