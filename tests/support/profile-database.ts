import { join } from "node:path";
import { readKeyRecord } from "../../src-main/host/key-file.ts";
import { Database } from "../../src-main/store/database.ts";
import { appMigrations } from "../../src-main/store/schema/app.ts";

/** app.db of a profile that does not run. The caller disposes of it. */
export const openProfileDatabase = async (dataDir: string): Promise<Database> => {
  const record = await readKeyRecord(dataDir);
  if (record?.kind !== "file") throw new Error("the profile has no key file");
  return Database.openApp(join(dataDir, "app.db"), record.key, appMigrations);
};

/** Changes app.db of a profile that does not run. */
export const changeProfile = async (dataDir: string, ...statements: readonly string[]): Promise<void> => {
  const db = await openProfileDatabase(dataDir);
  for (const statement of statements) db.sql.exec(statement);
  db.dispose();
};
