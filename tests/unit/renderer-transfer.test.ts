import { describe, expect, it } from "vitest";
import type { FileView, TransferView } from "#shared/ipc/views.ts";
import {
  actionsOf,
  matchesFilter,
  percentOf,
  statusOf,
  statusOfTransfer,
  stepFillOf,
  type TransferStatus,
} from "../../src-renderer/state/transfer-status.ts";
import { wordsOf } from "../../src-renderer/state/transfer-words.ts";

const transfer = (changes: Partial<TransferView> = {}): TransferView => ({
  fileId: "f",
  name: "a.bin",
  phase: "downloading",
  priority: "normal",
  paused: false,
  waitingForSeeders: false,
  waitingFor: [],
  chunksStored: 50,
  chunkCount: 100,
  bytesStored: 500,
  sizeBytes: 1000,
  assembledChunks: 0,
  bytesPerSecond: 10,
  etaMs: 1000,
  inFlight: 4,
  seeders: [],
  dropped: [],
  drain: null,
  requestedChunks: 54,
  duplicateChunks: 0,
  lateChunks: 0,
  rejectedChunks: 0,
  cancelledChunks: 0,
  error: null,
  seeding: "none",
  savedPath: null,
  ...changes,
});

const file = (changes: Partial<FileView> = {}): FileView => ({
  fileId: "f",
  name: "a.bin",
  sizeBytes: 1000,
  sha256: "",
  chunkCount: 100,
  ownerId: "bob",
  sharedWith: ["alice", "bob"],
  version: 1,
  seeders: ["bob"],
  access: "granted",
  ...changes,
});

const kindOf = (changes: Partial<TransferView>): TransferStatus["kind"] => statusOfTransfer(transfer(changes)).kind;

describe("the state of a transfer", () => {
  it.each<[TransferStatus["kind"], Partial<TransferView>]>([
    ["downloading", {}],
    ["waiting", { waitingForSeeders: true }],
    ["paused", { paused: true }],
    ["paused", { paused: true, waitingForSeeders: true }],
    ["draining", { phase: "draining" }],
    ["paused", { phase: "draining", paused: true }],
    ["assembling", { phase: "assembling", paused: true }],
    ["verifying", { phase: "verifying" }],
    ["complete", { phase: "complete" }],
    ["failed", { phase: "failed", error: { type: "disk_full", message: "" } }],
    ["failed", { phase: "failed" }],
    ["cancelled", { phase: "failed", error: { type: "cancelled", message: "" } }],
  ])("is %s for %j", (kind, changes) => {
    expect(kindOf(changes)).toBe(kind);
  });

  it("takes the drain's own count of what remains", () => {
    const status = statusOfTransfer(
      transfer({ phase: "draining", inFlight: 9, drain: { startedAtMs: 0, remaining: 3, endedBy: null } }),
    );
    expect(status).toMatchObject({ kind: "draining", remaining: 3 });
  });

  it("shows the owner who has it, not a download", () => {
    expect(statusOf(file({ ownerId: "alice", seeders: ["alice", "bob"] }), undefined, "alice")).toEqual({
      kind: "shared",
      copies: 1,
    });
  });

  it("tells the owner when the shared file is not there any more", () => {
    const status = statusOf(file({ ownerId: "alice", seeders: [] }), undefined, "alice");
    expect(status).toEqual({ kind: "moved" });
    expect(wordsOf(status, "You", true).headline).toBe("Moved or changed");
  });

  it("ends a running download when access was revoked, and leaves a complete one", () => {
    const revoked = file({ access: "revoked" });
    expect(statusOf(revoked, transfer(), "alice").kind).toBe("revoked");
    expect(statusOf(revoked, undefined, "alice")).toEqual({ kind: "revoked", byOwner: true });
    expect(statusOf(file({ access: "revoked", hasLeft: true }), undefined, "alice")).toMatchObject({ byOwner: false });
    expect(statusOf(revoked, transfer({ phase: "complete" }), "alice").kind).toBe("complete");
  });

  it("knows a transfer whose file is unknown", () => {
    expect(statusOf(null, transfer(), "alice").kind).toBe("downloading");
  });
});

