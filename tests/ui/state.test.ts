import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ok, type Result } from "#shared/base/result.ts";
import type { MessageReceiptView, MessageView } from "#shared/ipc/views.ts";
import type { Api } from "../../src-renderer/api.ts";
import { backoffMs, connectSocket, decodeIncoming } from "../../src-renderer/api-socket.ts";
import { MessageReceipts } from "../../src-renderer/state/message-receipts.svelte.ts";
import { Messages } from "../../src-renderer/state/messages.svelte.ts";
import { receiptLists, receiptWords } from "../../src-renderer/state/receipt-lists.ts";
import { canCancel, SHARES_MAX, Shares } from "../../src-renderer/state/shares.svelte.ts";
import { Snapshots } from "../../src-renderer/state/snapshots.svelte.ts";

interface Thing {
  id: string;
  value: number;
}

const deferred = <T>(): { promise: Promise<T>; resolve: (value: T) => void } => {
  const { promise, resolve } = Promise.withResolvers<T>();
  return { promise, resolve };
};

describe("snapshots", () => {
  const make = () => new Snapshots<Thing>((thing) => thing.id);

  it("replaces everything with a list", async () => {
    const things = make();
    things.set({ id: "gone", value: 1 });
    await things.load(async () => ok([{ id: "a", value: 1 }]));
    expect(things.values()).toEqual([{ id: "a", value: 1 }]);
  });

  it("does not let a list that was asked for earlier undo an event", async () => {
    const things = make();
    const list = deferred<Result<Thing[]>>();
    const loading = things.load(() => list.promise);
    things.set({ id: "a", value: 2 });
    things.set({ id: "new", value: 1 });
    things.delete("removed");
    list.resolve(
      ok([
        { id: "a", value: 1 },
        { id: "removed", value: 1 },
        { id: "b", value: 1 },
      ]),
    );
    await loading;
    expect(things.get("a")?.value).toBe(2);
    expect(things.get("new")?.value).toBe(1);
    expect(things.get("removed")).toBeUndefined();
    expect(things.get("b")?.value).toBe(1);
  });

  it("drops the answer of an older load", async () => {
    const things = make();
    const first = deferred<Result<Thing[]>>();
    const loading = things.load(() => first.promise);
    await things.load(async () => ok([{ id: "a", value: 2 }]));
    first.resolve(ok([{ id: "a", value: 1 }]));
    await loading;
    expect(things.get("a")?.value).toBe(2);
  });
});

/** An Api whose `call` the test answers by hand. */
const apiWith = (call: (name: string, input: unknown) => Promise<unknown>): Api => ({
  call: (name, input) => call(name, input) as Promise<never>,
  on: () => () => {},
  pathOfFolder: async (folder) => ok(`/uploads/${folder.name}`),
  pathOf: async (file) => ok(`/uploads/${file.name}`),
  onHostLink: () => () => {},
});

const message = (id: string, state: MessageView["state"] = "sent"): MessageView => ({
  messageId: id,
  chatId: "bob",
  senderId: "bob",
  sentAtMs: 1000,
  text: id,
  state,
  file: null,
});

describe("messages", () => {
  it("keeps what arrives while the first page is under way", async () => {
    const page = deferred<Result<MessageView[]>>();
    const messages = new Messages(apiWith(() => page.promise));
    const opening = messages.open("bob");
    messages.change(message("late"));
    messages.change(message("known", "read"));
    page.resolve(ok([message("known"), message("first")]));
    await opening;
    const log = messages.log("bob");
    expect(log?.messages.map((one) => [one.messageId, one.state])).toEqual([
      ["first", "sent"],
      ["known", "read"],
      ["late", "sent"],
    ]);
  });

  it("asks for one older page at a time", async () => {
    const older = deferred<Result<MessageView[]>>();
    const call = vi.fn((_name: string, input: unknown) =>
      typeof input === "object" && input !== null && "beforeId" in input
        ? older.promise
        : Promise.resolve(ok(Array.from({ length: 60 }, (_, index) => message(`m${60 - index}`)))),
    );
    const messages = new Messages(apiWith(call));
    await messages.open("bob");
    const loads = [messages.loadOlder("bob"), messages.loadOlder("bob")];
    older.resolve(ok([message("m0")]));
    await Promise.all(loads);
    expect(call).toHaveBeenCalledTimes(2);
    expect(messages.log("bob")?.messages).toHaveLength(61);
    expect(messages.log("bob")?.hasOlder).toBe(false);
  });

  it("says why a page could not be had", async () => {
    const messages = new Messages(apiWith(async () => ({ ok: false, error: { type: "x", message: "No." } })));
    await messages.open("bob");
    expect(messages.error("bob")?.message).toBe("No.");
    expect(messages.log("bob")).toBeUndefined();
  });
});

