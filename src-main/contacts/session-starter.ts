import { bytesEqual } from "#shared/base/bytes.ts";
import type { UserId } from "#shared/base/ids.ts";
import { fail, type Result } from "#shared/base/result.ts";
import type { PreKeyBundle } from "#shared/rendezvous/protocol.ts";
import type { Sessions } from "../crypto/sessions.ts";
import type { Signaling } from "../signaling/signaling.ts";
import type { ContactRecord } from "../store/contacts.ts";
import type { Introduction } from "./invites.ts";

/**
 * Fetches keys of peers and starts sessions with them. The server that hands the keys out is not believed: `sessions`
 * checks the whole chain from the user id down.
 */
export class SessionStarter {
  readonly #sessions: Sessions;
  readonly #signaling: Signaling;

  constructor(deps: { sessions: Sessions; signaling: Signaling }) {
    this.#sessions = deps.sessions;
    this.#signaling = deps.signaling;
  }

  /** A session with a contact that lost it. */
  async start(peer: UserId, existing: "keep" | "renew"): Promise<Result<void>> {
    const bundle = await this.#fetch(peer);
    return bundle.ok ? this.#sessions.start(peer, bundle.value, undefined, existing) : bundle;
  }

  /**
   * A session for answering an invitation. With somebody who is a contact already it is a fresh one, because an
   * invitation from them means that they may have removed us and forgotten theirs.
   */
  async introduce(introduction: Introduction, known: ContactRecord | null): Promise<Result<void>> {
    const { peer, via } = introduction;
    const bundle = await this.#fetch(peer);
    if (!bundle.ok) return bundle;
    const expected = via.kind === "link" ? via.identityKey : undefined;
    if (expected !== undefined && !bytesEqual(expected, bundle.value.keys.identityKey))
      return fail("pairing_tampered", "The server offered other keys than the invitation names. Nothing was sent.");
    return this.#sessions.start(peer, bundle.value, expected, known === null ? "keep" : "renew");
  }

  #fetch(peer: UserId): Promise<Result<PreKeyBundle>> {
    return this.#signaling.request("keys.fetch", { userId: peer });
  }
}
