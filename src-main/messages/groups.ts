import { toHex } from "#shared/base/bytes.ts";
import type { Env } from "#shared/base/env.ts";
import type { GroupId, MessageId, UserId } from "#shared/base/ids.ts";
import {
  GROUP_GOODBYE_MS,
  GROUP_MEMBERS_MAX,
  GROUP_OPERATIONS_MAX,
  GROUP_PAGE_BYTES,
  GROUPS_MAX,
} from "#shared/base/limits.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";
import {
  append,
  audienceOf,
  draftFor,
  draftOfCreate,
  emptyLog,
  encodeOperation,
  type GroupDraft,
  type GroupLog,
  type GroupNode,
  type GroupOperation,
  type GroupWish,
  groupIdOf,
  headsOf,
  isGenuine,
  missingFor,
  replay,
  roleOf,
} from "#shared/groups/group-log.ts";
import { type GroupEvent, historyOf } from "#shared/groups/group-view.ts";
import type { ContentDraft, ContentOf, DurableContent } from "#shared/wire/content.ts";
import type { Contacts } from "../contacts/contacts.ts";
import { nameFromUserId } from "../contacts/display-name.ts";
import type { Account } from "../crypto/identity.ts";
import { logCrypto, signGroupOperation } from "../crypto/signed-log.ts";
import type { Database } from "../store/database.ts";
import { GroupMailTable } from "../store/group-mail.ts";
import { GroupsTable } from "../store/groups.ts";
import type { Changes } from "./changes.ts";

export interface GroupsDeps {
  readonly env: Env;
  readonly db: Database;
  readonly account: Pick<Account, "userId" | "accountKey" | "sign">;
  /** Our own name. */
  readonly profileName: () => string;
  readonly contacts: Pick<Contacts, "relationOf" | "isAccepted" | "nameOf">;
  /** Inside a transaction. */
  readonly enqueue: (peer: UserId, draft: ContentDraft) => void;
}

const NONCE_BYTES = 16;

const isBefore = (node: GroupNode, other: GroupNode | undefined): boolean =>
  (((other?.before ?? 0n) >> BigInt(node.index)) & 1n) === 1n;

/**
 * The logs of our groups (src-shared/groups): changes them, keeps up with them, and tells their members. Whoever makes an
 * operation sends it to everybody whom it concerns; everything else that is said in a group names the newest operations
 * that its sender knew, and whoever lacks one asks the sender for it. So all who talk to each other have the same log.
 */
export class Groups {
  readonly #deps: GroupsDeps;
  readonly #table: GroupsTable;
  readonly #mail: GroupMailTable;
  readonly #cache = new Map<GroupId, GroupLog>();
  /** With which heads a member was asked last; what is asked is durable, so once is enough. */
  readonly #asked = new Map<string, string>();

  constructor(deps: GroupsDeps) {
    this.#deps = deps;
    this.#table = new GroupsTable(deps.db);
    this.#mail = new GroupMailTable(deps.db);
  }

  ids(): GroupId[] {
    return this.#table.ids();
  }

  /** In one of our groups, now or once: somebody who may write to us about groups. */
  isFellow(userId: UserId): boolean {
    return this.#table.isFellow(userId);
  }

  /** In a group that we left and forgot, and not told so yet: they are written to until they are. */
  isLeft(userId: UserId): boolean {
    return this.#table.isLeft(userId);
  }

  /**
   * Inside a transaction. Those who have been told of everything are strangers from now on, and those who did not come for
   * GROUP_GOODBYE_MS; answers with the latter, for whom something still waits.
   */
  endGoodbyes(): UserId[] {
    return this.#table.endGoodbyes(this.#deps.env.clock.now() - GROUP_GOODBYE_MS);
  }

