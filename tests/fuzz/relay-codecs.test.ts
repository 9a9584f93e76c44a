import fc from "fast-check";
import { expect, test } from "vitest";
import { toBase64Url } from "#shared/base/bytes.ts";
import { LINK_MESSAGE_BYTES_MAX, RELAY_FRAME_BYTES_MAX } from "#shared/base/limits.ts";
import { isIceUrl } from "#shared/rendezvous/ice-url.ts";
import { decodeRelayFrame, encodeRelayFrame } from "#shared/rendezvous/relay.ts";
import {
  createRelayCipher,
  decodeRelayDescription,
  encodeRelayDescription,
  PieceJoiner,
  RELAY_PIECE_BYTES,
  sealedBytes,
} from "../../src-main/links/relay-cipher.ts";
import { readAnswer } from "../../src-main/signaling/request-queue.ts";
import { newRelayId } from "../support/relay-ends.ts";

const bytes = (minLength: number, maxLength = minLength) =>
  fc.uint8Array({ minLength, maxLength }).map((data) => new Uint8Array(data));
const latin = (maxLength: number) => fc.uint8Array({ maxLength }).map((data) => Buffer.from(data).toString("latin1"));
const description = bytes(32).map((half) => ({ relayId: newRelayId(), half }));
const channel = fc.constantFrom("control" as const, "bulk" as const);

test("a relayed frame comes back as it was, and nothing else is one", () => {
  fc.assert(
    fc.property(bytes(1, 2000), (sealed) => {
      const relayId = newRelayId();
      expect(decodeRelayFrame(encodeRelayFrame(relayId, sealed))).toEqual({ ok: true, value: { relayId, sealed } });
    }),
  );
  fc.assert(
    fc.property(fc.oneof(bytes(0, 40), fc.anything()), (raw) => {
      const frame = decodeRelayFrame(raw);
      if (!frame.ok) return;
      expect(raw).toBeInstanceOf(Uint8Array);
      expect(encodeRelayFrame(frame.value.relayId, frame.value.sealed)).toEqual(new Uint8Array(raw as Uint8Array));
    }),
  );
  for (const size of [0, RELAY_FRAME_BYTES_MAX + 1])
    expect(decodeRelayFrame(encodeRelayFrame(newRelayId(), new Uint8Array(size))).ok).toBe(false);
});

test("a description comes back as it was; any other text is refused without an exception", () => {
  fc.assert(
    fc.property(description, fc.nat(), latin(3), (wanted, at, junk) => {
      const text = encodeRelayDescription(wanted);
      expect(decodeRelayDescription(text)).toEqual({ ok: true, value: wanted });
      const place = at % text.length;
      const changed = text.slice(0, place) + junk + text.slice(place + 1);
      expect(decodeRelayDescription(changed).ok).toBe(changed === text);
      expect(decodeRelayDescription(text.slice(0, place)).ok).toBe(false);
    }),
  );
  fc.assert(
    fc.property(latin(60), (text) => {
      expect(decodeRelayDescription(text).ok).toBe(false);
    }),
  );
});

test("pieces open in their order and in no other, whatever is changed", () => {
  fc.assert(
    fc.property(
      description,
      bytes(32),
      fc.array(fc.record({ channel, last: fc.boolean(), bytes: bytes(0, 300) }), { minLength: 1, maxLength: 8 }),
      fc.nat(),
      (offer, half, pieces, where) => {
        const ends = () => ({
          offerer: createRelayCipher("offerer", offer, half),
          answerer: createRelayCipher("answerer", offer, half),
        });
        const { offerer, answerer } = ends();
        const sealed = pieces.map((piece) => offerer.sealer.seal(piece));
        for (const [i, frame] of sealed.entries()) {
          expect(frame.length).toBe(sealedBytes(pieces[i]?.bytes.length ?? 0));
          const piece = answerer.opener.open(frame);
          expect(piece === null ? null : { ...piece, bytes: new Uint8Array(piece.bytes) }).toEqual(pieces[i]);
        }
        const [first] = sealed;
        if (first === undefined) return;
        const changed = new Uint8Array(first);
        changed[where % changed.length] = (changed[where % changed.length] ?? 0) ^ (1 + (where % 255));
        expect(ends().answerer.opener.open(changed)).toBe(null);
        expect(ends().offerer.opener.open(first)).toBe(null);
        expect(answerer.opener.open(first)).toBe(null);
        expect(createRelayCipher("answerer", offer, new Uint8Array(32)).opener.open(first) === null).toBe(
          half.some((byte) => byte !== 0),
        );
      },
    ),
    { numRuns: 60 },
  );
});

