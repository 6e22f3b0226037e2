// Bun's engine, on uWebSockets: usage: bun bun_engine.js PORT
const { Server } = require("@socket.io/bun-engine");

const engine = new Server({ path: "/engine.io/", pingInterval: 25000, pingTimeout: 20000 });
const sockets = new Set();

engine.on("connection", (socket) => {
  sockets.add(socket);
  socket.on("close", () => sockets.delete(socket));
  socket.on("data", (data) => {
    if (data.startsWith("broadcast:")) {
      const [, count, size] = data.split(":").map(Number);
      for (let i = count; i; i--) for (const other of sockets) other.write("b".repeat(size));
    } else {
      socket.write(data);
    }
  });
});

Bun.serve({ port: Number(process.argv[2]), hostname: "127.0.0.1", ...engine.handler() });
