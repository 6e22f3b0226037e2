// The page: asks the server once a second for the current state, over an Engine.IO session of its own, and shows the answer.
// It asks again only after an answer, and only while it is visible, so a hidden page costs nothing.
import { Client } from "./client.js";
import { Chart } from "./charts.js";
import { bytes, count, milliseconds, rate, show } from "./formats.js";
import { History, PERIOD as SAMPLED } from "./history.js";
import { showCloses, showRefusals, showSessions, showUpgrades, showWorkers } from "./tables.js";
import { Watched } from "./watched.js";

const PERIOD = 1000; // milliseconds between two questions
const WATCHING = 400; // the same while a session is watched
const PATIENCE = 8000; // milliseconds without an answer after which the page connects anew
const RETRY = 2000; // milliseconds between two attempts to connect

const element = (id) => document.getElementById(id);
const charts = {
  sessions: new Chart(element("chart-sessions"), [{ name: "open", colour: "accent" }], count, 4),
  messages: new Chart(element("chart-messages"), [{ name: "in", colour: "websocket" }, { name: "out", colour: "accent" }], rate, 2),
  turnover: new Chart(element("chart-turnover"), [
    { name: "opened", colour: "websocket" }, { name: "closed", colour: "polling" }, { name: "refused", colour: "bad" },
  ], rate, 1),
  lag: new Chart(element("chart-lag"), [{ name: "longest", colour: "polling" }], milliseconds, 10),
};
const watched = new Watched(element("watched"), { onChange: () => ask(), onClose: (session) => send({ type: "close", session }) });

let client = null;
let history = new History();
let timer = null;
let asked = null; // the question that waits for its answer, and when it was sent

function say(state, text) {
  element("status").dataset.value = state;
  show(element("status"), text);
}

// ---- questions and answers

function send(question) {
  if (client?.sid && !client.closed) client.send(JSON.stringify(question));
}

function ask() {
  if (document.hidden || asked || !client?.sid || client.closed) return;
  // only here: while the page is not connected, or waits for an answer, the timer is another one
  clearTimeout(timer);
  const question = {
    type: "look", search: element("search").value, order: element("order").value, since: history.since(), ...watched.question(),
  };
  asked = { question, at: performance.now() };
  timer = setTimeout(() => client.close(), PATIENCE);
  send(question);
}

function onAnswer(look) {
  const { question, at } = asked;
  const waited = performance.now() - at;
  asked = null;
  clearTimeout(timer);
  timer = setTimeout(ask, Math.max(50, (watched.session ? WATCHING : PERIOD) - waited));
  say("open", `live over ${client.transport === "websocket" ? "WebSocket" : "polling"}`);
  showAll(look, question);
}

function connect() {
  asked = null;
  say("connecting", "connecting");
  const mine = (client = new Client(["polling", "websocket"], new URL("live/", location.href).pathname));
  const on = (event, listener) => mine.addEventListener(event, ({ detail }) => mine === client && listener(detail));
  on("message", (text) => {
    const message = JSON.parse(text);
    if (message.type === "hello") onHello(message);
    else if (message.type === "look") onAnswer(message);
    else if (message.type === "closed") watched.onClosed(message);
  });
  on("close", (reason) => {
    say("closed", `not connected: ${reason}`);
    clearTimeout(timer);
    timer = setTimeout(connect, RETRY);
  });
}

function onHello({ path, payloads }) {
  show(element("path"), path);
  watched.showsPayloads = payloads;
  history = new History();
  ask();
}

// ---- what is shown

const sum = (values) => values.reduce((total, value) => total + value, 0);

function showAll({ workers, silent: unheard }, question) {
  const heard = new Set(workers.flatMap((worker) => worker.names));
  const silent = unheard.filter((id) => !heard.has(id));
  for (const worker of workers) history.add(worker.worker, worker.history);
  showNow(workers);
  charts.sessions.update(history.sessions(), SAMPLED);
  charts.messages.update(history.messages(), SAMPLED);
  charts.turnover.update(history.turnover(), SAMPLED);
  charts.lag.update(history.lag(), SAMPLED);
  showSessions(workers, question.order, watched);
  showWorkers(workers, silent, history);
  showUpgrades(workers);
  showCloses(workers);
  showRefusals(workers);
  watched.show(workers.map((worker) => worker.watched).find((seen) => seen) ?? null, question);
}

function showNow(workers) {
  const transports = {};
  for (const worker of workers) {
    for (const [name, number] of Object.entries(worker.transports)) transports[name] = (transports[name] ?? 0) + number;
  }
  const total = (field) => sum(workers.map((worker) => worker.totals[field]));
  const latest = (values) => values.map((series) => series.findLast((value) => value !== null) ?? 0);
  const [received, sent] = latest(history.messages());
  show(element("now-sessions"), count(total(0)));
  show(element("now-transports"), Object.entries(transports).map(([name, number]) => `${count(number)} ${name}`).join(", ") || "none");
  show(element("now-in"), rate(received));
  show(element("now-out"), rate(sent));
  show(element("now-buffered"), bytes(sum(workers.map((worker) => worker.buffered))));
  show(element("now-lag"), milliseconds(latest(history.lag())[0]));
  show(element("now-refused"), count(history.refusedInMinute()));
  show(element("all-refused"), `${count(total(3))} in all`);
}

// ---- what the visitor does

element("choice").addEventListener("submit", (event) => event.preventDefault());
element("search").addEventListener("input", () => ask());
element("order").addEventListener("change", () => ask());
document.addEventListener("visibilitychange", () => (document.hidden ? say("paused", "paused") : ask()));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => Object.values(charts).forEach((chart) => chart.draw()));
window.addEventListener("pagehide", () => client.close());
window.addEventListener("pageshow", (event) => event.persisted && connect());
connect();
