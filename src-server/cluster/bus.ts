import type { LogEvent, NodeMessage } from "./messages.ts";

/**
 * What carries messages between the nodes of one server (`redis-bus.ts`). The log is read by every other node, the events
 * of each node in their order, and what a node misses for a moment it reads later. A message to one node is kept nowhere
 * and can be lost with a connection. Whatever was lost, `interrupted` is called when everything gets through again.
 */
export interface Bus {
  /** Random for each start of a node. */
  readonly nodeId: string;
  /** True while messages get through. */
  readonly connected: boolean;
  /** Resolves with the other nodes that are alive. From then on the listener hears everything, one thing at a time. */
  start(listener: BusListener): Promise<readonly string[]>;
  /** Rejects when the event cannot be written. */
  append(event: LogEvent): Promise<void>;
  send(nodeId: string, message: NodeMessage): void;
  /** Tells the others that this node goes. */
  close(): Promise<void>;
}

export interface BusListener {
  logged(from: string, event: LogEvent): void;
  received(from: string, message: NodeMessage): void;
  nodeJoined(nodeId: string): void;
  /** It said so, or was silent for too long. It may come back. */
  nodeLeft(nodeId: string): void;
  interrupted(): void;
}
