import type { LinkReport } from "#shared/ipc/views.ts";
import type { LinkPath } from "./link-state.ts";

/** The few facts that Weir reads from SDP (RFC 8866) and candidates (RFC 8839). Neither is ever logged. */

const FINGERPRINT = /^a=fingerprint:sha-256 ((?:[0-9A-F]{2}:){31}[0-9A-F]{2})\s*$/gim;

/** Upper-case, colon-separated SHA-256 of the DTLS certificate; null unless the description names exactly one. */
export const fingerprintOf = (sdp: string): string | null => {
  const found = new Set([...sdp.matchAll(FINGERPRINT)].map((match) => match[1]?.toUpperCase()));
  if (found.size !== 1) return null;
  const [only] = found;
  return only ?? null;
};

/** Raw 32 bytes of a fingerprint that {@link fingerprintOf} gave. */
export const fingerprintBytes = (fingerprint: string): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(fingerprint.split(":"), (byte) => Number.parseInt(byte, 16));

export interface CandidateEnd {
  readonly address: string;
  /** `host`, `srflx`, `prflx` or `relay`. */
  readonly type: string;
}

export interface ParsedCandidate extends CandidateEnd {
  readonly port: number;
  /** Address and port on this machine that a reflexive candidate was found from; null where none is named. */
  readonly base: string | null;
}

const CANDIDATE =
  /^(?:a=)?candidate:\S+ \d+ \S+ \d+ (\S+) (\d{1,5}) typ (host|srflx|prflx|relay)\b(?:.*? raddr (\S+) rport (\d{1,5}))?/i;

/** Null for what is no candidate of a kind that Weir knows. */
export const parseCandidate = (line: string): ParsedCandidate | null => {
  const match = CANDIDATE.exec(line.trim());
  const [, address, port, type, baseAddress, basePort] = match ?? [];
  if (address === undefined || port === undefined || type === undefined) return null;
  const base = baseAddress === undefined ? null : `${baseAddress} ${basePort}`;
  return { address, port: Number(port), type: type.toLowerCase(), base };
};

/** Loopback, link-local and private ranges: RFC 1122, 3927, 1918, 4193, 4291, and RFC 6598 for carrier-grade NAT is not one. */
export const isPrivateAddress = (address: string): boolean => {
  const text = address.toLowerCase().replace(/^::ffff:/, "");
  if (text === "::1" || /^fe[89ab][0-9a-f]:/.test(text) || /^f[cd][0-9a-f]{2}:/.test(text)) return true;
  const parts = text.split(".").map(Number);
  const [a, b] = parts;
  if (parts.length !== 4 || a === undefined || b === undefined) return false;
  return (
    a === 127 || a === 10 || (a === 169 && b === 254) || (a === 172 && b >= 16 && b < 32) || (a === 192 && b === 168)
  );
};

/** The address of an interface, which whoever is not kept out by a firewall reaches at once. */
export const isHostCandidate = (line: string): boolean => parseCandidate(line)?.type === "host";

/** A candidate that leads nowhere but to this machine's own private network. */
export const isLanCandidate = (line: string): boolean => {
  const candidate = parseCandidate(line);
  return candidate?.type === "host" && isPrivateAddress(candidate.address);
};

/** The description without the candidates that `admits` refuses. */
export const withCandidates = (sdp: string, admits: (line: string) => boolean): string =>
  sdp
    .split("\r\n")
    .filter((line) => !line.startsWith("a=candidate:") || admits(line))
    .join("\r\n");

/** What the candidates that were exchanged say about the addresses of the selected pair. */
export interface KnownAddresses {
  /** Of relayed candidates, ours and the peer's. */
  readonly relays: ReadonlySet<string>;
  /** Of the peer's own interfaces. */
  readonly remoteHosts: ReadonlySet<string>;
  /** Of our own interfaces. */
  readonly localHosts: ReadonlySet<string>;
}

const NOTHING_KNOWN: KnownAddresses = { relays: new Set(), remoteHosts: new Set(), localHosts: new Set() };

/**
 * Where the selected pair leads. An end that ICE met before it was announced is of type `prflx`, so its address is looked
 * up among those that were. Only private addresses of both machines' own interfaces are a local network: what is behind
 * an address translator can have a private address too. A packet to an address of our own never leaves this machine, so what
 * answers there is on it.
 */
export const pathOf = (local: CandidateEnd, remote: CandidateEnd, known: KnownAddresses = NOTHING_KNOWN): LinkPath => {
  if (local.type === "relay" || remote.type === "relay") return "relay";
  if (remote.type === "prflx" && known.relays.has(remote.address)) return "relay";
  const isOwn = remote.type === "host" || (remote.type === "prflx" && known.remoteHosts.has(remote.address));
  if (local.type !== "srflx" && (remote.address === local.address || known.localHosts.has(remote.address)))
    return "machine";
  const isLan = isOwn && local.type !== "srflx" && isPrivateAddress(local.address) && isPrivateAddress(remote.address);
  return isLan ? "lan" : "direct";
};

/**
 * How the address translator in front of us maps a port, as far as our own candidates tell: that it takes another port for
 * each server is seen only when several were asked, which a single attempt seldom does (see nat-probe.ts).
 */
export const natOf = (candidates: readonly ParsedCandidate[]): LinkReport["nat"] => {
  const reflexive = candidates.filter((candidate) => candidate.type === "srflx");
  if (reflexive.length === 0)
    return candidates.some(({ type, address }) => type === "host" && !isPrivateAddress(address)) ? "none" : "unknown";
  const mapped = new Map<string, Set<string>>();
  for (const { base, address, port } of reflexive) {
    const ends = mapped.get(base ?? "") ?? new Set();
    mapped.set(base ?? "", ends.add(`${address} ${port}`));
  }
  return [...mapped.values()].some((ends) => ends.size > 1) ? "varies" : "unknown";
};
