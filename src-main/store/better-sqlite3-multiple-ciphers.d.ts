// The package's exports map hides its own index.d.ts; its API is that of better-sqlite3.
declare module "better-sqlite3-multiple-ciphers" {
  export { default } from "better-sqlite3";
}
