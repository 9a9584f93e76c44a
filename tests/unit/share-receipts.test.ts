import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import * as v from "valibot";
import { describe, expect, onTestFinished, test } from "vitest";
import { FileIdSchema } from "#shared/base/ids.ts";
import { CHUNK_BYTES } from "#shared/base/limits.ts";
import {
  bundleSigningBytes,
  checkReceipt,
  decodeReceipt,
  encodeBundle,
  encodeReceipt,
  type Receipt,
  type ReceiptBundle,
  receiptSigningBytes,
  verifyBundle,
} from "#shared/shares/receipt.ts";
import { append, draftFor, emptyList, type ShareOperation, type ShareWish } from "#shared/shares/share-log.ts";
import { type Manifest, manifestSigningBytes } from "#shared/wire/manifest.ts";
import { logCrypto, signShareOperation } from "../../src-main/crypto/signed-log.ts";
import { temporaryFolder } from "../support/files.ts";
import { createIdentity, type TestIdentity } from "../support/rendezvous.ts";

const [alice, bob, carol, mallory] = [0, 1, 2, 3].map(() => createIdentity()) as [
  TestIdentity,
  TestIdentity,
  TestIdentity,
  TestIdentity,
];
const fileId = v.parse(FileIdSchema, "AAAAAAAAAAAAAAAAAAAAAA");
const manifest: Manifest = {
  ...{ fileId, ownerId: alice.userId, sizeBytes: 100_000, chunkBytes: CHUNK_BYTES, chunkCount: 2 },
  ...{ root: new Uint8Array(32).fill(5), createdAtMs: 1000 },
};
const receiptOf = (actor: TestIdentity, subject: TestIdentity, change: Partial<Receipt> = {}): Receipt => {
  const kind = actor === subject ? ("completed" as const) : ("offered" as const);
  const unsigned = {
    ...{ fileId, kind, subject: subject.userId, root: manifest.root, atMs: 2000, actor: actor.userId },
    ...{ actorKey: actor.accountKey, ...change },
  };
  return { ...unsigned, signature: change.signature ?? actor.sign(receiptSigningBytes(unsigned)) };
};
const operations = (): ShareOperation[] => {
  let list = emptyList(fileId, alice.userId, logCrypto);
  const wishes: ShareWish[] = [
    { kind: "add", userIds: [bob.userId] },
    { kind: "add", userIds: [carol.userId] },
    { kind: "revoke", userIds: [carol.userId] },
  ];
  return wishes.map((wish, i) => {
    const draft = draftFor(list, wish, alice.userId, 1000 + i);
    if (!draft.ok) throw new Error(draft.error.type);
    const operation = signShareOperation(draft.value, alice);
    const next = append(list, operation, logCrypto);
    if (!next.ok) throw new Error(next.error.type);
    list = next.value;
    return operation;
  });
};
const sealed = (unsigned: Omit<ReceiptBundle, "signature">, by = alice): ReceiptBundle => ({
  ...unsigned,
  signature: by.sign(bundleSigningBytes(unsigned)),
});
const contents = (change: Partial<ReceiptBundle> = {}): Omit<ReceiptBundle, "signature"> => ({
  ...{ weirReceipts: 1, fileName: "plan.pdf", people: [[bob.userId, "Bob"]] },
  file: { manifest, signature: alice.sign(manifestSigningBytes(manifest)) },
  operations: operations(),
  receipts: [receiptOf(alice, bob), receiptOf(bob, bob), receiptOf(carol, carol)],
  ...{ exportedAtMs: 5000, exporter: alice.userId, exporterKey: alice.accountKey },
  ...change,
});
const errorOf = (bundle: ReceiptBundle): string | null => {
  const verified = verifyBundle(encodeBundle(bundle), logCrypto);
  return verified.ok ? null : verified.error.type;
};

describe("a receipt", () => {
  test("holds when its actor signed it, and in no other way", () => {
    expect(checkReceipt(receiptOf(alice, bob), logCrypto).ok).toBe(true);
    expect(decodeReceipt(encodeReceipt(receiptOf(bob, bob)))).toEqual({ ok: true, value: receiptOf(bob, bob) });
    const errorOfReceipt = (receipt: Receipt) => {
      const checked = checkReceipt(receipt, logCrypto);
      return checked.ok ? null : checked.error.type;
    };
    const { signature } = receiptOf(bob, bob);
    const changes = [{ atMs: 2001 }, { root: new Uint8Array(32) }, { fileId: v.parse(FileIdSchema, "B".repeat(22)) }];
    for (const change of changes)
      expect(errorOfReceipt(receiptOf(bob, bob, { ...change, signature }))).toBe("receipt_forged");
    // Mallory confirms in Bob's name.
    const { actorKey } = receiptOf(mallory, mallory);
    expect(errorOfReceipt(receiptOf(bob, bob, { actorKey, signature }))).toBe("receipt_forged");
    expect(errorOfReceipt(receiptOf(alice, bob, { kind: "completed" }))).toBe("receipt_malformed");
    expect(errorOfReceipt(receiptOf(bob, bob, { kind: "offered" }))).toBe("receipt_malformed");
  });
});

