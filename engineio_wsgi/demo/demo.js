// The page: shows what a client does, and lets its windows talk.
import { Client } from "./client.js";

const PERIOD = 400; // milliseconds between two measurements
const KEPT = 150; // measurements: a minute
const THINNEST = 5; // pixels of a bar in the chart

// what the timeline calls the steps of an upgrade; each lasts until the next one begins
const STEPS = {
  connecting: "WebSocket opens",
  probe: "probe \u2192 pong",
  pong: "polling pauses, upgrade",
};

const element = (id) => document.getElementById(id);
const name = "guest-" + Math.random().toString(36).slice(2, 6);
let client = null;
let started = 0;
let samples = [];

function show(id, text) {
  element(id).textContent = text;
  element(id).dataset.value = text;
}

// ---- the timeline: one row for each step, with a bar from its beginning to its end

let rows = []; // {item, begin, end}: milliseconds since the handshake began; a step that goes on has no end

function begin(text, kind) {
  const item = document.createElement("li");
  item.dataset.kind = kind;
  for (const [tag, content] of [["span", text], ["i", ""], ["time", ""]]) {
    item.append(Object.assign(document.createElement(tag), { textContent: content }));
  }
  element("timeline").append(item);
  rows.push({ item, begin: rows.at(-1)?.end ?? 0, end: null });
}

function finish() {
  const row = rows.at(-1);
  if (!row || row.end !== null) return;
  row.end = performance.now() - started;
  row.item.lastChild.textContent = `${(row.end - row.begin).toFixed(1)} ms`;
  for (const { item, begin, end } of rows) {
    item.style.setProperty("--begin", begin / row.end);
    item.style.setProperty("--length", (end - begin) / row.end);
  }
}

function conclude(text, kind) {
  finish();
  const after = rows.at(-1).end;
  begin(text, kind);
  Object.assign(rows.at(-1), { begin: after, end: after }).item.classList.add("end");
  element("total").textContent = kind === "closed" ? "" : `${after.toFixed(0)} ms in all`;
}

function connect(transports) {
  client?.close();
  started = performance.now();
  rows = [];
  element("timeline").replaceChildren();
  element("lines").replaceChildren();
  element("total").textContent = "";
  show("state", "connecting");
  show("transport", "–");
  begin(transports[0] === "polling" ? "handshake over polling" : "handshake over WebSocket", transports[0]);
  const mine = (client = new Client(transports));
  const on = (event, listener) => mine.addEventListener(event, ({ detail }) => mine === client && listener(detail));
  on("open", (handshake) => {
    show("state", "open");
    show("transport", mine.transport);
    element("sid").textContent = handshake.sid.slice(0, 6) + "…";
    if (transports.length === 1 || !handshake.upgrades.includes("websocket")) conclude("session open, and stays on it", mine.transport);
  });
  on("upgrade", (step) => {
    show("transport", mine.transport);
    finish();
    if (step in STEPS) begin(STEPS[step], "websocket");
    else if (step === "upgraded") conclude("session goes on over WebSocket", "websocket");
    else conclude("WebSocket failed; polling goes on", "polling");
  });
  on("message", onMessage);
  on("close", (reason) => {
    show("state", "closed");
    conclude(`${reason}; the buttons connect anew`, "closed");
  });
}

function onMessage(text) {
  const message = JSON.parse(text);
  if (message.type === "count") element("count").textContent = message.count;
  else if (message.type === "chat") addLine(message);
  else if (message.type === "echo") addSample(performance.now() - message.at);
}

// ---- the chat

function addLine(message) {
  const item = document.createElement("li");
  const who = document.createElement("b");
  const isMine = message.from === name;
  item.classList.toggle("mine", isMine);
  who.textContent = isMine ? "you" : message.from;
  item.append(who, message.text);
  element("lines").append(item);
  element("lines").scrollTop = element("lines").scrollHeight;
}

// ---- the chart

function median(numbers) {
  return numbers.toSorted((a, b) => a - b)[numbers.length >> 1];
}

function addSample(milliseconds) {
  samples = [...samples, { milliseconds, transport: client.transport }].slice(-KEPT);
  element("latency").textContent = `now ${milliseconds.toFixed(1)} ms`;
  for (const transport of ["polling", "websocket"]) {
    const its = samples.filter((sample) => sample.transport === transport).map((sample) => sample.milliseconds);
    element(`median-${transport}`).textContent = its.length ? `${median(its).toFixed(1)} ms` : "–";
  }
  draw();
}

/** The top of the scale: round, and above all but the outliers, which would flatten the rest. */
function scaleTop() {
  const sorted = samples.map((sample) => sample.milliseconds).sort((a, b) => a - b);
  const wanted = Math.max(2, 1.25 * (sorted[Math.floor(sorted.length * 0.95)] ?? 0));
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((top) => top >= wanted);
}

function draw() {
  const canvas = element("chart");
  const style = getComputedStyle(document.documentElement);
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (!width) return; // the page is not laid out
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const top = scaleTop();
  const left = 46; // of the scale's numbers
  drawGrid(pen, left, width, height, top, style);
  const places = Math.min(KEPT, Math.floor((width - left) / THINNEST));
  const step = (width - left) / places;
  const shown = samples.slice(-places);
  shown.forEach((sample, index) => {
    const x = left + (places - shown.length + index) * step;
    const tall = Math.max(3, Math.min(1, sample.milliseconds / top) * (height - 10));
    pen.fillStyle = style.getPropertyValue("--" + sample.transport);
    pen.beginPath();
    pen.roundRect(x + step * 0.12, height - tall, step * 0.76, tall, [Math.min(2, step / 3), Math.min(2, step / 3), 0, 0]);
    pen.fill();
    if (sample.milliseconds > top) drawBreak(pen, x, step, style);
  });
}

/** A gap near the top of a bar that is taller than the scale. */
function drawBreak(pen, x, step, style) {
  pen.fillStyle = style.getPropertyValue("--card");
  pen.fillRect(x, 18, step, 3);
}

function drawGrid(pen, left, width, height, top, style) {
  pen.strokeStyle = style.getPropertyValue("--line");
  pen.fillStyle = style.getPropertyValue("--quiet");
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  for (const part of [0, 0.5, 1]) {
    const y = Math.min(height - 0.5, Math.round(10 + (height - 10) * (1 - part)) + 0.5);
    pen.beginPath();
    pen.moveTo(left, y);
    pen.lineTo(width, y);
    pen.stroke();
    pen.fillText(`${Number((top * part).toPrecision(2))} ms`, 0, Math.max(7, Math.min(height - 7, y)));
  }
}

// ---- what the visitor does

for (const button of document.querySelectorAll("[data-transports]")) {
  button.addEventListener("click", () => {
    for (const other of document.querySelectorAll("[data-transports]")) other.ariaPressed = String(other === button);
    connect(button.dataset.transports.split(","));
  });
}

element("chat").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = element("text").value.trim();
  if (text && !client.closed) client.send(JSON.stringify({ type: "chat", from: name, text }));
  element("text").value = "";
});

setInterval(() => {
  if (!client.closed && client.sid) client.send(JSON.stringify({ type: "echo", at: performance.now() }));
}, PERIOD);

element("name").textContent = name;
window.addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
window.addEventListener("pagehide", () => client.close());
window.addEventListener("pageshow", (event) => event.persisted && connect(client.transports));
connect(["polling", "websocket"]);
