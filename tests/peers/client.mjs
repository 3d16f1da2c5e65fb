// Node's http client with a keep-alive agent; prints what it saw as JSON.
import { createHash } from "node:crypto";
import http from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

const url = process.argv[2];
const upload = Buffer.alloc(Number(process.argv[3]), "0123456789");
const tooLong = Number(process.argv[4]);
const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });

function* parts() {
  for (let start = 0; start < upload.length; start += 65521)
    yield upload.subarray(start, start + 65521);
}

async function read(response) {
  const hash = createHash("sha256");
  const found = [];
  let size = 0;
  for await (const part of response) {
    hash.update(part);
    size += part.length;
    if (size < 4096) found.push(part);
  }
  const text = Buffer.concat(found).toString();
  const { statusCode: status, headers } = response;
  return { status, headers, size, sha256: hash.digest("hex"), text };
}

function ask(method, path, { headers = {}, send = (to) => to.end() } = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(url + path, { method, headers, agent });
    const seen = { continued: false };
    // Only now may the agent give its socket to the next request.
    const closed = new Promise((done) => request.on("close", done));
    request.on("continue", () => (seen.continued = true));
    request.on("response", async (response) => {
      try {
        const reused = request.reusedSocket;
        const received = await read(response);
        await closed;
        resolve({ ...received, ...seen, reused });
      } catch (error) {
        reject(error);
      }
    });
    request.on("error", reject);
    send(request);
  });
}

const seen = {};

seen.ports = [];
for (let count = 0; count < 10; count++)
  seen.ports.push((await ask("GET", "/port")).text);

seen.sized = await ask("POST", "/count", {
  headers: { "Content-Length": upload.length },
  send: (request) => request.end(upload),
});

seen.chunked = await ask("POST", "/count", {
  headers: { Trailer: "X-Sum" },
  send: async (request) => {
    await pipeline(Readable.from(parts()), request, { end: false });
    request.addTrailers({ "X-Sum": "7" });
    request.end();
  },
});

seen.expected = await ask("PUT", "/count", {
  headers: { Expect: "100-continue", "Content-Length": upload.length },
  send: (request) => {
    request.on("continue", () => request.end(upload));
    request.flushHeaders();
  },
});

// The upload is refused while it is under way, and before it begins.
seen.refused = await ask("POST", "/count", {
  headers: { "Content-Length": tooLong },
  send: (request) => request.end(Buffer.alloc(tooLong)),
});
seen.unwanted = await ask("POST", "/count", {
  headers: { Expect: "100-continue", "Content-Length": tooLong },
  send: (request) => request.flushHeaders(),
});

seen.head = await ask("HEAD", "/sized?9");
seen.blocks = await ask("GET", "/blocks?160");
seen.bare = [
  (await ask("GET", "/status?204")).status,
  (await ask("GET", "/status?304")).status,
];

const echoes = Array.from({ length: 200 }, (_, number) =>
  ask("POST", "/echo", { send: (request) => request.end(`${number}`) }),
);
seen.echoes = (await Promise.all(echoes)).map((each) => each.text);
seen.port = (await ask("GET", "/port")).reused;

console.log(JSON.stringify(seen));
agent.destroy();
