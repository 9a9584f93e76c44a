import { generateKeyPairSync, type KeyObject, sign, verify } from "node:crypto";
import { Emitter } from "#shared/base/emitter.ts";
import type { Clock, Env, Log, Random } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import { ok } from "#shared/base/result.ts";
import type { LinkView } from "#shared/ipc/views.ts";
import type { Sealed } from "#shared/rendezvous/protocol.ts";
import { decodeContent, type LinkSignal } from "#shared/wire/content.ts";
import { systemClock, systemRandom } from "../../src-main/env.ts";
import { createLinks, type LinksDeps } from "../../src-main/links/connection-manager.ts";
import { createRtcDriver } from "../../src-main/links/driver.ts";
import type { LinkManager, Links } from "../../src-main/links/links.ts";
import { userIdFrom, userIdOf } from "./links-ids.ts";

/** What the signal network does with one signal: how often it arrives, and after how long each time. */
export type Fate = readonly number[];
const onTime: Fate = [0];

/** Keeps what was logged; links must stay silent about addresses and SDP. */
export const recordingLog = (): Log & { readonly lines: string[] } => {
  const lines: string[] = [];
  const add = (message: string, fields?: Record<string, unknown>): void => {
    lines.push(`${message} ${JSON.stringify(fields ?? {})}`);
  };
  const log = { lines, debug: add, info: add, warn: add, error: add, child: () => log };
  return log;
};

interface Member {
  readonly userId: UserId;
  readonly key: { readonly publicKey: KeyObject; readonly privateKey: KeyObject };
  readonly signals: Emitter<{ from: UserId; sealed: Sealed; generation: number }>;
  readonly connected: Emitter<{ generation: number }>;
  online: boolean;
}

/**
 * People around a signal relay in memory: it does not encrypt, and `fate` lets a test lose, repeat, delay and reorder.
 * Accounts and proofs are real.
 */
export class LinksWorld {
  readonly #members = new Map<UserId, Member>();
  #random: Random = systemRandom;
  readonly clock: Clock;
  readonly log = recordingLog();
  fate: (from: UserId, to: UserId, type: LinkSignal["type"] | null) => Fate = () => onTime;
  signals = 0;

  /** With a `chance` of its own the world does not depend on the machine's. */
  constructor(clock: Clock = systemClock, chance: (() => number) | null = null) {
    this.clock = clock;
    if (chance !== null) this.#random = { ...systemRandom, number: chance };
  }

  /** Lower `order`, lower user id: the lowest of a pair is its dialer. */
  add(order: number): Member {
    return this.join(userIdOf(order));
  }

  /** Many people: a user id that starts with `name`. */
  addNamed(name: string): Member {
    return this.join(userIdFrom(name));
  }

  join(userId: UserId): Member {
    const member: Member = {
      userId,
      key: generateKeyPairSync("ed25519"),
      signals: new Emitter((error) => this.log.error(String(error))),
      connected: new Emitter((error) => this.log.error(String(error))),
      online: true,
    };
    this.#members.set(userId, member);
    return member;
  }

  deps(member: Member, overrides: Partial<LinksDeps> = {}): Omit<LinksDeps, "driver"> {
    const env: Env = { clock: this.clock, random: this.#random, log: this.log };
    return {
      env,
      localUserId: member.userId,
      signaling: {
        onSignal: member.signals.event,
        onConnected: member.connected.event,
        request: (async (_name: string, input: { to: UserId; sealed: Sealed }) =>
          ok({ delivered: this.#relay(member, input.to, input.sealed) })) as LinksDeps["signaling"]["request"],
      },
      sessions: {
        seal: async (_peer, plaintext, commit) => ok(commit({ kind: "message", body: new Uint8Array(plaintext) })),
        open: async (_peer, sealed, commit) => ok(commit(sealed.body)),
      },
      account: { sign: (bytes) => new Uint8Array(sign(null, bytes, member.key.privateKey)) },
      accountKeyOf: (peer) => {
        const found = this.#members.get(peer);
        return found === undefined ? null : new Uint8Array(found.key.publicKey.export({ format: "der", type: "spki" }));
      },
      verifyAccountSignature: (key, bytes, signature) =>
        verify(null, bytes, { key: Buffer.from(key), format: "der", type: "spki" }, signature),
      mayLink: (peer) => this.#members.has(peer),
      ...overrides,
    };
  }

  links(member: Member, overrides: Partial<LinksDeps> = {}): LinkManager {
    const deps = this.deps(member, overrides);
    return createLinks({ ...deps, driver: overrides.driver ?? createRtcDriver(deps.env) });
  }

  #relay(from: Member, to: UserId, sealed: Sealed): boolean {
    this.signals += 1;
    const target = this.#members.get(to);
    if (target === undefined || !target.online || !from.online) return false;
    for (const delayMs of this.fate(from.userId, to, typeOf(sealed))) {
      const arrive = (): void => {
        if (target.online) target.signals.emit({ from: from.userId, sealed, generation: 1 });
      };
      this.clock.setTimer(delayMs, arrive);
    }
    return true;
  }
}

/** Tests send garbage too. */
const typeOf = (sealed: Sealed): LinkSignal["type"] | null => {
  const content = decodeContent(sealed.body);
  return content.ok && content.value.kind === "link" ? content.value.signal.type : null;
};

/** Resolves with the first view of this peer that fits, now or later. */
export const untilView = (links: Links, peer: UserId, fits: (view: LinkView) => boolean): Promise<LinkView> => {
  const now = links.view(peer);
  if (fits(now)) return Promise.resolve(now);
  return new Promise((resolve) => {
    const subscription = links.onChanged((view) => {
      if (view.peerId !== peer || !fits(view)) return;
      subscription.dispose();
      resolve(view);
    });
  });
};
export const untilConnected = (links: Links, peer: UserId): Promise<LinkView> =>
  untilView(links, peer, (view) => view.state === "connected");
