import svelte from "eslint-plugin-svelte";
import tseslint from "typescript-eslint";

/**
 * Only what Biome cannot do, and what oxlint cannot do in Svelte files: rules that need types (for TypeScript files they are
 * in .oxlintrc.json, where they take a tenth of the time), rules for templates, and what time and randomness come from.
 */
const promiseRules = {
  "@typescript-eslint/no-floating-promises": "error",
  "@typescript-eslint/no-misused-promises": "error",
  "@typescript-eslint/await-thenable": "error",
};

const INJECTED =
  "Time and randomness are inputs: take them from Env (src-shared/base/env.ts), so that a simulation can own them.";
const injectedOnly = {
  "no-restricted-properties": [
    "error",
    { object: "Date", property: "now", message: INJECTED },
    { object: "performance", property: "now", message: INJECTED },
    { object: "Math", property: "random", message: INJECTED },
  ],
  "no-restricted-globals": ["error", ...["setTimeout", "setInterval"].map((name) => ({ name, message: INJECTED }))],
  "no-restricted-syntax": [
    "error",
    { selector: "NewExpression[callee.name='Date'][arguments.length=0]", message: INJECTED },
  ],
};

export default tseslint.config(
  { ignores: ["out/", "dist/", "coverage/", "node_modules/", "native/build/", "**/*.cjs", "**/*.js"] },
  { linterOptions: { reportUnusedDisableDirectives: "error" } },
  {
    files: ["**/*.svelte", "**/*.svelte.ts"],
    extends: [svelte.configs.base],
    plugins: { "@typescript-eslint": tseslint.plugin },
    languageOptions: {
      parserOptions: {
        parser: tseslint.parser,
        projectService: true,
        tsconfigRootDir: import.meta.dirname,
        extraFileExtensions: [".svelte"],
      },
    },
    rules: { ...promiseRules, "svelte/no-at-html-tags": "error" },
  },
  {
    files: ["src-shared/**/*.ts", "src-main/**/*.ts", "src-server/**/*.ts"],
    // The shells at the very edge: the one place that reads the real clock, and what runs before or around the program.
    ignores: ["src-main/env.ts", "src-main/host/**", "src-main/*.ts", "src-server/main.ts", "src-server/env.ts"],
    extends: [tseslint.configs.base],
    rules: injectedOnly,
  },
);
