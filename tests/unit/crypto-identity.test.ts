import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { fromHex, toHex } from "#shared/base/bytes.ts";
import {
  fingerprintOf,
  loadOrCreateAccount,
  userIdOf,
  verifyAccountSignature,
} from "../../src-main/crypto/identity.ts";
import { userIdOf as serverUserIdOf, verifySignature as serverVerifies } from "../../src-server/account-key.ts";
import { createSessionPeer, type SessionPeer, testEnv, text, unwrap } from "../support/session-peer.ts";

let alice: SessionPeer;
beforeEach(async () => {
  alice = await createSessionPeer();
});
afterEach(() => alice.dispose());

/** RFC 8032, section 7.1, test 2. */
const RFC_KEY = unwrap(fromHex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"));
const RFC_SIGNATURE = unwrap(
  fromHex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
  ),
);

describe("an account", () => {
  test("is made once and the same after a restart", async () => {
    const { accountKey, userId, fingerprint } = alice.account;
    const identityKey = toHex(alice.sessions.localIdentityKey);
    await alice.reopen();
    expect(accountKey.length).toBe(32);
    expect(userId).toMatch(/^[a-z2-7]{32}$/);
    expect(fingerprint).toMatch(/^[0-9a-f]{128}$/);
    expect(toHex(alice.sessions.localIdentityKey)).toBe(identityKey);
    const loaded = loadOrCreateAccount(alice.db, testEnv().env);
    expect(toHex(loaded.accountKey)).toBe(toHex(accountKey));
    expect(verifyAccountSignature(accountKey, text("x"), loaded.sign(text("x")))).toBe(true);
  });

  test("has an id and a fingerprint that are SHA3-512 of its key", () => {
    // SHA3-512 of 32 zero bytes, from an independent implementation (Python's hashlib).
    const key = new Uint8Array(32);
    expect(fingerprintOf(key)).toBe(
      "ad56c35cab5063b9e7ea568314ec81c40ba577aae630de902004009e88f18da57bbdfdaaa0fc189c66c8d853248b6b118844d53f7d0ba11de0f3bfaf4cdd9b3f",
    );
    expect(userIdOf(key)).toBe("vvlmgxflkbr3tz7kk2brj3ebyqf2k55k");
  });
});

test("client and server agree on ids and signatures", () => {
  const { accountKey, userId } = alice.account;
  expect(serverUserIdOf(accountKey)).toBe(userId);
  expect(serverVerifies(accountKey, text("login"), alice.account.sign(text("login")))).toBe(true);
  expect(serverVerifies(accountKey, text("logout"), alice.account.sign(text("login")))).toBe(false);
});

describe("an account signature", () => {
  test("is Ed25519 as in RFC 8032", () => {
    expect(verifyAccountSignature(RFC_KEY, Uint8Array.of(0x72), RFC_SIGNATURE)).toBe(true);
    expect(verifyAccountSignature(RFC_KEY, Uint8Array.of(0x73), RFC_SIGNATURE)).toBe(false);
  });

  test("is refused with any bit changed in key, text or signature", () => {
    const bytes = text("signed");
    const signature = alice.account.sign(bytes);
    const { accountKey } = alice.account;
    expect(signature.length).toBe(64);
    expect(verifyAccountSignature(accountKey, bytes, signature)).toBe(true);
    fc.assert(
      fc.property(fc.integer({ min: 0, max: (32 + 6 + 64) * 8 - 1 }), (bit) => {
        const parts = [accountKey, bytes, signature].map((part) => new Uint8Array(part));
        let at = bit;
        for (const part of parts) {
          if (at >= 0 && at < part.length * 8) part[at >> 3] = (part[at >> 3] ?? 0) ^ (1 << (at & 7));
          at -= part.length * 8;
        }
        const [key = bytes, message = bytes, signed = bytes] = parts;
        expect(verifyAccountSignature(key, message, signed)).toBe(false);
      }),
      { numRuns: 300 },
    );
  });

  test("of garbage is false, never an exception", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 70 }),
        fc.uint8Array({ maxLength: 40 }),
        fc.oneof(fc.uint8Array({ maxLength: 70 }), fc.uint8Array({ minLength: 64, maxLength: 64 })),
        (key, bytes, signature) => {
          expect(verifyAccountSignature(key, bytes, signature)).toBe(false);
          expect(verifyAccountSignature(key.subarray(0, 32), bytes, signature)).toBe(false);
        },
      ),
      { numRuns: 500 },
    );
  });
});

/**
 * Electron's node:crypto is BoringSSL: what is not listed here may not exist there, and no test that runs in Node would
 * notice. Names that may be imported, and for each call that names an algorithm, the algorithms that both have.
 */
const CALLS: Record<string, readonly string[]> = {
  createHash: ["sha256", "sha512"],
  createHmac: ["sha256", "sha1"], // SHA-1 only in the credentials of TURN servers, which prescribe it
  createCipheriv: ["aes-256-gcm"],
  createDecipheriv: ["aes-256-gcm"],
  hash: ["sha256", "sha512"],
  hkdf: ["sha256"],
  hkdfSync: ["sha256"],
  generateKeyPairSync: ["ed25519"],
  sign: ["null"], // Ed25519 has no separate digest
  verify: ["null"],
};
/** Web Cryptography: BoringSSL has digests of SHA-2, and Node offers the same interface over it. */
const SUBTLE = { digest: ["SHA-256", "SHA-512"] };
const OTHERS = [
  "createPrivateKey",
  "createPublicKey",
  "createSecretKey",
  "randomBytes",
  "randomFillSync",
  "randomInt",
  "randomUUID",
  "scrypt",
  "scryptSync",
  "timingSafeEqual",
];
const sources = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => join(folder, name));

