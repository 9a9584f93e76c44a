import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { toBase64Url } from "#shared/base/bytes.ts";
import { INVITE_CODE_ALPHABET, INVITE_CODE_LENGTH, INVITE_LINK_LENGTH_MAX } from "#shared/base/limits.ts";
import { decodeInviteLink, encodeInviteLink, parseInviteCode } from "#shared/wire/invite.ts";
import { counted } from "../support/counts.ts";

const RUNS = counted(3000, 10_000);
const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const host = fc.oneof(fc.constant("127.0.0.1:4000"), fc.constant("[::1]:1"), fc.domain());
const invite = fc.record({
  accountKey: bytes(32),
  identityKey: bytes(33),
  inviteId: bytes(16),
  secret: bytes(32),
  serverUrl: fc
    .tuple(fc.constantFrom("ws://", "wss://"), host, fc.constantFrom("", "/", "/weir"))
    .map((p) => p.join("")),
});
const PREFIX = "weir://invite/";

describe("links", () => {
  test("come back as they were", () => {
    fc.assert(
      fc.property(invite, (value) => {
        const link = encodeInviteLink(value);
        fc.pre(link.length <= INVITE_LINK_LENGTH_MAX);
        expect(decodeInviteLink(link)).toEqual({ ok: true, value });
        // Browsers add a slash to what they take for an address.
        expect(decodeInviteLink(`${link}/`)).toEqual({ ok: true, value });
      }),
      { numRuns: RUNS },
    );
  });

  test("any text, any bytes behind the prefix: never throws, invalid_invite", () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.string(), fc.string({ unit: "binary" })),
        fc.uint8Array({ maxLength: 260 }),
        (text, data) => {
          for (const input of [text, PREFIX + text, PREFIX + toBase64Url(data)]) {
            const decoded = decodeInviteLink(input);
            if (decoded.ok) expect(encodeInviteLink(decoded.value)).toBe(input);
            else expect(decoded.error.type).toBe("invalid_invite");
          }
        },
      ),
      { numRuns: RUNS },
    );
  });

  test("a link with one character changed or cut off: never throws, never another meaning of the same bytes", () => {
    fc.assert(
      fc.property(invite, fc.nat(), fc.string({ maxLength: 1 }), (value, at, change) => {
        const link = encodeInviteLink(value);
        const index = at % link.length;
        const decoded = decodeInviteLink(link.slice(0, index) + change + link.slice(index + 1));
        if (decoded.ok) expect(decodeInviteLink(encodeInviteLink(decoded.value))).toEqual(decoded);
      }),
      { numRuns: RUNS },
    );
  });

  test.each(["http://x", "ws://", "ws://a b", "ws://user@host", "ws://host?q", "ws://host#f", "javascript:1", ""])(
    "server address %j is refused",
    (serverUrl) => {
      const parts = { accountKey: new Uint8Array(32), identityKey: new Uint8Array(33) };
      const link = encodeInviteLink({ ...parts, inviteId: new Uint8Array(16), secret: new Uint8Array(32), serverUrl });
      expect(decodeInviteLink(link).ok).toBe(false);
    },
  );

  test("longer than a QR code holds is refused unread", () => {
    expect(decodeInviteLink(PREFIX + "A".repeat(INVITE_LINK_LENGTH_MAX)).ok).toBe(false);
  });
});

describe("codes", () => {
  const letters = fc.array(fc.constantFrom(...INVITE_CODE_ALPHABET), {
    minLength: INVITE_CODE_LENGTH,
    maxLength: INVITE_CODE_LENGTH,
  });

  test("are read as people type them", () => {
    fc.assert(
      fc.property(
        letters,
        fc.array(fc.constantFrom("", " ", "-", "\t"), { minLength: 7, maxLength: 7 }),
        (code, gaps) => {
          const typed = gaps.map((gap, i) => gap + (code[i] ?? "")).join("");
          expect(parseInviteCode(typed)).toBe(code.join(""));
          expect(parseInviteCode(typed.toLowerCase())).toBe(code.join(""));
        },
      ),
      { numRuns: RUNS },
    );
  });

  test("any text: never throws; what is accepted has only letters of the alphabet", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 12 }), (text) => {
        const code = parseInviteCode(text);
        if (code !== null) expect([...code].every((letter) => INVITE_CODE_ALPHABET.includes(letter))).toBe(true);
        if (code !== null) expect(code).toHaveLength(INVITE_CODE_LENGTH);
      }),
      { numRuns: RUNS },
    );
  });

  test.each(["", "ABCDE", "ABCDEFG", "ABCDE0", "ABCDE1", "ABCDEI", "ABCDEO"])("%j is no code", (text) => {
    expect(parseInviteCode(text)).toBe(null);
  });
});
