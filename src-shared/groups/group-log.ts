import * as v from "valibot";
import { assert } from "../base/assert.ts";
import { type Bytes, concatBytes, fromHex, toBase32, toHex, utf8 } from "../base/bytes.ts";
import { type GroupId, GroupIdSchema, type UserId, UserIdSchema } from "../base/ids.ts";
import {
  GROUP_MEMBERS_MAX,
  GROUP_OPERATIONS_MAX,
  GROUP_PARENTS_MAX,
  GROUP_PERSON_NAME_BYTES_MAX,
  PROFILE_NAME_LENGTH_MAX,
} from "../base/limits.ts";
import type { LogCrypto } from "../base/log-crypto.ts";
import { fail, ok, type Result } from "../base/result.ts";
import { bytesField, type DecodeError, decodeJson, encodeJson } from "../wire/json.ts";
import { viewOf } from "./group-view.ts";

/**
 * Who is in a group: operations, each signed by its actor and bound by hashes to those that the actor knew (`parents`). No
 * server orders them, so two people may act at once and the log is a graph. What it says is a pure function of the set of
 * its operations (`group-view.ts`): whoever has the same ones sees the same group, in whatever order they came.
 *
 * - The first operation makes the group; its hash is the group's id, so nobody can put another beginning before it.
 * - An operation is kept when its signature holds, its parents are known, and its actor was ever given what it takes by an
 *   operation before it. Whether it counts is for the view to say, because that depends on what others did meanwhile.
 */
const KINDS = ["create", "rename", "add", "remove", "leave", "role"] as const;

const hashField = bytesField(32);
const name = v.pipe(v.string(), v.minLength(1), v.maxLength(PROFILE_NAME_LENGTH_MAX));
const personName = v.pipe(v.string(), v.minLength(1), v.maxBytes(GROUP_PERSON_NAME_BYTES_MAX));
const timeMs = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(8.64e15));

export const GroupOperationSchema = v.object({
  kind: v.picklist(KINDS),
  /** Of `create` and `rename`. */
  name: v.nullable(name),
  /** Whom it is about, by user id; with the name under which the actor knows them, for those who do not. */
  people: v.pipe(v.array(v.object({ userId: UserIdSchema, name: personName })), v.maxLength(GROUP_MEMBERS_MAX)),
  /** Of `role`. */
  role: v.nullable(v.picklist(["admin", "member"])),
  /** Hashes of the newest operations that the actor knew, ascending; none for `create`. */
  parents: v.pipe(v.array(hashField), v.maxLength(GROUP_PARENTS_MAX)),
  /** Random: two groups with the same people are two groups. */
  nonce: bytesField(16),
  actor: UserIdSchema,
  /** The user id is its hash, so everybody can check everybody's signature. */
  actorKey: bytesField(32),
  /** The actor's clock; shown, never decided upon. */
  atMs: timeMs,
  signature: bytesField(64),
});
export type GroupOperation = v.InferOutput<typeof GroupOperationSchema>;
/** An operation before it is signed. */
export type GroupDraft = Omit<GroupOperation, "signature" | "actorKey">;
export type GroupRole = "owner" | "admin" | "member";

/** An operation in its place: `index` is the order in which this device got it, parents first. */
export interface GroupNode {
  readonly index: number;
  /** Hexadecimal. */
  readonly hash: string;
  readonly operation: GroupOperation;
  /** Bit i: operation i came before this one. */
  readonly before: bigint;
}

export interface GroupMember {
  readonly role: GroupRole;
  readonly name: string;
  readonly sinceMs: number;
  readonly addedBy: UserId;
}

export interface GroupView {
  readonly name: string;
  readonly members: ReadonlyMap<UserId, GroupMember>;
}

/** The operations of one group that this device has. A value: {@link append} makes the next one. */
export interface GroupLog {
  readonly groupId: GroupId;
  readonly nodes: readonly GroupNode[];
  readonly indexByHash: ReadonlyMap<string, number>;
  /** Hashes, hexadecimal and ascending, of the operations that no other one names. */
  readonly heads: readonly string[];
  /** What all of it says; computed when it is asked for. */
  readonly view: GroupView;
}

export interface GroupPerson {
  readonly userId: UserId;
  readonly name: string;
}

export type GroupErrorType =
  | "group_forged"
  | "group_malformed"
  | "group_not_allowed"
  | "group_missing"
  | "group_no_change"
  | "group_full";
