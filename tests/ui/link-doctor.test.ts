import { render, screen, within } from "@testing-library/svelte";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ok, type Result } from "#shared/base/result.ts";
import type { LinkAttemptView, LinkReport, LinkView, ServerView } from "#shared/ipc/views.ts";
import type { Api } from "../../src-renderer/api.ts";
import { type AdviceFacts, adviceFor } from "../../src-renderer/state/link-advice.ts";
import { LinkDoctor } from "../../src-renderer/state/link-doctor.svelte.ts";
import { reportText } from "../../src-renderer/state/link-report-text.ts";
import { type TestState, testOutcome, testSteps } from "../../src-renderer/state/link-test.ts";
import { linkWords, wayOf } from "../../src-renderer/state/link-words.ts";
import AttemptTable from "../../src-renderer/views/doctor/AttemptTable.svelte";
import ConnectionFacts from "../../src-renderer/views/doctor/ConnectionFacts.svelte";

const PEER = "ba2kq7x2mzt5hw3bnc4vj6ryedasfgpo";
const SERVER: ServerView = { state: "connected", url: "ws://192.168.178.20:41641", error: null };

const link = (changes: Partial<LinkView> = {}): LinkView => ({
  ...{ peerId: PEER, state: "connected", generation: 5, path: "direct", rttMs: 24, reason: null, staleEvents: 0 },
  ...changes,
});

const attempt = (changes: Partial<LinkAttemptView> = {}): LinkAttemptView => ({
  ...{ generation: 5, via: "rtc", startedAtMs: 1_000_000, path: null, reason: null, ms: 300, result: "connected" },
  ...{ localCandidates: ["host", "srflx"], remoteCandidates: ["host"], servers: { stun: 2, turn: 1 } },
  ...changes,
});

const report = (view: LinkView, changes: Partial<LinkReport> = {}): LinkReport => ({
  ...{ link: view, policy: "direct", directAllowed: true, relayAllowed: true, nat: "unknown", stun: null },
  ...{ selected: null, droppedMessages: 0, attempts: [attempt({ path: view.path })] },
  ...changes,
});

const failed = (changes: Partial<LinkAttemptView> = {}, view: Partial<LinkView> = {}): LinkReport =>
  report(link({ state: "failed", path: null, rttMs: null, reason: "unreachable", ...view }), {
    attempts: [attempt({ result: "failed", reason: "unreachable", ms: 20_000, ...changes })],
  });

const relayed = (direct: Partial<LinkAttemptView>, changes: Partial<LinkReport> = {}): LinkReport =>
  report(link({ path: "relay", generation: 6 }), {
    attempts: [
      attempt({ result: "given_up", reason: "relay_was_faster", ...direct }),
      attempt({ generation: 6, via: "relay", path: "relay", servers: null }),
    ],
    ...changes,
  });

const idsOf = (of: LinkReport, facts: Partial<AdviceFacts> = {}): string[] =>
  adviceFor({
    ...{ report: of, name: "Bob", online: true, acceptedByMe: true, keyChanged: false, server: SERVER },
    ...facts,
  }).map(({ id }) => id);

describe("the way in use", () => {
  it("tells the two kinds of relay apart, and says nothing of a link that is down", () => {
    expect(wayOf(report(link({ path: "lan" })))).toBe("lan");
    expect(wayOf(report(link()))).toBe("direct");
    expect(wayOf(report(link({ path: "relay" })))).toBe("turn");
    expect(wayOf(relayed({}))).toBe("server");
    expect(wayOf(failed())).toBe("none");
  });

  it("is told without codes of the program, also where the reason is unknown", () => {
    const words = (changes: Partial<LinkView>, online = true) => linkWords(link(changes), online);
    expect(words({ state: "failed", reason: "connect_timeout" }).explanation).toMatch(/^No way was found in time\./);
    expect(words({ state: "failed", reason: "made_up_code" }).explanation).not.toContain("made_up_code");
    expect(words({ state: "discovering", reason: "peer_offline" }, false).label).toBe("No link");
    expect(words({ state: "discovering", reason: "peer_offline" }, true).label).toBe("Looking…");
    expect(words({ path: "relay", relay: "turn" }).label).toBe("TURN relay");
    expect(words({ path: "relay", relay: "server" }).label).toBe("Server relay");
  });
});

