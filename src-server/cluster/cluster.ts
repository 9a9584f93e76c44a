import type { UserId } from "#shared/base/ids.ts";
import type { Mailboxes } from "../mailbox.ts";
import type { Presence } from "../presence.ts";
import type { Relays } from "../relays.ts";
import type { Online, Session } from "../session.ts";
import type { NodeCall, NodeMessage } from "./messages.ts";

/** What a server knows of its other nodes. One that runs alone has none ({@link alone}). */
export interface Cluster {
  /** How many others are alive. */
  readonly others: number;
  readonly connected: boolean;
  readonly counters: ClusterCounters;
  /** The other nodes at which this user is connected. */
  nodesOf(userId: UserId): readonly string[];
  /**
   * Call when a session has logged in. Resolves when every node knows of it; null without other nodes. What was stored for
   * it before that may have woken nobody.
   */
  entered(session: Session): Promise<void> | null;
  /** Call when a session replaced what it watches. Resolves when every node knows, or after a moment. */
  watched(session: Session, userIds: readonly UserId[]): Promise<void>;
  left(session: Session): void;
  send(nodeId: string, message: NodeMessage): void;
  /** The other node's answer; undefined when none came in time. */
  call(nodeId: string, message: NodeCall, timeoutMs: number): Promise<unknown>;
  start(local: LocalNode): Promise<void>;
  close(): Promise<void>;
}

/** What the other nodes' messages act on. */
export interface LocalNode {
  readonly online: Online;
  readonly presence: Presence;
  readonly mailboxes: Mailboxes;
  readonly relays: Relays;
  /** Ends a session whose device has logged in elsewhere. */
  replace(session: Session): void;
}

/** Since the start of the process. */
export interface ClusterCounters {
  sent: number;
  received: number;
  /** Events that could not be written, calls without an answer, and gaps in what others sent. */
  lost: number;
}

export const alone: Cluster = {
  others: 0,
  connected: true,
  counters: { sent: 0, received: 0, lost: 0 },
  nodesOf: () => [],
  entered: () => null,
  watched: async () => undefined,
  left: () => undefined,
  send: () => undefined,
  call: async () => undefined,
  start: async () => undefined,
  close: async () => undefined,
};
