import * as v from "valibot";
import { type Bytes, concatBytes, utf8 } from "../base/bytes.ts";
import { FileIdSchema, UserIdSchema } from "../base/ids.ts";
import {
  CHUNK_BYTES,
  CHUNK_BYTES_LARGE,
  CHUNKS_PER_FILE_MAX,
  FILE_BYTES_MAX,
  FILE_NAME_BYTES_MAX,
  FOLDER_ENTRIES_MAX,
  FOLDER_LIST_BYTES_MAX,
  LARGE_FILE_BYTES,
} from "../base/limits.ts";
import { bytesField, encodeJson } from "./json.ts";

/**
 * What the owner says about a file. `ManifestSchema` is the public part (the server sees it and the owner signs it);
 * name, key and plaintext hash travel only inside Signal messages (`FileOfferSchema`).
 */
export const ManifestSchema = v.pipe(
  v.object({
    fileId: FileIdSchema,
    ownerId: UserIdSchema,
    sizeBytes: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(FILE_BYTES_MAX)),
    chunkBytes: v.picklist([CHUNK_BYTES, CHUNK_BYTES_LARGE]),
    chunkCount: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(CHUNKS_PER_FILE_MAX)),
    /** SHA-256 Merkle root over the ciphertext chunks; see `hash-tree`. */
    root: bytesField(32),
    createdAtMs: v.pipe(v.number(), v.integer(), v.minValue(0)),
  }),
  v.check((m) => m.chunkCount === Math.ceil(m.sizeBytes / m.chunkBytes), "chunkCount does not fit sizeBytes"),
  v.check((m) => m.chunkBytes === chunkBytesFor(m.sizeBytes), "chunkBytes does not fit sizeBytes"),
);
export type Manifest = v.InferOutput<typeof ManifestSchema>;

export const SignedManifestSchema = v.object({
  manifest: ManifestSchema,
  /** Ed25519 by the owner's account key over {@link manifestSigningBytes}. */
  signature: bytesField(64),
});

/**
 * Says that the plaintext is a folder: the bytes of its files one after the other, then the list of them (`folder-list`),
 * which the `sha256` of the offer is about.
 */
const FolderPartSchema = v.object({
  listBytes: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(FOLDER_LIST_BYTES_MAX)),
  files: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(FOLDER_ENTRIES_MAX)),
});
export type FolderPart = v.InferOutput<typeof FolderPartSchema>;

/** The secret part, sent only inside Signal messages. */
export const FileOfferSchema = v.pipe(
  v.object({
    signed: SignedManifestSchema,
    name: v.pipe(v.string(), v.minLength(1), v.maxBytes(4 * FILE_NAME_BYTES_MAX)),
    key: bytesField(32),
    /** SHA-256 of the whole plaintext, or of a folder's list, which has the SHA-256 of every file. */
    sha256: bytesField(32),
    folder: v.optional(FolderPartSchema),
    /** The same plaintext under another id and key takes the place of this file: what has arrived of it is carried over. */
    replaces: v.optional(FileIdSchema),
  }),
  v.check(
    ({ signed, folder }) => (folder?.listBytes ?? 0) <= signed.manifest.sizeBytes,
    "the list is longer than the folder",
  ),
);
export type FileOffer = v.InferOutput<typeof FileOfferSchema>;

export const chunkBytesFor = (sizeBytes: number): typeof CHUNK_BYTES | typeof CHUNK_BYTES_LARGE =>
  sizeBytes > LARGE_FILE_BYTES ? CHUNK_BYTES_LARGE : CHUNK_BYTES;

/** Plaintext bytes of chunk `index`: all are full but the last. */
export const chunkLength = (
  manifest: Pick<Manifest, "sizeBytes" | "chunkBytes" | "chunkCount">,
  index: number,
): number => (index < manifest.chunkCount - 1 ? manifest.chunkBytes : manifest.sizeBytes - index * manifest.chunkBytes);

/** Domain-separated bytes that the owner signs. Field order is fixed here, not by the caller's object. */
export const manifestSigningBytes = (m: Manifest): Bytes =>
  concatBytes(
    utf8("weir file manifest v1\0"),
    encodeJson([m.fileId, m.ownerId, m.sizeBytes, m.chunkBytes, m.chunkCount, m.root, m.createdAtMs]),
  );
