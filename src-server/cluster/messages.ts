import type { EnvelopeId, RelayId, UserId } from "#shared/base/ids.ts";
import type { Push } from "#shared/rendezvous/protocol.ts";

/** A connection that is logged in, as the other nodes know it. */
export interface RemoteSession {
  /** Never used again by its node. */
  readonly sessionId: number;
  readonly userId: UserId;
  readonly deviceId: number;
  /** By the clock of its node: of two logins of one device the later one stays. */
  readonly loggedInAt: number;
  readonly watches: readonly UserId[];
}

/**
 * What all nodes must know: who is connected where, and who watches whom. `sequence` counts the events of a node, so that
 * a gap shows. To an event with a `confirm`, each node says when it has taken it in.
 */
export type LogEvent = { readonly sequence: number } & (
  | { readonly type: "entered"; readonly session: RemoteSession; readonly confirm: number }
  | {
      readonly type: "watches";
      readonly sessionId: number;
      readonly watches: readonly UserId[];
      readonly confirm: number;
    }
  | { readonly type: "left"; readonly sessionId: number }
  /** A node began or has missed something: all others send a snapshot. */
  | { readonly type: "hello" }
  /** All sessions of a node, in parts; what is in none of them is gone. */
  | {
      readonly type: "snapshot";
      readonly begins: boolean;
      readonly ends: boolean;
      readonly sessions: readonly RemoteSession[];
    }
);

/** What goes to one node: of no use later, or too large or too private for a log. */
export type NodeMessage =
  | { readonly type: "confirmed"; readonly confirm: number }
  /** Something of yours is missing here: send a snapshot. */
  | { readonly type: "ask" }
  | { readonly type: "wake"; readonly userId: UserId }
  | { readonly type: "acknowledged"; readonly userId: UserId; readonly ids: readonly EnvelopeId[] }
  /** `deviceId` null: to each device of the user. */
  | { readonly type: "push"; readonly userId: UserId; readonly deviceId: number | null; readonly push: Push }
  | RelayMessage
  | (NodeCall & { readonly call: number })
  | { readonly type: "answer"; readonly call: number; readonly value: unknown };

/** What is answered. */
export type NodeCall =
  | { readonly type: "signal"; readonly to: UserId; readonly push: Extract<Push, { name: "signal" }> }
  | { readonly type: "relayAccept"; readonly relayId: RelayId; readonly from: UserId; readonly to: UserId };

/** Between the two halves of a relay. `index` counts the frames of one direction. */
export type RelayMessage =
  | { readonly type: "relayFrame"; readonly relayId: RelayId; readonly index: number; readonly frame: Uint8Array }
  | { readonly type: "relayTaken"; readonly relayId: RelayId; readonly takenBytes: number }
  | { readonly type: "relayEnd"; readonly relayId: RelayId; readonly reason: RelayEnd };

export type RelayEnd =
  | "closed_by_peer"
  | "peer_gone"
  | "not_accepted"
  | "replaced"
  | "not_allowed"
  | "broken_rules"
  | "relay_quota";
