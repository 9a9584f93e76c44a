import * as v from "valibot";
import { toBase64Url } from "#shared/base/bytes.ts";
import { type RelayId, RelayIdSchema } from "#shared/base/ids.ts";
import { RELAY_FRAME_BYTES_MAX } from "#shared/base/limits.ts";
import { decodeRelayFrame, encodeRelayFrame, relayCost } from "#shared/rendezvous/relay.ts";
import { bytes, RawClient } from "./rendezvous.ts";

export const newRelayId = (): RelayId => v.parse(RelayIdSchema, toBase64Url(bytes(16)));

export const befriend = async (a: RawClient, b: RawClient): Promise<void> => {
  await a.must("presence.watch", { userIds: [b.identity.userId] });
  await b.must("presence.watch", { userIds: [a.identity.userId] });
};

/** One end of a relay, of a client that keeps to the rules only as far as the test wants. */
export class RelayEnd {
  readonly client: RawClient;
  readonly relayId: RelayId;
  readonly frames: Uint8Array[] = [];
  /** What was sent and what has come, as `relayCost`. */
  sent = 0;
  received = 0;
  /** Acknowledges every frame as it comes. */
  acknowledges = true;
  readonly #waiters = new Set<() => void>();

  constructor(client: RawClient, relayId: RelayId) {
    this.client = client;
    this.relayId = relayId;
    client.socket.on("relay", (raw: unknown) => {
      const frame = decodeRelayFrame(raw);
      if (!frame.ok || frame.value.relayId !== relayId) return;
      this.frames.push(new Uint8Array(frame.value.sealed));
      this.received += relayCost(frame.value.sealed.length);
      if (this.acknowledges) this.acknowledge(this.received);
      for (const wake of [...this.#waiters]) wake();
    });
    client.socket.on("push", () => {
      for (const wake of [...this.#waiters]) wake();
    });
  }

  get granted(): number {
    const credits = this.client.named("relayCredit").filter(({ relayId }) => relayId === this.relayId);
    return Math.max(0, ...credits.map(({ grantedBytes }) => Number(grantedBytes)));
  }

  /** Why it was closed; undefined while it is not. */
  get closed(): unknown {
    return this.client.named("relayClosed").find(({ relayId }) => relayId === this.relayId)?.["reason"];
  }

  send(sealed: Uint8Array): void {
    this.sent += relayCost(sealed.length);
    this.client.socket.emit("relay", encodeRelayFrame(this.relayId, sealed));
  }

  /** Sends a frame if the credit allows it. */
  sendIfAllowed(sealed: Uint8Array): boolean {
    if (this.sent + relayCost(sealed.length) > this.granted) return false;
    this.send(sealed);
    return true;
  }

  acknowledge(takenBytes: number): void {
    this.client.socket.emit("relayAck", { relayId: this.relayId, takenBytes });
  }

  /** Resolves as soon as `done` holds; it is asked again with every frame and push. */
  async until(done: () => boolean): Promise<void> {
    while (!done()) {
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          this.#waiters.delete(wake);
          resolve();
        };
        this.#waiters.add(wake);
      });
    }
  }

  /** Sends that many frames, each as soon as there is credit for it. */
  async sendAll(count: number, frame: (index: number) => Uint8Array): Promise<void> {
    for (let index = 0; index < count; index++) {
      const sealed = frame(index);
      await this.until(() => this.closed !== undefined || this.sendIfAllowed(sealed));
    }
  }
}

/** Two friends who are online, with a relay between them. */
export const openRelayBetween = async (alice: RawClient, bob: RawClient): Promise<readonly [RelayEnd, RelayEnd]> => {
  const relayId = newRelayId();
  const ends = [new RelayEnd(alice, relayId), new RelayEnd(bob, relayId)] as const;
  await alice.must("relay.open", { relayId, to: bob.identity.userId });
  await bob.must("relay.accept", { relayId, from: alice.identity.userId });
  for (const end of ends) await end.until(() => end.granted > 0);
  return ends;
};

export const relayedFriends = async (url: string): Promise<readonly [RelayEnd, RelayEnd]> => {
  const [alice, bob] = [await RawClient.loggedIn(url), await RawClient.loggedIn(url)];
  await befriend(alice, bob);
  return openRelayBetween(alice, bob);
};

/** A frame of that size whose first bytes say which one it is. */
export const numbered = (index: number, size = RELAY_FRAME_BYTES_MAX): Uint8Array => {
  const frame = new Uint8Array(size).fill(index & 0xff);
  new DataView(frame.buffer).setUint32(0, index);
  return frame;
};
export const numbersOf = (frames: readonly Uint8Array[]): number[] =>
  frames.map((frame) => new DataView(frame.buffer, frame.byteOffset).getUint32(0));