describe("shares", () => {
  it("hands files over one after the other and keeps a failure in sight", async () => {
    const calls: unknown[] = [];
    const done: string[] = [];
    const shares = new Shares(
      apiWith(async (_name, input) => {
        calls.push(input);
        return JSON.stringify(input).includes("bad")
          ? { ok: false, error: { type: "file_vanished", message: "The file is gone." } }
          : ok({ name: "shared" });
      }),
      (file) => done.push(file.name),
      () => {},
    );
    shares.addFiles("bob", [new File(["1"], "bad.txt"), new File(["22"], "good.txt")]);
    expect(shares.ofChat("bob").map((share) => share.name)).toEqual(["bad.txt", "good.txt"]);
    await vi.waitFor(() => expect(done).toEqual(["shared"]), 20_000);
    expect(calls).toEqual([
      { chatId: "bob", path: "/uploads/bad.txt" },
      { chatId: "bob", path: "/uploads/good.txt" },
    ]);
    const [failed] = shares.ofChat("bob");
    expect(failed?.step).toEqual({ kind: "failed", error: { type: "file_vanished", message: "The file is gone." } });
    shares.dismiss(failed?.shareId ?? -1);
    expect(shares.ofChat("bob")).toEqual([]);
  });
});

describe("too many files", () => {
  const pick = (count: number) =>
    Array.from({ length: count }, (_, index) => ({ path: `/${index}`, name: `${index}`, sizeBytes: 1 }));

  it("are told of, however they come: the first ones are sent", () => {
    const warnings: string[] = [];
    const shares = new Shares(
      apiWith(() => deferred<unknown>().promise),
      () => {},
      (text) => warnings.push(text),
    );
    shares.addPicked("bob", pick(SHARES_MAX - 2));
    expect(warnings).toEqual([]);
    shares.addFiles(
      "bob",
      pick(3).map(({ name }) => new File(["x"], name)),
    );
    expect(warnings).toEqual([expect.stringMatching(/^Only the first 2 files are sent/)]);
    shares.addPicked("carol", pick(1));
    expect(warnings[1]).toMatch(/^50 files are on their way already/);
    expect(shares.ofChat("bob")).toHaveLength(SHARES_MAX);
    expect(shares.ofChat("carol")).toEqual([]);
  });
});

describe("taking a share back", () => {
  it("ends its upload, shares nothing, and goes on with the next; a prepared one is as good as sent", async () => {
    const uploads = new Map<string, AbortSignal>();
    const shared: string[] = [];
    const api: Api = {
      ...apiWith(async (_name, input) => {
        shared.push(JSON.stringify(input));
        return deferred<unknown>().promise;
      }),
      pathOf: (file, onProgress, signal) => {
        uploads.set(file.name, signal);
        onProgress(0);
        return file.name === "slow.bin"
          ? new Promise((resolve) =>
              signal.addEventListener("abort", () => resolve({ ok: false, error: { type: "cancelled", message: "" } })),
            )
          : Promise.resolve(ok(`/uploads/${file.name}`));
      },
    };
    const shares = new Shares(
      api,
      () => {},
      () => {},
    );
    const names = () => shares.ofChat("bob").map(({ name }) => name);
    shares.addFiles("bob", [new File(["1"], "slow.bin"), new File(["2"], "never.bin"), new File(["3"], "next.bin")]);
    await vi.waitFor(() => expect(shares.ofChat("bob")[0]?.step.kind).toBe("uploading"), 20_000);
    const [slow, never, next] = shares.ofChat("bob").map(({ shareId }) => shareId);
    shares.cancel(never ?? -1);
    shares.cancel(slow ?? -1);
    expect(names()).toEqual(["next.bin"]);
    await vi.waitFor(() => expect(shared).toEqual(['{"chatId":"bob","path":"/uploads/next.bin"}']), 20_000);
    expect([...uploads.keys()]).toEqual(["slow.bin", "next.bin"]);
    shares.cancel(next ?? -1);
    expect(names()).toEqual(["next.bin"]);
  });
});

