// The page: shows what a client does, and lets its windows talk.
import { Client } from "./client.js";

const PERIOD = 500; // milliseconds between two measurements
const KEPT = 120; // measurements in the chart

const element = (id) => document.getElementById(id);
const name = "guest-" + Math.random().toString(36).slice(2, 6);
let client = null;
let started = 0;
let samples = [];

function show(id, text) {
  element(id).textContent = text;
  element(id).dataset.value = text;
}

function note(text, kind) {
  const item = document.createElement("li");
  const time = document.createElement("time");
  item.dataset.kind = kind;
  item.append(text, time);
  time.textContent = `${Math.round(performance.now() - started)} ms`;
  element("timeline").append(item);
  while (element("timeline").children.length > 6) element("timeline").firstChild.remove();
}

function connect(transports) {
  client?.close();
  started = performance.now();
  element("timeline").replaceChildren();
  element("lines").replaceChildren();
  show("state", "connecting");
  show("transport", "–");
  note(`handshake over ${transports[0]}`, transports[0]);
  const mine = (client = new Client(transports));
  const on = (event, listener) => mine.addEventListener(event, ({ detail }) => mine === client && listener(detail));
  on("open", (handshake) => {
    show("state", "open");
    show("transport", mine.transport);
    element("sid").textContent = handshake.sid.slice(0, 6) + "…";
    note("session open", mine.transport);
  });
  on("upgrade", (step) => {
    show("transport", mine.transport);
    note(`WebSocket: ${step}`, "websocket");
  });
  on("message", onMessage);
  on("close", (reason) => {
    show("state", "closed");
    note(reason, "closed");
  });
}

function onMessage(text) {
  const message = JSON.parse(text);
  if (message.type === "count") element("count").textContent = message.count;
  else if (message.type === "chat") addLine(message);
  else if (message.type === "echo") addSample(performance.now() - message.at);
}

function addLine(message) {
  const item = document.createElement("li");
  const who = document.createElement("b");
  who.textContent = message.from === name ? "you" : message.from;
  item.append(who, message.text);
  element("lines").append(item);
  element("lines").scrollTop = element("lines").scrollHeight;
}

function addSample(milliseconds) {
  samples = [...samples, { milliseconds, transport: client.transport }].slice(-KEPT);
  const sorted = samples.map((sample) => sample.milliseconds).sort((a, b) => a - b);
  element("latency").textContent = `${milliseconds.toFixed(1)} ms · median ${sorted[sorted.length >> 1].toFixed(1)} ms`;
  draw();
}

function draw() {
  const canvas = element("chart");
  const style = getComputedStyle(document.documentElement);
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const top = Math.max(5, ...samples.map((sample) => sample.milliseconds)) * 1.15;
  drawGrid(pen, width, height, top, style);
  const step = width / KEPT;
  samples.forEach((sample, index) => {
    const x = (KEPT - samples.length + index) * step;
    const y = height - (sample.milliseconds / top) * height;
    pen.fillStyle = style.getPropertyValue("--" + sample.transport);
    pen.beginPath();
    pen.roundRect(x + 1, Math.min(y, height - 2), Math.max(2, step - 2), height, 2);
    pen.fill();
  });
}

function drawGrid(pen, width, height, top, style) {
  pen.strokeStyle = style.getPropertyValue("--line");
  pen.fillStyle = style.getPropertyValue("--quiet");
  pen.font = "11px system-ui, sans-serif";
  for (const part of [0.25, 0.5, 0.75]) {
    const y = Math.round(height * part) + 0.5;
    pen.beginPath();
    pen.moveTo(0, y);
    pen.lineTo(width, y);
    pen.stroke();
    pen.fillText(`${(top * (1 - part)).toFixed(1)} ms`, 2, y - 4);
  }
}

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

window.addEventListener("resize", draw);
window.addEventListener("pagehide", () => client.close());
window.addEventListener("pageshow", (event) => event.persisted && connect(client.transports));
connect(["polling", "websocket"]);
