// Drives pages with the widget of webclient/ in headless Chromium, as people do: with keys and clicks, and its documented
// API where a test needs to know what it shows.
//
// Commands have a ref and get {event: "result", ref, value} or {event: "result", ref, error}. tab names a page; who names
// a frame of it, of the demo page. Besides start and stop: person {name, profile}: somebody with storage of their own, in
// a browser of their own on a profile if one is given; leave {name}; open {tab, name, url}, reload, close, crash, freeze, thaw; do {tab, js, arg}: call
// a function with the element (an expression, in the page); until {tab, js, arg, ms}: the same until it says something
// true, which is the value; write {tab, text}: into the text field and Enter; press {tab, key}; click {tab, selector};
// look {tab, dark, width, height}; picture {tab, file}; axe {tab}: the violations that axe-core finds, in a few words.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { commands, emit, log } from "./driver.mjs";
import { openBrowser, openContext } from "./browser.mjs";

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let settings;
let browser;
const people = new Map();
const tabs = new Map();

// The function is made here: in the page its Content-Security-Policy would have to allow that.
const code = (args) => (0, eval)(`(${args.js})`);

function tab(args) {
  const page = tabs.get(args.tab);
  if (!page) throw new Error(`no tab ${args.tab}`);
  return page;
}

const frame = (args) => (args.who ? tab(args).frameLocator(`#${args.who} iframe`) : tab(args));
const element = (args) => frame(args).locator("holdfast-chat").first();

async function open(args) {
  const page = await people.get(args.name).newPage();
  tabs.set(args.tab, page);
  page.on("console", (m) => log(args.tab, `console ${m.type()}:`, m.text()));
  page.on("pageerror", (err) => log(args.tab, "page error:", err.stack ?? err.message));
  await page.goto(args.url);
}

// freeze stops the scripts of a page, as browsers do with pages that nobody has looked at for long: headless Chromium
// freezes none, so the debugger does it. What it is asked meanwhile waits until it thaws.
const frozen = new Map();

async function freeze(args) {
  const page = tab(args);
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Debugger.enable");
  await devtools.send("Debugger.pause");
  frozen.set(args.tab, devtools);
}

async function thaw(args) {
  const devtools = frozen.get(args.tab);
  frozen.delete(args.tab);
  await devtools.send("Debugger.resume");
  await devtools.send("Debugger.disable");
  await devtools.detach();
}

const handlers = {
  async person({ name, profile }) {
    if (profile) {
      people.set(name, await openContext({ ...settings, profile }));
      return;
    }
    browser ??= openBrowser(settings);
    people.set(name, await (await browser).newContext());
  },
  async leave({ name }) {
    await people.get(name).close();
  },
  async open(args) {
    await open(args);
  },
  async reload(args) {
    await tab(args).reload();
  },
  async close(args) {
    await tab(args).close();
    tabs.delete(args.tab);
  },
  freeze,
  thaw,
  // crash ends the page's process as if it were killed, and opens the page anew.
  async crash(args) {
    const page = tab(args);
    const url = page.url();
    page.goto("chrome://crash").catch(() => {});
    await page.waitForEvent("crash");
    await page.close();
    await open({ ...args, url });
  },
  do: (args) => element(args).evaluate(code(args), args.arg),
  async until(args) {
    const end = Date.now() + (args.ms ?? 15_000);
    for (;;) {
      const value = await element(args).evaluate(code(args), args.arg);
      if (value) return value;
      if (Date.now() > end) throw new Error(`in vain: ${args.js}; the element has ${await element(args).evaluate((el) => JSON.stringify([el.connection, el.messages]).slice(0, 3000))}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  },
  async write(args) {
    const field = element(args).locator("textarea");
    await field.fill(args.text);
    await field.press("Enter");
  },
  async press(args) {
    await tab(args).keyboard.press(args.key);
  },
  async click(args) {
    await frame(args).locator(args.selector).first().click();
  },
  async look(args) {
    const page = tab(args);
    await page.emulateMedia({ colorScheme: args.dark ? "dark" : "light", reducedMotion: args.still ? "reduce" : "no-preference" });
    await page.setViewportSize({ width: args.width, height: args.height });
  },
  async picture(args) {
    await tab(args).screenshot({ path: args.file });
  },
  async axe(args) {
    const page = tab(args);
    await page.evaluate(axe);
    return page.evaluate(async () => {
      const { violations } = await globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] });
      return violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => `${n.target.join(" ")} ${n.failureSummary}`).join("; ").slice(0, 600)}`);
    });
  },
};

const answered = Object.fromEntries(
  Object.entries(handlers).map(([name, handler]) => [
    name,
    async (args) => {
      try {
        emit("result", { ref: args.ref, value: (await handler(args)) ?? null });
      } catch (err) {
        emit("result", { ref: args.ref, error: String(err?.message ?? err) });
      }
    },
  ]),
);

commands({
  ...answered,
  start(args) {
    settings = args;
  },
});
