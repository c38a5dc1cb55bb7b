// Drives converse.js 14 in headless Chromium as a person does: with the login form, the list of chats, the text field.
// What is for the test to know beyond that comes from a plugin of its own.
//
// It opens a chat with somebody who is no contact only when the server has XEP-0191 (setModelContact waits for
// blocklistInitialized), so the test makes them contacts first.
//
// Commands besides start, reload, screenshot and stop: open {jid}: open the chat with somebody; say {text}: type it
// there and send it; enter {jid, nick}: enter a room; entered {ref, jid}: wait until it is
// in that room, also after a reload, and reply; read {ref, text}: wait until a message with this text is shown, and reply.

import { commands, emit, log } from "./driver.mjs";
import { openPage } from "./browser.mjs";

let page;
let settings;

// initialize starts converse.js in the page, as the page's own script would.
function initialize() {
  return page.evaluate(({ service }) => {
    converse.plugins.add("probe", {
      initialize() {
        const { api } = this._converse;
        api.listen.on("connected", () => emit("online", { jid: api.user.jid(), resumed: api.connection.get().restored }));
        api.listen.on("reconnected", () => emit("online", { jid: api.user.jid(), resumed: true }));
        api.listen.on("disconnected", () => emit("offline", {}));
        api.listen.on("chatRoomInitialized", (room) => (window.entered = room.get("jid")));
        window.probe = api;
      },
    });
    // Resolves when somebody is logged in, so it is not waited for.
    converse.initialize({
      bosh_service_url: service,
      discover_connection_methods: false,
      assets_path: "/dist/",
      i18n: "en",
      loglevel: "warn",
      muc_history_max_stanzas: 20, // by default it asks for none
      show_desktop_notifications: false,
      play_sounds: false,
      whitelisted_plugins: ["probe"],
    });
  }, settings);
}

commands({
  async start(args) {
    settings = args;
    page = await openPage(args);
    await initialize();
    await page.fill("input[name=jid]", `${args.user}@${args.domain}`);
    await page.fill("input[name=password]", args.password);
    await page.click("input[type=submit], button[type=submit]");
  },
  async reload() {
    await page.reload();
    log("reloaded", page.url());
    await initialize();
  },
  open: ({ jid }) => page.evaluate((jid) => window.probe.chats.open(jid, {}, true).then(() => {}), jid),
  enter: ({ jid, nick }) => page.evaluate(({ jid, nick }) => window.probe.rooms.open(jid, { nick }, true).then(() => {}), { jid, nick }),
  async entered({ ref, jid }) {
    await page.waitForFunction((jid) => window.entered === jid, jid, { timeout: 50_000 });
    emit("reply", { ref, xml: "<entered/>" });
  },
  async say({ text }) {
    const field = page.locator("textarea.chat-textarea:visible");
    await field.fill(text);
    await field.press("Enter");
  },
  async read({ ref, text }) {
    await page.locator(".chat-msg__text", { hasText: text }).first().waitFor({ timeout: 50_000 });
    emit("reply", { ref, xml: "<read/>" });
  },
  async screenshot({ ref, file }) {
    await page.screenshot({ path: file });
    emit("reply", { ref, xml: "<done/>" });
  },
  async stop() {
    await page.evaluate(() => window.probe.user.logout());
    await page.locator("input[name=jid]").waitFor({ timeout: 20_000 });
    await page.context().close();
    process.exit(0);
  },
});
