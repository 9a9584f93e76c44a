import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import * as v from "valibot";
import { toBase64Url } from "#shared/base/bytes.ts";
import { EnvelopeIdSchema, UserIdSchema } from "#shared/base/ids.ts";
import { ENVELOPE_BYTES_MAX } from "#shared/base/limits.ts";
import { bytesField } from "#shared/wire/json.ts";
import type { EnvelopePush } from "../../src-main/signaling/signaling.ts";

/** A mailbox in two files, so that it outlives the process that reads it: the envelopes, and the ids acknowledged. */
const Mailbox = v.array(
  v.object({
    id: EnvelopeIdSchema,
    from: UserIdSchema,
    receivedAtMs: v.number(),
    sealed: v.object({ kind: v.picklist(["prekey", "message"]), body: bytesField(1, ENVELOPE_BYTES_MAX) }),
  }),
);

export const saveMailbox = (path: string, envelopes: readonly EnvelopePush[]): void => {
  const plain = envelopes.map(({ id, from, receivedAtMs, sealed }) => ({
    id,
    from,
    receivedAtMs,
    sealed: { kind: sealed.kind, body: toBase64Url(sealed.body) },
  }));
  writeFileSync(path, JSON.stringify(plain));
};

export const loadMailbox = (path: string, ackedPath: string): EnvelopePush[] => {
  const acked = new Set(readFileSync(ackedPath, "utf8").split("\n"));
  return v.parse(Mailbox, JSON.parse(readFileSync(path, "utf8"))).filter((envelope) => !acked.has(envelope.id));
};

export const acknowledge = (ackedPath: string, id: string): void => appendFileSync(ackedPath, `${id}\n`);
