import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Sealed } from "#shared/rendezvous/protocol.ts";
import {
  connect,
  createSessionPeer,
  openText,
  type SessionPeer,
  sealText,
  storedState,
  typeOf,
  unwrap,
} from "../support/session-peer.ts";

/** Whatever bytes a peer or the server sends: a typed error, nothing stored, and the genuine message opens afterwards. */
let alice: SessionPeer;
let bob: SessionPeer;
let carol: SessionPeer;
const create = (): Promise<SessionPeer> => createSessionPeer({ fast: true });
/** Alice to Bob in a session, and Carol's first message to Bob. */
let inSession: Sealed;
let first: Sealed;
beforeAll(async () => {
  [alice, bob, carol] = await Promise.all([create(), create(), create()]);
  await connect(alice, bob);
  inSession = await sealText(alice, bob, "in session");
  unwrap(await carol.sessions.start(bob.userId, await bob.bundle()));
  first = await sealText(carol, bob, "first");
});
afterAll(() => {
  for (const peer of [alice, bob, carol]) peer.dispose();
});

type Mutation = { at: number; kind: "flip" | "cut" | "insert" | "repeat"; value: number };
const mutation: fc.Arbitrary<Mutation> = fc.record({
  at: fc.nat({ max: 2000 }),
  kind: fc.constantFrom("flip", "cut", "insert", "repeat"),
  value: fc.integer({ min: 1, max: 255 }),
});
const mutate = (body: Uint8Array, { at, kind, value }: Mutation): Uint8Array<ArrayBuffer> => {
  const from = at % body.length;
  switch (kind) {
    case "flip":
      return Uint8Array.from(body, (byte, i) => (i === from ? byte ^ value : byte));
    case "cut":
      return new Uint8Array(body.subarray(0, from));
    case "insert":
      return Uint8Array.from([...body.subarray(0, from), value, ...body.subarray(from)]);
    case "repeat":
      return Uint8Array.from([...body.subarray(0, from), ...body]);
  }
};

/** Signal's outer wrapping has fields that nothing protects (the registration id): then the genuine text still opens. */
class Opened extends Error {}
const openAndUndo = async (from: SessionPeer, sealed: Sealed): Promise<string> => {
  try {
    const result = await bob.sessions.open(from.userId, sealed, (plaintext) => {
      throw new Opened(new TextDecoder().decode(plaintext));
    });
    return typeOf(result);
  } catch (error) {
    if (error instanceof Opened) return `opened: ${error.message}`;
    throw error;
  }
};

const REFUSALS = ["undecryptable", "duplicate_message", "no_session"];

test("changed ciphertexts are refused and change nothing", async () => {
  const before = storedState(bob);
  await fc.assert(
    fc.asyncProperty(fc.boolean(), fc.array(mutation, { minLength: 1, maxLength: 3 }), async (isFirst, mutations) => {
      const [from, genuine] = isFirst ? [carol, first] : [alice, inSession];
      const body = mutations.reduce(mutate, genuine.body);
      fc.pre(body.length > 0 && Buffer.compare(body, genuine.body) !== 0);
      const allowed = isFirst ? [...REFUSALS, "opened: first"] : REFUSALS;
      expect(allowed).toContain(await openAndUndo(from, { kind: genuine.kind, body }));
    }),
    { numRuns: 600 },
  );
  expect(storedState(bob)).toEqual(before);
});

test("random bytes of both kinds are refused and change nothing", async () => {
  const before = storedState(bob);
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom("prekey" as const, "message" as const),
      fc.uint8Array({ maxLength: 400 }),
      async (kind, bytes) => {
        const body = new Uint8Array(bytes);
        // Libsignal's version byte, so that the bytes behind it are read at all.
        if (body.length > 0) body[0] = 0x44;
        expect(REFUSALS).toContain(typeOf(await openText(bob, alice, { kind, body })));
      },
    ),
    { numRuns: 600 },
  );
  expect(storedState(bob)).toEqual(before);
  expect(unwrap(await openText(bob, alice, inSession))).toBe("in session");
  expect(unwrap(await openText(bob, carol, first))).toBe("first");
});
