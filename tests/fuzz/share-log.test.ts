import fc from "fast-check";
import * as v from "valibot";
import { describe, expect, test } from "vitest";
import { toBase64Url } from "#shared/base/bytes.ts";
import { FileIdSchema, UserIdSchema } from "#shared/base/ids.ts";
import {
  append,
  decodeList,
  decodeOperation,
  defaultTerms,
  emptyList,
  encodeOperation,
  operationHash,
  type ShareOperation,
} from "#shared/shares/share-log.ts";
import { logCrypto } from "../../src-main/crypto/signed-log.ts";
import { createIdentity, firstOperation, operationOn } from "../support/rendezvous.ts";

const RUNS = 2000;
const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const userId = fc.constantFrom(..."abcdef").map((letter) => v.parse(UserIdSchema, letter.repeat(32)));
const fileId = bytes(16).map((id) => v.parse(FileIdSchema, toBase64Url(id)));
const operation = fc.record({
  fileId,
  version: fc.integer({ min: 1, max: 10_000 }),
  kind: fc.constantFrom("add", "revoke", "leave", "terms", "withdraw"),
  userIds: fc.array(userId, { maxLength: 5 }),
  terms: fc.constantFrom(null, defaultTerms, { membersMayAdd: false, expiresAtMs: 5, downloadLimit: 2 }),
  actor: userId,
  actorKey: bytes(32),
  atMs: fc.nat(),
  previousHash: bytes(32),
  signature: bytes(64),
});

const owner = createIdentity();
const member = createIdentity();
const FILE = v.parse(FileIdSchema, "AAAAAAAAAAAAAAAAAAAAAA");
const first = firstOperation(owner, FILE, [member.userId]);
const empty = emptyList(FILE, owner.userId, logCrypto);
const started = append(empty, first, logCrypto);
if (!started.ok) throw new Error(started.error.type);
const list = started.value;
const genuine = operationOn(list, owner, { kind: "revoke", userIds: [member.userId] });

describe("operations of share lists", () => {
  test("come back as they were", () => {
    fc.assert(
      fc.property(operation, (value) => {
        const made = value as ShareOperation;
        expect(decodeOperation(encodeOperation(made))).toEqual({ ok: true, value: made });
      }),
      { numRuns: RUNS },
    );
  });

  test("any bytes: never throw, as an operation or as a list", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 500 }),
          fc.json().map((text) => new TextEncoder().encode(text)),
        ),
        (wire) => {
          expect(typeof decodeOperation(wire).ok).toBe("boolean");
          expect(typeof decodeList(wire).ok).toBe("boolean");
        },
      ),
      { numRuns: RUNS },
    );
  });

  test("whatever anybody makes up changes no list", () => {
    fc.assert(
      fc.property(operation, fc.boolean(), fc.boolean(), (value, fits, byOwner) => {
        const made = {
          ...(value as ShareOperation),
          ...(fits ? { fileId: FILE, version: 2, previousHash: list.head } : {}),
          ...(byOwner ? { actor: owner.userId, actorKey: owner.accountKey } : {}),
        };
        expect(append(list, made, logCrypto).ok).toBe(false);
      }),
      { numRuns: RUNS },
    );
  });

  test("one changed field of a genuine operation is found", () => {
    expect(append(list, genuine, logCrypto).ok).toBe(true);
    const hash = toBase64Url(operationHash(genuine, logCrypto));
    fc.assert(
      fc.property(operation, fc.constantFrom(...(Object.keys(genuine) as (keyof ShareOperation)[])), (other, field) => {
        const altered = { ...genuine, [field]: other[field as keyof typeof other] } as ShareOperation;
        if (JSON.stringify(altered[field]) === JSON.stringify(genuine[field])) return;
        expect(append(list, altered, logCrypto).ok).toBe(false);
        if (field !== "signature") expect(toBase64Url(operationHash(altered, logCrypto))).not.toBe(hash);
      }),
      { numRuns: RUNS },
    );
  });
});
