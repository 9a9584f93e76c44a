import { createHmac } from "node:crypto";
import * as v from "valibot";
import { assert } from "#shared/base/assert.ts";
import { type Bytes, concatBytes, toBase32, toHex, utf8 } from "#shared/base/bytes.ts";
import type { Random, TimeMs } from "#shared/base/env.ts";
import type { UserId } from "#shared/base/ids.ts";
import {
  LAN_EPOCH_MS,
  LAN_INSTANCE_BYTES,
  LAN_RECORD_TTL_MS,
  LAN_RECORDS_MAX,
  LAN_TAG_BYTES,
  LAN_TAGS_MAX,
  LAN_TAGS_PER_STRING,
} from "#shared/base/limits.ts";

/**
 * What Weir says of itself on a local network, as multicast DNS (RFC 6762) and DNS-SD (RFC 6763):
 *
 *   _weir._udp.local               PTR  <instance>._weir._udp.local
 *   <instance>._weir._udp.local    SRV  0 0 <port> <instance>.local
 *   <instance>._weir._udp.local    TXT  strings of LAN_TAGS_PER_STRING tags, LAN_TAG_BYTES each
 *
 * Nothing in it names anybody. `instance` is random and replaced every LAN_EPOCH_MS. A tag is
 *
 *   HMAC-SHA256(secret of the pair, "weir lan tag 1" | epoch | instance | user id of the sender), cut
 *
 * so that only the contact it is meant for can tell it from the random ones that fill up the last string; a copy under
 * another instance, of a later epoch, or sent back to its maker means nothing. There is no host name and no address
 * record: the address is where the packet came from. A port of 0 says that no port is always open (RFC 6763, 6).
 */
export const LAN_SERVICE = "_weir._udp.local";
const TAG_CONTEXT = "weir lan tag 1";
const INSTANCE = /^[a-z2-7]{20}$/;

export interface LanRecord {
  readonly instance: string;
  /** 0 for none. */
  readonly port: number;
  /** In hexadecimal. */
  readonly tags: ReadonlySet<string>;
}

/** A person that may recognise us, and the secret that the two share. */
export interface LanPeer {
  readonly peer: UserId;
  readonly secret: Uint8Array;
}

/** A resource record as the DNS library takes and gives it; only what is used here. */
export type DnsRecord =
  | { readonly name: string; readonly type: "PTR"; readonly ttl: number; readonly data: string }
  | {
      readonly name: string;
      readonly type: "SRV";
      readonly ttl: number;
      readonly data: { readonly port: number; readonly target: string };
    }
  | { readonly name: string; readonly type: "TXT"; readonly ttl: number; readonly data: Buffer[] };

export const newInstance = (random: Random): string => toBase32(random.bytes(LAN_INSTANCE_BYTES)).slice(0, 20);

export const epochAt = (atMs: TimeMs): number => Math.floor(atMs / LAN_EPOCH_MS);

const tagOf = (secret: Uint8Array, sender: UserId, instance: string, epoch: number): string => {
  const text = utf8(`${TAG_CONTEXT}|${epoch}|${instance}|${sender}`);
  return toHex(new Uint8Array(createHmac("sha256", secret).update(text).digest().subarray(0, LAN_TAG_BYTES)));
};

/**
 * The TXT strings: always whole ones, filled up at random and sorted, so that they tell neither whom they are for nor, but
 * roughly, how many. Of more than LAN_TAGS_MAX people the first count.
 */
export const tagStrings = (
  peers: Iterable<LanPeer>,
  self: UserId,
  instance: string,
  epoch: number,
  random: Random,
): Bytes[] => {
  const tags: string[] = [];
  for (const { secret } of peers) {
    if (tags.length === LAN_TAGS_MAX) break;
    tags.push(tagOf(secret, self, instance, epoch));
  }
  while (tags.length === 0 || tags.length % LAN_TAGS_PER_STRING !== 0) tags.push(toHex(random.bytes(LAN_TAG_BYTES)));
  const sorted = tags.sort().map((tag) => new Uint8Array(Buffer.from(tag, "hex")));
  return Array.from({ length: sorted.length / LAN_TAGS_PER_STRING }, (_, at) =>
    concatBytes(...sorted.slice(at * LAN_TAGS_PER_STRING, (at + 1) * LAN_TAGS_PER_STRING)),
  );
};

