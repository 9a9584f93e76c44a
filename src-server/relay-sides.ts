import type { RelayId } from "#shared/base/ids.ts";
import type { Cluster } from "./cluster/cluster.ts";
import type { RelayEnd } from "./cluster/messages.ts";
import type { DeviceBudget, DeviceBudgets } from "./relay-budget.ts";
import { RelayFlow } from "./relay-flow.ts";
import type { Session } from "./session.ts";

/** One end of a relay: a session of this node, or the node that has the session. */
export type Side = LocalSide | RemoteSide;

export class LocalSide {
  readonly session: Session;
  /** The books of what this end sends. */
  readonly flow = new RelayFlow();
  readonly #relayId: RelayId;
  readonly #budgets: DeviceBudgets;
  #budget: DeviceBudget | null = null;

  constructor(session: Session, relayId: RelayId, budgets: DeviceBudgets) {
    this.session = session;
    this.#relayId = relayId;
    this.#budgets = budgets;
  }

  /** Gives it its first credit. */
  begin(): void {
    // Not earlier: a budget that nobody uses is forgotten.
    this.#budget = this.#budgets.of(this.session);
    this.#budget.add(this);
  }

  tell(grantedBytes: number): void {
    this.session.push({ name: "relayCredit", value: { relayId: this.#relayId, grantedBytes } });
  }

  /** A frame of the other end. */
  deliver(relay: object, frame: Uint8Array, handedOver: () => void): void {
    this.session.relayed.push(relay, withoutSlack(frame), handedOver);
  }

  /** What the other end has taken of what this one sent. False when it was never given that much. */
  taken(takenBytes: number): boolean {
    if (!this.flow.take(takenBytes)) return false;
    this.#budget?.serve();
    return true;
  }

  /** The other end, or the server, ended it; `by` is the session that need not be told. */
  end(relay: object, reason: RelayEnd, by: Session | string | null): void {
    this.#budget?.remove(this);
    this.session.relayed.drop(relay);
    if (this.session !== by) this.session.push({ name: "relayClosed", value: { relayId: this.#relayId, reason } });
  }
}

/**
 * The rate of what it sends is its own node's business, and so is its credit: what arrives from there was granted. What is
 * handed to its node counts as handed over; its node looks after the acknowledgements of the session.
 */
export class RemoteSide {
  readonly session = null;
  readonly nodeId: string;
  readonly flow = new RelayFlow();
  readonly #relayId: RelayId;
  readonly #cluster: Cluster;
  #framesSent = 0;
  #framesReceived = 0;

  constructor(nodeId: string, relayId: RelayId, cluster: Cluster) {
    this.nodeId = nodeId;
    this.#relayId = relayId;
    this.#cluster = cluster;
  }

  /** A frame of this end. False when one before it was lost between the nodes. */
  receive(index: number, cost: number): boolean {
    if (index !== this.#framesReceived) return false;
    this.#framesReceived++;
    this.flow.grant(cost);
    return this.flow.receive(cost);
  }

  deliver(_: object, frame: Uint8Array, handedOver: () => void): void {
    const index = this.#framesSent++;
    this.#cluster.send(this.nodeId, { type: "relayFrame", relayId: this.#relayId, index, frame });
    handedOver();
  }

  taken(takenBytes: number): boolean {
    if (!this.flow.take(takenBytes)) return false;
    this.#cluster.send(this.nodeId, { type: "relayTaken", relayId: this.#relayId, takenBytes });
    return true;
  }

  end(_: object, reason: RelayEnd, by: Session | string | null): void {
    if (this.nodeId !== by) this.#cluster.send(this.nodeId, { type: "relayEnd", relayId: this.#relayId, reason });
  }
}

/** A view keeps all of the buffer alive that the socket was read into; a small frame must not hold on to a large one. */
const withoutSlack = (frame: Uint8Array): Uint8Array =>
  frame.buffer.byteLength > 2 * frame.length ? new Uint8Array(frame) : frame;
