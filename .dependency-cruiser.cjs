/**
 * The layers of Weir as rules (docs/adr/0001-layers-and-folders.md), for all imports, those of types included. The rules for
 * what runs are in .dependency-cruiser-runtime.cjs. `npm run check` applies both; tests/unit/build-layers.test.ts plants a
 * violation of each rule and sees it reported.
 *
 * @type {import("dependency-cruiser").IConfiguration}
 */

/** Inside src-main, top to bottom; folders of one line may import each other. A folder may import its own line and those below. */
const LAYERS = [
  ["host", "ipc"],
  ["engine"],
  ["messages", "transfer", "shares", "activity"],
  ["contacts"],
  ["links"],
  ["signaling", "crypto"],
  ["store"],
];

const folders = (names) => `^src-main/(?:${names.join("|")})/`;

/** Types name the seams between layers and vanish when the program runs, so they are held to the same direction. */
const downward = LAYERS.slice(1).map((line, index) => ({
  name: `downward-only-${line.join("-")}`,
  comment: `${line.join(", ")} may not know what is built on top of it`,
  severity: "error",
  from: { path: folders(line) },
  to: { path: folders(LAYERS.slice(0, index + 1).flat()) },
}));

/** One module group per library that needs care: its traps stay in one place. */
const soleImporter = (name, library, importers) => ({
  name: `sole-importer-of-${name}`,
  comment: `only ${importers} may import ${name}`,
  severity: "error",
  from: { path: "^(?:src-|native/)", pathNot: importers },
  to: { path: library },
});

/** A state machine; $1 is its folder. */
const MACHINE = "^(.+)/[^/]+-machine[.]ts$";
const packageFolder = (name) => `(?:^|node_modules/)${name}(?:/|$)`;

const NODE_BUILTINS = { dependencyTypes: ["core"] };

/** Imports across the top folders: who may import whom, besides itself. Everyone may import src-shared. */
const ALLOWED_ACROSS = {
  "src-main": "^(?:native/(?:index|fallback)\\.ts$|src-server/server\\.ts$)",
  "src-preload": null,
  "src-renderer": null,
  "src-server": null,
  "src-shared": null,
  native: null,
};

const across = Object.entries(ALLOWED_ACROSS).map(([folder, allowed]) => ({
  name: `only-shared-from-${folder}`,
  comment: `${folder} may import itself and src-shared${allowed ? ` and ${allowed}` : ""}, and no other folder of ours`,
  severity: "error",
  from: { path: `^${folder}/` },
  to: {
    path: "^(?:src-[a-z]+|native|scripts|tests|build)/",
    pathNot: [`^${folder}/`, ...(folder === "src-shared" ? [] : ["^src-shared/"]), ...(allowed ? [allowed] : [])],
  },
}));

module.exports = {
  forbidden: [
    {
      name: "not-to-unresolvable",
      comment: "a misspelt path or a package that is not installed",
      severity: "error",
      from: {},
      to: { couldNotResolve: true, pathNot: "^electron$" },
    },
    {
      name: "no-undeclared-package",
      comment: "a package that is only installed because another one needs it",
      severity: "error",
      from: {},
      to: { dependencyTypes: ["npm-no-pkg", "npm-unknown"] },
    },
    {
      name: "no-development-package-in-node",
      comment: "what runs in Node or Electron's main process without a bundler must be a dependency",
      severity: "error",
      from: { path: "^(?:src-main|src-server|src-shared)/" },
      to: { dependencyTypes: ["npm-dev"], dependencyTypesNot: ["type-only"], pathNot: packageFolder("electron") },
    },
    ...across,
    ...downward,
    {
      name: "composition-is-on-top",
      comment:
        "entries and the composition root (files directly in src-main) are imported by nothing below; app.ts, env.ts, log.ts and steps.ts hold types, the clock, the log and the named moments",
      severity: "error",
      from: { path: "^src-main/[^/]+/" },
      to: { path: "^src-main/[^/]+\\.ts$", pathNot: "^src-main/(?:app|env|log|start-app|steps)\\.ts$" },
    },
    {
      name: "only-hosts-start-the-app",
      comment: "start-app.ts wires everything; only the hosts and entries call it, and only they and ipc know App",
      severity: "error",
      from: { path: "^src-main/[^/]+/", pathNot: folders(["host"]) },
      to: { path: "^src-main/(?:app|start-app|log)\\.ts$" },
    },
    {
      name: "shared-is-pure",
      comment: "src-shared runs in Node, Electron, a sandboxed renderer and a simulator alike",
      severity: "error",
      from: { path: "^src-shared/" },
      to: NODE_BUILTINS,
    },
    {
      name: "shared-needs-little",
      comment: "src-shared imports valibot and @scure only",
      severity: "error",
      from: { path: "^src-shared/" },
      to: {
        dependencyTypes: ["npm", "npm-dev", "npm-optional"],
        pathNot: packageFolder("(?:valibot|@scure/[a-z0-9]+)"),
      },
    },
    {
      name: "renderer-has-no-node",
      comment: "the renderer is a sandboxed web page; its build configuration is not part of it",
      severity: "error",
      from: { path: "^src-renderer/", pathNot: "\\.config\\.ts$" },
      to: NODE_BUILTINS,
    },
    {
      name: "machines-are-pure",
      comment: "a machine is a function of state and event: no Node, no library; types are no import",
      severity: "error",
      from: { path: MACHINE },
      to: {
        dependencyTypes: ["core", "npm", "npm-dev", "npm-optional", "npm-peer"],
        dependencyTypesNot: ["type-only"],
      },
    },
    {
      name: "machines-import-siblings-only",
      comment: "a machine knows its own folder and src-shared",
      severity: "error",
      from: { path: MACHINE },
      to: { path: "^(?:src-|native/)", pathNot: ["^$1/[^/]+$", "^src-shared/"], dependencyTypesNot: ["type-only"] },
    },
    {
      name: "nobody-listens-to-steps",
      comment: "a process may be stopped at a named moment by a test alone: only steps.ts has the channel",
      severity: "error",
      from: { path: "^(?:src-|native/)", pathNot: "^src-main/steps\\.ts$" },
      to: { path: "^(?:node:)?diagnostics_channel$" },
    },
    soleImporter("node-datachannel", packageFolder("node-datachannel"), "^src-main/links/driver[^/]*\\.ts$"),
    soleImporter(
      "better-sqlite3",
      packageFolder("better-sqlite3(?:-multiple-ciphers)?"),
      "^(?:src-main/store/|src-server/)",
    ),
    soleImporter("libsignal", packageFolder("@signalapp/libsignal-client"), "^src-main/crypto/"),
    soleImporter("electron", "^electron$|node_modules/electron/", "^(?:src-main/host/electron/|src-preload/)"),
    soleImporter("socket.io-client", packageFolder("socket\\.io-client"), "^src-main/signaling/"),
    soleImporter("socket.io", packageFolder("socket\\.io"), "^src-server/"),
    soleImporter("kysely", packageFolder("kysely"), "^src-server/"),
    soleImporter("ws", packageFolder("ws"), "^src-main/host/headless/"),
    soleImporter("multicast-dns", packageFolder("(?:@types/)?multicast-dns"), "^src-main/links/lan-socket\\.ts$"),
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    exclude: { path: "(?:^|/)native/build/" },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: {
      exportsFields: ["exports"],
      conditionNames: ["import", "svelte", "browser", "node", "default", "types"],
      extensions: [".ts", ".js", ".svelte", ".json", ".d.ts"],
    },
  },
};
