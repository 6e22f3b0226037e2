// The reference server behind the face of support/serving.py: options and application from the command line, what
// happens as JSON lines on stdout. Only for checking the tests themselves (see CONTRIBUTING).
const { Server } = require("engine.io");
const http = require("http");

const { app, options } = JSON.parse(process.argv[2]);
const engine = new Server(options);
const report = (event, fields) => process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");

const perform = (socket, text) => {
  const [verb, items = []] = JSON.parse(text);
  for (const item of items) socket.send(item.hex === undefined ? item : Buffer.from(item.hex, "hex"));
  if (verb === "close" || verb === "then_close") socket.close();
  if (verb === "discard") socket.close(true);
};
const apps = {
  echo: (socket) => socket.on("message", (data) => socket.send(data)),
  hello: (socket) => socket.send("utf 8 string").send(Buffer.from([0, 1, 2])),
  told: (socket) => socket.on("message", (data) => perform(socket, data.toString())),
  silent: (socket) => socket.on("message", () => {}),
};

engine.on("connection", (socket) => {
  const sid = socket.id;
  report("connection", { sid, transport: socket.transport.name, protocol: socket.protocol });
  socket.on("close", (reason, description) => {
    const unsent = socket.writeBuffer.map((packet) => packet.data ?? "");
    report("close", { sid, reason, description: String(description), unsent });
  });
  socket.on("upgrading", (transport) => report("upgrading", { sid, transport: transport.name }));
  socket.on("upgrade", (transport) => report("upgrade", { sid, transport: transport.name }));
  socket.on("heartbeat", () => report("heartbeat", { sid }));
  if (app) apps[app](socket);
});
engine.on("connection_error", ({ code, message, context }) => {
  report("connection_error", { code, message, context: context ?? {} });
});

const server = http.createServer((request, response) => response.end("application " + request.url));
engine.attach(server);
server.listen(0, "127.0.0.1", () => report("listening", { port: server.address().port }));
process.stdin.on("end", () => process.exit(0)).resume();
