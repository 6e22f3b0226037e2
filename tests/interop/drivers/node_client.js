// A client of npm, driven over JSON lines: node node_client.js PACKAGE URL OPTIONS
// PACKAGE is "engine.io-client" or "eio3" (engine.io-client 3.5 under another name).
const [name, url, options] = process.argv.slice(2);
const exported = require(name);
const Socket = exported.Socket || exported;
const report = (event, fields = {}) => process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");
// an empty text reaches a listener as undefined
const described = (data = "") =>
  typeof data === "string" ? { text: data } : { base64: Buffer.from(data).toString("base64") };

const socket = new Socket(url, JSON.parse(options));
socket.on("open", () => report("open", { sid: socket.id, transport: socket.transport.name }));
socket.on("upgrading", (transport) => report("upgrading", { transport: transport.name }));
socket.on("upgrade", (transport) => report("upgrade", { transport: transport.name }));
socket.on("message", (data) => report("message", described(data)));
socket.on("error", (error) => report("error", { message: String(error && error.message) }));
socket.on("close", (reason) => report("close", { reason }));

const commands = {
  send: ({ text, base64 }) => socket.send(base64 === undefined ? text : Buffer.from(base64, "base64")),
  close: () => socket.close(),
};
const lines = require("readline").createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const { op, ...fields } = JSON.parse(line);
  commands[op](fields);
});
lines.on("close", () => process.exit(0));
