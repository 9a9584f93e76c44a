import * as v from "valibot";
import { toBase64Url } from "#shared/base/bytes.ts";
import type { Random } from "#shared/base/env.ts";
import { type EnvelopeId, EnvelopeIdSchema, type MessageId, MessageIdSchema } from "#shared/base/ids.ts";

const ID_BYTES = 16;

export const newMessageId = (random: Random): MessageId =>
  v.parse(MessageIdSchema, toBase64Url(random.bytes(ID_BYTES)));

export const newEnvelopeId = (random: Random): EnvelopeId =>
  v.parse(EnvelopeIdSchema, toBase64Url(random.bytes(ID_BYTES)));
