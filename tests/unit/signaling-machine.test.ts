import { describe, expect, it } from "vitest";
import { LOGIN_TIMEOUT_MS, RECONNECT_BASE_MS, SERVER_RECONNECT_MAX_MS } from "#shared/base/limits.ts";
import { backoffMs, type Event, initialState, type State, step } from "../../src-main/signaling/signaling-machine.ts";

const URL_A = "ws://a:1";
const challenge = { nonce: new Uint8Array(32), serverId: "server" };
const error = { type: "server_unreachable", message: "It is gone." };

const stateAfter = (events: Event[], from: State = initialState): State =>
  events.reduce<State>((state, event) => step(state, event)[0], from);
const effectsOf = (state: State, event: Event): string[] => step(state, event)[1].map((effect) => effect.type);

const dialling = stateAfter([{ type: "enable", url: URL_A }]);
const loggingIn = stateAfter([{ type: "challenged", generation: 1, challenge }], dialling);
const connected = stateAfter([{ type: "loginAccepted", generation: 1 }], loggingIn);
const lost = (generation: number, byServer = false): Event => ({
  type: "lost",
  generation,
  error,
  byServer,
  jitter: 0,
});

describe("signaling machine", () => {
  it("dials, logs in on the challenge and is connected when the login is accepted", () => {
    expect(dialling).toMatchObject({ kind: "connecting", phase: "dialling", generation: 1, url: URL_A });
    expect(step(initialState, { type: "enable", url: URL_A })[1]).toEqual([
      { type: "openClient", generation: 1, url: URL_A },
      { type: "setTimer", generation: 1, delayMs: LOGIN_TIMEOUT_MS },
      { type: "publish" },
    ]);
    expect(step(dialling, { type: "challenged", generation: 1, challenge })[1]).toEqual([
      { type: "logIn", generation: 1, challenge },
    ]);
    expect(connected).toEqual({ kind: "connected", generation: 1, url: URL_A, failures: 0 });
    expect(effectsOf(loggingIn, { type: "loginAccepted", generation: 1 })).toEqual([
      "stopTimer",
      "publish",
      "announceConnected",
    ]);
  });

  it("answers one challenge per connection", () => {
    expect(effectsOf(loggingIn, { type: "challenged", generation: 1, challenge })).toEqual(["countStale"]);
    expect(effectsOf(connected, { type: "challenged", generation: 1, challenge })).toEqual(["countStale"]);
  });

  it("waits after a loss, in a new generation, and dials again when the time is up", () => {
    const waiting = stateAfter([lost(1)], connected);
    expect(waiting).toMatchObject({ kind: "connecting", phase: "waiting", generation: 2, failures: 0, error });
    expect(effectsOf(connected, lost(1))).toEqual(["announceLost", "closeClient", "setTimer", "publish"]);
    expect(effectsOf(waiting, lost(1))).toEqual(["countStale"]);
    const again = stateAfter([{ type: "timerFired", generation: 2, jitter: 0 }], waiting);
    expect(again).toMatchObject({ kind: "connecting", phase: "dialling", generation: 3, error });
  });

  it("waits longer with each failure, up to the maximum, and starts anew once a connection broke by itself", () => {
    let state = dialling;
    for (let i = 0; i < 12; i++) {
      state = stateAfter([lost(state.generation)], state);
      state = stateAfter([{ type: "timerFired", generation: state.generation, jitter: 0 }], state);
    }
    expect(state).toMatchObject({ failures: 12 });
    const { generation } = state;
    const up = stateAfter(
      [
        { type: "challenged", generation, challenge },
        { type: "loginAccepted", generation },
      ],
      state,
    );
    expect(stateAfter([lost(generation)], up)).toMatchObject({ failures: 0 });
    // Sent away by the server: coming back at once, for ever, would be a fight of two programs over one profile.
    expect(stateAfter([lost(generation, true)], up)).toMatchObject({ failures: 13 });

    expect(backoffMs(0, 0)).toBe(RECONNECT_BASE_MS / 2);
    expect(backoffMs(1, 0.999999)).toBe(RECONNECT_BASE_MS * 2);
    for (const failures of [5, 12, 1000]) {
      expect(backoffMs(failures, 0)).toBe(SERVER_RECONNECT_MAX_MS / 2);
      expect(backoffMs(failures, 0.999999)).toBe(SERVER_RECONNECT_MAX_MS);
    }
  });

  it("gives up an attempt that takes too long", () => {
    for (const state of [dialling, loggingIn]) {
      const [next, effects] = step(state, { type: "timerFired", generation: 1, jitter: 0 });
      expect(next).toMatchObject({ kind: "connecting", phase: "waiting", failures: 1 });
      expect(effects[0]).toEqual({ type: "closeClient", generation: 1, report: false });
    }
  });

  it("dials anew at once when nobody answered, however often, and waits longer and longer for a server that is there", () => {
    const pauseAfter = (phase: typeof dialling): number => {
      const [, effects] = step({ ...phase, failures: 12 } as State, { type: "timerFired", generation: 1, jitter: 0 });
      return effects.find((effect) => effect.type === "setTimer")?.delayMs ?? Number.NaN;
    };
    expect(pauseAfter(dialling)).toBe(RECONNECT_BASE_MS / 2);
    expect(pauseAfter(loggingIn)).toBe(SERVER_RECONNECT_MAX_MS / 2);
  });

  it("ignores being enabled for what it does already, and changes over to another address", () => {
    for (const state of [dialling, loggingIn, connected]) {
      expect(step(state, { type: "enable", url: URL_A })).toEqual([state, []]);
      const closing = stateAfter([{ type: "enable", url: "ws://b:2" }], state);
      expect(closing).toMatchObject({ kind: "closing", client: 1, generation: 2, next: "ws://b:2" });
      expect(stateAfter([{ type: "closed", generation: 1 }], closing)).toMatchObject({
        url: "ws://b:2",
        generation: 3,
      });
    }
    const waiting = stateAfter([lost(1)], connected);
    expect(stateAfter([{ type: "enable", url: URL_A }], waiting)).toMatchObject({ phase: "dialling", generation: 3 });
  });

  it("closes when disabled, and opens again when enabled meanwhile", () => {
    const closing = stateAfter([{ type: "disable", because: null }], connected);
    expect(effectsOf(connected, { type: "disable", because: null })).toEqual([
      "stopTimer",
      "announceLost",
      "closeClient",
      "publish",
    ]);
    expect(stateAfter([{ type: "closed", generation: 1 }], closing)).toMatchObject({
      kind: "disconnected",
      generation: 2,
    });
    const meanwhile = stateAfter(
      [
        { type: "enable", url: URL_A },
        { type: "closed", generation: 1 },
      ],
      closing,
    );
    expect(meanwhile).toMatchObject({ kind: "connecting", phase: "dialling", generation: 3 });
    const twice = stateAfter(
      [
        { type: "enable", url: URL_A },
        { type: "disable", because: null },
        { type: "closed", generation: 1 },
      ],
      closing,
    );
    expect(twice).toMatchObject({ kind: "disconnected", error: null });
  });

  it("rests on an address that cannot be used, and says why", () => {
    const because = { url: "http://x", error: { type: "bad_server_url", message: "No." } };
    for (const state of [initialState, stateAfter([lost(1)], connected)]) {
      expect(stateAfter([{ type: "disable", because }], state)).toMatchObject({ kind: "disconnected", ...because });
    }
    const closing = stateAfter([{ type: "disable", because }], connected);
    expect(stateAfter([{ type: "closed", generation: 1 }], closing)).toMatchObject({
      kind: "disconnected",
      ...because,
    });
  });
});
