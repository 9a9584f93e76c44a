import { KEMPublicKey, PublicKey, PreKeyBundle as SignalBundle } from "@signalapp/libsignal-client";
import { bytesEqual } from "#shared/base/bytes.ts";
import type { UserId } from "#shared/base/ids.ts";
import { fail, ok, type Result } from "#shared/base/result.ts";
import { deviceKeysSigningBytes, type PreKeyBundle } from "#shared/rendezvous/protocol.ts";
import { userIdOf, verifyAccountSignature } from "./identity.ts";

type BadBundle = { type: "bad_bundle"; message: string };

const bad = (what: string) =>
  fail("bad_bundle", `The keys that the server gave for this contact are not genuine (${what}). Nothing was sent.`);

/**
 * Checks the chain from the user id to every long-lived key before libsignal sees it:
 * user id = hash of the account key; account key signed the device keys; identity key signed the prekeys.
 * The one-time EC key carries no signature (as in X3DH): a server that swaps it makes a first message that cannot be
 * opened, and learns nothing, because the other agreements still go into the secret.
 */
export const verifyBundle = (
  peer: UserId,
  deviceId: number,
  bundle: PreKeyBundle,
  expectedIdentityKey: Uint8Array | undefined,
): Result<{ bundle: SignalBundle; identityKey: Uint8Array<ArrayBuffer> }, BadBundle> => {
  const { keys, accountKey } = bundle;
  if (bundle.userId !== peer || userIdOf(accountKey) !== peer) return bad("they belong to another account");
  if (bundle.deviceId !== deviceId) return bad("they belong to another device");
  const signed = deviceKeysSigningBytes(keys, bundle.userId, bundle.deviceId);
  if (!verifyAccountSignature(accountKey, signed, keys.signature)) return bad("the account signature is wrong");
  if (expectedIdentityKey !== undefined && !bytesEqual(expectedIdentityKey, keys.identityKey))
    return bad("the identity key is not the one of the invitation");
  return toSignalBundle(bundle);
};

const toSignalBundle = (
  bundle: PreKeyBundle,
): Result<{ bundle: SignalBundle; identityKey: Uint8Array<ArrayBuffer> }, BadBundle> => {
  const { keys, oneTimeEc } = bundle;
  const { signedPreKey, lastResortKyber } = keys;
  const kyber = bundle.oneTimeKyber ?? lastResortKyber;
  try {
    const identityKey = PublicKey.deserialize(keys.identityKey);
    const prekeys = [signedPreKey, lastResortKyber, kyber];
    if (!prekeys.every((prekey) => identityKey.verify(prekey.key, prekey.signature)))
      return bad("a prekey signature is wrong");
    return ok({
      identityKey: keys.identityKey,
      bundle: SignalBundle.new(
        keys.registrationId,
        bundle.deviceId,
        oneTimeEc?.id ?? null,
        oneTimeEc === null ? null : PublicKey.deserialize(oneTimeEc.key),
        signedPreKey.id,
        PublicKey.deserialize(signedPreKey.key),
        signedPreKey.signature,
        identityKey,
        kyber.id,
        KEMPublicKey.deserialize(kyber.key),
        kyber.signature,
      ),
    });
  } catch {
    // libsignal throws for bytes that are no key.
    return bad("a key is malformed");
  }
};