describe("what would help", () => {
  it("has nothing to say against the best ways", () => {
    expect(idsOf(report(link({ path: "lan" })))).toEqual(["best_path"]);
    expect(idsOf(report(link()))).toEqual(["direct_path"]);
  });

  it("names what keeps two people from a direct way", () => {
    const silent = { localCandidates: ["host"] };
    expect(idsOf(relayed(silent))).toEqual(["relayed", "udp_blocked"]);
    expect(idsOf(relayed({}, { stun: { asked: 2, answered: 0 } }))).toEqual(["relayed", "udp_blocked"]);
    expect(idsOf(relayed(silent, { stun: { asked: 2, answered: 1 } }))).toEqual(["relayed", "searching"]);
    expect(idsOf(relayed({ ...silent, servers: { stun: 0, turn: 0 } }))).toEqual(["relayed", "no_stun", "no_turn"]);
    expect(idsOf(relayed({}, { nat: "varies" }))).toEqual(["relayed", "nat_varies"]);
    expect(idsOf(relayed({ remoteCandidates: [] }))).toEqual(["relayed", "no_addresses_there"]);
    expect(idsOf(relayed({}))).toEqual(["relayed", "searching"]);
  });

  it("does not call a host without address translation blocked", () => {
    expect(idsOf(relayed({ localCandidates: ["host"] }, { nat: "none" }))).toEqual(["relayed", "searching"]);
  });

  it("respects what either side chose", () => {
    expect(idsOf(relayed({}, { policy: "relay", directAllowed: false }))).toEqual(["relay_chosen"]);
    expect(idsOf(relayed({}, { policy: "afterAccept" }), { acceptedByMe: false })).toEqual(["relay_until_accepted"]);
    expect(idsOf(relayed({ reason: "peer_relay_only" }))).toEqual(["relay_chosen_there"]);
    expect(idsOf(failed({}, {}), {})).toEqual(["failed"]);
    expect(idsOf({ ...failed(), policy: "lan" })).toEqual(["lan_only", "failed"]);
    expect(idsOf({ ...failed(), directAllowed: false, relayAllowed: false })).toContain("nothing_allowed");
  });

  it("says first what only people can settle", () => {
    expect(idsOf(failed({}, { reason: "wrong_proof" }))).toEqual(["wrong_identity"]);
    expect(idsOf(failed({}, { reason: "fingerprint_mismatch" }))).toEqual(["wrong_identity"]);
    expect(idsOf(failed(), { keyChanged: true })).toEqual(["key_changed"]);
    expect(idsOf(failed({}, { state: "disconnected", reason: null }))).toEqual(["switched_off"]);
    expect(idsOf(failed(), { online: false })).toEqual(["contact_offline"]);
    expect(idsOf(failed({}, { reason: "wrong_version" }))).toEqual(["wrong_version", "failed"]);
    expect(idsOf(failed({}, { state: "connecting", reason: null }))).toEqual(["under_way"]);
  });

  it("says that the server is gone, whether a link stands or not", () => {
    const server: ServerView = { ...SERVER, state: "disconnected" };
    expect(idsOf(failed(), { server })).toEqual(["server_unreachable"]);
    expect(idsOf(report(link()), { server })).toEqual(["server_unreachable", "direct_path"]);
  });
});

describe("a test", () => {
  const testing: TestState = { kind: "testing", startedAtMs: 0, before: 5 };
  const done: TestState = { kind: "done", atMs: 0, before: 5, outcome: { tone: "bad", title: "", text: "" } };
  const statesOf = (state: TestState, of: LinkReport, server = SERVER): string =>
    testSteps(state, of, server)
      .map((step) => step.state)
      .join(" ");
  const withNew = (changes: Partial<LinkAttemptView>): LinkReport =>
    report(link(), { attempts: [attempt(), attempt({ generation: 6, result: "trying", ms: null, ...changes })] });

  it("goes through its steps, and shows at which one it ended", () => {
    expect(statesOf({ kind: "idle" }, report(link()))).toBe("waiting waiting waiting waiting");
    expect(statesOf(testing, report(link()))).toBe("done active waiting waiting");
    expect(statesOf(testing, report(link()), { ...SERVER, state: "connecting" })).toBe(
      "active waiting waiting waiting",
    );
    expect(statesOf(testing, withNew({ remoteCandidates: [] }))).toBe("done done active waiting");
    expect(statesOf(testing, withNew({}))).toBe("done done done active");
    expect(statesOf(testing, withNew({ result: "connected" }))).toBe("done done done done");
    expect(statesOf(done, withNew({ result: "failed", remoteCandidates: [] }))).toBe("done done failed waiting");
    expect(statesOf(done, report(link()))).toBe("done failed waiting waiting");
  });

  const outcomeOf = (of: LinkReport, online = true) => testOutcome(of, 5, { name: "Bob", online });

  it("tells the way that works, with its figures", () => {
    const fresh = withNew({ result: "connected", path: "lan", ms: 1234 });
    expect(outcomeOf({ ...fresh, link: link({ generation: 6, path: "lan", rttMs: 0.83 }) })).toEqual({
      ...{ tone: "good", title: "It works: Local network", text: "Connected in 1.2 s, 0.8 ms round trip" },
    });
  });

  it("does not take the link of before for a success", () => {
    expect(outcomeOf(withNew({ result: "failed", reason: "unreachable" }))).toMatchObject({ tone: "warn" });
    expect(outcomeOf(report(link()))).toMatchObject({ tone: "warn", text: "It is still being tried." });
  });

  it("says why nothing came about", () => {
    const down = (changes: Partial<LinkAttemptView>, view: Partial<LinkView> = {}): LinkReport => ({
      ...withNew(changes),
      link: link({ state: "failed", path: null, reason: "unreachable", ...view }),
    });
    expect(outcomeOf(down({ result: "failed", reason: "unreachable" }))).toEqual({
      ...{ tone: "bad", title: "No connection came about" },
      text: "No packet got through between the two networks.",
    });
    expect(outcomeOf(down({ result: "trying" })).title).toBe("No result yet");
    expect(outcomeOf(down({ result: "given_up", reason: "peer_offline" })).title).toBe("Bob is offline");
    expect(outcomeOf({ ...failed(), attempts: [] }).title).toBe("Nothing could be tried");
    expect(outcomeOf({ ...failed(), attempts: [] }, false).title).toBe("Bob is offline");
  });
});

