import type { SessionRow } from "../store/activity-sums.ts";
import type { Session } from "./fold.ts";

/** Sessions are written only by this program, so what is read has the shape that was written. */
export const rowOf = ({ data, ...session }: Session): SessionRow => ({ ...session, data: JSON.stringify(data) });

export const sessionOf = ({ data, ...row }: SessionRow): Session => ({ ...row, data: JSON.parse(data) }) as Session;
