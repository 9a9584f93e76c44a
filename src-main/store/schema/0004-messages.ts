/** Tables of messages in app.db. */
export const messagesSchema = { name: "0004-messages", sql: "" };
