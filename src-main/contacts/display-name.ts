import { PROFILE_NAME_LENGTH_MAX } from "#shared/base/limits.ts";

/**
 * Characters that no name needs and that make one name look like another, or turn the text around it: controls, line
 * and paragraph separators, the bidirectional marks, embeddings, overrides and isolates (Unicode UAX #9), invisible
 * joiners and the tag block.
 */
const HARMFUL =
  /[\p{Cc}\p{Zl}\p{Zp}\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\u{e0000}-\u{e007f}]/gu;

/** What is shown for somebody who told no usable name: the start of the user id. */
export const nameFromUserId = (userId: string): string => userId.slice(0, 8);

/** A name from a peer as it may be shown; `fallback` when nothing is left of it. At most PROFILE_NAME_LENGTH_MAX UTF-16 units. */
export const cleanName = (name: string, fallback: string): string => {
  // White space first, so that a tab or line break stays a gap between words; then the gaps that removals joined.
  const text = name.toWellFormed().replace(/\s+/gu, " ").replace(HARMFUL, "").replace(/ +/gu, " ").trim();
  let cut = "";
  for (const character of text) {
    if (cut.length + character.length > PROFILE_NAME_LENGTH_MAX) break;
    cut += character;
  }
  cut = cut.trim();
  return cut === "" ? fallback : cut;
};
