import { build, Platform } from "electron-builder";
import config from "../build/electron-builder.ts";
import { ensureAppBuilt } from "./app-build.ts";
import { ensureNativeBuilt } from "./native-build.ts";
import { note, root } from "./run.ts";

/** `npm run package`: the installers of the system this runs on, into dist/. Fetches Electron, and the tools of the installers. */
const built = await ensureAppBuilt();
const native = await ensureNativeBuilt();
if (built.type === "failed" || built.type === "impossible") {
  note(built.message);
  process.exitCode = 1;
} else if (native.type === "failed") {
  // An installer must not depend on what happened to be on the machine that made it.
  note(`the native addon is not built: ${native.reason}`);
  process.exitCode = 1;
} else {
  const artifacts = await build({
    targets: Platform.current().createTarget(),
    config,
    projectDir: root,
    publish: "never",
  });
  for (const artifact of artifacts) note(artifact);
}
