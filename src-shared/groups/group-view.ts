import type { UserId } from "../base/ids.ts";
import type { GroupMember, GroupNode, GroupPerson, GroupRole, GroupView } from "./group-log.ts";

/**
 * What a set of operations says. `x` is *before* `y` when `y` names it, directly or not; two of which neither is before
 * the other were made at the *same time*.
 *
 * An operation counts when
 * - its actor is the owner, and did not leave before it or at the same time; or
 * - it is somebody's own leaving, and they were in the group by what is before it; or
 * - its actor is an admin by what is before it, the owner did not take that, or the membership, away at the same time, and
 *   the actor did not leave at the same time. Admins rename, add, and remove plain members; the owner does the rest.
 *
 * So whoever the owner removes cannot do anything about it with an operation that pretends to be older. Of several
 * operations about one person the newest count; of newest ones made at the same time the one that gives less: gone, member,
 * admin. Of several newest names that of the owner, then the one with the smallest hash. There is no cycle in this: what
 * an owner's operation is worth depends on the owner only, what an admin's is worth on the owner's.
 */
const has = (set: bigint, { index }: GroupNode): boolean => ((set >> BigInt(index)) & 1n) === 1n;
const bit = ({ index }: GroupNode): bigint => 1n << BigInt(index);
const atSameTime = (a: GroupNode, b: GroupNode): boolean => a !== b && !has(a.before, b) && !has(b.before, a);

/** The newest of these within `within`. */
const newest = (nodes: readonly GroupNode[], within: bigint): GroupNode[] => {
  const inside = nodes.filter((node) => has(within, node));
  let older = 0n;
  for (const node of inside) older |= node.before;
  return inside.filter((node) => !has(older, node));
};

const RANK: Record<GroupRole, number> = { member: 0, admin: 1, owner: 2 };

/** Of one whole log: what counts is the same whatever part of it is looked at afterwards. */
class Reading {
  readonly #owner: UserId;
  readonly #ownerLeaves: readonly GroupNode[];
  /** Operations that count and say whether somebody is in the group, by person. */
  readonly #about = new Map<UserId, GroupNode[]>();
  /** Owner's removals and demotions, and own leaves, by person; whether they count was decided before. */
  readonly #endings = new Map<UserId, GroupNode[]>();
  readonly #renames: GroupNode[] = [];

  constructor(nodes: readonly GroupNode[], owner: UserId) {
    this.#owner = owner;
    this.#ownerLeaves = nodes.filter(({ operation }) => operation.actor === owner && operation.kind === "leave");
    for (const node of nodes) this.#noteEnding(node);
    for (const node of nodes) if (this.#counts(node)) this.#note(node);
  }

  #noteEnding(node: GroupNode): void {
    const { kind, actor, people, role } = node.operation;
    const byOwner = actor === this.#owner && this.#ownerMay(node);
    const ends = kind === "leave" || (byOwner && (kind === "remove" || (kind === "role" && role === "member")));
    if (!ends) return;
    for (const { userId } of people) this.#endings.set(userId, [...(this.#endings.get(userId) ?? []), node]);
  }

