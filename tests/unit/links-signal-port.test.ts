import * as v from "valibot";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Emitter } from "#shared/base/emitter.ts";
import type { Log } from "#shared/base/env.ts";
import { type UserId, UserIdSchema } from "#shared/base/ids.ts";
import { fail, ok } from "#shared/base/result.ts";
import type { Sealed } from "#shared/rendezvous/protocol.ts";
import { encodeContent } from "#shared/wire/content.ts";
import type { SessionError, Sessions } from "../../src-main/crypto/sessions.ts";
import { SignalPort } from "../../src-main/links/signal-port.ts";
import type { Signaling } from "../../src-main/signaling/signaling.ts";

const ignore = (): void => undefined;
const log: Log = { debug: ignore, info: ignore, warn: ignore, error: ignore, child: () => log };
const bob: UserId = v.parse(UserIdSchema, "b".repeat(32));
const dial = { type: "dial", generation: 7 } as const;
const plain = encodeContent({ kind: "link", signal: dial });

let answers: boolean[];
let sent: number;
/** Runs while the server thinks about an answer. */
let meanwhile: () => void;
let failure: SessionError["type"] | null;
let broken: string[];
let received: number;
let signals: Emitter<{ from: UserId; sealed: Sealed; generation: number }>;
let port: SignalPort;

const error = (type: SessionError["type"]) => fail(type, "no");

beforeEach(() => {
  [answers, sent, meanwhile, failure, broken, received] = [[], 0, ignore, null, [], 0];
  signals = new Emitter(ignore);
  const request = async () => {
    sent += 1;
    meanwhile();
    return ok({ delivered: answers.shift() ?? true });
  };
  const seal = async (_peer: UserId, plaintext: Uint8Array<ArrayBuffer>, commit: (sealed: Sealed) => unknown) =>
    failure === null ? ok(commit({ kind: "message", body: plaintext })) : error(failure);
  const open = async (_peer: UserId, sealed: Sealed, commit: (plaintext: Uint8Array<ArrayBuffer>) => unknown) =>
    failure === null ? ok(commit(sealed.body)) : error(failure);
  port = new SignalPort({
    log,
    clock: { now: () => 0, monotonicMs: () => 0, setTimer: () => ({ dispose: ignore }) },
    directory: null,
    generation: 1,
    linkState: () => "discovering",
    onStale: ignore,
    // Doubles of the two calls that are made; the real ones know the type of each answer.
    signaling: { request: request as Signaling["request"], onSignal: signals.event },
    sessions: { seal: seal as Sessions["seal"], open: open as Sessions["open"] },
    mayLink: () => true,
    onSignal: () => {
      received += 1;
    },
    onBroken: (_peer, lost) => broken.push(lost ? "lost" : "unreadable"),
  });
});
afterEach(() => port.dispose());

test("a peer that came online while the server called it offline gets the signal at once, and only once more", async () => {
  answers = [false, true];
  meanwhile = () => port.cameOnline(bob);
  expect(await port.send(bob, dial, () => true)).toBe("delivered");
  expect(sent).toBe(2);
  answers = [false, false, true];
  expect(await port.send(bob, dial, () => true)).toBe("offline");
  expect(sent).toBe(4);
});

test("a peer that is offline, or another one that came online, costs one signal", async () => {
  port.cameOnline(bob);
  meanwhile = () => port.cameOnline(v.parse(UserIdSchema, "c".repeat(32)));
  answers = [false];
  expect(await port.send(bob, dial, () => true)).toBe("offline");
  expect(sent).toBe(1);
});

test("without a session, or with a wrong one, the session is repaired; a copy means nothing", async () => {
  failure = "no_session";
  expect(await port.send(bob, dial, () => true)).toBe("failed");
  expect(broken).toEqual(["lost"]);
  for (const type of ["no_session", "undecryptable", "duplicate_message", "identity_changed"] as const) {
    failure = type;
    signals.emit({ from: bob, sealed: { kind: "message", body: plain }, generation: 1 });
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(broken).toEqual(["lost", "lost", "unreadable"]);
  failure = null;
  signals.emit({ from: bob, sealed: { kind: "message", body: plain }, generation: 1 });
  await new Promise((resolve) => setImmediate(resolve));
  expect([received, port.dropped]).toEqual([1, 4]);
});
