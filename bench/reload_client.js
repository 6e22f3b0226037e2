// Clients that live through a restart of their server: node reload_client.js PORT CLIENTS PERIOD TRANSPORTS
// The real engine.io-client, which does not reconnect by itself; here it does so as socket.io-client does by default: after
// 1 s, 2 s, 4 s and then 5 s, each ± 50 % at random. Every client sends a number each PERIOD ms, and the server echoes it.
// Prints "ready" when all have got echoes. A first line on stdin says that the restart begins, a second one that it is over; when all
// clients are back then, it prints what they saw as JSON.
const http = require("http");
let requests = 0;
for (const name of ["request", "get"]) {
  const original = http[name];
  http[name] = (...args) => {
    requests++;
    return original.apply(http, args);
  };
}
const { Socket } = require("engine.io-client");

const [port, count, period] = process.argv.slice(2, 5).map(Number);
const transports = process.argv[5].split(",");
const DELAY = 1000, LONGEST = 5000, JITTER = 0.5;
// ms for which the clients are watched after the restart
const AFTERWARDS = 3000;
const now = () => performance.now();
let restarted = 0;

class Client {
  constructor() {
    this.next = 0;
    this.waiting = new Set();
    this.lost = this.disordered = this.closes = this.refusals = this.attempts = 0;
    this.heard = this.gap = 0;
    this.back = 0;
    this.open();
  }

  open() {
    this.closed = false;
    this.socket = new Socket(`ws://127.0.0.1:${port}`, { transports });
    let opened = false;
    this.socket.on("open", () => {
      opened = true;
      this.attempts = 0;
      this.timer = setInterval(() => this.say(), period);
    });
    this.socket.on("message", (data) => this.hear(Number(data)));
    this.socket.on("error", () => {});
    this.socket.on("close", () => {
      clearInterval(this.timer);
      this.closed = true;
      if (opened) this.closes++;
      else this.refusals++;
      this.lost += this.waiting.size;
      this.waiting.clear();
      setTimeout(() => this.open(), this.delay());
    });
  }

  delay() {
    const delay = DELAY * 2 ** this.attempts++;
    return Math.min(delay + (Math.random() * 2 - 1) * JITTER * delay, LONGEST);
  }

  say() {
    this.waiting.add(this.next);
    this.socket.send(String(this.next++));
  }

  hear(number) {
    const first = this.waiting.values().next().value;
    if (number !== first) this.disordered++;
    this.waiting.delete(number);
    const time = now();
    if (restarted) {
      this.gap = Math.max(this.gap, time - this.heard);
      if (this.closes && !this.back) this.back = time - restarted;
    }
    this.heard = time;
  }
}

const clients = Array.from({ length: count }, () => new Client());
const all = (condition) => clients.every(condition);
const sum = (what) => clients.reduce((total, client) => total + client[what], 0);

function when(condition, then) {
  const timer = setInterval(() => {
    if (condition()) {
      clearInterval(timer);
      then();
    }
  }, 50);
}

function begin() {
  restarted = now();
  requests = 0;
  for (const client of clients) client.closes = client.refusals = client.lost = 0;
}

function settle() {
  const over = now();
  const isBack = (client) => !client.closed && now() - client.heard < 2000 + period && (!client.closes || client.back);
  when(() => now() - over > AFTERWARDS && all(isBack), report);
}

function report() {
  const gaps = clients.map((client) => client.gap / 1000).sort((a, b) => a - b);
  const at = (share) => gaps[Math.min(gaps.length - 1, Math.floor(share * gaps.length))];
  const back = Math.max(...clients.map((client) => client.back)) / 1000;
  console.log(JSON.stringify({
    clients: count, closed: clients.filter((client) => client.closes).length, closes: sum("closes"), refusals: sum("refusals"),
    requests, back, lost: sum("lost"), disordered: sum("disordered"), p50: at(0.5), p99: at(0.99), max: at(1),
  }));
  process.exit(0);
}

const isUp = (client) => client.heard && client.socket.transport.name === "websocket" && !client.socket.upgrading;
when(() => all(isUp), () => {
  console.log("ready");
  const steps = [begin, settle];
  require("readline").createInterface({ input: process.stdin }).on("line", () => steps.shift()());
});
