import * as v from "valibot";
import { type Bytes, bytesEqual, concatBytes, utf8 } from "../base/bytes.ts";
import { FileIdSchema, type UserId, UserIdSchema } from "../base/ids.ts";
import { SHARE_OPERATIONS_MAX, SHARE_RECEIPTS_MAX } from "../base/limits.ts";
import type { LogCrypto } from "../base/log-crypto.ts";
import { fail, ok, type Result } from "../base/result.ts";
import { bytesField, type DecodeError, decodeJson, encodeJson } from "../wire/json.ts";
import { type Manifest, manifestSigningBytes, SignedManifestSchema } from "../wire/manifest.ts";
import {
  append,
  emptyList,
  type ShareList,
  type ShareOperation,
  ShareOperationSchema,
  shareSigningBytes,
} from "./share-log.ts";

/**
 * Signed statements of what became of a file, one for each kind and person:
 *
 *   offered     `actor` sent the file's key to `subject`
 *   completed   `actor`, who is the `subject`, has the file, checked and saved
 *
 * That somebody was *granted* access is an operation of the share list, which is signed as well. A receipt proves what its
 * signer said, and with the root which contents it was about; its time is the signer's clock. Nobody can make one in
 * another's name, but everybody can keep silent: who has a copy and no receipt cannot be known.
 */
const KINDS = ["offered", "completed"] as const;
export type ReceiptKind = (typeof KINDS)[number];

const timeMs = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(8.64e15));

/** `field(n)` reads n bytes: as base64url in JSON, as they are on the socket to the server. */
export const receiptSchema = <Field extends v.GenericSchema<unknown, Bytes>>(field: (bytes: number) => Field) =>
  v.object({
    fileId: FileIdSchema,
    kind: v.picklist(KINDS),
    subject: UserIdSchema,
    /** Of the manifest: which contents. */
    root: field(32),
    actor: UserIdSchema,
    actorKey: field(32),
    atMs: timeMs,
    signature: field(64),
  });
export const ReceiptSchema = receiptSchema((bytes) => bytesField(bytes));
export type Receipt = v.InferOutput<typeof ReceiptSchema>;
export type UnsignedReceipt = Omit<Receipt, "signature">;

/** Domain-separated bytes that the actor signs; the order of the fields is fixed here. */
export const receiptSigningBytes = ({ fileId, kind, subject, root, actor, actorKey, atMs }: UnsignedReceipt): Bytes =>
  concatBytes(utf8("weir share receipt v1\0"), encodeJson([fileId, kind, subject, root, actor, actorKey, atMs]));

export type ReceiptError = { readonly type: "receipt_malformed" | "receipt_forged"; readonly message: string };

/** Whether its actor signed it, and may say such a thing. Whether both had anything to do with the file, the list tells. */
export const checkReceipt = (receipt: Receipt, crypto: LogCrypto): Result<void, ReceiptError> => {
  const { kind, subject, actor, actorKey, signature } = receipt;
  if ((kind === "completed") !== (actor === subject))
    return fail("receipt_malformed", "Everybody confirms their own download, and offers a file to somebody else.");
  const genuine =
    crypto.userIdOf(actorKey) === actor && crypto.verify(actorKey, receiptSigningBytes(receipt), signature);
  return genuine ? ok(undefined) : fail("receipt_forged", "The receipt is not signed by the person that it names.");
};

export const encodeReceipt = (receipt: Receipt): Bytes => encodeJson(receipt);
export const decodeReceipt = (stored: Uint8Array): Result<Receipt, DecodeError> => decodeJson(ReceiptSchema, stored);

// ---- Exported ------------------------------------------------------------------------------------------------------

/** What one person knows about a file, as a file: complete in itself, so that it can be checked without Weir's server. */
const BundleSchema = v.object({
  weirReceipts: v.literal(1),
  /** As the exporter calls them; nobody else vouches for the names. */
  fileName: v.pipe(v.string(), v.maxLength(1024)),
  people: v.pipe(
    v.array(v.tuple([UserIdSchema, v.pipe(v.string(), v.maxLength(256))])),
    v.maxLength(SHARE_RECEIPTS_MAX),
  ),
  file: SignedManifestSchema,
  operations: v.pipe(v.array(ShareOperationSchema), v.minLength(1), v.maxLength(SHARE_OPERATIONS_MAX)),
  receipts: v.pipe(v.array(ReceiptSchema), v.maxLength(SHARE_RECEIPTS_MAX)),
  exportedAtMs: timeMs,
  exporter: UserIdSchema,
  exporterKey: bytesField(32),
  /** The exporter's, over everything else: whatever is left out or renamed afterwards is seen. */
  signature: bytesField(64),
});
export type ReceiptBundle = v.InferOutput<typeof BundleSchema>;

