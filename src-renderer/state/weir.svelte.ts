import { createContext } from "svelte";
import { toast } from "svelte-sonner";
import { assertNever } from "#shared/base/assert.ts";
import { type Disposable, DisposableStore, toDisposable } from "#shared/base/disposable.ts";
import type { Result } from "#shared/base/result.ts";
import type { CommandInput, CommandName, CommandOutput, ContractEvents, EventName } from "#shared/ipc/contract.ts";
import type {
  ChatView,
  ContactView,
  ErrorView,
  FileView,
  HostView,
  LinkView,
  MessageView,
  NoticeView,
  ProfileView,
  ServerView,
  SettingsView,
  TransferPriority,
  TransferView,
} from "#shared/ipc/views.ts";
import type { Api, HostLink } from "../api.ts";
import { Announcer } from "./announcer.svelte.ts";
import { Availabilities } from "./availabilities.svelte.ts";
import { isGroupId } from "./group-words.ts";
import { Messages } from "./messages.svelte.ts";
import { Nav } from "./nav.svelte.ts";
import { Shares } from "./shares.svelte.ts";
import { Snapshots } from "./snapshots.svelte.ts";
import { deletesOnCancel, statusOf, type TransferStatus } from "./transfer-status.ts";
import { wordsOf } from "./transfer-words.ts";

/** What is on screen before there is anything to show. */
export type StartState = { kind: "starting" } | { kind: "ready" } | { kind: "failed"; error: ErrorView };

const SERVER_SWITCH_TIMEOUT_MS = 10_000;

/** Everything the window knows, fed by the contract. Views read it and call its methods; they hold no state of the app. */
export class Weir implements Disposable {
  readonly api: Api;
  readonly nav = new Nav();
  readonly announcer = new Announcer();
  readonly messages: Messages;
  readonly shares: Shares;
  readonly availabilities: Availabilities;
  readonly contacts = new Snapshots<ContactView>((contact) => contact.userId);
  readonly chats = new Snapshots<ChatView>((chat) => chat.chatId);
  readonly files = new Snapshots<FileView>((file) => file.fileId);
  readonly transfers = new Snapshots<TransferView>((transfer) => transfer.fileId);
  readonly links = new Snapshots<LinkView>((link) => link.peerId);
  start = $state.raw<StartState>({ kind: "starting" });
  hostLink = $state.raw<HostLink>("connecting");
  profile = $state.raw<ProfileView | null>(null);
  settings = $state.raw<SettingsView | null>(null);
  host = $state.raw<HostView | null>(null);
  server = $state.raw<ServerView | null>(null);
  readonly unreadCount = $derived(this.chats.values().reduce((sum, chat) => sum + chat.unreadCount, 0));
  readonly requestCount = $derived(this.contacts.values().filter((contact) => contact.state === "incoming").length);
  readonly #subscriptions = new DisposableStore();
  #refreshes = 0;

