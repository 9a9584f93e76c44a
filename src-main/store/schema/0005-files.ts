/** Tables of files in app.db. */
export const filesSchema = { name: "0005-files", sql: "" };