export const bundleSigningBytes = (bundle: Omit<ReceiptBundle, "signature">): Bytes => {
  const { fileName, people, file, operations, receipts, exportedAtMs, exporter, exporterKey } = bundle;
  // Of what is signed itself, the bytes that were signed: the order of fields in the file means nothing.
  const record = [manifestSigningBytes(file.manifest), file.signature];
  const log = operations.map((operation) => [shareSigningBytes(operation), operation.signature]);
  const said = receipts.map((receipt) => [receiptSigningBytes(receipt), receipt.signature]);
  return concatBytes(
    utf8("weir receipts export v1\0"),
    encodeJson([fileName, people, record, log, said, exportedAtMs, exporter, exporterKey]),
  );
};

export const encodeBundle = (bundle: ReceiptBundle): Bytes => encodeJson(bundle);

/** One line of the answer to "who has it, since when". Times are those that the signers said. */
export interface ProvenPerson {
  readonly userId: UserId;
  readonly grantedAtMs: number | null;
  readonly grantedBy: UserId | null;
  readonly offeredAtMs: number | null;
  readonly offeredBy: UserId | null;
  readonly completedAtMs: number | null;
  /** Whether the list still names them at its end. */
  readonly isMember: boolean;
}

export interface ProvenBundle {
  readonly bundle: ReceiptBundle;
  readonly list: ShareList;
  readonly people: readonly ProvenPerson[];
}

export type BundleError = { readonly type: string; readonly message: string };

/** Everybody whom the list ever named and what is proven of them, in the order in which they came. */
export const provenPeople = (
  list: ShareList,
  operations: readonly ShareOperation[],
  receipts: readonly Receipt[],
): ProvenPerson[] => {
  const people = new Map<UserId, ProvenPerson>();
  for (const { kind, userIds, atMs, actor } of operations)
    if (kind === "add")
      for (const userId of userIds)
        people.set(userId, {
          ...{ userId, grantedAtMs: atMs, grantedBy: actor, isMember: list.members.has(userId) },
          ...{ offeredAtMs: null, offeredBy: null, completedAtMs: null },
        });
  for (const { kind, subject, actor, atMs } of receipts) {
    const person = people.get(subject);
    if (person === undefined) continue;
    const said = kind === "offered" ? { offeredAtMs: atMs, offeredBy: actor } : { completedAtMs: atMs };
    people.set(subject, { ...person, ...said });
  }
  return [...people.values()];
};

/**
 * Checks an exported file with nothing but itself: the exporter's signature over all of it, the owner's over the file's
 * record, the chain of the share list, and each receipt. Errors: `bad_message`, `bundle_changed`, `bad_record`,
 * `receipt_forged`, `receipt_malformed`, `receipt_unrelated`, and those of the list (`share_forged`, `share_conflict`, ...).
 */
export const verifyBundle = (exported: Uint8Array, crypto: LogCrypto): Result<ProvenBundle, BundleError> => {
  const read = decodeJson(BundleSchema, exported);
  if (!read.ok) return read;
  const bundle = read.value;
  const { file, operations, receipts, exporter, exporterKey } = bundle;
  if (
    crypto.userIdOf(exporterKey) !== exporter ||
    !crypto.verify(exporterKey, bundleSigningBytes(bundle), bundle.signature)
  )
    return fail("bundle_changed", "The file was changed after it was exported, or was never exported by that person.");
  const { manifest } = file;
  let list = emptyList(manifest.fileId, manifest.ownerId, crypto);
  for (const operation of operations) {
    const next = append(list, operation, crypto);
    if (!next.ok) return fail(next.error.type, `Operation ${operation.version} of the list: ${next.error.message}`);
    list = next.value;
  }
  const ownerKey = operations[0]?.actorKey ?? new Uint8Array(32);
  if (!crypto.verify(ownerKey, manifestSigningBytes(manifest), file.signature))
    return fail("bad_record", "The record of the file is not signed by its owner.");
  const everNamed = new Set<string>([manifest.ownerId, ...operations.flatMap(({ userIds }) => userIds)]);
  for (const receipt of receipts) {
    const checked = checkReceipt(receipt, crypto);
    if (!checked.ok) return checked;
    if (!isAbout(receipt, manifest, everNamed))
      return fail("receipt_unrelated", "A receipt is about another file, or of somebody who never had access.");
  }
  return ok({ bundle, list, people: provenPeople(list, operations, receipts) });
};

/** `everNamed`: the owner, and whomever the list named at any time. */
export const isAbout = (
  { fileId, root, actor, subject }: Receipt,
  manifest: Pick<Manifest, "fileId" | "root" | "ownerId">,
  everNamed: ReadonlySet<string>,
): boolean =>
  fileId === manifest.fileId &&
  bytesEqual(root, manifest.root) &&
  everNamed.has(actor) &&
  everNamed.has(subject) &&
  subject !== manifest.ownerId;
