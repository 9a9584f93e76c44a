export type IceScheme = "stun" | "turn";

const ICE_URL = /^(stun|turn):[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?:(\d{1,5})$/;

/**
 * `stun:host:port` or `turn:host:port`, with a name or an IPv4 address and nothing after the port: all that a link can use
 * (UDP). An IPv6 address needs a name, because libdatachannel takes none in brackets, and refuses the whole connection.
 */
export const isIceUrl = (scheme: IceScheme, url: string): boolean => {
  const [, found, port] = ICE_URL.exec(url) ?? [];
  return found === scheme && Number(port) >= 1 && Number(port) <= 65_535;
};
