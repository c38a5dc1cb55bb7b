// Drives strophe.js 5 as its README says: enableStreamManagement on, a new connect() after every DISCONNECTED.
//
// What the library leaves to the app, so that the driver does it:
//  - reconnecting, with reset() before the connection is used again;
//  - noticing a dead connection: over WebSocket it has no time-out at all. The app asks for an acknowledgement
//    when it has heard nothing for a while and breaks the socket when nothing comes. It must not call disconnect()
//    for that: that ends the session for good (StreamManagement.onGracefulClose);
//  - not sending before <enabled/> on a fresh session: what the old one left unacknowledged is sent again only then,
//    so it would overtake (StreamManagement._resendPending).
//
// Over BOSH (an http service) the library has no stream management and knows itself when a connection is dead. With
// attach {jid, sid, rid} it goes on with a session that an earlier process had.

import * as strophe from "strophe.js";
import { Outgoing, commands, emit, log } from "./driver.mjs";
import "./xhr.mjs";

const { Strophe } = strophe;
Strophe.setLogLevel(Strophe.LogLevel.FATAL); // broken connections are what this is about
const NS_PING = "urn:xmpp:ping";
const patience = 3000;
const pause = 200;

let conn;
let settings;
let heard = 0;
let leaving = false;
let retrying = null;

const outgoing = new Outgoing(({ xml }) => {
  conn.send(Strophe.Stanza.toElement(xml, true));
  return true;
});

// acknowledged finds out from the library's own list what it has been acknowledged.
function acknowledged() {
  if (!outgoing.online || !conn.sm?.enabled) return;
  const open = new Set(conn.sm.state.unacked.map(({ stanza }) => /^<[^>]*\sid="([^"]*)"/.exec(stanza)?.[1]));
  const first = outgoing.sent.findIndex(({ id }) => open.has(id));
  outgoing.acknowledge(first < 0 ? outgoing.sent.length : first);
}

function onStanza(el) {
  const type = el.getAttribute("type");
  if (el.nodeName === "iq" && type === "get" && el.getElementsByTagNameNS(NS_PING, "ping").length > 0) {
    const answer = strophe.$iq({ type: "result", id: el.getAttribute("id"), to: el.getAttribute("from") });
    conn.send(answer);
  }
  emit("stanza", { xml: Strophe.serialize(el) });
  return true;
}

function ready(resumed) {
  if (!resumed) conn.send(strophe.$pres());
  outgoing.online = true;
  emit("online", { jid: conn.jid, resumed });
}

function listen() {
  for (const name of ["message", "presence", "iq"]) conn.addHandler(onStanza, null, name);
}

function onStatus(status, condition) {
  switch (status) {
    case Strophe.Status.CONNECTED: {
      heard = Date.now();
      listen();
      if (!settings.sm || conn.hasResumed()) ready(conn.hasResumed());
      break;
    }
    case Strophe.Status.ATTACHED:
      listen();
      outgoing.online = true;
      emit("online", { jid: conn.jid, resumed: true });
      break;
    case Strophe.Status.DISCONNECTED:
      outgoing.online = false;
      emit("offline");
      if (leaving) process.exit(0);
      clearTimeout(retrying);
      retrying = setTimeout(connect, pause);
      break;
    case Strophe.Status.AUTHFAIL:
    case Strophe.Status.ERROR:
      log("status", status, condition);
  }
}

function connect() {
  conn.reset();
  heard = Date.now();
  conn.connect(`${settings.user}@${settings.domain}/${settings.resource}`, settings.password, onStatus);
}

// watch is the app's own idea of a dead connection.
function watch() {
  const silent = Date.now() - heard;
  if (silent > patience) {
    heard = Date.now();
    log("nothing heard, breaking the connection");
    conn._proto.socket?.terminate();
  } else if (silent > 500 && outgoing.online && settings.sm) {
    conn.sm.requestAck();
  }
}

commands({
  start(args) {
    settings = args;
    conn = new Strophe.Connection(args.service, { enableStreamManagement: args.sm, streamManagement: { maxUnacked: 5 } });
    conn.rawInput = () => {
      heard = Date.now();
      setImmediate(acknowledged);
    };
    if (args.sm) conn.sm.onEnabled = () => ready(false);
    if (args.attach) conn.attach(args.attach.jid, args.attach.sid, args.attach.rid, onStatus);
    else connect();
    if (!args.service.startsWith("http")) setInterval(watch, 250);
  },
  chat: (item) => outgoing.add(item),
  stanza: ({ xml }) => conn.send(Strophe.Stanza.toElement(xml, true)),
  iq({ ref, xml }) {
    const answer = (el) => emit("reply", { ref, xml: el ? Strophe.serialize(el) : "" });
    conn.sendIQ(Strophe.Stanza.toElement(xml, true), answer, answer, 30_000);
  },
  // What a page keeps for the one after it: the next rid is one that was not used yet.
  session: () => emit("session", { jid: conn.jid, sid: conn._proto.sid, rid: conn._proto.rid }),
  stop() {
    leaving = true;
    conn.disconnect("the test is over");
  },
});