describe("the copied report", () => {
  const NAME = "Alexandria Q. Somebody";
  const facts = { host: null, online: true, serverState: "connected", nowMs: 1_060_000 };

  it("has no name, no id and no address in it, whatever the other side wrote", () => {
    const evil = `peer ${NAME} at 203.0.113.9`;
    const of = relayed({ reason: evil }, { stun: { asked: 2, answered: 1 } });
    const withReason = { ...of, link: { ...of.link, reason: evil } };
    const text = reportText(
      withReason,
      adviceFor({
        report: withReason,
        name: NAME,
        online: true,
        acceptedByMe: true,
        keyChanged: false,
        server: SERVER,
      }),
      facts,
    );
    for (const secret of [NAME, "Somebody", PEER, SERVER.url, "192.168", "203.0"]) expect(text).not.toContain(secret);
    expect(text).not.toMatch(/\d+\.\d+\.\d+\.\d+|[a-z2-7]{32}/);
    expect(text).toContain("link: connected, way server, round trip 24.0 ms");
    expect(text).toContain("reason: other");
    expect(text).toContain("findings: relayed, searching");
    expect(text).toContain(
      "- 60 s ago; rtc; given_up other; 300 ms; offered host+srflx here, host there; stun/turn named 2/1",
    );
  });
});

describe("the history", () => {
  it("is a table that can be read without seeing it, the newest first", () => {
    render(AttemptTable, { report: relayed({}) });
    const table = screen.getByRole("table", { name: "Attempts to connect, the newest first" });
    expect(
      within(table)
        .getAllByRole("columnheader")
        .map((header) => header.textContent),
    ).toEqual(["When", "Way", "Result", "Addresses", "Took"]);
    const [, newest, oldest] = within(table).getAllByRole("row");
    expect(newest?.textContent).toContain("In use");
    expect(oldest?.textContent).toContain("The meeting server's relay was faster");
  });

  it("shows a few at first, all when asked, and words when there are none", async () => {
    const attempts = Array.from({ length: 32 }, (_, index) => attempt({ generation: index }));
    const { rerender } = render(AttemptTable, { report: report(link(), { attempts }) });
    expect(screen.getAllByRole("row")).toHaveLength(7);
    screen.getByRole("button", { name: "Show all 32" }).click();
    await vi.waitFor(() => expect(screen.getAllByRole("row")).toHaveLength(33), 20_000);
    await rerender({ report: report(link(), { attempts: [] }) });
    expect(screen.getByText("Nothing was tried since Weir started.")).toBeTruthy();
  });

  it("tells what is known of this side's network, and why not more", () => {
    const factOf = (of: LinkReport, term: string): string => {
      const { container, unmount } = render(ConnectionFacts, { report: of });
      const dt = [...container.querySelectorAll("dt")].find((element) => element.textContent === term);
      const text = dt?.nextElementSibling?.textContent ?? "";
      unmount();
      return text;
    };
    expect(factOf(report(link()), "Your network")).toBe("Not known yet: a test asks");
    expect(factOf(report(link(), { stun: { asked: 2, answered: 0 } }), "Your network")).toContain(
      "no STUN server answered",
    );
    expect(factOf(report(link(), { nat: "varies" }), "Your network")).toContain("another port");
    expect(factOf(report(link({ staleEvents: 1 })), "Stale events")).toMatch(/^1 event of/);
    expect(factOf(report(link()), "STUN and TURN servers")).toBe("2 STUN, 1 TURN named by the meeting server");
  });
});

