// Headless Chromium for the drivers of pages: a profile of its own, and what the page complains of in the log.

import { chromium } from "playwright-core";
import { emit, log } from "./driver.mjs";

const options = (browser) => ({
  executablePath: browser,
  headless: true,
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    // Nothing is asked for beyond this machine, whatever the page would like to load.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
  ],
});

// openBrowser has a fresh profile, in which contexts keep apart what they store.
export const openBrowser = ({ browser }) => chromium.launch(options(browser));

export const openContext = ({ browser, profile }) => chromium.launchPersistentContext(profile, options(browser));

export async function openPage({ page: url, browser, profile }) {
  const context = await openContext({ browser, profile });
  const page = context.pages()[0] ?? (await context.newPage());
  page.on("console", (m) => log(`console ${m.type()}:`, m.text()));
  page.on("pageerror", (err) => log("page error:", err.message));
  page.on("requestfailed", (r) => log("failed:", r.method(), r.url(), r.failure()?.errorText));
  await page.exposeFunction("emit", emit);
  await page.goto(url);
  return page;
}
