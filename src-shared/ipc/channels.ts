/** Names of the Electron channels between preload and main. Nothing else travels between the two. */
export const ipcChannels = {
  /** invoke(name, input) -> Result */
  call: "weir:call",
  /** invoke(path) -> handle; only the preload script, which got the path from a dropped or picked File, can send it */
  grant: "weir:grant",
  /** send(event, payload), main to renderer */
  event: "weir:event",
} as const;
