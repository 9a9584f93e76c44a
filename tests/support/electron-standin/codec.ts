/**
 * Structured clone as JSON. The function's own source also runs inside the page, so it uses nothing from outside.
 * Cyclic values are not supported.
 */
export interface Codec {
  encode(value: unknown): unknown;
  // biome-ignore lint/suspicious/noExplicitAny: the receiver knows what was sent
  decode(value: any): any;
}

export const createCodec = (): Codec => {
  const toBase64 = (bytes: Uint8Array): string => {
    let text = "";
    for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
    return btoa(text);
  };
  const fromBase64 = (text: string): Uint8Array => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  const encode = (value: unknown): unknown => {
    if (value === undefined) return { $: "undefined" };
    if (value === null || typeof value === "string" || typeof value === "boolean") return value;
    if (typeof value === "number") {
      return Number.isFinite(value) && !Object.is(value, -0)
        ? value
        : { $: "number", v: Object.is(value, -0) ? "-0" : String(value) };
    }
    if (typeof value === "bigint") return { $: "bigint", v: String(value) };
    if (typeof value !== "object") throw new Error("An object could not be cloned.");
    if (Array.isArray(value)) return value.map(encode);
    if (value instanceof Date) return { $: "date", v: value.getTime() };
    if (value instanceof Error) return { $: "error", v: [value.name, value.message, value.stack] };
    if (value instanceof Map) return { $: "map", v: [...value].map(encode) };
    if (value instanceof Set) return { $: "set", v: [...value].map(encode) };
    if (value instanceof ArrayBuffer) return { $: "buffer", v: toBase64(new Uint8Array(value)) };
    if (ArrayBuffer.isView(value)) {
      return { $: "bytes", v: toBase64(new Uint8Array(value.buffer, value.byteOffset, value.byteLength)) };
    }
    return { $: "object", v: Object.entries(value).map(([key, item]) => [key, encode(item)]) };
  };

  // biome-ignore lint/suspicious/noExplicitAny: see Codec
  const decode = (value: any): any => {
    if (value === null || typeof value !== "object") return value;
    if (Array.isArray(value)) return value.map(decode);
    switch (value.$) {
      case "number":
        return Number(value.v);
      case "bigint":
        return BigInt(value.v);
      case "date":
        return new Date(value.v);
      case "error":
        return Object.assign(new Error(value.v[1]), { name: value.v[0], stack: value.v[2] });
      case "map":
        return new Map(value.v.map(decode));
      case "set":
        return new Set(value.v.map(decode));
      case "buffer":
        return fromBase64(value.v).buffer;
      case "bytes":
        return fromBase64(value.v);
      case "object": {
        const object = {};
        for (const [key, item] of value.v) {
          // Not an assignment: "__proto__" must stay an ordinary key.
          Object.defineProperty(object, key, {
            value: decode(item),
            enumerable: true,
            writable: true,
            configurable: true,
          });
        }
        return object;
      }
      default:
        return undefined;
    }
  };
  return { encode, decode };
};
