import { createCipheriv, createDecipheriv, createHash, createSecretKey, hkdfSync, type KeyObject } from "node:crypto";
import * as v from "valibot";
import { type Bytes, concatBytes, fromBase64Url, toBase64Url, utf8 } from "#shared/base/bytes.ts";
import { type RelayId, RelayIdSchema } from "#shared/base/ids.ts";
import { LINK_MESSAGE_BYTES_MAX, RELAY_FRAME_BYTES_MAX } from "#shared/base/limits.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";
import { isRelayDescription, type LinkChannel, RELAY_MARK } from "./transport.ts";

/**
 * What makes the server's relay blind. Each side puts 32 fresh random bytes into its description, which travels inside a
 * Signal ciphertext; the two halves together give a key for each direction (HKDF-SHA256, RFC 5869):
 *
 *   offerer's half | answerer's half  --salt: relay id, info: "weir relay keys v1"-->  key of the offerer | of the answerer
 *
 * A frame is AES-256-GCM(key, nonce = 4 zero bytes | u64 count, plaintext), ciphertext and 16-byte tag. The count is not
 * sent: both sides count from 0. So a frame that is lost, repeated, out of order, of the other direction, of another relay
 * or changed does not open, and one that does not open ends the relay. Forward secrecy is that of the Signal session.
 *
 *   plaintext   u8 flags (1: bulk, else control; 2: last piece of its message) | piece of the message
 */
export interface RelayDescription {
  readonly relayId: RelayId;
  readonly half: Bytes;
}

const HALF_BYTES = 32;
const KEY_BYTES = 32;
const TAG_BYTES = 16;
const FLAG_BULK = 1;
const FLAG_LAST = 2;
const ALGORITHM = "aes-256-gcm";
const OPTIONS = { authTagLength: TAG_BYTES };

/** Bytes of a message that fit one frame. */
export const RELAY_PIECE_BYTES = RELAY_FRAME_BYTES_MAX - TAG_BYTES - 1;
export const sealedBytes = (pieceBytes: number): number => pieceBytes + 1 + TAG_BYTES;

/** In the place of a certificate's: names the half without giving it away. */
export const relayFingerprint = ({ relayId, half }: RelayDescription): string => {
  const digest = createHash("sha256").update("weir relay half v1\0").update(relayId).update(half).digest("hex");
  return digest.toUpperCase().replace(/..(?!$)/g, "$&:");
};

export const encodeRelayDescription = (description: RelayDescription): string =>
  [
    "v=0",
    RELAY_MARK,
    `a=weir-relay-id:${description.relayId}`,
    `a=weir-relay-half:${toBase64Url(description.half)}`,
    `a=fingerprint:sha-256 ${relayFingerprint(description)}`,
    "",
  ].join("\r\n");

const ID_LINE = /^a=weir-relay-id:(.+)$/;
const HALF_LINE = /^a=weir-relay-half:(.+)$/;

/** Takes exactly what {@link encodeRelayDescription} gives. */
export const decodeRelayDescription = (text: string): Result<RelayDescription> => {
  const bad = fail("bad_description", "The other side's description of the relay is malformed.");
  if (!isRelayDescription(text)) return bad;
  const [, , idLine = "", halfLine = ""] = text.split("\r\n", 4);
  const relayId = v.safeParse(RelayIdSchema, ID_LINE.exec(idLine)?.[1]);
  const half = fromBase64Url(HALF_LINE.exec(halfLine)?.[1] ?? "");
  if (!relayId.success || !half.ok || half.value.length !== HALF_BYTES) return bad;
  const description = { relayId: relayId.output, half: half.value };
  return encodeRelayDescription(description) === text ? ok(description) : bad;
};

export const newHalf = (bytes: (length: number) => Bytes): Bytes => bytes(HALF_BYTES);

