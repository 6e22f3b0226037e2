// What a Socket.IO client is told to do, and what it tells: in Node (node_client.js) and in a page (page.html).
(function (exported) {
  const EVENTS = ["said", "sum", "welcome", "echo", "asked", "shouted", "message", "volatile"];

  // bytes as JSON has none
  function shown(value) {
    if (value instanceof ArrayBuffer) return shown(new Uint8Array(value));
    if (ArrayBuffer.isView(value)) return { bytes: Array.from(value, (byte) => byte.toString(16).padStart(2, "0")).join("") };
    if (Array.isArray(value)) return value.map(shown);
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, shown(v)]));
    return value;
  }

  // what a test can tell it to do. `bytes` makes binary data of a list of numbers
  exported.operations = ({ io, url, options, tell, bytes }) => {
    const sockets = {};

    function meant(value) {
      if (Array.isArray(value)) return value.map(meant);
      if (value && typeof value === "object") {
        if ("bytes" in value) return bytes((value.bytes.match(/../g) || []).map((digits) => parseInt(digits, 16)));
        return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, meant(v)]));
      }
      return value;
    }

    // by its key, which is the namespace unless a test has several clients
    function open(nsp, key = nsp) {
      const more = key === nsp ? {} : { forceNew: true };
      const socket = (sockets[key] = io(url + (nsp === "/" ? "" : nsp), { reconnection: false, ...more, ...options }));
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

    return {
      open: ({ nsp, key }) => open(nsp, key),
      emit: ({ nsp = "/", key = nsp, args }) => void sockets[key].emit(...meant(args)),
      ask: ({ nsp = "/", key = nsp, args }) =>
        void sockets[key].emit(...meant(args), (...answer) => tell("ack", { nsp, key, args: shown(answer) })),
      volatile: emitVolatile,
      disconnect: ({ nsp = "/", key = nsp }) => void sockets[key].disconnect(),
    };
  };
})(typeof module === "undefined" ? window : module.exports);
