import type { TestProject } from "vitest/node";
import { openPostgres } from "../../src-server/postgres.ts";
import { startEngines } from "./engines.ts";
import { realEnv } from "./files.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** Of the PostgreSQL and the Redis that run for all files of the project. */
    engines: { readonly folder: string; readonly redisUrl: string; readonly template: string };
  }
}

/** Of the project `distributed`: starts both once. */
export const setup = async (project: TestProject): Promise<() => Promise<void>> => {
  const engines = await startEngines();
  // Made once: each test gets a copy, without the server id, which is of one database.
  const url = await engines.createDatabase();
  const store = await openPostgres(url, realEnv);
  await store.db.deleteFrom("server").execute();
  await store.close();
  const template = new URL(url).pathname.slice(1);
  project.provide("engines", { folder: engines.folder, redisUrl: engines.redisUrl, template });
  return () => engines.stop();
};
