import { fork } from "node:child_process";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Emitter } from "#shared/base/emitter.ts";
import { ok } from "#shared/base/result.ts";
import type { Sealed } from "#shared/rendezvous/protocol.ts";
import { BULK_HEADER_BYTES, writeBulkHeader } from "#shared/wire/frame.ts";
import { createLinks, type LinksDeps } from "../../src-main/links/connection-manager.ts";
import { createRtcDriver } from "../../src-main/links/driver.ts";
import { systemEnv } from "../../src-main/log.ts";
import { userIdOf } from "../support/links-ids.ts";
import { untilConnected } from "../support/links-world.ts";

/**
 * The bulk path of a link (sendBulk, onBulk, release) between two processes over loopback, frames of 64 KiB.
 *   node tests/bench/links-throughput.ts [--mib 256] [--mtu 4000] -> one JSON line in the shape of raw-datachannel
 */
const { values } = parseArgs({
  options: { mib: { type: "string", default: "256" }, mtu: { type: "string" }, role: { type: "string" } },
});
const isReceiver = values.role === "receiver";
const messageBytes = 64 * 1024;
const totalBytes = Number(values.mib) * 1024 * 1024;
const [local, peer] = isReceiver ? [userIdOf(1), userIdOf(0)] : [userIdOf(0), userIdOf(1)];
const delay = monitorEventLoopDelay({ resolution: 1 });

type Message = { ready: true } | { kind: Sealed["kind"]; body: string } | { done: number; eventLoopP99Ms: number };
const child = isReceiver
  ? null
  : fork(fileURLToPath(import.meta.url), [
      "--role",
      "receiver",
      "--mib",
      values.mib,
      ...(values.mtu === undefined ? [] : ["--mtu", values.mtu]),
    ]);
const tell = (message: Message): void => {
  if (child === null) process.send?.(message);
  else child.send(message);
};

const env = systemEnv();
const signals = new Emitter<{ from: typeof peer; sealed: Sealed; generation: number }>(() => undefined);
const deps: LinksDeps = {
  env,
  driver: createRtcDriver(env),
  localUserId: local,
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
  account: { sign: () => new Uint8Array(64) },
  accountKeyOf: () => new Uint8Array(32),
  verifyAccountSignature: () => true,
  mayLink: () => true,
  bindAddress: "127.0.0.1",
  mtu: values.mtu === undefined ? undefined : Number(values.mtu),
};
const links = createLinks(deps);

let startedAtMs = 0;
const onMessage = (message: Message): void => {
  if ("kind" in message)
    signals.emit({
      from: peer,
      sealed: { kind: message.kind, body: new Uint8Array(Buffer.from(message.body, "base64")) },
      generation: 1,
    });
  else if ("ready" in message) links.connect(peer);
  else {
    const seconds = (performance.now() - startedAtMs) / 1000;
    const line = {
      bench: "links-throughput",
      megabytesPerSecond: Math.round((message.done / 1e6 / seconds) * 10) / 10,
      bytes: message.done,
      seconds: Math.round(seconds * 1000) / 1000,
      mtu: deps.mtu ?? null,
      messageBytes,
      eventLoopP99Ms: Math.round(delay.percentile(99) / 1e5) / 10,
      receiverEventLoopP99Ms: message.eventLoopP99Ms,
    };
    process.stdout.write(`${JSON.stringify(line)}\n`);
    child?.kill();
    links.dispose();
  }
};
(child ?? process).on("message", onMessage);
links.enable();

if (isReceiver) {
  let received = 0;
  links.onBulk(({ peer: from, generation, bytes }) => {
    if (received === 0) delay.enable();
    received += bytes;
    links.release(from, generation, bytes);
    if (received === totalBytes) tell({ done: received, eventLoopP99Ms: Math.round(delay.percentile(99) / 1e5) / 10 });
  });
  links.connect(peer);
  tell({ ready: true });
} else {
  const { generation } = await untilConnected(links, peer);
  const frame = new Uint8Array(messageBytes);
  let sent = 0;
  const pump = (): void => {
    while (sent < totalBytes) {
      const index = sent / messageBytes;
      writeBulkHeader(frame, { kind: "chunk", tag: 1, sequence: index, index }, messageBytes - BULK_HEADER_BYTES);
      if (links.sendBulk(peer, generation, frame) !== "sent") return;
      sent += messageBytes;
    }
  };
  links.onDrained(pump);
  startedAtMs = performance.now();
  delay.enable();
  pump();
}
