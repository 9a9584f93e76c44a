import * as v from "valibot";
import { assert } from "../base/assert.ts";
import { type Bytes, concatBytes, fromBase64Url, toBase64Url } from "../base/bytes.ts";
import { type RelayId, RelayIdSchema } from "../base/ids.ts";
import { RELAY_FRAME_BYTES_MAX, RELAY_FRAME_COST_BYTES } from "../base/limits.ts";
import { fail, ok, type Result } from "../base/result.ts";

/**
 * What passes through the server's relay, besides its requests and pushes:
 *
 *   `relay`     both ways            one binary: relay id (16 bytes) | sealed bytes (1 to RELAY_FRAME_BYTES_MAX)
 *   `relayAck`  reader to server     {relayId, takenBytes}
 *
 * The server passes a frame on as it came. Either side has a credit (`relayCredit`) and the reader acknowledges; both count
 * {@link relayCost} of every frame since the relay was opened, so that a repeated or older number changes nothing.
 */
export const RELAY_ID_BYTES = 16;

export const relayCost = (sealedBytes: number): number => sealedBytes + RELAY_FRAME_COST_BYTES;

export const encodeRelayFrame = (relayId: RelayId, sealed: Uint8Array): Bytes => {
  const id = fromBase64Url(relayId);
  assert(id.ok, "a relay id is base64url");
  return concatBytes(id.value, sealed);
};

/** `sealed` is a view of `bytes`. */
export const decodeRelayFrame = (bytes: unknown): Result<{ relayId: RelayId; sealed: Uint8Array }> => {
  const fits =
    bytes instanceof Uint8Array &&
    bytes.length > RELAY_ID_BYTES &&
    bytes.length <= RELAY_ID_BYTES + RELAY_FRAME_BYTES_MAX;
  if (!fits) return fail("bad_frame", "The relayed frame is malformed.");
  const relayId = v.parse(RelayIdSchema, toBase64Url(bytes.subarray(0, RELAY_ID_BYTES)));
  return ok({ relayId, sealed: bytes.subarray(RELAY_ID_BYTES) });
};

export const RelayAckSchema = v.object({
  relayId: RelayIdSchema,
  takenBytes: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(Number.MAX_SAFE_INTEGER)),
});
export type RelayAck = v.InferInput<typeof RelayAckSchema>;