export type GroupError = { readonly type: GroupErrorType; readonly message: string };

/** Domain-separated bytes that the actor signs; the order of the fields is fixed here. */
export const groupSigningBytes = (operation: GroupDraft & { readonly actorKey: Bytes }): Bytes => {
  const { kind, people, role, parents, nonce, actor, actorKey, atMs } = operation;
  const pairs = people.map((person) => [person.userId, person.name]);
  return concatBytes(
    utf8("weir group operation v1\0"),
    encodeJson([kind, operation.name, pairs, role, parents, nonce, actor, actorKey, atMs]),
  );
};

/** Without the signature: another valid one would say the same. */
export const groupHash = (
  operation: GroupDraft & { readonly actorKey: Bytes },
  crypto: Pick<LogCrypto, "hash">,
): Bytes => crypto.hash(concatBytes(utf8("weir group head v1\0"), groupSigningBytes(operation)));

/** The id of the group that this `create` begins: a letter that no user id has room for, then 20 bytes of its hash. */
export const groupIdOf = (create: GroupOperation, crypto: Pick<LogCrypto, "hash">): GroupId =>
  v.parse(GroupIdSchema, `g${toBase32(groupHash(create, crypto).subarray(0, 20))}`);

/** The signature holds, and the actor is whose key it is. */
export const isGenuine = (operation: GroupOperation, crypto: LogCrypto): boolean =>
  crypto.userIdOf(operation.actorKey) === operation.actor &&
  crypto.verify(operation.actorKey, groupSigningBytes(operation), operation.signature);

const logOf = (groupId: GroupId, nodes: readonly GroupNode[], heads: readonly string[]): GroupLog => {
  let view: GroupView | null = null;
  return {
    groupId,
    nodes,
    indexByHash: new Map(nodes.map(({ hash, index }) => [hash, index])),
    heads,
    get view(): GroupView {
      view ??= viewOf(nodes);
      return view;
    },
  };
};

export const emptyLog = (groupId: GroupId): GroupLog => logOf(groupId, [], []);

export const ownerOf = (log: GroupLog): UserId | null => log.nodes[0]?.operation.actor ?? null;
export const roleOf = (log: GroupLog, userId: string): GroupRole | null =>
  log.view.members.get(userId as UserId)?.role ?? null;

const refuse = (type: GroupErrorType, message: string) => fail(type, message);
const isAscending = (texts: readonly string[]): boolean =>
  texts.every((text, i) => i === 0 || (texts[i - 1] ?? "") < text);

/** What no operation may look like, whoever made it. */
const isMalformed = ({ kind, name: title, people, role, parents, actor }: GroupDraft): boolean => {
  const ids = people.map(({ userId }) => userId);
  if ((title !== null) !== (kind === "create" || kind === "rename")) return true;
  if ((role !== null) !== (kind === "role") || (parents.length === 0) !== (kind === "create")) return true;
  if (!isAscending(ids) || !isAscending(parents.map(toHex))) return true;
  if (kind === "rename") return people.length > 0;
  if (kind === "leave") return ids.length !== 1 || ids[0] !== actor;
  // The maker's name is there too: whoever is added later may not know them.
  if (kind === "create") return !ids.includes(actor);
  return ids.length === 0 || ids.includes(actor);
};

/**
 * Whether the actor was ever given what this takes, by the operations before it. It looks at nothing that others did at the
 * same time, so that every device keeps the same operations; what they are worth is for the view.
 */
const wasEverAllowed = (nodes: readonly GroupNode[], { kind, actor }: GroupDraft, before: bigint): boolean => {
  const owner = nodes[0]?.operation.actor;
  if (actor === owner) return true;
  return nodes.some(({ index, operation }) => {
    if (((before >> BigInt(index)) & 1n) === 0n || !operation.people.some(({ userId }) => userId === actor))
      return false;
    if (kind === "leave") return operation.kind === "create" || operation.kind === "add";
    return kind !== "role" && operation.kind === "role" && operation.role === "admin" && operation.actor === owner;
  });
};

/**
 * The log with this operation. `group_missing`: it names operations that are not here; ask whoever sent it. An operation
 * that is here already changes nothing.
 */
