/** What share of the bandwidth a download gets beside others (TransferPriority in src-shared/ipc/views.ts). */
export const transferPrioritySchema = {
  name: "0012-transfer-priority",
  sql: `
    ALTER TABLE transfers ADD COLUMN priority TEXT NOT NULL DEFAULT 'normal' CHECK (priority IN ('high', 'normal', 'low'));
  `,
};
