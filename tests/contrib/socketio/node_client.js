// A Socket.IO client that is driven over JSON lines: node node_client.js PACKAGE URL OPTIONS
const [, , name, url, options] = process.argv;
const loaded = require(name);
const tell = (event, fields) => process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");
const operations = require("./client_core.js").operations({
  io: loaded.io || loaded, url, options: JSON.parse(options), tell, bytes: (numbers) => Buffer.from(numbers),
});

require("readline").createInterface({ input: process.stdin })
  .on("line", (line) => { const { op, ...fields } = JSON.parse(line); operations[op](fields); })
  .on("close", () => process.exit(0));