  constructor(api: Api) {
    this.api = api;
    this.messages = new Messages(api);
    this.availabilities = new Availabilities(api);
    this.shares = new Shares(
      api,
      (file) => this.files.set(file),
      (text) => void toast.warning(text),
    );
    this.#subscribe();
    this.#subscriptions.add(
      toDisposable(
        api.onHostLink((state) => {
          this.hostLink = state;
          if (state === "connected") void this.refresh();
        }),
      ),
    );
  }

  dispose(): void {
    this.#subscriptions.dispose();
  }

  get ownUserId(): string {
    return this.profile?.userId ?? "";
  }

  get canOpen(): boolean {
    return this.host?.canOpen ?? false;
  }

  get canPick(): boolean {
    return this.host?.canPick ?? false;
  }

  /** People with whom anything can be shared. */
  get acceptedContacts(): ContactView[] {
    return this.contacts.values().filter(({ state }) => state === "accepted");
  }

  /** A person's or a group's name as it is shown; own messages and files say "You". */
  nameOf(userId: string): string {
    if (userId === this.ownUserId) return "You";
    const known = this.contacts.get(userId)?.name ?? this.chats.get(userId)?.name ?? this.#fellowName(userId);
    return known ?? (isGroupId(userId) ? "A group that is gone" : "Someone");
  }

  /** Somebody who is no contact, and in a group with us. */
  #fellowName(userId: string): string | undefined {
    for (const { group } of this.chats.values()) {
      const member = group?.members.find((known) => known.userId === userId);
      if (member) return member.name;
    }
    return undefined;
  }

  /** A chat that is no longer there. */
  forgetChat(chatId: string): void {
    this.chats.delete(chatId);
    this.messages.forget(chatId);
    if (this.nav.chatId === chatId) this.nav.closeChat();
  }

  /** Fetches everything anew: at the start, and after the connection to the main process was lost. */
  async refresh(): Promise<void> {
    this.#refreshes += 1;
    const generation = this.#refreshes;
    const { api } = this;
    const results = await Promise.all([
      api.call("profile.get", {}),
      api.call("settings.get", {}),
      api.call("host.info", {}),
      this.contacts.load(() => api.call("contacts.list", {})),
      this.chats.load(() => api.call("chats.list", {})),
      this.files.load(() => api.call("files.list", {})),
      this.transfers.load(() => api.call("transfers.list", {})),
      this.links.load(() => api.call("links.list", {})),
      this.messages.refresh(),
    ]);
    if (generation !== this.#refreshes) return;
    const [profile, settings, host] = results;
    if (profile.ok) {
      this.profile = profile.value;
      this.server = profile.value.server;
    }
    if (settings.ok) this.settings = settings.value;
    if (host.ok) this.host = host.value;
    const failed = results.find((result) => result !== undefined && !result.ok);
    if (failed === undefined) this.start = { kind: "ready" };
    else if (this.start.kind !== "ready" && !failed.ok) this.start = { kind: "failed", error: failed.error };
  }

  /** Runs a command whose failure the person only needs to read. */
  async run<Name extends CommandName>(name: Name, input: CommandInput<Name>): Promise<CommandOutput<Name> | null> {
    const result = await this.api.call(name, input);
    if (result.ok) return result.value;
    toast.error(result.error.message);
    return null;
  }

  /** Runs a command that answers with the snapshot it made, and takes that over without waiting for its event. */
  async apply<Name extends CommandName>(
    name: Name,
    input: CommandInput<Name>,
    take: (value: CommandOutput<Name>) => void,
  ): Promise<boolean> {
    const value = await this.run(name, input);
    if (value !== null) take(value);
    return value !== null;
  }

  async contactCommand(
    name: "contacts.accept" | "contacts.block" | "contacts.unblock" | "contacts.verify",
    userId: string,
  ): Promise<boolean> {
    return this.apply(name, { userId }, (contact) => this.contacts.set(contact));
  }

  async removeContact(userId: string): Promise<void> {
    const removed = await this.run("contacts.remove", { userId });
    if (removed !== null) this.#contactRemoved(userId);
  }

  async transferCommand(
    name: "transfers.pause" | "transfers.resume" | "transfers.retry",
    fileId: string,
  ): Promise<void> {
    await this.apply(name, { fileId }, (transfer) => this.#transferChanged(transfer));
  }

  /** Asks first if something that has arrived would be deleted. */
  async askToCancelDownload(fileId: string): Promise<void> {
    const transfer = this.transfers.get(fileId);
    if (transfer !== undefined && deletesOnCancel(transfer)) this.nav.open({ kind: "cancelDownload", fileId });
    else await this.cancelDownload(fileId);
  }

  /** Without a question: see {@link askToCancelDownload}. */
  async cancelDownload(fileId: string): Promise<void> {
    await this.apply("transfers.cancel", { fileId }, (transfer) => this.#transferChanged(transfer));
  }

  async prioritize(fileId: string, priority: TransferPriority): Promise<void> {
    await this.apply("transfers.prioritize", { fileId, priority }, (transfer) => this.#transferChanged(transfer));
  }

  async download(fileId: string, directory?: string): Promise<void> {
    const input = directory === undefined ? { fileId } : { fileId, directory };
    await this.apply("transfers.start", input, (transfer) => this.#transferChanged(transfer));
  }

  async setSettings(changes: CommandInput<"settings.set">): Promise<Result<SettingsView>> {
    const result = await this.api.call("settings.set", changes);
    if (result.ok) this.settings = result.value;
    return result;
  }

  async setName(name: string): Promise<Result<ProfileView>> {
    const result = await this.api.call("profile.update", { name });
    if (result.ok) this.profile = result.value;
    return result;
  }

  /** Resolves with whether the server in use answers, after ten seconds at the latest. */
  async serverConnected(): Promise<boolean> {
    const profile = await this.api.call("profile.get", {});
    if (profile.ok) this.server = profile.value.server;
    if (this.server?.state === "connected") return true;
    return new Promise((resolve) => {
      const finish = (connected: boolean): void => {
        clearTimeout(timer);
        unsubscribe();
        resolve(connected);
      };
      const timer = setTimeout(() => finish(false), SERVER_SWITCH_TIMEOUT_MS);
      const unsubscribe = this.api.on("server.changed", (server) => {
        if (server.state === "connected") finish(true);
      });
    });
  }

  /** The file as it is now; `fallback` is the snapshot that a message carries. */
  fileStatus(file: FileView): TransferStatus {
    return statusOf(this.files.get(file.fileId) ?? file, this.transfers.get(file.fileId), this.ownUserId);
  }

  #subscribe(): void {
    this.#on("contact.changed", (contact) => {
      if ("removed" in contact) this.#contactRemoved(contact.userId);
      else this.#contactChanged(contact);
    });
    this.#on("chat.changed", (chat) => this.#chatChanged(chat));
    this.#on("message.changed", (message) => this.#messageChanged(message));
    this.#on("file.changed", (file) => this.files.set(file));
    this.#on("transfer.changed", (transfer) => this.#transferChanged(transfer));
    this.#on("link.changed", (link) => this.links.set(link));
    this.#on("server.changed", (server) => {
      this.server = server;
    });
    this.#on("share.progress", (progress) => this.shares.progress(progress));
    this.#on("invite.opened", ({ link }) => this.nav.open({ kind: "pair", tab: "accept", invite: link }));
    this.#on("notice", (notice) => this.#notice(notice));
  }

  #on<Name extends EventName>(event: Name, listener: (payload: ContractEvents[Name]) => void): void {
    this.#subscriptions.add(toDisposable(this.api.on(event, listener)));
  }

  #contactChanged(contact: ContactView): void {
    const before = this.contacts.get(contact.userId);
    this.contacts.set(contact);
    if (contact.state === "incoming" && before?.state !== "incoming") {
      this.announcer.say(`${contact.name} wants to connect with you`);
    }
  }

  #contactRemoved(userId: string): void {
    this.contacts.delete(userId);
    this.links.delete(userId);
    this.forgetChat(userId);
  }

  #chatChanged(chat: ChatView): void {
    const before = this.chats.get(chat.chatId);
    this.chats.set(chat);
    const arrived = chat.unreadCount > (before?.unreadCount ?? 0) && this.nav.chatId !== chat.chatId;
    if (arrived && chat.lastMessage) this.#announceMessage(chat.lastMessage);
  }

  #messageChanged(message: MessageView): void {
    const isNew = !this.messages.has(message);
    this.messages.change(message);
    if (message.file) this.files.set(message.file);
    const arrived = isNew && message.senderId !== this.ownUserId && this.nav.chatId === message.chatId;
    if (arrived && this.messages.has(message)) this.#announceMessage(message);
  }

  #announceMessage(message: MessageView): void {
    const what = message.file ? `sent the file ${message.file.name}` : message.text;
    this.announcer.say(`${message.senderName ?? this.nameOf(message.senderId)}: ${what}`);
  }

  #transferChanged(transfer: TransferView): void {
    const file = this.files.get(transfer.fileId) ?? null;
    const before = statusOf(file, this.transfers.get(transfer.fileId), this.ownUserId);
    this.transfers.set(transfer);
    const after = statusOf(file, transfer, this.ownUserId);
    if (after.kind === before.kind) return;
    const owner = file === null ? "the sender" : this.nameOf(file.ownerId);
    const headline = after.kind === "downloading" ? "Downloading" : wordsOf(after, owner, false).headline;
    this.announcer.say(`${transfer.name}: ${headline}`);
  }

  #notice({ level, message }: NoticeView): void {
    switch (level) {
      case "info":
        return void toast.info(message);
      case "warning":
        return void toast.warning(message);
      case "error":
        return void toast.error(message);
      default:
        assertNever(level, "notice level");
    }
  }
}

export const [getWeir, setWeir] = createContext<Weir>();
