import * as v from "valibot";
import { decodeValue } from "#shared/wire/json.ts";
import type { StoredEvent } from "../store/activity.ts";

/**
 * What the log holds, by kind. `peer` and `fileId` are columns of every event. Nothing here is content: no texts, no names
 * of people or files, no addresses; `type` and `reason` are the stable words of errors and links.
 */
const count = v.pipe(v.number(), v.integer(), v.minValue(0));
const path = v.picklist(["lan", "direct", "relay", "server"]);
const word = v.pipe(v.string(), v.maxLength(64));
const none = v.nullable(v.unknown());

/** What one seeder gave of the bytes that arrived. */
const share = v.object({ peer: v.string(), path, bytes: count, chunks: count });

const schemas = {
  "app.started": none,
  "app.stopped": none,
  /** Written by triggers, with the row that they are about; `peer` is whom it goes to or comes from. */
  "message.queued": none,
  "message.sent": none,
  "message.delivered": none,
  "message.read": none,
  "message.failed": none,
  "message.received": none,
  "transfer.started": none,
  "transfer.paused": none,
  "transfer.resumed": none,
  "transfer.cancelled": none,
  "transfer.removed": none,
  "transfer.failed": v.object({ type: word }),
  "transfer.completed": v.object({ requested: count, duplicate: count, late: count, rejected: count }),
  /** Bytes of the file that were stored since the last one, in `ms`; `peer` is the file's owner. */
  "transfer.progress": v.object({ bytes: count, ms: count, sizeBytes: count, shares: v.array(share) }),
  /** The phase that begins, and how long the one before it took; null after a restart. */
  "transfer.phase": v.object({ phase: word, from: v.nullable(word), ms: v.nullable(count) }),
  "transfer.drained": v.object({ ms: count, endedBy: word }),
  /** Bytes of our file that `peer` fetched from us. */
  "transfer.served": v.object({ bytes: count, chunks: count, path }),
  "link.up": v.object({ path: v.nullable(path), generation: count }),
  "link.path": v.object({ path: v.nullable(path) }),
  "link.down": v.object({ reason: v.nullable(word) }),
  "link.failed": v.object({ reason: v.nullable(word) }),
  "contact.online": none,
  "contact.offline": none,
  "share.changed": v.object({ version: count, members: count }),
  error: v.object({ type: word }),
} as const;

export type EventKind = keyof typeof schemas;
export type EventData<Kind extends EventKind> = v.InferOutput<(typeof schemas)[Kind]>;

export type ActivityEvent = {
  [Kind in EventKind]: Omit<StoredEvent, "kind" | "data"> & { readonly kind: Kind; readonly data: EventData<Kind> };
}[EventKind];

export const isKnownKind = (kind: string): kind is EventKind => Object.hasOwn(schemas, kind);

/** Null for a kind of another version, and for data that do not fit: such an event is kept aside, never dropped. */
export const decodeEvent = (stored: StoredEvent): ActivityEvent | null => {
  if (!isKnownKind(stored.kind)) return null;
  const schema = schemas[stored.kind];
  // Most events have no data, and a million of them are read in one run.
  if (schema === none) return { ...stored, data: null } as ActivityEvent;
  const decoded = decodeValue(schema as v.GenericSchema, jsonOf(stored.data));
  // The schema of this kind has just accepted them.
  return decoded.ok ? ({ ...stored, data: decoded.value } as ActivityEvent) : null;
};

const jsonOf = (text: string | null): unknown => {
  try {
    return JSON.parse(text ?? "null");
  } catch {
    return undefined;
  }
};
