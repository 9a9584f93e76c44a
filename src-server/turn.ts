import { createHmac } from "node:crypto";
import { toBase64Url } from "#shared/base/bytes.ts";
import { TURN_CREDENTIAL_TTL_MS } from "#shared/base/limits.ts";
import { ok } from "#shared/base/result.ts";
import type { RequestOutput, RequestValue } from "#shared/rendezvous/protocol.ts";
import { type Answer, type Context, refuse } from "./handler.ts";

/** Which STUN and TURN servers this server names to its clients. */
export interface IceOptions {
  /** `stun:host:port` */
  readonly stunUrls: readonly string[];
  /** `turn:host:port`; `secret` is what coturn has as `static-auth-secret`. Null without a TURN server. */
  readonly turn: { readonly urls: readonly string[]; readonly secret: string } | null;
}

export const noIce: IceOptions = { stunUrls: [], turn: null };

/**
 * Credentials of draft-uberti-behave-turn-rest-00 (coturn: `use-auth-secret`): the name says until when they hold, the
 * password is base64(HMAC-SHA1(secret, name)), and nothing has to be stored. The other half of the name is random for each
 * of them, so that the TURN server, which logs it, learns neither who uses it nor which credentials are one person's.
 */
export const turnCredentials = (
  secret: string,
  expiresAtMs: number,
  opaque: Uint8Array,
): { username: string; password: string } => {
  const username = `${Math.floor(expiresAtMs / 1000)}:${toBase64Url(opaque)}`;
  return { username, password: createHmac("sha1", secret).update(username).digest("base64") };
};

export const issueTurn = async (
  { env, ice, rates, session }: Context,
  _: RequestValue<"turn">,
): Promise<Answer<RequestOutput<"turn">>> => {
  const stunUrls = [...ice.stunUrls];
  if (ice.turn === null) return ok({ stunUrls, turn: null });
  if ((await rates.turn(session.userId)) !== null) {
    return refuse("rate_limited", "Too many TURN credentials were asked for. Those that you have are still good.");
  }
  const expiresInMs = TURN_CREDENTIAL_TTL_MS;
  const credentials = turnCredentials(ice.turn.secret, env.clock.now() + expiresInMs, env.random.bytes(16));
  return ok({ stunUrls, turn: { urls: [...ice.turn.urls], ...credentials, expiresInMs } });
};
