const known = new Map<string, Promise<number>>();

// hue is the angle of the colour that somebody has everywhere (XEP-0392 §5.1), in degrees. Lightness and saturation are
// the theme's, so that the text can be read (src/ui/styles.css).
export function hue(id: string): Promise<number> {
  const had = known.get(id);
  if (had) return had;
  if (known.size > 5000) known.clear();
  const made = crypto.subtle.digest("SHA-1", new TextEncoder().encode(id)).then((sum) => (new DataView(sum).getUint16(0, true) / 65536) * 360);
  known.set(id, made);
  return made;
}
