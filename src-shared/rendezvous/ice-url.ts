export type IceScheme = "stun" | "turn";

const ICE_URL = /^(stun|turn):(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?):(\d{1,5})$/;

/** `stun:host:port` or `turn:host:port`, the address with its port and nothing after it: all that a link can use (UDP). */
export const isIceUrl = (scheme: IceScheme, url: string): boolean => {
  const [, found, port] = ICE_URL.exec(url) ?? [];
  return found === scheme && Number(port) >= 1 && Number(port) <= 65_535;
};
