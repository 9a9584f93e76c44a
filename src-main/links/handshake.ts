import { bytesEqual, concatBytes, utf8 } from "#shared/base/bytes.ts";
import type { Generation, UserId } from "#shared/base/ids.ts";
import { type ControlMessage, type ControlOf, PROTOCOL_VERSION } from "#shared/wire/control.ts";
import { fingerprintBytes } from "./sdp.ts";

/**
 * Proof of identity on a fresh control channel. Both sides do the same at once:
 *
 *   helloAwaited   our `hello` is sent                    their hello is good: send our `proof`, -> proofAwaited
 *   proofAwaited                                          their proof is good -> proven
 *
 * A proof is an Ed25519 signature of the account key over {@link proofBytes}. It names both certificates, so it is worth
 * nothing on any other connection, and both fresh nonces, so an old one cannot be replayed. Any deviation ends the link.
 *
 * A hello with padding does not fit the packets that pass everywhere, and no proof comes before it has arrived: so a proof
 * says that the path carries larger ones.
 */
export interface HandshakeFacts {
  readonly localUserId: UserId;
  readonly peerUserId: UserId;
  readonly offerGeneration: Generation;
  readonly nonce: Uint8Array<ArrayBuffer>;
  /** Of this run of the program. */
  readonly runId: string;
  /** From our own description, and from the peer's inside the Signal ciphertext; compared with the real one before. */
  readonly localFingerprint: string;
  readonly remoteFingerprint: string;
  readonly paddingBytes?: number | undefined;
}

export interface HandshakeKeys {
  sign(bytes: Uint8Array): Uint8Array<ArrayBuffer>;
  /** Whether the peer's account key made this signature. */
  verify(bytes: Uint8Array, signature: Uint8Array): boolean;
}

export type HandshakeState =
  | { readonly step: "helloAwaited"; readonly facts: HandshakeFacts }
  | { readonly step: "proofAwaited"; readonly facts: HandshakeFacts; readonly peerNonce: Uint8Array }
  | { readonly step: "proven" }
  | { readonly step: "refused"; readonly reason: HandshakeRefusal };

export type HandshakeRefusal =
  | "unexpected_message"
  | "wrong_user"
  | "wrong_generation"
  | "wrong_version"
  | "wrong_proof";

/** It can take further associations for bulk frames (stripes.ts). */
export const STRIPES_CAPABILITY = "stripes";
export const CAPABILITIES: readonly string[] = [STRIPES_CAPABILITY];

export const startHandshake = (facts: HandshakeFacts): readonly [HandshakeState, ControlOf<"hello">] => [
  { step: "helloAwaited", facts },
  {
    type: "hello",
    protocol: { min: PROTOCOL_VERSION, max: PROTOCOL_VERSION },
    capabilities: [...CAPABILITIES],
    userId: facts.localUserId,
    generation: facts.offerGeneration,
    nonce: facts.nonce,
    runId: facts.runId,
    ...(facts.paddingBytes ? { padding: "0".repeat(facts.paddingBytes) } : {}),
  },
];

/** From the signer's point of view: its own nonce, user id and certificate first. */
export const proofBytes = (signer: {
  readonly nonce: Uint8Array;
  readonly peerNonce: Uint8Array;
  readonly userId: string;
  readonly peerUserId: string;
  readonly fingerprint: string;
  readonly peerFingerprint: string;
}): Uint8Array<ArrayBuffer> =>
  concatBytes(
    utf8("weir link proof v1\0"),
    signer.nonce,
    signer.peerNonce,
    utf8(`${signer.userId}\0${signer.peerUserId}\0`),
    fingerprintBytes(signer.fingerprint),
    fingerprintBytes(signer.peerFingerprint),
  );

/** One control message of the peer; the message that comes back, if any, must be sent before the next one is fed in. */
export const stepHandshake = (
  state: HandshakeState,
  message: ControlMessage,
  keys: HandshakeKeys,
): readonly [HandshakeState, ControlOf<"proof"> | null] => {
  if (state.step === "refused") return [state, null];
  if (state.step === "helloAwaited" && message.type === "hello") return helloArrived(state.facts, message, keys);
  if (state.step === "proofAwaited" && message.type === "proof") {
    const { facts, peerNonce } = state;
    const signed = proofBytes({
      nonce: peerNonce,
      peerNonce: facts.nonce,
      userId: facts.peerUserId,
      peerUserId: facts.localUserId,
      fingerprint: facts.remoteFingerprint,
      peerFingerprint: facts.localFingerprint,
    });
    return keys.verify(signed, message.signature) ? [{ step: "proven" }, null] : [refused("wrong_proof"), null];
  }
  return [refused("unexpected_message"), null];
};

const refused = (reason: HandshakeRefusal): HandshakeState => ({ step: "refused", reason });

const helloArrived = (
  facts: HandshakeFacts,
  hello: ControlOf<"hello">,
  keys: HandshakeKeys,
): readonly [HandshakeState, ControlOf<"proof"> | null] => {
  const { min, max } = hello.protocol;
  if (hello.userId !== facts.peerUserId) return [refused("wrong_user"), null];
  if (hello.generation !== facts.offerGeneration) return [refused("wrong_generation"), null];
  if (min > PROTOCOL_VERSION || max < PROTOCOL_VERSION) return [refused("wrong_version"), null];
  // Our own nonce sent back would make the two sides' proofs look alike.
  if (bytesEqual(hello.nonce, facts.nonce)) return [refused("unexpected_message"), null];
  const signature = keys.sign(
    proofBytes({
      nonce: facts.nonce,
      peerNonce: hello.nonce,
      userId: facts.localUserId,
      peerUserId: facts.peerUserId,
      fingerprint: facts.localFingerprint,
      peerFingerprint: facts.remoteFingerprint,
    }),
  );
  return [
    { step: "proofAwaited", facts, peerNonce: hello.nonce },
    { type: "proof", signature },
  ];
};
