import type { LinkView } from "#shared/ipc/views.ts";

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

/** Loopback, link-local and private ranges: RFC 1122, 3927, 1918, 4193, 4291, and RFC 6598 for carrier-grade NAT is not one. */
const isPrivateAddress = (address: string): boolean => {
  const text = address.toLowerCase().replace(/^::ffff:/, "");
  if (text === "::1" || /^fe[89ab][0-9a-f]:/.test(text) || /^f[cd][0-9a-f]{2}:/.test(text)) return true;
  const parts = text.split(".").map(Number);
  const [a, b] = parts;
  if (parts.length !== 4 || a === undefined || b === undefined) return false;
  return (
    a === 127 || a === 10 || (a === 169 && b === 254) || (a === 172 && b >= 16 && b < 32) || (a === 192 && b === 168)
  );
};

/** Where the selected pair leads. A relayed end is believed when it is named; its absence proves nothing. */
export const pathOf = (local: CandidateEnd, remote: CandidateEnd): NonNullable<LinkView["path"]> => {
  if (local.type === "relay" || remote.type === "relay") return "relay";
  return isPrivateAddress(local.address) && isPrivateAddress(remote.address) ? "lan" : "direct";
};
