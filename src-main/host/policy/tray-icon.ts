import type { TrayState } from "./attention.ts";

/** The tray's icon, drawn instead of loaded: three steps of a weir on a rounded square, and a dot for the state. */
type Color = readonly [red: number, green: number, blue: number];
const WATER: Color = [0x0f, 0x76, 0x8e];
const FOAM: Color = [0xff, 0xff, 0xff];
const DOT: Readonly<Record<TrayState, Color>> = {
  online: [0x22, 0xa0, 0x5b],
  offline: [0x8a, 0x8f, 0x98],
  busy: [0xf0, 0xa0, 0x20],
};

/** Pixels of a square image, four bytes each: blue, green, red, alpha, as Electron's bitmaps have them. */
export const drawTrayIcon = (size: number, state: TrayState): Buffer => {
  const pixels = Buffer.alloc(size * size * 4);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const color = colorAt((x + 0.5) / size, (y + 0.5) / size, state);
      if (color !== null) pixels.set([color[2], color[1], color[0], 255], (y * size + x) * 4);
    }
  }
  return pixels;
};

/** `x` and `y` from 0 to 1; null is transparent. */
const colorAt = (x: number, y: number, state: TrayState): Color | null => {
  const toDot = Math.hypot(x - 0.78, y - 0.78);
  if (toDot < 0.2) return DOT[state];
  if (toDot < 0.26 || !inRoundedSquare(x, y)) return null;
  // Each step starts further right and lower: water over three sills.
  const step = [0.3, 0.5, 0.7].findIndex((sill) => Math.abs(y - sill) < 0.06);
  return step >= 0 && x > 0.16 + step * 0.14 && x < 0.5 + step * 0.16 ? FOAM : WATER;
};

const CORNER = 0.22;
const inRoundedSquare = (x: number, y: number): boolean => {
  const beyond = (at: number): number => Math.max(CORNER - at, at - (1 - CORNER), 0);
  return Math.hypot(beyond(x), beyond(y)) <= CORNER;
};