export const append = (log: GroupLog, operation: GroupOperation, crypto: LogCrypto): Result<GroupLog, GroupError> => {
  const hash = toHex(groupHash(operation, crypto));
  if (log.indexByHash.has(hash)) return ok(log);
  if (isMalformed(operation)) return refuse("group_malformed", "The operation makes no sense.");
  const isFirst = log.nodes.length === 0;
  if ((operation.kind === "create") !== isFirst || (isFirst && groupIdOf(operation, crypto) !== log.groupId))
    return isFirst && operation.kind !== "create"
      ? refuse("group_missing", "The beginning of the group is not here.")
      : refuse("group_malformed", "The operation begins another group.");
  if (log.nodes.length >= GROUP_OPERATIONS_MAX)
    return refuse("group_full", "This group was changed too often. Make a new one.");
  let before = 0n;
  for (const parent of operation.parents) {
    const node = log.nodes[log.indexByHash.get(toHex(parent)) ?? -1];
    if (node === undefined) return refuse("group_missing", "Operations before this one are not here.");
    before |= node.before | (1n << BigInt(node.index));
  }
  if (!wasEverAllowed(log.nodes, operation, before) && !isFirst)
    return refuse("group_not_allowed", "Whoever signed this was never allowed to.");
  if (!isGenuine(operation, crypto))
    return refuse("group_forged", "The operation is not signed by the person that it names.");
  return ok(withOperation(log, operation, hash, before));
};

const withOperation = (log: GroupLog, operation: GroupOperation, hash: string, before: bigint): GroupLog => {
  const named = new Set(operation.parents.map(toHex));
  const heads = [...log.heads.filter((head) => !named.has(head)), hash].sort();
  return logOf(log.groupId, [...log.nodes, { index: log.nodes.length, hash, operation, before }], heads);
};

/** A log from operations that were checked before: those of our own database, in the order in which they were kept. */
export const replay = (
  groupId: GroupId,
  operations: readonly { hash: string; operation: GroupOperation }[],
): GroupLog => {
  const before: bigint[] = [];
  const indexByHash = new Map<string, number>();
  const heads = new Set<string>();
  const nodes = operations.map(({ hash, operation }, index): GroupNode => {
    let set = 0n;
    for (const parent of operation.parents.map(toHex)) {
      const at = indexByHash.get(parent);
      assert(at !== undefined, "parents are kept first");
      set |= (before[at] ?? 0n) | (1n << BigInt(at));
      heads.delete(parent);
    }
    before.push(set);
    indexByHash.set(hash, index);
    heads.add(hash);
    return { index, hash, operation, before: set };
  });
  return logOf(groupId, nodes, [...heads].sort());
};

/**
 * The operations that somebody with these heads does not have, parents first; of those in `visible` only, if it is given.
 * Heads that are not known here say nothing.
 */
export const missingFor = (
  log: GroupLog,
  heads: readonly string[],
  visible: bigint | null = null,
): GroupOperation[] => {
  let known = 0n;
  for (const head of heads) {
    const node = log.nodes[log.indexByHash.get(head) ?? -1];
    if (node !== undefined) known |= node.before | (1n << BigInt(node.index));
  }
  const wanted = (visible ?? -1n) & ~known;
  return log.nodes.filter(({ index }) => ((wanted >> BigInt(index)) & 1n) === 1n).map(({ operation }) => operation);
};

/** Who was in the group by the operations before `node`, and whom it is about: those whom its actor told of it. */
export const audienceOf = (log: GroupLog, node: GroupNode): Set<UserId> => {
  const { operation, before } = node;
  const told = viewOf(log.nodes, before).members;
  return new Set([...told.keys(), operation.actor, ...operation.people.map(({ userId }) => userId)]);
};

/** What somebody wants to do. */
export type GroupWish =
  | { readonly kind: "rename"; readonly name: string }
  | { readonly kind: "add"; readonly people: readonly GroupPerson[] }
  | { readonly kind: "remove"; readonly userId: UserId }
  | { readonly kind: "role"; readonly userId: UserId; readonly role: "admin" | "member" }
  | { readonly kind: "leave" };

const notAllowed = (message: string): Result<never, GroupError> => refuse("group_not_allowed", message);

