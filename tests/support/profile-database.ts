import { join } from "node:path";
import { readKeyRecord } from "../../src-main/host/key-file.ts";
import { Database } from "../../src-main/store/database.ts";
import { appMigrations } from "../../src-main/store/schema/app.ts";

/** Changes app.db of a profile that does not run. */
export const changeProfile = async (dataDir: string, ...statements: readonly string[]): Promise<void> => {
  const record = await readKeyRecord(dataDir);
  if (record?.kind !== "file") throw new Error("the profile has no key file");
  const db = Database.openApp(join(dataDir, "app.db"), record.key, appMigrations);
  for (const statement of statements) db.sql.exec(statement);
  db.dispose();
};
