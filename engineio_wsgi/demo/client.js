// A small Engine.IO client, protocol revision 4: long-polling, WebSocket, and the upgrade from one to the other.
// It is here to be read. In applications, use the official engine.io-client.

const SEPARATOR = "\x1e";

export class Client extends EventTarget {
  /** @param transports which to use, in order: ["polling", "websocket"], ["polling"] or ["websocket"] */
  constructor(transports = ["polling", "websocket"], path = "/engine.io/") {
    super();
    this.transports = transports;
    this.path = path;
    this.sid = null;
    this.transport = null;
    this.closed = false;
    this.waiting = []; // packets that have not been handed to a transport
    this.polling = false; // a GET is under way
    this.posting = false; // a POST is under way
    this.paused = false; // polling has stopped for an upgrade
    this.#open();
  }

  send(data) {
    this.#sendPacket("4" + data);
  }

  close() {
    if (this.closed) return;
    const goodbye = this.transport === "polling" ? this.#sayGoodbye() : null;
    this.#end("closed by this page", goodbye);
  }

  // ---- the session

  #tell(type, detail = {}) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #open() {
    if (this.transports[0] === "websocket") this.#openWebSocket();
    else this.opened = this.#poll();
    this.transport = this.transports[0];
  }

  #onPacket(packet) {
    if (this.closed && packet[0] !== "0") return;
    this.#watchForSilence();
    const type = packet[0];
    const data = packet.slice(1);
    if (type === "0") this.#onOpen(JSON.parse(data));
    else if (type === "1") this.#end("closed by the server");
    else if (type === "2") this.#sendPacket("3" + data);
    else if (type === "4") this.#tell("message", data);
  }

  #onOpen(handshake) {
    this.sid = handshake.sid;
    if (this.closed) return; // the goodbye waits for the session id
    this.patience = handshake.pingInterval + handshake.pingTimeout;
    this.#tell("open", handshake);
    const upgrade = this.transport === "polling" && this.transports.includes("websocket");
    if (upgrade && handshake.upgrades.includes("websocket")) this.#probe();
  }

  #watchForSilence() {
    clearTimeout(this.silence);
    if (this.patience && !this.closed) this.silence = setTimeout(() => this.#end("ping timeout"), this.patience);
  }

  #sendPacket(packet) {
    if (this.closed) return;
    this.waiting.push(packet);
    this.#flush();
  }

  #flush() {
    if (!this.sid || !this.waiting.length) return;
    if (this.transport === "websocket") {
      for (const packet of this.waiting.splice(0)) this.socket.send(packet);
    } else if (!this.posting && !this.paused) {
      this.posted = this.#post(this.waiting.splice(0));
    }
  }

  /** @param goodbye what the poll has to outlive: a server takes a poll that breaks off for the end of the session */
  #end(reason, goodbye = null) {
    if (this.closed) return;
    this.closed = true;
    clearTimeout(this.silence);
    Promise.resolve(goodbye).then(() => this.aborter?.abort());
    this.socket?.close();
    this.candidate?.close();
    this.#tell("close", reason);
  }

  // ---- polling

  #url(scheme, transport) {
    const sid = this.sid ? `&sid=${encodeURIComponent(this.sid)}` : "";
    return `${scheme}//${location.host}${this.path}?EIO=4&transport=${transport}${sid}`;
  }

  async #poll() {
    this.polling = true;
    try {
      this.aborter = new AbortController();
      const response = await fetch(this.#url(location.protocol, "polling"), { signal: this.aborter.signal, cache: "no-store" });
      if (!response.ok) throw new Error((await response.json()).message);
      for (const packet of (await response.text()).split(SEPARATOR)) this.#onPacket(packet);
    } catch (error) {
      if (!this.closed) this.#end(`polling failed: ${error.message}`);
      return;
    }
    this.polling = false;
    if (this.closed) return;
    if (this.paused) this.#checkIdle();
    else this.#poll();
  }

  async #post(packets) {
    this.posting = true;
    try {
      const response = await fetch(this.#url(location.protocol, "polling"), {
        method: "POST",
        body: packets.join(SEPARATOR),
        keepalive: packets.at(-1) === "1", // so that a goodbye outlives its page
      });
      if (!response.ok) throw new Error((await response.json()).message);
    } catch (error) {
      this.#end(`sending failed: ${error.message}`);
    }
    this.posting = false;
    if (this.paused) this.#checkIdle();
    else this.#flush();
  }

  /** After the handshake, or the server would keep a session that nobody knows; and one POST at a time. */
  async #sayGoodbye() {
    await this.opened;
    await this.posted;
    if (this.sid) await this.#post([...this.waiting.splice(0), "1"]);
  }

  // ---- WebSocket

  #connectWebSocket() {
    return new WebSocket(this.#url(location.protocol === "https:" ? "wss:" : "ws:", "websocket"));
  }

  #openWebSocket() {
    this.socket = this.#connectWebSocket();
    this.#useWebSocket();
  }

  #useWebSocket() {
    this.socket.onmessage = (event) => this.#onPacket(event.data);
    this.socket.onclose = (event) => this.#end(event.reason || `WebSocket closed (${event.code})`);
    this.socket.onerror = null;
  }

  // ---- the upgrade: try the WebSocket beside polling, and move to it when both sides know that it works

  #probe() {
    const socket = (this.candidate = this.#connectWebSocket());
    this.#tell("upgrade", "connecting");
    socket.onopen = () => {
      socket.send("2probe");
      this.#tell("upgrade", "probe");
    };
    socket.onclose = () => this.#abandon();
    socket.onmessage = async (event) => {
      if (event.data !== "3probe") return socket.close();
      this.#tell("upgrade", "pong");
      await this.#pausePolling();
      if (socket.readyState === WebSocket.OPEN) this.#moveTo(socket); // otherwise it is about to be abandoned
    };
  }

  #moveTo(socket) {
    this.candidate = null;
    this.socket = socket;
    this.#useWebSocket();
    socket.send("5");
    this.transport = "websocket";
    this.#tell("upgrade", "upgraded");
    this.#flush();
  }

  /** Resolves when no request of this session is under way any more: the server answers the open one with a noop. */
  #pausePolling() {
    this.paused = true;
    return new Promise((resolve) => {
      this.onIdle = resolve;
      this.#checkIdle();
    });
  }

  #checkIdle() {
    if (!this.polling && !this.posting) this.onIdle?.();
  }

  /** The candidate went away. A poll that is still under way stays; the server may not answer it before the next ping. */
  #abandon() {
    if (this.closed) return;
    this.candidate = this.onIdle = null;
    this.paused = false;
    this.#tell("upgrade", "failed");
    if (!this.polling) this.#poll();
    if (!this.posting) this.#flush();
  }
}