/** The keys of one end: what it seals with and what it opens with. */
export const createRelayCipher = (role: "offerer" | "answerer", offer: RelayDescription, answerHalf: Bytes) => {
  const keys = Buffer.from(
    hkdfSync("sha256", concatBytes(offer.half, answerHalf), utf8(offer.relayId), "weir relay keys v1", 2 * KEY_BYTES),
  );
  const ofOfferer = createSecretKey(keys.subarray(0, KEY_BYTES));
  const ofAnswerer = createSecretKey(keys.subarray(KEY_BYTES));
  keys.fill(0);
  return role === "offerer"
    ? { sealer: new RelaySealer(ofOfferer), opener: new RelayOpener(ofAnswerer) }
    : { sealer: new RelaySealer(ofAnswerer), opener: new RelayOpener(ofOfferer) };
};

/** Nonces in the order of use. The buffer is reused: it is read before the next call. */
class Nonces {
  readonly #nonce = Buffer.alloc(12);
  #count = 0n;

  next(): Buffer {
    this.#nonce.writeBigUInt64BE(this.#count, 4);
    this.#count += 1n;
    return this.#nonce;
  }
}

export interface RelayPiece {
  readonly channel: LinkChannel;
  readonly last: boolean;
  readonly bytes: Uint8Array;
}

export class RelaySealer {
  readonly #key: KeyObject;
  readonly #nonces = new Nonces();

  constructor(key: KeyObject) {
    this.#key = key;
  }

  seal({ channel, last, bytes }: RelayPiece): Bytes {
    const cipher = createCipheriv(ALGORITHM, this.#key, this.#nonces.next(), OPTIONS);
    const flags = (channel === "bulk" ? FLAG_BULK : 0) | (last ? FLAG_LAST : 0);
    const head = cipher.update(Uint8Array.of(flags));
    const body = cipher.update(bytes);
    cipher.final();
    return concatBytes(head, body, cipher.getAuthTag());
  }
}

export class RelayOpener {
  readonly #key: KeyObject;
  readonly #nonces = new Nonces();

  constructor(key: KeyObject) {
    this.#key = key;
  }

  /** Null when it is not the next frame of the other side, unchanged. */
  open(sealed: Uint8Array): RelayPiece | null {
    if (sealed.length < sealedBytes(0)) return null;
    const end = sealed.length - TAG_BYTES;
    const decipher = createDecipheriv(ALGORITHM, this.#key, this.#nonces.next(), OPTIONS);
    decipher.setAuthTag(sealed.subarray(end));
    const plain = decipher.update(sealed.subarray(0, end));
    try {
      decipher.final();
    } catch {
      return null;
    }
    const flags = plain[0] ?? 0;
    if (flags > (FLAG_BULK | FLAG_LAST)) return null;
    return {
      channel: (flags & FLAG_BULK) === 0 ? "control" : "bulk",
      last: (flags & FLAG_LAST) !== 0,
      bytes: plain.subarray(1),
    };
  }
}

/** Puts the pieces of each channel together again. */
export class PieceJoiner {
  readonly #parts: Record<LinkChannel, Uint8Array[]> = { control: [], bulk: [] };
  readonly #bytes: Record<LinkChannel, number> = { control: 0, bulk: 0 };

  /** The whole message, in a buffer of its own; "more" when it is not whole yet, "too_large" when it never may be. */
  add({ channel, last, bytes }: RelayPiece): Bytes | "more" | "too_large" {
    this.#bytes[channel] += bytes.length;
    if (this.#bytes[channel] > LINK_MESSAGE_BYTES_MAX) return "too_large";
    // Every piece but the last is full, so that nobody can send one message as endlessly many empty ones.
    if (!last && bytes.length !== RELAY_PIECE_BYTES) return "too_large";
    this.#parts[channel].push(bytes);
    if (!last) return "more";
    const whole = concatBytes(...this.#parts[channel]);
    this.#parts[channel] = [];
    this.#bytes[channel] = 0;
    return whole;
  }
}
