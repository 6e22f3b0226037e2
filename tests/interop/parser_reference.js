// The parsers of npm as a service: one JSON request a line in, one JSON answer a line out.
//
// Packets travel as {type, text} or {type, base64}, bodies as base64. An answer is {result} or {error}.
"use strict";

const path = require("path");
const readline = require("readline");
const vm = require("vm");

const v4 = require("engine.io-parser");
const clientOfV3 = path.dirname(require.resolve("eio3"));
const v3 = require(require.resolve("engine.io-parser", { paths: [clientOfV3] }));
const transports = path.join(path.dirname(require.resolve("engine.io")), "transports");
const { JSONP } = require(path.join(transports, "polling-jsonp.js"));
const { Polling } = require(path.join(transports, "polling.js"));

const isBinary = (data) => typeof data !== "string";
const asBytes = (data) => Buffer.from(data, isBinary(data) ? undefined : "utf8").toString("base64");

const toPacket = ({ type, text, base64 }) => ({
  type,
  data: base64 === undefined ? text : Buffer.from(base64, "base64"),
});

// without data, a packet's is the empty text
const fromPacket = ({ type, data = "" }) =>
  isBinary(data) ? { type, base64: asBytes(data) } : { type, text: data };

const describe = (data) => ({ binary: isBinary(data), base64: asBytes(data) });

// both parsers call back before they return
const taken = (call) => {
  let result;
  call((value) => (result = value));
  return result;
};

const encodeFrame = {
  4: (packet, binary) => taken((callback) => v4.encodePacket(packet, binary, callback)),
  3: (packet, binary) => taken((callback) => v3.encodePacket(packet, binary, false, callback)),
};

const encodePayload = {
  4: (packets) => taken((callback) => v4.encodePayload(packets, callback)),
  3: (packets, binary) => taken((callback) => v3.encodePayload(packets, binary, callback)),
};

const decodePayload = {
  4: (data) => v4.decodePayload(data),
  3: (data) => {
    const packets = [];
    v3.decodePayload(data, (packet) => void packets.push(packet));
    return packets;
  },
};

const operations = {
  encodeFrame: ({ revision, packet, binary }) => describe(encodeFrame[revision](toPacket(packet), binary)),
  encodePayload: ({ revision, packets, binary }) => describe(encodePayload[revision](packets.map(toPacket), binary)),
  decodeFrame({ revision, base64, binary }) {
    const bytes = Buffer.from(base64, "base64");
    return fromPacket({ 3: v3, 4: v4 }[revision].decodePacket(binary ? bytes : bytes.toString()));
  },
  decodePayload({ revision, base64, binary }) {
    const bytes = Buffer.from(base64, "base64");
    return decodePayload[revision](binary ? bytes : bytes.toString()).map(fromPacket);
  },
  // what the reference server's parser is given when a form arrives
  decodeForm({ base64 }) {
    const transport = new JSONP({ _query: { j: "0", EIO: "4" } });
    const onData = Polling.prototype.onData;
    return taken((callback) => {
      Polling.prototype.onData = callback;
      try {
        transport.onData(Buffer.from(base64, "base64").toString());
      } finally {
        Polling.prototype.onData = onData;
      }
    });
  },
  // what a page's function is called with when a script has been loaded
  runScript({ script, index }) {
    const calls = [];
    vm.runInNewContext(script, { ___eio: { [index]: (...parameters) => calls.push(parameters) } });
    return calls;
  },
};

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const { operation, ...request } = JSON.parse(line);
  let answer;
  try {
    answer = { result: operations[operation](request) };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
});
