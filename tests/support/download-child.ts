import { writeSync } from "node:fs";
import { receiveDescribed } from "./described-download.ts";

/**
 * A process that receives one file or folder into its chunk worker and may be killed at any moment. It says on stdout how
 * far it is.
 *
 *   argv: description.json (spec with binary fields as arrays, sha256, directory, name, sealed, database)
 */
await receiveDescribed(process.argv[2] ?? "", (line) => void writeSync(1, `${line}\n`));
