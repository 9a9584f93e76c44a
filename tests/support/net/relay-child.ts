import type { Impairment } from "./impairment.ts";
import { TcpRelay } from "./tcp-impair.ts";
import { UdpRelay } from "./udp-impair.ts";

/** A relay in a process of its own, until its parent (forked-relay.ts) lets go of it. */
export interface RelaySettings {
  readonly seed: number;
  readonly impairment: Partial<Impairment>;
  /** Of a TCP relay; null makes it one for UDP. */
  readonly target: { readonly host: string; readonly port: number } | null;
}
export interface ToRelay {
  readonly id: number;
  readonly candidate: string;
}
/** First one with the port of a TCP relay, then one for each candidate. */
export type FromRelay = { readonly port: number | null } | { readonly id: number; readonly candidate: string | null };

const tell = (message: FromRelay): void => void process.send?.(message);
const { target, ...options } = JSON.parse(process.argv[2] ?? "") as RelaySettings;
process.on("disconnect", () => process.exit(0));

if (target === null) {
  const relay = new UdpRelay(options);
  process.on("message", ({ id, candidate }: ToRelay) => {
    void relay.rewrite(candidate).then((rewritten) => tell({ id, candidate: rewritten }));
  });
  tell({ port: null });
} else {
  tell({ port: (await TcpRelay.open({ ...options, target })).port });
}
