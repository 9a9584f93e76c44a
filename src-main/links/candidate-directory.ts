import { createHash } from "node:crypto";
import { hmac } from "@noble/hashes/hmac.js";
import { sha3_512 } from "@noble/hashes/sha3.js";
import { type Bytes, utf8 } from "#shared/base/bytes.ts";
import type { Clock } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import { DIRECTORY_CLOCK_SKEW_MS, DIRECTORY_TTL_MS } from "#shared/base/limits.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";
import type { Signaling } from "../signaling/signaling.ts";

/**
 * Where two contacts leave their candidates for each other at the server, so that they can reconnect when it delivers
 * nothing live between them (left-signals.ts). The place is HMAC-SHA3-512 of `fingerprint ":ice_candidates" 00 day`,
 * keyed with a secret that only the two know: nobody else can find it, and it moves every day, so that it cannot be followed either. Its first 32 bytes
 * are the token that allows to write there; the directory's key is SHA-256 of the token (see docs/protocol.md).
 *
 * The fingerprint is that of the publisher, so that the two do not share one place. What is left there is sealed by the
 * caller, and nothing is believed before it opens: the server, or the other of the two, can put anything there.
 */
export interface CandidateDirectoryDeps {
  readonly clock: Pick<Clock, "now">;
  readonly signaling: Pick<Signaling, "request">;
  /** Own account key's SHA3-512 in hexadecimal. */
  readonly fingerprint: string;
  /** The same of a contact; null for somebody whose key is not known. */
  fingerprintOf(peer: UserId): string | null;
  /** 32 bytes or more that both compute alike and nobody else can; null when there is no such secret (yet). */
  pairwiseSecret(peer: UserId): Uint8Array | null;
}

export interface CandidateDirectory {
  /** Leaves a value for one contact; it stays for DIRECTORY_TTL_MS, or until the next one. */
  publish(peer: UserId, sealedCandidates: Bytes): Promise<Result<{ expiresInMs: number }>>;
  /** What the contact left last; null when there is nothing. */
  lookup(peer: UserId): Promise<Result<Bytes | null>>;
}

const DAY_MS = 24 * 60 * 60 * 1000;
const TOKEN_BYTES = 32;

export const directoryToken = (secret: Uint8Array, fingerprint: string, day: number): Bytes =>
  new Uint8Array(hmac(sha3_512, secret, utf8(`${fingerprint}:ice_candidates\0${day}`)).subarray(0, TOKEN_BYTES));

export const directoryKey = (token: Uint8Array): Bytes => new Uint8Array(createHash("sha256").update(token).digest());

const dayAt = (ms: number): number => Math.floor(ms / DAY_MS);

/**
 * Days (counted from the Unix epoch, UTC) under which something that is still there may have been published, newest first:
 * the publisher's clock may be ahead, or behind, and its day may have ended since.
 */
export const daysToLookUp = (nowMs: number): number[] => {
  const times = [nowMs + DIRECTORY_CLOCK_SKEW_MS, nowMs, nowMs - DIRECTORY_TTL_MS - DIRECTORY_CLOCK_SKEW_MS];
  return [...new Set(times.map(dayAt))];
};

export const createCandidateDirectory = (deps: CandidateDirectoryDeps): CandidateDirectory => {
  const { clock, signaling } = deps;
  const noSecret = fail(
    "no_pairwise_secret",
    "There is no shared secret with this contact yet. Exchange a message first.",
  );
  return {
    async publish(peer, sealedCandidates) {
      const secret = deps.pairwiseSecret(peer);
      if (secret === null) return noSecret;
      const token = directoryToken(secret, deps.fingerprint, dayAt(clock.now()));
      return signaling.request("directory.put", { token, value: sealedCandidates });
    },
    async lookup(peer) {
      const secret = deps.pairwiseSecret(peer);
      const fingerprint = deps.fingerprintOf(peer);
      if (secret === null || fingerprint === null) return noSecret;
      for (const day of daysToLookUp(clock.now())) {
        const key = directoryKey(directoryToken(secret, fingerprint, day));
        const found = await signaling.request("directory.get", { key });
        if (!found.ok) return found;
        if (found.value.value !== null) return ok(found.value.value);
      }
      return ok(null);
    },
  };
};
