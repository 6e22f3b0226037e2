// Node's socket.io. usage: node node_socketio.js PORT
const { Server } = require("socket.io");
const http = require("http").createServer();
const io = new Server(http, { perMessageDeflate: false });
const data = "x".repeat(1000);

io.on("connection", (socket) => {
  socket.join("room");
  socket.on("echo", (text) => socket.emit("echo", text));
  socket.on("ack", (text, answer) => answer(text));
  socket.on("shout", () => io.to("room").emit("said", data));
});

http.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
