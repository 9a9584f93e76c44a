/**
 * When we heard that an own message had arrived and was read; null for not yet, and for what was so before this was kept. In a
 * group `messages` has the time at which the last member had come so far.
 */
export const receiptTimesSchema = {
  name: "0020-receipt-times",
  sql: `
    ALTER TABLE messages ADD COLUMN delivered_at INTEGER;
    ALTER TABLE messages ADD COLUMN read_at INTEGER;
    ALTER TABLE group_receipts ADD COLUMN delivered_at INTEGER;
    ALTER TABLE group_receipts ADD COLUMN read_at INTEGER;
  `,
};