describe("what follows from the state", () => {
  it("offers pausing only while there is something to pause", () => {
    expect(actionsOf(statusOfTransfer(transfer()), true)).toEqual(["pause", "cancel"]);
    expect(actionsOf(statusOfTransfer(transfer({ paused: true })), true)).toEqual(["resume", "cancel"]);
    expect(actionsOf(statusOfTransfer(transfer({ phase: "assembling" })), true)).toEqual(["cancel"]);
  });

  it("offers the path where nothing can be opened", () => {
    const complete = statusOfTransfer(transfer({ phase: "complete" }));
    expect(actionsOf(complete, true)).toEqual(["open", "showInFolder"]);
    expect(actionsOf(complete, false)).toEqual(["copyPath"]);
    expect(actionsOf({ kind: "available" }, true, true)).toEqual(["download", "choose"]);
    const folder = { filesWanted: 3, filesThere: 0, choosing: false, selection: [[0, 3] as [number, number]] };
    // What was left out can still be taken.
    expect(actionsOf(statusOfTransfer(transfer({ phase: "complete", folder })), true)).toEqual([
      "choose",
      "open",
      "showInFolder",
    ]);
    const choosing = { ...folder, filesWanted: null, choosing: true, selection: [] };
    expect(actionsOf(statusOfTransfer(transfer({ paused: true, folder: choosing })), true)).toEqual([
      "choose",
      "cancel",
    ]);
  });

  it("never runs backwards through the phases", () => {
    const road: Partial<TransferView>[] = [
      { chunksStored: 0 },
      { chunksStored: 99 },
      { chunksStored: 100, phase: "draining" },
      { chunksStored: 100, phase: "assembling", assembledChunks: 0 },
      { chunksStored: 100, phase: "assembling", assembledChunks: 100 },
      { chunksStored: 100, phase: "verifying", assembledChunks: 100 },
      { chunksStored: 100, phase: "complete", assembledChunks: 100 },
    ];
    const percents = road.map((changes) => percentOf(statusOfTransfer(transfer(changes))));
    expect(percents).toEqual(percents.toSorted((a, b) => a - b));
    expect(percents.at(-1)).toBe(100);
  });

  it("fills the receive step of an empty file", () => {
    expect(stepFillOf(statusOfTransfer(transfer({ chunkCount: 0, chunksStored: 0 })))[0]).toBe(1);
  });

  it("puts every state under exactly one filter besides all", () => {
    const states: Partial<TransferView>[] = [
      {},
      { paused: true },
      { waitingForSeeders: true },
      { phase: "draining" },
      { phase: "assembling" },
      { phase: "verifying" },
      { phase: "complete" },
      { phase: "failed" },
      { phase: "failed", error: { type: "cancelled", message: "" } },
    ];
    for (const changes of states) {
      const status = statusOfTransfer(transfer(changes));
      const filters = (["active", "done", "failed"] as const).filter((filter) => matchesFilter(status, filter));
      expect(filters, status.kind).toHaveLength(1);
    }
  });
});

describe("the words of a transfer", () => {
  it("says whom it waits for, and whether that person is here", () => {
    const waiting = statusOfTransfer(transfer({ waitingForSeeders: true }));
    expect(wordsOf(waiting, "Bob", false).headline).toBe("Waiting for Bob to come online");
    expect(wordsOf(waiting, "Bob", true).headline).toBe("Waiting for Bob to answer");
  });

  it("says for whom it waits when the owner cannot give it any more", () => {
    const error = { type: "file_changed", message: "The owner's file was changed." };
    const waiting = statusOfTransfer(transfer({ waitingForSeeders: true, error }));
    expect(wordsOf(waiting, "Bob", true, null, ["Carol", "Dan"])).toEqual({
      headline: "Waiting for Carol or Dan to come online",
      detail: error.message,
    });
    expect(wordsOf(waiting, "Bob", true, null, ["A", "B", "C"]).headline).toContain("one of 3 people");
    expect(wordsOf(waiting, "Bob", true).headline).toBe("Waiting");
  });

  it("leaves out what is not known", () => {
    const { headline, detail } = wordsOf(statusOfTransfer(transfer({ etaMs: null })), "Bob", true);
    expect(headline).toBe("500 of 1.0 kB".replace("500", "0.5"));
    expect(detail).toBe("10 B/s · looking for a source");
  });

  it("gives the reason of a failure", () => {
    const failed = statusOfTransfer(transfer({ phase: "failed", error: { type: "disk_full", message: "No room." } }));
    expect(wordsOf(failed, "Bob", true).detail).toBe("No room.");
  });
});

describe("a file that nobody but its owner gets any more", () => {
  it.each(["withdrawn", "expired", "limit_reached"] as const)("%s: says so, and offers no download", (closed) => {
    const status = statusOf(file({ closed }), undefined, "alice");
    expect(status).toEqual({ kind: "closed", why: closed, mine: false, begun: false });
    expect(actionsOf(status, true)).toEqual([]);
    expect(matchesFilter(status, "failed")).toBe(true);
    expect(wordsOf(status, "Bob", true).headline).toBe("No longer available");
    expect(wordsOf(status, "Bob", true).detail).toContain("Bob");
    // What had arrived can be deleted, and what is complete stays usable.
    const begun = statusOf(file({ closed }), transfer({ phase: "failed" }), "alice");
    expect(actionsOf(begun, true)).toEqual(["cancel"]);
    expect(statusOf(file({ closed }), transfer({ phase: "complete" }), "alice").kind).toBe("complete");
    const mine = statusOf(file({ closed }), undefined, "bob");
    expect(wordsOf(mine, "me", true).headline).toBe("Not given out any more");
  });
});
