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
    this.posting = false;
    this.paused = false; // polling has stopped for an upgrade
    this.#open();
  }

  send(data) {
    this.#sendPacket("4" + data);
  }

  close() {
    if (this.closed) return;
    if (this.transport === "polling") this.#post(["1"]);
    this.#end("closed by this page");
  }

  // ---- the session

  #tell(type, detail = {}) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #open() {
    if (this.transports[0] === "websocket") this.#openWebSocket();
    else this.#poll();
    this.transport = this.transports[0];
  }

  #onPacket(packet) {
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
      this.#post(this.waiting.splice(0));
    }
  }

  #end(reason) {
    if (this.closed) return;
    this.closed = true;
    clearTimeout(this.silence);
    this.aborter?.abort();
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
    try {
      this.aborter = new AbortController();
      const response = await fetch(this.#url(location.protocol, "polling"), { signal: this.aborter.signal, cache: "no-store" });
      if (!response.ok) throw new Error((await response.json()).message);
      for (const packet of (await response.text()).split(SEPARATOR)) this.#onPacket(packet);
    } catch (error) {
      if (!this.closed) this.#end(`polling failed: ${error.message}`);
      return;
    }
    if (this.closed) return;
    if (this.paused) this.onPaused?.();
    else this.#poll();
  }

  async #post(packets) {
    this.posting = true;
    try {
      const response = await fetch(this.#url(location.protocol, "polling"), { method: "POST", body: packets.join(SEPARATOR) });
      if (!response.ok) throw new Error((await response.json()).message);
    } catch (error) {
      this.#end(`sending failed: ${error.message}`);
    }
    this.posting = false;
    if (this.paused) this.onPosted?.();
    else this.#flush();
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
    this.#tell("upgrade", "probing");
    socket.onopen = () => socket.send("2probe");
    socket.onclose = () => this.closed || this.paused || this.#tell("upgrade", "failed; polling goes on");
    socket.onmessage = async (event) => {
      if (event.data !== "3probe") return socket.close();
      this.#tell("upgrade", "probe answered");
      await this.#pausePolling();
      if (socket.readyState === WebSocket.OPEN) this.#moveTo(socket);
      else this.#resumePolling();
    };
  }

  #moveTo(socket) {
    this.socket = socket;
    this.#useWebSocket();
    socket.send("5");
    this.transport = "websocket";
    this.#tell("upgrade", "upgraded");
    this.#flush();
  }

  /** Resolves when no request of this session is under way any more: the server answers the open one with a noop. */
  async #pausePolling() {
    this.paused = true;
    const poll = new Promise((resolve) => (this.onPaused = resolve));
    const post = this.posting ? new Promise((resolve) => (this.onPosted = resolve)) : null;
    await Promise.all([poll, post]);
  }

  /** The WebSocket went away while polling stopped for it. */
  #resumePolling() {
    if (this.closed) return;
    this.paused = false;
    this.#tell("upgrade", "failed; polling goes on");
    this.#poll();
    this.#flush();
  }
}
