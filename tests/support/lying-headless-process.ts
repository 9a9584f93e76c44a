import { randomBytes } from "node:crypto";
import { appendFileSync, readFileSync } from "node:fs";
import { type ControlMessage, decodeControl, encodeControl } from "#shared/wire/control.ts";
import { BULK_HEADER_BYTES, decodeBulkHead, encodeBulkFrame } from "#shared/wire/frame.ts";
import type { ForkEngine, FromEngine, ToEngine } from "../../src-main/engine/engine-protocol.ts";
import { forkEngine } from "../../src-main/host/headless/fork-engine.ts";
import { LIE_VARIABLE, type Lie } from "./lies.ts";

/**
 * The headless host of somebody whose program does as it likes: what it sends to others, and what it hears of them, is
 * changed on its way to and from its engine. The links are real, and so is whoever is at their other end.
 */
const lieFile = process.env[LIE_VARIABLE] ?? "";
const lieNow = (): Lie | "" => readFileSync(lieFile, "utf8") as Lie | "";
/** So that a test knows that the lie was told at all. */
const lied = (): void => appendFileSync(`${lieFile}.told`, ".");

/** Longer than a request waits for the first time. */
const NOW_AND_THEN_MS = 3000;
/** More than a link may have under way. */
const FLOOD_FRAMES = 200;
const FLOOD_MESSAGES = 5000;
const CHUNK_BYTES = 65_552;

type SendHeld = Extract<ToEngine, { type: "sendHeld" }>;

const lyingEngine: ForkEngine = (listener) => {
  const direct = { post: (messages: readonly ToEngine[]) => port.post(messages) };
  const port = forkEngine({
    ...listener,
    messages: (messages) => {
      const heard = messages.filter((message) => !isIgnored(message, direct.post));
      if (heard.length < messages.length) lied();
      if (heard.length > 0) listener.messages(heard);
    },
  });
  return {
    pid: port.pid,
    kill: () => port.kill(),
    post: (messages) => port.post(messages.flatMap((message) => said(message, direct.post))),
  };
};

const control = (c: number, message: ControlMessage): ToEngine => ({
  ...{ type: "send", c, channel: "control", bytes: encodeControl(message) },
});

/** What a peer asks for, and this side does not want to have heard. */
const isIgnored = (message: FromEngine, post: (messages: readonly ToEngine[]) => void): boolean => {
  if (message.type !== "event" || message.event.type !== "message" || message.event.bytes === null) return false;
  if (message.event.channel !== "control") return false;
  const decoded = decodeControl(message.event.bytes);
  if (!decoded.ok) return false;
  const asked = decoded.value;
  const lie = lieNow();
  if (lie === "no accept") return asked.type === "open";
  if (lie === "silence") return asked.type === "request" || asked.type === "leaves";
  if (lie !== "claims what it lacks" || asked.type !== "request") return false;
  post([control(message.c, { type: "unavailable", tag: asked.tag, indices: asked.indices })]);
  return true;
};

const said = (message: ToEngine, post: (messages: readonly ToEngine[]) => void): ToEngine[] => {
  const lie = lieNow();
  if (lie === "" || message.type === "sendHeld")
    return lie === "" ? [message] : chunkSaid(message as SendHeld, lie, post);
  if (lie !== "counts what it never sent" || message.type !== "send" || message.channel !== "control") return [message];
  const decoded = decodeControl(new Uint8Array(message.bytes));
  if (!decoded.ok || decoded.value.type !== "stopped") return [message];
  lied();
  return [control(message.c, { ...decoded.value, framesSent: decoded.value.framesSent + 1000 })];
};

const chunkSaid = (message: SendHeld, lie: Lie, post: (messages: readonly ToEngine[]) => void): ToEngine[] => {
  const { c, frame, head } = message;
  const payloadBytes = new DataView(head.buffer, head.byteOffset).getUint32(16);
  const decoded = decodeBulkHead(head, { frame, byteLength: payloadBytes });
  if (!decoded.ok || decoded.value.kind !== "chunk") return [message];
  const { payload: _, ...header } = decoded.value;
  const bulk = (bytes: Uint8Array<ArrayBuffer>): ToEngine => ({ type: "send", c, channel: "bulk", bytes });
  const noise = (bytes: number, change: Partial<typeof header> = {}): ToEngine =>
    bulk(encodeBulkFrame({ ...header, ...change, payload: new Uint8Array(randomBytes(bytes)) }));
  const instead = (...frames: ToEngine[]): ToEngine[] => [{ type: "drop", frames: [frame] }, ...frames];
  const withHead = (change: Partial<typeof header>): Uint8Array<ArrayBuffer> =>
    encodeBulkFrame({ ...header, ...change, payload: new Uint8Array(payloadBytes) }).slice(0, BULK_HEADER_BYTES);
  lied();
  switch (lie) {
    case "wrong bytes":
      return instead(noise(payloadBytes));
    case "short chunks":
      return instead(noise(payloadBytes - 1));
    case "long chunks":
      return instead(noise(payloadBytes + 1));
    case "wrong indices":
      return [{ ...message, head: withHead({ index: header.index ^ 1 }) }];
    case "cut frames": {
      const whole = encodeBulkFrame({ ...header, payload: new Uint8Array(payloadBytes) });
      return instead(bulk(whole.slice(0, whole.length / 2)));
    }
    case "unrequested chunks":
      return [message, noise(payloadBytes, { index: header.index + 1000 })];
    case "repeated chunks":
      return [message, noise(payloadBytes)];
    case "a chunk now and then":
      setTimeout(() => post([message]), NOW_AND_THEN_MS * (1 + header.sequence)).unref();
      return [];
    case "a flood of frames":
      return [message, ...Array.from({ length: FLOOD_FRAMES }, () => noise(CHUNK_BYTES))];
    case "a flood of messages":
      return [
        message,
        ...Array.from({ length: FLOOD_MESSAGES }, () =>
          control(c, { type: "have", tag: header.tag, chunks: [[0, 1]], leaves: true }),
        ),
      ];
    case "leaves out every other chunk":
      return header.index % 2 === 0 ? instead() : [message];
    default:
      return [message];
  }
};

const [{ runHeadless }, { startApp }] = await Promise.all([
  import("../../src-main/host/headless/run.ts"),
  import("../../src-main/start-app.ts"),
]);
await runHeadless(process.argv.slice(2), (options) => startApp({ ...options, forkEngine: lyingEngine }));
