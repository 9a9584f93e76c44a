import fc from "fast-check";
import * as v from "valibot";
import { describe, expect, it } from "vitest";
import { answers } from "#shared/rendezvous/answers.ts";
import {
  ChallengeSchema,
  pushes,
  RequestEnvelopeSchema,
  type RequestName,
  requests,
} from "#shared/rendezvous/protocol.ts";
import { parseServerUrl } from "../../src-main/signaling/client.ts";
import { readAnswer } from "../../src-main/signaling/request-queue.ts";
import { addressKey } from "../../src-server/rates.ts";

const RUNS = { numRuns: 2000 };
const names = Object.keys(requests) as RequestName[];
const anything = fc.anything({ withTypedArray: true, withDate: true, withMap: true, withBigInt: true });

describe("parsers of the signaling client and the server", () => {
  it("read any answer as a success of the right shape or a typed error, and never throw", () => {
    const answer = fc.oneof(
      anything,
      fc.record({ ok: fc.constant(true), value: anything }),
      fc.record({
        ok: fc.constant(false),
        error: fc.oneof(anything, fc.record({ type: fc.string(), message: fc.string() })),
      }),
    );
    fc.assert(
      fc.property(fc.constantFrom(...names), answer, (name, raw) => {
        const result = readAnswer(name, raw);
        if (result.ok) expect(v.is(answers[name], result.value)).toBe(true);
        else expect(result.error).toMatchObject({ type: expect.stringMatching(/^[a-z_]{1,64}$/) });
      }),
      RUNS,
    );
  });

  it("refuse other pushes, challenges and requests without throwing", () => {
    const schemas = [...Object.values(pushes), ...Object.values(requests).map(({ input }) => input)];
    fc.assert(
      fc.property(anything, (raw) => {
        for (const schema of [...schemas, ChallengeSchema, RequestEnvelopeSchema]) v.safeParse(schema, raw);
      }),
      RUNS,
    );
  });

  it("take only plain websocket addresses", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.webUrl(),
          fc.webUrl().map((url) => url.replace(/^http/, "ws")),
        ),
        (text) => {
          const url = parseServerUrl(text);
          if (!url.ok) {
            expect(url.error.type).toBe("bad_server_url");
            return;
          }
          expect(url.value.protocol).toMatch(/^wss?:$/);
          expect(url.value.pathname + url.value.search + url.value.hash + url.value.username).toMatch(/^\/?$/);
        },
      ),
      RUNS,
    );
  });

  it("find the same key for all ways to write one address, and for a whole IPv6 /64", () => {
    const group = fc.integer({ min: 0, max: 0xffff });
    fc.assert(
      fc.property(fc.array(group, { minLength: 8, maxLength: 8 }), group, (groups, other) => {
        const text = groups.map((n) => n.toString(16)).join(":");
        const compressed = new URL(`http://[${text}]`).hostname.slice(1, -1);
        const padded = groups.map((n) => n.toString(16).padStart(4, "0").toUpperCase()).join(":");
        const neighbour = [...groups.slice(0, 7), other].map((n) => n.toString(16)).join(":");
        const keys = [text, compressed, padded, neighbour, `${text}%eth0`].map(addressKey);
        expect(new Set(keys).size).toBe(1);
        expect(keys[0]?.split(":")).toHaveLength(4);
      }),
      RUNS,
    );
    fc.assert(fc.property(fc.ipV4(), (ip) => addressKey(`::ffff:${ip}`) === ip && addressKey(ip) === ip));
    fc.assert(fc.property(fc.string(), (text) => typeof addressKey(text) === "string"));
  });
});
