import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { hue } from "../src/core/colour.js";

// As XEP-0392 §13.2 has it.
const vectors: [string, number][] = [
  ["Romeo", 327.255249],
  ["juliet@capulet.lit", 209.410400],
  ["😺", 331.199341],
  ["council", 359.994507],
  ["Board", 171.430664],
];

type Colour = [number, number, number]; // linear red, green, blue

function fromHex(hex: string): Colour {
  const part = (n: number): number => {
    const c = parseInt(hex.slice(1 + 2 * n, 3 + 2 * n), 16) / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  };
  return [part(0), part(1), part(2)];
}

// As CSS Color 4 has it, what is out of gamut cut off.
function fromOklch(lightness: number, chroma: number, angle: number): Colour {
  const [a, b] = [chroma * Math.cos((angle * Math.PI) / 180), chroma * Math.sin((angle * Math.PI) / 180)];
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const rgb: Colour = [4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s, -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s, -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s];
  return rgb.map((c) => Math.min(1, Math.max(0, c))) as Colour;
}

function contrast(one: Colour, other: Colour): number {
  const luminance = ([r, g, b]: Colour): number => 0.2126 * r + 0.7152 * g + 0.0722 * b;
  const [low, high] = [luminance(one), luminance(other)].sort((x, y) => x - y) as [number, number];
  return (high + 0.05) / (low + 0.05);
}

describe("colours of names", () => {
  for (const [id, angle] of vectors) {
    it(`are those of everywhere else: ${id}`, async () => {
      expect(await hue(id)).toBeCloseTo(angle, 4);
    });
  }

  const css = readFileSync(new URL("../src/ui/styles.css", import.meta.url), "utf8");
  const names = [...css.matchAll(/\.nick \{[^}]*oklch\((\d+)% (\.\d+) var/g)].map((m) => [Number(m[1]) / 100, Number(m[2])] as const);
  const papers = [...css.matchAll(/--hf-paper: (#\w+);/g)].map((m) => m[1] ?? "");
  for (const [n, theme] of ["light", "dark"].entries()) {
    it(`can be read, whatever the hue, when it is ${theme}`, () => {
      const [name, paper] = [names[n], papers[n]];
      if (!name || paper === undefined) throw new Error("the styles have no such colour");
      for (let angle = 0; angle < 360; angle++) expect(contrast(fromOklch(...name, angle), fromHex(paper))).toBeGreaterThan(5);
    });
  }
});
