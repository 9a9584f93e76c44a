import * as v from "valibot";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FileIdSchema } from "#shared/base/ids.ts";
import { CHUNK_BYTES, CHUNK_BYTES_LARGE } from "#shared/base/limits.ts";
import {
  bytes,
  fileRecord,
  plain,
  RawClient,
  registration,
  startServer,
  type TestServer,
} from "../support/rendezvous.ts";

let server: TestServer;
let owner: RawClient;
let member: RawClient;
let stranger: RawClient;
beforeEach(async () => {
  server = await startServer();
  owner = await RawClient.loggedIn(server.url);
  member = await RawClient.loggedIn(server.url);
  stranger = await RawClient.loggedIn(server.url);
});
afterEach(async () => {
  for (const client of [owner, member, stranger]) client.close();
  await server.dispose();
});

const fileIdOf = (record: { fileId: string }) => v.parse(FileIdSchema, record.fileId);
const memberOnly = () => [member.identity.userId];

describe("file registry", () => {
  it("shows a registered file to its owner and members, and to nobody else", async () => {
    const record = fileRecord(owner.identity);
    const { fileId } = record;
    expect(await owner.must("files.register", registration(owner.identity, record, memberOnly()))).toEqual({
      version: 1,
    });
    const expected = { record, members: memberOnly(), version: 1, seeders: [] };
    expect(plain(await owner.must("files.get", { fileId }))).toEqual(expected);
    expect(plain(await member.must("files.get", { fileId }))).toEqual(expected);
    const hidden = await stranger.request("files.get", { fileId });
    const missing = await stranger.request("files.get", { fileId: fileRecord(owner.identity).fileId });
    expect(hidden).toMatchObject({ ok: false, error: { type: "unknown_file" } });
    expect(missing).toEqual(hidden);
  });

  it("keeps owner, members and seeders over a restart", async () => {
    const record = fileRecord(owner.identity);
    const { fileId } = record;
    await owner.must("files.register", registration(owner.identity, record, memberOnly()));
    await member.must("files.announce", { fileId, complete: false, chunksHeld: 2 });
    await server.restart();
    const again = await RawClient.loggedIn(server.url, stranger.identity);
    // Whoever comes first after a restart is still no owner and no member.
    expect(await again.outcome("files.announce", { fileId, complete: true, chunksHeld: 4 })).toBe("unknown_file");
    const back = await RawClient.loggedIn(server.url, member.identity);
    expect(plain(await back.must("files.get", { fileId }))).toEqual({
      record,
      members: memberOnly(),
      version: 1,
      seeders: [{ userId: member.identity.userId, complete: false }],
    });
    again.close();
    back.close();
  });

  it("lets an announcement change nothing but who holds the file", async () => {
    const record = fileRecord(owner.identity);
    const { fileId } = record;
    await owner.must("files.register", registration(owner.identity, record, memberOnly()));
    expect(await stranger.outcome("files.announce", { fileId, complete: true, chunksHeld: 4 })).toBe("unknown_file");
    expect(await member.outcome("files.announce", { fileId, complete: true, chunksHeld: 5 })).toBe("bad_request");
    await owner.must("files.announce", { fileId, complete: true, chunksHeld: 4 });
    await member.must("files.announce", { fileId, complete: false, chunksHeld: 1 });
    const { members, seeders } = await member.must("files.get", { fileId });
    expect(members).toEqual(memberOnly());
    const held = new Map(seeders.map(({ userId, complete }) => [userId, complete]));
    expect(held).toEqual(
      new Map<string, boolean>([
        [owner.identity.userId, true],
        [member.identity.userId, false],
      ]),
    );
    await member.must("files.announce", { fileId, complete: false, chunksHeld: 0 });
    expect((await member.must("files.get", { fileId })).seeders.map(({ userId }) => userId)).toEqual([
      owner.identity.userId,
    ]);
  });

  it("takes a registration from the owner only", async () => {
    const record = fileRecord(owner.identity);
    expect(await stranger.outcome("files.register", registration(stranger.identity, record))).toBe("not_owner");
    const stolen = { ...record, ownerId: stranger.identity.userId };
    expect(await stranger.outcome("files.register", registration(stranger.identity, stolen))).toBe("bad_signature");
    await owner.must("files.register", registration(owner.identity, record));
    // The id is taken now: nobody becomes its owner with a record of their own.
    const own = fileRecord(stranger.identity, 5, fileIdOf(record));
    expect(await stranger.outcome("files.register", registration(stranger.identity, own))).toBe("conflict");
    expect(plain(await owner.must("files.get", { fileId: fileIdOf(record) }))).toMatchObject({ record });
  });

  it.each([
    ["size", (r: ReturnType<typeof fileRecord>) => ({ ...r, sizeBytes: r.sizeBytes + 1 })],
    ["root", (r: ReturnType<typeof fileRecord>) => ({ ...r, root: bytes(32) })],
    ["time", (r: ReturnType<typeof fileRecord>) => ({ ...r, createdAtMs: r.createdAtMs + 1 })],
    ["id", (r: ReturnType<typeof fileRecord>) => ({ ...r, fileId: fileRecord(owner.identity).fileId })],
  ])("refuses a record whose %s is not what the owner signed", async (_what, alter) => {
    const record = alter(fileRecord(owner.identity));
    expect(await owner.outcome("files.register", registration(owner.identity, record))).toBe("bad_signature");
  });

  it("refuses chunks that do not fit the size", async () => {
    const record = fileRecord(owner.identity);
    for (const wrong of [{ chunkCount: record.chunkCount + 1 }, { chunkBytes: CHUNK_BYTES_LARGE, chunkCount: 1 }]) {
      const input = registration(owner.identity, { ...record, ...wrong });
      expect(await owner.outcome("files.register", input)).toBe("bad_request");
    }
    const empty = fileRecord(owner.identity, 0);
    expect(empty).toMatchObject({ chunkCount: 0, chunkBytes: CHUNK_BYTES });
    expect(await owner.outcome("files.register", registration(owner.identity, empty))).toBe("ok");
  });

  it("takes a repetition as a success and refuses other contents under the same id", async () => {
    const record = fileRecord(owner.identity);
    await owner.must("files.register", registration(owner.identity, record, memberOnly()));
    expect(await owner.must("files.register", registration(owner.identity, record, memberOnly()))).toEqual({
      version: 1,
    });
    expect(await owner.outcome("files.register", registration(owner.identity, record))).toBe("share_conflict");
    const other = fileRecord(owner.identity, 5, fileIdOf(record));
    expect(await owner.outcome("files.register", registration(owner.identity, other, memberOnly()))).toBe("conflict");
  });
});