  #note(node: GroupNode): void {
    const { kind, people } = node.operation;
    if (kind === "rename" || kind === "create") this.#renames.push(node);
    for (const { userId } of people) {
      const known = this.#about.get(userId);
      if (known === undefined) this.#about.set(userId, [node]);
      else known.push(node);
    }
  }

  #ownerMay(node: GroupNode): boolean {
    return this.#ownerLeaves.every((leave) => leave === node || has(leave.before, node));
  }

  #counts(node: GroupNode): boolean {
    const { kind, actor, people } = node.operation;
    if (kind === "create") return true;
    const roleOf = (userId: UserId): GroupRole | null => this.roleOf(userId, node.before);
    if (actor === this.#owner) {
      if (!this.#ownerMay(node)) return false;
      // Somebody who is not there can be neither removed nor given a role.
      return (kind !== "role" && kind !== "remove") || people.every(({ userId }) => roleOf(userId) !== null);
    }
    if (kind === "leave") return roleOf(actor) !== null;
    if (roleOf(actor) !== "admin" || kind === "role") return false;
    if ((this.#endings.get(actor) ?? []).some((end) => atSameTime(end, node))) return false;
    return kind !== "remove" || people.every(({ userId }) => roleOf(userId) === "member");
  }

  roleOf(userId: UserId, within: bigint): GroupRole | null {
    const last = newest(this.#about.get(userId) ?? [], within);
    if (last.length === 0 || last.some(({ operation }) => operation.kind === "remove" || operation.kind === "leave"))
      return null;
    if (userId === this.#owner) return "owner";
    const roles = last.map(({ operation }): GroupRole => operation.role ?? "member");
    return roles.reduce((least, role) => (RANK[role] < RANK[least] ? role : least));
  }

  nameOf(within: bigint): string {
    const last = newest(this.#renames, within);
    const byOwner = last.filter(({ operation }) => operation.actor === this.#owner);
    const [first, ...others] = byOwner.length > 0 ? byOwner : last;
    const winner = others.reduce((best, node) => (best !== undefined && best.hash < node.hash ? best : node), first);
    return winner?.operation.name ?? "";
  }

  members(within: bigint): Map<UserId, GroupMember> {
    const members = new Map<UserId, GroupMember>();
    for (const [userId, nodes] of this.#about) {
      const role = this.roleOf(userId, within);
      if (role === null) continue;
      const [entry] = newest(
        nodes.filter(({ operation }) => operation.kind === "add" || operation.kind === "create"),
        within,
      ).sort((a, b) => (a.hash < b.hash ? -1 : 1));
      if (entry === undefined) continue;
      const { atMs, actor, people } = entry.operation;
      const name = people.find((person) => person.userId === userId)?.name ?? "";
      members.set(userId, { role, name, sinceMs: atMs, addedBy: actor });
    }
    // The order of a map is what it was filled in, and two devices got the operations in different orders.
    return new Map([...members].sort(([a], [b]) => (a < b ? -1 : 1)));
  }
}

/** The group as the operations in `within` say (all of them, if it is left out). */
export const viewOf = (nodes: readonly GroupNode[], within?: bigint): GroupView => {
  const [first] = nodes;
  if (first === undefined) return { name: "", members: new Map() };
  const reading = new Reading(nodes, first.operation.actor);
  const all = within ?? nodes.reduce((set, node) => set | bit(node), 0n);
  return { name: reading.nameOf(all), members: reading.members(all) };
};

/** What an operation came to: what the group is after it and was not before. */
export interface GroupEvent {
  readonly node: GroupNode;
  readonly kind: "create" | "rename" | "add" | "remove" | "leave" | "admin" | "member";
  /** Whom it is about, with the names that the actor gave them; of `create` without its maker. */
  readonly people: readonly GroupPerson[];
  /** The group's name, of `create` and `rename`. */
  readonly name: string | null;
}

/** Older ones first; of two made at the same time the one with the earlier time, then the smaller hash, on every device. */
const inOrder = (nodes: readonly GroupNode[]): GroupNode[] => {
  const earlier = (a: GroupNode, b: GroupNode): number =>
    a.operation.atMs - b.operation.atMs || (a.hash < b.hash ? -1 : 1);
  const waiting = [...nodes].sort(earlier);
  const ordered: GroupNode[] = [];
  let done = 0n;
  const inside = nodes.reduce((set, node) => set | bit(node), 0n);
  while (waiting.length > 0) {
    const next = waiting.findIndex(({ before }) => (before & inside & ~done) === 0n);
    const [node] = waiting.splice(next, 1);
    if (node === undefined) break;
    ordered.push(node);
    done |= bit(node);
  }
  return ordered;
};

/** What it came to for one person; null for nothing. */
const changeOf = (kind: GroupNode["operation"]["kind"], before: GroupRole | null, after: GroupRole | null) => {
  if (before === after) return null;
  if (after === null) return kind === "leave" ? "leave" : "remove";
  if (before === null) return "add";
  return after === "admin" ? "admin" : "member";
};

/**
 * The same log as a story: together its events make what the view says. `runs` are the operations in the order in which they
 * came here, those together that are told together; within a run the order is the same on every device. An operation that
 * changes nothing, because others made at the same time weigh more, is left out.
 */
export const historyOf = (runs: readonly (readonly GroupNode[])[]): GroupEvent[] => {
  const nodes = runs.flat();
  const [first] = nodes;
  if (first === undefined) return [];
  const reading = new Reading(nodes, first.operation.actor);
  let known = 0n;
  let title = "";
  return runs.flatMap(inOrder).flatMap((node): GroupEvent[] => {
    const { kind, actor, people } = node.operation;
    const before = known;
    known |= bit(node);
    if (kind === "create" || kind === "rename") {
      const name = reading.nameOf(known);
      if (name === title) return [];
      title = name;
      return [{ node, kind, people: people.filter(({ userId }) => userId !== actor), name }];
    }
    const byChange = Map.groupBy(people, ({ userId }) =>
      changeOf(kind, reading.roleOf(userId, before), reading.roleOf(userId, known)),
    );
    return [...byChange].flatMap(([change, whom]) =>
      change === null ? [] : [{ node, kind: change, people: whom, name: null }],
    );
  });
};
