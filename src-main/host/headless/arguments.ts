import { parseArgs } from "node:util";
import * as v from "valibot";
import { PROFILE_NAME_LENGTH_MAX } from "#shared/base/limits.ts";
import { fail, messageOf, ok, type Result } from "#shared/base/result.ts";

export interface HeadlessArguments {
  readonly dataDir: string;
  readonly server: string | undefined;
  readonly name: string | undefined;
  /** 0 lets the system choose. */
  readonly port: number;
  readonly downloads: string | undefined;
}

export const USAGE = `Usage: npm run -s headless -- --data DIR [options]
  --data DIR         where Weir keeps this profile (made if missing)
  --server URL       ws://HOST:PORT or wss://HOST:PORT of a rendezvous server, or "embedded" (default: as saved)
  --name NAME        name shown to contacts
  --port PORT        port on 127.0.0.1 (default 0: any free one)
  --downloads DIR    where received files go
The first line on stdout is {"ready":true,"url":...,"token":...}; open url#token in a browser, or speak JSON on /ipc.
With WEIR_PASSPHRASE set, the passphrase protects the profile; else a key file that only you can read does.`;

const Server = v.pipe(v.string(), v.maxLength(512), v.regex(/^(embedded|wss?:\/\/[^\s]+)$/));
const Name = v.pipe(v.string(), v.trim(), v.minLength(1), v.maxLength(PROFILE_NAME_LENGTH_MAX));
const Port = v.pipe(v.string(), v.regex(/^\d{1,5}$/), v.transform(Number), v.maxValue(65535));
const Directory = v.pipe(v.string(), v.minLength(1));

export const parseArguments = (
  argv: readonly string[],
): Result<HeadlessArguments, { type: "usage"; message: string }> => {
  const parsed = split(argv);
  if (!parsed.ok) return parsed;
  const { data, server, name, port, downloads } = parsed.value;
  if (!v.is(Directory, data)) return usage("--data DIR is missing.");
  if (server !== undefined && !v.is(Server, server))
    return usage('--server must be "embedded" or a ws:// or wss:// URL.');
  const validName = name === undefined ? undefined : v.safeParse(Name, name);
  if (validName?.success === false) return usage(`--name must have 1 to ${PROFILE_NAME_LENGTH_MAX} characters.`);
  const validPort = v.safeParse(Port, port ?? "0");
  if (!validPort.success) return usage("--port must be a number from 0 to 65535.");
  if (downloads !== undefined && !v.is(Directory, downloads)) return usage("--downloads must name a folder.");
  return ok({ dataDir: data, server, name: validName?.output, port: validPort.output, downloads });
};

const usage = (message: string) => fail("usage", message);

const option = { type: "string" } as const;
const split = (argv: readonly string[]) => {
  try {
    const options = { data: option, server: option, name: option, port: option, downloads: option };
    return ok(parseArgs({ args: [...argv], options, strict: true, allowPositionals: false }).values);
  } catch (thrown) {
    return usage(messageOf(thrown));
  }
};
