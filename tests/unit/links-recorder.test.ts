import { beforeEach, expect, test } from "vitest";
import { defined } from "#shared/base/assert.ts";
import { LINK_RECORDING_STEPS_MAX } from "#shared/base/limits.ts";
import { stepLink } from "../../src-main/links/link-machine.ts";
import { LinkRecorder, readRecording, replayLink } from "../../src-main/links/link-recorder.ts";
import { initialLink, type LinkEvent, type LinkRole } from "../../src-main/links/link-state.ts";
import { RELAY_MARK } from "../../src-main/links/transport.ts";

let recorder: LinkRecorder;
beforeEach(() => {
  recorder = new LinkRecorder();
});

const live = (role: LinkRole) => {
  let state = initialLink(role, 1);
  const record = recorder.add(state);
  return (event: LinkEvent): void => {
    const input = { atMs: 5, random: 0.5, allowed: { rtc: true, relay: true }, event };
    [state] = stepLink(state, input);
    record(input, state);
  };
};
const only = () => {
  const [link, ...others] = recorder.recording().links;
  expect(others).toEqual([]);
  return defined(link, "a link");
};

/** An answerer that gets an early candidate, an offer over the relay, and a goodbye in words of the peer's own. */
const SECRETS = ["198.51.100.7", "wpQ1", "0BADCAFE", "Call me"];
const liveSecretly = (): void => {
  const dispatch = live("answerer");
  const candidate = `candidate:1 1 UDP 2122317823 ${SECRETS[0]} 50000 typ host`;
  dispatch({ type: "connect" });
  dispatch({ type: "signal", signal: { type: "candidate", generation: 9, candidate, mid: "0" } });
  const sdp = `v=0\r\n${RELAY_MARK}\r\na=ice-ufrag:${SECRETS[1]}\r\na=fingerprint:sha-256 ${SECRETS[2]}\r\n`;
  dispatch({ type: "signal", signal: { type: "offer", generation: 9, sdp } });
  dispatch({ type: "localDescription", generation: 2, sdp });
  dispatch({ type: "localCandidate", generation: 2, candidate, mid: "0" });
  dispatch({ type: "signal", signal: { type: "close", generation: 9, reason: `${SECRETS[3]} at eight` } });
};

test("what a link went through runs again from JSON, to the same end", () => {
  liveSecretly();
  const read = readRecording(JSON.parse(JSON.stringify(recorder.recording())));
  if (!read.ok) throw new Error(read.error.message);
  expect(read.value.links.map(replayLink)).toEqual([null]);
  expect(only().steps.map(({ result }) => result.phase)).toContain("connecting");
});

test("nothing in it names an address, a key or a word of the peer, also of steps that were dropped", () => {
  liveSecretly();
  const dispatch = live("dialer");
  for (let i = 0; i < LINK_RECORDING_STEPS_MAX; i += 1) {
    const text = JSON.stringify(recorder.recording());
    if (i < 10) for (const secret of SECRETS) expect(text).not.toContain(secret);
    dispatch({ type: "staleSeen" });
  }
});

test("it is bounded, and begins where the oldest step that is left began", () => {
  const dispatch = live("dialer");
  for (let i = 0; i < LINK_RECORDING_STEPS_MAX / 2; i += 1) {
    dispatch({ type: "connect" });
    dispatch({ type: "disconnect", reason: "closed" });
    dispatch({ type: "staleSeen" });
  }
  const recorded = only();
  expect(recorded.steps).toHaveLength(LINK_RECORDING_STEPS_MAX);
  expect(recorded.start.staleEvents).toBeGreaterThan(0);
  expect(replayLink(recorded)).toBeNull();
});

test("what changed nothing is no step", () => {
  const dispatch = live("dialer");
  dispatch({ type: "disconnect", reason: "closed" });
  expect(recorder.recording().links).toEqual([]);
});

test("the step is named from which a machine goes another way, or fails", () => {
  liveSecretly();
  const recorded = only();
  const missing = { ...recorded, steps: recorded.steps.toSpliced(2, 1) };
  expect(replayLink(missing)).toMatchObject({ step: 2, recorded: { phase: "failed" } });
  const [first] = recorded.steps;
  const unknown = { ...defined(first, "a step"), input: { event: { type: "signal" } } as never };
  expect(replayLink({ ...recorded, steps: [unknown] })).toMatchObject({ step: 0, replayed: expect.any(String) });
});

test.each([null, {}, { links: [{}] }, { links: [{ link: 1, start: {}, steps: [] }] }])("%j is no recording", (json) => {
  expect(readRecording(json)).toMatchObject({ ok: false, error: { type: "no_recording" } });
});
