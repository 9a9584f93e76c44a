import { readFile, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { app } from "./app.ts";
import { startBrowser } from "./browser.ts";

/** Finds the app in the arguments as Electron does (a folder with package.json, or a file), runs it, then is ready. */
const ownArguments = process.argv.slice(2);
process.argv = [process.env["STANDIN_EXE"] ?? process.execPath, ...ownArguments];

const target = resolve(ownArguments.find((argument) => !argument.startsWith("-")) ?? ".");
const isFolder = (await stat(target)).isDirectory();
const folder = isFolder ? target : dirname(target);
const manifest = isFolder ? JSON.parse(await readFile(join(folder, "package.json"), "utf8")) : {};
app.load(folder, manifest);
try {
  await import(pathToFileURL(isFolder ? join(folder, manifest.main ?? "index.js") : target).href);
  await startBrowser();
} catch (error) {
  process.stderr.write(`App threw an error during load\n${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
}
