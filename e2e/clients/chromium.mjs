// Drives strophe.js 5 in headless Chromium, in pages/strophe.html. The page is the driver; this hands on its commands.

import { commands, emit, log } from "./driver.mjs";
import { openPage } from "./browser.mjs";

let page;

const pass = (name) => (args) => page.evaluate(([name, args]) => window.app[name](args), [name, args]);

commands({
  async start(args) {
    page = await openPage(args);
    await pass("start")(args);
  },
  stanza: pass("stanza"),
  iq: pass("iq"),
  session: pass("session"),
  // how is what the page does when it is there again: attach, with its own note, or restore, with strophe's.
  async reload({ how }) {
    await page.reload();
    log("reloaded", page.url());
    await pass(how)({});
  },
  async screenshot({ ref, file }) {
    await page.screenshot({ path: file });
    emit("reply", { ref, xml: "<done/>" });
  },
  async stop() {
    await pass("stop")({});
    await page.waitForFunction(() => document.getElementById("status").textContent === "disconnected", null, { timeout: 20_000 });
    await page.context().close();
    process.exit(0);
  },
});
