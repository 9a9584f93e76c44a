import { Emitter } from "#shared/base/emitter.ts";
import { ok } from "#shared/base/result.ts";
import type { Sealed } from "#shared/rendezvous/protocol.ts";
import { BULK_HEADER_BYTES, encodeControlFrame, writeBulkHeader } from "#shared/wire/frame.ts";
import { createLinks, type LinksDeps } from "../../src-main/links/connection-manager.ts";
import { createRtcDriver } from "../../src-main/links/driver.ts";
import type { LinkManager } from "../../src-main/links/links.ts";
import type { TransportDriver } from "../../src-main/links/transport.ts";
import { systemEnv } from "../../src-main/log.ts";
import { userIdOf } from "./links-ids.ts";
import { createRawPeer, type RawPeer } from "./links-raw-driver.ts";

/**
 * One side of a link in a process of its own; signals go through the IPC channel of `fork`. As a script it is the second
 * person: it connects, and as its argument says: `leave` disposes of everything once the link stands, `echo` sends every
 * message back, `pump` sends
 * without end, `attack` keeps no rule once it is told to begin.
 */
export type Wire = { kind: Sealed["kind"]; body: string };

export const linksOver = (
  self: 0 | 1,
  tell: (wire: Wire) => void,
  driver: TransportDriver = createRtcDriver(systemEnv()),
): { links: LinkManager; heard: (wire: Wire) => void; peer: ReturnType<typeof userIdOf> } => {
  const [localUserId, peer] = [userIdOf(self), userIdOf(1 - self)];
  const signals = new Emitter<{ from: typeof peer; sealed: Sealed; generation: number }>(() => undefined);
  const links = createLinks({
    env: systemEnv(),
    localUserId,
    signaling: {
      onSignal: signals.event,
      onConnected: new Emitter<{ generation: number }>(() => undefined).event,
      request: (async (_name: string, input: { sealed: Sealed }) => {
        tell({ kind: input.sealed.kind, body: Buffer.from(input.sealed.body).toString("base64") });
        return ok({ delivered: true });
      }) as LinksDeps["signaling"]["request"],
    },
    sessions: {
      seal: async (_peer, plaintext, commit) => ok(commit({ kind: "message", body: new Uint8Array(plaintext) })),
      open: async (_peer, sealed, commit) => ok(commit(sealed.body)),
    },
    // The two processes share no keys; proofs are tested where both sides are in one.
    account: { sign: () => new Uint8Array(64) },
    accountKeyOf: () => new Uint8Array(32),
    verifyAccountSignature: () => true,
    mayLink: () => true,
    driver,
  });
  const heard = ({ kind, body }: Wire): void =>
    signals.emit({ from: peer, sealed: { kind, body: new Uint8Array(Buffer.from(body, "base64")) }, generation: 1 });
  return { links, heard, peer };
};

if (process.argv[1] === import.meta.filename) {
  const what = process.argv[2];
  const raw = what === "attack" ? createRawPeer() : undefined;
  const { links, heard, peer } = linksOver(1, (wire) => process.send?.(wire), raw);
  /** Parent's word: the wire of a signal, or that the attack begins. */
  process.on("message", (wire: Wire | "attack") => {
    if (wire !== "attack") heard(wire);
    else if (raw !== undefined) attack(raw);
  });
  links.onChanged((view) => {
    if (view.state !== "connected" || what !== "leave") return;
    void links.disable().then(() => {
      links.dispose();
      process.disconnect();
    });
  });
  // Whoever asks has an answer at once.
  links.onMessage(({ generation, message }) => {
    if (what === "echo") links.send(peer, generation, message);
  });
  // As much as the link takes, for ever.
  const pump = (generation: number): void => {
    const frame = new Uint8Array(64 * 1024);
    writeBulkHeader(frame, { kind: "chunk", tag: 1, sequence: 0, index: 0 }, frame.length - BULK_HEADER_BYTES);
    while (links.sendBulk(peer, generation, frame) === "sent");
  };
  if (what === "pump") {
    links.onDrained(({ generation }) => pump(generation));
    links.onChanged((view) => {
      if (view.state === "connected") pump(view.generation);
    });
  }
  links.enable();
  links.connect(peer);
}

/** As many channels as the library can open, and a million messages, each of them well formed. */
const attack = (raw: RawPeer): void => {
  raw.openChannels(1022);
  const junk = encodeControlFrame(Buffer.from(JSON.stringify({ type: "pong", id: 1 })));
  let sent = 0;
  const flood = (): void => {
    for (let n = 0; n < 2000; n += 1) if (!raw.send("control", junk)) return;
    sent += 2000;
    if (sent < 1_000_000) setImmediate(flood);
  };
  flood();
};
