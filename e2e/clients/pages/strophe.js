// The page around strophe.js 5 that chromium.mjs drives: it says with window.emit what the drivers under Node say, and
// shows a little of it. Settings and what attaches to the session stay over a reload, as in an app.

/* global Strophe, $pres, $iq, emit */

let conn;
let settings;

const show = (text) => (document.getElementById("status").textContent = text);

function onStanza(el) {
  if (el.nodeName === "iq" && el.getAttribute("type") === "get" && el.getElementsByTagNameNS("urn:xmpp:ping", "ping").length > 0) {
    conn.send($iq({ type: "result", id: el.getAttribute("id"), to: el.getAttribute("from") }));
  }
  const body = el.getElementsByTagName("body")[0];
  if (body) {
    const line = document.createElement("li");
    line.textContent = `${el.getAttribute("from")}: ${body.textContent}`;
    document.getElementById("chat").append(line);
  }
  emit("stanza", { xml: Strophe.serialize(el) });
  return true;
}

function online(resumed) {
  for (const name of ["message", "presence", "iq"]) conn.addHandler(onStanza, null, name);
  if (!resumed) conn.send($pres());
  show(`${conn.jid} is ${resumed ? "attached" : "connected"}`);
  emit("online", { jid: conn.jid, resumed });
}

function onStatus(status, condition) {
  switch (status) {
    case Strophe.Status.CONNECTED:
      online(false);
      break;
    case Strophe.Status.ATTACHED:
      online(true);
      break;
    case Strophe.Status.DISCONNECTED:
      show("disconnected");
      emit("offline", {});
      break;
    case Strophe.Status.CONNFAIL:
    case Strophe.Status.AUTHFAIL:
    case Strophe.Status.ERROR:
      show(`status ${status}: ${condition}`);
      emit("log", { text: `status ${status} ${condition}` });
  }
}

function open() {
  Strophe.setLogLevel(Strophe.LogLevel.WARN);
  conn = new Strophe.Connection(settings.service, { keepalive: true });
}

const state = () => ({ jid: conn.jid, sid: conn._proto.sid, rid: conn._proto.rid });

// The app's own note of the session, for attach; strophe keeps one too, for restore (option keepalive).
window.addEventListener("pagehide", () => {
  if (conn) sessionStorage.setItem("app", JSON.stringify({ settings, session: state() }));
});

window.app = {
  start(args) {
    settings = args;
    open();
    conn.connect(`${args.user}@${args.domain}/${args.resource}`, args.password, onStatus);
  },
  attach() {
    const kept = JSON.parse(sessionStorage.getItem("app"));
    settings = kept.settings;
    open();
    conn.attach(kept.session.jid, kept.session.sid, kept.session.rid, onStatus);
  },
  restore() {
    settings = JSON.parse(sessionStorage.getItem("app")).settings;
    open();
    conn.restore(null, onStatus);
  },
  stanza: ({ xml }) => conn.send(Strophe.Stanza.toElement(xml, true)),
  iq({ ref, xml }) {
    const answer = (el) => emit("reply", { ref, xml: el ? Strophe.serialize(el) : "" });
    conn.sendIQ(Strophe.Stanza.toElement(xml, true), answer, answer, 30_000);
  },
  session: () => emit("session", state()),
  stop() {
    conn.disconnect("the test is over");
  },
};