/** Why the view does not allow this now; null when it does. */
const refusalOf = (log: GroupLog, wish: GroupWish, actor: UserId): Result<never, GroupError> | null => {
  const { members, name: title } = log.view;
  const own = roleOf(log, actor);
  if (own === null) return notAllowed("You are not in this group any more.");
  if (wish.kind === "leave") {
    const others = [...members.values()].filter(({ role }) => role !== "owner");
    return own === "owner" && others.length > 0 && !others.some(({ role }) => role === "admin")
      ? notAllowed("Make somebody an admin before you leave, or nobody can look after the group.")
      : null;
  }
  if (own === "member") return notAllowed("Only the owner and admins can change the group.");
  switch (wish.kind) {
    case "rename":
      return wish.name === title ? refuse("group_no_change", "The group has this name already.") : null;
    case "add": {
      const fresh = wish.people.filter(({ userId }) => !members.has(userId));
      if (fresh.length === 0) return refuse("group_no_change", "They are in the group already.");
      if (members.size + fresh.length > GROUP_MEMBERS_MAX)
        return refuse("group_full", `A group can have ${GROUP_MEMBERS_MAX} people.`);
      return null;
    }
    default: {
      const target = roleOf(log, wish.userId);
      if (target === null) return refuse("group_no_change", "This person is not in the group.");
      if (target === "owner") return notAllowed("Nobody can do that to the owner of the group.");
      if (wish.kind === "role" && own !== "owner") return notAllowed("Only the owner makes admins.");
      if (wish.kind === "remove" && target === "admin" && own !== "owner")
        return notAllowed("Only the owner can remove an admin.");
      return wish.kind === "role" && wish.role === target
        ? refuse("group_no_change", "This person has this role already.")
        : null;
    }
  }
};

const byUserId = (a: GroupPerson, b: GroupPerson): number => (a.userId < b.userId ? -1 : 1);

/** Each once, in order, under a name that fits. */
const distinct = (people: readonly GroupPerson[]): GroupPerson[] =>
  [...new Map(people.map(({ userId, name }) => [userId, { userId, name: shortened(name) || userId }])).values()].sort(
    byUserId,
  );

const shortened = (name: string): string => {
  const characters = [...name];
  while (utf8(characters.join("")).length > GROUP_PERSON_NAME_BYTES_MAX) characters.pop();
  return characters.join("");
};

interface Place {
  readonly atMs: number;
  readonly nonce: Bytes;
}

/** The operation that makes a wish true, on top of everything that is known here. */
export const draftFor = (
  log: GroupLog,
  wish: GroupWish,
  actor: UserId,
  place: Place,
): Result<GroupDraft, GroupError> => {
  const refusal = refusalOf(log, wish, actor);
  if (refusal !== null) return refusal;
  const parents = headsOf(log);
  const name = wish.kind === "rename" ? wish.name : null;
  const role = wish.kind === "role" ? wish.role : null;
  return ok({ kind: wish.kind, name, people: whom(log, wish, actor), role, parents, actor, ...place });
};

const whom = ({ view: { members } }: GroupLog, wish: GroupWish, actor: UserId): GroupPerson[] => {
  switch (wish.kind) {
    case "add":
      return distinct(wish.people.filter(({ userId }) => !members.has(userId)));
    case "rename":
      return [];
    default: {
      const userId = wish.kind === "leave" ? actor : wish.userId;
      return [{ userId, name: members.get(userId)?.name ?? userId }];
    }
  }
};

/** As they travel: no more of them than one message may name. */
export const headsOf = (log: GroupLog): Bytes[] => log.heads.slice(0, GROUP_PARENTS_MAX).map(unhex);

const unhex = (head: string): Bytes => {
  const bytes = fromHex(head);
  assert(bytes.ok, "a head is hexadecimal");
  return bytes.value;
};

/** `group_full` with too many people. */
export const draftOfCreate = (
  name: string,
  others: readonly GroupPerson[],
  maker: GroupPerson,
  place: Place,
): Result<GroupDraft, GroupError> => {
  const people = distinct([...others, maker]);
  if (people.length > GROUP_MEMBERS_MAX) return refuse("group_full", `A group can have ${GROUP_MEMBERS_MAX} people.`);
  return ok({ kind: "create", name, people, role: null, parents: [], actor: maker.userId, ...place });
};

export const encodeOperation = (operation: GroupOperation): Bytes => encodeJson(operation);
export const decodeOperation = (stored: Uint8Array): Result<GroupOperation, DecodeError> =>
  decodeJson(GroupOperationSchema, stored);
