import { createSocket } from "node:dgram";
import { lookup } from "node:dns/promises";
import { networkInterfaces } from "node:os";
import { type Disposable, DisposableStore, toDisposable } from "#shared/base/disposable.ts";
import type { Env } from "#shared/base/env.ts";
import { ICE_SERVERS_MAX, NAT_PROBE_RESEND_MS, NAT_PROBE_TIMEOUT_MS } from "#shared/base/limits.ts";
import type { LinkReport } from "#shared/ipc/views.ts";
import { isPrivateAddress } from "./sdp.ts";

/**
 * How the address translator in front of us maps ports (RFC 4787, section 4.1): several STUN servers (RFC 8489) are asked
 * from one UDP port, and their answers compared. The native library cannot tell, because it asks one STUN server only.
 * The servers are those that a link asks too; they learn our address, so contacts who may not learn it are no reason to ask.
 */
export interface NatFinding {
  readonly nat: LinkReport["nat"];
  /** Different servers, and how many of them answered: none usually means that UDP is blocked. */
  readonly asked: number;
  readonly answered: number;
}

const BINDING_REQUEST = 0x0001;
const BINDING_SUCCESS = 0x0101;
const MAGIC_COOKIE = 0x2112a442;
const XOR_MAPPED_ADDRESS = 0x0020;
const IPV4 = 1;
const HEADER_BYTES = 20;
const TRANSACTION_BYTES = 12;

export const bindingRequest = (transaction: Uint8Array): Uint8Array<ArrayBuffer> => {
  const packet = new Uint8Array(HEADER_BYTES);
  const view = new DataView(packet.buffer);
  view.setUint16(0, BINDING_REQUEST);
  view.setUint32(4, MAGIC_COOKIE);
  packet.set(transaction.subarray(0, TRANSACTION_BYTES), 8);
  return packet;
};

/** "address port" as the server saw us; null for whatever is no answer to this transaction. */
export const mappedAddressIn = (packet: Uint8Array, transaction: Uint8Array): string | null => {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  if (packet.length < HEADER_BYTES || view.getUint16(0) !== BINDING_SUCCESS || view.getUint32(4) !== MAGIC_COOKIE)
    return null;
  if (!transaction.every((byte, index) => packet[8 + index] === byte)) return null;
  const end = HEADER_BYTES + view.getUint16(2);
  if (end > packet.length) return null;
  for (let at = HEADER_BYTES; at + 4 <= end; ) {
    const length = view.getUint16(at + 2);
    if (at + 4 + length > end) return null;
    if (view.getUint16(at) === XOR_MAPPED_ADDRESS && length >= 8 && view.getUint8(at + 5) === IPV4) {
      const address = (view.getUint32(at + 8) ^ MAGIC_COOKIE) >>> 0;
      const port = view.getUint16(at + 6) ^ (MAGIC_COOKIE >>> 16);
      return `${[24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join(".")} ${port}`;
    }
    at += 4 + Math.ceil(length / 4) * 4;
  }
  return null;
};

/** `mapped` has what each server that answered saw; `own` the addresses of this machine. */
export const natFrom = (mapped: readonly string[], own: ReadonlySet<string>): NatFinding["nat"] => {
  const ends = mapped.map((end) => ({ end, address: end.split(" ")[0] ?? "" }));
  // A server inside our own network sees us as we are, and nothing of what is in front of that network.
  const outside = ends.filter(({ address }) => !(own.has(address) && isPrivateAddress(address)));
  const [first] = outside;
  if (first === undefined) return "unknown";
  if (outside.every(({ address }) => own.has(address))) return "none";
  if (outside.some(({ end }) => end !== first.end)) return "varies";
  return outside.length > 1 ? "same" : "unknown";
};

interface StunServer {
  readonly address: string;
  readonly port: number;
}

/** Host and port of `stun:host:port` and `turn:user:password@host:port`: TURN servers answer STUN without a login. */
const SERVER_URL = /^(?:stun:|turn:(?:[^@]*@)?)([^@:]+):(\d{1,5})$/;

const resolved = async (urls: readonly string[]): Promise<StunServer[]> => {
  const found = await Promise.all(
    urls.slice(0, ICE_SERVERS_MAX).map(async (url): Promise<StunServer | null> => {
      const [, host, port] = SERVER_URL.exec(url) ?? [];
      if (host === undefined || port === undefined) return null;
      // A name that leads nowhere is a server that does not answer.
      const { address } = await lookup(host, { family: 4 }).catch(() => ({ address: "" }));
      return address === "" ? null : { address, port: Number(port) };
    }),
  );
  const servers = found.filter((server) => server !== null);
  // One server under two names tells nothing new.
  return [...new Map(servers.map((server) => [`${server.address} ${server.port}`, server])).values()];
};

const ownAddresses = (): ReadonlySet<string> =>
  new Set(Object.values(networkInterfaces()).flatMap((all) => (all ?? []).map(({ address }) => address)));

/** Never rejects; takes NAT_PROBE_TIMEOUT_MS at most, besides looking up names. */
export const probeNat = async (
  env: Pick<Env, "clock" | "random">,
  urls: readonly string[],
  bindAddress = "0.0.0.0",
): Promise<NatFinding> => {
  const servers = await resolved(urls);
  const asked = Math.max(servers.length, urls.length === 0 ? 0 : 1);
  if (servers.length === 0) return { nat: "unknown", asked, answered: 0 };
  const mapped = await askAll(env, servers, bindAddress);
  return { nat: natFrom(mapped, ownAddresses()), asked, answered: mapped.length };
};

const askAll = async (
  { clock, random }: Pick<Env, "clock" | "random">,
  servers: readonly StunServer[],
  bindAddress: string,
): Promise<string[]> => {
  const owned = new DisposableStore();
  const done = Promise.withResolvers<void>();
  const mapped = new Map<string, string>();
  const transactions = new Map(servers.map((server) => [nameOf(server), random.bytes(TRANSACTION_BYTES)]));
  const socket = createSocket("udp4");
  owned.add(toDisposable(() => socket.close()));
  socket.on("error", () => done.resolve());
  socket.on("message", (packet, from) => {
    const transaction = transactions.get(nameOf(from));
    const end = transaction === undefined ? null : mappedAddressIn(packet, transaction);
    if (end !== null) mapped.set(nameOf(from), end);
    if (mapped.size === servers.length) done.resolve();
  });
  const send = (): void => {
    for (const server of servers) {
      const transaction = transactions.get(nameOf(server));
      // An error of one packet, as of a network that is down, is an answer that does not come.
      if (transaction !== undefined && !mapped.has(nameOf(server)))
        socket.send(bindingRequest(transaction), server.port, server.address, () => undefined);
    }
  };
  socket.bind(0, bindAddress, send);
  const again = owned.add(new Repeating(clock, NAT_PROBE_RESEND_MS, send));
  owned.add(clock.setTimer(NAT_PROBE_TIMEOUT_MS, () => done.resolve()));
  await done.promise;
  again.dispose();
  owned.dispose();
  return [...mapped.values()];
};

const nameOf = ({ address, port }: StunServer): string => `${address} ${port}`;

class Repeating implements Disposable {
  #timer: Disposable;

  constructor(clock: Env["clock"], intervalMs: number, run: () => void) {
    const next = (): Disposable =>
      clock.setTimer(intervalMs, () => {
        this.#timer = next();
        run();
      });
    this.#timer = next();
  }

  dispose(): void {
    this.#timer.dispose();
  }
}