/** The records of one announcement; a lifetime of 0 takes them back (RFC 6762, 10.1). */
export const lanRecords = (
  instance: string,
  port: number,
  strings: readonly Uint8Array[],
  ttlMs: number,
): DnsRecord[] => {
  assert(INSTANCE.test(instance), "an instance is 20 characters of base32");
  const name = `${instance}.${LAN_SERVICE}`;
  const ttl = Math.round(ttlMs / 1000);
  return [
    { name: LAN_SERVICE, type: "PTR", ttl, data: name },
    { name, type: "SRV", ttl, data: { port, target: `${instance}.local` } },
    { name, type: "TXT", ttl, data: strings.map((string) => Buffer.from(string)) },
  ];
};

const Ttl = v.pipe(v.number(), v.integer(), v.minValue(0));
const Answer = v.variant("type", [
  v.object({ type: v.literal("PTR"), name: v.string(), ttl: Ttl, data: v.string() }),
  v.object({
    type: v.literal("SRV"),
    name: v.string(),
    ttl: Ttl,
    data: v.object({ port: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65_535)) }),
  }),
  v.object({
    type: v.literal("TXT"),
    name: v.string(),
    ttl: Ttl,
    data: v.pipe(v.array(v.instance(Uint8Array)), v.maxLength(LAN_TAGS_MAX / LAN_TAGS_PER_STRING)),
  }),
]);

export type Heard =
  | { readonly type: "record"; readonly record: LanRecord }
  | { readonly type: "gone"; readonly instance: string };

/**
 * What a response says of Weirs: at most LAN_RECORDS_MAX of its answers are looked at, and whatever does not have exactly
 * our form (other services, other versions, hostile ones) is passed over.
 */
export const readLanAnswers = (answers: readonly unknown[]): Heard[] => {
  const ports = new Map<string, number>();
  const tags = new Map<string, ReadonlySet<string>>();
  const gone = new Set<string>();
  for (const answer of answers.slice(0, LAN_RECORDS_MAX)) {
    const read = v.safeParse(Answer, answer);
    if (!read.success) continue;
    const instance = instanceOf(read.output.type === "PTR" ? read.output.data : read.output.name);
    if (instance === null) continue;
    if (read.output.ttl === 0) gone.add(instance);
    else if (read.output.type === "SRV") ports.set(instance, read.output.data.port);
    else if (read.output.type === "TXT" && read.output.data.every(isTagString))
      tags.set(instance, new Set(read.output.data.flatMap(tagsIn)));
  }
  const heard: Heard[] = [...gone].map((instance) => ({ type: "gone", instance }));
  for (const [instance, port] of ports) {
    const found = tags.get(instance);
    if (found !== undefined && !gone.has(instance))
      heard.push({ type: "record", record: { instance, port, tags: found } });
  }
  return heard;
};

const instanceOf = (name: string): string | null => {
  const [, instance = null] = name.toLowerCase().match(/^([a-z2-7]{20})\._weir\._udp\.local$/) ?? [];
  return instance;
};

const STRING_BYTES = LAN_TAGS_PER_STRING * LAN_TAG_BYTES;
const isTagString = (string: Uint8Array): boolean => string.length === STRING_BYTES;
const tagsIn = (string: Uint8Array): string[] =>
  Array.from({ length: LAN_TAGS_PER_STRING }, (_, at) =>
    toHex(string.subarray(at * LAN_TAG_BYTES, (at + 1) * LAN_TAG_BYTES)),
  );

/** Who sent this; null for a stranger. Clocks may differ by one epoch. */
export const recognise = ({ instance, tags }: LanRecord, peers: Iterable<LanPeer>, atMs: TimeMs): UserId | null => {
  const epoch = epochAt(atMs);
  for (const { peer, secret } of peers)
    for (const near of [epoch, epoch - 1, epoch + 1]) if (tags.has(tagOf(secret, peer, instance, near))) return peer;
  return null;
};

assert(STRING_BYTES <= 255, "a TXT string has at most 255 bytes (RFC 1035)");
assert(LAN_TAGS_MAX % LAN_TAGS_PER_STRING === 0, "strings of tags are whole");
assert(LAN_RECORD_TTL_MS < LAN_EPOCH_MS, "a record ends before it is replaced");
