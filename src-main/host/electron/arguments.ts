/**
 * Options of the desktop program, for development, the demo and tests. Electron and Chromium read the same list, so
 * unknown ones are not ours to refuse. `--option=value` only.
 */
export interface ElectronArguments {
  readonly dataDir: string | undefined;
  readonly server: string | undefined;
  readonly name: string | undefined;
  readonly downloads: string | undefined;
}

export const parseElectronArguments = (argv: readonly string[]): ElectronArguments => {
  const value = (option: string): string | undefined => {
    const prefix = `--${option}=`;
    const found = argv.find((argument) => argument.startsWith(prefix))?.slice(prefix.length);
    return found === "" ? undefined : found;
  };
  return { dataDir: value("data"), server: value("server"), name: value("name"), downloads: value("downloads") };
};
