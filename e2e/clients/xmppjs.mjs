// Drives @xmpp/client 0.14: it reconnects and resumes by itself (@xmpp/reconnect, @xmpp/stream-management).
//
// What the library leaves to the app, or gets wrong, so that the driver does it:
//  - send() before the session is there again rejects, or would be written before <resume/>: the app waits for
//    "online" or "resumed";
//  - there is no event for <enabled/>; what is sent between "online" and <enable/> is not tracked
//    (stream-management/index.js, the filter): the app waits for the <enabled/> that it sees go by;
//  - what a failed resumption leaves unacknowledged is given back with "fail" events for all of it, although
//    <failed h/> says how much of that arrived (stream-management/index.js, failed): the app reads the count itself;
//  - a step of the negotiation that a break interrupts keeps its listener for ever (events/lib/procedure.js), and
//    answers again on the next connection: two <response/>s, two <open/>s, everything unacknowledged sent twice after
//    <resumed/>. The app removes the listeners of the dead connection;
//  - an attempt to connect that is neither answered nor refused, or whose <open/> is not answered, is never given
//    up: the app closes the socket.

import { client } from "@xmpp/client";
import parse from "@xmpp/xml/lib/parse.js";
import WebSocket from "ws";
import { webcrypto } from "node:crypto";
import { Outgoing, commands, emit, log } from "./driver.mjs";

// The library takes both from the platform; older releases of Node have neither.
globalThis.WebSocket = WebSocket;
globalThis.crypto ??= webcrypto;

const NS_SM = "urn:xmpp:sm:3";
const patience = 3000;
const firstPatience = 4000; // while the machine starts everything at once
const timeout = 1000; // of a step of the library's
const firstTimeout = 3000; // less than firstPatience, which finds what the library has given up

let xmpp;
let sm;
let settings;
let moved = Date.now(); // last change of status
let began = false; // it has been online
let leaving = false;
let failedCount = null; // of the last <failed h/>
let given = 0; // "fail" events since then

const outgoing = new Outgoing(async ({ xml }) => {
  try {
    await xmpp.send(parse(xml));
    return true;
  } catch (err) {
    log("not sent:", err.message);
    return false;
  }
});

function ready(resumed) {
  outgoing.online = true;
  emit("online", { jid: xmpp.jid.toString(), resumed });
}

function onNonza(el) {
  if (el.is("failed", NS_SM)) {
    failedCount = el.attrs.h === undefined ? null : Number(el.attrs.h);
    given = 0;
  } else if (el.is("enabled", NS_SM)) {
    setImmediate(async () => {
      await xmpp.send(parse("<presence/>"));
      ready(false);
    });
  }
}

function onStatus(status) {
  moved = Date.now();
  if (["closing", "disconnecting", "disconnect", "offline"].includes(status)) outgoing.online = false;
  if (status !== "disconnect") return;
  emit("offline");
  xmpp.removeAllListeners("nonza"); // see above; nothing but interrupted steps and this driver listens
  xmpp.on("nonza", onNonza);
  if (leaving) process.exit(0);
}

function watch() {
  if (xmpp.status === "online") {
    began = true;
    xmpp.timeout = timeout;
  }
  if (xmpp.status === "online" || Date.now() - moved < (began ? patience : firstPatience)) return;
  moved = Date.now();
  log("stuck in", xmpp.status);
  const socket = xmpp.socket?.socket;
  if (socket) socket.terminate();
  else xmpp.reconnect.scheduleReconnect();
}

commands({
  start(args) {
    settings = args;
    const { service, domain, resource, user: username, password } = args;
    xmpp = client({ service, domain, resource, username, password, timeout: firstTimeout });
    xmpp.reconnect.delay = 200;
    sm = xmpp.streamManagement;
    sm.requestAckInterval = 500;
    sm.timeout = patience;
    sm.on("resumed", () => ready(true));
    sm.on("ack", (el) => {
      if (el.is("message") && outgoing.sent[0]?.id === el.attrs.id) outgoing.acknowledge(1);
    });
    sm.on("fail", (el) => {
      // In the order in which it was sent, before the library forgets how much was acknowledged of that.
      given++;
      const handled = failedCount !== null && sm.outbound + given <= failedCount;
      if (handled && el.is("message") && outgoing.sent[0]?.id === el.attrs.id) outgoing.acknowledge(1);
      else if (!handled) outgoing.retry();
    });
    xmpp.on("error", (err) => log("error:", err.message));
    xmpp.on("status", onStatus);
    xmpp.on("nonza", onNonza);
    xmpp.on("online", () => {
      if (!settings.sm) xmpp.send(parse("<presence/>")).then(() => ready(false));
    });
    xmpp.on("stanza", (el) => emit("stanza", { xml: el.toString() }));
    xmpp.start().catch((err) => log("start:", err.message)); // it tries again by itself
    setInterval(watch, 250);
  },
  chat: (item) => outgoing.add(item),
  stanza: ({ xml }) => xmpp.send(parse(xml)),
  async iq({ ref, xml }) {
    let answer;
    try {
      answer = await xmpp.iqCaller.request(parse(xml), 30_000);
    } catch (err) {
      // Of an error answer the library hands on only the <error/>.
      answer = `<iq xmlns='jabber:client' type='error'>${err.element ?? ""}</iq>`;
    }
    emit("reply", { ref, xml: answer.toString() });
  },
  async stop() {
    leaving = true;
    xmpp.reconnect.stop();
    await xmpp.stop();
    process.exit(0);
  },
});
