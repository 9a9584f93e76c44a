import manifest from "../../package.json" with { type: "json" };

/** The version of the program, from the one place where it is written. Bundlers copy the value in. */
export const version: string = manifest.version;