  /** Null for a group that is not known here. */
  log(groupId: GroupId): GroupLog | null {
    const size = this.#table.size(groupId);
    const cached = this.#cache.get(groupId);
    // A transaction that was undone leaves another number.
    if (cached?.nodes.length === size) return cached;
    if (size === 0) return null;
    const log = replay(groupId, this.#table.operations(groupId));
    this.#cache.set(groupId, log);
    return log;
  }

  isMember(groupId: GroupId, userId: UserId): boolean {
    const log = this.log(groupId);
    return log !== null && roleOf(log, userId) !== null;
  }

  /** Everybody who is in the group now, but ourselves. */
  others(groupId: GroupId): UserId[] {
    const members = this.log(groupId)?.view.members ?? new Map<UserId, unknown>();
    return [...members.keys()].filter((userId) => userId !== this.#deps.account.userId);
  }

  /** The name to show; that of our contacts, or the one under which somebody was put into the group. */
  nameOf(groupId: GroupId, userId: UserId): string {
    return this.#deps.contacts.nameOf(userId) ?? this.#namedInLog(groupId, userId) ?? nameFromUserId(userId);
  }

  #namedInLog(groupId: GroupId, userId: UserId): string | null {
    const log = this.log(groupId);
    const name = log?.view.members.get(userId)?.name ?? "";
    if (name !== "" || log === null) return name === "" ? null : name;
    const added = log.nodes.findLast(
      ({ operation: { kind, people } }) =>
        (kind === "add" || kind === "create") && people.some((person) => person.userId === userId),
    );
    return added?.operation.people.find((person) => person.userId === userId)?.name ?? null;
  }

  /** What became of the group since we are in it, and its beginning; each with the message after which it came. */
  history(groupId: GroupId): (GroupEvent & { readonly afterId: MessageId | null })[] {
    const self = this.#deps.account.userId;
    const nodes = this.log(groupId)?.nodes ?? [];
    const places = this.#table.places(groupId);
    const runs: GroupNode[][] = [];
    nodes.forEach((node, i) => {
      const run = runs.at(-1);
      if (run === undefined || places[i] !== places[i - 1]) runs.push([node]);
      else run.push(node);
    });
    const own = nodes.find(({ operation: { people } }) => people.some(({ userId }) => userId === self));
    return historyOf(runs)
      .filter(({ kind, node }) => kind === "create" || !isBefore(node, own))
      .map((event) => ({ ...event, afterId: places[event.node.index] ?? null }));
  }

  /** Errors: `group_full`, `too_many_groups`. */
  create(name: string, people: readonly { userId: UserId; name: string }[], changes: Changes): Result<GroupId> {
    if (this.#table.ids().length >= GROUPS_MAX)
      return fail("too_many_groups", "You are in too many groups. Leave one that you do not need any more.");
    const { account, profileName } = this.#deps;
    const maker = { userId: account.userId, name: profileName() };
    const draft = draftOfCreate(name, people, maker, this.#place());
    if (!draft.ok) return draft;
    const create = signGroupOperation(draft.value, this.#deps.account);
    const groupId = groupIdOf(create, logCrypto);
    return this.#make(emptyLog(groupId), create, changes);
  }

  /** Errors: `unknown_chat`, and those of `GroupError`. */
  change(groupId: GroupId, wish: GroupWish, changes: Changes): Result<GroupId> {
    const log = this.log(groupId);
    if (log === null) return fail("unknown_chat", "There is no such group.");
    const draft = draftFor(log, wish, this.#deps.account.userId, this.#place());
    return draft.ok ? this.#make(log, signGroupOperation(draft.value, this.#deps.account), changes) : draft;
  }

  /** Nothing of it stays but what its people are still to be told. Inside a transaction. */
  forget(groupId: GroupId, changes: Changes): void {
    // That we left, say.
    this.tellNews(groupId, GROUP_MEMBERS_MAX * GROUP_OPERATIONS_MAX, changes);
    this.#table.sayGoodbye(groupId, this.#deps.env.clock.now());
    this.#table.remove(groupId);
    this.#cache.delete(groupId);
  }

  #place(): Pick<GroupDraft, "atMs" | "nonce"> {
    const { clock, random } = this.#deps.env;
    return { atMs: clock.now(), nonce: random.bytes(NONCE_BYTES) };
  }

  #make(log: GroupLog, operation: GroupOperation, changes: Changes): Result<GroupId> {
    const { db, account } = this.#deps;
    const { groupId } = log;
    const next = append(log, operation, logCrypto);
    if (!next.ok) return next;
    db.transaction(() => {
      this.#keep(log, next.value, changes);
      const joined = new Set([...next.value.view.members.keys()].filter((userId) => !log.view.members.has(userId)));
      const last = next.value.nodes.length - 1;
      for (const userId of new Set([...log.view.members.keys(), ...joined]))
        if (userId !== account.userId) this.#table.addNews(groupId, userId, joined.has(userId) ? 0 : last, last);
    });
    return ok(groupId);
  }

  hasNews(groupId: GroupId): boolean {
    return this.#table.nextNews(groupId, 1).length > 0;
  }

  groupsWithNews(): GroupId[] {
    return this.#table.groupsWithNews();
  }

  /** Inside a transaction: tells some of those who were not told yet of what we did; `limit` of them. */
  tellNews(groupId: GroupId, limit: number, changes: Changes): void {
    for (const { userId } of this.#table.nextNews(groupId, limit)) this.#tellNewsTo(groupId, userId, changes);
  }

  #tellNewsTo(groupId: GroupId, peer: UserId, changes: Changes): void {
    const news = this.#table.newsFor(groupId, peer);
    if (news.length === 0) return;
    // Before it is sent, because whatever is sent looks for news first.
    for (const { position } of news) this.#table.removeNews(position);
    const nodes = this.log(groupId)?.nodes ?? [];
    const told = news.flatMap(({ first, last }) => nodes.slice(first, last + 1).map(({ operation }) => operation));
    this.#sendOperations(groupId, peer, told, changes);
  }

  // ---- What members say, inside the transaction that takes it in ------------------------------------------------------

  /** Takes operations in, asks for what is missing before them, and passes on what those whom we added cannot know. */
  take({ groupId, operations }: ContentOf<"groupOps">, from: UserId, changes: Changes): void {
    const { account } = this.#deps;
    const known = this.log(groupId);
    if (known === null && this.#table.ids().length >= GROUPS_MAX) return;
    const before = known ?? emptyLog(groupId);
    let log = before;
    let isMissing = false;
    for (const operation of operations) {
      const next = append(log, operation, logCrypto);
      if (next.ok) log = next.value;
      else if (next.error.type === "group_missing") isMissing = true;
      else this.#deps.env.log.warn("an operation of a group was refused", { type: next.error.type });
    }
    // Somebody who tells us of a group that we have nothing to do with.
    if (known === null && !isMissing && roleOf(log, account.userId) === null) return;
    if (log !== before) {
      this.#keep(before, log, changes);
      this.#asked.delete(`${groupId} ${from}`);
      for (const node of log.nodes.slice(before.nodes.length)) this.#passOn(log, node, from, changes);
    }
    if (isMissing) this.ask(groupId, from, [], changes);
  }

  /** Stores what is new, and what follows from it. */
  #keep(before: GroupLog, after: GroupLog, changes: Changes): void {
    const { groupId } = after;
    const { account } = this.#deps;
    this.#table.add(groupId);
    for (const node of after.nodes.slice(before.nodes.length)) this.#table.append(groupId, node);
    this.#cache.set(groupId, after);
    const gone = [...before.view.members.keys()].filter((userId) => !after.view.members.has(userId));
    if (gone.length > 0) {
      // What follows is sealed with a key that they never had.
      this.#table.setOwnKey(groupId, null);
      for (const userId of gone)
        for (const messageId of this.#mail.dropReceipts(groupId, userId)) changes.receipted(groupId, messageId);
    }
    const came = [...after.view.members.keys()].filter((userId) => !before.view.members.has(userId));
    // Of a group that is new to us nobody has come or gone as far as our files are concerned.
    if (before.nodes.length > 0)
      for (const userId of [...came, ...gone]) if (userId !== account.userId) this.#table.addAccessDue(groupId, userId);
    changes.group(groupId);
    const newest = after.nodes.at(-1)?.operation;
    if (newest === undefined || newest.actor === account.userId) return;
    const actor = this.nameOf(groupId, newest.actor);
    if (gone.includes(account.userId))
      changes.notice("warning", "group_removed", `${actor} removed you from the group ${after.view.name}.`);
    else if (!before.view.members.has(account.userId) && after.view.members.has(account.userId))
      changes.notice("info", "group_added", `You are in the group ${after.view.name} now.`);
  }

  /** Somebody acted while we added people: these are not told by anybody else. */
  #passOn(log: GroupLog, node: GroupNode, from: UserId, changes: Changes): void {
    const ours = [...log.view.members].filter(([, { addedBy }]) => addedBy === this.#deps.account.userId);
    if (ours.length === 0) return;
    const told = audienceOf(log, node);
    for (const [userId] of ours)
      if (!told.has(userId) && userId !== from) this.#sendOperations(log.groupId, userId, [node.operation], changes);
  }

  /** Whether we know all of these; otherwise the one who named them is asked. */
  isUpTo(groupId: GroupId, heads: readonly string[]): boolean {
    const log = this.log(groupId);
    return log !== null && heads.every((head) => log.indexByHash.has(head));
  }

  /** Asks for what we do not have of the log, and for messages that could not be read. */
  ask(groupId: GroupId, peer: UserId, unread: ContentOf<"groupAsk">["unread"], changes: Changes): void {
    const log = this.log(groupId) ?? emptyLog(groupId);
    const key = `${groupId} ${peer}`;
    const heads = log.heads.join();
    if (unread.length === 0 && this.#asked.get(key) === heads) return;
    this.#asked.set(key, heads);
    this.send(groupId, peer, { kind: "groupAsk", groupId, heads: headsOf(log), unread }, changes);
  }

  /** What the one who asks may know and does not have: a member everything, others what made them so. */
  asked({ groupId, heads }: ContentOf<"groupAsk">, from: UserId, changes: Changes): void {
    const log = this.log(groupId);
    if (log === null) return;
    const names = heads.map(toHex);
    const last = log.nodes.findLast(({ operation }) => operation.people.some(({ userId }) => userId === from));
    const isMember = roleOf(log, from) !== null;
    if (!isMember && last === undefined) return;
    const visible = isMember ? null : (last?.before ?? 0n) | (1n << BigInt(last?.index ?? 0));
    this.#sendOperations(groupId, from, missingFor(log, names, visible), changes);
    if (isMember && !this.isUpTo(groupId, names)) this.ask(groupId, from, [], changes);
  }

  /**
   * Whether a stranger's first message is to be taken in: it shows that a contact of ours put us into a group that the
   * stranger is in too. Whether that holds to this day the whole log will tell.
   */
  vouches(content: DurableContent | null, from: UserId): boolean {
    if (content?.kind !== "groupOps") return false;
    const { account, contacts } = this.#deps;
    const { groupId, operations } = content;
    const [create] = operations;
    if (create?.kind !== "create" || groupIdOf(create, logCrypto) !== groupId) return false;
    const names = ({ kind, people, actor }: GroupOperation, userId: UserId): boolean =>
      (kind === "create" && actor === userId) ||
      ((kind === "create" || kind === "add") && people.some((person) => person.userId === userId));
    const byContact = operations.some(
      (operation) => names(operation, account.userId) && contacts.isAccepted(operation.actor),
    );
    return (
      byContact &&
      operations.some((operation) => names(operation, from)) &&
      operations.every((operation) => isGenuine(operation, logCrypto))
    );
  }

  // ---- Sending --------------------------------------------------------------------------------------------------------

  /**
   * False when nothing may be sent to that person. Somebody who does not know us is shown first why we write, and everybody
   * what we did to the group before it.
   */
  send(groupId: GroupId, peer: UserId, draft: ContentDraft, changes: Changes): boolean {
    const { contacts, enqueue } = this.#deps;
    this.#tellNewsTo(groupId, peer, changes);
    if (contacts.relationOf(peer)?.kind === "blocked") return false;
    if (!contacts.isAccepted(peer) && !this.#table.isGreeted(groupId, peer)) {
      this.#table.setGreeted(groupId, peer);
      const operations = this.#evidenceFor(groupId, peer);
      if (operations.length > 0) enqueue(peer, { kind: "groupOps", groupId, operations });
    }
    enqueue(peer, draft);
    changes.posted.add(peer);
    return true;
  }

  /** The beginning of the group, and what put the two of us into it. */
  #evidenceFor(groupId: GroupId, peer: UserId): GroupOperation[] {
    const nodes = this.log(groupId)?.nodes ?? [];
    const adds = nodes.filter(({ operation }) => operation.kind === "create" || operation.kind === "add");
    const naming = (userId: UserId): GroupNode | undefined =>
      adds.findLast(({ operation }) => operation.people.some((person) => person.userId === userId));
    const shown = [nodes[0], naming(peer), naming(this.#deps.account.userId)].filter((node) => node !== undefined);
    const operations = [...new Set(shown)].sort((a, b) => a.index - b.index).map(({ operation }) => operation);
    // Only in a group whose whole membership was exchanged at once, again: its members then hear of us from others.
    const bytes = operations.reduce((sum, operation) => sum + encodeOperation(operation).length, 0);
    return bytes <= GROUP_PAGE_BYTES ? operations : [];
  }

  #sendOperations(groupId: GroupId, peer: UserId, operations: readonly GroupOperation[], changes: Changes): void {
    let page: GroupOperation[] = [];
    let room = GROUP_PAGE_BYTES;
    const flush = (): void => {
      if (page.length > 0) this.send(groupId, peer, { kind: "groupOps", groupId, operations: page }, changes);
      page = [];
      room = GROUP_PAGE_BYTES;
    };
    for (const operation of operations) {
      const size = encodeOperation(operation).length + 1;
      if (size > room) flush();
      page.push(operation);
      room -= size;
    }
    flush();
  }
}