describe("exported receipts", () => {
  test("say who was granted, offered and has the file, also of whom the access was taken", () => {
    const verified = verifyBundle(encodeBundle(sealed(contents())), logCrypto);
    expect(verified).toMatchObject({
      ok: true,
      value: {
        people: [
          { userId: bob.userId, grantedAtMs: 1000, offeredAtMs: 2000, completedAtMs: 2000, isMember: true },
          { userId: carol.userId, grantedAtMs: 1001, offeredAtMs: null, completedAtMs: 2000, isMember: false },
        ],
      },
    });
  });

  test("that somebody changed in any place do not hold, nor with a part left out", () => {
    const json = JSON.parse(new TextDecoder().decode(encodeBundle(sealed(contents())))) as Record<string, unknown>;
    const places: (readonly (string | number)[])[] = [];
    const walk = (value: unknown, path: readonly (string | number)[]): void => {
      if (value !== null && typeof value === "object")
        for (const [key, inner] of Object.entries(value)) walk(inner, [...path, key]);
      else places.push(path);
    };
    walk(json, []);
    expect(places.length).toBeGreaterThan(60);
    const changed = (value: unknown): unknown => {
      if (typeof value === "number") return value + 1;
      if (typeof value === "boolean") return !value;
      if (typeof value !== "string") return 1;
      return value.startsWith("A") ? `B${value.slice(1)}` : `A${value.slice(1)}`;
    };
    for (const path of places) {
      const copy = structuredClone(json);
      let at = copy as Record<string, unknown>;
      for (const key of path.slice(0, -1)) at = at[key] as Record<string, unknown>;
      const last = String(path.at(-1));
      at[last] = changed(at[last]);
      const verified = verifyBundle(new TextEncoder().encode(JSON.stringify(copy)), logCrypto);
      expect({ path, ok: verified.ok }).toEqual({ path, ok: false });
    }
    for (const part of ["people", "operations", "receipts"] as const) {
      const shorter = { ...json, [part]: (json[part] as unknown[]).slice(0, -1) };
      expect(verifyBundle(new TextEncoder().encode(JSON.stringify(shorter)), logCrypto).ok).toBe(false);
    }
  });

  test("cannot be made up by whoever exports them", () => {
    expect(errorOf(sealed(contents(), mallory))).toBe("bundle_changed");
    const forged = receiptOf(bob, bob, { signature: mallory.sign(receiptSigningBytes(receiptOf(bob, bob))) });
    expect(errorOf(sealed(contents({ receipts: [forged] })))).toBe("receipt_forged");
    expect(errorOf(sealed(contents({ receipts: [receiptOf(mallory, mallory)] })))).toBe("receipt_unrelated");
    const other = receiptOf(bob, bob, { root: new Uint8Array(32) });
    expect(errorOf(sealed(contents({ receipts: [other] })))).toBe("receipt_unrelated");
    const [first, second, third] = operations() as [ShareOperation, ShareOperation, ShareOperation];
    expect(errorOf(sealed(contents({ operations: [first, third] })))).toBe("share_conflict");
    const stolen = { ...second, signature: first.signature };
    expect(errorOf(sealed(contents({ operations: [first, stolen] })))).toBe("share_forged");
    const file = { manifest, signature: mallory.sign(manifestSigningBytes(manifest)) };
    expect(errorOf(sealed(contents({ file })))).toBe("bad_record");
  });

  test("are checked offline by the command: code 0, and 1 for a file that was changed", {
    timeout: 60_000,
  }, async () => {
    const folder = await temporaryFolder();
    onTestFinished(folder.dispose);
    const path = join(folder.path, "plan.pdf.receipts.json");
    const run = (...args: string[]) =>
      promisify(execFile)(process.execPath, ["scripts/receipts.ts", ...args]).then(
        ({ stdout }) => ({ code: 0, stdout }),
        ({ code, stdout }: { code: number; stdout: string }) => ({ code, stdout }),
      );
    await writeFile(path, encodeBundle(sealed(contents())));
    const good = await run("verify", path);
    expect(good).toEqual({ code: 0, stdout: expect.stringContaining('"Bob" (') as string });
    expect(good.stdout).toContain("no access any more");
    await writeFile(path, new TextDecoder().decode(encodeBundle(sealed(contents()))).replace('"Bob"', '"Rob"'));
    expect(await run("verify", path, "--json")).toEqual({
      code: 1,
      stdout: expect.stringContaining("bundle_changed") as string,
    });
    expect((await run("verify", join(folder.path, "nothing"))).code).toBe(2);
  });
});