describe("preparing a share", () => {
  it("follows the bytes that were hashed", async () => {
    const answer = deferred<unknown>();
    const shares = new Shares(
      apiWith(() => answer.promise),
      () => {},
      () => {},
    );
    shares.addFiles("bob", [new File(["1"], "big.bin"), new File(["2"], "next.bin")]);
    await vi.waitFor(() => expect(shares.ofChat("bob")[0]?.step.kind).toBe("preparing"), 20_000);
    shares.progress({ chatId: "bob", fileId: "f", name: "big.bin", sizeBytes: 10, bytesHashed: 4 });
    shares.progress({ chatId: "carol", fileId: "g", name: "other", sizeBytes: 10, bytesHashed: 9 });
    expect(shares.ofChat("bob").map((share) => share.step)).toEqual([
      { kind: "preparing", hashedBytes: 4, fileId: "f" },
      { kind: "waiting" },
    ]);
  });

  it("can be stopped, and then the next one has its turn", async () => {
    const answers: ((value: unknown) => void)[] = [];
    const calls: unknown[][] = [];
    const shares = new Shares(
      apiWith((...call: unknown[]) => {
        calls.push(call);
        if (call[0] !== "files.share") return Promise.resolve({ ok: true, value: {} });
        return new Promise((resolve) => answers.push(resolve));
      }),
      () => {},
      () => {},
    );
    shares.addFiles("bob", [new File(["1"], "big.bin"), new File(["2"], "next.bin")]);
    await vi.waitFor(() => expect(answers).toHaveLength(1), 20_000);
    const [share] = shares.ofChat("bob");
    if (share === undefined) throw new Error("no share");
    // Nobody knows it by its name yet.
    expect(canCancel(share)).toBe(false);
    shares.progress({ chatId: "bob", fileId: "f", name: "big.bin", sizeBytes: 10, bytesHashed: 0 });
    shares.cancel(share.shareId);
    expect(calls).toContainEqual(["files.cancelShare", { fileId: "f" }]);
    answers[0]?.({ ok: false, error: { type: "cancelled", message: "" } });
    await vi.waitFor(() => expect(answers).toHaveLength(2), 20_000);
    expect(shares.ofChat("bob").map(({ name }) => name)).toEqual(["next.bin"]);
  });
});

describe("incoming socket messages", () => {
  it.each([
    ["not json", "unknown"],
    ["null", "unknown"],
    ["[]", "unknown"],
    ['{"event":"no.such.event"}', "unknown"],
    ['{"event":"notice","payload":{}}', "event"],
    ['{"id":"1","ok":true}', "unknown"],
    ['{"id":1,"ok":true,"value":3}', "answer"],
  ])("%s is %s", (text, kind) => {
    expect(decodeIncoming(text).kind).toBe(kind);
  });

  it("never trusts the form of an error", () => {
    expect(decodeIncoming('{"id":1,"ok":false,"error":"boom"}')).toMatchObject({
      result: { ok: false, error: { type: "internal" } },
    });
    expect(decodeIncoming(new ArrayBuffer(1)).kind).toBe("unknown");
  });

  it("waits longer each time, up to a limit, never in step", () => {
    expect(backoffMs(0, 0)).toBe(125);
    expect(backoffMs(3, 1)).toBe(2000);
    expect(backoffMs(1000, 1)).toBe(15_000);
    expect(backoffMs(1000, 0)).toBe(7500);
  });
});

class FakeSocket {
  static readonly OPEN = 1;
  static opened: FakeSocket[] = [];
  readonly url: string;
  readyState = 0;
  sent: string[] = [];
  onopen: (() => void) | null = null;
  onmessage: ((message: { data: unknown }) => void) | null = null;
  onclose: ((close: { code: number }) => void) | null = null;

  constructor(url: string) {
    this.url = url;
    FakeSocket.opened.push(this);
  }
  send(text: string): void {
    this.sent.push(text);
  }
  open(): void {
    this.readyState = FakeSocket.OPEN;
    this.onopen?.();
  }
  close(code: number): void {
    this.readyState = 3;
    this.onclose?.({ code });
  }
}