test("random bytes open to nothing", () => {
  fc.assert(
    fc.property(description, bytes(0, 100), (offer, frame) => {
      expect(createRelayCipher("answerer", offer, offer.half).opener.open(frame)).toBe(null);
    }),
  );
});

test("pieces become their messages again, channels mixed; endless and oversized ones are refused", () => {
  const message = fc.record({
    channel,
    size: fc.constantFrom(0, 1, 500, RELAY_PIECE_BYTES, RELAY_PIECE_BYTES + 1, LINK_MESSAGE_BYTES_MAX),
  });
  fc.assert(
    fc.property(fc.array(message, { maxLength: 6 }), fc.infiniteStream(fc.boolean()), (messages, order) => {
      const joiner = new PieceJoiner();
      const waiting = {
        control: [] as { last: boolean; bytes: Uint8Array }[],
        bulk: [] as { last: boolean; bytes: Uint8Array }[],
      };
      for (const [index, { channel: name, size }] of messages.entries()) {
        const whole = new Uint8Array(size).fill(index + 1);
        for (let at = 0; ; at += RELAY_PIECE_BYTES) {
          const last = at + RELAY_PIECE_BYTES >= size;
          waiting[name].push({ last, bytes: whole.subarray(at, at + RELAY_PIECE_BYTES) });
          if (last) break;
        }
      }
      const arrived: { channel: string; size: number; index: number | undefined }[] = [];
      while (waiting.control.length + waiting.bulk.length > 0) {
        const name =
          waiting.bulk.length === 0 || (waiting.control.length > 0 && order.next().value) ? "control" : "bulk";
        const piece = waiting[name].shift();
        if (piece === undefined) continue;
        const result = joiner.add({ channel: name, ...piece });
        expect(result).not.toBe("too_large");
        if (typeof result !== "string") arrived.push({ channel: name, size: result.length, index: result[0] });
      }
      for (const name of ["control", "bulk"]) {
        const sent = messages.flatMap((m, index) =>
          m.channel === name ? [{ ...m, index: m.size === 0 ? undefined : index + 1 }] : [],
        );
        expect(arrived.filter((m) => m.channel === name)).toEqual(sent);
      }
    }),
    { numRuns: 50 },
  );
  const joiner = new PieceJoiner();
  expect(joiner.add({ channel: "bulk", last: false, bytes: new Uint8Array(0) })).toBe("too_large");
  const full = { channel: "control" as const, last: false, bytes: new Uint8Array(RELAY_PIECE_BYTES) };
  const results = Array.from({ length: 9 }, () => joiner.add(full));
  expect(results).toContain("too_large");
});

test("only an address with a port is a STUN or TURN server", () => {
  for (const url of ["turn:turn.example.org:3478", "turn:192.0.2.1:1", "turn:a:65535", "turn:a:1"])
    expect([url, isIceUrl("turn", url)]).toEqual([url, true]);
  const wrong = [
    "stun:a:1",
    "turn:a",
    "turn:a:0",
    "turn:a:65536",
    "turn:u:p@a:1",
    "turn:a:1?transport=tcp",
    "turns:a:1",
  ];
  for (const url of [
    ...wrong,
    "turn:a b:1",
    "turn:-a:1",
    "turn:a%00:1",
    "turn:[::1]:1",
    "turn:[2001:db8::1]:3478",
    " turn:a:1",
    "turn:a:1\n",
    "",
  ])
    expect([url, isIceUrl("turn", url)]).toEqual([url, false]);
  fc.assert(
    fc.property(latin(60), (text) => {
      isIceUrl("turn", text);
      const id = toBase64Url(new Uint8Array(16));
      expect(isIceUrl("turn", `turn:${text}${id}`)).toBe(false);
    }),
  );
});

test("a list of servers that the native library could not take is no answer", () => {
  const turn = { urls: ["turn:a:1"], username: "1:x", password: "p", expiresInMs: 1 };
  const answer = (value: unknown): string => {
    const read = readAnswer("turn", { ok: true, value });
    return read.ok ? "ok" : read.error.type;
  };
  expect(answer({ stunUrls: ["stun:a:1"], turn })).toBe("ok");
  expect(answer({ stunUrls: [], turn: null })).toBe("ok");
  const wrong = [
    { stunUrls: ["stun:[::1]:1"], turn },
    { stunUrls: Array(9).fill("stun:a:1"), turn },
    { stunUrls: [], turn: { ...turn, urls: ["turn:u:p@a:1"] } },
    { stunUrls: [], turn: { ...turn, username: "a\0" } },
    { stunUrls: [], turn: { ...turn, password: "" } },
    { stunUrls: [], turn: { ...turn, expiresInMs: 0 } },
    { stunUrls: [] },
  ];
  for (const value of wrong) expect([value, answer(value)]).toEqual([value, "bad_answer"]);
});