describe("the doctor", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  type Call = (name: string, input: unknown) => Promise<unknown>;
  const apiWith = (call: Call): { api: Api; emit: (view: LinkView) => void; listeners: () => number } => {
    const listeners = new Set<(payload: never) => void>();
    const api: Api = {
      call: (name, input) => call(name, input) as Promise<never>,
      on: (_event, listener) => {
        listeners.add(listener);
        return () => void listeners.delete(listener);
      },
      pathOfFolder: async () => ok(""),
      pathOf: async (file) => ok(file.name),
      onHostLink: () => () => {},
    };
    const emit = (view: LinkView): void => {
      for (const listener of listeners) (listener as (payload: LinkView) => void)(view);
    };
    return { api, emit, listeners: () => listeners.size };
  };
  const reportOf = (rttMs: number): LinkReport => report(link({ rttMs }));
  const settled = (): Promise<unknown> => vi.advanceTimersByTimeAsync(0);

  it("drops an answer that was overtaken by a newer one", async () => {
    const answers: PromiseWithResolvers<Result<LinkReport[]>>[] = [];
    const { api, emit } = apiWith((name) => {
      if (name !== "links.report") return Promise.resolve(ok({ userId: PEER, policy: "direct", acceptedByMe: true }));
      const answer = Promise.withResolvers<Result<LinkReport[]>>();
      answers.push(answer);
      return answer.promise;
    });
    const doctor = new LinkDoctor(api, PEER);
    emit(link({ peerId: "somebody else" }));
    emit(link());
    expect(answers).toHaveLength(2);
    answers[1]?.resolve(ok([reportOf(2)]));
    await settled();
    answers[0]?.resolve(ok([reportOf(1)]));
    await settled();
    expect(doctor.report?.link.rttMs).toBe(2);
    doctor.dispose();
  });

  it("asks now and then, often during a test, and never again when it is closed", async () => {
    const test = Promise.withResolvers<Result<LinkReport>>();
    const call = vi.fn<Call>((name) => {
      if (name === "links.test") return test.promise;
      return Promise.resolve(name === "links.report" ? ok([reportOf(1)]) : ok({ userId: PEER, policy: "direct" }));
    });
    const countOf = (name: string): number => call.mock.calls.filter(([called]) => called === name).length;
    const { api, listeners } = apiWith(call);
    const doctor = new LinkDoctor(api, PEER);
    await vi.advanceTimersByTimeAsync(10_000);
    const quiet = countOf("links.report");
    expect(quiet).toBeGreaterThan(3);
    const who = () => ({ name: "Bob", online: true });
    const running = [doctor.runTest(() => 7, who), doctor.runTest(() => 7, who)];
    expect(doctor.test.kind).toBe("testing");
    await vi.advanceTimersByTimeAsync(10_000);
    expect(countOf("links.report") - quiet).toBeGreaterThan(3 * quiet);
    const fresh = report(link({ generation: 6 }), { attempts: [attempt({ generation: 6 })] });
    test.resolve(ok(fresh));
    await Promise.all(running);
    expect(countOf("links.test")).toBe(1);
    expect(doctor.test).toMatchObject({ kind: "done", atMs: 7, outcome: { tone: "good" } });
    await doctor.choose("relay");
    expect(doctor.test.kind).toBe("idle");
    doctor.dispose();
    const before = call.mock.calls.length;
    await vi.advanceTimersByTimeAsync(60_000);
    expect(call.mock.calls.length).toBe(before);
    expect(listeners()).toBe(0);
  });

  it("keeps the policy that holds when another one is refused, and says why a test could not run", async () => {
    const refused = { ok: false, error: { type: "x", message: "Not now." } };
    const { api } = apiWith(async (name, input) => {
      if (name === "links.report") return ok([reportOf(1)]);
      if (name === "links.test") return refused;
      return "policy" in (input as object) ? refused : ok({ userId: PEER, policy: "relay", acceptedByMe: false });
    });
    const doctor = new LinkDoctor(api, PEER);
    await settled();
    expect(await doctor.choose("direct")).toEqual(refused);
    expect(doctor.network?.policy).toBe("relay");
    await doctor.runTest(
      () => 7,
      () => ({ name: "Bob", online: true }),
    );
    expect(doctor.test).toEqual({ kind: "failed", message: "Not now." });
    doctor.dispose();
  });
});
