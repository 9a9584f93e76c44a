import { readFileSync } from "node:fs";
import type { ProvenBundle } from "#shared/shares/receipt.ts";
import { verifyBundle } from "#shared/shares/receipt.ts";
import { logCrypto } from "../src-main/crypto/signed-log.ts";

/**
 * `npm run -s receipts -- verify FILE [--json]`: checks receipts that Weir exported, with nothing but the file itself, and
 * says what they prove. Code 0: everything holds; 1: something does not; 2: the command is wrong.
 */
const usage = (): never => {
  process.stderr.write("Usage: npm run -s receipts -- verify FILE [--json]\n");
  process.exit(2);
};

const when = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString());

const linesOf = ({ bundle, list, people }: ProvenBundle): string[] => {
  const names = new Map(bundle.people);
  /** The names are the exporter's; ids are what is proven. */
  const nameOf = (userId: string): string => {
    const name = names.get(userId as never) ?? "";
    return name === "" ? userId : `${JSON.stringify(name)} (${userId})`;
  };
  const lines = [
    `File ${JSON.stringify(bundle.fileName)} (${list.fileId}), ${bundle.file.manifest.sizeBytes} bytes, of ${nameOf(list.ownerId)}`,
    `Share list: version ${list.version}, ${list.members.size} with access. Exported ${when(bundle.exportedAtMs)} by ${nameOf(bundle.exporter)}`,
  ];
  for (const person of people) {
    const said = [
      `granted ${when(person.grantedAtMs)}`,
      ...(person.offeredAtMs === null ? [] : [`offered ${when(person.offeredAtMs)}`]),
      ...(person.completedAtMs === null ? [] : [`completed ${when(person.completedAtMs)}`]),
      ...(person.isMember ? [] : ["no access any more"]),
    ];
    lines.push(`${nameOf(person.userId)}: ${said.join(", ")}`);
  }
  return lines;
};

const [command, path, flag, ...rest] = process.argv.slice(2);
if (command !== "verify" || path === undefined || (flag !== undefined && flag !== "--json") || rest.length > 0) usage();

const readBundle = (): Buffer => {
  try {
    return readFileSync(path ?? "");
  } catch (error) {
    process.stderr.write(`${path} cannot be read: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(2);
  }
};
const verified = verifyBundle(readBundle(), logCrypto);
if (flag === "--json") {
  const answer = verified.ok
    ? { ok: true, version: verified.value.list.version, people: verified.value.people }
    : verified;
  process.stdout.write(`${JSON.stringify(answer)}\n`);
} else if (verified.ok) {
  process.stdout.write(
    `${linesOf(verified.value).join("\n")}\nAll signatures hold. Times are those of the signers' clocks.\n`,
  );
} else process.stdout.write(`NOT GENUINE (${verified.error.type}): ${verified.error.message}\n`);
process.exitCode = verified.ok ? 0 : 1;
