// Pictures, made of elements and not of markup.

const svg = "http://www.w3.org/2000/svg";

const paths = {
  queued: ["M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18", "M12 7v5l3.5 2"],
  sending: ["M12 3a9 9 0 1 1-6.4 2.6"],
  held: ["M5 12.5l4.5 4.5L19 7.5"],
  delivered: ["M2 12.5l4.5 4.5L16 7.5", "M11 15.5l1.5 1.5L22 7.5"],
  read: ["M2 12c2.5-4.5 6-6.5 10-6.5s7.5 2 10 6.5c-2.500 4.500-6 6.500-10 6.500s-7.500-2-10-6.500z", "M12 9a3 3 0 1 0 0 6a3 3 0 1 0 0-6"],
  failed: ["M12 3l9.500 17h-19z", "M12 10v4.500", "M12 17v.500"],
  send: ["M4 12h15", "M13 6l6 6l-6 6"],
  chat: ["M4 5h16v11h-9l-5 4v-4h-2z"],
  close: ["M6 6l12 12", "M18 6l-12 12"],
} as const;

export type Icon = keyof typeof paths;

export function icon(name: Icon): SVGSVGElement {
  const el = document.createElementNS(svg, "svg");
  el.setAttribute("viewBox", "0 0 24 24");
  el.setAttribute("aria-hidden", "true");
  el.setAttribute("class", `icon ${name}`);
  for (const d of paths[name]) {
    const path = document.createElementNS(svg, "path");
    path.setAttribute("d", d);
    el.append(path);
  }
  return el;
}
