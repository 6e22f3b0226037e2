// Node's engine.io with ws at their best: no deflate, broadcasts framed once (as socket.io's adapter does it).
// usage: node node_engineio.js PORT
const { Server } = require("engine.io");
const { Sender } = require("ws");
const http = require("http").createServer({ keepAliveTimeout: 60000 });

const server = new Server({ perMessageDeflate: false, pingInterval: 25000, pingTimeout: 20000 });
server.attach(http);

function broadcast(text) {
  const frame = Sender.frame(Buffer.from("4" + text), { readOnly: false, mask: false, rsv1: false, opcode: 1, fin: true });
  const options = { wsPreEncodedFrame: frame };
  for (const id in server.clients) server.clients[id].send(text, options);
}

server.on("connection", (socket) => {
  socket.on("message", (data) => {
    if (data.startsWith("broadcast:")) {
      const [, count, size] = data.split(":").map(Number);
      for (let i = count; i; i--) broadcast("b".repeat(size));
    } else {
      socket.send(data);
    }
  });
});

http.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
