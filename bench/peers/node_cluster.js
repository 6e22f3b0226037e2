// Node's engine.io in 4 processes of its cluster module: usage: node node_cluster.js PORT WORKERS
// SIGHUP is a rolling restart, as process managers do it: a new process starts, and when it listens, an old one closes its clients and
// ends. Sessions belong to one process, and without a balancer that knows them only WebSockets without polling work.
const cluster = require("cluster");
const [port, count] = process.argv.slice(2).map(Number);

if (cluster.isPrimary) {
  const fork = () => new Promise((resolve) => {
    const worker = cluster.fork();
    worker.once("listening", () => resolve(worker));
  });
  let workers = Promise.all(Array.from({ length: count }, fork));
  process.on("SIGHUP", async () => {
    const old = await workers;
    const fresh = [];
    for (const worker of old) {
      fresh.push(await fork());
      worker.process.kill("SIGTERM");
    }
    workers = Promise.resolve(fresh);
  });
} else {
  const { Server } = require("engine.io");
  const http = require("http").createServer();
  const server = new Server({ perMessageDeflate: false });
  server.attach(http);
  server.on("connection", (socket) => socket.on("message", (data) => socket.send(data)));
  process.on("SIGTERM", () => {
    http.close();
    server.close();
    setTimeout(() => process.exit(0), 500);
  });
  http.listen({ port, host: "127.0.0.1", backlog: 4096 });
}
