/**
 * What `fork` receives are views of the buffer that the channel reads into: posting one to a worker would copy the whole
 * buffer, transferring one would take it from the channel.
 */
export const withOwnBytes = (value: unknown): unknown => {
  if (value instanceof Uint8Array) return new Uint8Array(value);
  if (Array.isArray(value)) return value.map(withOwnBytes);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, withOwnBytes(part)]));
};