describe("the connection to the headless host", () => {
  beforeEach(() => {
    vi.useFakeTimers();
    vi.stubGlobal("WebSocket", FakeSocket);
    FakeSocket.opened = [];
    sessionStorage.clear();
    window.location.href = "http://127.0.0.1:5000/#secret-token";
  });
  afterEach(() => {
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  const newest = (): FakeSocket => {
    const socket = FakeSocket.opened.at(-1);
    if (!socket) throw new Error("no socket was opened");
    return socket;
  };

  it("takes the token out of the address and keeps it for reloads", () => {
    connectSocket();
    expect(newest().url).toBe("ws://127.0.0.1:5000/ipc?token=secret-token");
    expect(location.href).toBe("http://127.0.0.1:5000/");
    connectSocket();
    expect(newest().url).toContain("token=secret-token");
  });

  it("answers calls by id, in any order", async () => {
    const api = connectSocket();
    newest().open();
    const first = api.call("profile.get", {});
    const second = api.call("settings.get", {});
    newest().onmessage?.({ data: '{"id":2,"ok":true,"value":"two"}' });
    newest().onmessage?.({ data: '{"id":1,"ok":false,"error":{"type":"t","message":"m"}}' });
    expect(await second).toEqual({ ok: true, value: "two" });
    expect(await first).toEqual({ ok: false, error: { type: "t", message: "m" } });
  });

  it("fails what was under way when the connection is lost, and connects again", async () => {
    const api = connectSocket();
    const states: string[] = [];
    api.onHostLink((state) => states.push(state));
    newest().open();
    const pending = api.call("profile.get", {});
    newest().close(1006);
    expect(await pending).toMatchObject({ ok: false, error: { type: "host_lost" } });
    expect(await api.call("profile.get", {})).toMatchObject({ ok: false, error: { type: "host_lost" } });
    vi.advanceTimersByTime(20_000);
    expect(FakeSocket.opened).toHaveLength(2);
    newest().open();
    expect(states).toEqual(["connecting", "connected", "lost", "connected"]);
  });

  it("says that it is refused instead of trying for ever with a wrong token", () => {
    const api = connectSocket();
    const states: string[] = [];
    api.onHostLink((state) => states.push(state));
    newest().close(1008);
    vi.advanceTimersByTime(60_000);
    expect(FakeSocket.opened).toHaveLength(1);
    expect(states).toEqual(["connecting", "refused"]);
  });
});

const receipt = (name: string, more: Partial<MessageReceiptView> = {}): MessageReceiptView => ({
  ...{ userId: name.toLowerCase(), name, state: "sent", deliveredAtMs: null, readAtMs: null, ...more },
});

describe("who has read a message", () => {
  it("asks once more for whatever changed while an answer was under way, keeps what it knows, and ends", async () => {
    const answers: ((answer: Result<MessageReceiptView[]>) => void)[] = [];
    let listener: (message: MessageView) => void = () => {};
    let ended = 0;
    const api: Api = {
      ...apiWith(() => new Promise((resolve) => answers.push(resolve))),
      on: (_name, heard) => {
        listener = heard as typeof listener;
        return () => {
          ended += 1;
        };
      },
    };
    const answer = async (value: Result<MessageReceiptView[]>): Promise<void> => {
      answers.shift()?.(value);
      await vi.waitFor(() => expect(state.error === null).toBe(value.ok));
    };
    const state = new MessageReceipts(api, "bob", "m1");
    void state.refresh();
    expect(state.receipts).toBeNull();
    for (let i = 0; i < 5; i += 1) listener(message("m1", "read"));
    listener(message("m2", "read"));
    listener({ ...message("m1", "read"), chatId: "carol" });
    expect(answers).toHaveLength(1);
    await answer(ok([receipt("Bob")]));
    await vi.waitFor(() => expect(answers).toHaveLength(1));
    expect(state.receipts).toEqual([receipt("Bob")]);
    await answer({ ok: false, error: { type: "internal", message: "no" } });
    expect(state.receipts).toEqual([receipt("Bob")]);
    expect(answers).toHaveLength(0);
    listener(message("m1", "read"));
    await answer(ok([receipt("Bob", { state: "read" })]));
    expect(state.receipts?.[0]?.state).toBe("read");
    state.dispose();
    expect(ended).toBe(1);
  });

  it("lists them by how far it has come, who was first first, and says when as far as it is known", () => {
    const at = new Date(2026, 4, 12, 14, 5).getTime();
    const minute = 60_000;
    const late = receipt("Ann", { state: "read", deliveredAtMs: at, readAtMs: at + 9 * minute });
    const early = receipt("Zoe", { state: "read", deliveredAtMs: at, readAtMs: at + minute });
    const unknown = receipt("Max", { state: "read" });
    const there = receipt("Bob", { state: "delivered", deliveredAtMs: at });
    const waits = receipt("Eve", { state: "queued" });
    const sent = receipt("Dan");
    const lists = receiptLists([late, waits, there, early, sent, unknown]);
    expect(lists).toEqual({ read: [unknown, early, late], delivered: [there], notYet: [sent, waits] });
    const words = (of: MessageReceiptView): string => receiptWords(of, at + 60 * minute);
    expect(words(early)).toMatch(/^Today, .*:06.* \u00b7 delivered \d\d:05/);
    const dayBefore = { ...early, deliveredAtMs: at - 24 * 60 * minute };
    expect(words(dayBefore)).toMatch(/^Today, .*:06.* \u00b7 delivered Yesterday, .*:05/);
    expect(words({ ...early, readAtMs: at })).toMatch(/^Today, [^\u00b7]*$/);
    expect(words(there)).toMatch(/^Today, .*:05/);
    expect([words(unknown), words(sent), words(waits)]).toEqual([
      "At a time that was not kept",
      "Sent, and not on their device yet",
      "Waiting to be sent",
    ]);
  });
});
