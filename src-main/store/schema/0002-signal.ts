/** Tables of signal in app.db. */
export const signalSchema = { name: "0002-signal", sql: "" };
