import multicastDns from "multicast-dns";
import type { Disposable } from "#shared/base/disposable.ts";
import { type DnsRecord, LAN_SERVICE } from "./lan-record.ts";

/**
 * Multicast DNS on one network interface; the only importer of multicast-dns. Everything that arrives is unproven and comes
 * from anybody on the network.
 */
export interface LanSocket extends Disposable {
  query(): void;
  respond(records: readonly DnsRecord[]): void;
}

export interface LanSocketEvents {
  /** Somebody asks for Weirs. */
  onAsked(): void;
  /** `address` is where the packet came from. */
  onAnswers(address: string, answers: readonly unknown[]): void;
  /** The socket is of no more use: the port is taken or the interface went away. Not for a packet that cannot be read. */
  onFailed(reason: string): void;
}

export type OpenLanSocket = (interfaceAddress: string, events: LanSocketEvents) => LanSocket;

export const openLanSocket: OpenLanSocket = (interfaceAddress, events) => {
  let closed = false;
  // Bound to all addresses, because a socket that is bound to one does not get what is sent to the group.
  const mdns = multicastDns({ interface: interfaceAddress, bind: "0.0.0.0", reuseAddr: true, loopback: true });
  mdns.on("query", ({ questions = [] }) => {
    const isOurs = questions.some(({ name, type }) => name.toLowerCase() === LAN_SERVICE && ASKED.has(type));
    if (isOurs && !closed) events.onAsked();
  });
  mdns.on("response", ({ answers = [], additionals = [] }, { address }) => {
    if (!closed) events.onAnswers(address, [...answers, ...additionals]);
  });
  // A packet that cannot be decoded, or an interface that refuses: nothing that could be done about either.
  mdns.on("warning", () => undefined);
  mdns.on("error", (error: Error & { code?: string }) => {
    if (!closed) events.onFailed(error.code ?? error.name);
  });
  let underWay = 0;
  // Also what failed is over: the interface may be gone between two polls of the network, and the next one tries again.
  const sent = (): void => {
    underWay -= 1;
    if (closed && underWay === 0) mdns.destroy();
  };
  return {
    query() {
      underWay += 1;
      mdns.query({ questions: [{ name: LAN_SERVICE, type: "PTR" }] }, sent);
    },
    respond(records) {
      underWay += 1;
      mdns.respond({ answers: [...records] }, sent);
    },
    dispose() {
      if (closed) return;
      closed = true;
      // What takes our name back is still to leave.
      if (underWay === 0) mdns.destroy();
    },
  };
};

const ASKED: ReadonlySet<string> = new Set(["PTR", "ANY"]);
