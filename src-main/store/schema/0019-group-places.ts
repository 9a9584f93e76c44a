/**
 * Where in the chat an operation came: `after_message` is the position of the message that was the newest one then, 0 for
 * none. Of operations that were here before, the newest one that is not younger by the clocks of those who made them.
 */
export const groupPlacesSchema = {
  name: "0019-group-places",
  sql: `
    ALTER TABLE group_operations ADD COLUMN after_message INTEGER NOT NULL DEFAULT 0;
    UPDATE group_operations SET after_message = coalesce((
      SELECT max(position) FROM messages
      WHERE chat_id = group_id AND sent_at <= json_extract(CAST(operation AS TEXT), '$.atMs')), 0);
  `,
};
