import * as v from "valibot";
import { concatBytes, fromBase64Url, fromUtf8, toBase64Url, utf8 } from "../base/bytes.ts";
import { INVITE_CODE_ALPHABET, INVITE_CODE_LENGTH, INVITE_LINK_LENGTH_MAX } from "../base/limits.ts";
import { fail, ok, type Result } from "../base/result.ts";

/**
 * `weir://invite/<base64url>` where the bytes are
 *   u8 version=1 | 32 account key (Ed25519) | 33 identity key (libsignal) | 16 invite id | 32 secret | UTF-8 server URL.
 * The user id is not in it: it is derived from the account key, so the two cannot disagree.
 */
export interface InviteLink {
  readonly accountKey: Uint8Array;
  readonly identityKey: Uint8Array;
  readonly inviteId: Uint8Array;
  readonly secret: Uint8Array;
  readonly serverUrl: string;
}
export type InviteError = { type: "invalid_invite"; message: string };

const PREFIX = "weir://invite/";
const VERSION = 1;
const FIXED_BYTES = 1 + 32 + 33 + 16 + 32;
const ServerUrl = v.pipe(v.string(), v.regex(/^wss?:\/\/[^\s/?#@]+(\/[^\s?#]*)?$/));

export const encodeInviteLink = (invite: InviteLink): string =>
  PREFIX +
  toBase64Url(
    concatBytes(
      Uint8Array.of(VERSION),
      invite.accountKey,
      invite.identityKey,
      invite.inviteId,
      invite.secret,
      utf8(invite.serverUrl),
    ),
  );

const invalid = () =>
  fail("invalid_invite", "This is not a Weir invitation. Copy the whole link, or type the 6-character code.");

export const decodeInviteLink = (text: string): Result<InviteLink, InviteError> => {
  if (text.length > INVITE_LINK_LENGTH_MAX || !text.startsWith(PREFIX)) return invalid();
  const bytes = fromBase64Url(text.slice(PREFIX.length).replace(/\/$/, ""));
  if (!bytes.ok || bytes.value.length <= FIXED_BYTES || bytes.value[0] !== VERSION) return invalid();
  const serverUrl = fromUtf8(bytes.value.subarray(FIXED_BYTES));
  if (!serverUrl.ok || !v.is(ServerUrl, serverUrl.value)) return invalid();
  const part = (from: number, length: number) => bytes.value.slice(from, from + length);
  return ok({
    accountKey: part(1, 32),
    identityKey: part(33, 33),
    inviteId: part(66, 16),
    secret: part(82, 32),
    serverUrl: serverUrl.value,
  });
};

/** Normalises what a person typed ("abc-23 4"); null when it cannot be a code. I, O, 0 and 1 do not exist in codes. */
export const parseInviteCode = (text: string): string | null => {
  const code = text.toUpperCase().replace(/[\s-]/g, "");
  if (code.length !== INVITE_CODE_LENGTH) return null;
  return [...code].every((letter) => INVITE_CODE_ALPHABET.includes(letter)) ? code : null;
};