/** `[imported name, local name]` of every value import from node:crypto; a default or namespace import counts as such. */
const cryptoImports = (source: string): [string, string][] =>
  [...source.matchAll(/import\s+(?!type\b)([^;]*?)\s+from\s+"(?:node:)?crypto"/g)].flatMap(([, clause = ""]) => {
    const names = /^\{([^}]*)\}$/s.exec(clause.trim());
    if (names === null) return [[clause, clause] as [string, string]];
    return (names[1] ?? "")
      .split(",")
      .map((name) => name.trim())
      .filter((name) => name !== "" && !name.startsWith("type "))
      .map((name): [string, string] => {
        const [imported = "", local = imported] = name.split(/\s+as\s+/);
        return [imported, local];
      });
  });

/** The text of a literal, or of a constant of the same file that is one; otherwise the expression itself. */
const stringIn = (source: string, expression: string): string => {
  const literal = /^"([^"]*)"$/.exec(expression)?.[1];
  if (literal !== undefined) return literal;
  const constant = /^\w+$/.test(expression)
    ? new RegExp(`const ${expression} = "([^"]*)"`).exec(source)?.[1]
    : undefined;
  return constant ?? expression;
};

const problemsOf = (path: string, source: string): string[] => {
  const problems: string[] = [];
  const withoutImports = source.replaceAll(/import\s[^;]*;/g, "");
  for (const [imported, local] of cryptoImports(source)) {
    if (imported === "webcrypto") {
      for (const [use, call = "", argument = ""] of withoutImports.matchAll(
        new RegExp(`(?<![\\w.])${local}\\b(?:\\.subtle\\.(\\w+)\\(\\s*([^,)]*))?`, "g"),
      ))
        if (!(SUBTLE as Record<string, string[]>)[call]?.includes(stringIn(source, argument.trim())))
          problems.push(`${path}: ${use}`);
      continue;
    }
    const algorithms = CALLS[imported];
    if (algorithms === undefined) {
      if (!OTHERS.includes(imported)) problems.push(`${path}: ${imported} is not known to exist in BoringSSL`);
      continue;
    }
    for (const [, argument = ""] of withoutImports.matchAll(new RegExp(`(?<![\\w.])${local}\\(\\s*([^,)]*)`, "g"))) {
      const algorithm = stringIn(source, argument.trim());
      if (!algorithms.includes(algorithm)) problems.push(`${path}: ${imported}(${argument.trim()})`);
    }
  }
  return problems;
};

describe("algorithms of node:crypto", () => {
  const root = join(import.meta.dirname, "../..");

  test("are only those that BoringSSL has too", () => {
    const files = ["src-main", "src-shared", "src-server", "src-preload"].flatMap((folder) =>
      sources(join(root, folder)),
    );
    const problems = files.flatMap((path) => problemsOf(path, readFileSync(path, "utf8")));
    expect(problems).toEqual([]);
    expect(files.filter((path) => cryptoImports(readFileSync(path, "utf8")).length > 0)).toContain(
      join(root, "src-main/crypto/identity.ts"),
    );
  });

  test.each([
    ['import { createHash } from "node:crypto"; createHash("sha3-512");', 1],
    ['import { webcrypto } from "node:crypto"; await webcrypto.subtle.digest("SHA-256", data);', 0],
    ['import { webcrypto } from "node:crypto"; await webcrypto.subtle.digest("SHA3-256", data);', 1],
    ['import { webcrypto as w } from "node:crypto"; await w.subtle.generateKey("X448");', 1],
    ['import { webcrypto } from "node:crypto"; const { subtle } = webcrypto;', 1],
    ['import { createHash as h } from "node:crypto"; h(name);', 1],
    ['import { type KeyObject, createHash } from "crypto";\ncreateHash("blake2b512")', 1],
    ['import * as crypto from "node:crypto"; crypto.createHash("sha3-512")', 1],
    ['import { generateKeyPairSync } from "node:crypto"; generateKeyPairSync("ed448")', 1],
    ['import { createCipheriv } from "node:crypto"; createCipheriv(\n  "chacha20-poly1305", k)', 1],
    ['import { createHash } from "node:crypto"; const NAME = "sha3-256"; createHash(NAME)', 1],
    ['import { createHash } from "node:crypto"; const NAME = "sha256"; createHash(NAME)', 0],
    ['import { argon2Sync } from "node:crypto"; argon2Sync()', 1],
    ['import { createHash, sign } from "node:crypto"; createHash("sha256"); sign(null, b, k); x.sign(b)', 0],
    ['import type { KeyObject } from "node:crypto";', 0],
  ])("are found in %j", (source, count) => {
    expect(problemsOf("x.ts", source).length).toBe(count);
  });
});
