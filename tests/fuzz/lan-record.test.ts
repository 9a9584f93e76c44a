import fc from "fast-check";
import { expect, it } from "vitest";
import { LAN_RECORDS_MAX, LAN_TAGS_MAX } from "#shared/base/limits.ts";
import { LAN_SERVICE, readLanAnswers, recognise } from "../../src-main/links/lan-record.ts";
import { userIdOf } from "../support/links-ids.ts";

const name = fc.oneof(
  fc.string(),
  fc.constant(LAN_SERVICE),
  fc.stringMatching(/^[a-z2-7]{20}$/).map((instance) => `${instance}.${LAN_SERVICE}`),
);
const answer = fc.record({
  name: fc.oneof(name, fc.anything()),
  type: fc.oneof(fc.constantFrom("PTR", "SRV", "TXT", "A", "OPT"), fc.anything()),
  ttl: fc.oneof(fc.nat(), fc.anything()),
  data: fc.oneof(
    name,
    fc.record({ port: fc.oneof(fc.integer(), fc.anything()), target: name }),
    fc.array(fc.oneof(fc.uint8Array({ maxLength: 300 }), fc.uint8Array({ minLength: 248, maxLength: 248 }))),
    fc.anything(),
  ),
});

it("answers of any kind are read without an error and within the bounds", () => {
  fc.assert(
    fc.property(fc.array(fc.oneof(answer, fc.anything()), { maxLength: 60 }), (answers) => {
      const heard = readLanAnswers(answers);
      expect(heard.length).toBeLessThanOrEqual(LAN_RECORDS_MAX);
      for (const item of heard) {
        expect(item.type === "gone" ? item.instance : item.record.instance).toMatch(/^[a-z2-7]{20}$/);
        if (item.type === "gone") continue;
        expect(item.record.tags.size).toBeLessThanOrEqual(LAN_TAGS_MAX);
        expect(recognise(item.record, [{ peer: userIdOf(1), secret: new Uint8Array(32) }], 0)).toBeNull();
      }
    }),
    { numRuns: 2000 },
  );
});
