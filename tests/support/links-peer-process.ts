import { Emitter } from "#shared/base/emitter.ts";
import { ok } from "#shared/base/result.ts";
import type { Sealed } from "#shared/rendezvous/protocol.ts";
import { createLinks, type LinksDeps } from "../../src-main/links/connection-manager.ts";
import type { Links } from "../../src-main/links/links.ts";
import { systemEnv } from "../../src-main/log.ts";
import { userIdOf } from "./links-ids.ts";

/**
 * One side of a link in a process of its own; signals go through the IPC channel of `fork`. As a script it is the second
 * person: it connects, and with the argument `leave` it disposes of everything once the link stands.
 */
export type Wire = { kind: Sealed["kind"]; body: string };

export const linksOver = (
  self: 0 | 1,
  tell: (wire: Wire) => void,
): { links: Links; heard: (wire: Wire) => void; peer: ReturnType<typeof userIdOf> } => {
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
  });
  const heard = ({ kind, body }: Wire): void =>
    signals.emit({ from: peer, sealed: { kind, body: new Uint8Array(Buffer.from(body, "base64")) }, generation: 1 });
  return { links, heard, peer };
};

if (process.argv[1] === import.meta.filename) {
  const { links, heard, peer } = linksOver(1, (wire) => process.send?.(wire));
  process.on("message", heard);
  links.onChanged((view) => {
    if (view.state !== "connected" || process.argv[2] !== "leave") return;
    void links.disable().then(() => {
      links.dispose();
      process.disconnect();
    });
  });
  links.enable();
  links.connect(peer);
}
