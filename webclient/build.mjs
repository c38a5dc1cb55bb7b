// Builds what the gateway serves, into the folder that is named: node build.mjs dist. The same source and the same
// packages give the same bytes.

import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { build, transform } from "esbuild";

const out = process.argv[2] ?? "dist";
const most = 80_000; // bytes compressed, all that a page with the widget loads

const styles = {
  name: "styles",
  setup(b) {
    b.onLoad({ filter: /\.css$/ }, async ({ path }) => {
      const { code } = await transform(await readFile(path, "utf8"), { loader: "css", minify: true, target: "es2022" });
      return { contents: code.trim(), loader: "text" };
    });
  },
};

const common = { bundle: true, minify: true, target: "es2022", charset: "utf8", legalComments: "none", logLevel: "warning", plugins: [styles], metafile: true };

await rm(out, { recursive: true, force: true });
await mkdir(join(out, "demo"), { recursive: true });
await build({
  ...common,
  entryPoints: ["src/widget.ts"],
  outfile: join(out, "widget.js"),
  format: "esm",
  // strophe.js puts its names into the global scope; they have no business in somebody's page.
  define: { globalThis: "stropheScope" },
  inject: ["src/transport/scope.ts"],
  banner: { js: "/* Holdfast web client. Contains strophe.js 5.0.0, (c) Collecta, Inc. and others, MIT license. */" },
});
await build({ ...common, entryPoints: ["demo/demo.ts", "demo/side.ts"], outdir: join(out, "demo"), format: "esm", external: ["/widget.js"] });
await build({ ...common, entryPoints: ["demo/network.ts"], outdir: join(out, "demo"), format: "iife" });
for (const name of ["index.html", "side.html"]) await writeFile(join(out, "demo", name), await readFile(join("demo", name)));
const { code } = await transform(await readFile("demo/demo.css", "utf8"), { loader: "css", minify: true });
await writeFile(join(out, "demo", "demo.css"), code);

const widget = await readFile(join(out, "widget.js"));
const compressed = gzipSync(widget, { level: 9 }).length;
console.log(`widget.js: ${widget.length} bytes, ${compressed} compressed`);
if (compressed > most) throw new Error(`widget.js is ${compressed} bytes compressed, more than ${most}`);
