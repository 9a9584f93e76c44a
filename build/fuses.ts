import { join } from "node:path";
import { type FuseV1Config, FuseV1Options, FuseVersion, flipFuses } from "@electron/fuses";
import type { AfterPackContext } from "electron-builder";

/**
 * Switches inside the Electron binary, all stated: with `strictlyRequireAllFuses` a new one in a later Electron stops the
 * build until somebody has decided about it. https://www.electronjs.org/docs/latest/tutorial/fuses
 */
export const fuses = {
  version: FuseVersion.V1,
  strictlyRequireAllFuses: true,
  /** ELECTRON_RUN_AS_NODE would make the signed program run anything. */
  [FuseV1Options.RunAsNode]: false,
  [FuseV1Options.EnableCookieEncryption]: true,
  /** NODE_OPTIONS and NODE_EXTRA_CA_CERTS of whoever starts the program. */
  [FuseV1Options.EnableNodeOptionsEnvironmentVariable]: false,
  /** --inspect would give a debugger the keys. */
  [FuseV1Options.EnableNodeCliInspectArguments]: false,
  /** Checked on macOS and Windows; Linux has no such check yet. */
  [FuseV1Options.EnableEmbeddedAsarIntegrityValidation]: true,
  [FuseV1Options.OnlyLoadAppFromAsar]: true,
  [FuseV1Options.LoadBrowserProcessSpecificV8Snapshot]: false,
  /** Pages come from app://, never from file://. */
  [FuseV1Options.GrantFileProtocolExtraPrivileges]: false,
  /** Electron's default: WebAssembly bounds checks by signal handler. */
  [FuseV1Options.WasmTrapHandlers]: true,
} as const satisfies FuseV1Config;

/** electron-builder calls this before it signs. Its own `electronFuses` option knows only the first eight. */
export const setFuses = async (context: AfterPackContext): Promise<void> => {
  const { productFilename } = context.packager.appInfo;
  const executables: Record<string, string> = {
    darwin: `${productFilename}.app`,
    win32: `${productFilename}.exe`,
    linux: LINUX_EXECUTABLE,
  };
  const executable = executables[context.electronPlatformName];
  if (executable === undefined) throw new Error(`no fuses for ${context.electronPlatformName}`);
  await flipFuses(join(context.appOutDir, executable), {
    ...fuses,
    // The ad-hoc signature of an arm64 binary is void once a byte has changed.
    resetAdHocDarwinSignature: context.electronPlatformName === "darwin",
  });
};

export const LINUX_EXECUTABLE = "weir";
