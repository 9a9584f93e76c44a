/** Tables of contacts in app.db. */
export const contactsSchema = { name: "0003-contacts", sql: "" };
