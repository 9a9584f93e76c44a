/** Until when, and to how many people, a file is given; null for no end and no limit. */
export interface FileLimits {
  expiresAtMs: number | null;
  downloadLimit: number | null;
}

export const noLimits: FileLimits = { expiresAtMs: null, downloadLimit: null };

const two = (part: number): string => String(part).padStart(2, "0");

/** For an input of type `datetime-local`: local time, to the minute. */
export const dateInputOf = (ms: number | null): string => {
  if (ms === null) return "";
  const date = new Date(ms);
  const day = `${String(date.getFullYear()).padStart(4, "0")}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day}T${two(date.getHours())}:${two(date.getMinutes())}`;
};

export type Typed<T> = { ok: true; value: T | null } | { ok: false; message: string };

/** What was typed as the end; it has to lie ahead. */
export const endOf = (text: string, nowMs: number): Typed<number> => {
  if (text === "") return { ok: true, value: null };
  const ms = new Date(text).getTime();
  if (Number.isNaN(ms)) return { ok: false, message: "This is no date and time." };
  return ms > nowMs ? { ok: true, value: ms } : { ok: false, message: "This time has passed already." };
};

/** What was typed as the number of downloads. */
export const limitOf = (text: string, max: number): Typed<number> => {
  if (text.trim() === "") return { ok: true, value: null };
  const limit = Number(text);
  return Number.isInteger(limit) && limit >= 1 && limit <= max
    ? { ok: true, value: limit }
    : { ok: false, message: `Type a number from 1 to ${max}, or nothing.` };
};
