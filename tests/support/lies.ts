/** Ways in which a seeder can lie about the chunks of a file; see lying-headless-process.ts. */
export const LIES = [
  ...(["wrong bytes", "short chunks", "long chunks", "wrong indices", "cut frames", "unrequested chunks"] as const),
  ...(["repeated chunks", "silence", "no accept", "a chunk now and then", "a flood of frames"] as const),
  ...([
    "a flood of messages",
    "claims what it lacks",
    "leaves out every other chunk",
    "counts what it never sent",
  ] as const),
];
export type Lie = (typeof LIES)[number];

/** A file with the lie of the moment; empty for the truth. */
export const LIE_VARIABLE = "WEIR_TEST_LIE";
