// A Socket.IO client that is driven over JSON lines: node node_client.js PACKAGE URL OPTIONS
const [, , name, url, options] = process.argv;
const loaded = require(name);
const io = loaded.io || loaded;
const sockets = {};
const EVENTS = ["said", "sum", "welcome", "echo", "asked", "shouted", "message", "volatile"];

function tell(event, fields) {
  process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");
}

// bytes as JSON has none
function shown(value) {
  if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) return { bytes: Buffer.from(value).toString("hex") };
  if (Array.isArray(value)) return value.map(shown);
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, shown(v)]));
  return value;
}

function meant(value) {
  if (Array.isArray(value)) return value.map(meant);
  if (value && typeof value === "object") {
    if ("bytes" in value) return Buffer.from(value.bytes, "hex");
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, meant(v)]));
  }
  return value;
}

// by its key, which is the namespace unless a test has several clients
function open(nsp, key = nsp) {
  const more = key === nsp ? {} : { forceNew: true };
  const socket = (sockets[key] = io(url + (nsp === "/" ? "" : nsp), { reconnection: false, ...more, ...JSON.parse(options) }));
  socket.on("connect", () => tell("connect", { nsp, key, id: socket.id, transport: socket.io.engine.transport.name }));
  socket.on("disconnect", (reason) => tell("disconnect", { nsp, key, reason }));
  for (const failed of ["connect_error", "error"]) {
    socket.on(failed, (error) => tell("connect_error", { nsp, key, message: error.message || String(error) }));
  }
  for (const event of EVENTS) socket.on(event, (...args) => tell(event, { nsp, key, args: shown(args) }));
  socket.on("question", (data, answer) => answer(data));
  const manager = socket.io;
  if (nsp === "/") {
    const watch = () => manager.engine.on("upgrade", (transport) => tell("upgrade", { transport: transport.name }));
    if (manager.engine) watch();
    else manager.on("open", watch);
  }
}

// the client drops what is volatile as long as its transport is busy
function emitVolatile({ nsp = "/", key = nsp, args }) {
  if (sockets[key].io.engine.transport.writable) sockets[key].volatile.emit(...meant(args));
  else setTimeout(emitVolatile, 5, { key, args });
}

const OPS = {
  open: ({ nsp, key }) => open(nsp, key),
  emit: ({ nsp = "/", key = nsp, args }) => sockets[key].emit(...meant(args)),
  ask: ({ nsp = "/", key = nsp, args }) =>
    sockets[key].emit(...meant(args), (...answer) => tell("ack", { nsp, key, args: shown(answer) })),
  volatile: emitVolatile,
  disconnect: ({ nsp = "/", key = nsp }) => sockets[key].disconnect(),
};

require("readline").createInterface({ input: process.stdin })
  .on("line", (line) => { const { op, ...fields } = JSON.parse(line); OPS[op](fields); })
  .on("close", () => process.exit(0));
